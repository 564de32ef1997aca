/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Processes that are made, and by which: what a process descends from is known even if those have
 * ended before anybody can look. The tracepoint comes before the child runs.
 */
#ifndef NETSPY_FORK_H
#define NETSPY_FORK_H

#include "attempt.h"

static __always_inline int on_birth(bool direct, struct task_struct *parent,
				    struct task_struct *child)
{
	struct netspy_fork f = {.kind = NETSPY_KIND_FORK};
	struct task_struct *leader;

	f.pid = READ(direct, child, tgid);
	/* A thread of a process is none of its own. */
	if ((__u32)READ(direct, child, pid) != f.pid)
		return 0;
	f.task_start_ns = READ(direct, child, start_boottime);
	leader = READ(direct, parent, group_leader);
	f.ppid = READ(direct, leader, tgid);
	f.parent_start_ns = READ(direct, leader, start_boottime);
	read_comm(f.parent, direct, leader);
	if (output(&f, sizeof(f))) {
		struct netspy_counters *n = this_cpu_counters();

		COUNT(n, exec_lost);
	}
	return 0;
}

#endif

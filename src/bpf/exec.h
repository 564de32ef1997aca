/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Programs that start: what outlives a process that is gone before anybody can look at it. */
#ifndef NETSPY_EXEC_H
#define NETSPY_EXEC_H

#include "attempt.h"

/* One record at a time per processor; too large for the stack. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct netspy_exec);
} exec_scratch SEC(".maps");

static __always_inline int on_exec(bool direct, struct task_struct *task, struct linux_binprm *bprm)
{
	struct netspy_exec *e;
	__u64 start, total;
	__u32 zero = 0;
	struct task_struct *leader;
	struct mm_struct *mm;
	long len;

	e = bpf_map_lookup_elem(&exec_scratch, &zero);
	if (!e)
		return 0;
	e->kind = NETSPY_KIND_EXEC;
	e->pid = bpf_get_current_pid_tgid() >> 32;
	e->time_ns = bpf_ktime_get_boot_ns();
	leader = READ(direct, task, group_leader);
	e->task_start_ns = READ(direct, leader, start_boottime);
	/* The binary that runs; of a script that is its interpreter. */
	len = bpf_probe_read_kernel_str(e->file, sizeof(e->file), READ(direct, bprm, interp));
	e->file_len = len > 0 ? len - 1 : 0;
	mm = READ(direct, task, mm);
	start = READ(direct, mm, arg_start);
	total = READ(direct, mm, arg_end) - start;
	e->args_total = total;
	if (total > sizeof(e->args))
		total = sizeof(e->args);
	e->args_len = total;
	if (total && bpf_probe_read_user(e->args, total, (const void *)start))
		e->args_len = 0;
	if (output(e, sizeof(*e))) {
		struct netspy_counters *n = this_cpu_counters();

		COUNT(n, exec_lost);
	}
	return 0;
}

#endif

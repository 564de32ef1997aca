/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The processes that descend from some: known by the forks that made them.
 *
 * Whoever forks is at that moment what it descends from, whatever becomes of it later: a process
 * whose parent is gone (a daemon's double fork), that has a session of its own, or that has moved
 * to another control group, is a descendant still. None of these, nor the chain of parents at the
 * time of the attempt, would tell that; and a control group of its own would need a hierarchy that
 * can be written to. The tracepoint comes before the child runs, so that nothing it does is missed.
 *
 * What is kept is the process (the kernel's tgid) and when it began: an id that was given to
 * another process is no match, even if the end of the first went by unseen.
 */
#ifndef NETSPY_DESCENDANTS_H
#define NETSPY_DESCENDANTS_H

#include "config.h"

const volatile bool cfg_only_descendants = false;
/* The namespace that the ids in `ancestors` are of; 0 for the kernel's first. */
const volatile __u64 cfg_pidns_dev = 0;
const volatile __u64 cfg_pidns_ino = 0;

/* Those whose descendants are wanted, but not they themselves. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, FILTER_ENTRIES);
	__type(key, __u32);
	__type(value, __u8);
} ancestors SEC(".maps");

/* The start of each descendant that lives. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, __u64);
} descendants SEC(".maps");

static __always_inline bool is_descendant(__u32 pid, __u64 start_ns)
{
	__u64 *known = bpf_map_lookup_elem(&descendants, &pid);

	return known && *known == start_ns;
}

/* As the kernel's interface has it (include/uapi/linux/bpf.h). */
struct bpf_pidns_info {
	__u32 pid;
	__u32 tgid;
};

/* The id of the current process as user space knows it; 0 if it has none there. */
static __always_inline __u32 current_ancestor(void)
{
	struct bpf_pidns_info in_namespace = {};

	if (!cfg_pidns_ino)
		return bpf_get_current_pid_tgid() >> 32;
	if (bpf_get_ns_current_pid_tgid(cfg_pidns_dev, cfg_pidns_ino, &in_namespace,
					sizeof(in_namespace)))
		return 0;
	return in_namespace.tgid;
}

static __always_inline bool has_descendants(bool direct, struct task_struct *task)
{
	struct task_struct *leader = READ(direct, task, group_leader);
	__u32 ancestor = current_ancestor();

	return is_descendant(READ(direct, task, tgid), READ(direct, leader, start_boottime)) ||
	       bpf_map_lookup_elem(&ancestors, &ancestor);
}

/* Threads are of the process that they are in, and no processes of their own. */
static __always_inline int on_fork(bool direct, struct task_struct *parent,
				   struct task_struct *child)
{
	__u32 pid = READ(direct, child, tgid);
	struct netspy_counters *n;
	__u64 start;

	if ((__u32)READ(direct, child, pid) != pid || !has_descendants(direct, parent))
		return 0;
	start = READ(direct, child, start_boottime);
	if (bpf_map_update_elem(&descendants, &pid, &start, BPF_ANY)) {
		n = this_cpu_counters();
		COUNT(n, unfollowed);
	}
	return 0;
}

/*
 * A thread ends; the process does with its last one (do_exit() in kernel/exit.c). Its id is free
 * for others only later.
 */
static __always_inline int on_exit(bool direct, struct task_struct *task)
{
	struct signal_struct *signal = READ(direct, task, signal);
	__u32 pid = READ(direct, task, tgid), ancestor;

	if (READ(direct, signal, live.counter))
		return 0;
	ancestor = current_ancestor();
	bpf_map_delete_elem(&descendants, &pid);
	bpf_map_delete_elem(&ancestors, &ancestor);
	return 0;
}

#endif

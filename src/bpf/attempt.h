/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* One attempt: whose it is, where it goes, whether it is wanted, and its way into the ring. */
#ifndef NETSPY_ATTEMPT_H
#define NETSPY_ATTEMPT_H

#include "config.h"

static __always_inline struct task_struct *current_task(void)
{
	/* Since 5.11; before, the same pointer without its type. */
	if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_get_current_task_btf))
		return bpf_get_current_task_btf();
	return (struct task_struct *)bpf_get_current_task();
}

/* Whose attempt it is. Only meaningful in process context. */
static __always_inline void read_identity(struct netspy_conn *c)
{
	struct task_struct *task = current_task();
	struct task_struct *leader = BPF_CORE_READ(task, group_leader);
	struct task_struct *parent = BPF_CORE_READ(leader, real_parent);
	__u64 pid_tgid = bpf_get_current_pid_tgid();

	c->pid = pid_tgid >> 32;
	c->tid = (__u32)pid_tgid;
	c->uid = (__u32)bpf_get_current_uid_gid();
	c->cgroup_id = bpf_get_current_cgroup_id();
	/* As strings: older kernels leave remains of a longer name behind the closing zero, which
	 * would make names that are keys differ. */
	bpf_get_current_comm(c->thread, sizeof(c->thread));
	if (c->pid == c->tid)
		__builtin_memcpy(c->comm, c->thread, sizeof(c->comm));
	else
		BPF_CORE_READ_STR_INTO(&c->comm, leader, comm);
	c->task_start_ns = BPF_CORE_READ(leader, start_boottime);
	c->ppid = BPF_CORE_READ(parent, tgid);
	BPF_CORE_READ_STR_INTO(&c->parent, parent, comm);
}

/* IPv4-mapped: ::ffff:a.b.c.d (RFC 4291, 2.5.5.2). */
static __always_inline bool is_mapped(const __u8 *addr)
{
	const __u32 *word = (const __u32 *)addr;

	return word[0] == 0 && word[1] == 0 && word[2] == bpf_htonl(0x0000ffff);
}

static __always_inline void set_remote_v6(struct netspy_conn *c, const __u8 *addr)
{
	if (is_mapped(addr)) {
		c->family = AF_INET;
		__builtin_memcpy(c->remote, addr + 12, 4);
	} else {
		c->family = AF_INET6;
		__builtin_memcpy(c->remote, addr, 16);
	}
}

/* This side's address as the socket has it. */
static __always_inline void read_local(struct netspy_conn *c, struct sock *sk)
{
	if (c->family == AF_INET) {
		__be32 addr = BPF_CORE_READ((struct inet_sock *)sk, inet_saddr);

		__builtin_memcpy(c->local, &addr, 4);
	} else {
		BPF_CORE_READ_INTO(&c->local, sk, __sk_common.skc_v6_rcv_saddr);
	}
	c->local_port = bpf_ntohs(BPF_CORE_READ((struct inet_sock *)sk, inet_sport));
}

/* Both addresses as the socket has them: what it uses, whatever the caller asked for. */
static __always_inline void read_addresses(struct netspy_conn *c, struct sock *sk, __u16 family)
{
	c->remote_port = bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport));
	if (family == AF_INET) {
		__be32 addr = BPF_CORE_READ(sk, __sk_common.skc_daddr);

		c->family = AF_INET;
		__builtin_memcpy(c->remote, &addr, 4);
	} else {
		__u8 addr[16];

		BPF_CORE_READ_INTO(&addr, sk, __sk_common.skc_v6_daddr);
		set_remote_v6(c, addr);
	}
	read_local(c, sk);
}

static __always_inline bool is_loopback(const struct netspy_conn *c)
{
	const __u32 *word = (const __u32 *)c->remote;

	if (c->family == AF_INET)
		return c->remote[0] == 127;
	return word[0] == 0 && word[1] == 0 && word[2] == 0 && word[3] == bpf_htonl(1);
}

/* Whether the filters leave the attempt out. */
static __always_inline bool is_filtered(const struct netspy_conn *c)
{
	if (cfg_no_unix && c->family == AF_UNIX)
		return true;
	if (cfg_only_pid && !bpf_map_lookup_elem(&only_pid, &c->pid))
		return true;
	if (cfg_only_uid && !bpf_map_lookup_elem(&only_uid, &c->uid))
		return true;
	if (cfg_only_cgroup && !bpf_map_lookup_elem(&only_cgroup, &c->cgroup_id))
		return true;
	if (cfg_only_comm && !bpf_map_lookup_elem(&only_comm, c->comm) &&
	    !bpf_map_lookup_elem(&only_comm, c->thread))
		return true;
	if (cfg_only_port) {
		__u32 port = c->remote_port;

		if (c->family == AF_UNIX || !bpf_map_lookup_elem(&only_port, &port))
			return true;
	}
	if (cfg_no_loopback && c->family != AF_UNIX && is_loopback(c))
		return true;
	if (cfg_only_cidr) {
		if (c->family == AF_INET) {
			struct netspy_cidr4 key = {.prefix_len = 32};

			__builtin_memcpy(key.addr, c->remote, 4);
			return !bpf_map_lookup_elem(&only_cidr4, &key);
		}
		if (c->family == AF_INET6) {
			struct netspy_cidr6 key = {.prefix_len = 128};

			__builtin_memcpy(key.addr, c->remote, 16);
			return !bpf_map_lookup_elem(&only_cidr6, &key);
		}
		return true;
	}
	return false;
}

/* The reader drains on a timer and is woken only when much has piled up: a wake-up per event costs
 * the observed process several microseconds. */
static __always_inline __u64 wakeup_flags(void)
{
	if (bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) >= cfg_wake_bytes)
		return BPF_RB_FORCE_WAKEUP;
	return BPF_RB_NO_WAKEUP;
}

static __always_inline long output(void *record, __u64 size)
{
	return bpf_ringbuf_output(&events, record, size, wakeup_flags());
}

/* Whether a sweep has shown the attempt, in whichever phase. */
static __always_inline bool was_swept(const struct netspy_conn *c)
{
	return c->swept - c->start_ns <= NETSPY_PHASE_UNSETTLED;
}

/* A new version of the record of a sock. `last` says that there will be no other, so that a failure
 * cannot be made good by a later sweep. */
static __always_inline void show(struct netspy_conn *c, struct netspy_counters *n, bool last)
{
	bool sent;

	if (c->flags & NETSPY_F_FILTERED)
		return;
	sent = output(c, sizeof(*c)) == 0;
	if (!sent) {
		if (c->flags & NETSPY_F_SHOWN || was_swept(c))
			COUNT(n, updates_lost);
		else if (last)
			COUNT(n, ring_full);
		else
			return;
	}
	/* What follows is an update, if of a record that was lost. */
	c->flags |= NETSPY_F_SHOWN;
	if (!(c->flags & NETSPY_F_SETTLED)) {
		c->flags |= NETSPY_F_SETTLED;
		COUNT(n, settled);
	}
}

#endif

/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What existed before capture began: an iterator goes through the open files of all tasks once,
 * after everything else is attached. What it finds is written for its reader, and held like what
 * the other hooks have seen begin, so that they see it end. What is held already is left alone.
 */
#ifndef NETSPY_EXISTING_H
#define NETSPY_EXISTING_H

#include "inbound.h"

#define SOCK_BINDPORT_LOCK 8 /* include/net/sock.h */

/* The task that holds a file, rather than the current one, which is the reader of the iterator. */
static __always_inline void read_holder(struct netspy_conn *c, struct task_struct *task)
{
	struct task_struct *leader = task->group_leader;
	struct task_struct *parent = leader->real_parent;

	c->pid = task->tgid;
	c->tid = task->pid;
	read_comm(c->thread, true, task);
	read_comm(c->comm, true, leader);
	c->task_start_ns = leader->start_boottime;
	c->uid = task->real_cred->uid.val;
	c->cgroup_id = task->cgroups->dfl_cgrp->kn->id;
	c->ppid = parent->tgid;
	read_comm(c->parent, true, parent->group_leader);
	read_cwd(c, true, task);
}

/* Whether the sock was made for a connection that came in: the incoming interface of the last
 * packet of the handshake is kept on it (tcp_v4_syn_recv_sock(), tcp_v6_syn_recv_sock()) where
 * other socks have that for sending multicasts, which those of streams cannot set. */
static __always_inline bool is_passive(bool direct, struct tcp_sock *tp)
{
	struct ipv6_pinfo *v6;

	if (READ(direct, tp, inet_conn.icsk_inet.mc_index))
		return true;
	if (READ(direct, tp, inet_conn.icsk_inet.sk.__sk_common.skc_family) != AF_INET6 ||
	    !bpf_core_field_exists(tp->inet_conn.icsk_inet.pinet6))
		return false;
	v6 = READ(direct, tp, inet_conn.icsk_inet.pinet6);
	return v6 && READ(direct, v6, mcast_oif);
}

/* What a sock in this state is doing; NETSPY_PHASE_FAILED for nothing. */
static __always_inline __u8 phase_of_state(int state)
{
	switch (state) {
	case TCP_CLOSE:
		return NETSPY_PHASE_FAILED;
	case TCP_SYN_SENT:
		return NETSPY_PHASE_PENDING;
	case TCP_LISTEN:
		return NETSPY_PHASE_LISTENING;
	}
	return NETSPY_PHASE_OPEN;
}

/* Writes the record for the reader, unless the filters leave it out, and holds it. */
static __always_inline void write_existing(struct seq_file *seq, __u64 key, struct netspy_conn *c)
{
	struct netspy_counters *n = this_cpu_counters();
	struct netspy_conn *held;
	__u8 phase = c->phase;
	int err;

	if (is_filtered(c))
		return;
	/* An attempt that found no room: it is in the books as lost. */
	if (any_unheld && bpf_map_lookup_elem(&unheld, &key))
		return;
	/* There is no time that the kernel would know. */
	c->start_ns = cfg_start_ns + ++found_existing;
	c->outcome_ns = bpf_ktime_get_boot_ns();
	c->flags |= NETSPY_F_PREEXISTING | NETSPY_F_NO_START | NETSPY_F_SHOWN | NETSPY_F_SETTLED;
	c->swept = c->start_ns + c->phase;
	c->phase = NETSPY_PHASE_ENTERING;
	err = bpf_map_update_elem(&conns, &key, c, BPF_NOEXIST);
	if (err == -EEXIST)
		return;
	held = bpf_map_lookup_elem(&conns, &key);
	if (err || !held) {
		/* It would be shown as open for ever. */
		COUNT(n, updates_lost);
		return;
	}
	c->phase = phase;
	err = bpf_seq_write(seq, c, sizeof(*c));
	if (err) {
		/* Its buffer is full: the iterator comes here again when it is empty. */
		bpf_map_delete_elem(&conns, &key);
		return;
	}
	/* Their end counts as settled. */
	if (is_datagram(c))
		COUNT(n, waiting);
	held->phase = phase;
}

static __always_inline void existing_tcp(bool direct, struct seq_file *seq,
					 struct task_struct *task, struct sock *sk)
{
	struct netspy_conn c = {.kind = NETSPY_KIND_CONN};
	struct tcp_sock *tp = tcp_of(direct, sk);
	__u64 key = (__u64)sk;
	int state, later;

	if (!tp)
		return;
	state = READ(direct, sk, __sk_common.skc_state);
	c.phase = phase_of_state(state);
	if (c.phase == NETSPY_PHASE_FAILED)
		return;
	c.sock_type = SOCK_STREAM;
	c.protocol = is_subflow(direct, tp) ? IPPROTO_MPTCP : IPPROTO_TCP;
	read_netns(&c, direct, sk);
	if (c.phase == NETSPY_PHASE_LISTENING)
		set_listener(&c, direct, sk);
	else
		read_addresses(&c, direct, sk, READ(direct, sk, __sk_common.skc_family));
	if (c.phase == NETSPY_PHASE_OPEN) {
		c.evidence = NETSPY_EVIDENCE_SOCKET_STATE;
		if (is_passive(direct, tp))
			c.flags |= NETSPY_F_INBOUND;
	}
	if (cfg_no_inbound && c.flags & NETSPY_F_INBOUND)
		return;
	read_holder(&c, task);
	write_existing(seq, key, &c);
	/* The hooks of its state left it alone until now. */
	later = READ(direct, sk, __sk_common.skc_state);
	if (later == state)
		return;
	if (state == TCP_LISTEN)
		on_listen_end(direct, sk);
	else
		on_later_state(direct, sk, state, later);
}

static __always_inline bool is_udp(__u16 protocol)
{
	return protocol == IPPROTO_UDP || protocol == IPPROTO_UDPLITE;
}

/* Whether its owner has chosen the port, rather than the kernel when something was sent. */
static __always_inline bool has_own_port(bool direct, struct sock *sk)
{
	return READ_BIT(direct, sk, sk_userlocks) & SOCK_BINDPORT_LOCK;
}

/* A datagram socket that has a peer, or that others may send to. */
static __always_inline void existing_datagram(bool direct, struct seq_file *seq,
					      struct task_struct *task, struct sock *sk)
{
	struct netspy_conn c = {.kind = NETSPY_KIND_CONN};
	__u64 key = (__u64)sk;

	c.sock_type = READ(direct, sk, sk_type);
	c.protocol = READ(direct, sk, sk_protocol);
	if (READ(direct, sk, __sk_common.skc_state) == TCP_ESTABLISHED) {
		c.phase = NETSPY_PHASE_OPEN;
		c.evidence = NETSPY_EVIDENCE_SOCKET_STATE;
		read_addresses(&c, direct, sk, READ(direct, sk, __sk_common.skc_family));
		clear_no_ports(&c);
	} else {
		if (cfg_no_inbound || !is_udp(c.protocol) || !has_own_port(direct, sk))
			return;
		c.phase = NETSPY_PHASE_LISTENING;
		set_listener(&c, direct, sk);
		key = bound_key(key);
		any_bound = true;
	}
	read_netns(&c, direct, sk);
	read_holder(&c, task);
	write_existing(seq, key, &c);
}

static __always_inline int existing_socket(bool direct, struct seq_file *seq,
					   struct task_struct *task, struct sock *sk)
{
	__u16 protocol, type;

	if (!sk || !is_inet(READ(direct, sk, __sk_common.skc_family)))
		return 0;
	type = READ(direct, sk, sk_type);
	if (may_be_datagram(type)) {
		/* Else it would be shown as open for ever. */
		if (cfg_hold && !cfg_reach)
			existing_datagram(direct, seq, task, sk);
		return 0;
	}
	if (type != SOCK_STREAM)
		return 0;
	protocol = READ(direct, sk, sk_protocol);
	if (protocol == IPPROTO_TCP) {
		existing_tcp(direct, seq, task, sk);
	} else if (protocol == IPPROTO_MPTCP) {
		sk = first_subflow(sk);
		if (sk)
			existing_tcp(false, seq, task, sk);
	}
	return 0;
}

#endif

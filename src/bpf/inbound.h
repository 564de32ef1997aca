/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Connections that a process of this host accepts.
 *
 * The states of an incoming connection are handled in softirq, where the current task is a
 * bystander; whose it is shows when it is accepted. From there on the sock is held like that of an
 * attempt, and the hooks of TCP find its end.
 */
#ifndef NETSPY_INBOUND_H
#define NETSPY_INBOUND_H

#include "call.h"
#include "listen.h"

/* The entry of a sock that was connected already is complete. The states of the sock went on
 * meanwhile, and their hooks leave alone what is still entering: an end that they came to is made
 * up for. (Should one run just between the two steps, the end of the sock will conclude.) */
static __always_inline void has_entered(bool direct, struct sock *sk, __u64 key,
					struct netspy_conn *held, struct netspy_counters *n)
{
	held->phase = NETSPY_PHASE_OPEN;
	if (READ(direct, sk, __sk_common.skc_state) != TCP_CLOSE)
		return;
	held = bpf_map_lookup_elem(&conns, &key);
	if (held && held->phase == NETSPY_PHASE_OPEN)
		tcp_closed(direct, sk, key, held, TCP_CLOSE, n);
}

/* accept() returns this sock; of MPTCP, the first subflow. */
static __always_inline void on_accept(bool direct, struct sock *sk)
{
	struct netspy_conn c = {.kind = NETSPY_KIND_CONN};
	struct netspy_counters *n = this_cpu_counters();
	struct netspy_conn *held;
	struct tcp_sock *tp;
	__u64 key = (__u64)sk;
	int err;

	if (READ(direct, sk, sk_protocol) != IPPROTO_TCP)
		return;
	tp = tcp_of(direct, sk);
	if (!tp)
		return;
	c.flags = NETSPY_F_INBOUND | NETSPY_F_NO_START;
	c.phase = NETSPY_PHASE_ENTERING;
	c.evidence = NETSPY_EVIDENCE_ACCEPT;
	c.start_ns = bpf_ktime_get_boot_ns();
	c.outcome_ns = c.start_ns;
	c.sock_type = SOCK_STREAM;
	c.protocol = is_subflow(direct, tp) ? IPPROTO_MPTCP : IPPROTO_TCP;
	read_identity(&c);
	read_netns(&c, direct, sk);
	read_addresses(&c, direct, sk, READ(direct, sk, __sk_common.skc_family));
	/* One that was reset before has given its port back. */
	read_local_tcp(&c, direct, sk, tp);

	COUNT(n, attempts);
	if (is_filtered(&c)) {
		COUNT(n, filtered);
		return;
	}
	err = hold(key, &c, n);
	held = bpf_map_lookup_elem(&conns, &key);
	if (err || !held) {
		COUNT(n, map_full);
		return;
	}
	COUNT(n, waiting);
	c.phase = NETSPY_PHASE_OPEN;
	show_entering(held, &c, n);
	has_entered(direct, sk, key, held, n);
}

static __always_inline bool is_inet(__u16 family)
{
	return family == AF_INET || family == AF_INET6;
}

/* The first subflow of an MPTCP socket, which stands for it: behind a pointer that no helper makes
 * one with a type (bpf_skc_to_mptcp_sock() takes none from fentry). NULL if there is none. */
static __always_inline struct sock *first_subflow(struct sock *msk)
{
	if (cfg_locked_down || !bpf_core_type_exists(struct mptcp_sock))
		return NULL;
	return READ(false, (struct mptcp_sock *)msk, first);
}

static __always_inline int on_accept_socket(bool direct, struct sock *sk)
{
	if (!is_inet(READ(direct, sk, __sk_common.skc_family)))
		return 0;
	if (READ(direct, sk, sk_protocol) == IPPROTO_MPTCP) {
		sk = first_subflow(sk);
		if (sk)
			on_accept(false, sk);
		return 0;
	}
	on_accept(direct, sk);
	return 0;
}

/* Whether the search for what existed before has found the sock behind this one meanwhile. */
static __always_inline bool is_found_already(bool direct, struct sock *sk)
{
	struct netspy_conn *held;
	__u64 key = (__u64)sk;

	if (READ(direct, sk, sk_protocol) == IPPROTO_MPTCP)
		key = (__u64)first_subflow(sk);
	held = bpf_map_lookup_elem(&conns, &key);
	return held && held->flags & NETSPY_F_PREEXISTING &&
	       held->remote_port == bpf_ntohs(READ(direct, sk, __sk_common.skc_dport));
}

static __always_inline int on_accepted(bool direct, struct sock *sk)
{
	/* Its file was open for others to see before this. */
	if (!sk || (found_existing && is_found_already(direct, sk)))
		return 0;
	return on_accept_socket(direct, sk);
}

/* accept() returns this file descriptor, or an error. */
static __always_inline int on_accept_fd(long fd)
{
	if (fd < 0)
		return 0;
	return CAN_CAST ? on_accepted(true, typed_sock_of_fd(fd))
			: on_accepted(false, sock_of_fd(fd));
}

#endif

/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* TCP socks that listen: no attempts, and counted nowhere. */
#ifndef NETSPY_LISTEN_H
#define NETSPY_LISTEN_H

#include "tcp.h"

/* Where it listens. There is no other side. */
static __always_inline void set_listener(struct netspy_conn *c, bool direct, struct sock *sk)
{
	c->flags |= NETSPY_F_INBOUND | NETSPY_F_LISTENER | NETSPY_F_NO_REMOTE | NETSPY_F_NO_START;
	c->family = READ(direct, sk, __sk_common.skc_family);
	read_local(c, direct, sk);
	if (c->family == AF_INET6 && is_mapped(c->local)) {
		c->family = AF_INET;
		__builtin_memcpy(c->local, c->local + 12, 4);
		__builtin_memset(c->local + 4, 0, 12);
	}
}

/* listen(): in the context of its caller, with the sock locked. */
static __always_inline void listen_begins(bool direct, struct sock *sk, __u64 key,
					  struct netspy_counters *n)
{
	struct netspy_conn c = {.kind = NETSPY_KIND_CONN};
	struct tcp_sock *tp = tcp_of(direct, sk);
	struct netspy_conn *held;

	if (!tp)
		return;
	c.phase = NETSPY_PHASE_LISTENING;
	c.start_ns = bpf_ktime_get_boot_ns();
	c.outcome_ns = c.start_ns;
	c.sock_type = SOCK_STREAM;
	c.protocol = is_subflow(direct, tp) ? IPPROTO_MPTCP : IPPROTO_TCP;
	read_identity(&c);
	read_netns(&c, direct, sk);
	set_listener(&c, direct, sk);
	if (is_filtered(&c))
		return;
	if (hold(key, &c, n)) {
		COUNT(n, updates_lost);
		return;
	}
	COUNT(n, waiting);
	/* Without bind() it gets its port right after this, and a sweep shows it. */
	held = c.local_port ? bpf_map_lookup_elem(&conns, &key) : NULL;
	if (held)
		show(held, n, false);
}

/* The sock listens no longer. */
static __always_inline int on_listen_end(bool direct, struct sock *sk)
{
	__u64 key = (__u64)sk;
	struct netspy_conn *c = bpf_map_lookup_elem(&conns, &key);
	struct tcp_sock *tp;

	if (!c || c->phase != NETSPY_PHASE_LISTENING)
		return 0;
	/* It may have given its port back already, but knows it still. */
	tp = tcp_of(direct, sk);
	if (tp)
		c->local_port = bpf_ntohs(READ(direct, tp, inet_conn.icsk_inet.inet_sport));
	listen_ends(key, c, this_cpu_counters());
	return 0;
}

/* All changes of state. */
static __always_inline int on_state(bool direct, struct sock *sk, int oldstate, int newstate)
{
	if (oldstate == TCP_LISTEN)
		return on_listen_end(direct, sk);
	if (newstate != TCP_LISTEN)
		return on_set_state(direct, sk, oldstate, newstate);
	if (!cfg_no_inbound && READ(direct, sk, sk_protocol) == IPPROTO_TCP)
		listen_begins(direct, sk, (__u64)sk, this_cpu_counters());
	return 0;
}

#endif

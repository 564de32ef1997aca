/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * connect() by those whom system-call tracepoints do not see: io_uring, programs of 32 bits, fast
 * open by sendto(). The cgroup hooks run before the socket is asked. What comes of it they do not
 * see: TCP's states tell, or else the state in which the call has left the socket.
 */
#ifndef NETSPY_CALLERS_H
#define NETSPY_CALLERS_H

#include "call.h"

static __always_inline void begin_called(struct bpf_sock_addr *ctx, __u64 key, bool v6,
					 struct netspy_counters *n)
{
	struct netspy_conn c = {.kind = NETSPY_KIND_CONN, .phase = NETSPY_PHASE_CALLED};
	struct netspy_conn *old = bpf_map_lookup_elem(&conns, &key);
	struct sock *sk = (struct sock *)key;

	/* What the sock did before. */
	if (old && is_datagram(old))
		end_peer(key, NETSPY_END_DISCONNECT, n);
	else if (old)
		superseded(old, n);

	c.start_ns = bpf_ktime_get_boot_ns();
	/* When it ended is not seen. */
	c.flags = NETSPY_F_NO_START;
	c.sock_type = ctx->type;
	c.protocol = ctx->protocol;
	c.remote_port = bpf_ntohs((__u16)ctx->user_port);
	if (v6) {
		__u32 addr[4];

		addr[0] = ctx->user_ip6[0];
		addr[1] = ctx->user_ip6[1];
		addr[2] = ctx->user_ip6[2];
		addr[3] = ctx->user_ip6[3];
		set_remote_v6(&c, (__u8 *)addr);
	} else {
		__u32 addr = ctx->user_ip4;

		c.family = AF_INET;
		__builtin_memcpy(c.remote, &addr, 4);
	}
	clear_no_ports(&c);
	if (is_datagram(&c))
		c.flags |= counts_of(&c);
	read_netns(&c, false, sk);
	read_identity(&c);
	if (is_filtered(&c))
		c.flags |= NETSPY_F_FILTERED;
	if (bpf_map_update_elem(&conns, &key, &c, BPF_ANY)) {
		/* TCP gets another chance when it sends its SYN. */
		if (c.protocol == IPPROTO_TCP)
			return;
		COUNT(n, attempts);
		COUNT(n, map_full);
		return;
	}
	any_called = true;
	COUNT(n, attempts);
	if (c.flags & NETSPY_F_FILTERED)
		COUNT(n, filtered);
	else
		COUNT(n, waiting);
}

/* Whether the kernel itself connects, to add a path to an MPTCP connection. */
static __always_inline bool is_of_kernel(struct bpf_sock_addr *ctx, __u64 key)
{
	struct tcp_sock *tp = (struct tcp_sock *)key;

	if (READ(true, bpf_get_current_task_btf(), flags) & PF_KTHREAD)
		return true;
	return ctx->protocol == IPPROTO_TCP && is_subflow(false, tp) && is_join(false, tp);
}

/* Always lets the call go on. */
static __always_inline int on_connect_by(struct bpf_sock_addr *ctx, bool v6)
{
	__u64 key;

	if (!any_called && current_syscall() == NR_connect) {
		note_start((__u64)ctx->sk);
		return 1;
	}
	key = address_of(ctx->sk);
	if (any_called) {
		struct netspy_conn *c = bpf_map_lookup_elem(&conns, &key);

		/* An earlier call, of which nothing is to come any more. */
		if (c && c->phase == NETSPY_PHASE_CALLED)
			conclude_called(c, key, this_cpu_counters());
	}
	if (current_syscall() == NR_connect)
		note_start(key);
	else if (!is_of_kernel(ctx, key))
		begin_called(ctx, key, v6, this_cpu_counters());
	return 1;
}

#endif

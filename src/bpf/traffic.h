/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What open connections have carried so far, for who asks. */
#ifndef NETSPY_TRAFFIC_H
#define NETSPY_TRAFFIC_H

#include "flow.h"
#include "tcp.h"

/* Names the types in the BTF of this object, for the skeleton. */
const volatile struct netspy_traffic type_of_traffic = {};
const volatile struct netspy_walk type_of_walk = {};

static __always_inline void read_tcp_traffic(struct netspy_traffic *t, __u64 key)
{
	struct sock *sk = (struct sock *)key;
	struct tcp_sock *tp = (struct tcp_sock *)key;

	t->bytes_sent = payload_sent(false, tp);
	t->bytes_received = payload_received(false, sk, tp);
	t->retransmits = READ(false, tp, total_retrans);
	t->srtt_us = READ(false, tp, srtt_us) >> 3;
}

/* What the connection has carried; false where there is nothing to tell. */
static __always_inline bool read_traffic(struct netspy_traffic *t, const struct netspy_conn *c,
					 __u64 key)
{
	struct sock *sk = (struct sock *)key;

	if (c->phase != NETSPY_PHASE_OPEN || c->flags & NETSPY_F_FILTERED)
		return false;
	__builtin_memset(t, 0, sizeof(*t));
	t->start_ns = c->start_ns;
	t->tid = c->tid;
	t->flags = c->flags;
	if (is_datagram(c)) {
		t->is_datagram = true;
		t->bytes_sent = c->bytes_sent;
		t->datagrams_sent = c->datagrams_sent;
		return true;
	}
	read_tcp_traffic(t, key);
	/* The sock may have gone meanwhile, and its memory be another's. */
	return READ(false, sk, __sk_common.skc_dport) == bpf_htons(c->remote_port);
}

/* Answers of a walk that user space asked for. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} answers SEC(".maps");

/* One entry of a walk; 1 ends it, where the answers have no room left. User space takes them then,
 * and walks again from there. */
static __always_inline long answer(struct netspy_walk *walk, const struct netspy_conn *c, __u64 key)
{
	struct netspy_traffic t;

	if (walk->seen < walk->skip) {
		walk->seen++;
		return 0;
	}
	if (read_traffic(&t, c, key) &&
	    bpf_ringbuf_output(&answers, &t, sizeof(t), BPF_RB_NO_WAKEUP)) {
		walk->is_full = 1;
		return 1;
	}
	walk->seen++;
	return 0;
}

#endif

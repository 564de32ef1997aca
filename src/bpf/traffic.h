/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What open connections have carried so far, for who asks. */
#ifndef NETSPY_TRAFFIC_H
#define NETSPY_TRAFFIC_H

#include "flow.h"
#include "tcp.h"

/* Names the type in the BTF of this object, for the skeleton. */
const volatile struct netspy_traffic type_of_traffic = {};

static __always_inline void write_traffic(struct seq_file *seq, const struct netspy_conn *c,
					  struct netspy_traffic *t)
{
	t->start_ns = c->start_ns;
	t->tid = c->tid;
	/* Should there be no room, the kernel calls again for this entry, in another buffer. */
	bpf_seq_write(seq, t, sizeof(*t));
}

static __always_inline void write_datagram_traffic(struct seq_file *seq,
						   const struct netspy_conn *c)
{
	struct netspy_traffic t = {
	    .flags = c->flags,
	    .is_datagram = true,
	    .bytes_sent = c->bytes_sent,
	    .datagrams_sent = c->datagrams_sent,
	};

	write_traffic(seq, c, &t);
}

static __always_inline void write_tcp_traffic(struct seq_file *seq, const struct netspy_conn *c,
					      __u64 key)
{
	struct sock *sk = (struct sock *)key;
	struct tcp_sock *tp = (struct tcp_sock *)key;
	struct netspy_traffic t = {
	    .flags = c->flags,
	    .bytes_sent = payload_sent(false, tp),
	    .bytes_received = payload_received(false, sk, tp),
	    .retransmits = READ(false, tp, total_retrans),
	    .srtt_us = READ(false, tp, srtt_us) >> 3,
	};

	/* The sock may have gone meanwhile, and its memory be another's. */
	if (READ(false, sk, __sk_common.skc_dport) == bpf_htons(c->remote_port))
		write_traffic(seq, c, &t);
}

static __always_inline int on_traffic(struct seq_file *seq, const struct netspy_conn *c, __u64 key)
{
	if (c->phase != NETSPY_PHASE_OPEN || c->flags & NETSPY_F_FILTERED)
		return 0;
	if (is_datagram(c))
		write_datagram_traffic(seq, c);
	else
		write_tcp_traffic(seq, c, key);
	return 0;
}

#endif

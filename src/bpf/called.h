/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Attempts of which only the beginning was seen (callers.h): how they end. */
#ifndef NETSPY_CALLED_H
#define NETSPY_CALLED_H

#include "attempt.h"

/* The attempt is over; the socket's state tells how. */
static __always_inline void resolve_called(struct netspy_conn *c, __u64 key)
{
	struct sock *sk = (struct sock *)key;
	__u8 state = READ(false, sk, __sk_common.skc_state);

	c->outcome_ns = c->start_ns;
	c->evidence = NETSPY_EVIDENCE_SOCKET_STATE;
	c->phase = NETSPY_PHASE_FAILED;
	/* Datagram sockets have the state while they have a peer. */
	if (c->protocol != IPPROTO_TCP && state == TCP_ESTABLISHED) {
		c->phase = NETSPY_PHASE_OPEN;
		read_local(c, false, sk);
	}
}

/* Makes the entry one that the others know, or removes it. */
static __always_inline void conclude_called(struct netspy_conn *c, __u64 key,
					    struct netspy_counters *n)
{
	/* There are none under lockdown. */
	if (cfg_locked_down)
		return;
	resolve_called(c, key);
	if (c->phase == NETSPY_PHASE_OPEN)
		return;
	show(c, n, true);
	bpf_map_delete_elem(&conns, &key);
}

#endif

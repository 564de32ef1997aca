/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Changes of state that no program has seen: a sweep comes upon them.
 *
 * Programs do not run for what softirqs handle while the kernel has them off: under another run of
 * the same program and of its stand-in (standin.h), or on top of a task in whose context it runs
 * none, as the kernels of some sandboxes do for their own agent. The hooks come before the state is
 * stored, so an entry that is behind what its sock says has missed one.
 */
#ifndef NETSPY_UNSEEN_H
#define NETSPY_UNSEEN_H

#include "tcp.h"

/* Whether the entry is still the one that was copied. */
static __always_inline bool is_same(const struct netspy_conn *entry, const struct netspy_conn *c)
{
	return entry->start_ns == c->start_ns && entry->phase == c->phase;
}

/* Whether the sock has come to its end, or another is in its place. */
static __always_inline bool has_gone(const struct netspy_conn *c, struct sock *sk)
{
	return READ(false, sk, __sk_common.skc_state) == TCP_CLOSE ||
	       READ(false, sk, __sk_common.skc_dport) != bpf_htons(c->remote_port) ||
	       READ(false, sk, __sk_common.skc_num) != c->local_port;
}

/* Long enough for a task that has run a hook to store the state. */
#define STORED_NS (1000ULL * 1000 * 1000)

static __always_inline bool is_fresh(const struct netspy_conn *c)
{
	__u64 last_ns = c->phase == NETSPY_PHASE_OPEN ? c->outcome_ns : c->start_ns;

	return bpf_ktime_get_boot_ns() - last_ns < STORED_NS;
}

/* Brings a copy of an entry to what its sock says, if it is behind that. How and when it came to
 * that is not known: an end has no time, an outcome that at which it was found. */
static __always_inline bool catch_up(struct netspy_conn *entry, struct netspy_conn *c, __u64 key)
{
	struct sock *sk = (struct sock *)key;
	__u8 state;

	if (c->sock_type != SOCK_STREAM || cfg_locked_down || is_fresh(c))
		return false;
	if (c->phase == NETSPY_PHASE_OPEN) {
		if (!has_gone(c, sk) || !is_same(entry, c))
			return false;
		c->phase = NETSPY_PHASE_CLOSED;
		return true;
	}
	if (c->phase != NETSPY_PHASE_PENDING)
		return false;
	state = READ(false, sk, __sk_common.skc_state);
	if (state == TCP_SYN_SENT || state == TCP_SYN_RECV || !is_same(entry, c))
		return false;
	c->evidence = NETSPY_EVIDENCE_SOCKET_STATE;
	c->flags |= NETSPY_F_NO_START;
	if (state != TCP_CLOSE && has_remote(c, false, sk)) {
		c->phase = NETSPY_PHASE_OPEN;
		c->outcome_ns = bpf_ktime_get_boot_ns();
		read_local_tcp(c, false, sk, (struct tcp_sock *)key);
		/* So that its end is taken for that of a connection. */
		entry->evidence = c->evidence;
		entry->outcome_ns = c->outcome_ns;
		entry->local_port = c->local_port;
		__builtin_memcpy(entry->local, c->local, sizeof(entry->local));
		entry->flags |= NETSPY_F_NO_START;
		entry->phase = c->phase;
		return true;
	}
	c->phase = NETSPY_PHASE_FAILED;
	c->error = state == TCP_CLOSE ? READ(false, sk, sk_err) : 0;
	return true;
}

#endif

/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Datagram sockets (UDP, ICMP echo, raw) that were given a peer: connect() sends nothing. Their
 * record waits in `conns` and goes into the ring when it ends, which for most is microseconds later
 * (look-ups of names connect to every address that they weigh); a sweep shows those that stay.
 */
#ifndef NETSPY_DATAGRAM_H
#define NETSPY_DATAGRAM_H

#include "called.h"

static __always_inline bool is_datagram(const struct netspy_conn *c)
{
	return c->family != AF_UNIX && (c->sock_type == SOCK_DGRAM || c->sock_type == SOCK_RAW);
}

/* What these have in the place of ports is the protocol, or the identifier of echoes. */
static __always_inline bool has_no_ports(const struct netspy_conn *c)
{
	return c->sock_type == SOCK_RAW || c->protocol == IPPROTO_ICMP ||
	       c->protocol == IPPROTO_ICMPV6;
}

static __always_inline void clear_no_ports(struct netspy_conn *c)
{
	if (has_no_ports(c)) {
		c->local_port = 0;
		c->remote_port = 0;
	}
}

/* The sock behind the context of a program as a key. Before 5.12 the verifier takes no pointer of
 * this kind in one; out of a map it comes as a number. Nothing else runs between: until then such
 * programs were not preempted. */
static __always_inline __u64 key_of(const void *pointer)
{
	__u32 zero = 0;
	volatile __u64 *slot;

	if (HAS_HELPER(task_pt_regs))
		return (__u64)pointer;
	slot = bpf_map_lookup_elem(&key_scratch, &zero);
	if (!slot)
		return 0;
	*slot = (__u64)pointer;
	return *slot;
}

/* The same as a number from which others can be computed, as what helpers read is. */
static __always_inline __u64 address_of(struct bpf_sock *sk)
{
	__u64 address = 0;

	bpf_probe_read_kernel(&address, sizeof(address), &sk);
	return address;
}

/* A new version of a record that may have been shown. If it was not, its next version will tell. */
static __always_inline void changed(struct netspy_conn *c, struct netspy_counters *n)
{
	if (!(c->flags & NETSPY_F_SHOWN)) {
		if (!was_swept(c))
			return;
		c->flags |= NETSPY_F_SHOWN;
	}
	if (output(c, sizeof(*c)))
		COUNT(n, updates_lost);
}

/* The last version. Of those who come here at once for one entry, the one that deletes it shows it.
 */
static __always_inline void end_datagram(void *map, const void *key, struct netspy_conn *c,
					 __u8 end, __u64 time, struct netspy_counters *n)
{
	bool shown = c->flags & NETSPY_F_SHOWN || was_swept(c);
	bool filtered = c->flags & NETSPY_F_FILTERED;
	struct netspy_conn *last = NULL;
	int err;

	if (!filtered) {
		last = bpf_ringbuf_reserve(&events, sizeof(*last), 0);
		if (last) {
			__builtin_memcpy(last, c, sizeof(*last));
			last->phase = NETSPY_PHASE_CLOSED;
			last->close_ns = time;
			last->end = end;
			if (shown)
				last->flags |= NETSPY_F_SHOWN;
		}
	}
	err = bpf_map_delete_elem(map, key);
	if (last) {
		if (err)
			bpf_ringbuf_discard(last, BPF_RB_NO_WAKEUP);
		else
			bpf_ringbuf_submit(last, wakeup_flags());
	}
	if (err || filtered)
		return;
	COUNT(n, settled);
	if (!last) {
		if (shown)
			COUNT(n, updates_lost);
		else
			COUNT(n, ring_full);
	}
}

/* The peer that a sock has; NULL if it has none, or it is not known. */
static __always_inline struct netspy_conn *peer_of(__u64 key, struct netspy_counters *n)
{
	struct netspy_conn *c = bpf_map_lookup_elem(&conns, &key);

	if (!c || !is_datagram(c))
		return NULL;
	/* There are none where the kernel is locked down, and no helper to conclude them. */
	if (c->phase == NETSPY_PHASE_CALLED && !cfg_locked_down) {
		conclude_called(c, key, n);
		if (c->phase != NETSPY_PHASE_OPEN)
			return NULL;
	}
	return c;
}

/* The peer that the sock has is its peer no longer. */
static __always_inline void end_peer(__u64 key, __u8 end, struct netspy_counters *n)
{
	struct netspy_conn *c = peer_of(key, n);

	if (c)
		end_datagram(&conns, &key, c, end, bpf_ktime_get_boot_ns(), n);
}

/* What will be known of the datagrams that the sock sends to its peer: flags of the record. */
static __always_inline __u16 counts_of(const struct netspy_conn *c)
{
	return (has_no_ports(c) ? cfg_icmp_raw : cfg_sent) ? NETSPY_F_COUNTED | NETSPY_F_BYTES : 0;
}

/* Whether the close of a socket that the current task makes is seen: what is held of it would stay
 * for ever otherwise. */
static __always_inline bool is_in_reach(void)
{
	return !cfg_reach || bpf_current_task_under_cgroup(&reach, 0) == 1;
}

/* Keeps the record of a peer that the sock was just given; false if it must be shown now. */
static __always_inline bool hold_peer(__u64 key, struct netspy_conn *c, struct netspy_counters *n)
{
	if (!cfg_hold || !is_datagram(c) || !is_in_reach())
		return false;
	c->flags |= counts_of(c);
	if (bpf_map_update_elem(&conns, &key, c, BPF_NOEXIST)) {
		c->flags &= ~(NETSPY_F_COUNTED | NETSPY_F_BYTES);
		/* Nothing that comes later will be told of it. */
		COUNT(n, updates_lost);
		return false;
	}
	COUNT(n, waiting);
	return true;
}

/* Sockets that have no peer but a port of their own, at which others reach them, are listed where
 * they existed before. Their entries have keys of their own: they may get a peer besides. */
bool any_bound = false;

static __always_inline __u64 bound_key(__u64 key)
{
	/* Added: the verifier takes no other operation on what may be a pointer. Those are even. */
	return key + 1;
}

/* Whether a sock can be of the kind that this file is about. */
static __always_inline bool may_be_datagram(__u32 type)
{
	return type == SOCK_DGRAM || type == SOCK_RAW;
}

/* An error that came from the network later. In softirq: the current task is a bystander. */
static __always_inline int on_sock_error(bool direct, struct sock *sk)
{
	struct netspy_counters *n;
	struct netspy_conn *c;
	__s32 error;

	if (!may_be_datagram(READ(direct, sk, sk_type)))
		return 0;
	error = READ(direct, sk, sk_err);
	/* 0: not an error, but something else in the queue for them. EMSGSIZE: the kernel learnt of
	 * a narrower path (RFC 1191), which ends nothing. */
	if (!error || error == EMSGSIZE)
		return 0;
	n = this_cpu_counters();
	c = peer_of((__u64)sk, n);
	if (!c || c->error == error)
		return 0;
	c->outcome_ns = bpf_ktime_get_boot_ns();
	c->evidence = NETSPY_EVIDENCE_SK_ERROR;
	c->error = error;
	changed(c, n);
	return 0;
}

/* Shows an entry that was not shown yet. */
static __always_inline void sweep_datagram(struct netspy_conn *entry, struct netspy_counters *n)
{
	struct netspy_conn c;

	/* A copy: sends and errors go on meanwhile, and the entry may become another's. */
	__builtin_memcpy(&c, entry, sizeof(c));
	if (c.flags & (NETSPY_F_FILTERED | NETSPY_F_SHOWN) || was_swept(&c))
		return;
	c.flags |= NETSPY_F_SWEPT;
	if (output(&c, sizeof(c))) {
		COUNT(n, left);
		return;
	}
	/* Atomic: what is loaded below is loaded after. */
	__sync_fetch_and_add(&entry->swept, c.start_ns + c.phase - c.swept);
	if (entry->error == c.error && !entry->datagrams_sent == !c.datagrams_sent)
		return;
	/* Changed meanwhile, by somebody who may not have known that it is shown. */
	__builtin_memcpy(&c, entry, sizeof(c));
	c.flags |= NETSPY_F_SWEPT;
	if (output(&c, sizeof(c)))
		COUNT(n, updates_lost);
}

#endif

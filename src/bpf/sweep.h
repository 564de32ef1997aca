/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What looks through all that is held: the sweep, which shows what waits for an outcome, and the
 * question of what open connections have carried.
 *
 * Each comes as an iterator over the map and as a program that walks through it, which user space
 * runs (BPF_PROG_RUN, Linux 5.14): some kernels allow only the one, some only the other.
 */
#ifndef NETSPY_SWEEP_H
#define NETSPY_SWEEP_H

#include "traffic.h"
#include "unseen.h"

/* Whether an outcome may still come before anybody asks. */
static __always_inline bool is_young(const struct netspy_conn *c)
{
	return !ending && bpf_ktime_get_boot_ns() - c->start_ns < cfg_show_pending_ns;
}

static __always_inline void read_pending_port(struct netspy_conn *c, __u64 key)
{
	read_local_tcp(c, false, (struct sock *)key, (struct tcp_sock *)key);
}

static __always_inline void sweep_conn(struct netspy_conn *entry, __u64 key)
{
	struct netspy_counters *n = this_cpu_counters();
	struct netspy_conn c;
	bool was_behind;

	if (is_datagram(entry) && entry->phase != NETSPY_PHASE_CALLED) {
		sweep_datagram(entry, n);
		return;
	}
	/* A copy: the state hooks go on meanwhile, and the entry may become another's. */
	__builtin_memcpy(&c, entry, sizeof(c));
	if (c.flags & NETSPY_F_FILTERED || (c.phase != NETSPY_PHASE_CALLED && was_told_of_end(&c)))
		return;
	was_behind = catch_up(entry, &c, key);
	if (c.phase == NETSPY_PHASE_CALLED && !cfg_locked_down) {
		resolve_called(&c, key);
		/* It may not have come to its end yet. */
		if (c.phase == NETSPY_PHASE_FAILED && is_young(&c)) {
			COUNT(n, left);
			return;
		}
	}
	/* At the end of capture no hook concludes what it was in the midst of. */
	if (ending && c.phase == NETSPY_PHASE_UNSETTLED)
		c.phase = NETSPY_PHASE_PENDING;
	if (ending && c.phase == NETSPY_PHASE_ENTERING)
		c.phase = NETSPY_PHASE_OPEN;
	if (c.swept == c.start_ns + c.phase)
		return;
	switch (c.phase) {
	case NETSPY_PHASE_PENDING:
		if (is_young(&c)) {
			COUNT(n, left);
			return;
		}
		/* The entry stands, so the sock does; it has its port by now. */
		if (!cfg_locked_down)
			read_pending_port(&c, key);
		break;
	case NETSPY_PHASE_FAILED:
	case NETSPY_PHASE_CLOSED:
		/* What was just found; others have been shown, or never will be. */
		if (entry->phase == c.phase)
			return;
		break;
	case NETSPY_PHASE_LISTENING:
		if (!c.local_port && !cfg_locked_down)
			c.local_port = READ(false, (struct sock *)key, __sk_common.skc_num);
		if (c.flags & NETSPY_F_SHOWN)
			return;
		break;
	case NETSPY_PHASE_OPEN:
		/* Or the ring was full at the outcome. */
		if (c.flags & NETSPY_F_SHOWN && !was_behind)
			return;
		break;
	default:
		return;
	}
	c.flags |= NETSPY_F_SWEPT;
	if (output(&c, sizeof(c))) {
		COUNT(n, left);
		return;
	}
	entry->swept = c.start_ns + c.phase;
	if (was_behind)
		COUNT(n, updates_lost);
}

SEC("iter/bpf_map_elem")
int sweep(struct bpf_iter__bpf_map_elem *ctx)
{
	struct netspy_conn *entry = ctx->value;
	__u64 *key = ctx->key;

	if (entry && key)
		sweep_conn(entry, *key);
	return 0;
}

SEC("iter/bpf_map_elem")
int sweep_flows(struct bpf_iter__bpf_map_elem *ctx)
{
	struct netspy_flow *f = ctx->value;
	struct netspy_flow_key *found = ctx->key;
	struct netspy_flow_key key;

	/* Loaded once, since what was checked is the register. */
	barrier_var(found);
	if (!f || !found)
		return 0;
	key = *found;
	sweep_flow(&key, f, this_cpu_counters());
	return 0;
}

static long sweep_each(struct bpf_map *map, const __u64 *key, struct netspy_conn *entry, void *ctx)
{
	sweep_conn(entry, *key);
	return 0;
}

SEC("syscall")
int sweep_walk(void *ctx)
{
	bpf_for_each_map_elem(&conns, sweep_each, NULL, 0);
	return 0;
}

static long sweep_each_flow(struct bpf_map *map, const struct netspy_flow_key *found,
			    struct netspy_flow *f, void *ctx)
{
	struct netspy_flow_key key = *found;

	sweep_flow(&key, f, this_cpu_counters());
	return 0;
}

SEC("syscall")
int sweep_flows_walk(void *ctx)
{
	bpf_for_each_map_elem(&flows, sweep_each_flow, NULL, 0);
	return 0;
}

SEC("iter/bpf_map_elem")
int traffic(struct bpf_iter__bpf_map_elem *ctx)
{
	struct netspy_conn *c = ctx->value;
	__u64 *key = ctx->key;
	struct netspy_traffic t;

	/* Should there be no room, the kernel calls again for this entry, in another buffer. */
	if (c && key && read_traffic(&t, c, *key))
		bpf_seq_write(ctx->meta->seq, &t, sizeof(t));
	return 0;
}

SEC("iter/bpf_map_elem")
int traffic_of_flows(struct bpf_iter__bpf_map_elem *ctx)
{
	struct netspy_flow *f = ctx->value;
	struct netspy_traffic t;

	if (f && read_traffic(&t, &f->conn, 0))
		bpf_seq_write(ctx->meta->seq, &t, sizeof(t));
	return 0;
}

static long traffic_each(struct bpf_map *map, const __u64 *key, struct netspy_conn *c,
			 struct netspy_walk *walk)
{
	return answer(walk, c, *key);
}

SEC("syscall")
int traffic_walk(struct netspy_walk *walk)
{
	struct netspy_walk here = {.skip = walk->skip};

	bpf_for_each_map_elem(&conns, traffic_each, &here, 0);
	walk->seen = here.seen;
	return here.is_full;
}

static long traffic_each_flow(struct bpf_map *map, const struct netspy_flow_key *key,
			      struct netspy_flow *f, struct netspy_walk *walk)
{
	return answer(walk, &f->conn, 0);
}

SEC("syscall")
int traffic_of_flows_walk(struct netspy_walk *walk)
{
	struct netspy_walk here = {.skip = walk->skip};

	bpf_for_each_map_elem(&flows, traffic_each_flow, &here, 0);
	walk->seen = here.seen;
	return here.is_full;
}

#endif

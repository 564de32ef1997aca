/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Datagrams sent without connect(): one record per socket and destination, in `flows`, until the
 * socket is closed or nothing was sent for a while.
 *
 * A sock gets a generation at its first such send, in `senders`, which is part of the key of its
 * flows: those that outlive their sock, because it had too many for one close(), are known by it,
 * and ended by the next sweep.
 */
#ifndef NETSPY_FLOW_H
#define NETSPY_FLOW_H

#include "datagram.h"

/* Flows of a sock that its close ends at once, newest first. */
#define FLOWS_PER_CLOSE 8

/* Where a datagram goes; `family` is 0 where there is none. */
struct netspy_dest {
	__u32 addr[4]; /* network byte order; IPv4 in the first */
	__u16 family;
	__u16 port;    /* host byte order */
	__u32 unknown; /* 1: there is one that could not be read */
};

struct netspy_sender {
	struct netspy_dest newest;
	__u64 sock; /* the key again: as a number, whatever it was before */
	__u32 born; /* of the sock's generation */
	__u32 reserved;
};

struct netspy_flow_key {
	__u64 sock;
	__u32 born;
	__u16 family;
	__u16 port;
	__u32 addr[4];
};

struct netspy_flow {
	struct netspy_conn conn;
	__u64 last_ns;		 /* of the last datagram */
	struct netspy_dest next; /* the flow that the sock had before */
};

struct netspy_released {
	__u64 sock;
	__u32 born;
	__u32 reserved;
};

/* What begins a flow, by thread. */
struct netspy_beginning {
	struct netspy_flow_key key;
	__s32 ret;
	__u32 unknown; /* as in netspy_dest */
	__u32 netns;
	__u16 protocol;
	__u16 sock_type;
	__u32 local[4];
	__u16 local_port;
	__u16 reserved;
	__u32 netns_once;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct netspy_beginning);
} beginnings SEC(".maps");

/* Where a flow is put together, by thread: the stack of those who begin one has no room for it. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct netspy_flow);
} rooms SEC(".maps");

const volatile struct netspy_flow no_flow = {.conn = {.kind = NETSPY_KIND_CONN}};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct netspy_flow_key);
	__type(value, struct netspy_flow);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct netspy_sender);
} senders SEC(".maps");

/* When socks were closed that left flows to the sweep. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct netspy_released);
	__type(value, __u64);
} released SEC(".maps");

/* Flows that found no room, so that each counts once. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct netspy_flow_key);
	__type(value, __u8);
} unheld_flows SEC(".maps");

static __always_inline void set_flow_key(struct netspy_flow_key *key, const struct netspy_dest *to)
{
	key->family = to->family;
	key->port = to->port;
	key->addr[0] = to->addr[0];
	key->addr[1] = to->addr[1];
	key->addr[2] = to->addr[2];
	key->addr[3] = to->addr[3];
}

/* Errors that say nothing about the way of a datagram: the caller may try again, or made a mistake.
 */
static __always_inline bool is_of_caller(__s32 ret)
{
	switch (-ret) {
	case EINTR:
	case EBADF:
	case EAGAIN:
	case ENOMEM:
	case EFAULT:
	case EPIPE:
	case ENOTSOCK:
	case EDESTADDRREQ:
	case ENOTCONN:
	case ERESTARTSYS:
	case ERESTARTSYS + 1:
	case ERESTARTSYS + 2:
	case ERESTARTSYS + 4:
		return true;
	}
	return false;
}

/* A send to the remote of a record returned. The first datagram makes a new version, the others
 * count. Several threads may be here for one record at once. */
static __always_inline void count_send(struct netspy_conn *c, __s32 ret, struct netspy_counters *n)
{
	if (ret >= 0) {
		bool first = c->datagrams_sent == 0;

		/* To add a zero that the compiler knows is made an atomic OR, which 5.10 lacks. */
		if (ret)
			__sync_fetch_and_add(&c->bytes_sent, ret);
		__sync_fetch_and_add(&c->datagrams_sent, 1);
		/* An error that came back before stands. */
		if (!first || c->evidence == NETSPY_EVIDENCE_SK_ERROR)
			return;
		c->error = 0;
		c->evidence = NETSPY_EVIDENCE_SEND_RETURN;
	} else if (ret == -ECONNREFUSED) {
		/* Of an earlier datagram, by ICMP (sock_error() in include/net/sock.h). */
		if (c->error == ECONNREFUSED)
			return;
		c->error = ECONNREFUSED;
		c->evidence = NETSPY_EVIDENCE_SK_ERROR;
		c->outcome_ns = bpf_ktime_get_boot_ns();
	} else {
		if (c->datagrams_sent || c->error == -ret || is_of_caller(ret))
			return;
		c->error = -ret;
		c->evidence = NETSPY_EVIDENCE_SEND_RETURN;
		c->outcome_ns = bpf_ktime_get_boot_ns();
	}
	changed(c, n);
}

/* The entry of a sock that sends without a peer; NULL if there is no room. */
static __always_inline struct netspy_sender *sender_of(__u64 sock)
{
	struct netspy_sender *sender = bpf_map_lookup_elem(&senders, &sock);
	struct netspy_sender fresh = {.sock = sock};

	if (sender)
		return sender;
	fresh.born = bpf_ktime_get_boot_ns();
	bpf_map_update_elem(&senders, &sock, &fresh, BPF_NOEXIST);
	return bpf_map_lookup_elem(&senders, &sock);
}

/* The first datagram of a flow, or one of a flow that found no room. `typed`: the program may ask
 * for the current task by its type. */
static __always_inline int begin_flow_as(bool typed)
{
	struct netspy_counters *n = this_cpu_counters();
	__u32 tid = bpf_get_current_pid_tgid();
	struct netspy_beginning *b;
	struct netspy_sender *sender;
	struct netspy_flow *f;
	struct netspy_conn *c;
	bool filtered;
	__u8 one = 1;
	int err;

	b = bpf_map_lookup_elem(&beginnings, &tid);
	if (!b)
		return 0;
	bpf_map_update_elem(&rooms, &tid, (const void *)&no_flow, BPF_ANY);
	f = bpf_map_lookup_elem(&rooms, &tid);
	if (!f) {
		COUNT(n, attempts);
		COUNT(n, map_full);
		goto out;
	}
	c = &f->conn;
	c->start_ns = bpf_ktime_get_boot_ns();
	c->outcome_ns = c->start_ns;
	f->last_ns = c->start_ns;
	c->phase = NETSPY_PHASE_OPEN;
	c->evidence = NETSPY_EVIDENCE_SEND_RETURN;
	c->flags = NETSPY_F_NO_START | NETSPY_F_COUNTED;
	if (!cfg_flows_at_once)
		c->flags |= NETSPY_F_BYTES;
	if (b->ret >= 0) {
		c->datagrams_sent = 1;
		c->bytes_sent = b->ret;
	} else {
		c->error = -b->ret;
	}
	c->family = b->key.family;
	c->protocol = b->protocol;
	c->sock_type = b->sock_type;
	c->netns = b->netns;
	c->netns_once = b->netns_once;
	__builtin_memcpy(c->remote, b->key.addr, sizeof(c->remote));
	__builtin_memcpy(c->local, b->local, sizeof(c->local));
	c->remote_port = b->key.port;
	c->local_port = b->local_port;
	if (b->unknown)
		c->flags |= NETSPY_F_NO_REMOTE;
	clear_no_ports(c);
	read_identity_by(c, typed);
	filtered = is_filtered(c);
	if (filtered)
		c->flags |= NETSPY_F_FILTERED;

	COUNT(n, attempts);
	sender = bpf_map_lookup_elem(&senders, &b->key.sock);
	err = -ENOENT;
	if (sender) {
		f->next = sender->newest;
		err = bpf_map_update_elem(&flows, &b->key, f, BPF_NOEXIST);
	}
	if (err == 0) {
		sender->newest.family = b->key.family;
		sender->newest.port = b->key.port;
		__builtin_memcpy(sender->newest.addr, b->key.addr, sizeof(b->key.addr));
		if (filtered)
			COUNT(n, filtered);
		else
			COUNT(n, waiting);
		goto out;
	}
	if (err != -EEXIST)
		err = bpf_map_update_elem(&unheld_flows, &b->key, &one, BPF_NOEXIST);
	if (err) {
		/* Counted before, or by another thread just now. */
		if (n)
			__sync_fetch_and_add(&n->attempts, -1);
	} else if (filtered) {
		COUNT(n, filtered);
	} else {
		COUNT(n, map_full);
	}
out:
	bpf_map_delete_elem(&rooms, &tid);
	bpf_map_delete_elem(&beginnings, &tid);
	return 0;
}

/* Not static, so that the verifier looks at it once, and not at every way that leads to it. */
__noinline int begin_flow(void)
{
	return begin_flow_as(HAS_HELPER(get_current_task_btf));
}

/* Leaves what the sock tells of itself for begin_flow(). */
static __always_inline bool prepare_flow(bool direct, struct sock *sk,
					 const struct netspy_flow_key *key,
					 const struct netspy_dest *to, __s32 ret)
{
	struct netspy_beginning b = {.key = *key, .ret = ret, .unknown = to->unknown};
	__u32 tid = bpf_get_current_pid_tgid();
	struct net *net;

	/* What the kernel sends by itself has no process, and its socket no close. */
	if (READ_BIT(direct, sk, sk_kern_sock) || !is_in_reach())
		return false;
	b.protocol = READ(direct, sk, sk_protocol);
	b.sock_type = READ(direct, sk, sk_type);
	net = READ(direct, sk, __sk_common.skc_net.net);
	b.netns = READ(direct, net, ns.inum);
	b.netns_once = netns_once(direct, net);
	b.local_port = READ(direct, sk, __sk_common.skc_num);
	if (to->family == AF_INET)
		b.local[0] = READ(direct, sk, __sk_common.skc_rcv_saddr);
	else
		copy_in6((__u8 *)b.local, direct, &sk->__sk_common.skc_v6_rcv_saddr);
	return bpf_map_update_elem(&beginnings, &tid, &b, BPF_ANY) == 0;
}

/* A send to a destination that is not the sock's peer returned. */
static __always_inline void on_flow_send(bool direct, bool typed, struct sock *sk,
					 const struct netspy_dest *to, __s32 ret,
					 struct netspy_counters *n)
{
	struct netspy_flow_key key = {.sock = (__u64)sk};
	struct netspy_sender *sender = sender_of(key.sock);
	struct netspy_flow *f = NULL;

	set_flow_key(&key, to);
	if (sender) {
		key.born = sender->born;
		f = bpf_map_lookup_elem(&flows, &key);
	}
	if (f) {
		f->last_ns = bpf_ktime_get_boot_ns();
		count_send(&f->conn, ret, n);
		return;
	}
	if (ret < 0 && is_of_caller(ret))
		return;
	if (!prepare_flow(direct, sk, &key, to, ret))
		return;
	if (typed)
		begin_flow();
	else
		begin_flow_as(false);
}

/* Ends the newest flow of a sock that is being closed; 0 if it has none. Not static, so that the
 * verifier looks at it once, and not at every turn of the loop that calls it. */
__noinline int end_newest_flow(__u64 sock)
{
	struct netspy_sender *sender = bpf_map_lookup_elem(&senders, &sock);
	struct netspy_flow_key key = {.sock = sock};
	struct netspy_flow *f;

	if (!sender || !sender->newest.family)
		return 0;
	key.born = sender->born;
	set_flow_key(&key, &sender->newest);
	f = bpf_map_lookup_elem(&flows, &key);
	/* Ended before, by the time that it was idle; which the others were is not known then. */
	if (!f)
		return 0;
	sender->newest = f->next;
	end_datagram(&flows, &key, &f->conn, NETSPY_END_OWNER_CLOSE, bpf_ktime_get_boot_ns(),
		     this_cpu_counters());
	return 1;
}

/* The sock is closed. What more flows it has than can be ended here are left to a sweep. */
static __always_inline void end_flows(__u64 sock, struct netspy_counters *n)
{
	struct netspy_sender *sender = bpf_map_lookup_elem(&senders, &sock);
	struct netspy_released gone = {.sock = sock};
	__u64 now;

	if (!sender)
		return;
	sock = sender->sock;
	for (int i = 0; i < FLOWS_PER_CLOSE; i++) {
		if (!end_newest_flow(sock))
			break;
	}
	if (sender->newest.family) {
		now = bpf_ktime_get_boot_ns();
		gone.born = sender->born;
		bpf_map_update_elem(&released, &gone, &now, BPF_ANY);
		COUNT(n, left);
	}
	bpf_map_delete_elem(&senders, &sock);
}

/* The last file descriptor of a sock is closed. */
static __always_inline void on_release(__u64 key)
{
	struct netspy_counters *n = this_cpu_counters();

	end_peer(key, NETSPY_END_OWNER_CLOSE, n);
	if (any_bound)
		end_peer(bound_key(key), NETSPY_END_OWNER_CLOSE, n);
	if (cfg_flows || cfg_flows_at_once || cfg_icmp_raw)
		end_flows(key, n);
}

/* One entry of `flows`: shown if it is new, ended if its sock is gone or nothing was sent for long.
 */
static __always_inline void sweep_flow(const struct netspy_flow_key *key, struct netspy_flow *f,
				       struct netspy_counters *n)
{
	struct netspy_released gone = {.sock = key->sock, .born = key->born};
	struct netspy_sender *sender;
	__u64 *at;

	sender = bpf_map_lookup_elem(&senders, &gone.sock);
	if (!sender || sender->born != gone.born) {
		at = bpf_map_lookup_elem(&released, &gone);
		end_datagram(&flows, key, &f->conn, NETSPY_END_OWNER_CLOSE,
			     at ? *at : bpf_ktime_get_boot_ns(), n);
	} else if ((__s64)(bpf_ktime_get_boot_ns() - f->last_ns) > (__s64)cfg_idle_ns) {
		end_datagram(&flows, key, &f->conn, NETSPY_END_IDLE, f->last_ns, n);
	} else {
		sweep_datagram(&f->conn, n);
	}
}

#endif

// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Packets that the kernel drops, counted by reason and flow.
 *
 * The reader is never woken, and no drop makes an event: it takes a table every so often, while
 * drops go to the other one. A flood costs a bounded number of entries; what finds no room is
 * counted by its reason.
 *
 * The programs only read.
 */
#include "stay.h"
#include "drops.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define AF_UNIX	   1
#define AF_INET	   2
#define AF_INET6   10
#define AF_NETLINK 16

#define E2BIG 7

#define ETH_P_IP   0x0800
#define ETH_P_IPV6 0x86dd

#define IPPROTO_TCP	 6
#define IPPROTO_UDP	 17
#define IPPROTO_DCCP	 33
#define IPPROTO_SCTP	 132
#define IPPROTO_UDPLITE	 136
#define IPPROTO_HOPOPTS	 0
#define IPPROTO_ROUTING	 43
#define IPPROTO_FRAGMENT 44
#define IPPROTO_AH	 51
#define IPPROTO_DSTOPTS	 60
#define IPPROTO_MPTCP	 262

/* Extension headers of IPv6 that are looked through for the ports; what has more is rare, and each
 * costs the verifier two thousand instructions. */
#define EXTENSIONS 2

/* Options; constants to the verifier. */
const volatile __u32 cfg_headers = NETSPY_HEADERS_PROBE;
const volatile bool cfg_rx_sk = false; /* the fourth argument is there (Linux 6.11) */
const volatile bool cfg_reason = true; /* the third argument is there (Linux 5.17) */

/* Which table takes drops; the reader has the other one. */
volatile __u32 active = 0;
/* Whether anything was counted since the reader looked: written only when it changes, so that
 * processors that drop do not share a line of cache for it. */
volatile __u32 dirty = 0;
/* A table had no room for a flow: not tried again, which keeps a flood cheap. */
volatile __u32 full[2] = {};
/* Flows in each table, by a hash of reason and namespace. */
__u32 shares[2][NETSPY_DROP_SHARES] = {};
/* Places of `rest` in use. */
volatile __u8 rest_used[NETSPY_REST_PLACES] = {};

/* Names the type of values in the BTF of this object, for the skeleton. */
const volatile struct netspy_drop_rest type_of_rest = {};

/* Preallocated: packets are freed in contexts in which an allocation may fail. */
struct flows {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, NETSPY_DROP_FLOWS);
	__type(key, struct netspy_drop_key);
	__type(value, struct netspy_drop);
};

struct flows flows_a SEC(".maps");
struct flows flows_b SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, NETSPY_REST_PLACES);
	__type(key, __u32);
	__type(value, struct netspy_drop_rest);
} rest SEC(".maps");

/* Every drop that was seen, whatever became of it. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} seen SEC(".maps");

/* Atomic although per processor: a softirq may interrupt a program between its load and store. */
#define ADD(to, n) __sync_fetch_and_add(&(to), n)

/* Numbers differ between kernels, hence the relocations. */
static __always_inline bool is_reason(__u32 reason, bool exists, __u64 value)
{
	return exists && reason == value;
}

#define IS(reason, name)                                                                           \
	is_reason(reason, bpf_core_enum_value_exists(enum skb_drop_reason, name),                  \
		  bpf_core_enum_value(enum skb_drop_reason, name))

/* Whether the kernel tells no reason. Before 5.17 it never does. */
static __always_inline bool is_unexplained(__u32 reason)
{
	return !cfg_reason || IS(reason, SKB_DROP_REASON_NOT_SPECIFIED);
}

/* Whether the packet came to its end in order, whatever the function that freed it is called. */
static __always_inline bool is_no_drop(__u32 reason)
{
	return cfg_reason && (IS(reason, SKB_NOT_DROPPED_YET) || IS(reason, SKB_CONSUMED));
}

/* The FIN of the peer waits in the receive queue until the socket is gone, and is not freed as what
 * was consumed: every connection that is closed in order would show a drop
 * (sk_stream_kill_queues() in net/core/stream.c). */
static __always_inline bool is_end_of_tcp(bool direct, struct sock *sk, __u32 reason)
{
	__u16 protocol;
	__u8 state;

	if (!is_unexplained(reason) && !IS(reason, SKB_DROP_REASON_QUEUE_PURGE))
		return false;
	if (direct)
		state = sk->__sk_common.skc_state;
	else
		bpf_core_read(&state, sizeof(state), &sk->__sk_common.skc_state);
	/* In this state it is no smaller kind of sock, which would lack the protocol. */
	if (state != TCP_CLOSE)
		return false;
	protocol = READ(direct, sk, sk_protocol);
	return protocol == IPPROTO_TCP || protocol == IPPROTO_MPTCP;
}

static __always_inline __u32 place_of(__u32 reason)
{
	__u32 subsystem = reason >> 16, number = reason & 0xffff, place = NETSPY_REST_OTHER;

	if (subsystem == 0 && number < NETSPY_REST_CORE)
		place = number;
	else if (subsystem >= 1 && subsystem <= 3 && number < NETSPY_REST_SUBSYSTEM)
		place = NETSPY_REST_CORE + (subsystem - 1) * NETSPY_REST_SUBSYSTEM + number;
	/* For the verifier, which the compiler must not second-guess. */
	barrier_var(place);
	return place & (NETSPY_REST_PLACES - 1);
}

static __always_inline struct netspy_drop_rest *rest_of(__u32 reason)
{
	__u32 place = place_of(reason);

	if (!rest_used[place])
		rest_used[place] = 1;
	return bpf_map_lookup_elem(&rest, &place);
}

/* Copies words out of a packet, which no type describes. */
static __always_inline bool load(__u32 *to, __u64 from, const int words)
{
	if (cfg_headers == NETSPY_HEADERS_CAST) {
		struct in6_addr *at;

		if (!CAN_CAST)
			return false;
			/* Any structure whose members are words would do. */
#pragma unroll
		for (int i = 0; i < words; i++) {
			at = CAST(struct in6_addr, from + i * 4);
			to[i] = at->in6_u.u6_addr32[0];
		}
		return true;
	}
	if (cfg_headers == NETSPY_HEADERS_PROBE)
		return bpf_probe_read_kernel(to, words * 4, (void *)from) == 0;
	return false;
}

/* Where the transport header of a packet begins, and where the packet ends. */
struct packet {
	__u64 at;
	__u64 transport;
	__u64 end; /* of what lies in one piece */
};

static __always_inline bool has_ports(__u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_UDPLITE ||
	       protocol == IPPROTO_SCTP || protocol == IPPROTO_DCCP;
}

/* Both ports, which all of these protocols have in their first word. */
static __always_inline void load_ports(struct netspy_drop_key *key, struct packet *p, __u64 at)
{
	__u32 word;

	if (!has_ports(key->protocol) || at + 4 > p->end || !load(&word, at, 1))
		return;
	p->transport = at;
	key->source_port = bpf_ntohl(word) >> 16;
	key->destination_port = bpf_ntohl(word) & 0xffff;
}

static __always_inline bool load_ipv4(struct netspy_drop_key *key, struct packet *p)
{
	__u32 words[5], first;

	if (p->at + sizeof(words) > p->end || !load(words, p->at, 5))
		return false;
	first = bpf_ntohl(words[0]);
	if (first >> 28 != 4)
		return false;
	key->family = AF_INET;
	key->protocol = bpf_ntohl(words[2]) >> 16 & 0xff;
	__builtin_memcpy(key->source, &words[3], 4);
	__builtin_memcpy(key->destination, &words[4], 4);
	/* The ports are in the first fragment alone. */
	if ((bpf_ntohl(words[1]) & 0x1fff) == 0)
		load_ports(key, p, p->at + (first >> 24 & 0xf) * 4);
	return true;
}

static __always_inline bool load_ipv6(struct netspy_drop_key *key, struct packet *p)
{
	__u32 words[10], word;
	__u64 at = p->at + sizeof(words);
	__u8 next;

	if (at > p->end || !load(words, p->at, 10))
		return false;
	if (bpf_ntohl(words[0]) >> 28 != 6)
		return false;
	key->family = AF_INET6;
	__builtin_memcpy(key->source, &words[2], 16);
	__builtin_memcpy(key->destination, &words[6], 16);
	next = bpf_ntohl(words[1]) >> 8 & 0xff;
#pragma unroll
	for (int i = 0; i < EXTENSIONS; i++) {
		__u32 length;

		if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING && next != IPPROTO_DSTOPTS &&
		    next != IPPROTO_FRAGMENT && next != IPPROTO_AH)
			break;
		key->protocol = next;
		if (at + 8 > p->end || !load(&word, at, 1))
			return true;
		word = bpf_ntohl(word);
		length = word >> 16 & 0xff;
		if (next == IPPROTO_FRAGMENT && (word & 0xfff8)) {
			key->protocol = word >> 24;
			return true;
		}
		at += next == IPPROTO_FRAGMENT ? 8
		      : next == IPPROTO_AH     ? (length + 2) * 4
					       : (length + 1) * 8;
		next = word >> 24;
	}
	key->protocol = next;
	load_ports(key, p, at);
	return true;
}

/* A TCP segment without data that begins nothing is done with when TCP has read it; that TCP frees
 * it without a reason, as if dropped, says nothing. It does so in CLOSE_WAIT, CLOSING and LAST_ACK
 * (tcp_rcv_state_process() in net/ipv4/tcp_input.c), and in TIME_WAIT (tcp_v4_rcv() in
 * net/ipv4/tcp_ipv4.c), where the FIN of a peer that closes later comes to. */
static __always_inline bool is_empty_segment(struct netspy_drop_key *key, struct packet *p,
					     __u64 bytes)
{
	__u32 word, header;

	if (!is_unexplained(key->reason) || key->protocol != IPPROTO_TCP || !p->transport ||
	    p->transport + 16 > p->end || !load(&word, p->transport + 12, 1))
		return false;
	word = bpf_ntohl(word);
	header = (word >> 28) * 4;
	/* Without SYN. */
	return (word >> 16 & 0x2) == 0 && p->transport - p->at + header == bytes;
}

/* What is needed of a socket. */
struct owner {
	__u64 address;
	__u32 netns;
	__u16 family;
};

/* The verifier trusts some pointers and not others of their type, and some kernels refuse an
 * instruction that is used for both: this, whose number means nothing, keeps the compiler from
 * sharing the instructions before it. */
#define APART(number) asm volatile("r0 = " #number ::: "r0", "memory")

#define READ_OWNER(owner, direct, sk, number)                                                      \
	do {                                                                                       \
		struct net *__net = READ(direct, sk, __sk_common.skc_net.net);                     \
                                                                                                   \
		(owner)->address = (__u64)(sk);                                                    \
		(owner)->family = READ(direct, sk, __sk_common.skc_family);                        \
		(owner)->netns = READ(direct, __net, ns.inum);                                     \
		APART(number);                                                                     \
	} while (0)

/* What the socket of an outgoing packet knows, where the packet has no headers yet. */
static __always_inline void load_sock(struct netspy_drop_key *key, bool direct, struct sock *sk)
{
	__u32 *source = (__u32 *)key->source, *destination = (__u32 *)key->destination;
	__u16 family = READ(direct, sk, __sk_common.skc_family);

	if (family == AF_INET) {
		source[0] = READ(direct, sk, __sk_common.skc_rcv_saddr);
		destination[0] = READ(direct, sk, __sk_common.skc_daddr);
	} else if (family == AF_INET6) {
		copy_in6(key->source, direct, &sk->__sk_common.skc_v6_rcv_saddr);
		copy_in6(key->destination, direct, &sk->__sk_common.skc_v6_daddr);
	} else {
		return;
	}
	/* IPv4-mapped (RFC 4291, 2.5.5.2). */
	if (family == AF_INET6 && !destination[0] && !destination[1] &&
	    destination[2] == bpf_htonl(0x0000ffff)) {
		family = AF_INET;
		source[0] = source[3];
		destination[0] = destination[3];
		source[1] = source[2] = source[3] = 0;
		destination[1] = destination[2] = destination[3] = 0;
	}
	key->family = family;
	key->protocol = READ(direct, sk, sk_protocol);
	key->source_port = READ(direct, sk, __sk_common.skc_num);
	key->destination_port = bpf_ntohs(READ(direct, sk, __sk_common.skc_dport));
}

static __always_inline void add(struct netspy_drop *entry, __u64 bytes, __u64 sock)
{
	ADD(entry->count, 1);
	ADD(entry->bytes, bytes);
	entry->last_ns = bpf_ktime_get_boot_ns();
	if (sock)
		entry->sock = sock;
}

static __always_inline __u32 share_of(struct netspy_drop_key *key)
{
	/* Odd numbers without pattern; the upper bits are the well mixed ones. */
	__u32 share = (key->reason * 0x9e3779b1 + key->netns * 0x85ebca6b) >> 23;

	barrier_var(share);
	return share & (NETSPY_DROP_SHARES - 1);
}

/* Whether there is room for the flow. */
static __always_inline bool count_flow(void *table, __u32 number, struct netspy_drop_key *key,
				       __u64 bytes, __u64 sock)
{
	struct netspy_drop *entry = bpf_map_lookup_elem(table, key);
	struct netspy_drop first = {.count = 1, .bytes = bytes, .sock = sock};
	__u32 *share;
	int err;

	if (entry) {
		add(entry, bytes, sock);
		return true;
	}
	share = &shares[number & 1][share_of(key)];
	if (full[number & 1] || *share >= NETSPY_DROP_FLOWS_OF_ONE)
		return false;
	first.first_ns = bpf_ktime_get_boot_ns();
	first.last_ns = first.first_ns;
	/* An int: before 6.4 the function behind the helper returns one, called without the
	 * wrapper that would extend its sign. */
	err = bpf_map_update_elem(table, key, &first, BPF_NOEXIST);
	if (!err) {
		ADD(*share, 1);
		return true;
	}
	if (err == -E2BIG) {
		full[number & 1] = 1;
		return false;
	}
	/* Another processor was first, or this one was interrupted in an update. */
	entry = bpf_map_lookup_elem(table, key);
	if (entry) {
		add(entry, bytes, sock);
		return true;
	}
	return false;
}

static __always_inline __u32 netns_of_device(bool direct, struct net_device *dev)
{
	struct net *net = READ(direct, dev, nd_net.net);

	return READ(direct, net, ns.inum);
}

/* By its route: TCP takes the device away from what it receives, and before 6.11 nothing tells the
 * socket. */
static __always_inline __u32 netns_of_route(bool direct, struct sk_buff *skb)
{
	/* The lowest bit says whether a reference is held. */
	__u64 dst = READ(direct, skb, _skb_refdst) & ~1ULL;
	struct dst_entry *route;

	if (!dst)
		return 0;
	if (cfg_headers == NETSPY_HEADERS_CAST && CAN_CAST) {
		__u32 netns;

		route = CAST(struct dst_entry, dst);
		netns = netns_of_device(true, route->dev);
		APART(3);
		return netns;
	}
	if (cfg_headers == NETSPY_HEADERS_PROBE) {
		struct net_device *dev = BPF_CORE_READ((struct dst_entry *)dst, dev);

		return netns_of_device(false, dev);
	}
	return 0;
}

/* Of whose socket the packet is, and where; false if it is no drop. */
static __always_inline bool describe_owner(bool direct, struct sk_buff *skb, struct sock *rx_sk,
					   __u32 reason, struct owner *owner)
{
	struct sock *skb_sk = READ(direct, skb, sk);
	struct net_device *dev;

	if (rx_sk) {
		READ_OWNER(owner, direct, rx_sk, 1);
	} else if (skb_sk) {
		READ_OWNER(owner, direct, skb_sk, 2);
		/* No packets: what processes send each other, or the kernel. */
		if (owner->family == AF_UNIX || owner->family == AF_NETLINK)
			return false;
		if ((owner->family == AF_INET || owner->family == AF_INET6) &&
		    is_end_of_tcp(direct, skb_sk, reason))
			return false;
	}
	/* The socket told first: while one holds the packet, the place of the device has other
	 * uses. */
	if (!owner->netns) {
		dev = READ(direct, skb, dev);
		owner->netns = dev ? netns_of_device(direct, dev) : netns_of_route(direct, skb);
	}
	return true;
}

/* Whose packet it is, and where it goes; false if it is no drop. */
static __always_inline bool describe(bool direct, struct sk_buff *skb, struct sock *rx_sk,
				     struct netspy_drop_key *key, struct owner *owner, __u64 *bytes)
{
	__u64 head = (__u64)READ(direct, skb, head);
	struct packet packet = {};
	struct sock *skb_sk;
	__u16 ethertype;

	*bytes = READ(direct, skb, len);
	if (!describe_owner(direct, skb, rx_sk, key->reason, owner))
		return false;
	key->netns = owner->netns;
	/* A socket of another family has the packet for itself: a capture that could not keep up
	 * drops its copy, not the packet. */
	if (owner->family && owner->family != AF_INET && owner->family != AF_INET6)
		return true;
	packet.at = head + READ(direct, skb, network_header);
	packet.end = head + READ(direct, skb, tail);
	ethertype = bpf_ntohs(READ(direct, skb, protocol));
	/* What was read of the packet's pointers is read again after this, rather than kept: the
	 * verifier goes through the headers once for each state that it has to keep. */
	if ((ethertype == ETH_P_IP && load_ipv4(key, &packet)) ||
	    (ethertype == ETH_P_IPV6 && load_ipv6(key, &packet))) {
		/* From the IP header on, on whichever layer the packet is. */
		*bytes += (__u64)READ(direct, skb, data) - packet.at;
		if (!is_empty_segment(key, &packet, *bytes))
			return true;
		/* TCP is handed what it receives without the IP header, and then takes the device
		 * away from it. */
		if ((__u64)READ(direct, skb, data) == packet.transport)
			return false;
		return READ(direct, skb, dev) || (READ(direct, skb, sk) && !rx_sk);
	}
	skb_sk = READ(direct, skb, sk);
	if (!rx_sk && skb_sk)
		load_sock(key, direct, skb_sk);
	return true;
}

static __always_inline void count_rest(__u32 reason, bool no_room, __u64 bytes)
{
	struct netspy_drop_rest *others = rest_of(reason);

	if (!others)
		return;
	if (no_room) {
		ADD(others->no_room, 1);
		ADD(others->no_room_bytes, bytes);
	} else {
		ADD(others->no_address, 1);
		ADD(others->no_address_bytes, bytes);
	}
}

static __always_inline int on_drop(bool direct, struct sk_buff *skb, __u32 reason,
				   struct sock *rx_sk)
{
	struct netspy_drop_key key = {.reason = reason};
	struct owner owner = {};
	__u64 bytes, *count;
	__u32 zero = 0;
	bool has_room;

	if (is_no_drop(reason) || !describe(direct, skb, rx_sk, &key, &owner, &bytes))
		return 0;
	count = bpf_map_lookup_elem(&seen, &zero);
	if (count)
		ADD(*count, 1);
	if (!key.family) {
		count_rest(reason, false, bytes);
	} else {
		if (active & 1)
			has_room = count_flow(&flows_b, 1, &key, bytes, owner.address);
		else
			has_room = count_flow(&flows_a, 0, &key, bytes, owner.address);
		if (!has_room)
			count_rest(reason, true, bytes);
	}
	if (!dirty)
		dirty = 1;
	return 0;
}

/* Where there is no reason, the place that dropped the packet stands for it: the kernel and its
 * modules lie within 2 GiB. */
static __always_inline __u32 reason_of(__u64 *ctx)
{
	__u32 reason = ctx[1];

	/* Two loads: the verifier takes none whose offset was computed. */
	barrier_var(reason);
	if (cfg_reason)
		reason = ctx[2];
	return reason;
}

SEC("tp_btf/kfree_skb")
int drop_btf(__u64 *ctx)
{
	STAY_IN_TRACEPOINT;

	/* An argument that this kernel has not is never read: the verifier knows the constant. */
	return on_drop(true, (struct sk_buff *)ctx[0], reason_of(ctx),
		       cfg_rx_sk ? (struct sock *)ctx[3] : NULL);
}

SEC("raw_tp/kfree_skb")
int drop_raw(__u64 *ctx)
{
	STAY_IN_TRACEPOINT;

	return on_drop(false, (struct sk_buff *)ctx[0], reason_of(ctx),
		       cfg_rx_sk ? (struct sock *)ctx[3] : NULL);
}

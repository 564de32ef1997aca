/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * DNS messages: questions that leave, and what comes back to the sockets that asked. They are
 * copied as they are, user space decodes them. A question is seen before its answer can be there,
 * and an answer before the process reads it, so before it connects to what it says.
 *
 * The program of a packet may not ask who runs. Of a socket with a peer `conns` tells who asks; one
 * without is told of by the cgroup hooks of sendmsg(), which come first, in the socket's storage.
 */
#ifndef NETSPY_DNS_H
#define NETSPY_DNS_H

#include "attempt.h"
#include "datagram.h"

#define ETH_P_IP   0x0800
#define ETH_P_IPV6 0x86dd
#define DNS_PORT   53
#define DNS_HEADER 12 /* RFC 1035, 4.1.1 */

#define IPV4_HEADER 20 /* without options, which nobody sends */
#define IPV6_HEADER 40
#define UDP_HEADER  8

#define TCP_HEADER 20
#define TCP_SYN	   0x02
#define TCP_ACK	   0x10

/* Messages, and lengths of messages, in one segment; those of more are not followed further. */
#define PARTS_OF_SEGMENT 16

/* One direction of a TCP connection. Messages follow one another there, each after its length
 * (RFC 1035, 4.2.2), and segments begin and end anywhere. */
struct netspy_stream {
	__u32 next; /* sequence number of the first byte that was not seen */
	__u32 left; /* bytes to come of the message that it is in */
	__u16 len;  /* of that message */
	__u8 is_followed;
	__u8 reserved;
};

struct netspy_asker {
	struct netspy_conn conn;
	struct netspy_stream questions;
	struct netspy_stream answers;
};

/* Sockets that ask without a peer, and those of TCP. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct netspy_asker);
} askers SEC(".maps");

/* A packet to or from the port of DNS. */
struct netspy_packet {
	__u32 header;  /* bytes of the IP header; 0: it is none */
	__u32 payload; /* where its payload begins, from the IP header on, */
	__u32 len;     /* and how long it is */
	__u32 seq;     /* TCP: of the payload */
	__u8 tcp_flags;
	bool is_tcp;
	bool is_answer;
};

/* A part of a message. */
struct netspy_part {
	__u32 at;    /* where it begins in the packet */
	__u32 kept;  /* its bytes */
	__u16 len;   /* of the message */
	__u16 begin; /* where it begins in the message */
};

/* Reads the headers of what may be a packet of DNS. */
static __always_inline void read_packet(struct __sk_buff *skb, struct netspy_packet *p)
{
	const __u8 *data = (const __u8 *)(long)skb->data, *end = (const __u8 *)(long)skb->data_end;
	const __u8 *transport;
	__be16 port;
	__u8 protocol;

	p->header = 0;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (data + IPV4_HEADER + UDP_HEADER > end || data[0] != 0x45)
			return;
		protocol = data[9];
		transport = data + IPV4_HEADER;
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		if (data + IPV6_HEADER + UDP_HEADER > end)
			return;
		protocol = data[6];
		transport = data + IPV6_HEADER;
	} else {
		return;
	}
	port = *(const __be16 *)(transport + (p->is_answer ? 0 : 2));
	if (port != bpf_htons(DNS_PORT) || (protocol != IPPROTO_UDP && protocol != IPPROTO_TCP))
		return;
	p->payload = (__u32)(transport - data);
	p->is_tcp = protocol == IPPROTO_TCP;
	if (p->is_tcp) {
		if (transport + TCP_HEADER > end)
			return;
		p->tcp_flags = transport[13];
		p->seq = bpf_ntohl(*(const __be32 *)(transport + 4));
		if (p->tcp_flags & TCP_SYN)
			p->seq++;
		p->header = p->payload;
		p->payload += (transport[12] >> 4) * 4;
	} else {
		p->header = p->payload;
		p->payload += UDP_HEADER;
	}
	p->len = skb->len > p->payload ? skb->len - p->payload : 0;
}

/* Both ends as the packet has them. */
#define SET_ENDS(skb, c, p, own, other)                                                            \
	do {                                                                                       \
		if ((p)->header == IPV4_HEADER) {                                                  \
			(c)->family = AF_INET;                                                     \
			bpf_skb_load_bytes(skb, 12, (c)->own, 4);                                  \
			bpf_skb_load_bytes(skb, 16, (c)->other, 4);                                \
			bpf_skb_load_bytes(skb, IPV4_HEADER, &(c)->own##_port, 2);                 \
			bpf_skb_load_bytes(skb, IPV4_HEADER + 2, &(c)->other##_port, 2);           \
		} else {                                                                           \
			(c)->family = AF_INET6;                                                    \
			bpf_skb_load_bytes(skb, 8, (c)->own, 16);                                  \
			bpf_skb_load_bytes(skb, 24, (c)->other, 16);                               \
			bpf_skb_load_bytes(skb, IPV6_HEADER, &(c)->own##_port, 2);                 \
			bpf_skb_load_bytes(skb, IPV6_HEADER + 2, &(c)->other##_port, 2);           \
		}                                                                                  \
	} while (0)

/* Any program may send to this port as much as it likes: half of the ring is left to attempts. */
static __always_inline bool has_room_for_dns(void)
{
	return bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) <
	       bpf_ringbuf_query(&events, BPF_RB_RING_SIZE) / 2;
}

/* Copies a part of a message behind what is known of it. */
#define KEEP_DNS(skb, from, p, part, most, n)                                                      \
	do {                                                                                       \
		struct {                                                                           \
			struct netspy_dns what;                                                    \
			__u8 message[most];                                                        \
		} *__r = bpf_ringbuf_reserve(&events, sizeof(*__r), 0);                            \
		__u32 __len = (part)->kept;                                                        \
                                                                                                   \
		if (!__r) {                                                                        \
			COUNT(n, dns_lost);                                                        \
			break;                                                                     \
		}                                                                                  \
		__builtin_memcpy(&__r->what.asker, from, sizeof(__r->what.asker));                 \
		__r->what.asker.kind = NETSPY_KIND_DNS;                                            \
		__r->what.asker.protocol = (p)->is_tcp ? IPPROTO_TCP : IPPROTO_UDP;                \
		if ((p)->is_answer)                                                                \
			SET_ENDS(skb, &__r->what.asker, p, remote, local);                         \
		else                                                                               \
			SET_ENDS(skb, &__r->what.asker, p, local, remote);                         \
		__r->what.asker.local_port = bpf_ntohs(__r->what.asker.local_port);                \
		__r->what.asker.remote_port = DNS_PORT;                                            \
		__r->what.sock = address_of(skb->sk);                                              \
		__r->what.time_ns = bpf_ktime_get_boot_ns();                                       \
		__r->what.len = (part)->len;                                                       \
		__r->what.begin = (part)->begin;                                                   \
		__r->what.kept = __len;                                                            \
		__r->what.is_answer = (p)->is_answer;                                              \
		/* Without a peer it has one for each destination, or none yet. */                 \
		__r->what.has_record = !((from)->flags & NETSPY_F_ASKER);                          \
		/* From 1 to all, in the form that the verifier understands; the compiler must not \
		 * second-guess it. */                                                             \
		barrier_var(__len);                                                                \
		__len = ((__len - 1) & ((most)-1)) + 1;                                            \
		if (bpf_skb_load_bytes(skb, (part)->at, __r->message, __len)) {                    \
			bpf_ringbuf_discard(__r, BPF_RB_NO_WAKEUP);                                \
			break;                                                                     \
		}                                                                                  \
		bpf_ringbuf_submit(__r, wakeup_flags());                                           \
	} while (0)

static __always_inline void keep_part(struct __sk_buff *skb, const struct netspy_conn *from,
				      const struct netspy_packet *p, const struct netspy_part *part,
				      struct netspy_counters *n)
{
	if (!has_room_for_dns())
		COUNT(n, dns_lost);
	else if (part->kept <= NETSPY_DNS_SMALL)
		KEEP_DNS(skb, from, p, part, NETSPY_DNS_SMALL, n);
	else
		KEEP_DNS(skb, from, p, part, NETSPY_DNS_LARGE, n);
}

/* A datagram that is one message. */
static __always_inline void on_dns_datagram(struct __sk_buff *skb, struct bpf_sock *sk,
					    const struct netspy_packet *p)
{
	struct netspy_part part = {.at = p->payload};
	__u64 key = address_of(skb->sk);
	struct netspy_conn *c;
	struct netspy_asker *a;

	if (p->len < DNS_HEADER)
		return;
	part.len = p->len > 0xffff ? 0xffff : p->len;
	part.kept = p->len > NETSPY_DNS_LARGE ? NETSPY_DNS_LARGE : p->len;
	/* The kernel lets in what comes from the peer alone. */
	c = bpf_map_lookup_elem(&conns, &key);
	if (c && is_datagram(c) && c->remote_port == DNS_PORT) {
		keep_part(skb, c, p, &part, this_cpu_counters());
		return;
	}
	a = bpf_sk_storage_get(&askers, sk, NULL, 0);
	if (a && a->conn.protocol == IPPROTO_UDP)
		keep_part(skb, &a->conn, p, &part, this_cpu_counters());
}

/* The first packet of a direction: its messages begin with the next byte. */
static __always_inline void on_dns_syn(struct __sk_buff *skb, struct bpf_sock *sk,
				       const struct netspy_packet *p)
{
	__u64 key = address_of(skb->sk);
	struct netspy_stream *s;
	struct netspy_asker *a;
	struct netspy_conn *c;

	if (p->is_answer) {
		a = bpf_sk_storage_get(&askers, sk, NULL, 0);
		/* Once followed, it is one that was sent again. */
		if (!a || !(p->tcp_flags & TCP_ACK) || a->answers.is_followed)
			return;
		s = &a->answers;
	} else {
		c = bpf_map_lookup_elem(&conns, &key);
		if (!c || c->protocol != IPPROTO_TCP || c->remote_port != DNS_PORT)
			return;
		a = bpf_sk_storage_get(&askers, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
		if (!a)
			return;
		a->conn = *c;
		a->answers.is_followed = 0;
		s = &a->questions;
	}
	s->next = p->seq;
	s->left = 0;
	s->is_followed = 1;
}

/* What follow_part() is told of a segment beside where to read on: the bytes of its IP header, and
 * whether it is one of answers. */
#define OF_ANSWERS 0x100

/* The length of a message, or a part of one, at this place of a segment: how many bytes that is, or
 * 0 where it cannot be followed. Not static, so that the verifier looks at it once, and not at
 * every turn of the loop that calls it; on Linux before 5.12 such a function takes the packet and
 * numbers alone. */
__noinline int follow_part(struct __sk_buff *skb, __u32 at, __u32 how)
{
	struct netspy_packet p = {.is_tcp = true, .is_answer = how & OF_ANSWERS};
	struct netspy_part part = {.at = at};
	struct netspy_counters *n = this_cpu_counters();
	struct netspy_stream *s;
	struct netspy_asker *a;
	struct bpf_sock *sk;
	__be16 len;
	__u32 rest;

	if (!skb->sk || skb->len <= at)
		return 0;
	sk = bpf_sk_fullsock(skb->sk);
	if (!sk)
		return 0;
	a = bpf_sk_storage_get(&askers, sk, NULL, 0);
	if (!a)
		return 0;
	p.header = how & (OF_ANSWERS - 1);
	s = p.is_answer ? &a->answers : &a->questions;
	rest = skb->len - at;
	if (!s->left) {
		if (rest < sizeof(len) || bpf_skb_load_bytes(skb, at, &len, sizeof(len)))
			return 0;
		s->len = bpf_ntohs(len);
		s->left = s->len;
		s->next += sizeof(len);
		/* Those of zone transfers, mostly. */
		if (s->len > NETSPY_DNS_LARGE)
			COUNT(n, dns_lost);
		return sizeof(len);
	}
	part.len = s->len;
	part.begin = s->len - s->left;
	part.kept = s->left < rest ? s->left : rest;
	if (s->len <= NETSPY_DNS_LARGE)
		keep_part(skb, &a->conn, &p, &part, n);
	s->left -= part.kept;
	s->next += part.kept;
	return part.kept;
}

/* A segment with something in it. What is not followed any more is counted: where a message begins
 * is never guessed. */
static __always_inline void on_dns_segment(struct __sk_buff *skb, struct bpf_sock *sk,
					   const struct netspy_packet *p)
{
	struct netspy_asker *a = bpf_sk_storage_get(&askers, sk, NULL, 0);
	struct netspy_counters *n = this_cpu_counters();
	struct netspy_stream *s;
	__u32 seen, how, taken;

	if (!a || a->conn.protocol != IPPROTO_TCP)
		return;
	s = p->is_answer ? &a->answers : &a->questions;
	if (!s->is_followed)
		return;
	seen = s->next - p->seq;
	/* One before it is missing. */
	if ((__s32)seen < 0)
		goto lost;
	/* Sent again. */
	if (seen >= p->len)
		return;
	how = p->header | (p->is_answer ? OF_ANSWERS : 0);
	for (int i = 0; i < PARTS_OF_SEGMENT && seen < p->len; i++) {
		taken = follow_part(skb, p->payload + seen, how);
		if (!taken)
			goto lost;
		seen += taken;
	}
	if (seen == p->len)
		return;
lost:
	s->is_followed = 0;
	COUNT(n, dns_lost);
}

static __always_inline void on_dns_packet(struct __sk_buff *skb, bool is_answer)
{
	struct netspy_packet p = {.is_answer = is_answer};
	struct bpf_sock *sk;

	read_packet(skb, &p);
	if (!p.header || !skb->sk)
		return;
	sk = bpf_sk_fullsock(skb->sk);
	if (!sk)
		return;
	if (!p.is_tcp) {
		on_dns_datagram(skb, sk, &p);
		return;
	}
	if (p.tcp_flags & TCP_SYN)
		on_dns_syn(skb, sk, &p);
	if (p.len)
		on_dns_segment(skb, sk, &p);
}

/* A datagram is about to go where it says, in the context of who sends it. */
static __always_inline void on_dns_ask(struct bpf_sock_addr *ctx, bool v6)
{
	struct netspy_asker *a;
	struct netspy_conn *c;

	if (ctx->user_port != bpf_htons(DNS_PORT) || !ctx->sk)
		return;
	a = bpf_sk_storage_get(&askers, ctx->sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!a)
		return;
	c = &a->conn;
	c->start_ns = bpf_ktime_get_boot_ns();
	c->flags = NETSPY_F_NO_START | NETSPY_F_ASKER;
	c->sock_type = SOCK_DGRAM;
	c->protocol = IPPROTO_UDP;
	c->remote_port = DNS_PORT;
	if (v6) {
		__u32 addr[4];

		addr[0] = ctx->user_ip6[0];
		addr[1] = ctx->user_ip6[1];
		addr[2] = ctx->user_ip6[2];
		addr[3] = ctx->user_ip6[3];
		set_remote_v6(c, (__u8 *)addr);
	} else {
		__u32 addr = ctx->user_ip4;

		c->family = AF_INET;
		__builtin_memcpy(c->remote, &addr, 4);
	}
	read_netns(c, false, (struct sock *)address_of(ctx->sk));
	read_identity_by(c, false);
	if (is_filtered(c))
		c->flags |= NETSPY_F_FILTERED;
}

#endif

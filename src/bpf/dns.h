/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * DNS messages that arrive over UDP, for the names of remotes: copied as they are, user space
 * decodes them. They come before the process reads them, so before it connects to what they say.
 */
#ifndef NETSPY_DNS_H
#define NETSPY_DNS_H

#include "flow.h"

#define ETH_P_IP   0x0800
#define ETH_P_IPV6 0x86dd
#define DNS_PORT   53
#define DNS_HEADER 12 /* RFC 1035, 4.1.1 */

#define IPV4_HEADER 20 /* without options, which nobody sends */
#define IPV6_HEADER 40
#define UDP_HEADER  8

/* Where the message begins in a UDP packet from the port of DNS; 0 for all others. */
static __always_inline __u32 dns_begins(struct __sk_buff *skb)
{
	const __u8 *data = (const __u8 *)(long)skb->data, *end = (const __u8 *)(long)skb->data_end;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (data + IPV4_HEADER + UDP_HEADER > end || data[9] != IPPROTO_UDP ||
		    data[0] != 0x45 || *(const __be16 *)(data + IPV4_HEADER) != bpf_htons(DNS_PORT))
			return 0;
		return IPV4_HEADER + UDP_HEADER;
	}
	if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		if (data + IPV6_HEADER + UDP_HEADER > end || data[6] != IPPROTO_UDP ||
		    *(const __be16 *)(data + IPV6_HEADER) != bpf_htons(DNS_PORT))
			return 0;
		return IPV6_HEADER + UDP_HEADER;
	}
	return 0;
}

/* The record of what the socket sent to where the packet comes from: by its peer, or by
 * destination. NULL where nothing was: then it is no answer, whatever it looks like. */
static __always_inline struct netspy_conn *asked_by(__u64 key, const struct netspy_dest *from)
{
	struct netspy_conn *c = bpf_map_lookup_elem(&conns, &key);
	struct netspy_flow_key flow_key = {.sock = key};
	struct netspy_sender *sender;
	struct netspy_flow *flow;

	/* The kernel lets in what comes from the peer alone. */
	if (c && is_datagram(c) && c->remote_port == DNS_PORT)
		return c;
	sender = bpf_map_lookup_elem(&senders, &key);
	if (!sender)
		return NULL;
	flow_key.born = sender->born;
	set_flow_key(&flow_key, from);
	flow = bpf_map_lookup_elem(&flows, &flow_key);
	return flow ? &flow->conn : NULL;
}

/* Copies the message behind what is known of it. */
#define KEEP_DNS(skb, head, begin, most, n)                                                        \
	do {                                                                                       \
		struct {                                                                           \
			struct netspy_dns what;                                                    \
			__u8 message[most];                                                        \
		} *__r = bpf_ringbuf_reserve(&events, sizeof(*__r), 0);                            \
		__u32 __len = (head)->kept;                                                        \
                                                                                                   \
		if (!__r) {                                                                        \
			COUNT(n, dns_lost);                                                        \
			break;                                                                     \
		}                                                                                  \
		__r->what = *(head);                                                               \
		/* From 1 to all, in the form that the verifier understands; the compiler must not \
		 * second-guess it. */                                                             \
		barrier_var(__len);                                                                \
		__len = ((__len - 1) & ((most)-1)) + 1;                                            \
		if (bpf_skb_load_bytes(skb, begin, __r->message, __len)) {                         \
			bpf_ringbuf_discard(__r, BPF_RB_NO_WAKEUP);                                \
			break;                                                                     \
		}                                                                                  \
		bpf_ringbuf_submit(__r, wakeup_flags());                                           \
	} while (0)

static __always_inline void on_packet(struct __sk_buff *skb)
{
	struct netspy_dns d = {.kind = NETSPY_KIND_DNS};
	struct netspy_dest from = {.port = DNS_PORT};
	struct netspy_counters *n;
	__u32 begin = dns_begins(skb), len;
	struct netspy_conn *c;

	if (!begin || skb->len < begin + DNS_HEADER || !skb->sk)
		return;
	if (begin == IPV4_HEADER + UDP_HEADER) {
		from.family = AF_INET;
		bpf_skb_load_bytes(skb, 12, from.addr, 4);
	} else {
		from.family = AF_INET6;
		bpf_skb_load_bytes(skb, 8, from.addr, 16);
	}
	c = asked_by(address_of(skb->sk), &from);
	if (!c)
		return;
	d.pid = c->pid;
	d.task_start_ns = c->task_start_ns;
	d.netns = c->netns;
	d.time_ns = bpf_ktime_get_boot_ns();
	len = skb->len - begin;
	d.len = len > 0xffff ? 0xffff : len;
	d.kept = len > NETSPY_DNS_LARGE ? NETSPY_DNS_LARGE : len;
	n = this_cpu_counters();
	if (len <= NETSPY_DNS_SMALL)
		KEEP_DNS(skb, &d, begin, NETSPY_DNS_SMALL, n);
	else
		KEEP_DNS(skb, &d, begin, NETSPY_DNS_LARGE, n);
}

#endif

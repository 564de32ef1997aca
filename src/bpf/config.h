/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Maps, options set before loading, and the counters. */
#ifndef NETSPY_CONFIG_H
#define NETSPY_CONFIG_H

#include "read.h"

#include "connect.h"

#define AF_UNSPEC 0
#define AF_UNIX	  1
#define AF_INET	  2
#define AF_INET6  10

#define O_NONBLOCK 04000 /* x86 and arm64 */

#define SOCK_STREAM    1
#define SOCK_DGRAM     2
#define SOCK_RAW       3
#define SOCK_SEQPACKET 5

#define IPPROTO_ICMP	1
#define IPPROTO_TCP	6
#define IPPROTO_UDP	17
#define IPPROTO_ICMPV6	58
#define IPPROTO_UDPLITE 136
#define IPPROTO_MPTCP	262

#define ENOENT	     2
#define EINTR	     4
#define EBADF	     9
#define EAGAIN	     11
#define ENOMEM	     12
#define EFAULT	     14
#define ENOTSOCK     88
#define EPIPE	     32
#define EDESTADDRREQ 89
#define EMSGSIZE     90
#define ECONNABORTED 103
#define ECONNRESET   104
#define ETIMEDOUT    110
#define ECONNREFUSED 111
#define EISCONN	     106
#define ENOTCONN     107
#define EALREADY     114
#define EINPROGRESS  115
#define ERESTARTSYS  512
#define EEXIST	     17

/* Options; constants to the verifier, so that what is off costs nothing. */
const volatile bool cfg_calls = false;	     /* an entry hook keeps `calls` */
const volatile bool cfg_locked_down = false; /* no helper may read kernel memory */
const volatile bool cfg_hold = false;	     /* `conns` may hold datagram socks */
const volatile bool cfg_reach = false;	     /* but only of tasks in the cgroup of `reach` */
const volatile bool cfg_sent = false;	     /* all that UDP sends to a peer is seen */
const volatile bool cfg_icmp_raw = false;    /* and what ICMP and raw sockets send */
const volatile bool cfg_flows = false;	     /* UDP without a peer is seen when the send returns, */
const volatile bool cfg_flows_at_once = false; /* or only before */
const volatile bool cfg_stash = false;	     /* cgroup programs leave the destination in `sends` */
const volatile bool cfg_length_udp = false;  /* sock_send_length tells of UDP, */
const volatile bool cfg_length_icmp = false; /* of ICMP and raw sockets */
const volatile bool cfg_only_pid = false;
const volatile bool cfg_only_comm = false;
const volatile bool cfg_only_uid = false;
const volatile bool cfg_only_port = false;
const volatile bool cfg_only_cgroup = false;
const volatile bool cfg_only_cidr = false;
const volatile bool cfg_no_loopback = false;
const volatile bool cfg_no_unix = false;
const volatile bool cfg_no_inbound = false;
/* Bytes waiting in the ring above which the reader is woken rather than left to its timer. */
const volatile __u64 cfg_wake_bytes = 1 << 20;
/* When capture began, since boot. */
const volatile __u64 cfg_start_ns = 0;
/* How long an attempt may be without outcome before a sweep shows it as such. */
const volatile __u64 cfg_show_pending_ns = 100 * 1000 * 1000;

/* How long a socket may send nothing to a destination before the record ends. */
const volatile __u64 cfg_idle_ns = 60ULL * 1000 * 1000 * 1000;

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 8 << 20);
} events SEC(".maps");

/* Attempts and open connections of TCP, and datagram socks with their peer, by the address of the
 * sock; deleted at the latest when the sock is destroyed. Preallocated: an allocation in the path
 * of the observed costs more. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, struct netspy_conn);
} conns SEC(".maps");

/* The cgroup beyond which the close of a socket is not seen. */
struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} reach SEC(".maps");

/* Socks that found no room in `conns`, so that their connect() returning an error is not taken
 * for a further attempt. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, __u8);
} unheld SEC(".maps");

/* Whether `unheld` was ever used: look-ups there cost every sock that goes away. */
bool any_unheld = false;

/* Set by user space when capture ends: the last sweep shows what there is. */
bool ending = false;

/* Whether any entry of `conns` was ever one of which only the beginning was seen. */
bool any_called = false;

/* How many socks the search for what existed before came upon: makes the ids of those unique. */
__u32 found_existing = 0;

/* Where a pointer becomes a number (key_of()). */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} key_scratch SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct netspy_counters);
} counters SEC(".maps");

/* The connect() that a thread is in, where something at its end must be known from its start. */
struct netspy_call {
	__u64 start_ns;
	__u64 addr; /* of the caller (tracepoint) or of the kernel (kprobe) */
	__u64 file; /* kprobe */
	__s32 fd;   /* tracepoint */
	__u32 len;
	__u32 file_flags; /* kprobe */
	__u32 reserved;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, struct netspy_call);
} calls SEC(".maps");

/* When a connect() began that ends within itself, so on this processor. */
struct netspy_start {
	__u64 sk;
	__u64 start_ns;
	__u32 tid;
	__u32 reserved;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct netspy_start);
} starts SEC(".maps");

#define FILTER_ENTRIES 1024

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, FILTER_ENTRIES);
	__type(key, __u32);
	__type(value, __u8);
} only_pid SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, FILTER_ENTRIES);
	__type(key, __u8[NETSPY_COMM_LEN]);
	__type(value, __u8);
} only_comm SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, FILTER_ENTRIES);
	__type(key, __u32);
	__type(value, __u8);
} only_uid SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, FILTER_ENTRIES);
	__type(key, __u32);
	__type(value, __u8);
} only_port SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, FILTER_ENTRIES);
	__type(key, __u64);
	__type(value, __u8);
} only_cgroup SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, FILTER_ENTRIES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct netspy_cidr4);
	__type(value, __u8);
} only_cidr4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, FILTER_ENTRIES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct netspy_cidr6);
	__type(value, __u8);
} only_cidr6 SEC(".maps");

/* Atomic although per processor: a softirq may interrupt a program between its load and store. */
#define COUNT(counter, member)                                                                     \
	do {                                                                                       \
		if (counter)                                                                       \
			__sync_fetch_and_add(&(counter)->member, 1);                               \
	} while (0)

static __always_inline struct netspy_counters *this_cpu_counters(void)
{
	__u32 zero = 0;
	return bpf_map_lookup_elem(&counters, &zero);
}

#endif

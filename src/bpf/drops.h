/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What drops.bpf.c and user space agree on. The Rust types are generated from these by way of the
 * object's BTF; both sides assert the sizes. Integers only; addresses and ports as noted.
 */
#ifndef NETSPY_DROPS_H
#define NETSPY_DROPS_H

/* Flows of one table; what finds no room is counted by reason. */
#define NETSPY_DROP_FLOWS 8192
/* Flows of one reason and network namespace among them, found by a hash: a flood leaves room for
 * what else is dropped. */
#define NETSPY_DROP_FLOWS_OF_ONE 2048
#define NETSPY_DROP_SHARES	 512

/* How the headers of a packet are read. */
enum netspy_drop_headers {
	NETSPY_HEADERS_NONE = 0, /* not at all: only what the socket knows */
	NETSPY_HEADERS_CAST = 1, /* bpf_rdonly_cast(), Linux 6.2 */
	NETSPY_HEADERS_PROBE =
	    2, /* bpf_probe_read_kernel(), refused where the kernel is locked down */
};

/* What drops are counted together by. */
struct netspy_drop_key {
	__u32 reason;
	__u32 netns;
	__u16 source_port; /* host byte order */
	__u16 destination_port;
	__u8 family; /* AF_* */
	__u8 protocol;
	__u16 reserved;
	__u8 source[16]; /* network byte order; IPv4 in the first four */
	__u8 destination[16];
};

struct netspy_drop {
	__u64 count;
	__u64 bytes;
	__u64 first_ns; /* since boot */
	__u64 last_ns;
	__u64 sock; /* address of the socket that the packet belonged to, or 0 */
};

/* Drops of one reason that are in no table. Per processor. */
struct netspy_drop_rest {
	__u64 no_room;
	__u64 no_room_bytes;
	__u64 no_address; /* no IP packets, or nothing that could be read */
	__u64 no_address_bytes;
};

/* Places in the array of the rest: reasons of the core, of three subsystems, and others. */
#define NETSPY_REST_CORE      256
#define NETSPY_REST_SUBSYSTEM 64
#define NETSPY_REST_PLACES    512
#define NETSPY_REST_OTHER     (NETSPY_REST_PLACES - 1)

_Static_assert(sizeof(struct netspy_drop_key) == 48, "layout of netspy_drop_key");
_Static_assert(sizeof(struct netspy_drop) == 40, "layout of netspy_drop");
_Static_assert(sizeof(struct netspy_drop_rest) == 32, "layout of netspy_drop_rest");

#endif

/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Datagrams leave: what the kernel's functions for it were given, and what they returned. */
#ifndef NETSPY_SEND_H
#define NETSPY_SEND_H

#include "call.h"
#include "flow.h"

enum sender {
	UDP_OF_IPV4,
	UDP_OF_IPV6,
	ICMP_OR_RAW,
};

/* The send that a thread is in, where its end must know what its start was told. */
struct netspy_send {
	__u64 sock;
	struct netspy_dest to;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, struct netspy_send);
} sends SEC(".maps");

static __always_inline void enter_send(__u64 sock, const struct netspy_dest *to)
{
	struct netspy_send send = {.sock = sock, .to = *to};
	__u32 tid = bpf_get_current_pid_tgid();

	bpf_map_update_elem(&sends, &tid, &send, BPF_ANY);
}

/* Takes what the start left; false if that was not seen, or was of another sock. */
static __always_inline bool leave_send(struct netspy_send *send)
{
	__u32 tid = bpf_get_current_pid_tgid();
	struct netspy_send *found = bpf_map_lookup_elem(&sends, &tid);
	__u64 sock = send->sock;

	if (!found)
		return false;
	*send = *found;
	bpf_map_delete_elem(&sends, &tid);
	return !sock || send->sock == sock;
}

/* Where an address leads that a send was given. `family` is that of the sock. False if that is no
 * address that it can send to. */
static __always_inline bool set_dest(struct netspy_dest *to, const struct any_sockaddr *sa,
				     __u32 len, __u16 family)
{
	/* As in set_asked_address(). */
	barrier_var(sa);
	/* udp_sendmsg() takes AF_UNSPEC for AF_INET. */
	if (len >= SOCKADDR_IN_LEN &&
	    (sa->family == AF_INET || (sa->family == AF_UNSPEC && family == AF_INET))) {
		to->family = AF_INET;
		to->addr[0] = sa->addr4;
	} else if (len >= SOCKADDR_IN6_LEN && sa->family == AF_INET6) {
		const __u32 *addr = (const __u32 *)sa->addr6;

		if (is_mapped(sa->addr6)) {
			to->family = AF_INET;
			to->addr[0] = addr[3];
		} else {
			to->family = AF_INET6;
			to->addr[0] = addr[0];
			to->addr[1] = addr[1];
			to->addr[2] = addr[2];
			to->addr[3] = addr[3];
		}
	} else {
		return false;
	}
	to->port = bpf_ntohs(sa->port);
	return true;
}

static __always_inline bool is_remote(const struct netspy_conn *c, const struct netspy_dest *to)
{
	const __u32 *addr = (const __u32 *)c->remote;

	if (c->family != to->family || c->remote_port != to->port || addr[0] != to->addr[0])
		return false;
	return to->family == AF_INET ||
	       (addr[1] == to->addr[1] && addr[2] == to->addr[2] && addr[3] == to->addr[3]);
}

/* 0.0.0.0 and :: are this host (ip_route_output_key_hash_rcu(), ip6_dst_lookup_tail()). */
static __always_inline void resolve_any(bool direct, struct sock *sk, struct netspy_dest *to)
{
	__be32 own;

	if (to->unknown || to->addr[0])
		return;
	if (to->family == AF_INET) {
		own = READ(direct, sk, __sk_common.skc_rcv_saddr);
		to->addr[0] = own ? own : bpf_htonl(0x7f000001);
	} else if (to->family == AF_INET6 && !to->addr[1] && !to->addr[2] && !to->addr[3]) {
		to->addr[3] = bpf_htonl(1);
	}
}

/* A send returned. `to->family` is 0 if it named no destination, which then is the peer. */
static __always_inline void on_send_return(bool direct, bool typed, struct sock *sk,
					   struct netspy_dest *to, __s32 ret, bool flows)
{
	resolve_any(direct, sk, to);
	/* That of every protocol that has a peer (__ip4_datagram_connect() in net/ipv4/datagram.c).
	 */
	if (READ(direct, sk, __sk_common.skc_state) == TCP_ESTABLISHED) {
		struct netspy_counters *n = this_cpu_counters();
		struct netspy_conn *c = peer_of((__u64)sk, n);

		if (c && (!to->family || is_remote(c, to))) {
			count_send(c, ret, n);
			return;
		}
	}
	if (flows && to->family)
		on_flow_send(direct, typed, sk, to, ret, this_cpu_counters());
}

/* The function for IPv6 calls that for IPv4, which has a hook too, unless the sock refuses it. */
static __always_inline bool is_left_to_ipv4(bool direct, struct sock *sk, __u16 named,
					    const struct netspy_dest *to)
{
	__u8 peer[16];

	if (READ_BIT(direct, sk, __sk_common.skc_ipv6only))
		return false;
	if (named)
		return to->family == AF_INET;
	if (READ(direct, sk, __sk_common.skc_state) != TCP_ESTABLISHED)
		return false;
	copy_in6(peer, direct, &sk->__sk_common.skc_v6_daddr);
	return is_mapped(peer);
}

/* The destination that the system call of the current task names, where the kernel's copy is out of
 * reach; unknown where it names none or that is not to be had (io_uring, several messages in one
 * call). */
static __always_inline void read_dest_of_caller(struct sock *sk, struct netspy_dest *to)
{
	__u16 family = READ(true, sk, __sk_common.skc_family);
	struct any_sockaddr sa = {};
	struct task_struct *task;
	struct pt_regs *regs;
	const void *name = NULL;
	__u32 len = 0;

	to->family = family;
	to->unknown = 1;
	if (!HAS_HELPER(task_pt_regs))
		return;
	task = bpf_get_current_task_btf();
	if (READ(true, task, flags) & (PF_EXITING | PF_IO_WORKER | PF_KTHREAD))
		return;
	regs = (struct pt_regs *)bpf_task_pt_regs(task);
	if (SYSCALL_NR(regs) == NR_sendto) {
		name = (const void *)PT_REGS_PARM5_SYSCALL(regs);
		len = (__u32)PT_REGS_PARM6_SYSCALL(regs);
	} else if (SYSCALL_NR(regs) == NR_sendmsg) {
		struct {
			__u64 name;
			__u32 len;
		} msg = {};

		if (bpf_probe_read_user(&msg, 12, (const void *)PT_REGS_PARM2_SYSCALL(regs)))
			return;
		name = (const void *)msg.name;
		len = msg.len;
	}
	if (!name || !read_sockaddr(&sa, OF_CALLER, name, len) || !set_dest(to, &sa, len, family))
		return;
	to->unknown = 0;
}

/* The destination that a message names, as the kernel has copied it. Returns whether the send is to
 * be looked at, and from here. */
static __always_inline bool read_dest(bool direct, struct sock *sk, struct msghdr *msg,
				      struct netspy_dest *to, enum sender kind)
{
	void *name = READ(direct, msg, msg_name);
	struct any_sockaddr sa = {};

	if (name) {
		__u32 len = READ(direct, msg, msg_namelen);

		if (!read_sockaddr(&sa, OF_KERNEL, name, len) ||
		    !set_dest(to, &sa, len, READ(direct, sk, __sk_common.skc_family)))
			return false;
		if (kind == ICMP_OR_RAW)
			to->port = 0;
	}
	return kind != UDP_OF_IPV6 || !is_left_to_ipv4(direct, sk, name != NULL, to);
}

/* fexit */
static __always_inline int on_sendmsg(struct sock *sk, struct msghdr *msg, __s32 ret,
				      enum sender kind)
{
	bool flows = kind == ICMP_OR_RAW || cfg_flows;
	struct netspy_dest to = {};

	if (kind == ICMP_OR_RAW && cfg_locked_down) {
		if (msg->msg_name)
			read_dest_of_caller(sk, &to);
		to.port = 0;
	} else if (cfg_stash) {
		struct netspy_send send = {.sock = (__u64)sk};

		if (leave_send(&send))
			to = send.to;
		else if (msg->msg_name)
			return 0;
		if (kind == UDP_OF_IPV6 && is_left_to_ipv4(true, sk, to.family, &to))
			return 0;
	} else if (!read_dest(true, sk, msg, &to, kind)) {
		return 0;
	}
	on_send_return(true, true, sk, &to, ret, flows);
	return 0;
}

/* kprobe */
static __always_inline int on_sendmsg_entry(struct sock *sk, struct msghdr *msg, enum sender kind)
{
	struct netspy_dest to = {};

	if (read_dest(false, sk, msg, &to, kind))
		enter_send((__u64)sk, &to);
	return 0;
}

/* kretprobe */
static __always_inline int on_sendmsg_return(__s32 ret, bool flows)
{
	struct netspy_send send = {};

	if (leave_send(&send))
		on_send_return(false, true, (struct sock *)send.sock, &send.to, ret, flows);
	return 0;
}

/* tp_btf/sock_send_length: for every socket there is, so what is not of interest leaves early. */
static __always_inline int on_send_length(struct sock *sk, __s32 ret)
{
	struct netspy_send send = {.sock = (__u64)sk};
	bool flows = cfg_flows;
	struct netspy_dest to = {};
	__u16 family, protocol;

	if (!may_be_datagram(sk->sk_type))
		return 0;
	family = sk->__sk_common.skc_family;
	if (family != AF_INET && family != AF_INET6)
		return 0;
	protocol = sk->sk_protocol;
	if (sk->sk_type == SOCK_RAW || protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6) {
		if (!cfg_length_icmp)
			return 0;
		read_dest_of_caller(sk, &to);
		to.port = 0;
		/* Most likely there is no other than the peer. */
		if (to.unknown && sk->__sk_common.skc_state == TCP_ESTABLISHED)
			to.family = 0;
		flows = true;
	} else {
		if (cfg_stash && leave_send(&send))
			to = send.to;
		if (!cfg_length_udp)
			return 0;
		/* More of a datagram that is being gathered (MSG_MORE, UDP_CORK) passes by the
		 * cgroup programs. */
		if (!to.family && ret >= 0 && sk->__sk_common.skc_state != TCP_ESTABLISHED) {
			read_dest_of_caller(sk, &to);
			if (to.unknown)
				return 0;
		}
	}
	on_send_return(true, true, sk, &to, ret, flows);
	return 0;
}

/* ---- cgroup programs: they see what names its destination, before it is sent ---- */

static __always_inline int on_cgroup_send(struct bpf_sock_addr *ctx, __u16 family)
{
	struct netspy_dest to = {.family = family};
	struct bpf_sock *sk = ctx->sk;

	/* What names a destination names a port. A send to the peer comes here where it has control
	 * data, as those of QUIC have. */
	if (!sk || !ctx->user_port)
		return 1;
	if (family == AF_INET) {
		to.addr[0] = ctx->user_ip4;
	} else {
		to.addr[0] = ctx->user_ip6[0];
		to.addr[1] = ctx->user_ip6[1];
		to.addr[2] = ctx->user_ip6[2];
		to.addr[3] = ctx->user_ip6[3];
	}
	to.port = bpf_ntohs((__u16)ctx->user_port);
	if (cfg_flows_at_once)
		on_send_return(false, false, (struct sock *)address_of(sk), &to, 0, true);
	else
		enter_send(key_of(sk), &to);
	return 1;
}

#endif

/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* TCP: how an attempt begins, gets its outcome and closes, by the changes of its sock's state. */
#ifndef NETSPY_TCP_H
#define NETSPY_TCP_H

#include "called.h"
#include "standin.h"

#define RCV_SEND_SHUTDOWN 3 /* SHUTDOWN_MASK of net/sock.h */
/* tcp_syn_retries at its default gives up after 127 s (ip-sysctl.rst). */
#define LONGEST_CONNECT_NS (200ULL * 1000 * 1000 * 1000)
/* include/uapi/linux/errqueue.h */
#define SO_EE_ORIGIN_ICMP  2
#define SO_EE_ORIGIN_ICMP6 3
#define SOCK_DONE_BIT	   1 /* enum sock_flags: set by tcp_fin() alone */

static __always_inline void settle(struct netspy_conn *c, __u8 phase, __s32 error, __u8 evidence)
{
	c->outcome_ns = bpf_ktime_get_boot_ns();
	c->phase = phase;
	c->error = error;
	c->evidence = evidence;
}

/* The owner of an attempt that has left SYN_SENT without an error disconnected: shutdown(),
 * connect() to AF_UNSPEC. The ECONNRESET that tcp_disconnect() leaves on the sock came from nobody.
 */
static __always_inline void taken_back(struct netspy_conn *c, struct netspy_counters *n)
{
	c->phase = NETSPY_PHASE_FAILED;
	c->error = 0;
	c->evidence = NETSPY_EVIDENCE_OWNER_CLOSE;
	show(c, n, true);
}

/* The call that the current task is in, or 0 where that cannot be told. */
static __always_inline long current_syscall(void)
{
	if (HAS_HELPER(task_pt_regs)) {
		struct task_struct *task = bpf_get_current_task_btf();
		struct pt_regs *regs;

		/* The registers of a dying task are still those of its last call. */
		if (READ(true, task, flags) & PF_EXITING)
			return 0;
		regs = (struct pt_regs *)bpf_task_pt_regs(task);
		return SYSCALL_NR(regs);
	}
	return 0;
}

/* Whether the current task is in a connect() whose entry has left something. */
static __always_inline bool is_in_call(void)
{
	__u32 tid = bpf_get_current_pid_tgid();

	return bpf_map_lookup_elem(&calls, &tid) != NULL;
}

static __always_inline bool in_connect(void)
{
	if (cfg_calls)
		return is_in_call();
	return current_syscall() == NR_connect;
}

/* Whether nothing but the call that the current task is in can have ended an attempt: without
 * BPF_FUNC_task_pt_regs the owner is taken to have done it. */
static __always_inline bool in_shutdown(void)
{
	return !HAS_HELPER(task_pt_regs) || current_syscall() == NR_shutdown;
}

/* The entry is of an earlier attempt on the sock, or of an earlier sock in the same place. */
static __always_inline void superseded(struct netspy_conn *old, struct netspy_counters *n)
{
	if (was_told_of_end(old))
		return;
	switch (old->phase) {
	case NETSPY_PHASE_UNSETTLED:
		taken_back(old, n);
		return;
	case NETSPY_PHASE_PENDING:
		/* The run at its end was skipped. */
		settle(old, NETSPY_PHASE_FAILED, 0, NETSPY_EVIDENCE_OWNER_CLOSE);
		break;
	case NETSPY_PHASE_ENTERING:
	case NETSPY_PHASE_OPEN:
		/* Its end was not seen, and how it ended is not known any more. */
		if (old->flags & NETSPY_F_FILTERED)
			return;
		COUNT(n, updates_lost);
		if (old->flags & NETSPY_F_SHOWN || was_swept(old))
			return;
		old->phase = NETSPY_PHASE_OPEN;
		break;
	default:
		return;
	}
	show(old, n, true);
}

/* Puts the entry of a sock in place. */
static __always_inline int hold(__u64 key, struct netspy_conn *c, struct netspy_counters *n)
{
	struct netspy_conn *old;
	/* An int: before 6.4 the function behind the helper returns one, called without the
	 * wrapper that would extend its sign. */
	int err = bpf_map_update_elem(&conns, &key, c, BPF_NOEXIST);

	if (err != -EEXIST)
		return err;
	old = bpf_map_lookup_elem(&conns, &key);
	if (old)
		superseded(old, n);
	return bpf_map_update_elem(&conns, &key, c, BPF_ANY);
}

/* Whether the sock carries a part of an MPTCP connection. */
static __always_inline bool is_subflow(bool direct, struct tcp_sock *tp)
{
	/* Only there with CONFIG_MPTCP. */
	return bpf_core_field_exists(tp->is_mptcp) && READ(direct, tp, is_mptcp);
}

/* The first subflow of an MPTCP socket stands for it; those that join later are no attempts of
 * anybody: the kernel makes them (MP_JOIN, RFC 8684). */
static __always_inline bool is_join(bool direct, struct tcp_sock *tp)
{
	struct mptcp_subflow_context *subflow;

	/* Behind a pointer without a type. The kernel connects them from a worker. */
	if (cfg_locked_down)
		return READ(true, bpf_get_current_task_btf(), flags) & PF_KTHREAD;
	if (!bpf_core_type_exists(struct mptcp_subflow_context))
		return false;
	subflow = READ(direct, tp, inet_conn.icsk_ulp_data);
	return subflow && BPF_CORE_READ_BITFIELD_PROBED(subflow, request_join);
}

/* The sock's own port, which it still knows when it has already given it back. */
static __always_inline void read_local_tcp(struct netspy_conn *c, bool direct, struct sock *sk,
					   struct tcp_sock *tp)
{
	read_local(c, direct, sk);
	c->local_port = bpf_ntohs(READ(direct, tp, inet_conn.icsk_inet.inet_sport));
}

static __always_inline void tcp_begin(bool direct, struct sock *sk, __u64 key,
				      struct netspy_counters *n)
{
	struct netspy_conn c = {.kind = NETSPY_KIND_CONN};
	struct tcp_sock *tp = tcp_of(direct, sk);
	bool counted = false;
	__u8 one = 1;

	if (!tp)
		return;
	c.start_ns = bpf_ktime_get_boot_ns();
	if (any_called) {
		struct netspy_conn *called = bpf_map_lookup_elem(&conns, &key);

		counted = called && called->phase == NETSPY_PHASE_CALLED;
		if (counted)
			c.start_ns = called->start_ns;
	}
	c.sock_type = SOCK_STREAM;
	c.protocol = IPPROTO_TCP;
	if (is_subflow(direct, tp)) {
		if (is_join(direct, tp))
			return;
		c.protocol = IPPROTO_MPTCP;
	}
	read_identity(&c);
	read_netns(&c, direct, sk);
	read_addresses(&c, direct, sk, READ(direct, sk, __sk_common.skc_family));

	if (counted) {
		if (is_filtered(&c))
			c.flags |= NETSPY_F_FILTERED;
		/* In the place of the other. */
		bpf_map_update_elem(&conns, &key, &c, BPF_ANY);
		return;
	}
	COUNT(n, attempts);
	if (is_filtered(&c)) {
		c.flags |= NETSPY_F_FILTERED;
		COUNT(n, filtered);
		if (hold(key, &c, n) == 0)
			return;
	} else {
		if (hold(key, &c, n) == 0) {
			COUNT(n, waiting);
			return;
		}
		COUNT(n, map_full);
	}
	any_unheld = true;
	bpf_map_update_elem(&unheld, &key, &one, BPF_ANY);
}

/* Before an outcome there is nothing else to send again. */
static __always_inline __u8 syn_retransmits(bool direct, struct tcp_sock *tp)
{
	__u32 count = READ(direct, tp, total_retrans);

	return count < 255 ? count : 255;
}

static __always_inline void tcp_established(bool direct, struct sock *sk, struct netspy_conn *c,
					    struct netspy_counters *n)
{
	struct tcp_sock *tp = tcp_of(direct, sk);

	if (!tp)
		return;
	settle(c, NETSPY_PHASE_OPEN, 0, NETSPY_EVIDENCE_TCP_STATE);
	c->syn_retransmits = syn_retransmits(direct, tp);
	read_local_tcp(c, direct, sk, tp);
	/* Not the last chance: should the ring be full, a sweep shows it later. */
	show(c, n, false);
}

/* The error of an ICMP message that came while the sock was locked, as within connect() itself
 * where a firewall of this host answers: the sock goes on trying, but its owner is told, since
 * Linux 6.0 by poll(), too (ip_icmp_error() in tcp_v4_err()). 0 if there was none, or it cannot be
 * read. */
static __always_inline __s32 told_by_icmp(bool direct, struct sock *sk)
{
	struct sock_exterr_skb *report;
	struct sk_buff *skb;
	__u8 origin;

	if (cfg_locked_down || !bpf_core_type_exists(struct sock_exterr_skb) ||
	    !READ(direct, sk, sk_error_queue.qlen))
		return 0;
	skb = READ(direct, sk, sk_error_queue.prev);
	report = (struct sock_exterr_skb *)&skb->cb;
	origin = READ(false, report, ee.ee_origin);
	if (origin != SO_EE_ORIGIN_ICMP && origin != SO_EE_ORIGIN_ICMP6)
		return 0;
	return READ(false, report, ee.ee_errno);
}

static __always_inline void tcp_failed(bool direct, struct sock *sk, __u64 key,
				       struct netspy_conn *c, struct netspy_counters *n)
{
	struct tcp_sock *tp = tcp_of(direct, sk);
	__s32 error = READ(direct, sk, sk_err);

	if (!tp)
		return;
	c->syn_retransmits = syn_retransmits(direct, tp);
	/* The sock still knows its port here; the destination is wiped right after. */
	read_local_tcp(c, direct, sk, tp);
	if (error) {
		settle(c, NETSPY_PHASE_FAILED, error, NETSPY_EVIDENCE_SK_ERROR);
		show(c, n, true);
		/* Stays, so that connect() returning this error is recognised as its end. */
	} else if (in_connect()) {
		/* It gave up (no free port, no route for the SYN, ...) and is about to return the
		 * reason, or it disconnects and will return 0. */
		settle(c, NETSPY_PHASE_UNSETTLED, 0, NETSPY_EVIDENCE_NONE);
	} else if (READ(direct, sk, sk_shutdown) == RCV_SEND_SHUTDOWN) {
		/* tcp_close() shuts both ways before it changes the state. */
		__s32 told = told_by_icmp(direct, sk);

		settle(c, NETSPY_PHASE_FAILED, told,
		       told ? NETSPY_EVIDENCE_SK_ERROR : NETSPY_EVIDENCE_OWNER_CLOSE);
		show(c, n, true);
		bpf_map_delete_elem(&conns, &key);
	} else if (in_shutdown() || READ(direct, tp, packets_out)) {
		/* Or by io_uring: what was sent ends without an error when it is taken back only.
		 */
		settle(c, NETSPY_PHASE_FAILED, 0, NETSPY_EVIDENCE_OWNER_CLOSE);
		show(c, n, true);
	} else {
		/* The same as in connect(), but in a call whose return value nobody tells: sendto()
		 * with fast open, io_uring. */
		settle(c, NETSPY_PHASE_FAILED, 0, NETSPY_EVIDENCE_TCP_STATE);
		show(c, n, true);
	}
}

/* Payload sent so far, each byte once. */
static __always_inline __u64 payload_sent(bool direct, struct tcp_sock *tp)
{
	return READ(direct, tp, bytes_sent) - READ(direct, tp, bytes_retrans);
}

static __always_inline bool got_fin(bool direct, struct sock *sk)
{
	return (READ(direct, sk, __sk_common.skc_flags) >> SOCK_DONE_BIT) & 1;
}

/* Payload received so far. The peer's FIN takes a sequence number, and is counted as a byte. */
static __always_inline __u64 payload_received(bool direct, struct sock *sk, struct tcp_sock *tp)
{
	__u64 received = READ(direct, tp, bytes_received);

	if (got_fin(direct, sk))
		received -= received > 0;
	return received;
}

static __always_inline void tcp_closed(bool direct, struct sock *sk, __u64 key,
				       struct netspy_conn *c, int oldstate,
				       struct netspy_counters *n)
{
	struct tcp_sock *tp = tcp_of(direct, sk);
	bool is_orphan;

	if (!tp)
		return;
	c->close_ns = bpf_ktime_get_boot_ns();
	c->close_error = READ(direct, sk, sk_err);
	c->bytes_sent = payload_sent(direct, tp);
	c->retransmits = READ(direct, tp, total_retrans);
	c->srtt_us = READ(direct, tp, srtt_us) >> 3;
	c->bytes_received = payload_received(direct, sk, tp);
	is_orphan = !READ(direct, sk, sk_socket);
	/* In FIN_WAIT2 without a FIN: closed with unread data or linger 0, when tcp_close() has not
	 * orphaned the sock yet; or the orphan's time is up, which is in order. */
	if (oldstate == TCP_ESTABLISHED || oldstate == TCP_FIN_WAIT1 ||
	    oldstate == TCP_CLOSE_WAIT ||
	    (oldstate == TCP_FIN_WAIT2 && !got_fin(direct, sk) && !is_orphan))
		c->flags |= NETSPY_F_OWN_CLOSE;
	c->phase = NETSPY_PHASE_CLOSED;
	show(c, n, true);
	/* With its owner gone nothing more can come; else connect() may still return the error. */
	if (is_orphan)
		bpf_map_delete_elem(&conns, &key);
}

static __always_inline void listen_ends(__u64 key, struct netspy_conn *c, struct netspy_counters *n)
{
	c->close_ns = bpf_ktime_get_boot_ns();
	c->phase = NETSPY_PHASE_CLOSED;
	show(c, n, true);
	bpf_map_delete_elem(&conns, &key);
}

static __always_inline void forget_unheld(__u64 key)
{
	if (any_unheld)
		bpf_map_delete_elem(&unheld, &key);
}

/* Whether what begins with this state of the sock is known. */
static __always_inline bool has_begun(__u64 key, int newstate)
{
	struct netspy_conn *c;

	if (newstate != TCP_SYN_SENT && newstate != TCP_LISTEN)
		return false;
	c = bpf_map_lookup_elem(&conns, &key);
	if (newstate == TCP_LISTEN)
		return c && c->phase == NETSPY_PHASE_LISTENING;
	return (c && c->phase == NETSPY_PHASE_PENDING) ||
	       (any_unheld && bpf_map_lookup_elem(&unheld, &key));
}

/* What comes after the beginning. */
static __always_inline int on_later_state(bool direct, struct sock *sk, int oldstate, int newstate)
{
	__u64 key = (__u64)sk;
	struct netspy_counters *n;
	struct netspy_conn *c;

	if (newstate != TCP_ESTABLISHED && newstate != TCP_CLOSE)
		return 0;
	c = bpf_map_lookup_elem(&conns, &key);
	if (!c) {
		/* At CLOSE connect() may still return the error. */
		if (newstate == TCP_ESTABLISHED)
			forget_unheld(key);
		return 0;
	}
	n = this_cpu_counters();
	if (newstate == TCP_ESTABLISHED) {
		if (c->flags & NETSPY_F_FILTERED)
			bpf_map_delete_elem(&conns, &key);
		else if (c->phase == NETSPY_PHASE_PENDING)
			tcp_established(direct, sk, c, n);
	} else if (c->phase == NETSPY_PHASE_PENDING) {
		tcp_failed(direct, sk, key, c, n);
	} else if (c->phase == NETSPY_PHASE_OPEN) {
		tcp_closed(direct, sk, key, c, oldstate, n);
	}
	return 0;
}

static __always_inline int on_set_state(bool direct, struct sock *sk, int oldstate, int newstate)
{
	if (oldstate != TCP_CLOSE || newstate != TCP_SYN_SENT)
		return on_later_state(direct, sk, oldstate, newstate);
	if (READ(direct, sk, sk_protocol) == IPPROTO_TCP)
		tcp_begin(direct, sk, (__u64)sk, this_cpu_counters());
	return 0;
}

/* Whatever was not concluded before the sock goes away is concluded here, so that no entry outlives
 * its sock. */
static __always_inline int on_destroy_sock(bool direct, struct sock *sk)
{
	__u64 key = (__u64)sk;
	struct netspy_counters *n;
	struct netspy_conn *c = bpf_map_lookup_elem(&conns, &key);

	if (!c) {
		forget_unheld(key);
		return 0;
	}
	n = this_cpu_counters();
	/* There are none of these where the kernel is locked down, and no helper to conclude them.
	 */
	if (!cfg_locked_down && c->phase == NETSPY_PHASE_CALLED) {
		conclude_called(c, key, n);
	} else if (c->phase == NETSPY_PHASE_UNSETTLED) {
		taken_back(c, n);
	} else if (c->phase == NETSPY_PHASE_PENDING) {
		/* The run at its change of state was skipped. */
		__s32 error = READ(direct, sk, sk_err);

		settle(c, NETSPY_PHASE_FAILED, error,
		       error ? NETSPY_EVIDENCE_SK_ERROR : NETSPY_EVIDENCE_OWNER_CLOSE);
		show(c, n, true);
	} else if (c->phase == NETSPY_PHASE_OPEN) {
		tcp_closed(direct, sk, key, c, TCP_CLOSE, n);
	} else if (c->phase == NETSPY_PHASE_LISTENING) {
		listen_ends(key, c, n);
	}
	bpf_map_delete_elem(&conns, &key);
	return 0;
}

#endif

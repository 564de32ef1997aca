// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Every connection attempt, with its outcome.
 *
 * TCP: a sock that goes from CLOSE to SYN_SENT begins an attempt. That happens in the context of
 * the task that asked for it, with the destination already on the sock. The record is kept in
 * `conns` by the address of the sock; the later states run in whatever task or softirq handles the
 * packet, find it there, and put it into the ring at the outcome and at the close.
 *
 * What never reaches SYN_SENT (no route, not allowed, ...) and what is not TCP is seen when
 * connect() returns.
 *
 * The programs only read. They never change what the observed program gets to see.
 */
#include "attempt.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Names the types of ring records in the BTF of this object, for the skeleton. */
const volatile struct netspy_unix type_of_unix_record = {};
const volatile struct netspy_exec type_of_exec_record = {};

#define RCV_SEND_SHUTDOWN 3 /* SHUTDOWN_MASK of net/sock.h */
/* tcp_syn_retries at its default gives up after 127 s (ip-sysctl.rst). */
#define LONGEST_CONNECT_NS (200ULL * 1000 * 1000 * 1000)
#define PF_EXITING	   0x4 /* include/linux/sched.h */
#define SOCK_DONE_BIT	   1   /* enum sock_flags: set by tcp_fin() alone */

/* ---- TCP: begin, outcome, close ------------------------------------------------------------ */

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
	if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_task_pt_regs)) {
		struct task_struct *task = bpf_get_current_task_btf();

		/* The registers of a dying task are still those of its last call. */
		if (BPF_CORE_READ(task, flags) & PF_EXITING)
			return 0;
		return SYSCALL_NR((struct pt_regs *)bpf_task_pt_regs(task));
	}
	return 0;
}

static __always_inline bool in_connect(void)
{
	if (cfg_enter_args) {
		__u32 tid = bpf_get_current_pid_tgid();

		return bpf_map_lookup_elem(&enter_args, &tid) != NULL;
	}
	return current_syscall() == NR_connect;
}

/* Whether nothing but the call that the current task is in can have ended an attempt: without
 * BPF_FUNC_task_pt_regs the owner is taken to have done it. */
static __always_inline bool in_shutdown(void)
{
	return cfg_enter_args || current_syscall() == NR_shutdown;
}

/* Puts the entry of a sock in place. An older one is left from an earlier attempt on the sock. */
static __always_inline int hold(__u64 key, struct netspy_conn *c, struct netspy_counters *n)
{
	struct netspy_conn *old;
	/* An int: before 6.4 the function behind the helper returns one, called without the
	 * wrapper that would extend its sign. */
	int err = bpf_map_update_elem(&conns, &key, c, BPF_NOEXIST);

	if (err != -EEXIST)
		return err;
	old = bpf_map_lookup_elem(&conns, &key);
	if (old && old->phase == NETSPY_PHASE_UNSETTLED) {
		taken_back(old, n);
	} else if (old && old->phase == NETSPY_PHASE_PENDING) {
		/* The run at its end was skipped, and the sock is another by now. */
		settle(old, NETSPY_PHASE_FAILED, 0, NETSPY_EVIDENCE_OWNER_CLOSE);
		show(old, n, true);
	}
	return bpf_map_update_elem(&conns, &key, c, BPF_ANY);
}

/* The first subflow of an MPTCP socket stands for it; those that join later are no attempts of
 * anybody: the kernel makes them (MP_JOIN, RFC 8684). */
static __always_inline bool is_join(struct sock *sk)
{
	struct inet_connection_sock *icsk = (struct inet_connection_sock *)sk;
	struct mptcp_subflow_context *subflow;

	if (!bpf_core_type_exists(struct mptcp_subflow_context))
		return false;
	subflow = BPF_CORE_READ(icsk, icsk_ulp_data);
	return subflow && BPF_CORE_READ_BITFIELD_PROBED(subflow, request_join);
}

static __always_inline bool is_subflow(struct sock *sk)
{
	struct tcp_sock *tp = (struct tcp_sock *)sk;

	/* Only there with CONFIG_MPTCP. */
	return bpf_core_field_exists(tp->is_mptcp) && BPF_CORE_READ(tp, is_mptcp);
}

static __always_inline void tcp_begin(struct sock *sk, __u64 key, struct netspy_counters *n)
{
	struct netspy_conn c = {.kind = NETSPY_KIND_CONN};
	__u8 one = 1;

	c.start_ns = bpf_ktime_get_boot_ns();
	c.sock_type = SOCK_STREAM;
	c.protocol = IPPROTO_TCP;
	if (is_subflow(sk)) {
		if (is_join(sk))
			return;
		c.protocol = IPPROTO_MPTCP;
	}
	read_identity(&c);
	c.netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
	read_addresses(&c, sk, BPF_CORE_READ(sk, __sk_common.skc_family));

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

static __always_inline void tcp_established(struct sock *sk, struct netspy_conn *c,
					    struct netspy_counters *n)
{
	settle(c, NETSPY_PHASE_OPEN, 0, NETSPY_EVIDENCE_TCP_STATE);
	c->syn_retransmits = BPF_CORE_READ((struct tcp_sock *)sk, total_retrans);
	read_local(c, sk);
	/* Not the last chance: should the ring be full, a sweep shows it later. */
	show(c, n, false);
}

static __always_inline void tcp_failed(struct sock *sk, __u64 key, struct netspy_conn *c,
				       struct netspy_counters *n)
{
	struct tcp_sock *tp = (struct tcp_sock *)sk;
	__s32 error = BPF_CORE_READ(sk, sk_err);

	c->syn_retransmits = BPF_CORE_READ(tp, total_retrans);
	/* The sock still knows its port here; the destination is wiped right after. */
	read_local(c, sk);
	if (error) {
		settle(c, NETSPY_PHASE_FAILED, error, NETSPY_EVIDENCE_SK_ERROR);
		show(c, n, true);
		/* Stays, so that connect() returning this error is recognised as its end. */
	} else if (in_connect()) {
		/* It gave up (no free port, no route for the SYN, ...) and is about to return the
		 * reason, or it disconnects and will return 0. */
		settle(c, NETSPY_PHASE_UNSETTLED, 0, NETSPY_EVIDENCE_NONE);
	} else if (BPF_CORE_READ(sk, sk_shutdown) == RCV_SEND_SHUTDOWN) {
		/* tcp_close() shuts both ways before it changes the state. */
		settle(c, NETSPY_PHASE_FAILED, 0, NETSPY_EVIDENCE_OWNER_CLOSE);
		show(c, n, true);
		bpf_map_delete_elem(&conns, &key);
	} else if (in_shutdown()) {
		settle(c, NETSPY_PHASE_FAILED, 0, NETSPY_EVIDENCE_OWNER_CLOSE);
		show(c, n, true);
	} else {
		/* The same as in connect(), but in a call whose return value nobody tells: sendto()
		 * with fast open, io_uring. */
		settle(c, NETSPY_PHASE_FAILED, 0, NETSPY_EVIDENCE_TCP_STATE);
		show(c, n, true);
	}
}

static __always_inline void tcp_closed(struct sock *sk, __u64 key, struct netspy_conn *c,
				       int oldstate, struct netspy_counters *n)
{
	struct tcp_sock *tp = (struct tcp_sock *)sk;
	__u64 retransmitted = BPF_CORE_READ(tp, bytes_retrans);
	__u64 received = BPF_CORE_READ(tp, bytes_received);
	bool got_fin, is_orphan;

	c->close_ns = bpf_ktime_get_boot_ns();
	c->close_error = BPF_CORE_READ(sk, sk_err);
	c->bytes_sent = BPF_CORE_READ(tp, bytes_sent) - retransmitted;
	c->retransmits = BPF_CORE_READ(tp, total_retrans);
	c->srtt_us = BPF_CORE_READ(tp, srtt_us) >> 3;
	got_fin = (BPF_CORE_READ(sk, __sk_common.skc_flags) >> SOCK_DONE_BIT) & 1;
	/* The peer's FIN takes a sequence number, and is counted as a byte. */
	if (got_fin)
		received -= received > 0;
	c->bytes_received = received;
	is_orphan = !BPF_CORE_READ(sk, sk_socket);
	/* In FIN_WAIT2 without a FIN: closed with unread data or linger 0, when tcp_close() has not
	 * orphaned the sock yet; or the orphan's time is up, which is in order. */
	if (oldstate == TCP_ESTABLISHED || oldstate == TCP_FIN_WAIT1 ||
	    oldstate == TCP_CLOSE_WAIT || (oldstate == TCP_FIN_WAIT2 && !got_fin && !is_orphan))
		c->flags |= NETSPY_F_OWN_CLOSE;
	c->phase = NETSPY_PHASE_CLOSED;
	show(c, n, true);
	/* With its owner gone nothing more can come; else connect() may still return the error. */
	if (is_orphan)
		bpf_map_delete_elem(&conns, &key);
}

static __always_inline void forget_unheld(__u64 key)
{
	if (any_unheld)
		bpf_map_delete_elem(&unheld, &key);
}

static __always_inline int on_set_state(struct sock *sk, int oldstate, int newstate)
{
	__u64 key = (__u64)sk;
	struct netspy_counters *n;
	struct netspy_conn *c;

	if (oldstate == TCP_CLOSE && newstate == TCP_SYN_SENT) {
		if (BPF_CORE_READ(sk, sk_protocol) != IPPROTO_TCP)
			return 0;
		n = this_cpu_counters();
		tcp_begin(sk, key, n);
		return 0;
	}
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
			tcp_established(sk, c, n);
	} else if (c->phase == NETSPY_PHASE_PENDING) {
		tcp_failed(sk, key, c, n);
	} else if (c->phase == NETSPY_PHASE_OPEN) {
		tcp_closed(sk, key, c, oldstate, n);
	}
	return 0;
}

/* Whatever was not concluded before the sock goes away is concluded here, so that no entry outlives
 * its sock. */
static __always_inline int on_destroy_sock(struct sock *sk)
{
	__u64 key = (__u64)sk;
	struct netspy_counters *n;
	struct netspy_conn *c = bpf_map_lookup_elem(&conns, &key);

	if (!c) {
		forget_unheld(key);
		return 0;
	}
	n = this_cpu_counters();
	if (c->phase == NETSPY_PHASE_UNSETTLED) {
		taken_back(c, n);
	} else if (c->phase == NETSPY_PHASE_PENDING) {
		/* The run at its change of state was skipped. */
		__s32 error = BPF_CORE_READ(sk, sk_err);

		settle(c, NETSPY_PHASE_FAILED, error,
		       error ? NETSPY_EVIDENCE_SK_ERROR : NETSPY_EVIDENCE_OWNER_CLOSE);
		show(c, n, true);
	} else if (c->phase == NETSPY_PHASE_OPEN) {
		tcp_closed(sk, key, c, TCP_CLOSE, n);
	}
	bpf_map_delete_elem(&conns, &key);
	return 0;
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(set_state_btf, struct sock *sk, int oldstate, int newstate)
{
	return on_set_state(sk, oldstate, newstate);
}

SEC("raw_tp/inet_sock_set_state")
int BPF_PROG(set_state_raw, struct sock *sk, int oldstate, int newstate)
{
	return on_set_state(sk, oldstate, newstate);
}

SEC("tp_btf/tcp_destroy_sock")
int BPF_PROG(destroy_sock_btf, struct sock *sk)
{
	return on_destroy_sock(sk);
}

SEC("raw_tp/tcp_destroy_sock")
int BPF_PROG(destroy_sock_raw, struct sock *sk)
{
	return on_destroy_sock(sk);
}

/* ---- connect() returns ----------------------------------------------------------------------- */

/* The sock behind a file descriptor of the current task; NULL if it is no socket. */
static __always_inline struct sock *sock_of_fd(int fd)
{
	struct fdtable *fdt = BPF_CORE_READ(current_task(), files, fdt);
	struct file **slot, *file = NULL;
	struct socket *socket;

	if (fd < 0 || (__u32)fd >= BPF_CORE_READ(fdt, max_fds))
		return NULL;
	slot = BPF_CORE_READ(fdt, fd) + fd;
	bpf_probe_read_kernel(&file, sizeof(file), slot);
	if (!file)
		return NULL;
	/* Only a socket has one in private_data (S_IFMT, S_IFSOCK). */
	if ((BPF_CORE_READ(file, f_inode, i_mode) & 0170000) != 0140000)
		return NULL;
	socket = BPF_CORE_READ(file, private_data);
	return BPF_CORE_READ(socket, sk);
}

/* sockaddr_in and sockaddr_in6 as user space lays them out. */
struct user_sockaddr {
	__u16 family;
	__be16 port;
	__u32 addr4; /* of IPv6: flow label */
	__u8 addr6[16];
};

/* The address that the caller passed: the only one there is when connect() failed. */
static __always_inline void read_user_address(struct netspy_conn *c, const void *addr, __u32 len,
					      struct netspy_counters *n)
{
	struct user_sockaddr sa = {};
	long err = -1;

	c->flags |= NETSPY_F_NO_REMOTE;
	if (len >= 24)
		err = bpf_probe_read_user(&sa, 24, addr);
	else if (len >= 8)
		err = bpf_probe_read_user(&sa, 8, addr);
	else
		return;
	if (err) {
		COUNT(n, address_unread);
		return;
	}
	if (sa.family == AF_INET) {
		c->family = AF_INET;
		__builtin_memcpy(c->remote, &sa.addr4, 4);
	} else if (sa.family == AF_INET6 && len >= 24) {
		set_remote_v6(c, sa.addr6);
	} else {
		return;
	}
	c->remote_port = bpf_ntohs(sa.port);
	c->flags &= ~NETSPY_F_NO_REMOTE;
}

static __always_inline void unix_attempt(const struct netspy_conn *c, const void *addr, __u32 len,
					 struct netspy_counters *n)
{
	/* Built in the ring: together with the record it would not fit the stack. */
	struct netspy_unix *u = bpf_ringbuf_reserve(&events, sizeof(*u), 0);
	__u32 path_len = 0;

	if (!u) {
		COUNT(n, ring_full);
		return;
	}
	__builtin_memcpy(&u->conn, c, sizeof(*c));
	u->conn.kind = NETSPY_KIND_UNIX;
	if (len > 2)
		path_len = len - 2;
	if (path_len > NETSPY_PATH_LEN)
		path_len = NETSPY_PATH_LEN;
	if (path_len && bpf_probe_read_user(u->path, path_len, addr + 2)) {
		path_len = 0;
		u->conn.flags |= NETSPY_F_NO_REMOTE;
		COUNT(n, address_unread);
	}
	u->path_len = path_len;
	bpf_ringbuf_submit(u, wakeup_flags());
}

/* An attempt that is over as soon as it is known: not TCP, or TCP that never sent a SYN. */
static __always_inline void finished_attempt(struct sock *sk, __u16 family, __u16 protocol,
					     const void *addr, __u32 len, long ret,
					     struct netspy_counters *n)
{
	struct netspy_conn c = {.kind = NETSPY_KIND_CONN};

	c.start_ns = bpf_ktime_get_boot_ns();
	c.outcome_ns = c.start_ns;
	c.phase = ret ? NETSPY_PHASE_FAILED : NETSPY_PHASE_OPEN;
	c.error = -ret;
	c.evidence = NETSPY_EVIDENCE_CONNECT_RETURN;
	c.family = family;
	c.protocol = protocol;
	c.sock_type = BPF_CORE_READ(sk, sk_type);
	c.netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
	read_identity(&c);
	if (family != AF_UNIX) {
		if (ret)
			read_user_address(&c, addr, len, n);
		else
			read_addresses(&c, sk, family);
	}
	COUNT(n, attempts);
	if (is_filtered(&c)) {
		COUNT(n, filtered);
		return;
	}
	if (family == AF_UNIX)
		unix_attempt(&c, addr, len, n);
	else if (output(&c, sizeof(c)))
		COUNT(n, ring_full);
}

/* Errors that come from the network, or from an error that came from there before. */
static __always_inline bool is_of_network(long ret)
{
	return ret == -ECONNREFUSED || ret == -ETIMEDOUT || ret == -ECONNRESET ||
	       ret == -ECONNABORTED || ret == -EPIPE;
}

/* connect() on a TCP sock returned an error. Returns whether that is the end of an attempt that the
 * state hooks have seen, rather than one that never sent a SYN. */
static __always_inline bool tcp_return_is_known(__u64 key, long ret, struct netspy_counters *n)
{
	struct netspy_conn *c = bpf_map_lookup_elem(&conns, &key);
	__s32 error;

	if (!c) {
		if (any_unheld && bpf_map_delete_elem(&unheld, &key) == 0)
			return true;
		/* A SYN was sent, and when none was seen, that was before capture. A program of
		 * somebody else on the cgroup may return anything, hence the limit in time. */
		return is_of_network(ret) &&
		       bpf_ktime_get_boot_ns() - cfg_start_ns < LONGEST_CONNECT_NS;
	}
	if (c->phase == NETSPY_PHASE_PENDING || c->phase == NETSPY_PHASE_OPEN)
		/* Interrupted, or a further connect() on a sock that has its attempt. */
		return true;
	if (c->phase == NETSPY_PHASE_UNSETTLED) {
		c->phase = NETSPY_PHASE_FAILED;
		c->error = -ret;
		c->evidence = NETSPY_EVIDENCE_CONNECT_RETURN;
		show(c, n, true);
		c->flags |= NETSPY_F_RETURNED;
		return true;
	}
	/* Several threads may be in connect() on one sock: the first gets the error, the others one
	 * that it left. The error itself a second time is of another attempt. */
	error = c->phase == NETSPY_PHASE_CLOSED ? c->close_error : c->error;
	if (c->flags & NETSPY_F_RETURNED)
		return is_of_network(ret);
	c->flags |= NETSPY_F_RETURNED;
	/* ECONNABORTED: the error was fetched by SO_ERROR before. */
	return error == -ret || ret == -ECONNABORTED;
}

/* connect() on a TCP sock returned 0: the state hooks tell, unless it was to AF_UNSPEC, which takes
 * back what there was and leaves a sock as new. */
static __always_inline void tcp_returned_0(__u64 key, struct netspy_counters *n)
{
	struct netspy_conn *c = bpf_map_lookup_elem(&conns, &key);

	if (!c || c->phase == NETSPY_PHASE_PENDING || c->phase == NETSPY_PHASE_OPEN)
		return;
	if (c->phase == NETSPY_PHASE_UNSETTLED)
		taken_back(c, n);
	bpf_map_delete_elem(&conns, &key);
}

/* Return values that say nothing about an attempt. */
static __always_inline bool is_no_outcome(long ret)
{
	switch (-ret) {
	case EBADF: /* never reached a socket */
	case ENOTSOCK:
	case EFAULT:
	case EISCONN: /* no new attempt */
	case EALREADY:
	case EINPROGRESS: /* no outcome */
	case ERESTARTSYS: /* will be called again */
	case ERESTARTSYS + 1:
	case ERESTARTSYS + 2:
	case ERESTARTSYS + 4:
		return true;
	}
	return false;
}

static __always_inline int on_connect_return(int fd, const void *addr, __u32 len, long ret)
{
	struct netspy_counters *n;
	__u16 family, protocol, user_family = AF_UNSPEC;
	struct sock *sk;
	__u64 key;

	/* move_addr_to_kernel() refuses a longer address before the socket is asked. */
	if (len > 128)
		return 0;
	sk = sock_of_fd(fd);
	if (!sk)
		return 0;
	family = BPF_CORE_READ(sk, __sk_common.skc_family);
	if (family != AF_INET && family != AF_INET6 && family != AF_UNIX)
		return 0;
	protocol = BPF_CORE_READ(sk, sk_protocol);
	n = this_cpu_counters();
	if (family != AF_UNIX && BPF_CORE_READ(sk, sk_type) == SOCK_STREAM &&
	    (protocol == IPPROTO_TCP || protocol == IPPROTO_MPTCP)) {
		key = (__u64)sk;
		if (protocol == IPPROTO_MPTCP && bpf_core_type_exists(struct mptcp_sock))
			key = (__u64)BPF_CORE_READ((struct mptcp_sock *)sk, first);
		if (!ret) {
			tcp_returned_0(key, n);
			return 0;
		}
		if (tcp_return_is_known(key, ret, n))
			return 0;
	}
	/* AF_UNSPEC takes the peer away. */
	if (len >= 2 && bpf_probe_read_user(&user_family, 2, addr) == 0 && user_family == AF_UNSPEC)
		return 0;
	finished_attempt(sk, family, protocol, addr, len, ret, n);
	return 0;
}

SEC("tracepoint/syscalls/sys_enter_connect")
int enter_connect(struct trace_event_raw_sys_enter *ctx)
{
	struct netspy_args args = {
	    .fd = ctx->args[0],
	    .addr = ctx->args[1],
	    .len = ctx->args[2],
	};
	__u32 tid = bpf_get_current_pid_tgid();

	bpf_map_update_elem(&enter_args, &tid, &args, BPF_ANY);
	return 0;
}

SEC("tracepoint/syscalls/sys_exit_connect")
int exit_connect(struct trace_event_raw_sys_exit *ctx)
{
	long ret = ctx->ret;

	if (cfg_enter_args) {
		__u32 tid = bpf_get_current_pid_tgid();
		struct netspy_args args, *found = bpf_map_lookup_elem(&enter_args, &tid);

		if (!found)
			return 0;
		args = *found;
		bpf_map_delete_elem(&enter_args, &tid);
		if (is_no_outcome(ret))
			return 0;
		return on_connect_return(args.fd, (const void *)args.addr, args.len, ret);
	}
	if (is_no_outcome(ret))
		return 0;
	/* Since 5.15: the registers at the call are still there at its exit. */
	if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_task_pt_regs)) {
		struct pt_regs *regs = (void *)bpf_task_pt_regs(bpf_get_current_task_btf());

		return on_connect_return((int)PT_REGS_PARM1_CORE_SYSCALL(regs),
					 (const void *)PT_REGS_PARM2_CORE_SYSCALL(regs),
					 (__u32)PT_REGS_PARM3_CORE_SYSCALL(regs), ret);
	}
	return 0;
}

/* ---- sweep: what waits for an outcome is shown ------------------------------------------------
 */

SEC("iter/bpf_map_elem")
int sweep(struct bpf_iter__bpf_map_elem *ctx)
{
	struct netspy_conn *entry = ctx->value;
	__u64 *key = ctx->key;
	struct netspy_conn c;

	if (!entry || !key)
		return 0;
	/* A copy: the state hooks go on meanwhile, and the entry may become another's. */
	__builtin_memcpy(&c, entry, sizeof(c));
	if (c.flags & NETSPY_F_FILTERED || c.swept == c.start_ns + c.phase)
		return 0;
	switch (c.phase) {
	case NETSPY_PHASE_PENDING:
		if (bpf_ktime_get_boot_ns() - c.start_ns < cfg_show_pending_ns)
			return 0;
		/* The entry stands, so the sock does; it has its port by now. */
		read_local(&c, (struct sock *)*key);
		break;
	case NETSPY_PHASE_OPEN:
		/* The ring was full at the outcome. */
		if (c.flags & NETSPY_F_SHOWN)
			return 0;
		break;
	default:
		return 0;
	}
	c.flags |= NETSPY_F_SWEPT;
	if (output(&c, sizeof(c)) == 0)
		entry->swept = c.start_ns + c.phase;
	return 0;
}

/* ---- programs that start -----------------------------------------------------------------------
 */

/* One record at a time per processor; too large for the stack. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct netspy_exec);
} exec_scratch SEC(".maps");

static __always_inline int on_exec(struct task_struct *task, struct linux_binprm *bprm)
{
	struct netspy_exec *e;
	__u64 start, total;
	__u32 zero = 0;
	long len;

	e = bpf_map_lookup_elem(&exec_scratch, &zero);
	if (!e)
		return 0;
	e->kind = NETSPY_KIND_EXEC;
	e->pid = bpf_get_current_pid_tgid() >> 32;
	e->time_ns = bpf_ktime_get_boot_ns();
	e->task_start_ns = BPF_CORE_READ(task, group_leader, start_boottime);
	/* The binary that runs; of a script that is its interpreter. */
	len = bpf_probe_read_kernel_str(e->file, sizeof(e->file), BPF_CORE_READ(bprm, interp));
	e->file_len = len > 0 ? len - 1 : 0;
	start = BPF_CORE_READ(task, mm, arg_start);
	total = BPF_CORE_READ(task, mm, arg_end) - start;
	e->args_total = total;
	if (total > sizeof(e->args))
		total = sizeof(e->args);
	e->args_len = total;
	if (total && bpf_probe_read_user(e->args, total, (const void *)start))
		e->args_len = 0;
	if (output(e, sizeof(*e))) {
		struct netspy_counters *n = this_cpu_counters();

		COUNT(n, exec_lost);
	}
	return 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(exec_btf, struct task_struct *task, pid_t old_pid, struct linux_binprm *bprm)
{
	return on_exec(task, bprm);
}

SEC("raw_tp/sched_process_exec")
int BPF_PROG(exec_raw, struct task_struct *task, pid_t old_pid, struct linux_binprm *bprm)
{
	return on_exec(task, bprm);
}

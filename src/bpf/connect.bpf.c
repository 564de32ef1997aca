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
#include "exec.h"
#include "tcp.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Names the types of ring records in the BTF of this object, for the skeleton. */
const volatile struct netspy_unix type_of_unix_record = {};
const volatile struct netspy_exec type_of_exec_record = {};

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

/* ---- connect() returns ---- */

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

/* ---- sweep: what waits for an outcome is shown ---- */

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

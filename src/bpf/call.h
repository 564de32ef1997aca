/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* connect() returns: what never sent a SYN, and what is not TCP, has its outcome there. */
#ifndef NETSPY_CALL_H
#define NETSPY_CALL_H

#include "datagram.h"
#include "tcp.h"

/* Where the address that a call was given lies, which decides how it is read. */
enum address_space {
	OF_CALLER, /* user memory */
	OF_KERNEL, /* the kernel's copy, */
	OF_TYPED,  /* by a pointer whose type the verifier knows */
};

/* A call that returned. */
struct connect_return {
	struct sock *sk;
	const void *addr;
	__u32 len;
	__s32 ret;
	__u64 start_ns; /* 0 if the entry was not seen */
};

/* sockaddr_in and sockaddr_in6. */
struct any_sockaddr {
	__u16 family;
	__be16 port;
	__u32 addr4; /* of IPv6: flow label */
	__u8 addr6[16];
};

#define SOCKADDR_IN_LEN	 8 /* without the padding */
#define SOCKADDR_IN6_LEN 24

/* connect() on a datagram sock waits for nothing but the processor. */
#define LONGEST_CALL_NS (1000ULL * 1000 * 1000)

static __always_inline bool read_sockaddr(struct any_sockaddr *sa, enum address_space space,
					  const void *addr, __u32 len)
{
	if (space == OF_CALLER) {
		if (len >= SOCKADDR_IN6_LEN)
			return bpf_probe_read_user(sa, SOCKADDR_IN6_LEN, addr) == 0;
		if (len >= SOCKADDR_IN_LEN)
			return bpf_probe_read_user(sa, SOCKADDR_IN_LEN, addr) == 0;
		return len >= 2 && bpf_probe_read_user(sa, 2, addr) == 0;
	}
	/* A sockaddr_storage, whatever the length of what is in it. */
	if (space == OF_TYPED && cfg_locked_down) {
		COPY_BYTES((__u8 *)sa, addr, SOCKADDR_IN6_LEN);
		return true;
	}
	return bpf_probe_read_kernel(sa, SOCKADDR_IN6_LEN, addr) == 0;
}

/* The address that the call was given: the only one there is when it failed. */
static __always_inline void set_asked_address(struct netspy_conn *c, const struct any_sockaddr *sa,
					      __u32 len)
{
	/* Else the compiler computes addresses on the stack by bitwise operations, which the
	 * verifier refuses for pointers. */
	barrier_var(sa);
	if (sa->family == AF_INET && len >= SOCKADDR_IN_LEN) {
		c->family = AF_INET;
		__builtin_memcpy(c->remote, &sa->addr4, 4);
	} else if (sa->family == AF_INET6 && len >= SOCKADDR_IN6_LEN) {
		set_remote_v6(c, sa->addr6);
	} else {
		c->flags |= NETSPY_F_NO_REMOTE;
		return;
	}
	c->remote_port = bpf_ntohs(sa->port);
}

static __always_inline bool read_path(__u8 *path, enum address_space space, const void *addr,
				      __u32 len)
{
	if (space == OF_CALLER)
		return bpf_probe_read_user(path, len, addr + 2) == 0;
	if (space == OF_TYPED && cfg_locked_down) {
		COPY_BYTES(path, addr + 2, NETSPY_PATH_LEN);
		return true;
	}
	return bpf_probe_read_kernel(path, len, addr + 2) == 0;
}

static __always_inline void unix_attempt(const struct netspy_conn *c, enum address_space space,
					 const void *addr, __u32 len, struct netspy_counters *n)
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
	if (path_len && !read_path(u->path, space, addr, path_len)) {
		path_len = 0;
		u->conn.flags |= NETSPY_F_NO_REMOTE;
		COUNT(n, address_unread);
	}
	u->path_len = path_len;
	bpf_ringbuf_submit(u, wakeup_flags());
}

/* An attempt that is over as soon as it is known: not TCP, or TCP that never sent a SYN. */
static __always_inline void finished_attempt(bool direct, enum address_space space,
					     const struct connect_return *call, __u16 family,
					     __u16 protocol, const struct any_sockaddr *sa,
					     bool readable, struct netspy_counters *n)
{
	struct netspy_conn c = {.kind = NETSPY_KIND_CONN};
	struct sock *sk = call->sk;

	c.outcome_ns = bpf_ktime_get_boot_ns();
	c.start_ns = call->start_ns;
	if (!c.start_ns) {
		c.start_ns = c.outcome_ns;
		c.flags |= NETSPY_F_NO_START;
	}
	c.phase = call->ret ? NETSPY_PHASE_FAILED : NETSPY_PHASE_OPEN;
	c.error = -call->ret;
	c.evidence = NETSPY_EVIDENCE_CONNECT_RETURN;
	c.family = family;
	c.protocol = protocol;
	c.sock_type = READ(direct, sk, sk_type);
	read_netns(&c, direct, sk);
	read_identity(&c);
	if (family != AF_UNIX) {
		if (!call->ret) {
			read_addresses(&c, direct, sk, family);
		} else if (readable) {
			set_asked_address(&c, sa, call->len);
		} else {
			c.flags |= NETSPY_F_NO_REMOTE;
			COUNT(n, address_unread);
		}
	}
	clear_no_ports(&c);
	COUNT(n, attempts);
	if (is_filtered(&c)) {
		COUNT(n, filtered);
		return;
	}
	if (family == AF_UNIX)
		unix_attempt(&c, space, call->addr, call->len, n);
	else if (!call->ret && hold_peer((__u64)sk, &c, n))
		return;
	else if (output(&c, sizeof(c)))
		COUNT(n, ring_full);
}

/* Errors that come from the network, or from an error that came from there before. */
static __always_inline bool is_of_network(__s32 ret)
{
	return ret == -ECONNREFUSED || ret == -ETIMEDOUT || ret == -ECONNRESET ||
	       ret == -ECONNABORTED || ret == -EPIPE;
}

/* connect() on a TCP sock returned an error. Returns whether that is the end of an attempt that the
 * state hooks have seen, rather than one that never sent a SYN. */
static __always_inline bool tcp_return_is_known(__u64 key, __s32 ret, struct netspy_counters *n)
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
	/* ECONNABORTED, EPIPE: the error was fetched before, by SO_ERROR or by another thread that
	 * has not come here yet. */
	if (c->evidence == NETSPY_EVIDENCE_OWNER_CLOSE)
		/* Another thread took it back, by shutdown() or connect() to AF_UNSPEC. */
		return is_of_network(ret);
	return error == -ret || ret == -ECONNABORTED || ret == -EPIPE;
}

/* connect() on a TCP sock returned 0: the state hooks tell, unless it was to AF_UNSPEC, which takes
 * back what there was and leaves a sock as new. */
static __always_inline void tcp_returned_0(__u64 key, struct netspy_counters *n)
{
	struct netspy_conn *c = bpf_map_lookup_elem(&conns, &key);

	if (!c || c->phase == NETSPY_PHASE_PENDING || c->phase == NETSPY_PHASE_OPEN)
		return;
	/* Stays: another thread may still be in its connect(). */
	if (c->phase == NETSPY_PHASE_UNSETTLED)
		taken_back(c, n);
	else if (c->evidence != NETSPY_EVIDENCE_OWNER_CLOSE)
		bpf_map_delete_elem(&conns, &key);
}

/* connect() on a datagram sock returned 0: ends the peer that there was. Returns whether the call
 * is an attempt to be told of: not if the search for what existed before came upon the sock while
 * it was under way, and found the new peer. */
static __always_inline bool end_peer_before(bool direct, const struct connect_return *call,
					    struct netspy_counters *n)
{
	struct sock *sk = call->sk;
	__u64 key = (__u64)sk;
	struct netspy_conn *c = peer_of(key, n);
	__u64 now, start;

	if (!c)
		return true;
	now = bpf_ktime_get_boot_ns();
	/* Where the start is not known, it was not long ago. One that is after it was found makes
	 * more of the difference. */
	start = call->start_ns ? call->start_ns : now - LONGEST_CALL_NS;
	if (c->flags & NETSPY_F_PREEXISTING && c->outcome_ns - start < LONGEST_CALL_NS &&
	    has_remote(c, direct, sk))
		return false;
	end_datagram(&conns, &key, c, NETSPY_END_DISCONNECT, now, n);
	return true;
}

/* Return values that say nothing about an attempt. */
static __always_inline bool is_no_outcome(__s32 ret)
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

static __always_inline void on_connect_return(bool direct, enum address_space space,
					      const struct connect_return *call)
{
	struct any_sockaddr sa = {};
	struct netspy_counters *n;
	struct sock *sk = call->sk;
	__u16 family, protocol;
	bool readable;

	family = READ(direct, sk, __sk_common.skc_family);
	if (family != AF_INET && family != AF_INET6 && family != AF_UNIX)
		return;
	protocol = READ(direct, sk, sk_protocol);
	n = this_cpu_counters();
	if (family != AF_UNIX && READ(direct, sk, sk_type) == SOCK_STREAM &&
	    (protocol == IPPROTO_TCP || protocol == IPPROTO_MPTCP)) {
		__u64 key = (__u64)sk;

		if (protocol == IPPROTO_MPTCP && bpf_core_type_exists(struct mptcp_sock)) {
			/* Which subflow stands for it cannot be told. */
			if (cfg_locked_down)
				return;
			key = (__u64)READ(false, (struct mptcp_sock *)sk, first);
		}
		if (!call->ret) {
			tcp_returned_0(key, n);
			return;
		}
		if (tcp_return_is_known(key, call->ret, n))
			return;
	}
	/* One that fails leaves the peer that there was. */
	if (cfg_hold && family != AF_UNIX && !call->ret && !end_peer_before(direct, call, n))
		return;
	if (!call->ret && family != AF_UNIX && may_be_datagram(READ(direct, sk, sk_type))) {
		/* AF_UNSPEC takes the peer away, and what a filter of system calls answers in the
		 * kernel's place gives none (SECCOMP_RET_ERRNO). */
		if (READ(direct, sk, __sk_common.skc_state) != TCP_ESTABLISHED)
			return;
		readable = true;
	} else {
		readable = read_sockaddr(&sa, space, call->addr, call->len);
		if (readable && call->len >= 2 && sa.family == AF_UNSPEC)
			return;
	}
	finished_attempt(direct, space, call, family, protocol, &sa, readable, n);
}

static __always_inline void enter_call(const struct netspy_call *call)
{
	__u32 tid = bpf_get_current_pid_tgid();

	bpf_map_update_elem(&calls, &tid, call, BPF_ANY);
}

/* Takes what the entry left; false if that was not seen. */
static __always_inline bool leave_call(struct netspy_call *call)
{
	__u32 tid = bpf_get_current_pid_tgid();
	struct netspy_call *found = bpf_map_lookup_elem(&calls, &tid);

	if (!found)
		return false;
	*call = *found;
	bpf_map_delete_elem(&calls, &tid);
	return true;
}

static __always_inline void note_start(__u64 key)
{
	__u32 zero = 0;
	struct netspy_start *slot = bpf_map_lookup_elem(&starts, &zero);

	if (!slot)
		return;
	slot->sk = key;
	slot->start_ns = bpf_ktime_get_boot_ns();
	slot->tid = bpf_get_current_pid_tgid();
}

/* When the call on the sock began; 0 if another began on this processor since, or the task is on
 * another. */
static __always_inline __u64 take_start(__u64 key)
{
	__u32 zero = 0;
	struct netspy_start *slot = bpf_map_lookup_elem(&starts, &zero);

	if (!slot || slot->sk != key || slot->tid != (__u32)bpf_get_current_pid_tgid())
		return 0;
	slot->sk = 0;
	return slot->start_ns;
}

/* The socket of an open file; NULL if it is none. */
static __always_inline struct sock *sock_of(bool direct, struct file *file)
{
	struct inode *inode = READ(direct, file, f_inode);
	void *data;

	/* Only a socket has one in private_data (S_IFMT, S_IFSOCK). */
	if ((READ(direct, inode, i_mode) & 0170000) != 0140000)
		return NULL;
	data = READ(direct, file, private_data);
	if (direct)
		return CAST(struct socket, data)->sk;
	return READ(false, (struct socket *)data, sk);
}

static __always_inline struct sock *sock_of_file(struct file *file)
{
	return sock_of(false, file);
}

/* Where the table of open files has this one; NULL if it does not go so far. */
static __always_inline struct file **slot_in(bool direct, struct task_struct *task, int fd)
{
	struct files_struct *files = READ(direct, task, files);
	struct fdtable *fdt = READ(direct, files, fdt);

	if (fd < 0 || (__u32)fd >= READ(direct, fdt, max_fds))
		return NULL;
	return READ(direct, fdt, fd) + fd;
}

static __always_inline struct sock *sock_in(bool direct, struct task_struct *task, int fd)
{
	struct file **slot = slot_in(direct, task, fd), *file = NULL;

	if (slot)
		bpf_probe_read_kernel(&file, sizeof(file), slot);
	return file ? sock_of(false, file) : NULL;
}

/* The sock behind a file descriptor of the current task; NULL if it is no socket. */
static __always_inline struct sock *sock_of_fd(int fd)
{
	if (HAS_HELPER(get_current_task_btf))
		return sock_in(true, bpf_get_current_task_btf(), fd);
	return sock_in(false, (struct task_struct *)bpf_get_current_task(), fd);
}

/* The same with its type, where the kernel can cast. */
static __always_inline struct sock *typed_sock_of_fd(int fd)
{
	struct file **slot = slot_in(true, bpf_get_current_task_btf(), fd);
	void *file;

	if (!slot)
		return NULL;
	/* Any structure that begins with a pointer would do. */
	file = CAST(struct hlist_head, slot)->first;
	return file ? sock_of(true, CAST(struct file, file)) : NULL;
}

/* A call of io_uring that it will make again when the socket is ready: it asks not to wait, though
 * the file's owner did not. */
static __always_inline bool is_first_try(__s32 ret, __u32 call_flags, __u32 file_flags)
{
	return ret == -EAGAIN && call_flags & O_NONBLOCK && !(file_flags & O_NONBLOCK);
}

#endif

/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* One attempt: whose it is, where it goes, whether it is wanted, and its way into the ring. */
#ifndef NETSPY_ATTEMPT_H
#define NETSPY_ATTEMPT_H

#include "descendants.h"

#define PF_EXITING   0x4 /* include/linux/sched.h */
#define PF_IO_WORKER 0x10
#define PF_KTHREAD   0x200000

/* The name of a task. Before 5.16, which is also when this helper came, remains of a longer name
 * may follow the closing zero, which would make names that are keys differ. */
static __always_inline void read_comm(__u8 *to, bool direct, struct task_struct *task)
{
	if (direct && HAS_HELPER(kallsyms_lookup_name))
		COPY_BYTES(to, &task->comm, NETSPY_COMM_LEN);
	else
		bpf_core_read_str(to, NETSPY_COMM_LEN, &task->comm);
}

/* Where the task works: which directory it is, since its path would take too long. */
static __always_inline void read_cwd(struct netspy_conn *c, bool direct, struct task_struct *task)
{
	struct inode *inode;

	if (direct) {
		inode = task->fs->pwd.dentry->d_inode;
		c->cwd_ino = inode->i_ino;
		c->cwd_dev = inode->i_sb->s_dev;
		return;
	}
	/* In one chain each: what lies between would take the stack that some callers have not. */
	inode = BPF_CORE_READ(task, fs, pwd.dentry, d_inode);
	BPF_CORE_READ_INTO(&c->cwd_ino, inode, i_ino);
	BPF_CORE_READ_INTO(&c->cwd_dev, inode, i_sb, s_dev);
}

static __always_inline void read_task(struct netspy_conn *c, bool direct, struct task_struct *task)
{
	struct task_struct *leader = READ(direct, task, group_leader);
	struct task_struct *parent = READ(direct, leader, real_parent);

	/* A worker of io_uring acts for its process: of which thread it cannot be told. */
	if (READ(direct, task, flags) & PF_IO_WORKER)
		c->tid = c->pid;
	if (c->pid == c->tid)
		read_comm(c->thread, direct, leader);
	else
		bpf_get_current_comm(c->thread, sizeof(c->thread));
	if (c->pid == c->tid)
		__builtin_memcpy(c->comm, c->thread, sizeof(c->comm));
	else
		read_comm(c->comm, direct, leader);
	c->task_start_ns = READ(direct, leader, start_boottime);
	c->ppid = READ(direct, parent, tgid);
	/* Whose child it is may be any thread of the parent. */
	read_comm(c->parent, direct, READ(direct, parent, group_leader));
	read_cwd(c, direct, task);
}

/* Whose attempt it is. Only meaningful in process context. `typed`: the program may ask for the
 * current task by its type. */
static __always_inline void read_identity_by(struct netspy_conn *c, bool typed)
{
	__u64 pid_tgid = bpf_get_current_pid_tgid();

	c->pid = pid_tgid >> 32;
	c->tid = (__u32)pid_tgid;
	c->uid = (__u32)bpf_get_current_uid_gid();
	c->cgroup_id = bpf_get_current_cgroup_id();
	if (typed)
		read_task(c, true, bpf_get_current_task_btf());
	else
		read_task(c, false, (struct task_struct *)bpf_get_current_task());
}

static __always_inline void read_identity(struct netspy_conn *c)
{
	/* Since 5.11; before, the same pointer without its type. */
	read_identity_by(c, HAS_HELPER(get_current_task_btf));
}

/* What tells a network namespace from those that had its number before: the kernel gives that of
 * one that is gone to the next. Its cookie is given once; where there is none, what its hashes are
 * mixed with is random. */
static __always_inline __u32 netns_once(bool direct, struct net *net)
{
	if (bpf_core_field_exists(net->net_cookie))
		return (__u32)READ(direct, net, net_cookie);
	return READ(direct, net, hash_mix);
}

static __always_inline void read_netns(struct netspy_conn *c, bool direct, struct sock *sk)
{
	struct net *net = READ(direct, sk, __sk_common.skc_net.net);

	c->netns = READ(direct, net, ns.inum);
	c->netns_once = netns_once(direct, net);
}

/* IPv4-mapped: ::ffff:a.b.c.d (RFC 4291, 2.5.5.2). */
static __always_inline bool is_mapped(const __u8 *addr)
{
	const __u32 *word = (const __u32 *)addr;

	return word[0] == 0 && word[1] == 0 && word[2] == bpf_htonl(0x0000ffff);
}

static __always_inline void set_remote_v6(struct netspy_conn *c, const __u8 *addr)
{
	if (is_mapped(addr)) {
		c->family = AF_INET;
		__builtin_memcpy(c->remote, addr + 12, 4);
	} else {
		c->family = AF_INET6;
		__builtin_memcpy(c->remote, addr, 16);
	}
}

/* This side's address as the socket has it. */
static __always_inline void read_local(struct netspy_conn *c, bool direct, struct sock *sk)
{
	if (c->family == AF_INET) {
		__be32 addr = READ(direct, sk, __sk_common.skc_rcv_saddr);

		__builtin_memcpy(c->local, &addr, 4);
	} else {
		copy_in6(c->local, direct, &sk->__sk_common.skc_v6_rcv_saddr);
	}
	c->local_port = READ(direct, sk, __sk_common.skc_num);
}

/* Both addresses as the socket has them: what it uses, whatever the caller asked for. */
static __always_inline void read_addresses(struct netspy_conn *c, bool direct, struct sock *sk,
					   __u16 family)
{
	c->remote_port = bpf_ntohs(READ(direct, sk, __sk_common.skc_dport));
	if (family == AF_INET) {
		__be32 addr = READ(direct, sk, __sk_common.skc_daddr);

		c->family = AF_INET;
		__builtin_memcpy(c->remote, &addr, 4);
	} else {
		__u8 addr[16];

		copy_in6(addr, direct, &sk->__sk_common.skc_v6_daddr);
		set_remote_v6(c, addr);
	}
	read_local(c, direct, sk);
}

/* Whether the other side of the sock is still this one, as far as its port and the last word of its
 * address tell. A mapped IPv4 address is in the place of one too. */
static __always_inline bool has_remote(const struct netspy_conn *c, bool direct, struct sock *sk)
{
	const __u32 *word = (const __u32 *)c->remote;

	if (c->remote_port != bpf_ntohs(READ(direct, sk, __sk_common.skc_dport)))
		return false;
	if (c->family == AF_INET)
		return word[0] == READ(direct, sk, __sk_common.skc_daddr);
	return word[3] == READ(direct, sk, __sk_common.skc_v6_daddr.in6_u.u6_addr32[3]);
}

static __always_inline bool is_loopback_address(__u16 family, const __u8 *addr)
{
	const __u32 *word = (const __u32 *)addr;

	if (family == AF_INET)
		return addr[0] == 127;
	return word[0] == 0 && word[1] == 0 && word[2] == 0 && word[3] == bpf_htonl(1);
}

static __always_inline bool is_loopback(const struct netspy_conn *c)
{
	if (c->flags & NETSPY_F_LISTENER)
		return is_loopback_address(c->family, c->local);
	return is_loopback_address(c->family, c->remote);
}

/* Whether the filters leave the attempt out. */
static __always_inline bool is_filtered(const struct netspy_conn *c)
{
	if (cfg_no_unix && c->family == AF_UNIX)
		return true;
	if (cfg_only_pid && !bpf_map_lookup_elem(&only_pid, &c->pid))
		return true;
	if (cfg_only_descendants && !is_descendant(c->pid, c->task_start_ns))
		return true;
	if (cfg_only_uid && !bpf_map_lookup_elem(&only_uid, &c->uid))
		return true;
	if (cfg_only_cgroup && !bpf_map_lookup_elem(&only_cgroup, &c->cgroup_id))
		return true;
	if (cfg_only_comm && !bpf_map_lookup_elem(&only_comm, c->comm) &&
	    !bpf_map_lookup_elem(&only_comm, c->thread))
		return true;
	if (cfg_only_port) {
		/* The port that names the service. */
		__u32 port = c->flags & NETSPY_F_INBOUND ? c->local_port : c->remote_port;

		if (c->family == AF_UNIX || !bpf_map_lookup_elem(&only_port, &port))
			return true;
	}
	if (cfg_no_loopback && c->family != AF_UNIX && is_loopback(c))
		return true;
	if (cfg_only_cidr) {
		if (c->flags & NETSPY_F_NO_REMOTE)
			return true;
		if (c->family == AF_INET) {
			struct netspy_cidr4 key = {.prefix_len = 32};

			__builtin_memcpy(key.addr, c->remote, 4);
			return !bpf_map_lookup_elem(&only_cidr4, &key);
		}
		if (c->family == AF_INET6) {
			struct netspy_cidr6 key = {.prefix_len = 128};

			__builtin_memcpy(key.addr, c->remote, 16);
			return !bpf_map_lookup_elem(&only_cidr6, &key);
		}
		return true;
	}
	return false;
}

/* The reader drains on a timer and is woken only when much has piled up: a wake-up per event costs
 * the observed process several microseconds. */
static __always_inline __u64 wakeup_flags(void)
{
	if (bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) >= cfg_wake_bytes)
		return BPF_RB_FORCE_WAKEUP;
	return BPF_RB_NO_WAKEUP;
}

static __always_inline long output(void *record, __u64 size)
{
	return bpf_ringbuf_output(&events, record, size, wakeup_flags());
}

/* Whether a sweep has shown the attempt, in whichever phase. */
static __always_inline bool was_swept(const struct netspy_conn *c)
{
	return c->swept - c->start_ns <= NETSPY_PHASE_LAST;
}

/* Whether a sweep has shown the end of a sock, which no program has seen. */
static __always_inline bool was_told_of_end(const struct netspy_conn *c)
{
	__u64 phase = c->swept - c->start_ns;

	return phase == NETSPY_PHASE_FAILED || phase == NETSPY_PHASE_CLOSED;
}

/* A new version of the record of a sock. `last` says that there will be no other, so that a failure
 * cannot be made good by a later sweep. */
static __always_inline void show(struct netspy_conn *c, struct netspy_counters *n, bool last)
{
	bool sent;

	if (c->flags & NETSPY_F_FILTERED)
		return;
	sent = output(c, sizeof(*c)) == 0;
	if (!sent) {
		if (c->flags & NETSPY_F_SHOWN || was_swept(c))
			COUNT(n, updates_lost);
		else if (!last) {
			COUNT(n, left);
			return;
		} else if (c->flags & NETSPY_F_LISTENER)
			COUNT(n, updates_lost);
		else
			COUNT(n, ring_full);
	}
	/* What follows is an update, if of a record that was lost. */
	c->flags |= NETSPY_F_SHOWN;
	if (!(c->flags & NETSPY_F_SETTLED)) {
		c->flags |= NETSPY_F_SETTLED;
		COUNT(n, settled);
	}
}

/* The first version of an entry that others leave alone as yet. Should the ring be full, a sweep
 * shows it later. */
static __always_inline void show_entering(struct netspy_conn *held, struct netspy_conn *c,
					  struct netspy_counters *n)
{
	if (output(c, sizeof(*c))) {
		COUNT(n, left);
		return;
	}
	held->flags |= NETSPY_F_SHOWN | NETSPY_F_SETTLED;
	COUNT(n, settled);
}

#endif

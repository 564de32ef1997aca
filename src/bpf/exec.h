/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Programs that start: what outlives a process that is gone before anybody can look at it. */
#ifndef NETSPY_EXEC_H
#define NETSPY_EXEC_H

#include "attempt.h"

/* One record at a time per processor; too large for the stack. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct netspy_exec);
} exec_scratch SEC(".maps");

/* Components of a path at most; longer ones are not whole. */
#define PATH_DEPTH 22

/* Makes a number no greater than that, in the register where it is used: before Linux 5.11 the
 * verifier forgets the bounds of what the compiler has put on the stack meanwhile. */
#define AT_MOST(number, most)                                                                      \
	asm volatile("if %[n] <= %[m] goto +1\n%[n] = %[m]" : [n] "+r"(number) : [m] "i"(most))

/* The names on the way from a directory entry to the root of its mount namespace, as d_path() goes
 * (fs/d_path.c). Returns where they end. */
static __always_inline __u64 put_path(struct netspy_exec *e, __u64 at, struct vfsmount *vfsmount,
				      struct dentry *dentry, __u16 whole)
{
	struct mount *mount = (void *)((char *)vfsmount - bpf_core_field_offset(struct mount, mnt));

	for (int i = 0; i < PATH_DEPTH; i++) {
		const unsigned char *name;
		struct dentry *above;
		long len;

		if (dentry == READ(false, mount, mnt.mnt_root)) {
			struct mount *outer = READ(false, mount, mnt_parent);

			if (outer == mount) {
				e->flags |= whole;
				break;
			}
			dentry = READ(false, mount, mnt_mountpoint);
			mount = outer;
			continue;
		}
		if (at > NETSPY_NAMES_LEN - NETSPY_NAME_LEN)
			break;
		above = READ(false, dentry, d_parent);
		name = READ(false, dentry, d_name.name);
		AT_MOST(at, NETSPY_NAMES_LEN - NETSPY_NAME_LEN);
		len = bpf_probe_read_kernel_str(e->names + at, NETSPY_NAME_LEN, name);
		if (len <= 0)
			break;
		at += len;
		/* What is in no directory, such as a memfd. */
		if (above == dentry) {
			e->flags |= whole;
			break;
		}
		dentry = above;
	}
	return at;
}

static __always_inline void put_exe(struct netspy_exec *e, bool direct, struct file *file)
{
	struct dentry *dentry = READ(false, file, f_path.dentry);
	struct inode *inode = READ(direct, file, f_inode);
	struct super_block *sb = READ(direct, inode, i_sb);

	e->exe_ino = READ(direct, inode, i_ino);
	e->exe_dev = READ(direct, sb, s_dev);
	/* d_unhashed() */
	if (!READ(false, dentry, d_hash.pprev))
		e->flags |= NETSPY_EXEC_UNLINKED;
	e->exe_len = put_path(e, 0, READ(false, file, f_path.mnt), dentry, NETSPY_EXEC_WHOLE_EXE);
}

static __always_inline void put_cwd(struct netspy_exec *e, bool direct, struct task_struct *task)
{
	struct fs_struct *fs = READ(direct, task, fs);
	struct dentry *dentry = READ(false, fs, pwd.dentry);
	struct inode *inode = READ(false, dentry, d_inode);
	struct super_block *sb = READ(false, inode, i_sb);

	e->cwd_ino = READ(false, inode, i_ino);
	e->cwd_dev = READ(false, sb, s_dev);
	e->cwd_len =
	    put_path(e, e->exe_len, READ(false, fs, pwd.mnt), dentry, NETSPY_EXEC_WHOLE_CWD) -
	    e->exe_len;
}

static __always_inline void put_args(struct netspy_exec *e, bool direct, struct task_struct *task)
{
	struct mm_struct *mm = READ(direct, task, mm);
	__u64 start = READ(direct, mm, arg_start);
	__u64 total = READ(direct, mm, arg_end) - start;

	e->args_total = total;
	if (total > sizeof(e->args))
		total = sizeof(e->args);
	e->args_len = total;
	if (total && bpf_probe_read_user(e->args, total, (const void *)start))
		e->args_len = 0;
}

static __always_inline int on_exec(bool direct, struct task_struct *task, struct linux_binprm *bprm)
{
	struct task_struct *leader, *parent;
	struct netspy_exec *e;
	__u64 flags, size;
	__u32 zero = 0;

	e = bpf_map_lookup_elem(&exec_scratch, &zero);
	if (!e)
		return 0;
	e->kind = NETSPY_KIND_EXEC;
	e->pid = bpf_get_current_pid_tgid() >> 32;
	e->time_ns = bpf_ktime_get_boot_ns();
	e->flags = 0;
	leader = READ(direct, task, group_leader);
	e->task_start_ns = READ(direct, leader, start_boottime);
	parent = READ(direct, leader, real_parent);
	parent = READ(direct, parent, group_leader);
	e->ppid = READ(direct, parent, tgid);
	e->parent_start_ns = READ(direct, parent, start_boottime);
	read_comm(e->parent, direct, parent);
	put_args(e, direct, task);
	put_exe(e, direct, READ(direct, bprm, file));
	put_cwd(e, direct, task);
	flags = wakeup_flags();
	size = offsetof(struct netspy_exec, names) + e->exe_len + e->cwd_len;
	AT_MOST(size, sizeof(*e));
	if (bpf_ringbuf_output(&events, e, size, flags)) {
		struct netspy_counters *n = this_cpu_counters();

		COUNT(n, exec_lost);
	}
	return 0;
}

#endif

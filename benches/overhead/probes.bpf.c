// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// What netspy is measured against: the common design of a connection tracer, and for each kind of
// hook on connect(2) the least that a tracer can do there: nothing, and one record.
//
// Only integers cross the border to user space and no kernel structure is read, so a few type
// names are all that libbpf's headers need: no vmlinux.h, no kernel headers of the build machine.
typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef signed int __s32;
typedef signed long long __s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;

#include <bpf/bpf_helpers.h>

#define BPF_RB_NO_WAKEUP     1	/* include/uapi/linux/bpf.h */
#define BPF_MAP_TYPE_RINGBUF 27 /* enum bpf_map_type, include/uapi/linux/bpf.h */
#define COMM_LEN	     16 /* TASK_COMM_LEN */
#define ADDR_LEN	     28 /* sizeof(struct sockaddr_in6) */

/* events/syscalls/sys_enter_connect/format: common fields, number, then the arguments. */
struct connect_args {
	__u64 common;
	__s64 nr;
	__u64 fd;
	__u64 addr;
	__u64 addrlen;
};

struct record {
	__u64 time;
	__u32 pid;
	__u32 tid;
	__u32 uid;
	__u32 addrlen;
	char comm[COMM_LEN];
	__u8 addr[ADDR_LEN];
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} events SEC(".maps");

/* As large as netspy's record of an attempt. */
struct filler {
	__u64 time;
	__u64 pid_tgid;
	__u64 rest[24];
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 8 * 1024 * 1024);
} drained SEC(".maps");

SEC("tracepoint/syscalls/sys_enter_connect")
int naive_enter_connect(struct connect_args *ctx)
{
	__u64 pid_tgid = bpf_get_current_pid_tgid();
	__u64 len = ctx->addrlen;
	struct record *record = bpf_ringbuf_reserve(&events, sizeof(*record), 0);

	if (!record)
		return 0;
	record->time = bpf_ktime_get_ns();
	record->pid = pid_tgid >> 32;
	record->tid = (__u32)pid_tgid;
	record->uid = (__u32)bpf_get_current_uid_gid();
	if (len > ADDR_LEN)
		len = ADDR_LEN;
	record->addrlen = len;
	bpf_get_current_comm(record->comm, sizeof(record->comm));
	if (bpf_probe_read_user(record->addr, len, (void *)ctx->addr))
		record->addrlen = 0;
	/*
	 * No flags: the kernel wakes the reader whenever it had caught up, which is for every
	 * record unless they come faster than it reads: what a tracer gets that asks for nothing.
	 */
	bpf_ringbuf_submit(record, 0);
	return 0;
}

/* One record, read when a timer says so: nobody is woken for it. */
static __always_inline int one_record(void)
{
	struct filler *record = bpf_ringbuf_reserve(&drained, sizeof(*record), 0);

	if (!record)
		return 0;
	__builtin_memset(record, 0, sizeof(*record));
	record->time = bpf_ktime_get_boot_ns();
	record->pid_tgid = bpf_get_current_pid_tgid();
	bpf_ringbuf_submit(record, BPF_RB_NO_WAKEUP);
	return 0;
}

SEC("tracepoint/syscalls/sys_exit_connect")
int empty_trace(void *ctx)
{
	return 0;
}

SEC("tracepoint/syscalls/sys_exit_connect")
int record_trace(void *ctx)
{
	return one_record();
}

SEC("fexit/__sys_connect_file")
int empty_fexit(void *ctx)
{
	return 0;
}

SEC("fexit/__sys_connect_file")
int record_fexit(void *ctx)
{
	return one_record();
}

SEC("kretprobe/__sys_connect_file")
int empty_kret(void *ctx)
{
	return 0;
}

SEC("kretprobe/__sys_connect_file")
int record_kret(void *ctx)
{
	return one_record();
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

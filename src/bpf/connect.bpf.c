// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Every connection attempt, with its outcome, and every connection that is accepted.
 *
 * TCP: a sock that goes from CLOSE to SYN_SENT begins an attempt. That happens in the context of
 * the task that asked for it, with the destination already on the sock. The record is kept in
 * `conns` by the address of the sock; the later states run in whatever task or softirq handles the
 * packet, find it there, and put it into the ring at the outcome and at the close.
 *
 * What never reaches SYN_SENT (no route, not allowed, ...) and what is not TCP is seen when
 * connect() returns, incoming connections when they are accepted.
 *
 * The programs only read. They never change what the observed program gets to see.
 */
#include "callers.h"
#include "cgroup.h"
#include "dns.h"
#include "exec.h"
#include "existing.h"
#include "fork.h"
#include "inbound.h"
#include "send.h"
#include "stay.h"
#include "sweep.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Names the types of ring records in the BTF of this object, for the skeleton. */
const volatile struct netspy_unix type_of_unix_record = {};
const volatile struct netspy_exec type_of_exec_record = {};
const volatile struct netspy_fork type_of_fork_record = {};
const volatile struct netspy_cgroup type_of_cgroup_record = {};
const volatile struct netspy_dns type_of_dns_record = {};

/* ---- TCP states ---- */

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(set_state_btf, struct sock *sk, int oldstate, int newstate)
{
	STAY_IN_TRACEPOINT;

	has_run(true, sk, newstate);
	return on_state(true, sk, oldstate, newstate);
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(set_state_btf_standin, struct sock *sk, int oldstate, int newstate)
{
	STAY_IN_TRACEPOINT;

	if (!must_stand_in(true, sk, newstate) || has_begun((__u64)sk, newstate))
		return 0;
	stand_in();
	return on_state(true, sk, oldstate, newstate);
}

SEC("raw_tp/inet_sock_set_state")
int BPF_PROG(set_state_raw, struct sock *sk, int oldstate, int newstate)
{
	STAY_IN_TRACEPOINT;

	has_run(false, sk, newstate);
	return on_state(false, sk, oldstate, newstate);
}

SEC("raw_tp/inet_sock_set_state")
int BPF_PROG(set_state_raw_standin, struct sock *sk, int oldstate, int newstate)
{
	STAY_IN_TRACEPOINT;

	if (!must_stand_in(false, sk, newstate) || has_begun((__u64)sk, newstate))
		return 0;
	stand_in();
	return on_state(false, sk, oldstate, newstate);
}

SEC("tp_btf/tcp_destroy_sock")
int BPF_PROG(destroy_sock_btf, struct sock *sk)
{
	STAY_IN_TRACEPOINT;

	has_run(true, sk, DESTROYED);
	return on_destroy_sock(true, sk);
}

SEC("tp_btf/tcp_destroy_sock")
int BPF_PROG(destroy_sock_btf_standin, struct sock *sk)
{
	STAY_IN_TRACEPOINT;

	if (!must_stand_in(true, sk, DESTROYED))
		return 0;
	stand_in();
	return on_destroy_sock(true, sk);
}

SEC("raw_tp/tcp_destroy_sock")
int BPF_PROG(destroy_sock_raw, struct sock *sk)
{
	STAY_IN_TRACEPOINT;

	has_run(false, sk, DESTROYED);
	return on_destroy_sock(false, sk);
}

SEC("raw_tp/tcp_destroy_sock")
int BPF_PROG(destroy_sock_raw_standin, struct sock *sk)
{
	STAY_IN_TRACEPOINT;

	if (!must_stand_in(false, sk, DESTROYED))
		return 0;
	stand_in();
	return on_destroy_sock(false, sk);
}

/* ---- connect(): __sys_connect_file() serves the system calls of 64 and 32 bits and io_uring ----
 */

SEC("fentry/__sys_connect_file")
int BPF_PROG(connect_fentry, struct file *file)
{
	STAY_IN_TRAMPOLINE;
	struct netspy_call call = {.start_ns = bpf_ktime_get_boot_ns()};

	enter_call(&call);
	return 0;
}

SEC("fentry/__sys_connect_file")
int BPF_PROG(connect_fentry_standin, struct file *file)
{
	STAY_IN_TRAMPOLINE;
	struct netspy_call call = {};

	if (is_in_call())
		return 0;
	stand_in();
	call.start_ns = bpf_ktime_get_boot_ns();
	enter_call(&call);
	return 0;
}

static __always_inline void on_fexit(struct file *file, const void *address, int addrlen,
				     int file_flags, int ret, __u64 start_ns)
{
	struct connect_return done = {
	    .addr = address, .len = addrlen, .ret = ret, .start_ns = start_ns};

	if (is_no_outcome(ret) || is_first_try(ret, file_flags, file->f_flags))
		return;
	if (HAS_HELPER(sock_from_file)) {
		struct socket *socket = bpf_sock_from_file(file);

		if (!socket)
			return;
		done.sk = socket->sk;
		if (done.sk)
			on_connect_return(true, OF_TYPED, &done);
	} else {
		done.sk = sock_of_file(file);
		if (done.sk)
			on_connect_return(false, OF_KERNEL, &done);
	}
}

SEC("fexit/__sys_connect_file")
int BPF_PROG(connect_fexit, struct file *file, struct __kernel_sockaddr_storage *address,
	     int addrlen, int file_flags, int ret)
{
	STAY_IN_TRAMPOLINE;
	struct netspy_call call = {};

	leave_call(&call);
	on_fexit(file, address, addrlen, file_flags, ret, call.start_ns);
	return 0;
}

/* What the entry left is still there where the other did not run. */
SEC("fexit/__sys_connect_file")
int BPF_PROG(connect_fexit_standin, struct file *file, struct __kernel_sockaddr_storage *address,
	     int addrlen, int file_flags, int ret)
{
	STAY_IN_TRAMPOLINE;
	struct netspy_call call;

	if (!leave_call(&call))
		return 0;
	stand_in();
	on_fexit(file, address, addrlen, file_flags, ret, call.start_ns);
	return 0;
}

SEC("kprobe/__sys_connect_file")
int BPF_KPROBE(connect_kprobe, struct file *file, void *address, int addrlen, int file_flags)
{
	struct netspy_call call = {
	    .start_ns = bpf_ktime_get_boot_ns(),
	    .file = (__u64)file,
	    .addr = (__u64)address,
	    .len = addrlen,
	    .file_flags = file_flags,
	};

	enter_call(&call);
	return 0;
}

SEC("kretprobe/__sys_connect_file")
int BPF_KRETPROBE(connect_kretprobe, int ret)
{
	struct connect_return done = {.ret = ret};
	struct netspy_call call;
	struct file *file;

	if (!leave_call(&call))
		return 0;
	file = (struct file *)call.file;
	if (is_no_outcome(ret) || is_first_try(ret, call.file_flags, READ(false, file, f_flags)))
		return 0;
	done.sk = sock_of_file(file);
	done.addr = (const void *)call.addr;
	done.len = call.len;
	done.start_ns = call.start_ns;
	if (done.sk)
		on_connect_return(false, OF_KERNEL, &done);
	return 0;
}

/* ---- connect() by the tracepoints of the system call ---- */

static __always_inline int on_syscall_return(int fd, const void *addr, __u32 len, __u64 start_ns,
					     __s32 ret)
{
	struct connect_return done = {.addr = addr, .len = len, .ret = ret, .start_ns = start_ns};

	/* move_addr_to_kernel() refuses a longer address before the socket is asked. */
	if (is_no_outcome(ret) || len > 128)
		return 0;
	done.sk = CAN_CAST ? typed_sock_of_fd(fd) : sock_of_fd(fd);
	if (!done.sk)
		return 0;
	if (!start_ns)
		done.start_ns = take_start((__u64)done.sk);
	if (CAN_CAST)
		on_connect_return(true, OF_CALLER, &done);
	else
		on_connect_return(false, OF_CALLER, &done);
	return 0;
}

SEC("tracepoint/syscalls/sys_enter_connect")
int enter_connect(struct trace_event_raw_sys_enter *ctx)
{
	STAY_IN_TRACEPOINT;
	struct netspy_call call = {
	    .start_ns = bpf_ktime_get_boot_ns(),
	    .fd = ctx->args[0],
	    .addr = ctx->args[1],
	    .len = ctx->args[2],
	};

	enter_call(&call);
	return 0;
}

/* Since 5.15: the registers at the call are still there at its exit. */
static __always_inline int on_exit_by_registers(__s32 ret)
{
	struct pt_regs *regs;

	if (!HAS_HELPER(task_pt_regs))
		return 0;
	regs = (void *)bpf_task_pt_regs(bpf_get_current_task_btf());
	return on_syscall_return((int)PT_REGS_PARM1_SYSCALL(regs),
				 (const void *)PT_REGS_PARM2_SYSCALL(regs),
				 (__u32)PT_REGS_PARM3_SYSCALL(regs), 0, ret);
}

SEC("tracepoint/syscalls/sys_exit_connect")
int exit_connect(struct trace_event_raw_sys_exit *ctx)
{
	STAY_IN_TRACEPOINT;
	struct netspy_call call;

	if (!cfg_calls) {
		has_returned();
		return on_exit_by_registers(ctx->ret);
	}
	if (!leave_call(&call))
		return 0;
	return on_syscall_return(call.fd, (const void *)call.addr, call.len, call.start_ns,
				 ctx->ret);
}

SEC("tracepoint/syscalls/sys_exit_connect")
int exit_connect_standin(struct trace_event_raw_sys_exit *ctx)
{
	STAY_IN_TRACEPOINT;

	if (!must_return())
		return 0;
	stand_in();
	return on_exit_by_registers(ctx->ret);
}

SEC("cgroup/connect4")
int connect4_cgroup(struct bpf_sock_addr *ctx)
{
	return on_connect_by(ctx, false);
}

SEC("cgroup/connect6")
int connect6_cgroup(struct bpf_sock_addr *ctx)
{
	return on_connect_by(ctx, true);
}

/* ---- accept() ---- */

/* sock_graft() joins the accepted sock and its socket, in the task that accepts and with the sock
 * locked. Other families of sockets call it as well. */
SEC("fentry/security_sock_graft")
int BPF_PROG(graft_fentry, struct sock *sk)
{
	STAY_IN_TRAMPOLINE;

	return on_accept_socket(true, sk);
}

SEC("kprobe/security_sock_graft")
int BPF_KPROBE(graft_kprobe, struct sock *sk)
{
	return on_accept_socket(false, sk);
}

/* Where the return value is depends on the number of parameters; 6.10 put all but the first into
 * one. */
SEC("fexit/inet_csk_accept")
int accept_fexit_of_2(__u64 *ctx)
{
	STAY_IN_TRAMPOLINE;
	struct sock *sk = (struct sock *)ctx[2];

	if (sk)
		on_accept(true, sk);
	return 0;
}

SEC("fexit/inet_csk_accept")
int accept_fexit_of_4(__u64 *ctx)
{
	STAY_IN_TRAMPOLINE;
	struct sock *sk = (struct sock *)ctx[4];

	if (sk)
		on_accept(true, sk);
	return 0;
}

SEC("kretprobe/inet_csk_accept")
int BPF_KRETPROBE(accept_kretprobe, struct sock *sk)
{
	if (sk)
		on_accept(false, sk);
	return 0;
}

SEC("tracepoint/syscalls/sys_exit_accept")
int exit_accept(struct trace_event_raw_sys_exit *ctx)
{
	STAY_IN_TRACEPOINT;

	return on_accept_fd(ctx->ret);
}

SEC("tracepoint/syscalls/sys_exit_accept4")
int exit_accept4(struct trace_event_raw_sys_exit *ctx)
{
	STAY_IN_TRACEPOINT;

	return on_accept_fd(ctx->ret);
}

/* ---- datagram sockets: close, and errors that come later ---- */

/* Kernel sockets do not come here. The context is the sock itself. */
SEC("cgroup/sock_release")
int release_cgroup(struct bpf_sock *ctx)
{
	if (may_be_datagram(ctx->type))
		on_release(key_of(ctx));
	return 1;
}

SEC("fentry/inet_release")
int BPF_PROG(release_fentry, struct socket *socket)
{
	STAY_IN_TRAMPOLINE;
	struct sock *sk = socket->sk;

	if (sk && may_be_datagram(sk->sk_type))
		on_release((__u64)sk);
	return 0;
}

SEC("kprobe/inet_release")
int BPF_KPROBE(release_kprobe, struct socket *socket)
{
	struct sock *sk = READ(false, socket, sk);

	if (sk && may_be_datagram(READ(false, sk, sk_type)))
		on_release((__u64)sk);
	return 0;
}

SEC("tp_btf/inet_sk_error_report")
int BPF_PROG(sk_error_btf, struct sock *sk)
{
	STAY_IN_TRACEPOINT;

	has_run(true, sk, ERRORED);
	return on_sock_error(true, sk);
}

SEC("tp_btf/inet_sk_error_report")
int BPF_PROG(sk_error_btf_standin, struct sock *sk)
{
	STAY_IN_TRACEPOINT;

	if (!must_stand_in(true, sk, ERRORED))
		return 0;
	stand_in();
	return on_sock_error(true, sk);
}

SEC("raw_tp/inet_sk_error_report")
int BPF_PROG(sk_error_raw, struct sock *sk)
{
	STAY_IN_TRACEPOINT;

	has_run(false, sk, ERRORED);
	return on_sock_error(false, sk);
}

SEC("raw_tp/inet_sk_error_report")
int BPF_PROG(sk_error_raw_standin, struct sock *sk)
{
	STAY_IN_TRACEPOINT;

	if (!must_stand_in(false, sk, ERRORED))
		return 0;
	stand_in();
	return on_sock_error(false, sk);
}

/* ---- datagrams leave ---- */

SEC("fexit/udp_sendmsg")
int BPF_PROG(udp_fexit, struct sock *sk, struct msghdr *msg, __u64 len, int ret)
{
	STAY_IN_TRAMPOLINE;

	return on_sendmsg(sk, msg, ret, UDP_OF_IPV4);
}

SEC("fexit/udpv6_sendmsg")
int BPF_PROG(udpv6_fexit, struct sock *sk, struct msghdr *msg, __u64 len, int ret)
{
	STAY_IN_TRAMPOLINE;

	return on_sendmsg(sk, msg, ret, UDP_OF_IPV6);
}

SEC("kprobe/udp_sendmsg")
int BPF_KPROBE(udp_kprobe, struct sock *sk, struct msghdr *msg)
{
	return on_sendmsg_entry(sk, msg, UDP_OF_IPV4);
}

SEC("kprobe/udpv6_sendmsg")
int BPF_KPROBE(udpv6_kprobe, struct sock *sk, struct msghdr *msg)
{
	return on_sendmsg_entry(sk, msg, UDP_OF_IPV6);
}

SEC("kretprobe/udp_sendmsg")
int BPF_KRETPROBE(udp_kretprobe, int ret)
{
	return on_sendmsg_return(ret, cfg_flows);
}

SEC("kretprobe/udpv6_sendmsg")
int BPF_KRETPROBE(udpv6_kretprobe, int ret)
{
	return on_sendmsg_return(ret, cfg_flows);
}

SEC("fexit/ping_v4_sendmsg")
int BPF_PROG(ping4_fexit, struct sock *sk, struct msghdr *msg, __u64 len, int ret)
{
	STAY_IN_TRAMPOLINE;

	return on_sendmsg(sk, msg, ret, ICMP_OR_RAW);
}

SEC("kprobe/ping_v4_sendmsg")
int BPF_KPROBE(ping4_kprobe, struct sock *sk, struct msghdr *msg)
{
	return on_sendmsg_entry(sk, msg, ICMP_OR_RAW);
}

SEC("kretprobe/ping_v4_sendmsg")
int BPF_KRETPROBE(ping4_kretprobe, int ret)
{
	return on_sendmsg_return(ret, true);
}

SEC("fexit/ping_v6_sendmsg")
int BPF_PROG(ping6_fexit, struct sock *sk, struct msghdr *msg, __u64 len, int ret)
{
	STAY_IN_TRAMPOLINE;

	return on_sendmsg(sk, msg, ret, ICMP_OR_RAW);
}

SEC("kprobe/ping_v6_sendmsg")
int BPF_KPROBE(ping6_kprobe, struct sock *sk, struct msghdr *msg)
{
	return on_sendmsg_entry(sk, msg, ICMP_OR_RAW);
}

SEC("kretprobe/ping_v6_sendmsg")
int BPF_KRETPROBE(ping6_kretprobe, int ret)
{
	return on_sendmsg_return(ret, true);
}

SEC("fexit/raw_sendmsg")
int BPF_PROG(raw4_fexit, struct sock *sk, struct msghdr *msg, __u64 len, int ret)
{
	STAY_IN_TRAMPOLINE;

	return on_sendmsg(sk, msg, ret, ICMP_OR_RAW);
}

SEC("kprobe/raw_sendmsg")
int BPF_KPROBE(raw4_kprobe, struct sock *sk, struct msghdr *msg)
{
	return on_sendmsg_entry(sk, msg, ICMP_OR_RAW);
}

SEC("kretprobe/raw_sendmsg")
int BPF_KRETPROBE(raw4_kretprobe, int ret)
{
	return on_sendmsg_return(ret, true);
}

SEC("fexit/rawv6_sendmsg")
int BPF_PROG(raw6_fexit, struct sock *sk, struct msghdr *msg, __u64 len, int ret)
{
	STAY_IN_TRAMPOLINE;

	return on_sendmsg(sk, msg, ret, ICMP_OR_RAW);
}

SEC("kprobe/rawv6_sendmsg")
int BPF_KPROBE(raw6_kprobe, struct sock *sk, struct msghdr *msg)
{
	return on_sendmsg_entry(sk, msg, ICMP_OR_RAW);
}

SEC("kretprobe/rawv6_sendmsg")
int BPF_KRETPROBE(raw6_kretprobe, int ret)
{
	return on_sendmsg_return(ret, true);
}

SEC("tp_btf/sock_send_length")
int BPF_PROG(send_length, struct sock *sk, int ret)
{
	STAY_IN_TRACEPOINT;

	return on_send_length(sk, ret);
}

SEC("cgroup/sendmsg4")
int send_cgroup4(struct bpf_sock_addr *ctx)
{
	return on_cgroup_send(ctx, AF_INET);
}

SEC("cgroup/sendmsg6")
int send_cgroup6(struct bpf_sock_addr *ctx)
{
	return on_cgroup_send(ctx, AF_INET6);
}

/* ---- questions for names, and answers: whatever these see, they let pass ---- */

SEC("cgroup_skb/ingress")
int dns_ingress(struct __sk_buff *skb)
{
	on_dns_packet(skb, true);
	return 1;
}

SEC("cgroup_skb/egress")
int dns_egress(struct __sk_buff *skb)
{
	on_dns_packet(skb, false);
	return 1;
}

SEC("cgroup/sendmsg4")
int dns_ask4(struct bpf_sock_addr *ctx)
{
	on_dns_ask(ctx, false);
	return 1;
}

SEC("cgroup/sendmsg6")
int dns_ask6(struct bpf_sock_addr *ctx)
{
	on_dns_ask(ctx, true);
	return 1;
}

/* ---- what existed before ---- */

SEC("iter/task_file")
int existing(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;

	if (!task || !file)
		return 0;
	if (HAS_HELPER(sock_from_file)) {
		struct socket *socket = bpf_sock_from_file(file);

		return socket ? existing_socket(true, ctx->meta->seq, task, socket->sk) : 0;
	}
	return existing_socket(false, ctx->meta->seq, task, sock_of_file(file));
}

/* ---- programs that start ---- */

SEC("tp_btf/sched_process_exec")
int BPF_PROG(exec_btf, struct task_struct *task, pid_t old_pid, struct linux_binprm *bprm)
{
	STAY_IN_TRACEPOINT;

	return on_exec(true, task, bprm);
}

SEC("raw_tp/sched_process_exec")
int BPF_PROG(exec_raw, struct task_struct *task, pid_t old_pid, struct linux_binprm *bprm)
{
	STAY_IN_TRACEPOINT;

	return on_exec(false, task, bprm);
}

/* ---- processes that are made ---- */

SEC("tp_btf/sched_process_fork")
int BPF_PROG(birth_btf, struct task_struct *parent, struct task_struct *child)
{
	STAY_IN_TRACEPOINT;

	return on_birth(true, parent, child);
}

SEC("raw_tp/sched_process_fork")
int BPF_PROG(birth_raw, struct task_struct *parent, struct task_struct *child)
{
	STAY_IN_TRACEPOINT;

	return on_birth(false, parent, child);
}

/* ---- control groups that are made ---- */

SEC("tp_btf/cgroup_mkdir")
int BPF_PROG(cgroup_btf, struct cgroup *cgroup, const char *path)
{
	STAY_IN_TRACEPOINT;

	return on_cgroup(true, cgroup, path);
}

SEC("raw_tp/cgroup_mkdir")
int BPF_PROG(cgroup_raw, struct cgroup *cgroup, const char *path)
{
	STAY_IN_TRACEPOINT;

	return on_cgroup(false, cgroup, path);
}

/* ---- processes that come and go ---- */

SEC("tp_btf/sched_process_fork")
int BPF_PROG(fork_btf, struct task_struct *parent, struct task_struct *child)
{
	STAY_IN_TRACEPOINT;

	return on_fork(true, parent, child);
}

SEC("raw_tp/sched_process_fork")
int BPF_PROG(fork_raw, struct task_struct *parent, struct task_struct *child)
{
	STAY_IN_TRACEPOINT;

	return on_fork(false, parent, child);
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(exit_btf, struct task_struct *task)
{
	STAY_IN_TRACEPOINT;

	return on_exit(true, task);
}

SEC("raw_tp/sched_process_exit")
int BPF_PROG(exit_raw, struct task_struct *task)
{
	STAY_IN_TRACEPOINT;

	return on_exit(false, task);
}

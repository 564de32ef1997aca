/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The kernel does not run a program that runs already on the same processor (the count of
 * prog->active in __bpf_trace_run()): a packet whose softirq interrupts the program of a task would
 * go by unseen. So the programs that must see every event have a stand-in on the same tracepoint,
 * which comes after them and does their work where they have not run. */
#ifndef NETSPY_STANDIN_H
#define NETSPY_STANDIN_H

#include "config.h"

#define RUNS	  512
#define DESTROYED 15 /* beside enum tcp_state */
#define ERRORED	  16

/* The socks for which events were last seen on this processor; zero once the stand-in knows. */
struct netspy_runs {
	__u64 sock[RUNS][2];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct netspy_runs);
} runs SEC(".maps");

/* Events of other socks may come between a program and its stand-in, in an interrupt or in a task
 * that has preempted this one: they have places of their own, mostly, and two each. Both ends of a
 * connection within this host have the same ports. */
static __always_inline __u64 *runs_of(bool direct, struct sock *sk, int event)
{
	__u32 zero = 0, place;
	struct netspy_runs *r = bpf_map_lookup_elem(&runs, &zero);

	if (!r)
		return NULL;
	place = READ(direct, sk, __sk_common.skc_num) +
		31 * READ(direct, sk, __sk_common.skc_dport) + 7 * event;
	return r->sock[place % RUNS];
}

static __always_inline void has_run(bool direct, struct sock *sk, int event)
{
	__u64 *run = runs_of(direct, sk, event);

	if (!run)
		return;
	if (run[0] && run[0] != (__u64)sk)
		run[1] = (__u64)sk;
	else
		run[0] = (__u64)sk;
}

/* Whether the stand-in has to do the work. Both places may have been taken meanwhile: so the work
 * must be such that doing it again does nothing. */
static __always_inline bool must_stand_in(bool direct, struct sock *sk, int event)
{
	__u64 *run = runs_of(direct, sk, event);

	if (!run)
		return false;
	if (run[0] == (__u64)sk) {
		run[0] = 0;
		return false;
	}
	if (run[1] == (__u64)sk) {
		run[1] = 0;
		return false;
	}
	return true;
}

/* For what happens in the task that asked for it: the calls of which a program has seen the end,
 * by thread. Others may come between a program and its stand-in there, when they are preempted. */
const volatile bool cfg_standin_of_calls = false;

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, __u8);
} returned SEC(".maps");

static __always_inline void has_returned(void)
{
	__u32 tid = bpf_get_current_pid_tgid();
	__u8 one = 1;

	if (cfg_standin_of_calls)
		bpf_map_update_elem(&returned, &tid, &one, BPF_ANY);
}

static __always_inline bool must_return(void)
{
	__u32 tid = bpf_get_current_pid_tgid();

	return bpf_map_delete_elem(&returned, &tid) != 0;
}

/* The stand-in does the work: the run that was skipped is made up for. */
static __always_inline void stand_in(void)
{
	struct netspy_counters *n = this_cpu_counters();

	COUNT(n, stood_in);
}

#endif

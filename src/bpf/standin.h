/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The kernel does not run a program that runs already on the same processor (the count of
 * prog->active in __bpf_trace_run()): a packet whose softirq interrupts the program of a task would
 * go by unseen. So the programs that must see every event have a stand-in on the same tracepoint,
 * which comes after them and does their work where they have not run. */
#ifndef NETSPY_STANDIN_H
#define NETSPY_STANDIN_H

#include "config.h"

#define RUNS	  16
#define DESTROYED 15 /* beside enum tcp_state */

/* The sock for which each event was last seen on this processor; zero once the stand-in knows. */
struct netspy_runs {
	__u64 sock[RUNS];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct netspy_runs);
} runs SEC(".maps");

static __always_inline __u64 *run_of(int event)
{
	__u32 zero = 0;
	struct netspy_runs *r = bpf_map_lookup_elem(&runs, &zero);

	return r ? &r->sock[(__u32)event % RUNS] : NULL;
}

static __always_inline void has_run(struct sock *sk, int event)
{
	__u64 *run = run_of(event);

	if (run)
		*run = (__u64)sk;
}

/* Whether the stand-in has to do the work. An interrupt between the two programs may have left the
 * same event of another sock: so the work must be such that doing it again does nothing. */
static __always_inline bool must_stand_in(struct sock *sk, int event)
{
	__u64 *run = run_of(event);
	struct netspy_counters *n;

	if (!run)
		return false;
	if (*run == (__u64)sk) {
		*run = 0;
		return false;
	}
	n = this_cpu_counters();
	COUNT(n, stood_in);
	return true;
}

#endif

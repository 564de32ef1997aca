/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * A program stays on its processor until it has ended.
 *
 * The kernel skips a program that runs already on the same processor (prog->active). A task that is
 * preempted inside of one keeps it from all other tasks of that processor, for as long as these
 * have their turn: where programs can be preempted, most of what they should see can go by.
 *
 * bpf_preempt_enable() would give way to whoever waits right there, still inside the program. With
 * interrupts off it does not (preemptible() in linux/preempt.h), and turning them on again does not
 * ask. So the program is left first.
 */
#ifndef NETSPY_STAY_H
#define NETSPY_STAY_H

#include "read.h"

/* Linux 6.10, 6.14. */
extern void bpf_preempt_disable(void) __weak __ksym;
extern void bpf_preempt_enable(void) __weak __ksym;
extern void bpf_local_irq_save(unsigned long *flags) __weak __ksym;
extern void bpf_local_irq_restore(unsigned long *flags) __weak __ksym;

/* Whether the kernel has these, and the programs of trampolines (fentry, fexit) and of tracepoints
 * should call them. */
const volatile bool cfg_stay_in_trampoline = false;
const volatile bool cfg_stay_in_tracepoint = false;

static __always_inline bool stay(bool wanted)
{
	if (wanted)
		bpf_preempt_disable();
	return wanted;
}

static __always_inline void leave(const bool *stays)
{
	unsigned long flags;

	if (!*stays)
		return;
	bpf_local_irq_save(&flags);
	bpf_preempt_enable();
	bpf_local_irq_restore(&flags);
}

/* First in a program: it is not preempted from here to wherever it returns. */
#define STAY(wanted)	   bool stays __attribute__((cleanup(leave), unused)) = stay(wanted)
#define STAY_IN_TRAMPOLINE STAY(cfg_stay_in_trampoline)
#define STAY_IN_TRACEPOINT STAY(cfg_stay_in_tracepoint)

#endif

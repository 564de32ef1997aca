/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Reading the kernel's structures. Where the verifier knows the type of a pointer (tp_btf, fentry),
 * members are plain loads, which cost an instruction and are allowed even where the kernel is
 * locked down; elsewhere a helper is called for each. Handlers take `direct`, a constant to the
 * compiler, so that both kinds share their code.
 */
#ifndef NETSPY_READ_H
#define NETSPY_READ_H

#include "vmlinux.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#define READ(direct, src, member)                                                                  \
	({                                                                                         \
		typeof((src)->member) __value;                                                     \
		if (direct)                                                                        \
			__value = (src)->member;                                                   \
		else                                                                               \
			bpf_core_read((void *)&__value, sizeof(__value), &(src)->member);          \
		__value;                                                                           \
	})

#define READ_BIT(direct, src, member)                                                              \
	((direct) ? BPF_CORE_READ_BITFIELD(src, member)                                            \
		  : BPF_CORE_READ_BITFIELD_PROBED(src, member))

#define HAS_HELPER(name) bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_##name)

/* Byte by byte: the verifier refuses a wider load from an array of characters, and the alignment
 * keeps the compiler from making one. Without a loop: its addresses would be computed such that
 * offsets are negative, where 6.1 loads zeros. */
#define COPY_BYTES(to, from, len)                                                                  \
	do {                                                                                       \
		const volatile __u8 *__from = (const void *)(from);                                \
		__u8 *__to = (__u8 *)(to);                                                         \
		_Pragma("clang loop unroll(full)") for (int __i = 0; __i < (len); __i++)           \
		    __to[__i] = __from[__i];                                                       \
	} while (0)

static __always_inline void copy_in6(__u8 *to, bool direct, struct in6_addr *from)
{
	__u32 *word = (__u32 *)to;

	word[0] = READ(direct, from, in6_u.u6_addr32[0]);
	word[1] = READ(direct, from, in6_u.u6_addr32[1]);
	word[2] = READ(direct, from, in6_u.u6_addr32[2]);
	word[3] = READ(direct, from, in6_u.u6_addr32[3]);
}

/* Linux 6.2: gives any number a type, so that members of what lies there are plain loads, too. What
 * is no such thing reads as zeros, as with the helper. */
extern void *bpf_rdonly_cast(const void *obj, __u32 btf_id) __ksym __weak;

#define CAN_CAST bpf_ksym_exists(bpf_rdonly_cast)
#define CAST(type, value)                                                                          \
	((type *)bpf_rdonly_cast((const void *)(value), bpf_core_type_id_kernel(type)))

/* A TCP sock as such; never NULL without `direct`. */
static __always_inline struct tcp_sock *tcp_of(bool direct, struct sock *sk)
{
	if (!direct)
		return (struct tcp_sock *)sk;
	/* The helper takes no sock that was cast. */
	return CAN_CAST ? CAST(struct tcp_sock, sk) : bpf_skc_to_tcp_sock(sk);
}

#endif

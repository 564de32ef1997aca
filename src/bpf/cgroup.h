/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Control groups that are made: their paths, for processes that are gone before anybody can look.
 */
#ifndef NETSPY_CGROUP_H
#define NETSPY_CGROUP_H

#include "attempt.h"

static __always_inline int on_cgroup(bool direct, struct cgroup *cgroup, const char *path)
{
	struct cgroup_root *root = READ(direct, cgroup, root);
	struct kernfs_node *node = READ(direct, cgroup, kn);
	struct netspy_counters *n = this_cpu_counters();
	struct netspy_cgroup *c;
	long len;

	/* 0: the hierarchy of v2. */
	if (READ(direct, root, hierarchy_id))
		return 0;
	c = bpf_ringbuf_reserve(&events, sizeof(*c), 0);
	if (!c) {
		COUNT(n, exec_lost);
		return 0;
	}
	c->kind = NETSPY_KIND_CGROUP;
	c->id = READ(direct, node, id);
	len = bpf_probe_read_kernel_str(c->path, sizeof(c->path), path);
	/* With the closing zero; one that is too long is cut, and then of no use. */
	c->path_len = len > 0 && len < NETSPY_CGROUP_LEN ? len - 1 : 0;
	bpf_ringbuf_submit(c, wakeup_flags());
	return 0;
}

#endif

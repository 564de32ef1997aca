/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What connect.bpf.c and user space agree on. The Rust types are generated from these by way of
 * the object's BTF; both sides assert the sizes. Integers only; addresses and ports as noted.
 */
#ifndef NETSPY_CONNECT_H
#define NETSPY_CONNECT_H

#define NETSPY_COMM_LEN 16
#define NETSPY_PATH_LEN 108 /* sun_path of sockaddr_un */
#define NETSPY_ARGS_LEN 768
/* A component of a path at the longest, with its closing zero; and the components of two paths. */
#define NETSPY_NAME_LEN	 256
#define NETSPY_NAMES_LEN 1536
/* Most answers fit the first; larger ones are cut at the second. */
#define NETSPY_DNS_SMALL  512
#define NETSPY_DNS_LARGE  4096
#define NETSPY_CGROUP_LEN 512

/* First word of each ring record. */
enum netspy_kind {
	NETSPY_KIND_CONN = 1,
	NETSPY_KIND_UNIX = 2,
	NETSPY_KIND_EXEC = 3,
	NETSPY_KIND_DNS = 4,
	NETSPY_KIND_CGROUP = 5,
	NETSPY_KIND_FORK = 7,
};

enum netspy_phase {
	NETSPY_PHASE_PENDING = 0, /* no outcome yet */
	NETSPY_PHASE_OPEN = 1,	  /* succeeded */
	NETSPY_PHASE_FAILED = 2,  /* failed with `error`, or aborted if that is 0 */
	NETSPY_PHASE_CLOSED = 3,  /* succeeded once, closed since */
	/* Left SYN_SENT without an error: the return value of connect() will tell why. */
	NETSPY_PHASE_UNSETTLED = 4,
	/* Connected before it had an entry; the entry is not complete yet. */
	NETSPY_PHASE_ENTERING = 5,
	/* Asked for by a call whose end is not seen. Not in the ring. */
	NETSPY_PHASE_CALLED = 6,
	NETSPY_PHASE_LISTENING = 7,
	NETSPY_PHASE_LAST = NETSPY_PHASE_LISTENING,
};

enum netspy_evidence {
	NETSPY_EVIDENCE_NONE = 0,
	NETSPY_EVIDENCE_CONNECT_RETURN = 1,
	NETSPY_EVIDENCE_TCP_STATE = 2,
	NETSPY_EVIDENCE_SK_ERROR = 3,
	NETSPY_EVIDENCE_OWNER_CLOSE = 4,
	NETSPY_EVIDENCE_ACCEPT = 5,
	NETSPY_EVIDENCE_SOCKET_STATE = 6,
	NETSPY_EVIDENCE_SEND_RETURN = 7,
};

/* How a record of datagrams ended. */
enum netspy_end {
	NETSPY_END_NONE = 0,
	NETSPY_END_OWNER_CLOSE = 1, /* the socket was closed */
	NETSPY_END_DISCONNECT = 2,  /* the socket was given another peer, or none */
	NETSPY_END_IDLE = 3,	    /* nothing was sent for a while */
};

/* netspy_conn.flags */
#define NETSPY_F_SHOWN	     0x0001 /* an earlier version went into the ring, or was lost before it */
#define NETSPY_F_FILTERED    0x0002 /* held only so that its later events are recognised */
#define NETSPY_F_NO_REMOTE   0x0004 /* the address could not be read */
#define NETSPY_F_SETTLED     0x0008 /* counted as settled */
#define NETSPY_F_OWN_CLOSE   0x0010 /* the state before CLOSE says that this side gave up */
#define NETSPY_F_SWEPT	     0x0020 /* only in the ring: this version was put there by a sweep */
#define NETSPY_F_RETURNED    0x0040 /* connect() has returned the error */
#define NETSPY_F_PREEXISTING 0x0080 /* there before capture; counted nowhere */
#define NETSPY_F_INBOUND     0x0100 /* accepted */
#define NETSPY_F_LISTENER    0x0200 /* a socket that listens, no attempt; counted nowhere */
#define NETSPY_F_NO_START    0x0800 /* start_ns is the time of the outcome: the start was not seen */
#define NETSPY_F_ASKER	     0x0400 /* no attempt, but who asks a name server */
#define NETSPY_F_COUNTED     0x1000 /* all its datagrams are counted, */
#define NETSPY_F_BYTES	     0x2000 /* and their bytes */

/* One attempt: the value kept per socket, and the record in the ring. */
struct netspy_conn {
	__u32 kind;
	__u16 flags;
	__u8 phase;
	__u8 evidence;
	/* nanoseconds since boot, 0 while unknown */
	__u64 start_ns;
	__u64 outcome_ns;
	__u64 close_ns;
	/* start_ns + phase of what a sweep has shown. The only member that a sweep writes: together
	 * with the start, it cannot be mistaken for that of another attempt in the same place. */
	__u64 swept;
	__u64 cgroup_id;
	__u64 task_start_ns; /* start of the process (thread-group leader) */
	__u64 bytes_sent;
	__u64 bytes_received;
	__u32 pid; /* process: the kernel's tgid */
	__u32 tid;
	__u32 ppid;
	__u32 uid;
	__u32 netns;
	__s32 error;	   /* errno of the outcome, positive */
	__s32 close_error; /* sk_err at CLOSE, positive */
	__u32 netns_once;  /* tells the namespace from those that had the number before it */
	__u32 retransmits;
	__u32 srtt_us;
	__u16 family; /* AF_* of the addresses below */
	__u16 sock_type;
	__u16 protocol;
	__u16 local_port;     /* host byte order */
	__u16 remote_port;    /* host byte order */
	__u8 end;	      /* enum netspy_end */
	__u8 syn_retransmits; /* 255 stands for more, which no sysctl allows */
	__u32 cwd_dev;	/* device (as super_block has it) and inode of the working directory */
	__u8 local[16]; /* network byte order; IPv4 in the first four */
	__u8 remote[16];
	__u8 comm[NETSPY_COMM_LEN];   /* of the process */
	__u8 thread[NETSPY_COMM_LEN]; /* of the calling thread */
	__u8 parent[NETSPY_COMM_LEN];
	__u64 datagrams_sent;
	__u64 cwd_ino;
};

/* An attempt on a UNIX socket. */
struct netspy_unix {
	struct netspy_conn conn;
	__u32 path_len; /* bytes of path in use; abstract names start with a zero byte */
	__u8 path[NETSPY_PATH_LEN];
};

/* A program was started in a process. */
struct netspy_exec {
	__u32 kind;
	__u32 pid;
	__u64 task_start_ns;
	__u64 time_ns;
	__u64 parent_start_ns;
	__u64 exe_ino;
	__u64 cwd_ino;
	__u32 exe_dev;
	__u32 cwd_dev;
	__u32 ppid;
	__u32 args_total; /* bytes that the arguments have in all */
	__u16 args_len;	  /* bytes in use; arguments end with a zero byte each */
	/* Bytes of `names` in use: first the path of the binary (of a script that of its
	 * interpreter), then that of the working directory. Components end with a zero byte each,
	 * the last one comes first. */
	__u16 exe_len;
	__u16 cwd_len;
	__u16 flags; /* NETSPY_EXEC_* */
	__u8 parent[NETSPY_COMM_LEN];
	__u8 args[NETSPY_ARGS_LEN];
	__u8 names[NETSPY_NAMES_LEN]; /* only what is in use goes into the ring */
};

/* netspy_exec.flags */
#define NETSPY_EXEC_UNLINKED  0x1 /* the binary has no name any more, or never had one */
#define NETSPY_EXEC_WHOLE_EXE 0x2 /* its path is there up to the root, */
#define NETSPY_EXEC_WHOLE_CWD 0x4 /* and that of the working directory */

/* A process was made. */
struct netspy_fork {
	__u32 kind;
	__u32 pid;
	__u64 task_start_ns;
	__u64 parent_start_ns; /* of the process that made it */
	__u32 ppid;
	__u32 reserved;
	__u8 parent[NETSPY_COMM_LEN]; /* its name at that moment */
};

/* A control group was made. */
struct netspy_cgroup {
	__u32 kind;
	__u32 path_len; /* bytes in use, without the closing zero; 0 if it does not fit */
	__u64 id;
	__u8 path[NETSPY_CGROUP_LEN]; /* from the root of the hierarchy */
};

/* A DNS message, or a part of one, that a socket sent to a name server, or that came back to it.
 * What follows this in the ring are its bytes, as far as they were kept. */
struct netspy_dns {
	/* Who asked, over what; `remote` is the server. */
	struct netspy_conn asker;
	__u64 sock; /* tells the messages of one socket from those of others */
	__u64 time_ns;
	__u16 len;   /* bytes of the message */
	__u16 begin; /* where in the message the part begins */
	__u16 kept;  /* bytes of it in the ring */
	__u8 is_answer;
	__u8 has_record; /* `asker` is that of the record of the socket */
};

/* What an open connection has carried so far. */
struct netspy_traffic {
	__u64 start_ns; /* with tid: which */
	__u32 tid;
	__u16 flags; /* as in netspy_conn */
	__u8 is_datagram;
	__u8 reserved;
	__u64 bytes_sent;
	__u64 bytes_received;
	__u64 datagrams_sent;
	__u32 retransmits;
	__u32 srtt_us;
};

/* How far a walk through a table has come. */
struct netspy_walk {
	__u32 skip; /* entries that were told of before */
	__u32 seen;
	__u32 is_full; /* there was no room for more answers */
	__u32 reserved;
};

/* Per processor. */
struct netspy_counters {
	__u64 attempts;
	__u64 filtered;
	__u64 ring_full;
	__u64 map_full;
	__u64 updates_lost;
	__u64 address_unread;
	__u64 exec_lost;
	/* Attempts that began to wait for an outcome, and those whose outcome was shown or lost:
	 * the difference tells whether a sweep has anything to look for. */
	__u64 waiting;
	__u64 settled;
	/* How often something was not shown that a sweep should show later. */
	__u64 left;
	/* Runs of a program that the kernel skipped, but not those of its stand-in. */
	__u64 stood_in;
	/* Processes for which `descendants` had no room. */
	__u64 unfollowed;
	/* DNS messages for which the ring had no room, and where TCP could not be followed. */
	__u64 dns_lost;
};

/* Key of the network filters. */
struct netspy_cidr4 {
	__u32 prefix_len;
	__u8 addr[4];
};

struct netspy_cidr6 {
	__u32 prefix_len;
	__u8 addr[16];
};

_Static_assert(sizeof(struct netspy_conn) == 224, "layout of netspy_conn");
_Static_assert(sizeof(struct netspy_unix) == 336, "layout of netspy_unix");
_Static_assert(sizeof(struct netspy_exec) == 2392, "layout of netspy_exec");
_Static_assert(sizeof(struct netspy_fork) == 48, "layout of netspy_fork");
_Static_assert(sizeof(struct netspy_cgroup) == 528, "layout of netspy_cgroup");
_Static_assert(sizeof(struct netspy_dns) == 248, "layout of netspy_dns");
_Static_assert(sizeof(struct netspy_traffic) == 48, "layout of netspy_traffic");
_Static_assert(sizeof(struct netspy_walk) == 16, "layout of netspy_walk");
_Static_assert(sizeof(struct netspy_counters) == 104, "layout of netspy_counters");

#endif

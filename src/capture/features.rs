//! What capture observes, and by which programs: data, from which the plan chooses.

use super::report::Backend;
use super::support::KernelSupport;

/// One thing to observe, and the ways to do so.
#[derive(Debug)]
pub struct FeatureHooks {
    /// Name in the report.
    pub name: &'static str,
    /// Whether capture makes no sense without it.
    pub required: bool,
    /// The ways, best first.
    pub hooks: &'static [Hook],
    /// What is not seen where no way is open.
    pub without: &'static str,
}

/// One way to observe a feature.
#[derive(Debug)]
pub struct Hook {
    /// Name in the report, such as `tp_btf/inet_sock_set_state`.
    pub name: &'static str,
    /// The family that it belongs to, if it has siblings in others.
    pub backend: Option<Backend>,
    /// Its programs, in the order in which to attach them.
    pub programs: &'static [&'static str],
    /// What the kernel must have.
    pub needs: &'static [Need],
    /// What it does not see.
    pub note: Option<&'static str>,
}

/// Something that a hook needs of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// A function by this name that is not inlined everywhere.
    Function(&'static str),
    /// A function by this name with so many parameters, which some kernels have otherwise.
    Parameters(&'static str, usize),
    /// A tracepoint by this name.
    Tracepoint(&'static str),
    /// The tracepoints of system calls, in a tracing file system.
    SyscallEvents,
    /// kprobes.
    Kprobes,
    /// A helper that tells the registers of the current system call.
    TaskPtRegs,
    /// Helpers that read kernel memory.
    ProbeRead,
    /// Programs that user space runs, which walk through maps.
    Walks,
    /// Programs of tracepoints that may be preempted: elsewhere they need no stand-in for it.
    Preempted,
    /// A mounted cgroup v2 hierarchy.
    Cgroup2,
    /// Another feature, without which this one has nothing to join its events to.
    Feature(&'static str),
}

impl Need {
    pub(crate) fn is_met(self, support: &KernelSupport) -> bool {
        match self {
            Need::Function(name) => support.functions.contains(name),
            Need::Parameters(name, count) => support.parameters.contains(&(name, count)),
            Need::Tracepoint(name) => support.tracepoints.contains(name),
            Need::SyscallEvents => support.syscall_events,
            Need::Kprobes => support.kprobes,
            Need::TaskPtRegs => support.task_pt_regs,
            Need::ProbeRead => support.probe_read,
            Need::Walks => support.walks,
            Need::Preempted => support.preempts,
            Need::Cgroup2 => support.cgroup2.is_some(),
            // Known only when all have been considered.
            Need::Feature(_) => true,
        }
    }

    /// What is missing, and what would bring it.
    pub(crate) fn missing(self, support: &KernelSupport) -> String {
        let release = &support.release;
        match self {
            Need::Function(name) => {
                format!(
                    "kernel {release} has no function {name} (renamed, or inlined by its build)"
                )
            }
            Need::Parameters(name, count) => {
                format!("in kernel {release} {name} does not have {count} parameters")
            }
            Need::Tracepoint(name) => match tracepoint_since(name) {
                Some(since) => format!("Linux {since} brings the tracepoint {name}"),
                None => format!("kernel {release} has no tracepoint {name}"),
            },
            Need::SyscallEvents => "events/syscalls is not in the tracing file system; mount it \
                with 'mount -t tracefs tracefs /sys/kernel/tracing'; if it is mounted, this user may \
                not read it, or the kernel lacks CONFIG_FTRACE_SYSCALLS"
                .into(),
            Need::Kprobes => "the kernel lacks CONFIG_KPROBE_EVENTS".into(),
            Need::TaskPtRegs => "Linux 5.15 brings bpf_task_pt_regs()".into(),
            Need::ProbeRead => {
                "the kernel is locked down (lockdown=confidentiality): helpers may not read its \
                 memory"
                    .into()
            }
            Need::Walks => "Linux 5.14 brings programs that walk through maps when asked to".into(),
            Need::Preempted => {
                format!("kernel {release} does not preempt the programs of tracepoints")
            }
            Need::Cgroup2 => "no cgroup v2 hierarchy is mounted (mount -t cgroup2 none DIR)".into(),
            Need::Feature(name) => format!("of no use without {name}, which nothing serves"),
        }
    }
}

/// The release that brought a tracepoint, where some supported kernel lacks it.
fn tracepoint_since(name: &str) -> Option<&'static str> {
    match name {
        "inet_sk_error_report" => Some("5.15"),
        "sock_send_length" => Some("6.3"),
        _ => None,
    }
}

/// Functions that some hook needs.
pub(crate) fn functions() -> Vec<&'static str> {
    needs(|need| match need {
        Need::Function(name) => Some(name),
        _ => None,
    })
}

/// Functions whose number of parameters decides about a hook.
pub(crate) fn parameters() -> Vec<(&'static str, usize)> {
    let hooks = FEATURES.iter().flat_map(|feature| feature.hooks);
    hooks
        .flat_map(|hook| hook.needs)
        .filter_map(|need| match need {
            Need::Parameters(name, count) => Some((*name, *count)),
            _ => None,
        })
        .collect()
}

/// Tracepoints that some hook needs.
pub(crate) fn tracepoints() -> Vec<&'static str> {
    needs(|need| match need {
        Need::Tracepoint(name) => Some(name),
        _ => None,
    })
}

fn needs(select: impl Fn(Need) -> Option<&'static str>) -> Vec<&'static str> {
    let hooks = FEATURES.iter().flat_map(|feature| feature.hooks);
    hooks.flat_map(|hook| hook.needs).filter_map(|need| select(*need)).collect()
}

/// A tracepoint of the kernel, typed where the kernel allows.
macro_rules! kernel_tracepoint {
    ($name:literal, $btf:expr, $raw:expr $(, $need:expr)*) => {
        &[
            Hook {
                name: concat!("tp_btf/", $name),
                backend: None,
                programs: $btf,
                needs: &[Need::Tracepoint($name) $(, $need)*],
                note: None,
            },
            Hook {
                name: concat!("raw_tp/", $name),
                backend: None,
                programs: $raw,
                needs: &[Need::Tracepoint($name), Need::ProbeRead $(, $need)*],
                note: None,
            },
        ]
    };
}

const SYSCALL_NOTE: Option<&str> = Some(
    "system-call tracepoints do not see io_uring and 32-bit programs (connect_other_callers); a \
     connect() to a UNIX socket is seen when it returns, and not at all if a signal ends it while \
     it blocks; how long it took is not known",
);

/// The last to be attached to a function runs first (`hlist_add_head()` in
/// kernel/bpf/trampoline.c), and stand-ins have to come second.
const FENTRY_OF_CONNECT: &[&str] =
    &["connect_fexit_standin", "connect_fexit", "connect_fentry_standin", "connect_fentry"];

const UDP: Need = Need::Function("udp_sendmsg");
const UDPV6: Need = Need::Function("udpv6_sendmsg");
const PING: Need = Need::Function("ping_v4_sendmsg");
const PINGV6: Need = Need::Function("ping_v6_sendmsg");
const RAW: Need = Need::Function("raw_sendmsg");
const RAWV6: Need = Need::Function("rawv6_sendmsg");
const REMOTE_OF_CALLER: Option<&str> = Some(
    "the destination is read from the caller's memory: it is null for io_uring, for programs of 32 \
     bits and for several messages in one call",
);
const NO_PORT_YET: Option<&str> = Some("the local port of an attempt is known only at its outcome");
/// What is sent is counted until then.
const CLOSE: Need = Need::Feature("datagram_close");
const UDP_KPROBES: &[&str] = &["udp_kretprobe", "udpv6_kretprobe", "udp_kprobe", "udpv6_kprobe"];

/// Whose attempts are wanted, where only descendants are. It observes nothing by itself, and is there
/// only where that was asked for: then it comes first, so that no process is missed, and capture
/// makes no sense without it.
pub const DESCENDANTS: FeatureHooks = FeatureHooks {
    name: "descendants",
    required: true,
    hooks: &[
        Hook {
            name: "tp_btf/sched_process_fork + sched_process_exit",
            backend: None,
            programs: &["exit_btf", "fork_btf"],
            needs: &[],
            note: None,
        },
        Hook {
            name: "raw_tp/sched_process_fork + sched_process_exit",
            backend: None,
            programs: &["exit_raw", "fork_raw"],
            needs: &[Need::ProbeRead],
            note: None,
        },
    ],
    without: "",
};

/// Everything that connect.bpf.c observes. They are attached in this order: what only cleans up
/// comes first and what begins attempts last, so that nothing that begins is without its end.
pub const FEATURES: &[FeatureHooks] = &[
    FeatureHooks {
        name: "process_start",
        required: false,
        // Its path and arguments lie where only helpers read.
        hooks: &[
            Hook {
                name: "tp_btf/sched_process_exec",
                backend: None,
                programs: &["exec_btf"],
                needs: &[Need::ProbeRead],
                note: None,
            },
            Hook {
                name: "raw_tp/sched_process_exec",
                backend: None,
                programs: &["exec_raw"],
                needs: &[Need::ProbeRead],
                note: None,
            },
        ],
        without: "programs that end at once may be without path, arguments and working directory",
    },
    FeatureHooks {
        name: "ancestry",
        required: false,
        hooks: kernel_tracepoint!("sched_process_fork", &["birth_btf"], &["birth_raw"]),
        without: "ancestors that have ended before a process is looked at are missing from its \
                  ancestry, and processes that start no program and end at once may be without exe",
    },
    FeatureHooks {
        name: "cgroup_names",
        required: false,
        // Its path lies where only helpers read.
        hooks: kernel_tracepoint!(
            "cgroup_mkdir",
            &["cgroup_btf"],
            &["cgroup_raw"],
            Need::ProbeRead
        ),
        without: "programs that end at once, in a control group that is new, may be without unit and \
                  container",
    },
    FeatureHooks {
        name: "dns_names",
        required: false,
        hooks: &[Hook {
            name: "cgroup_skb/ingress + egress, cgroup/sendmsg4 + sendmsg6",
            backend: None,
            // What comes back is of interest only where the question was seen.
            programs: &["dns_ingress", "dns_ask4", "dns_ask6", "dns_egress"],
            needs: &[Need::Cgroup2, Need::ProbeRead],
            note: Some(
                "UDP and TCP at port 53; not TLS or HTTPS, nor what a resolver's cache gives over \
                 other sockets",
            ),
        }],
        without: "remotes have no names, but those of /etc/hosts",
    },
    FeatureHooks {
        name: "tcp_close",
        required: true,
        hooks: kernel_tracepoint!(
            "tcp_destroy_sock",
            &["destroy_sock_btf", "destroy_sock_btf_standin"],
            &["destroy_sock_raw", "destroy_sock_raw_standin"]
        ),
        without: "",
    },
    FeatureHooks {
        name: "datagram_close",
        required: false,
        hooks: &[
            Hook {
                name: "cgroup/sock_release",
                backend: None,
                programs: &["release_cgroup"],
                needs: &[Need::Cgroup2, Need::Feature("in_progress")],
                note: None,
            },
            Hook {
                name: "fentry/inet_release",
                backend: Some(Backend::Fentry),
                programs: &["release_fentry"],
                needs: &[Need::Function("inet_release"), Need::Feature("in_progress")],
                note: None,
            },
            Hook {
                name: "kprobe/inet_release",
                backend: Some(Backend::Kprobe),
                programs: &["release_kprobe"],
                needs: &[
                    Need::Function("inet_release"),
                    Need::Kprobes,
                    Need::ProbeRead,
                    Need::Feature("in_progress"),
                ],
                note: None,
            },
        ],
        without: "a datagram socket that has a peer is shown once, and stays 'open'",
    },
    FeatureHooks {
        name: "datagram_errors",
        required: false,
        hooks: kernel_tracepoint!(
            "inet_sk_error_report",
            &["sk_error_btf", "sk_error_btf_standin"],
            &["sk_error_raw", "sk_error_raw_standin"],
            Need::Feature("datagram_close")
        ),
        without: "errors that come back for a datagram do not show in its record",
    },
    FeatureHooks {
        name: "datagram_sent",
        required: false,
        hooks: &[
            Hook {
                name: "fexit/udp_sendmsg + udpv6_sendmsg",
                backend: Some(Backend::Fentry),
                programs: &["udp_fexit", "udpv6_fexit"],
                needs: &[UDP, UDPV6, CLOSE],
                note: None,
            },
            Hook {
                name: "kprobe+kretprobe/udp_sendmsg + udpv6_sendmsg",
                backend: Some(Backend::Kprobe),
                programs: UDP_KPROBES,
                needs: &[UDP, UDPV6, Need::Kprobes, Need::ProbeRead, CLOSE],
                note: None,
            },
            Hook {
                name: "tp_btf/sock_send_length",
                backend: None,
                programs: &["send_length"],
                needs: &[Need::Tracepoint("sock_send_length"), CLOSE],
                note: None,
            },
        ],
        without: "a connected datagram socket stays 'associated', whatever it sends",
    },
    FeatureHooks {
        name: "datagrams_without_connect",
        required: false,
        hooks: &[
            Hook {
                name: "fexit/udp_sendmsg + udpv6_sendmsg",
                backend: Some(Backend::Fentry),
                programs: &["udp_fexit", "udpv6_fexit"],
                needs: &[UDP, UDPV6, Need::ProbeRead, CLOSE],
                note: None,
            },
            // Where the kernel's copy of the destination is out of reach.
            Hook {
                name: "cgroup/sendmsg4 + sendmsg6, fexit/udp_sendmsg + udpv6_sendmsg",
                backend: Some(Backend::Fentry),
                programs: &["udp_fexit", "udpv6_fexit", "send_cgroup4", "send_cgroup6"],
                needs: &[UDP, UDPV6, Need::Cgroup2, CLOSE],
                note: None,
            },
            Hook {
                name: "kprobe+kretprobe/udp_sendmsg + udpv6_sendmsg",
                backend: Some(Backend::Kprobe),
                programs: UDP_KPROBES,
                needs: &[UDP, UDPV6, Need::Kprobes, Need::ProbeRead, CLOSE],
                note: None,
            },
            Hook {
                name: "cgroup/sendmsg4 + sendmsg6, tp_btf/sock_send_length",
                backend: None,
                programs: &["send_length", "send_cgroup4", "send_cgroup6"],
                needs: &[Need::Tracepoint("sock_send_length"), Need::Cgroup2, CLOSE],
                note: None,
            },
            Hook {
                name: "cgroup/sendmsg4 + sendmsg6",
                backend: None,
                programs: &["send_cgroup4", "send_cgroup6"],
                needs: &[Need::Cgroup2, Need::ProbeRead, CLOSE],
                note: Some(
                    "seen before it is sent: what fails at once counts as sent, and bytes are not \
                     counted",
                ),
            },
        ],
        without: "datagrams sent without connect() are not seen",
    },
    FeatureHooks {
        name: "icmp_raw",
        required: false,
        hooks: &[
            Hook {
                name: "fexit/ping_v4_sendmsg + ping_v6_sendmsg + raw_sendmsg + rawv6_sendmsg",
                backend: Some(Backend::Fentry),
                programs: &["ping4_fexit", "ping6_fexit", "raw4_fexit", "raw6_fexit"],
                needs: &[PING, PINGV6, RAW, RAWV6, Need::ProbeRead, CLOSE],
                note: None,
            },
            Hook {
                name: "kprobe+kretprobe/ping_v4_sendmsg + ping_v6_sendmsg + raw_sendmsg + \
                       rawv6_sendmsg",
                backend: Some(Backend::Kprobe),
                programs: &[
                    "ping4_kretprobe",
                    "ping6_kretprobe",
                    "raw4_kretprobe",
                    "raw6_kretprobe",
                    "ping4_kprobe",
                    "ping6_kprobe",
                    "raw4_kprobe",
                    "raw6_kprobe",
                ],
                needs: &[PING, PINGV6, RAW, RAWV6, Need::Kprobes, Need::ProbeRead, CLOSE],
                note: None,
            },
            Hook {
                name: "tp_btf/sock_send_length",
                backend: None,
                programs: &["send_length"],
                needs: &[
                    Need::Tracepoint("sock_send_length"),
                    Need::TaskPtRegs,
                    Need::ProbeRead,
                    CLOSE,
                ],
                note: REMOTE_OF_CALLER,
            },
        ],
        without: "what ICMP and raw sockets send without connect() is not seen",
    },
    FeatureHooks {
        name: "tcp_outcome",
        required: true,
        hooks: kernel_tracepoint!(
            "inet_sock_set_state",
            &["set_state_btf", "set_state_btf_standin"],
            &["set_state_raw", "set_state_raw_standin"]
        ),
        without: "",
    },
    FeatureHooks {
        name: "inbound",
        required: false,
        hooks: &[
            Hook {
                name: "fentry/security_sock_graft",
                backend: Some(Backend::Fentry),
                programs: &["graft_fentry"],
                // MPTCP is behind a pointer without a type.
                needs: &[Need::Function("security_sock_graft"), Need::ProbeRead],
                note: None,
            },
            Hook {
                name: "fexit/inet_csk_accept",
                backend: Some(Backend::Fentry),
                programs: &["accept_fexit_of_2"],
                needs: &[Need::Parameters("inet_csk_accept", 2)],
                note: None,
            },
            Hook {
                name: "fexit/inet_csk_accept (before Linux 6.10)",
                backend: Some(Backend::Fentry),
                programs: &["accept_fexit_of_4"],
                needs: &[Need::Parameters("inet_csk_accept", 4)],
                note: None,
            },
            Hook {
                name: "kprobe/security_sock_graft",
                backend: Some(Backend::Kprobe),
                programs: &["graft_kprobe"],
                needs: &[Need::Function("security_sock_graft"), Need::Kprobes, Need::ProbeRead],
                note: None,
            },
            Hook {
                name: "kretprobe/inet_csk_accept",
                backend: Some(Backend::Kprobe),
                programs: &["accept_kretprobe"],
                needs: &[Need::Function("inet_csk_accept"), Need::Kprobes, Need::ProbeRead],
                note: Some(
                    "while more threads wait in accept() than the kernel has room for (10, or \
                     twice the number of processors), what the others of them accept is not seen",
                ),
            },
            Hook {
                name: "tracepoint/syscalls/sys_exit_accept + sys_exit_accept4",
                backend: Some(Backend::Tracepoint),
                programs: &["exit_accept", "exit_accept4"],
                needs: &[Need::SyscallEvents, Need::ProbeRead],
                note: Some(
                    "system-call tracepoints do not see what io_uring, 32-bit programs and the \
                     kernel itself accept",
                ),
            },
        ],
        without: "connections that processes of this host accept are not seen",
    },
    FeatureHooks {
        name: "listeners",
        required: false,
        // By the programs of tcp_outcome.
        hooks: &[
            Hook {
                name: "tp_btf/inet_sock_set_state",
                backend: None,
                programs: &["set_state_btf", "set_state_btf_standin"],
                needs: &[Need::Tracepoint("inet_sock_set_state"), Need::ProbeRead],
                note: None,
            },
            Hook {
                name: "raw_tp/inet_sock_set_state",
                backend: None,
                programs: &["set_state_raw", "set_state_raw_standin"],
                needs: &[Need::Tracepoint("inet_sock_set_state"), Need::ProbeRead],
                note: None,
            },
            Hook {
                name: "tp_btf/inet_sock_set_state",
                backend: None,
                programs: &["set_state_btf", "set_state_btf_standin"],
                needs: &[Need::Tracepoint("inet_sock_set_state")],
                note: Some("the port of a socket that listens without bind() is known at its end"),
            },
        ],
        without: "TCP sockets that begin to listen are not seen",
    },
    FeatureHooks {
        name: "connect",
        required: true,
        hooks: &[
            Hook {
                name: "fentry+fexit/__sys_connect_file",
                backend: Some(Backend::Fentry),
                programs: FENTRY_OF_CONNECT,
                needs: &[Need::Function("__sys_connect_file")],
                note: None,
            },
            Hook {
                name: "kprobe+kretprobe/__sys_connect_file",
                backend: Some(Backend::Kprobe),
                programs: &["connect_kretprobe", "connect_kprobe"],
                needs: &[Need::ProbeRead, Need::Kprobes, Need::Function("__sys_connect_file")],
                note: None,
            },
            Hook {
                name: "tracepoint/syscalls/sys_exit_connect",
                backend: Some(Backend::Tracepoint),
                programs: &["exit_connect", "exit_connect_standin"],
                needs: &[Need::Preempted, Need::ProbeRead, Need::SyscallEvents, Need::TaskPtRegs],
                note: SYSCALL_NOTE,
            },
            Hook {
                name: "tracepoint/syscalls/sys_exit_connect",
                backend: Some(Backend::Tracepoint),
                programs: &["exit_connect"],
                needs: &[Need::ProbeRead, Need::SyscallEvents, Need::TaskPtRegs],
                note: SYSCALL_NOTE,
            },
            Hook {
                name: "tracepoint/syscalls/sys_enter_connect + sys_exit_connect",
                backend: Some(Backend::Tracepoint),
                programs: &["exit_connect", "enter_connect"],
                needs: &[Need::ProbeRead, Need::SyscallEvents],
                note: SYSCALL_NOTE,
            },
        ],
        without: "",
    },
    FeatureHooks {
        name: "connect_other_callers",
        required: false,
        hooks: &[
            Hook {
                name: "fentry+fexit/__sys_connect_file",
                backend: Some(Backend::Fentry),
                programs: FENTRY_OF_CONNECT,
                needs: &[Need::Function("__sys_connect_file")],
                note: None,
            },
            Hook {
                name: "kprobe+kretprobe/__sys_connect_file",
                backend: Some(Backend::Kprobe),
                programs: &["connect_kretprobe", "connect_kprobe"],
                needs: &[Need::ProbeRead, Need::Kprobes, Need::Function("__sys_connect_file")],
                note: None,
            },
            Hook {
                name: "cgroup/connect4 + connect6",
                backend: Some(Backend::Tracepoint),
                programs: &["connect4_cgroup", "connect6_cgroup"],
                needs: &[Need::ProbeRead, Need::TaskPtRegs, Need::Cgroup2],
                note: Some(
                    "how connect() by io_uring and by 32-bit programs ended is told by TCP's \
                     states, or by the state in which the socket is found: then a failure is \
                     without its error number, and a datagram socket that has no peer any more is \
                     taken to have failed; UNIX sockets are not seen",
                ),
            },
        ],
        without: "connect() by io_uring and by 32-bit programs is seen by TCP's states only: other \
                  protocols and refusals before the first packet are not",
    },
    FeatureHooks {
        name: "preexisting",
        required: false,
        hooks: &[Hook {
            name: "iter/task_file",
            backend: None,
            programs: &["existing"],
            needs: &[],
            note: Some(
                "connections that no process holds any more are not found; nor is MPTCP where the \
                 kernel is locked down, nor are datagram sockets where their close is not seen; of \
                 datagram sockets that only receive, those are listed that existed before",
            ),
        }],
        without: "what existed before capture began is not listed",
    },
    FeatureHooks {
        name: "traffic",
        required: false,
        hooks: &[
            Hook {
                name: "iter/bpf_map_elem",
                backend: None,
                programs: &["traffic", "traffic_of_flows"],
                needs: &[Need::ProbeRead],
                note: None,
            },
            Hook {
                name: "syscall/bpf_for_each_map_elem",
                backend: None,
                programs: &["traffic_walk", "traffic_of_flows_walk"],
                needs: &[Need::Walks, Need::ProbeRead],
                note: None,
            },
        ],
        without: "what a connection carries is known when it has closed",
    },
    FeatureHooks {
        name: "in_progress",
        required: false,
        hooks: &[
            Hook {
                name: "iter/bpf_map_elem",
                backend: None,
                programs: &["sweep", "sweep_flows"],
                needs: &[Need::ProbeRead],
                note: None,
            },
            Hook {
                name: "syscall/bpf_for_each_map_elem",
                backend: None,
                programs: &["sweep_walk", "sweep_flows_walk"],
                needs: &[Need::Walks, Need::ProbeRead],
                note: None,
            },
            Hook {
                name: "iter/bpf_map_elem",
                backend: None,
                programs: &["sweep", "sweep_flows"],
                needs: &[],
                note: NO_PORT_YET,
            },
            Hook {
                name: "syscall/bpf_for_each_map_elem",
                backend: None,
                programs: &["sweep_walk", "sweep_flows_walk"],
                needs: &[Need::Walks],
                note: NO_PORT_YET,
            },
        ],
        without: "attempts show only at their outcome",
    },
];

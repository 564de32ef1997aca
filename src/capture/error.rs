//! Why capture cannot start, and what to do about it.

use super::report::Backend;

/// Capture could not start or had to stop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaptureError {
    /// The process may not load BPF programs.
    #[error(
        "no privilege to load BPF programs: {missing}; run as root (sudo), or give the program \
         CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN and CAP_SYS_RESOURCE \
         (setcap cap_bpf,cap_perfmon,cap_net_admin,cap_sys_resource+ep) and leave to read \
         /sys/kernel/tracing"
    )]
    NoPrivilege {
        /// What was refused.
        missing: String,
    },
    /// The kernel does not describe its types.
    #[error(
        "no kernel type information at /sys/kernel/btf/vmlinux: the kernel needs CONFIG_DEBUG_INFO_BTF=y"
    )]
    NoBtf,
    /// The kernel lets no program read its memory.
    #[error(
        "the kernel ({release}) was started with lockdown=confidentiality, under which netspy needs \
         Linux 5.11 or later; lockdown=integrity does not stand in its way"
    )]
    LockedDown {
        /// Its release.
        release: String,
    },
    /// The verifier refused a program.
    #[error("the kernel refused the BPF programs: {why}\n{log}")]
    Refused {
        /// The error.
        why: String,
        /// The end of what the verifier said.
        log: String,
    },
    /// A hook that nothing can replace could not be attached.
    #[error("cannot attach to {hook}: {why}")]
    Attach {
        /// Which hook.
        hook: String,
        /// What happened.
        why: String,
    },
    /// The family of hooks that was asked for does not work here.
    #[error(
        "the backend '{backend}' cannot be used here: {why}; without a choice of backend, netspy \
         takes the best that works"
    )]
    BackendUnavailable {
        /// Which one.
        backend: Backend,
        /// What was tried, and what happened.
        why: String,
    },
    /// An option of the builder is wrong.
    #[error("{option}: {problem}")]
    InvalidOption {
        /// Which option.
        option: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A system call failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// The system's error.
        source: std::io::Error,
    },
}

impl CaptureError {
    /// What happened, without what the verifier said.
    pub(crate) fn in_short(&self) -> String {
        match self {
            CaptureError::Refused { why, .. } => format!("the kernel refused it: {why}"),
            CaptureError::NoPrivilege { missing } => missing.clone(),
            CaptureError::Attach { why, .. } => why.clone(),
            error => error.to_string(),
        }
    }
}

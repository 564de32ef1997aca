//! What this kernel and this process can do: facts, without judgement.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use libbpf_rs::btf::Btf;
use libbpf_rs::btf::types::{Func, FuncProto, Typedef};
use libbpf_rs::{ReferencesType, libbpf_sys};

use super::{features, sys, tracefs};

/// Facts about the kernel and the privileges of this process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KernelSupport {
    /// Kernel release, such as `6.12.5-amd64`.
    pub release: String,
    /// Capabilities that loading needs and this process lacks.
    pub missing_capabilities: Vec<&'static str>,
    /// Whether the kernel describes its types.
    pub btf: bool,
    /// Functions that hooks need and the kernel describes.
    pub functions: BTreeSet<&'static str>,
    /// Functions that have as many parameters as a hook needs.
    pub parameters: BTreeSet<(&'static str, usize)>,
    /// Tracepoints that hooks need and the kernel describes.
    pub tracepoints: BTreeSet<&'static str>,
    /// Whether the system-call tracepoints are to be seen in a tracing file system.
    pub syscall_events: bool,
    /// Whether the kernel has kprobes.
    pub kprobes: bool,
    /// Whether a program can read the arguments of a system call at its exit (Linux 5.15).
    pub task_pt_regs: bool,
    /// Whether the current task is known by its type (Linux 5.11).
    pub typed_task: bool,
    /// Whether helpers may read kernel memory.
    pub probe_read: bool,
    /// Whether user space can run programs that walk through maps (Linux 5.14).
    pub walks: bool,
    /// Whether the programs of tracepoints may be preempted (Linux 7).
    pub preempts: bool,
    /// Whether programs can keep themselves from being preempted (Linux 6.14).
    pub can_stay: bool,
    /// Where the root of the cgroup v2 hierarchy is mounted.
    pub cgroup2: Option<PathBuf>,
    /// Whether that is the root of the host, and not that of a cgroup namespace.
    pub cgroup2_is_root: bool,
    /// Whether the kernel has in itself, and in no module, what tells of tracked connections.
    pub tracking_is_built_in: bool,
}

/// Bits of `CapEff`, linux/capability.h.
const CAPABILITIES: [(u32, &str); 2] = [(38, "CAP_PERFMON"), (39, "CAP_BPF")];
const CAP_SYS_ADMIN: u32 = 21;

/// What runs the programs of system-call tracepoints since they may sleep (kernel/trace/bpf_trace.c).
const PREEMPTED_CALL: &str = "trace_call_bpf_faultable";

/// What answers questions about tracked connections (net/netfilter/nf_conntrack_netlink.c).
const TRACKING_ANSWERS: &str = "ctnetlink_get_conntrack";

/// What programs call to that end (src/bpf/stay.h).
const STAYING: [&str; 4] =
    ["bpf_preempt_disable", "bpf_preempt_enable", "bpf_local_irq_save", "bpf_local_irq_restore"];

impl KernelSupport {
    /// Looks at the running kernel. May mount the tracing file system for the calling thread.
    pub fn probe() -> Self {
        let missing_capabilities = missing_capabilities();
        // The probe of a helper loads a small program.
        let may_load = missing_capabilities.is_empty();
        let probe_read = may_load && sys::has_helper(libbpf_sys::BPF_FUNC_probe_read_kernel);
        // Only where it is of use: where the kernel is locked down nothing can be attached to its
        // events, and 6.12 was seen to crash when the file system is unmounted again.
        if probe_read {
            tracefs::find();
        }
        let kernel = Btf::from_vmlinux().ok();
        let known = |found: &dyn Fn(&Btf<'_>, &str) -> bool, names: Vec<&'static str>| {
            let known = |name: &&str| kernel.as_ref().is_some_and(|btf| found(btf, name));
            names.into_iter().filter(known).collect()
        };
        let cgroup2 = cgroup2();
        KernelSupport {
            release: read("/proc/sys/kernel/osrelease"),
            btf: kernel.is_some(),
            functions: known(&has_function, features::functions()),
            parameters: features::parameters()
                .into_iter()
                .filter(|(name, count)| {
                    kernel.as_ref().is_some_and(|btf| parameters_of(btf, name) == Some(*count))
                })
                .collect(),
            tracepoints: known(&has_tracepoint, features::tracepoints()),
            syscall_events: tracefs::has("events/syscalls/sys_exit_connect/id"),
            kprobes: Path::new("/sys/bus/event_source/devices/kprobe").exists(),
            task_pt_regs: may_load && sys::has_helper(libbpf_sys::BPF_FUNC_task_pt_regs),
            typed_task: may_load && sys::has_helper(libbpf_sys::BPF_FUNC_get_current_task_btf),
            probe_read,
            walks: may_load && sys::has_walks(),
            preempts: kernel.as_ref().is_some_and(|btf| has_function(btf, PREEMPTED_CALL)),
            can_stay: STAYING
                .iter()
                .all(|name| kernel.as_ref().is_some_and(|btf| has_function(btf, name))),
            cgroup2_is_root: cgroup2.as_deref().is_some_and(is_root),
            cgroup2,
            tracking_is_built_in: kernel
                .as_ref()
                .is_some_and(|btf| has_function(btf, TRACKING_ANSWERS)),
            missing_capabilities,
        }
    }
}

impl KernelSupport {
    /// Whether the programs of tracepoints should keep themselves from being preempted.
    pub(crate) fn stays_in_tracepoint(&self) -> bool {
        self.can_stay && self.preempts
    }
}

fn has_function(btf: &Btf<'_>, name: &str) -> bool {
    btf.type_by_name::<Func<'_>>(name).is_some()
}

fn parameters_of(btf: &Btf<'_>, name: &str) -> Option<usize> {
    let function = btf.type_by_name::<Func<'_>>(name)?;
    let prototype: FuncProto<'_> = btf.type_by_id(function.referenced_type_id())?;
    Some(prototype.len())
}

/// The kernel keeps the prototype of each tracepoint under such a name (trace/bpf_probe.h).
fn has_tracepoint(btf: &Btf<'_>, name: &str) -> bool {
    btf.type_by_name::<Typedef<'_>>(&format!("btf_trace_{name}")).is_some()
}

/// The first mount of the cgroup v2 hierarchy (proc_pid_mountinfo(5)).
fn cgroup2() -> Option<PathBuf> {
    let mounts = read("/proc/self/mountinfo");
    mounts.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        kind.starts_with("cgroup2 ").then(|| mount.split(' ').nth(4))?.map(PathBuf::from)
    })
}

/// The root of the hierarchy is the first that gets a number (`kernfs_create_root()` in
/// fs/kernfs/dir.c).
fn is_root(cgroup: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(cgroup).is_ok_and(|directory| directory.ino() == 1)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// Whether this process could capture, for a caller that has a choice.
pub fn is_privileged() -> bool {
    missing_capabilities().is_empty()
}

fn missing_capabilities() -> Vec<&'static str> {
    let status = read("/proc/self/status");
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    let has = |bit: u32| effective >> bit & 1 == 1;
    if has(CAP_SYS_ADMIN) {
        // Contains the others.
        return Vec::new();
    }
    CAPABILITIES.iter().filter(|(bit, _)| !has(*bit)).map(|(_, name)| *name).collect()
}

//! What this kernel and this process can do: facts, without judgement.

use std::path::Path;

use libbpf_rs::libbpf_sys;

use super::sys;

/// Facts about the kernel and the privileges of this process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KernelSupport {
    /// Kernel release, such as `6.12.5-amd64`.
    pub release: String,
    /// Capabilities that loading needs and this process lacks.
    pub missing_capabilities: Vec<&'static str>,
    /// Whether the kernel describes its types.
    pub btf: bool,
    /// Whether the system-call tracepoints are to be seen in a tracing file system.
    pub tracefs: bool,
    /// Whether a program can read the arguments of a system call at its exit (Linux 5.15).
    pub task_pt_regs: bool,
}

/// Bits of `CapEff`, linux/capability.h.
const CAPABILITIES: [(u32, &str); 2] = [(38, "CAP_PERFMON"), (39, "CAP_BPF")];
const CAP_SYS_ADMIN: u32 = 21;

impl KernelSupport {
    /// Looks at the running kernel.
    pub fn probe() -> Self {
        let missing_capabilities = missing_capabilities();
        // The probe of a helper loads a small program.
        let may_load = missing_capabilities.is_empty();
        KernelSupport {
            release: read("/proc/sys/kernel/osrelease"),
            btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
            tracefs: tracefs_has("events/syscalls/sys_exit_connect/id"),
            task_pt_regs: may_load && sys::has_helper(libbpf_sys::BPF_FUNC_task_pt_regs),
            missing_capabilities,
        }
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// Whether one of the two places where libbpf looks has the file.
pub(crate) fn tracefs_has(file: &str) -> bool {
    ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"]
        .iter()
        .any(|root| Path::new(root).join(file).exists())
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

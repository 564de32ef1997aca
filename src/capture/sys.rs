//! The few system calls that libbpf-rs does not wrap.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use libbpf_rs::libbpf_sys;

/// What the kernel says of a loaded program.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct ProgramFacts {
    /// Its id.
    pub id: u32,
    /// Runs that were skipped because the program was interrupted by itself.
    pub recursion_misses: u64,
    /// Instructions that the verifier went through; since Linux 5.16.
    pub verified_insns: Option<u32>,
}

/// Asks the kernel for its facts about a program.
pub(crate) fn program_facts(fd: BorrowedFd<'_>) -> io::Result<ProgramFacts> {
    let mut info = libbpf_sys::bpf_prog_info::default();
    let mut len = size_of::<libbpf_sys::bpf_prog_info>() as u32;
    // SAFETY: `info` is a valid, zeroed structure of `len` bytes and outlives the call, and zeroed
    // means that it asks for no variable-length part.
    let ret = unsafe {
        libbpf_sys::bpf_obj_get_info_by_fd(fd.as_raw_fd(), (&raw mut info).cast(), &raw mut len)
    };
    if ret != 0 {
        return Err(io::Error::from_raw_os_error(-ret));
    }
    Ok(ProgramFacts {
        id: info.id,
        recursion_misses: info.recursion_misses,
        verified_insns: (info.verified_insns != 0).then_some(info.verified_insns),
    })
}

/// Runs that a return probe missed because too many calls were under way at once; 0 where the kernel
/// does not tell (before 6.7) and for links of other kinds.
pub(crate) fn link_misses(fd: BorrowedFd<'_>) -> u64 {
    let mut info = libbpf_sys::bpf_link_info::default();
    let mut len = size_of::<libbpf_sys::bpf_link_info>() as u32;
    // SAFETY: `info` is a valid, zeroed structure of `len` bytes and outlives the call, and zeroed
    // means that it asks for no variable-length part.
    let ret = unsafe {
        libbpf_sys::bpf_obj_get_info_by_fd(fd.as_raw_fd(), (&raw mut info).cast(), &raw mut len)
    };
    if ret != 0 || info.type_ != libbpf_sys::BPF_LINK_TYPE_PERF_EVENT {
        return 0;
    }
    // SAFETY: the type of the link says which member of the union is in use; all are integers.
    let event = unsafe { info.__bindgen_anon_1.perf_event };
    let probes = [libbpf_sys::BPF_PERF_EVENT_KPROBE, libbpf_sys::BPF_PERF_EVENT_KRETPROBE];
    if !probes.contains(&event.type_) {
        return 0;
    }
    // SAFETY: as above.
    unsafe { event.__bindgen_anon_1.kprobe.missed }
}

/// Whether the kernel lets a tracing program call a helper. Needs the right to load programs.
pub(crate) fn has_helper(helper: u32) -> bool {
    // SAFETY: takes integers; a null `opts` is allowed.
    let ret = unsafe {
        libbpf_sys::libbpf_probe_bpf_helper(
            libbpf_sys::BPF_PROG_TYPE_TRACEPOINT,
            helper,
            std::ptr::null(),
        )
    };
    ret == 1
}

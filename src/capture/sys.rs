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

/// Waits until every BPF program that runs now has ended: they run in read-side sections of RCU,
/// for the end of which the kernel waits here (kernel/sched/membarrier.c).
pub(crate) fn programs_have_ended() -> io::Result<()> {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: takes integers.
    let ret = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if ret != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

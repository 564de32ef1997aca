//! The few system calls that libbpf-rs does not wrap.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use libbpf_rs::libbpf_sys;
use plain::Plain;

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

/// Begins to read what the iterator at a link has to say.
pub(crate) fn iterator(link: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: takes an integer, which is an open descriptor.
    let fd = unsafe { libbpf_sys::bpf_iter_create(link.as_raw_fd()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call made it for us, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Runs a program that is at no hook, with a context that it may change.
pub(crate) fn run_program<C: Plain>(program: BorrowedFd<'_>, context: &mut C) -> io::Result<()> {
    let mut options = libbpf_sys::bpf_test_run_opts {
        sz: size_of::<libbpf_sys::bpf_test_run_opts>() as libbpf_sys::size_t,
        // The kernel writes it back to where it has read it (bpf_prog_test_run_syscall()).
        ctx_in: (&raw mut *context).cast(),
        ctx_size_in: size_of::<C>() as u32,
        ..<_>::default()
    };
    // SAFETY: the context is of the length that is given, any pattern of its bytes is a value, and
    // both outlive the call.
    let ret = unsafe { libbpf_sys::bpf_prog_test_run_opts(program.as_raw_fd(), &raw mut options) };
    if ret != 0 {
        return Err(io::Error::from_raw_os_error(-ret));
    }
    Ok(())
}

/// Whether the kernel has programs that user space runs, and lets them walk through maps. Needs the
/// right to load programs.
pub(crate) fn has_walks() -> bool {
    // SAFETY: takes integers; a null `opts` is allowed.
    let ret = unsafe {
        libbpf_sys::libbpf_probe_bpf_helper(
            libbpf_sys::BPF_PROG_TYPE_SYSCALL,
            libbpf_sys::BPF_FUNC_for_each_map_elem,
            std::ptr::null(),
        )
    };
    ret == 1
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

/// Entries of a hash that are taken by one system call, in memory that is used again.
#[derive(Debug)]
pub(crate) struct Entries<K, V> {
    keys: Vec<K>,
    values: Vec<V>,
}

impl<K: Plain + Copy + Default, V: Plain + Copy + Default> Entries<K, V> {
    /// Takes this many at a time.
    pub(crate) fn new(batch: usize) -> Self {
        Entries { keys: vec![K::default(); batch], values: vec![V::default(); batch] }
    }

    /// Takes all entries out of a hash of these types.
    ///
    /// The iterator of libbpf-rs takes a call that fills less than its memory for the last one, but
    /// the kernel stops at whole buckets (`__htab_map_lookup_and_delete_batch()`).
    pub(crate) fn take(
        &mut self,
        fd: BorrowedFd<'_>,
        mut each: impl FnMut(K, V),
    ) -> io::Result<()> {
        // Where a call ended: a number of a bucket.
        let mut place = 0_u32;
        let mut is_first = true;
        loop {
            let mut count = self.keys.len().min(self.values.len()) as u32;
            let from = if is_first { std::ptr::null_mut() } else { (&raw mut place).cast() };
            // SAFETY: the kernel writes `count` keys and values at most, for which there is room,
            // of the types that the map has; every pattern of bytes is a value of them. It reads
            // `from` before it writes `place`.
            let ret = unsafe {
                libbpf_sys::bpf_map_lookup_and_delete_batch(
                    fd.as_raw_fd(),
                    from,
                    (&raw mut place).cast(),
                    self.keys.as_mut_ptr().cast(),
                    self.values.as_mut_ptr().cast(),
                    &raw mut count,
                    std::ptr::null(),
                )
            };
            let ended = match -ret {
                0 => false,
                libc::ENOENT => true,
                libc::EINTR => continue,
                errno => return Err(io::Error::from_raw_os_error(errno)),
            };
            let taken = self.keys.iter().zip(&self.values).take(count as usize);
            taken.for_each(|(key, value)| each(*key, *value));
            if ended {
                return Ok(());
            }
            is_first = false;
        }
    }
}

//! What the C library's allocator does with memory that is freed. Here because it takes `unsafe`, not
//! because capture needs it.

#![allow(unsafe_code)]

/// Blocks from this size on are given back to the system when they are freed: those that history makes
/// of each batch are among them.
#[cfg(target_env = "gnu")]
const LARGE: libc::c_int = 256 << 10;
/// As is so much at the end of what an arena has.
#[cfg(target_env = "gnu")]
const AT_THE_END: libc::c_int = 1 << 20;

/// Has freed memory given back. By itself glibc raises both thresholds as large blocks are freed (up to
/// 32 and 64 MiB, mallopt(3)), for each of its arenas: after large answers to a few clients hundreds of
/// MiB stayed with the process for good.
#[cfg(target_env = "gnu")]
pub(crate) fn give_back_freed_memory() {
    // SAFETY: takes integers; other threads may allocate meanwhile, since it takes the arena's lock.
    let set = unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE) == 1
            && libc::mallopt(libc::M_TRIM_THRESHOLD, AT_THE_END) == 1
    };
    if !set {
        tracing::debug!("the allocator keeps freed memory as it sees fit");
    }
}

/// Other C libraries raise nothing.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn give_back_freed_memory() {}

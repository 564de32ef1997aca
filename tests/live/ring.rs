//! io_uring by its system calls: one operation at a time.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

const OP_SENDMSG: u8 = 9;
const OP_SHUTDOWN: u8 = 34;
const OP_CONNECT: u8 = 16;
const OP_SEND: u8 = 26;
/// Hands the operation to a worker at once.
pub const ASYNC: u8 = 1 << 4;
const ENTER_GETEVENTS: u32 = 1;
const MAPPED: usize = 4096;

/// struct io_sqring_offsets.
#[repr(C)]
#[derive(Default)]
struct SubmissionOffsets {
    head: u32,
    tail: u32,
    ring_mask: u32,
    ring_entries: u32,
    flags: u32,
    dropped: u32,
    array: u32,
    reserved: [u32; 3],
}

/// struct io_cqring_offsets.
#[repr(C)]
#[derive(Default)]
struct CompletionOffsets {
    head: u32,
    tail: u32,
    ring_mask: u32,
    ring_entries: u32,
    overflow: u32,
    cqes: u32,
    reserved: [u32; 4],
}

/// struct io_uring_params.
#[repr(C)]
#[derive(Default)]
struct Params {
    before: [u32; 10],
    sq: SubmissionOffsets,
    cq: CompletionOffsets,
}

/// struct io_uring_sqe.
#[repr(C)]
#[derive(Default)]
struct Submission {
    opcode: u8,
    flags: u8,
    priority: u16,
    fd: i32,
    offset: u64,
    address: u64,
    rest: [u64; 5],
}

/// A ring of this thread.
pub struct Ring {
    fd: OwnedFd,
    submissions: *mut u8,
    completions: *mut u8,
    entries: *mut u8,
    params: Params,
}

/// A sockaddr_in or sockaddr_in6.
fn sockaddr(remote: SocketAddr) -> Vec<u8> {
    let family = if remote.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let mut bytes = (family as u16).to_ne_bytes().to_vec();
    bytes.extend(remote.port().to_be_bytes());
    match remote {
        SocketAddr::V4(v4) => bytes.extend(v4.ip().octets()),
        SocketAddr::V6(v6) => {
            bytes.extend([0; 4]);
            bytes.extend(v6.ip().octets());
        }
    }
    bytes.resize(if remote.is_ipv4() { 16 } else { 28 }, 0);
    bytes
}

impl Ring {
    /// Fails where io_uring is missing or forbidden.
    pub fn new() -> io::Result<Self> {
        let mut params = Params::default();
        // SAFETY: the kernel fills the structure, which is as long as it expects.
        #[allow(unsafe_code)]
        let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 4_u32, &raw mut params) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call returned a descriptor that nobody else has.
        #[allow(unsafe_code)]
        let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        let map = |offset: i64| {
            // SAFETY: a new mapping of the ring, of at most the page that each part has.
            #[allow(unsafe_code)]
            let at = unsafe {
                let protection = libc::PROT_READ | libc::PROT_WRITE;
                let null = std::ptr::null_mut();
                libc::mmap(null, MAPPED, protection, libc::MAP_SHARED, fd.as_raw_fd(), offset)
            };
            assert_ne!(at, libc::MAP_FAILED, "{}", io::Error::last_os_error());
            at.cast::<u8>()
        };
        let (submissions, completions, entries) = (map(0), map(0x800_0000), map(0x1000_0000));
        Ok(Ring { fd, submissions, completions, entries, params })
    }

    /// connect() by the ring; returns its result once it is complete.
    pub fn connect(&self, socket: &impl AsFd, remote: SocketAddr, flags: u8) -> io::Result<()> {
        let address = sockaddr(remote);
        self.submit(socket, &address, flags);
        self.enter(1, 1);
        self.result()
    }

    /// Begins a connect() that the ring goes on with by itself.
    pub fn begin_connect(&self, socket: &impl AsFd, remote: SocketAddr) {
        let address = sockaddr(remote);
        self.submit(socket, &address, 0);
        // The address is copied when it is submitted.
        self.enter(1, 0);
    }

    /// shutdown() of both ways by the ring; returns the result of whatever is complete first.
    pub fn shutdown(&self, socket: &impl AsFd) -> io::Result<()> {
        self.put(Submission {
            opcode: OP_SHUTDOWN,
            fd: socket.as_fd().as_raw_fd(),
            rest: [libc::SHUT_RDWR as u64, 0, 0, 0, 0],
            ..Submission::default()
        });
        self.enter(1, 1);
        self.result()
    }

    /// send() by the ring.
    pub fn send(&self, socket: &impl AsFd, data: &[u8]) -> io::Result<()> {
        self.put(Submission {
            opcode: OP_SEND,
            fd: socket.as_fd().as_raw_fd(),
            address: data.as_ptr() as u64,
            rest: [data.len() as u64, 0, 0, 0, 0],
            ..Submission::default()
        });
        self.enter(1, 1);
        self.result()
    }

    /// sendmsg() by the ring, with a destination.
    pub fn send_to(&self, socket: &impl AsFd, data: &[u8], to: SocketAddr) -> io::Result<()> {
        let mut name = sockaddr(to);
        let mut part =
            libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
        // SAFETY: zeroes are a message without anything.
        #[allow(unsafe_code)]
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_name = name.as_mut_ptr().cast();
        message.msg_namelen = name.len() as u32;
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        self.put(Submission {
            opcode: OP_SENDMSG,
            fd: socket.as_fd().as_raw_fd(),
            address: &raw const message as u64,
            rest: [1, 0, 0, 0, 0],
            ..Submission::default()
        });
        self.enter(1, 1);
        self.result()
    }

    fn submit(&self, socket: &impl AsFd, address: &[u8], flags: u8) {
        self.put(Submission {
            opcode: OP_CONNECT,
            flags,
            fd: socket.as_fd().as_raw_fd(),
            offset: address.len() as u64,
            address: address.as_ptr() as u64,
            ..Submission::default()
        });
    }

    fn put(&self, entry: Submission) {
        // SAFETY: offsets are the kernel's, within what is mapped; only this thread submits.
        #[allow(unsafe_code)]
        unsafe {
            let tail = at(self.submissions, self.params.sq.tail);
            let mask = at(self.submissions, self.params.sq.ring_mask).load(Ordering::Relaxed);
            let slot = tail.load(Ordering::Relaxed) & mask;
            self.entries.cast::<Submission>().add(slot as usize).write(entry);
            at(self.submissions, self.params.sq.array + 4 * slot).store(slot, Ordering::Relaxed);
            tail.fetch_add(1, Ordering::Release);
        }
    }

    fn enter(&self, submit: u32, complete: u32) {
        let flags = if complete > 0 { ENTER_GETEVENTS } else { 0 };
        loop {
            // SAFETY: no pointers are passed.
            #[allow(unsafe_code)]
            let ret = unsafe {
                let fd = self.fd.as_raw_fd();
                libc::syscall(libc::SYS_io_uring_enter, fd, submit, complete, flags, 0_usize, 0)
            };
            if ret >= 0 {
                return;
            }
            let error = io::Error::last_os_error();
            assert_eq!(error.kind(), io::ErrorKind::Interrupted, "{error}");
        }
    }

    fn result(&self) -> io::Result<()> {
        // SAFETY: offsets are the kernel's, within what is mapped; only this thread consumes.
        #[allow(unsafe_code)]
        let result = unsafe {
            let head = at(self.completions, self.params.cq.head);
            let tail = at(self.completions, self.params.cq.tail).load(Ordering::Acquire);
            let mask = at(self.completions, self.params.cq.ring_mask).load(Ordering::Relaxed);
            let position = head.load(Ordering::Relaxed);
            assert_ne!(position, tail, "something is complete");
            // struct io_uring_cqe: user_data (8 bytes), res, flags.
            let entry = self.params.cq.cqes + 16 * (position & mask);
            let result = at(self.completions, entry + 8).load(Ordering::Relaxed) as i32;
            head.fetch_add(1, Ordering::Release);
            result
        };
        if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(()) }
    }
}

/// A word of a mapped ring.
///
/// # Safety
///
/// The offset must lie within the mapping, which must outlive the reference.
#[allow(unsafe_code)]
unsafe fn at<'a>(ring: *mut u8, offset: u32) -> &'a AtomicU32 {
    // SAFETY: as the caller promises; the kernel aligns its words.
    unsafe { AtomicU32::from_ptr(ring.add(offset as usize).cast()) }
}

impl Drop for Ring {
    fn drop(&mut self) {
        for part in [self.submissions, self.completions, self.entries] {
            // SAFETY: mapped by `new`, and no reference into it is left.
            #[allow(unsafe_code)]
            unsafe {
                libc::munmap(part.cast(), MAPPED)
            };
        }
    }
}

//! Where the kernel is asked: in a network namespace, over a socket that was opened in it.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::message::{AnswerError, Flow, answer, question};

/// The kernel answers within the call that asks: nothing waits this long.
const PATIENCE: Duration = Duration::from_secs(1);
/// Of what the kernel has to say of one connection.
const ANSWER: usize = 8192;
/// Namespaces of which a process is remembered that was in it.
const REMEMBERED: usize = 1024;

/// How many connections are tracked in the namespace of who reads it. It is there if tracking is
/// loaded, and to read it loads nothing.
const COUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_count";

/// Whether connections are tracked in the network namespace of the calling thread. Without rules that
/// take an interest in it, the kernel tracks none, also where it could (`nf_ct_netns_get()`).
pub(super) fn tracks() -> bool {
    std::fs::read_to_string(COUNT).is_ok_and(|count| count.trim() != "0")
}

/// Whether connections can be tracked at all, as the kernel is now.
pub(super) fn is_loaded() -> bool {
    Path::new(COUNT).exists()
}

/// Whether a question would have the kernel load a module: it looks for the one that answers
/// (`nfnetlink_rcv_msg()`). `is_built_in`: the kernel has it in itself.
pub(super) fn would_load(is_built_in: bool) -> bool {
    let has_modules = Path::new("/proc/modules").exists();
    has_modules && !is_built_in && !Path::new("/sys/module/nf_conntrack_netlink").exists()
}

/// The network namespace of the calling thread, by its number.
pub(super) fn own_number() -> io::Result<u32> {
    let number = std::fs::metadata("/proc/thread-self/ns/net")?.ino();
    u32::try_from(number).map_err(io::Error::other)
}

/// A socket over which netfilter is asked about one network namespace.
#[derive(Debug)]
pub(super) struct Place {
    socket: OwnedFd,
    number: u32,
    buffer: Vec<u8>,
}

impl Place {
    /// Of the namespace of the calling thread.
    pub(super) fn here() -> io::Result<Self> {
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(netlink::NETFILTER),
        )?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        rustix::net::bind(&socket, &netlink::SocketAddrNetlink::new(0, 0))?;
        // To the kernel, and from nobody else.
        rustix::net::connect(&socket, &netlink::SocketAddrNetlink::new(0, 0))?;
        Ok(Place { socket, number: 0, buffer: vec![0; ANSWER] })
    }

    /// How packets that were sent like this leave here; `None` where nothing is tracked of them.
    pub(super) fn ask(&mut self, flow: &Flow) -> Result<Option<Flow>, AnswerError> {
        self.number = self.number.wrapping_add(1);
        let question = question(flow, self.number);
        let refused = |error: rustix::io::Errno| AnswerError::Refused(error.into());
        rustix::net::send(&self.socket, &question, SendFlags::empty()).map_err(refused)?;
        let (_, len) = rustix::net::recv(&self.socket, &mut self.buffer[..], RecvFlags::empty())
            .map_err(refused)?;
        let bytes = self.buffer.get(..len);
        let bytes = bytes.ok_or_else(|| AnswerError::Garbage("it is too long".to_owned()))?;
        answer(bytes, flow, self.number)
    }
}

/// The network namespaces of others, into which the calling thread may go.
#[derive(Debug)]
pub(super) struct Others {
    own: File,
    /// While questions about them are under way: an open socket keeps a namespace alive.
    open: HashMap<u32, Option<Place>>,
    /// By namespace: a task that was in it, for when those that are asked about have ended.
    tasks: HashMap<u32, u32>,
}

impl Others {
    pub(super) fn new() -> io::Result<Self> {
        let own = File::open("/proc/thread-self/ns/net")?;
        Ok(Others { own, open: HashMap::new(), tasks: HashMap::new() })
    }

    /// That of this number, if one of these tasks, or one that was seen before, is in it, and if anything
    /// is tracked there.
    pub(super) fn place(&mut self, netns: u32, tasks: [u32; 3]) -> Option<&mut Place> {
        if !self.open.contains_key(&netns) {
            let place = self.find(netns, tasks).and_then(|file| self.visit(&file));
            self.open.insert(netns, place);
        }
        self.open.get_mut(&netns)?.as_mut()
    }

    /// Lets the namespaces go.
    pub(super) fn close(&mut self) {
        self.open.clear();
    }

    fn find(&mut self, netns: u32, tasks: [u32; 3]) -> Option<File> {
        let before = self.tasks.get(&netns).copied();
        let candidates = tasks.into_iter().chain(before).filter(|pid| *pid != 0);
        let (pid, file) = candidates
            .filter_map(|pid| Some((pid, File::open(format!("/proc/{pid}/ns/net")).ok()?)))
            // The number may be another's by now, or the task have gone elsewhere.
            .find(|(_, file)| file.metadata().is_ok_and(|file| file.ino() == u64::from(netns)))?;
        if self.tasks.len() >= REMEMBERED {
            self.tasks.clear();
        }
        self.tasks.insert(netns, pid);
        Some(file)
    }

    /// Opens a socket there, and comes back.
    fn visit(&self, there: &File) -> Option<Place> {
        let network = Some(LinkNameSpaceType::Network);
        if let Err(error) = move_into_link_name_space(there.as_fd(), network) {
            tracing::debug!("cannot ask in another network namespace: {error}");
            return None;
        }
        let place = if tracks() { Place::here().ok() } else { None };
        match move_into_link_name_space(self.own.as_fd(), network) {
            Ok(()) => place,
            Err(error) => {
                // What is asked as one's own from here on is known by its number to be another's.
                tracing::error!("cannot go back to the own network namespace: {error}");
                None
            }
        }
    }
}

//! What the live tests share: a running stream to look things up in, and sockets of every kind.

use std::cell::Cell;
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use netspy::capture::report::Backend;
use netspy::event::{Connection, DnsRecord, DropRecord, Outcome};
use netspy::stream::{Builder, StreamHandle};
use netspy::{CaptureError, ConnectionStream};
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};
use rustix::thread::UnshareFlags;

/// How long a record may take before a test gives up. Generous: machines stall.
const PATIENCE: Duration = Duration::from_secs(20);

/// Held by the test that runs: those that flood must not fill the rings of others.
static TURN: Mutex<()> = Mutex::new(());

/// What [`shared`] has started, as long as the tests that follow want no other.
static SHARED: Mutex<Option<Running>> = Mutex::new(None);

thread_local! {
    /// Whether this thread has its turn.
    static MINE: Cell<bool> = const { Cell::new(false) };
}

/// A turn in the order of tests. A thread that has one may ask again: the first must be kept the
/// longest.
pub struct Turn(Option<MutexGuard<'static, ()>>);

impl Turn {
    fn wait() -> Self {
        Turn((!MINE.replace(true)).then(|| TURN.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.0.is_some() {
            MINE.set(false);
        }
    }
}

fn running() -> MutexGuard<'static, Option<Running>> {
    SHARED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until no other test runs. Nothing that was shared runs on. Whoever makes something that is
/// to be there before capture begins does it with this in hand: other tests would find it too.
pub fn alone() -> Turn {
    let turn = Turn::wait();
    *running() = None;
    turn
}

/// A capture, and the threads that collect what it sees. Dropping it ends them.
pub struct Running {
    handle: StreamHandle,
    seen: Arc<Seen>,
    readers: Vec<std::thread::JoinHandle<()>>,
}

/// A stream whose records are collected, newest version of each.
pub struct Watch {
    pub handle: StreamHandle,
    running: Option<Running>,
    seen: Arc<Seen>,
    is_shared: bool,
    _turn: Turn,
}

#[derive(Default)]
struct Seen {
    versions: Mutex<Vec<Connection>>,
    drops: Mutex<Vec<DropRecord>>,
    dns: Mutex<Vec<DnsRecord>>,
    changed: Condvar,
    changed_dns: Condvar,
}

/// The backend that all tests are to use (`NETSPY_LIVE_BACKEND`); without one, what the kernel at
/// hand brings is used.
pub fn forced() -> Option<Backend> {
    let name = std::env::var("NETSPY_LIVE_BACKEND").ok()?;
    Some(name.parse().unwrap_or_else(|_| panic!("NETSPY_LIVE_BACKEND={name} is no backend")))
}

/// Starts capture with the backend under test, without what existed before; `None`, with the reason
/// printed, where the tests cannot run.
pub fn start(builder: Builder) -> Option<ConnectionStream> {
    start_with_existing(Builder { no_preexisting: true, ..builder })
}

fn start_with_existing(builder: Builder) -> Option<ConnectionStream> {
    let backend = builder.backend.or_else(forced);
    match (Builder { backend, ..builder }).start() {
        Ok(stream) => Some(stream),
        Err(error @ CaptureError::NoPrivilege { .. }) => {
            assert!(!rustix::process::geteuid().is_root(), "{error}");
            println!("skipped: {error}");
            None
        }
        Err(
            error @ (CaptureError::BackendUnavailable { .. } | CaptureError::LockedDown { .. }),
        ) => {
            println!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Starts capture, and collects what it sees, without what existed before.
pub fn watch(builder: Builder) -> Option<Watch> {
    watch_with_existing(Builder { no_preexisting: true, ..builder })
}

/// Starts capture, and collects what it sees and what existed before.
pub fn watch_with_existing(builder: Builder) -> Option<Watch> {
    let turn = alone();
    Some(Watch::new(Running::start(builder)?, false, turn))
}

/// A capture without wishes, which one test takes over from the other: to load the programs takes
/// longer than most tests. What came before the test is not in it.
pub fn shared() -> Option<Watch> {
    let turn = Turn::wait();
    let taken = running().take().filter(|running| running.handle.stopped().is_none());
    let is_new = taken.is_none();
    let builder = Builder { no_preexisting: true, ..ConnectionStream::builder() };
    let watch = Watch::new(taken.or_else(|| Running::start(builder))?, true, turn);
    if !is_new {
        watch.settle();
        watch.seen.versions.lock().unwrap().clear();
        watch.seen.drops.lock().unwrap().clear();
        watch.seen.dns.lock().unwrap().clear();
    }
    Some(watch)
}

impl Running {
    fn start(builder: Builder) -> Option<Self> {
        let mut stream = start_with_existing(builder)?;
        let seen = Arc::new(Seen::default());
        let handle = stream.handle();
        let mut dropped = stream.drops();
        let drops = std::thread::spawn({
            let seen = Arc::clone(&seen);
            move || {
                while let Some(batch) = dropped.next_batch_blocking() {
                    seen.drops.lock().unwrap().extend(batch);
                    seen.changed.notify_all();
                }
            }
        });
        let mut asked = stream.dns();
        let dns = std::thread::spawn({
            let seen = Arc::clone(&seen);
            move || {
                while let Some(batch) = asked.next_batch_blocking() {
                    seen.dns.lock().unwrap().extend(batch);
                    seen.changed_dns.notify_all();
                }
            }
        });
        let reader = std::thread::spawn({
            let seen = Arc::clone(&seen);
            move || {
                while let Some(batch) = stream.next_batch_blocking() {
                    seen.versions.lock().unwrap().extend(batch);
                    seen.changed.notify_all();
                }
            }
        });
        Some(Running { handle, seen, readers: vec![reader, drops, dns] })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.handle.stop();
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
    }
}

impl Watch {
    fn new(running: Running, is_shared: bool, turn: Turn) -> Self {
        let (handle, seen) = (running.handle.clone(), Arc::clone(&running.seen));
        Watch { handle, running: Some(running), seen, is_shared, _turn: turn }
    }

    /// The first version that matches, once it has come.
    pub fn wait(&self, what: &str, matches: impl Fn(&Connection) -> bool) -> Connection {
        let guard = self.seen.versions.lock().unwrap();
        let (guard, timeout) = self
            .seen
            .changed
            .wait_timeout_while(guard, PATIENCE, |all| !all.iter().any(&matches))
            .unwrap();
        let found = guard.iter().find(|c| matches(c)).cloned();
        assert!(!timeout.timed_out() || found.is_some(), "no record of {what} in {guard:#?}");
        found.unwrap()
    }

    /// The record of an attempt on a remote address once it has its outcome.
    pub fn outcome(&self, remote: SocketAddr) -> Connection {
        self.wait(&format!("an outcome at {remote}"), |c| {
            goes_to(c, remote) && c.outcome != Outcome::InProgress
        })
    }

    /// The newest version of every record that matches, after all that has happened so far has
    /// come through.
    pub fn records(&self, matches: impl Fn(&Connection) -> bool) -> Vec<Connection> {
        self.settle();
        let versions = self.seen.versions.lock().unwrap();
        newest(versions.iter().filter(|c| matches(c)).cloned())
    }

    /// The one record of an attempt on a remote address.
    pub fn only(&self, remote: SocketAddr) -> Connection {
        let mut all = self.records(|c| goes_to(c, remote));
        assert_eq!(all.len(), 1, "records at {remote}: {all:#?}");
        all.pop().unwrap()
    }

    /// Makes an attempt that is known by its port, and waits for it: whatever was before it in
    /// this thread has come by then.
    pub fn settle(&self) {
        // Shows what is open; the marker comes after it.
        // A port that the kernel chooses might be one that the test was given as well.
        static MARKERS: AtomicU16 = AtomicU16::new(0);
        let [high, low] = MARKERS.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let marker = v4([127, 250, high, low], 1);
        self.handle.drain();
        let _ = connect(AddressFamily::INET, SocketType::STREAM, marker);
        self.handle.drain();
        self.outcome(marker);
    }

    /// The drops that match, once they are of as many packets.
    pub fn drops(
        &self,
        what: &str,
        packets: u64,
        matches: impl Fn(&DropRecord) -> bool,
    ) -> Vec<DropRecord> {
        let matching = |all: &Vec<DropRecord>| -> Vec<DropRecord> {
            all.iter().filter(|d| matches(d)).cloned().collect()
        };
        let enough = |all: &[DropRecord]| all.iter().map(|d| d.count).sum::<u64>() >= packets;
        let guard = self.seen.drops.lock().unwrap();
        let (guard, timeout) = self
            .seen
            .changed
            .wait_timeout_while(guard, PATIENCE, |all| !enough(&matching(all)))
            .unwrap();
        assert!(!timeout.timed_out(), "not {packets} drops of {what} in {guard:#?}");
        matching(&guard)
    }

    /// The first question for a name that matches, once it is known what came of it.
    pub fn dns(&self, what: &str, matches: impl Fn(&DnsRecord) -> bool) -> DnsRecord {
        let guard = self.seen.dns.lock().unwrap();
        let (guard, _) = self
            .seen
            .changed_dns
            .wait_timeout_while(guard, PATIENCE, |all| !all.iter().any(&matches))
            .unwrap();
        let found = guard.iter().find(|r| matches(r)).cloned();
        assert!(found.is_some(), "no question of {what} in {guard:#?}");
        found.unwrap()
    }

    /// Ends capture, and gives every drop that it saw.
    pub fn stop_drops(mut self) -> Vec<DropRecord> {
        self.running = None;
        std::mem::take(&mut *self.seen.drops.lock().unwrap())
    }

    /// Ends capture, as a program would.
    pub fn stop(mut self) -> Vec<Connection> {
        self.running = None;
        std::mem::take(&mut *self.seen.versions.lock().unwrap())
    }
}

/// The newest version of each record, in the order in which these came.
pub fn newest(versions: impl IntoIterator<Item = Connection>) -> Vec<Connection> {
    let mut newest: Vec<Option<Connection>> = Vec::new();
    let mut places = HashMap::new();
    for version in versions {
        if let Some(earlier) = places.insert(version.id, newest.len()) {
            newest[earlier] = None;
        }
        newest.push(Some(version));
    }
    newest.into_iter().flatten().collect()
}

impl Drop for Watch {
    fn drop(&mut self) {
        // A test that fails may have left anything behind.
        if self.is_shared && !std::thread::panicking() {
            *running() = self.running.take();
        }
        self.running = None;
    }
}

/// The values in one of the kernel side's maps.
pub fn entries(watch: &Watch, map: &str) -> Vec<Vec<u8>> {
    use libbpf_rs::MapCore;
    use libbpf_rs::query::{ProgInfoIter, ProgInfoQueryOptions};
    let programs = watch.handle.capabilities().programs;
    let ours = ProgInfoIter::with_query_opts(ProgInfoQueryOptions::default().include_map_ids(true))
        .filter(|info| programs.iter().any(|program| program.id == info.id));
    let maps: std::collections::BTreeSet<u32> = ours.flat_map(|info| info.map_ids).collect();
    let handles = maps.into_iter().map(|id| libbpf_rs::MapHandle::from_map_id(id).unwrap());
    let found: Vec<_> = handles.filter(|handle| handle.name() == map).collect();
    let [map] = &found[..] else { panic!("{} maps named {map}", found.len()) };
    let any = libbpf_rs::MapFlags::ANY;
    map.keys().filter_map(|key| map.lookup(&key, any).unwrap()).collect()
}

/// How many records of this process one of them holds: what is left out by a filter is held too.
pub fn held_in(watch: &Watch, map: &str) -> usize {
    let pid = std::process::id().to_ne_bytes();
    entries(watch, map).iter().filter(|value| value[72..76] == pid).count()
}

pub fn local_of(c: &Connection) -> SocketAddr {
    c.local.map(|local| SocketAddr::new(local.ip, local.port)).unwrap()
}

pub fn goes_to(c: &Connection, remote: SocketAddr) -> bool {
    c.remote.as_ref().is_some_and(|r| SocketAddr::new(r.ip, r.port) == remote)
}

/// Whether the report says that a feature is there.
pub fn observes(watch: &Watch, feature: &str) -> bool {
    let report = watch.handle.capabilities();
    let feature = &report.features[feature];
    // That the verifier takes a program on no kernel is a defect, whatever replaces it.
    assert!(feature.not_used.iter().all(|not| !not.why.contains("refused it")), "{feature:?}");
    feature.ok
}

/// Whether this is a machine of which there is little: an emulated one has one processor.
pub fn is_small_machine() -> bool {
    std::thread::available_parallelism().unwrap().get() == 1
}

/// A port of this host that was free a moment ago, so that nobody listens there.
pub fn bound_port() -> SocketAddr {
    free_port(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0).into())
}

pub fn free_port(at: SocketAddr) -> SocketAddr {
    std::net::TcpListener::bind(at).unwrap().local_addr().unwrap()
}

pub fn v4(ip: [u8; 4], port: u16) -> SocketAddr {
    SocketAddr::new(ip.into(), port)
}

/// A socket, and what connecting it returned.
pub fn connect(
    family: AddressFamily,
    kind: SocketType,
    remote: SocketAddr,
) -> (OwnedFd, io::Result<()>) {
    let fd = socket_with(family, kind, SocketFlags::CLOEXEC, None).unwrap();
    let result = rustix::net::connect(&fd, &remote).map_err(Into::into);
    (fd, result)
}

/// A TCP socket whose connect() does not wait, and what it returned.
pub fn connect_nonblocking(remote: SocketAddr) -> (OwnedFd, io::Result<()>) {
    let family = if remote.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP)).unwrap();
    let result = rustix::net::connect(&fd, &remote).map_err(Into::into);
    (fd, result)
}

/// Waits until a socket can be written to, or has failed.
pub fn writable(fd: &OwnedFd) {
    use rustix::event::{PollFd, PollFlags, poll};
    poll(&mut [PollFd::new(fd, PollFlags::OUT)], None).unwrap();
}

/// Moves this thread, and what it starts, into a network namespace of its own.
pub fn own_network() {
    // SAFETY: gives this thread a network namespace of its own, which nothing in it relies on.
    #[allow(unsafe_code)]
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
    ip("link set lo up");
}

/// Runs `ip` with arguments separated by blanks.
pub fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

/// TCP_SYNCNT: how often a SYN is sent again.
pub fn set_syn_retries(fd: &impl AsFd, retries: u8) {
    let value = libc::c_int::from(retries);
    // SAFETY: the option takes an int, which lives through the call.
    #[allow(unsafe_code)]
    let ret = unsafe {
        libc::setsockopt(
            fd.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_SYNCNT,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    assert_eq!(ret, 0);
}

//! Where the search for what existed before meets what is seen as it happens: nothing is missing,
//! and nothing occurs twice.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

use netspy::event::{Direction, Protocol, State};
use netspy::stream::Builder;
use netspy::{Connection, ConnectionStream};
use rustix::net::sockopt::set_socket_linger;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::faults::tells_missed_probes;
use crate::harness::{Watch, alone, observes, watch_with_existing};
use crate::kernel;

const BEFORE: u32 = 0;
const ATTACHING: u32 = 1;
const ATTACHED: u32 = 2;
const SEARCHED: u32 = 3;

/// Something that was made, and when it was there, by the steps of capture.
struct Spell {
    /// An address that nothing else has.
    address: Ipv4Addr,
    began: u32,
    ended: u32,
}

/// What goes on while capture starts.
#[derive(Default)]
struct Churn {
    step: AtomicU32,
    stop: AtomicBool,
    next: AtomicU32,
    spells: Mutex<Vec<Spell>>,
}

/// Has the threads of a scope end, also when a test fails.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

impl Churn {
    /// Makes one after the other until the end; some stay throughout, `open` others for a while.
    fn go_on<T>(&self, open: usize, make: impl Fn(Ipv4Addr) -> T) {
        let (mut passing, mut staying) = (VecDeque::new(), Vec::new());
        while !self.stop.load(SeqCst) {
            let [_, a, b, c] = self.next.fetch_add(1, SeqCst).to_be_bytes();
            let address = Ipv4Addr::new(127, 1 + a, b, c);
            let began = self.step.load(SeqCst);
            let made = (make(address), address, began);
            if staying.len() < 10 {
                staying.push(made)
            } else {
                passing.push_back(made)
            }
            // So that the ring holds what comes while the reader is held up.
            std::thread::sleep(Duration::from_micros(200));
            if passing.len() > open {
                passing.pop_front().into_iter().for_each(|made| self.end(made));
            }
        }
        passing.into_iter().chain(staying).for_each(|made| self.end(made));
    }

    fn end<T>(&self, (made, address, began): (T, Ipv4Addr, u32)) {
        let ended = self.step.load(SeqCst);
        drop(made);
        self.spells.lock().unwrap().push(Spell { address, began, ended });
    }

    /// Waits until so many more were made.
    fn more(&self, count: u32) {
        let until = self.next.load(SeqCst) + count;
        while self.next.load(SeqCst) < until {
            std::thread::yield_now();
        }
    }

    /// Starts capture while two threads go on, and has all that is made end.
    fn around_the_start(&self, work: impl Fn(usize) + Sync) -> Option<Watch> {
        std::thread::scope(|scope| {
            let _stop = StopAtEnd(&self.stop);
            scope.spawn(|| work(20));
            scope.spawn(|| work(40));
            self.more(200);
            self.step.store(ATTACHING, SeqCst);
            let own = Builder { only_pid: vec![std::process::id()], ..ConnectionStream::builder() };
            let watch = watch_with_existing(own);
            self.step.store(ATTACHED, SeqCst);
            if let Some(watch) = &watch {
                watch.handle.drain();
            }
            self.step.store(SEARCHED, SeqCst);
            self.more(200);
            watch
        })
    }

    /// Compares what was found at each address. `finds`: what existed before is; `sees`: what begins
    /// is.
    fn check(&self, watch: &Watch, found: impl Fn(Ipv4Addr) -> Vec<Connection>, finds: bool) {
        let books = watch.handle.accounting();
        assert!(books.balances(), "{books:?}");
        // The kernel runs no program while one of the same kind is preempted, nor a return probe
        // beyond so many; it may not even say so.
        let report = watch.handle.capabilities();
        let hook = report.features["connect"].hook.as_deref().unwrap();
        let is_told = !hook.starts_with("kprobe") || tells_missed_probes();
        let may_miss = if is_told { books.missed } else { u64::MAX };
        assert!(books.complete || may_miss > 0, "{books:?}");
        let (mut through, mut after, mut missing) = (0, 0, 0);
        for Spell { address, began, ended } in &*self.spells.lock().unwrap() {
            let found = found(*address);
            let what = format!("{address} {began}..{ended}: {found:#?}");
            assert!(found.len() <= 1, "{what}");
            if *began < ATTACHED && *ended == SEARCHED && finds {
                assert_eq!(found.len(), 1, "{what}");
                assert!(found[0].preexisting || *began != BEFORE, "{what}");
                through += 1;
            }
            if *began >= ATTACHED {
                assert!(found.len() == 1 || may_miss > 0, "{what}");
                missing += u64::from(found.is_empty());
                after += 1;
            }
            if *ended == BEFORE {
                assert!(found.is_empty(), "{what}");
            }
        }
        println!("{missing} of {after} are missing; {books:?}");
        println!("missed by program: {:?}", kernel::missed(&report));
        assert!(after > 100 && (through > 0 || !finds), "{through} {after}");
        // Return probes are few; programs keep themselves from being preempted or have stand-ins.
        let one_in = if hook.starts_with("kprobe") { 5 } else { 20 };
        let is_accounted_for = missing <= may_miss && missing * one_in < after;
        assert!(is_accounted_for, "{missing} of {after}: {books:?}");
    }
}

/// The newest versions of the records of a protocol, once all of them are closed.
fn closed(watch: &Watch, protocol: Protocol) -> Vec<Connection> {
    let patience = Instant::now() + Duration::from_secs(20);
    loop {
        let all = watch.records(|c| c.protocol == protocol && c.remote.is_some());
        let open: Vec<_> = all.iter().filter(|c| c.state != State::Closed).collect();
        if open.is_empty() {
            let ids: HashSet<_> = all.iter().map(|c| c.id).collect();
            assert_eq!(ids.len(), all.len());
            return all;
        }
        assert!(Instant::now() < patience, "{} did not close: {open:#?}", open.len());
    }
}

#[test]
fn each_connection_occurs_once_however_it_falls_together_with_the_start() {
    let _alone = alone();
    let churn = Churn::default();
    let watch = churn.around_the_start(|open| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        churn.go_on(open, |from| {
            let flags = SocketFlags::CLOEXEC;
            let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap();
            rustix::net::bind(&socket, &SocketAddr::new(from.into(), 0)).unwrap();
            rustix::net::connect(&socket, &server).unwrap();
            // A reset leaves no socket in TIME_WAIT, of which the kernel allows so many.
            set_socket_linger(&socket, Some(Duration::ZERO)).unwrap();
            (listener.accept().unwrap().0, socket)
        });
    });
    let Some(watch) = watch else { return };
    let (finds, accepts) = (observes(&watch, "preexisting"), observes(&watch, "inbound"));
    let mut records: HashMap<(IpAddr, Direction), Vec<Connection>> = HashMap::new();
    for c in closed(&watch, Protocol::Tcp) {
        let client = match c.direction {
            Direction::Outbound => c.local.unwrap().ip,
            _ => c.remote.as_ref().unwrap().ip,
        };
        records.entry((client, c.direction)).or_default().push(c);
    }
    for direction in [Direction::Outbound, Direction::Inbound] {
        let found = |from: Ipv4Addr| records.get(&(from.into(), direction)).cloned();
        if direction == Direction::Outbound || accepts {
            churn.check(&watch, |from| found(from).unwrap_or_default(), finds);
        }
    }
}

#[test]
fn each_peer_of_a_datagram_socket_occurs_once_however_it_falls_together_with_the_start() {
    let _alone = alone();
    let churn = Churn::default();
    let watch = churn.around_the_start(|open| {
        churn.go_on(open, |to| {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.connect((to, 9)).unwrap();
            socket
        });
    });
    let Some(watch) = watch else { return };
    if !observes(&watch, "datagram_close") {
        println!("skipped: the report says that the close of datagram sockets is not seen");
        return;
    }
    let finds = observes(&watch, "preexisting");
    let mut records: HashMap<IpAddr, Vec<Connection>> = HashMap::new();
    for c in closed(&watch, Protocol::Udp) {
        records.entry(c.remote.as_ref().unwrap().ip).or_default().push(c);
    }
    churn.check(&watch, |to| records.get(&to.into()).cloned().unwrap_or_default(), finds);
}

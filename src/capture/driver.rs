//! The thread that owns the programs: it drains the ring, sweeps, and hands records on.

mod existing;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::mem::{MaybeUninit, take};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use async_channel::{Receiver, Sender, TrySendError};
use libbpf_rs::{MapCore, MapFlags, RingBuffer, RingBufferBuilder};
use rustix::event::{PollFd, PollFlags, poll};

use super::decode::{self, Raw};
use super::decoder::Decoder;
use super::drops;
use super::error::CaptureError;
use super::loader::{self, Links, LoadError, Loaded};
use super::packets::{Look, Packets};
use super::plan::plan;
use super::privileges::{self, GiveUp, PrivilegeReport};
use super::report::AttachReport;
use super::shared::Shared;
use super::shown::{Shown, Sight};
use super::skel::types::bss;
use super::support::KernelSupport;
use super::sys;
use crate::containers::{Late, News};
use crate::enrich::hashes::Hashes;
use crate::enrich::nat::{Nat, NatDesk};
use crate::event::Connection;
use crate::stream::Builder;

/// Records handed on together.
#[derive(Debug)]
pub(crate) struct Batch {
    pub connections: Vec<Connection>,
    /// How many of them are seen for the first time.
    pub first: u64,
}

/// Records in a batch.
const BATCH: usize = 1024;
/// Batches that may wait for the reader; beyond, records wait in the ring.
const BATCHES: usize = 16;
/// Pause between drains while events come, and the longest when none do.
const DRAIN_BUSY: Duration = Duration::from_millis(25);
const DRAIN_IDLE: Duration = Duration::from_millis(200);
/// Time between sweeps of what waits for an outcome.
const SWEEP: Duration = Duration::from_millis(400);
/// Looks for flows that have become idle, in the time after which they are.
const IDLE_LOOKS: u32 = 8;

/// Starts the thread; returns when everything is attached.
pub(crate) fn start(options: Builder) -> Result<(Arc<Shared>, Receiver<Batch>), CaptureError> {
    let (ready, is_ready) = std::sync::mpsc::sync_channel(1);
    let (sender, receiver) = async_channel::bounded(BATCHES);
    std::thread::Builder::new()
        .name("netspy-capture".into())
        .spawn(move || {
            hurry();
            if let Err(error) = own(&options, sender, &ready) {
                // Nobody waits any more if it was ready before.
                let _ = ready.send(Err(error));
            }
        })
        .map_err(|source| CaptureError::Io { what: "cannot start a thread".into(), source })?;
    match is_ready.recv() {
        Ok(result) => result.map(|shared| (shared, receiver)),
        Err(_) => Err(CaptureError::Io {
            what: "the capture thread ended before it was ready".into(),
            source: std::io::ErrorKind::UnexpectedEof.into(),
        }),
    }
}

/// Before others on a processor that has too much to do: it needs little time, but while it waits the
/// ring fills, and what does not fit is lost. Without the privilege it takes its turn.
fn hurry() {
    const NICE: i32 = -10;
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!("the capture thread runs with the priority of others: {error}");
    }
}

type Ready = std::sync::mpsc::SyncSender<Result<Arc<Shared>, CaptureError>>;

fn own(options: &Builder, sender: Sender<Batch>, ready: &Ready) -> Result<(), CaptureError> {
    let support = KernelSupport::probe();
    let mut plan = plan(&support, options.backend, &options.left_out())?;
    if !options.only_descendants_of.is_empty() {
        plan.follow_descendants(&support);
    }
    let mut storage = MaybeUninit::uninit();
    let mut loaded = loop {
        match loader::load(&mut storage, options, &support, &plan) {
            Ok(loaded) => break loaded,
            Err(LoadError::Program { name, error }) => {
                plan.rule_out(&name, error, &support, options.backend)?;
            }
            Err(LoadError::Final(error)) => return Err(error),
        }
    };
    let mut places = [const { MaybeUninit::uninit() }; drops::VARIANTS];
    let packets = watch_drops(&mut places, options, &support, &mut loaded.report);
    let nat = NatDesk::new(support.tracking_is_built_in, options.nat_namespaces);
    if options.no_nat {
        nat.turn_off("left out by no_nat".to_owned());
    }
    let shared = Arc::new(Shared::new(&loaded, packets.as_ref(), nat)?);
    let end = End { links: take(&mut loaded.links), data: loaded.skel.maps.bss_data.take() };
    let mut driver = Driver::new(&shared, sender, options, packets);
    let pending = RefCell::new(Vec::with_capacity(BATCH));
    let ring = ring(&loaded, &pending)?;
    if ready.send(Ok(Arc::clone(&shared))).is_err() {
        return Ok(());
    }
    let why = driver.run(&loaded, end, &ring, &pending);
    drop(ring);
    // Detached before the end is announced.
    drop(driver);
    shared.release_links();
    drop(loaded);
    shared.ended(why);
    Ok(())
}

/// Dropped packets, where they can be seen; without them there is everything else.
fn watch_drops<'obj>(
    storage: &'obj mut drops::Storage,
    options: &Builder,
    support: &KernelSupport,
    report: &mut AttachReport,
) -> Option<Packets<'obj>> {
    let started = match options.no_drops {
        true => drops::Started::off(),
        false => drops::start(storage, support),
    };
    report.features.insert("drops".to_owned(), started.feature);
    let drops = started.drops?;
    report.programs.push(drops.program.clone());
    Some(Packets::new(drops))
}

/// The ring, whose callback only copies: it runs inside libbpf and must not panic.
fn ring<'a>(
    loaded: &'a Loaded<'_>,
    pending: &'a RefCell<Vec<Result<Raw, decode::DecodeError>>>,
) -> Result<RingBuffer<'a>, CaptureError> {
    let failed = |e: libbpf_rs::Error| CaptureError::Io {
        what: "cannot map the ring buffer".into(),
        source: std::io::Error::other(format!("{e:#}")),
    };
    let mut builder = RingBufferBuilder::new();
    builder
        .add(&loaded.skel.maps.events, move |bytes| {
            if let Ok(mut pending) = pending.try_borrow_mut() {
                pending.push(decode::decode(bytes));
            }
            0
        })
        .map_err(failed)?;
    builder.build().map_err(failed)
}

const DROPPED: &str = "the stream was dropped";

/// What ends capture.
struct End<'obj> {
    links: Links,
    data: Option<&'obj mut bss>,
}

impl End<'_> {
    /// From here on nothing new is seen, and sweeps show all that there is.
    fn begin(&mut self, shared: &Shared) {
        shared.release_links();
        self.links.detach();
        // One that still runs may hold a place in the ring, and what is behind it, back.
        if let Err(error) = sys::programs_have_ended() {
            tracing::warn!("the end of capture may come before the last records: {error}");
        }
        if let Some(data) = &mut self.data {
            data.ending = true;
        }
    }
}

struct Driver<'a> {
    shared: &'a Shared,
    sender: Sender<Batch>,
    drop_when_full: bool,
    decoder: Decoder,
    shown: Shown,
    packets: Option<Packets<'a>>,
    /// Where executables are to be hashed.
    hashes: Option<Hashes>,
    containers: Option<Late>,
    nat: Option<Nat>,
    /// What had begun, or had been left, at the last sweep.
    looked_at: (u64, u64),
    looked_for_idle: Instant,
    idle_every: Duration,
    give_up: Option<GiveUp>,
}

impl<'a> Driver<'a> {
    fn new(
        shared: &'a Shared,
        sender: Sender<Batch>,
        options: &Builder,
        packets: Option<Packets<'a>>,
    ) -> Self {
        let (decoder, shown) = (Decoder::default(), Shown::default());
        Driver {
            shared,
            sender,
            drop_when_full: options.drop_when_full,
            decoder,
            shown,
            packets,
            hashes: options.hash_exe.then(Hashes::new),
            containers: options.containers.clone().map(Late::new),
            nat: (!options.no_nat).then(|| Nat::new(Arc::clone(&shared.nat))),
            looked_at: (0, 0),
            looked_for_idle: Instant::now(),
            idle_every: options.datagram_idle() / IDLE_LOOKS,
            give_up: options.give_up,
        }
    }

    /// Until the stream is dropped or stopped; returns why.
    fn run(
        &mut self,
        loaded: &Loaded<'_>,
        mut end: End<'_>,
        ring: &RingBuffer<'_>,
        pending: &RefCell<Vec<Result<Raw, decode::DecodeError>>>,
    ) -> &'static str {
        // SAFETY: the descriptor belongs to `ring`, which outlives this borrow.
        #[allow(unsafe_code)]
        let ring_fd = unsafe { BorrowedFd::borrow_raw(ring.epoll_fd()) };
        let kept = self.start_asking();
        if !self.existing(loaded, ring, pending) {
            return DROPPED;
        }
        self.give_up_privileges(kept);
        self.start_hashing();
        let mut pause = DRAIN_BUSY;
        let (mut swept, mut answered) = (Instant::now(), 0);
        loop {
            let asked = self.shared.drains_asked();
            if self.shared.is_stopping() {
                end.begin(self.shared);
                return self.finish(loaded, ring, pending);
            }
            // Who asks is to find in the books what is open, not what waits to be shown.
            if asked != answered || swept.elapsed() >= SWEEP {
                swept = Instant::now();
                self.decoder.refresh();
                self.sweep(loaded);
                forget_calls(loaded);
            }
            let Some(count) = self.drain(ring, pending, loaded) else { return DROPPED };
            self.shown.drained();
            let look = if asked > answered { Look::Asked } else { Look::Due };
            if !self.look_at_drops(look, loaded)
                || !self.look_at_hashes()
                || !self.look_at_containers()
                || !self.look_at_nat()
            {
                return DROPPED;
            }
            self.shared.drains_done(asked);
            answered = asked;
            pause = if count > 0 { DRAIN_BUSY } else { (pause * 2).min(DRAIN_IDLE) };
            self.wait(ring_fd, pause);
        }
    }

    /// Before privileges are given up: the thread that asks about address translation keeps those that
    /// it needs. Returns which.
    fn start_asking(&mut self) -> BTreeMap<String, String> {
        let Some(nat) = &mut self.nat else { return BTreeMap::new() };
        nat.start(self.give_up).unwrap_or_else(|error| {
            self.shared.nat.turn_off(format!("the kernel cannot be asked: {error}"));
            self.nat = None;
            BTreeMap::new()
        })
    }

    /// With what privileges are left: it opens files that others have chosen.
    fn start_hashing(&mut self) {
        if let Some(hashes) = &mut self.hashes
            && let Err(error) = hashes.start()
        {
            tracing::warn!("cannot start the thread that hashes executables: {error}");
            self.hashes = None;
        }
    }

    /// Hands on the records whose executable's hash has become known. Returns whether anybody
    /// still reads.
    fn look_at_hashes(&mut self) -> bool {
        let Some(hashes) = &mut self.hashes else { return true };
        let mut updates = hashes.updates();
        updates.iter_mut().for_each(|connection| self.add_late(connection));
        self.send_updates(updates)
    }

    /// Adds what may become known only after a record was shown, and remembers this version, which is the
    /// newest, for what comes still later: each of these may have the next version made of it.
    fn add_late(&mut self, connection: &mut Connection) {
        if let Some(hashes) = &mut self.hashes {
            hashes.note(connection);
        }
        if let Some(containers) = &mut self.containers {
            containers.add(connection);
        }
        if let Some(nat) = &mut self.nat {
            nat.note(connection);
        }
        if let Some(packets) = &mut self.packets {
            packets.note(connection);
        }
    }

    /// Everything is attached, and what existed before was looked at.
    fn give_up_privileges(&self, kept: BTreeMap<String, String>) {
        let Some(to) = self.give_up else { return };
        let names_places = self.packets.as_ref().is_some_and(Packets::names_places);
        let report = privileges::give_up_in_capture(to, self.shared, names_places);
        let mut report = report.unwrap_or_else(|error| PrivilegeReport::failed(&error));
        for (name, why) in kept {
            report.kept.entry(name).or_insert(why);
        }
        self.shared.settle(report);
    }

    /// Hands on what is left once nothing new comes, so that every attempt is in the books.
    fn finish(
        &mut self,
        loaded: &Loaded<'_>,
        ring: &RingBuffer<'_>,
        pending: &RefCell<Vec<Result<Raw, decode::DecodeError>>>,
    ) -> &'static str {
        loop {
            let left = self.shared.kernel().left;
            self.decoder.refresh();
            self.sweep_now(loaded);
            let Some(count) = self.drain(ring, pending, loaded) else { return DROPPED };
            self.shown.drained();
            // It takes several rounds where the table holds more than the ring does.
            if count == 0 || self.shared.kernel().left == left {
                let is_read = self.look_at_drops(Look::Last, loaded)
                    && self.look_at_containers()
                    && self.look_at_nat();
                return if is_read { "it was stopped" } else { DROPPED };
            }
        }
    }

    fn wait(&self, ring: BorrowedFd<'_>, pause: Duration) {
        let mut fds = [
            PollFd::from_borrowed_fd(ring, PollFlags::IN),
            PollFd::new(&self.shared.wake, PollFlags::IN),
        ];
        let timeout = pause.try_into().ok();
        // An interrupted wait only means an early drain.
        let _ = poll(&mut fds, timeout.as_ref());
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.shared.wake, &mut count);
    }

    /// Shows what waits for an outcome, if anything does that was not shown yet.
    fn sweep(&mut self, loaded: &Loaded<'_>) {
        let kernel = self.shared.kernel();
        // What stays open once shown needs no further look, but for what has become idle.
        let begun = (kernel.waiting, kernel.left);
        let is_idle = begun == self.looked_at
            || (kernel.waiting == kernel.settled && kernel.left == self.looked_at.1);
        if is_idle && self.looked_for_idle.elapsed() < self.idle_every {
            return;
        }
        self.looked_at = begun;
        self.looked_for_idle = Instant::now();
        self.sweep_now(loaded);
    }

    fn sweep_now(&mut self, loaded: &Loaded<'_>) {
        self.shown.swept();
        for sweep in &loaded.sweeps {
            if let Err(why) = sweep.run(|_| {}, || Ok(())) {
                tracing::warn!("cannot sweep attempts without outcome: {why}");
            }
        }
    }

    /// Empties the ring; returns how many records came, or `None` when nobody reads any more.
    fn drain(
        &mut self,
        ring: &RingBuffer<'_>,
        pending: &RefCell<Vec<Result<Raw, decode::DecodeError>>>,
        loaded: &Loaded<'_>,
    ) -> Option<usize> {
        let mut total = 0;
        loop {
            let consumed = ring.consume_raw_n(BATCH);
            let records = std::mem::take(&mut *pending.borrow_mut());
            if consumed <= 0 || records.is_empty() {
                // Also what has waited long enough, though nothing came.
                self.publish_look_ups();
                return if self.sender.is_closed() { None } else { Some(total) };
            }
            total += records.len();
            let batch = self.batch(records);
            self.publish_look_ups();
            if !batch.connections.is_empty() && !self.send(batch) {
                return None;
            }
            // A full ring has more attempts than are remembered.
            if !self.look_at_drops(Look::Due, loaded) {
                return None;
            }
        }
    }

    /// Hands on the questions for names of which something has become known.
    fn publish_look_ups(&mut self) {
        let mut records = self.decoder.take_dns();
        if let Some(containers) = &mut self.containers {
            records.iter_mut().for_each(|record| containers.add_look_up(record));
        }
        self.shared.dns.publish(records, &self.decoder);
    }

    /// Hands on what was dropped, and new versions of the records that it hit. Returns whether
    /// anybody still reads.
    fn look_at_drops(&mut self, look: Look, loaded: &Loaded<'_>) -> bool {
        let Some(packets) = &mut self.packets else { return true };
        // The sock of an attempt that goes on holds it.
        let by_sock = |sock: u64, decoder: &Decoder| {
            let held = loaded.skel.maps.conns.lookup(&sock.to_ne_bytes(), MapFlags::ANY);
            held.ok().flatten().and_then(|bytes| decoder.id(&bytes))
        };
        let news = packets.look(look, &mut self.decoder, &self.shared.drops, by_sock);
        let (mut updates, mut drops) = (news.updates, news.drops);
        updates.iter_mut().for_each(|connection| self.add_late(connection));
        if let Some(containers) = &mut self.containers {
            let processes = drops.iter_mut().filter_map(|drop| drop.process.as_mut());
            processes.for_each(|process| containers.add_known(process));
        }
        if !self.send_updates(updates) {
            return false;
        }
        self.shared.drops.subscribers.publish(drops);
        true
    }

    /// Hands on new versions of the records whose container is known by now. Returns whether anybody
    /// still reads.
    fn look_at_containers(&mut self) -> bool {
        let Some(containers) = &mut self.containers else { return true };
        let News { connections: mut updates, look_ups } = containers.news();
        self.shared.dns.subscribers.publish(look_ups);
        updates.iter_mut().for_each(|connection| self.add_late(connection));
        self.send_updates(updates)
    }

    /// The same of those of which it is known by now where address translation sends them.
    fn look_at_nat(&mut self) -> bool {
        let Some(nat) = &mut self.nat else { return true };
        let mut updates = nat.updates();
        updates.iter_mut().for_each(|connection| self.add_late(connection));
        self.send_updates(updates)
    }

    /// Hands on later versions of records. Returns whether anybody still reads.
    fn send_updates(&mut self, mut updates: Vec<Connection>) -> bool {
        while !updates.is_empty() {
            let rest = updates.split_off(updates.len().min(BATCH));
            if !self.send(Batch { connections: updates, first: 0 }) {
                return false;
            }
            updates = rest;
        }
        true
    }

    fn batch(&mut self, records: Vec<Result<Raw, decode::DecodeError>>) -> Batch {
        let mut batch = Batch { connections: Vec::with_capacity(records.len()), first: 0 };
        for record in records {
            match record.and_then(|raw| self.decoder.enrich(raw)) {
                Ok(None) => {}
                Ok(Some(mut decoded)) => {
                    let sight = self.shown.note(&decoded);
                    if sight == Sight::Outdated {
                        continue;
                    }
                    self.add_late(&mut decoded.connection);
                    batch.first += u64::from(sight == Sight::First);
                    batch.connections.push(decoded.connection);
                }
                Err(error) => {
                    tracing::warn!("undecodable event: {error}");
                    self.shared.undecodable.fetch_add(1, Ordering::AcqRel);
                }
            }
        }
        batch
    }

    /// Hands a batch on; waits if the reader is slow, which lets the ring fill. Returns whether
    /// anybody still reads.
    fn send(&mut self, batch: Batch) -> bool {
        if !self.drop_when_full {
            return self.sender.send_blocking(batch).is_ok();
        }
        match self.sender.try_send(batch) {
            Ok(()) => true,
            Err(TrySendError::Closed(_)) => false,
            Err(TrySendError::Full(batch)) => {
                let updates = batch.connections.len() as u64 - batch.first;
                self.shared.slow_consumer.fetch_add(batch.first, Ordering::AcqRel);
                self.shared.updates_lost.fetch_add(updates, Ordering::AcqRel);
                if let Some(packets) = &mut self.packets {
                    packets.forget(&batch.connections);
                }
                if let Some(nat) = &mut self.nat {
                    nat.forget(&batch.connections);
                }
                if let Some(hashes) = &mut self.hashes {
                    hashes.forget_all(&batch.connections);
                }
                true
            }
        }
    }
}

/// Removes the calls whose return was missed, once their thread is gone. (That of one that lives is
/// replaced by its next call.)
fn forget_calls(loaded: &Loaded<'_>) {
    // The kernel's first namespace, whose ids the entries have (PROC_PID_INIT_INO): in another,
    // /proc does not tell who is gone.
    let first = std::fs::read_link("/proc/self/ns/pid");
    if first.is_ok_and(|ns| ns.as_os_str() != "pid:[4026531836]") {
        return;
    }
    let calls = &loaded.skel.maps.calls;
    for key in calls.keys() {
        let Some(tid) = key.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes)) else { continue };
        if !std::path::Path::new(&format!("/proc/{tid}")).exists() {
            // It may have been removed meanwhile.
            let _ = calls.delete(&key);
        }
    }
}

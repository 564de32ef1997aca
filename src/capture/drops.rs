//! Dropped packets, as the kernel side counts them: loading, attaching, and taking the counts.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{Link, MapCore, MapFlags, MapHandle, OpenObject, ProgramMut};

use super::decode;
use super::drops_skel::types::{bss, netspy_drop, netspy_drop_key, netspy_drop_rest};
use super::drops_skel::{DropsSkel, DropsSkelBuilder};
use super::features::Need;
use super::join::FlowKey;
use super::reasons::{DropFacts, Names};
use super::report::{Feature, NotUsed, ProgramReport};
use super::support::KernelSupport;
use super::sys::Entries;
use super::{clock, loader, sys};

/// Arguments of the tracepoint: from which on there is a place, a reason, and the receiving socket.
const WITH_PLACE: usize = 2;
const WITH_REASON: usize = 3;
const WITH_RX_SK: usize = 4;

/// How the header of a packet is read (`enum netspy_drop_headers`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Headers {
    None = 0,
    Cast = 1,
    Probe = 2,
}

/// One way to load the programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Variant {
    btf: bool,
    headers: Headers,
}

impl Variant {
    fn hook(self) -> &'static str {
        if self.btf { "tp_btf/kfree_skb" } else { "raw_tp/kfree_skb" }
    }

    fn not_used(self, why: String) -> NotUsed {
        let reads = match self.headers {
            Headers::None => "reading no packets",
            Headers::Cast => "reading packets by bpf_rdonly_cast",
            Headers::Probe => "reading packets by bpf_probe_read_kernel",
        };
        NotUsed { hook: format!("{} {reads}", self.hook()), why }
    }
}

const NO_REASON: &str = "Linux 5.17 tells why packets are dropped, this kernel does not: the function \
                         that dropped them stands for the reason";
const NO_HEADERS: &str = "packets cannot be read, as where the kernel is locked down: addresses \
                          are known only where the packet's socket tells them";

/// Ways that are tried at most.
pub(super) const VARIANTS: usize = 4;

/// Places to load into.
pub(super) type Storage = [MaybeUninit<OpenObject>; VARIANTS];

/// The ways to try, best first; none if the kernel does not tell of drops.
fn variants(facts: &DropFacts, support: &KernelSupport) -> (Vec<Variant>, Vec<NotUsed>) {
    if facts.arguments < WITH_PLACE {
        return (Vec::new(), Vec::new());
    }
    let all = [
        Variant { btf: true, headers: Headers::Cast },
        Variant { btf: true, headers: Headers::Probe },
        Variant { btf: true, headers: Headers::None },
        Variant { btf: false, headers: Headers::Probe },
    ];
    let (mut ways, mut not_used) = (Vec::new(), Vec::new());
    for way in all {
        match way.headers {
            Headers::Cast if !facts.rdonly_cast => {}
            Headers::Probe if !support.probe_read => {
                // Of no interest where there is a better way.
                if ways.is_empty() {
                    not_used.push(way.not_used(Need::ProbeRead.missing(support)));
                }
            }
            _ => ways.push(way),
        }
    }
    (ways, not_used)
}

/// Drops of one flow for one reason.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flow {
    pub key: netspy_drop_key,
    pub drop: netspy_drop,
}

/// Drops of one reason that are of no flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rest {
    pub reason: u32,
    pub no_room: bool,
    pub count: u64,
    pub bytes: u64,
}

/// What was dropped since the time before.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub flows: Vec<Flow>,
    pub rest: Vec<Rest>,
    /// When, in nanoseconds since boot.
    pub since_ns: u64,
    pub until_ns: u64,
}

/// The programs, loaded and attached. Dropping it detaches them.
pub(super) struct Drops<'obj> {
    skel: DropsSkel<'obj>,
    link: Option<Link>,
    pub names: Names,
    pub program: ProgramReport,
    /// For the count of skipped runs.
    pub fd: OwnedFd,
    /// For the count of all drops.
    pub seen: MapHandle,
    entries: Entries<netspy_drop_key, netspy_drop>,
    /// What was known of the rest, by its place.
    rest: HashMap<usize, netspy_drop_rest>,
    taken_ns: u64,
}

/// What became of the attempt to see drops.
pub(super) struct Started<'obj> {
    pub drops: Option<Drops<'obj>>,
    pub feature: Feature,
}

impl Started<'_> {
    /// Nobody wants to see drops.
    pub(super) fn off() -> Self {
        Started { drops: None, feature: Feature::missing("left out, as the options say") }
    }
}

/// Loads and attaches, in the best way that the kernel takes.
pub(super) fn start<'obj>(storage: &'obj mut Storage, support: &KernelSupport) -> Started<'obj> {
    let missing = |why: &str| Started { drops: None, feature: Feature::missing(why) };
    let facts = match DropFacts::probe() {
        Ok(facts) => facts,
        Err(error) => return missing(&format!("the kernel's types cannot be read: {error:#}")),
    };
    let (ways, mut not_used) = variants(&facts, support);
    if ways.is_empty() {
        return missing("this kernel does not tell of the packets that it drops");
    }
    for (variant, place) in ways.into_iter().zip(storage) {
        let hook = variant.hook().to_owned();
        match load(place, &facts, variant, support.stays_in_tracepoint()) {
            Ok(drops) => {
                let has_reason = facts.arguments >= WITH_REASON;
                let notes =
                    [(has_reason, NO_REASON), (variant.headers != Headers::None, NO_HEADERS)];
                let notes: Vec<_> =
                    notes.iter().filter(|(is_there, _)| !is_there).map(|(_, note)| *note).collect();
                let note = (!notes.is_empty()).then(|| notes.join("; "));
                let feature = Feature { hook: Some(hook), ok: true, note, not_used };
                return Started { drops: Some(drops), feature };
            }
            Err(why) => {
                tracing::debug!("drops by {variant:?}: {why}");
                not_used.push(variant.not_used(why));
            }
        }
    }
    let feature = Feature { not_used, ..Feature::missing("packets that are dropped are not seen") };
    Started { drops: None, feature }
}

fn load<'obj>(
    place: &'obj mut MaybeUninit<OpenObject>,
    facts: &DropFacts,
    variant: Variant,
    stays: bool,
) -> Result<Drops<'obj>, String> {
    let log = loader::VerifierLog::collect();
    let told = |error: libbpf_rs::Error| format!("{error:#}");
    let mut open = DropsSkelBuilder::default().open(place).map_err(told)?;
    let rodata = open.maps.rodata_data.as_deref_mut().ok_or("the object has no options")?;
    rodata.cfg_headers = variant.headers as u32;
    rodata.cfg_reason = facts.arguments >= WITH_REASON;
    rodata.cfg_stay_in_tracepoint = stays;
    rodata.cfg_rx_sk = facts.arguments >= WITH_RX_SK;
    open.progs.drop_btf.set_autoload(variant.btf);
    open.progs.drop_raw.set_autoload(!variant.btf);
    let skel = open.load().map_err(|e| {
        let log = log.tail();
        tracing::debug!("{log}");
        // The verifier's own words come just before its figures.
        let lines: Vec<&str> = log.lines().collect();
        let verdict = lines.windows(2).find(|pair| pair[1].trim_start().starts_with("processed "));
        let verdict = verdict.map(|pair| format!(": {}", pair[0].trim())).unwrap_or_default();
        format!("the kernel refused it: {e:#}{verdict}")
    })?;
    let program = if variant.btf { &skel.progs.drop_btf } else { &skel.progs.drop_raw };
    let hook = variant.hook();
    let link = program.attach().map_err(|e| format!("cannot attach to {hook}: {e:#}"))?;
    let duplicate = |e: std::io::Error| format!("cannot share the program: {e}");
    let fd = program.as_fd().try_clone_to_owned().map_err(duplicate)?;
    let program = describe(program, hook);
    let seen = MapHandle::try_from(&skel.maps.seen).map_err(told)?;
    let (names, taken_ns) = (facts.names.clone(), clock::boot_ns());
    let (entries, rest) = (Entries::new(BATCH), HashMap::new());
    Ok(Drops { skel, link: Some(link), names, program, fd, seen, entries, rest, taken_ns })
}

fn describe(program: &ProgramMut<'_>, hook: &str) -> ProgramReport {
    let facts = sys::program_facts(program.as_fd()).unwrap_or_default();
    ProgramReport {
        name: program.name().to_string_lossy().into_owned(),
        kind: hook.split('/').next().unwrap_or_default().to_owned(),
        hook: hook.to_owned(),
        attached: true,
        id: facts.id,
        verified_insns: facts.verified_insns,
    }
}

/// Flows taken by one system call.
const BATCH: usize = 1024;
/// Where the kernel cannot be asked to wait for its programs. They run for microseconds.
const GRACE: Duration = Duration::from_millis(20);

impl Drops<'_> {
    /// Whether there is anything to take. Costs nothing to ask.
    pub(super) fn is_dirty(&mut self) -> bool {
        self.shared(|bss| read(&raw const bss.dirty)).is_some_and(|dirty| dirty != 0)
    }

    /// From here on nothing is counted.
    pub(super) fn detach(&mut self) {
        self.link = None;
    }

    /// Packets of a flow that were counted for a reason since then, and not taken yet.
    pub(super) fn peek(&self, reason: u32, flow: FlowKey, since_ns: u64) -> Option<u64> {
        let active = self.skel.maps.bss_data.as_deref().map(|bss| read(&raw const bss.active))?;
        let maps = &self.skel.maps;
        let table = if active & 1 == 0 { &maps.flows_a } else { &maps.flows_b };
        let (family, source) = octets(flow.source.ip);
        let key = netspy_drop_key {
            reason,
            netns: flow.netns,
            source_port: flow.source.port,
            destination_port: flow.destination.port,
            family,
            protocol: flow.protocol,
            reserved: 0,
            source,
            destination: octets(flow.destination.ip).1,
        };
        // SAFETY: the type consists of integers, without padding.
        #[allow(unsafe_code)]
        let key = unsafe { plain::as_bytes(&key) };
        let found = table.lookup(key, MapFlags::ANY).ok()??;
        let drop: netspy_drop = decode::read(&found).ok()?;
        (drop.first_ns >= since_ns).then_some(drop.count)
    }

    /// Takes what was counted since the time before. Drops go to the other table from here on; what
    /// runs already is waited for, so that nothing is counted in a table that was taken.
    pub(super) fn take(&mut self) -> Taken {
        let until_ns = clock::boot_ns();
        let since_ns = std::mem::replace(&mut self.taken_ns, until_ns);
        let old = self.shared(|bss| {
            let old = read(&raw const bss.active) & 1;
            write(&raw mut bss.dirty, 0);
            write(&raw mut bss.active, old ^ 1);
            old
        });
        let Some(old) = old else { return Taken::default() };
        if let Err(error) = sys::programs_have_ended() {
            tracing::debug!("membarrier: {error}");
            std::thread::sleep(GRACE);
        }
        let maps = &self.skel.maps;
        let table = if old == 0 { &maps.flows_a } else { &maps.flows_b };
        let mut flows = Vec::new();
        let taken = self.entries.take(table.as_fd(), |key, drop| flows.push(Flow { key, drop }));
        if let Err(error) = taken {
            // They are still there for the next time that this table is taken.
            tracing::warn!("cannot take the counts of drops: {error}");
        }
        let used = self.shared(|bss| {
            if let Some(full) = bss.full.get_mut(old as usize) {
                write(full, 0);
            }
            if let Some(shares) = bss.shares.get_mut(old as usize) {
                shares.iter_mut().for_each(|share| write(share, 0));
            }
            let used = bss.rest_used.iter().enumerate();
            used.filter(|(_, used)| read(&raw const **used) != 0).map(|(place, _)| place).collect()
        });
        let rest = used.map(|used: Vec<usize>| self.rest(&used)).unwrap_or_default();
        Taken { flows, rest, since_ns, until_ns }
    }

    /// What the programs and this side share, which they may change at any time.
    fn shared<T>(&mut self, with: impl FnOnce(&mut bss) -> T) -> Option<T> {
        self.skel.maps.bss_data.as_deref_mut().map(with)
    }

    fn rest(&mut self, used: &[usize]) -> Vec<Rest> {
        let mut news = Vec::new();
        for place in used {
            let key = u32::try_from(*place).unwrap_or(0).to_ne_bytes();
            let per_cpu = self.skel.maps.rest.lookup_percpu(&key, MapFlags::ANY);
            let now = sum(&per_cpu.ok().flatten().unwrap_or_default());
            let before = self.rest.insert(*place, now).unwrap_or_default();
            let reason = reason_at(*place);
            let figures = [
                (true, now.no_room, before.no_room, now.no_room_bytes, before.no_room_bytes),
                (
                    false,
                    now.no_address,
                    before.no_address,
                    now.no_address_bytes,
                    before.no_address_bytes,
                ),
            ];
            for (no_room, now, before, now_bytes, before_bytes) in figures {
                let count = now.saturating_sub(before);
                let bytes = now_bytes.saturating_sub(before_bytes);
                if count > 0 {
                    news.push(Rest { reason, no_room, count, bytes });
                }
            }
        }
        news
    }
}

/// An address as the programs keep it, with its family.
fn octets(ip: IpAddr) -> (u8, [u8; 16]) {
    match ip {
        IpAddr::V6(v6) => (libc::AF_INET6 as u8, v6.octets()),
        IpAddr::V4(v4) => {
            let mut octets = [0; 16];
            octets[..4].copy_from_slice(&v4.octets());
            (libc::AF_INET as u8, octets)
        }
    }
}

fn sum(per_cpu: &[Vec<u8>]) -> netspy_drop_rest {
    let mut sum = netspy_drop_rest::default();
    for one in per_cpu.iter().filter_map(|bytes| decode::read::<netspy_drop_rest>(bytes).ok()) {
        sum.no_room += one.no_room;
        sum.no_room_bytes += one.no_room_bytes;
        sum.no_address += one.no_address;
        sum.no_address_bytes += one.no_address_bytes;
    }
    sum
}

/// `NETSPY_REST_CORE` and `NETSPY_REST_SUBSYSTEM` of drops.h.
const REST_CORE: usize = 256;
const REST_SUBSYSTEM: usize = 64;

/// The reason that has this place in the array of the rest.
fn reason_at(place: usize) -> u32 {
    let reason = match place.checked_sub(REST_CORE) {
        None => Some(place),
        Some(beyond) if beyond < 3 * REST_SUBSYSTEM => {
            Some(((beyond / REST_SUBSYSTEM + 1) << 16) + beyond % REST_SUBSYSTEM)
        }
        Some(_) => None,
    };
    reason.and_then(|reason| reason.try_into().ok()).unwrap_or(Names::OTHER)
}

/// Reads what another side writes.
fn read<T: Copy>(from: *const T) -> T {
    // SAFETY: callers pass a pointer made from a reference, to memory that is mapped for as long as
    // the skeleton lives; any pattern of its bytes is a value.
    #[allow(unsafe_code)]
    unsafe {
        from.read_volatile()
    }
}

/// Writes what another side reads.
fn write<T: Copy>(to: *mut T, value: T) {
    // SAFETY: as above.
    #[allow(unsafe_code)]
    unsafe {
        to.write_volatile(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ways(arguments: usize, rdonly_cast: bool, probe_read: bool) -> (Vec<Variant>, usize) {
        let facts = DropFacts { arguments, rdonly_cast, ..<_>::default() };
        let support = KernelSupport { probe_read, ..<_>::default() };
        let (ways, not_used) = variants(&facts, &support);
        assert!(ways.len() <= VARIANTS);
        (ways, not_used.len())
    }

    #[test]
    fn a_kernel_that_does_not_tell_of_drops_is_not_tried() {
        assert_eq!(ways(0, false, true), (vec![], 0));
    }

    #[test]
    fn packets_are_read_in_the_best_way_that_there_is() {
        let (cast, probe, none) = (Headers::Cast, Headers::Probe, Headers::None);
        for (facts, expected, not_used) in [
            ((4, true, true), vec![(true, cast), (true, probe), (true, none), (false, probe)], 0),
            ((2, false, true), vec![(true, probe), (true, none), (false, probe)], 0),
            ((3, false, true), vec![(true, probe), (true, none), (false, probe)], 0),
            // Locked down.
            ((4, true, false), vec![(true, cast), (true, none)], 0),
            ((3, false, false), vec![(true, none)], 1),
        ] {
            let (ways, unused) = ways(facts.0, facts.1, facts.2);
            let ways: Vec<_> = ways.iter().map(|way| (way.btf, way.headers)).collect();
            assert_eq!((ways, unused), (expected, not_used), "{facts:?}");
        }
    }

    #[test]
    fn every_place_of_the_rest_leads_back_to_its_reason() {
        for (place, reason) in [
            (0, 0),
            (3, 3),
            (255, 255),
            (256, 0x1_0000),
            (256 + 64 + 5, 0x2_0005),
            (256 + 191, 0x3_003f),
            (448, Names::OTHER),
            (511, Names::OTHER),
        ] {
            assert_eq!(reason_at(place), reason, "{place}");
        }
    }
}

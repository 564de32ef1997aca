//! Giving up privileges once everything is attached.
//!
//! Capabilities and user belong to threads: each thread that exists gives its own up, and those that
//! it starts later have none to begin with.

use std::collections::BTreeMap;
use std::io;

use rustix::process::{Gid, Uid, getuid};
use rustix::thread::{self, CapabilitySet, CapabilitySets};
use serde::{Deserialize, Serialize};

use super::shared::Shared;

/// What becomes of the privileges of a capture's threads, once it is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GiveUp {
    /// The user to run as from then on; the same as before unless set.
    pub user: Option<Identity>,
}

/// A user and their group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// What was given up, and what was not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PrivilegeReport {
    /// The user that capture runs as.
    pub uid: u32,
    /// Whether all that is not needed was given up.
    pub dropped: bool,
    /// The capabilities that are left, and what for.
    pub kept: BTreeMap<String, String>,
    /// What could not be done.
    pub note: Option<String>,
}

impl PrivilegeReport {
    pub(super) fn failed(error: &io::Error) -> Self {
        PrivilegeReport {
            uid: getuid().as_raw(),
            dropped: false,
            kept: BTreeMap::new(),
            note: Some(format!("the privileges could not be given up: {error}")),
        }
    }
}

/// A capability, its name, and what it is kept for.
type Need = (CapabilitySet, &'static str, &'static str);

const LOOK_AT_OTHERS: Need = (
    CapabilitySet::SYS_PTRACE,
    "CAP_SYS_PTRACE",
    "to read which program a process runs (/proc/PID/exe)",
);
const NAME_PLACES: Need = (
    CapabilitySet::SYSLOG,
    "CAP_SYSLOG",
    "to name the places that drop packets, where the kernel names no reasons (before Linux 5.17)",
);
const ASK_TRACKING: Need = (
    CapabilitySet::NET_ADMIN,
    "CAP_NET_ADMIN",
    "to ask the kernel where address translation sends connections",
);
const ENTER_NETWORKS: Need = (
    CapabilitySet::SYS_ADMIN,
    "CAP_SYS_ADMIN",
    "to ask that within the network namespaces of containers",
);
/// From the least to the most that reading maps may need.
const READ_MAPS: [&[Need]; 3] = [&[], &[BPF], &[BPF, ADMIN]];
const BPF: Need =
    (CapabilitySet::BPF, "CAP_BPF", "to read counters and tables (before Linux 5.19)");
const ADMIN: Need =
    (CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN", "to read counters and tables (before Linux 5.8)");

/// Of the thread that captures.
pub(super) fn give_up_in_capture(
    to: GiveUp,
    shared: &Shared,
    names_places: bool,
) -> io::Result<PrivilegeReport> {
    let needs = [LOOK_AT_OTHERS, NAME_PLACES];
    give_up(to, shared, if names_places { &needs } else { &needs[..1] })
}

/// Of a thread that only reads the figures.
pub(crate) fn give_up_beside(to: GiveUp, shared: &Shared) -> io::Result<PrivilegeReport> {
    give_up(to, shared, &[])
}

/// Of a thread that needs none, but as a user may need groups that list them.
#[cfg(feature = "containers")]
pub(crate) fn give_up_all(to: GiveUp, groups: &[u32]) -> io::Result<()> {
    give_up_but(to, groups, &[])
}

/// Of the thread that asks about address translation, if it is to do so in the network namespaces of
/// others, too. Returns what it has kept, and what for.
pub(crate) fn give_up_to_ask(to: GiveUp, others: bool) -> io::Result<BTreeMap<String, String>> {
    let needs = [ASK_TRACKING, ENTER_NETWORKS, LOOK_AT_OTHERS];
    let needs = if others { &needs[..] } else { &needs[..1] };
    let had = thread::capabilities(None)?.permitted;
    let kept: Vec<Need> = needs.iter().filter(|(cap, ..)| had.contains(*cap)).copied().collect();
    give_up_but(to, &[], &kept)?;
    Ok(told(&kept))
}

/// Whether the calling thread may ask about address translation.
pub(crate) fn may_ask_tracking() -> bool {
    thread::capabilities(None).is_ok_and(|sets| sets.permitted.contains(ASK_TRACKING.0))
}

/// All but what is to be kept, which the thread has.
fn give_up_but(to: GiveUp, groups: &[u32], kept: &[Need]) -> io::Result<()> {
    let had = thread::capabilities(None)?.permitted;
    if let Some(user) = to.user {
        become_user(user, groups)?;
    }
    let left = set(kept);
    let meanwhile = left.union(CapabilitySet::SETPCAP.intersection(had));
    hold(meanwhile, meanwhile)?;
    if let Err(error) = unbound(left, had) {
        tracing::debug!("what programs started from here could gain is not bounded: {error}");
    }
    hold(left, left)?;
    // Kernels without ambient capabilities have none to clear.
    let _ = thread::clear_ambient_capability_set();
    Ok(thread::set_no_new_privs(true)?)
}

fn give_up(to: GiveUp, shared: &Shared, needs: &[Need]) -> io::Result<PrivilegeReport> {
    let had = thread::capabilities(None)?.permitted;
    if let Some(user) = to.user {
        become_user(user, &[])?;
    }
    // What the rest of this takes, and what may turn out to be needed.
    let may_need = READ_MAPS.iter().flat_map(|needs| needs.iter()).chain(needs);
    let meanwhile = set(may_need).union(CapabilitySet::SETPCAP).intersection(had);
    let mut kept: Vec<Need> =
        needs.iter().filter(|(cap, ..)| had.contains(*cap)).copied().collect();
    for more in READ_MAPS {
        let more: Vec<Need> = more.iter().filter(|(cap, ..)| had.contains(*cap)).copied().collect();
        let effective = set(kept.iter().chain(&more));
        hold(effective, meanwhile)?;
        if shared.can_be_read() {
            kept.extend(more);
            break;
        }
    }
    let left = set(&kept);
    hold(meanwhile, meanwhile)?;
    let note = unbound(left, had)
        .err()
        .map(|error| format!("what programs started from here could gain is not bounded: {error}"));
    hold(left, left)?;
    // Kernels without ambient capabilities have none to clear.
    let _ = thread::clear_ambient_capability_set();
    thread::set_no_new_privs(true)?;
    Ok(PrivilegeReport { uid: getuid().as_raw(), dropped: true, kept: told(&kept), note })
}

fn told(kept: &[Need]) -> BTreeMap<String, String> {
    let told = kept.iter().map(|(_, name, why)| ((*name).to_owned(), (*why).to_owned()));
    told.collect()
}

fn set<'a>(needs: impl IntoIterator<Item = &'a Need>) -> CapabilitySet {
    needs.into_iter().fold(CapabilitySet::empty(), |set, (cap, ..)| set.union(*cap))
}

fn hold(effective: CapabilitySet, permitted: CapabilitySet) -> io::Result<()> {
    let inheritable = CapabilitySet::empty();
    Ok(thread::set_capabilities(None, CapabilitySets { effective, permitted, inheritable })?)
}

/// The system calls are those of the thread, not those of the C library, which would change all
/// threads of the process.
fn become_user(user: Identity, groups: &[u32]) -> io::Result<()> {
    let no_user = user.uid == u32::MAX || user.gid == u32::MAX;
    if no_user {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    thread::set_keep_capabilities(true)?;
    let groups: Vec<Gid> = groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    thread::set_thread_groups(&[&[gid], &groups[..]].concat())?;
    thread::set_thread_res_gid(gid, gid, gid)?;
    thread::set_thread_res_uid(uid, uid, uid)?;
    Ok(thread::set_keep_capabilities(false)?)
}

/// Takes everything else out of what a program that is started could gain.
fn unbound(left: CapabilitySet, had: CapabilitySet) -> io::Result<()> {
    if !had.contains(CapabilitySet::SETPCAP) {
        return Err(io::Error::other("this takes CAP_SETPCAP"));
    }
    for number in 0..u64::BITS {
        let cap = CapabilitySet::from_bits_retain(1 << number);
        if left.contains(cap) {
            continue;
        }
        match thread::remove_capability_from_bounding_set(cap) {
            Ok(()) => {}
            // The kernel knows no more.
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

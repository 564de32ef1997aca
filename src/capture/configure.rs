//! The options of the programs: constants and sizes before they are loaded, filters after.

use std::fs::{File, Metadata};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use ipnet::IpNet;
use libbpf_rs::{MapCore, MapFlags, MapImpl, Mut};

use super::clock;
use super::error::CaptureError;
use super::loader::io_error;
use super::skel::{ConnectSkel, OpenConnectSkel};
use crate::stream::Builder;

/// Most sockets give their datagrams a peer; those that do not have few destinations.
const SOCKETS_PER_FLOW: u32 = 4;

/// What the choice of hooks, or the kernel, asks of the programs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Modes {
    /// A hook at the entry of the call leaves something for the one at its exit.
    pub calls: bool,
    /// No helper may read kernel memory.
    pub locked_down: bool,
    /// Programs keep themselves from being preempted: of trampolines, of tracepoints.
    pub stay_in_trampoline: bool,
    pub stay_in_tracepoint: bool,
    /// The end of calls has a stand-in.
    pub standin_of_calls: bool,
    /// The close of datagram sockets is seen, and a sweep shows those that stay open.
    pub hold: bool,
    /// But only of sockets of processes in the control group that is mounted.
    pub reach: bool,
    /// What is seen of datagrams that leave.
    pub sends: Sends,
    /// A program that user space runs has more to tell than it returns.
    pub answers: bool,
}

/// Bytes of a ring that is not used; libbpf makes it a page where pages are larger.
const SMALLEST_RING: u32 = 4096;

/// Which of the hooks that see datagrams leave tell of what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sends {
    /// UDP to a peer.
    pub peers: bool,
    /// UDP without one: when the send returns, or only before.
    pub flows: bool,
    pub flows_at_once: bool,
    /// ICMP and raw sockets.
    pub icmp_raw: bool,
    /// cgroup programs leave the destination for the end of the send.
    pub stash: bool,
    /// So does the entry of the function that sends.
    pub entries: bool,
    /// Its end is told by `sock_send_length`.
    pub length_udp: bool,
    pub length_icmp: bool,
}

/// Sets the constants and the sizes of the maps.
pub(super) fn configure(
    open: &mut OpenConnectSkel<'_>,
    options: &Builder,
    modes: Modes,
) -> Result<(), CaptureError> {
    let ring = options.ring_bytes();
    let size = |map: &mut libbpf_rs::OpenMapMut<'_>, entries: u32| {
        map.set_max_entries(entries).map_err(|e| CaptureError::Io {
            what: format!("cannot size a map to {entries}"),
            source: io_error(&e),
        })
    };
    size(&mut open.maps.events, ring)?;
    size(&mut open.maps.conns, options.max_sockets())?;
    let any_flows = modes.sends.flows || modes.sends.flows_at_once || modes.sends.icmp_raw;
    let flows = if any_flows { options.max_sockets().div_ceil(SOCKETS_PER_FLOW) } else { 1 };
    size(&mut open.maps.flows, flows)?;
    size(&mut open.maps.senders, flows)?;
    if !modes.sends.stash && !modes.sends.entries {
        size(&mut open.maps.sends, 1)?;
    }
    if !modes.answers {
        size(&mut open.maps.answers, SMALLEST_RING)?;
    }
    if !modes.standin_of_calls {
        size(&mut open.maps.returned, 1)?;
    }
    let descendants = match options.only_descendants_of.is_empty() {
        true => 1,
        false => options.max_sockets(),
    };
    size(&mut open.maps.descendants, descendants)?;
    if !modes.calls {
        size(&mut open.maps.calls, 1)?;
    }
    let Some(rodata) = open.maps.rodata_data.as_deref_mut() else {
        return Err(CaptureError::Attach {
            hook: "the options of the programs".into(),
            why: "the object file has none".into(),
        });
    };
    rodata.cfg_calls = modes.calls;
    rodata.cfg_locked_down = modes.locked_down;
    rodata.cfg_stay_in_trampoline = modes.stay_in_trampoline;
    rodata.cfg_stay_in_tracepoint = modes.stay_in_tracepoint;
    rodata.cfg_standin_of_calls = modes.standin_of_calls;
    rodata.cfg_hold = modes.hold;
    rodata.cfg_reach = modes.reach;
    let sends = modes.sends;
    rodata.cfg_sent = sends.peers;
    rodata.cfg_flows = sends.flows;
    rodata.cfg_flows_at_once = sends.flows_at_once;
    rodata.cfg_icmp_raw = sends.icmp_raw;
    rodata.cfg_stash = sends.stash;
    rodata.cfg_length_udp = sends.length_udp;
    rodata.cfg_length_icmp = sends.length_icmp;
    rodata.cfg_idle_ns = options.datagram_idle().as_nanos() as u64;
    rodata.cfg_only_pid = !options.only_pid.is_empty();
    rodata.cfg_only_comm = !options.only_process.is_empty();
    rodata.cfg_only_descendants = !options.only_descendants_of.is_empty();
    if rodata.cfg_only_descendants
        && let Some(namespace) = own_pid_namespace()?
    {
        rodata.cfg_pidns_dev = namespace.dev();
        rodata.cfg_pidns_ino = namespace.ino();
    }
    rodata.cfg_only_uid = !options.only_uid.is_empty();
    rodata.cfg_only_port = !options.only_port.is_empty();
    rodata.cfg_only_cgroup = !options.only_cgroup.is_empty();
    rodata.cfg_only_cidr = !options.only_cidr.is_empty();
    rodata.cfg_no_loopback = options.no_loopback;
    rodata.cfg_no_unix = options.no_unix;
    rodata.cfg_no_inbound = options.no_inbound;
    // A quarter of the ring leaves the reader the time in which the rest fills.
    rodata.cfg_wake_bytes = u64::from(ring / 4);
    rodata.cfg_start_ns = clock::boot_ns();
    Ok(())
}

/// The namespace of process ids that this process is in, unless that is the kernel's first: its ids
/// are those that programs have.
fn own_pid_namespace() -> Result<Option<Metadata>, CaptureError> {
    /// PROC_PID_INIT_INO of include/uapi/linux/nsfs.h.
    const FIRST: u64 = 0xEFFF_FFFC;
    const PATH: &str = "/proc/self/ns/pid";
    let namespace = std::fs::metadata(PATH);
    let namespace = namespace.map_err(|source| {
        let what = format!("cannot tell whose process ids these are from {PATH}");
        CaptureError::Io { what, source }
    })?;
    Ok((namespace.ino() != FIRST).then_some(namespace))
}

/// Puts the values of the filters into their maps.
pub(super) fn fill_filters(skel: &ConnectSkel<'_>, options: &Builder) -> Result<(), CaptureError> {
    let maps = &skel.maps;
    for pid in &options.only_pid {
        insert(&maps.only_pid, &pid.to_ne_bytes())?;
    }
    for pid in &options.only_descendants_of {
        insert(&maps.ancestors, &pid.to_ne_bytes())?;
    }
    for uid in &options.only_uid {
        insert(&maps.only_uid, &uid.to_ne_bytes())?;
    }
    for port in &options.only_port {
        insert(&maps.only_port, &u32::from(*port).to_ne_bytes())?;
    }
    for cgroup in &options.only_cgroup {
        insert(&maps.only_cgroup, &cgroup.to_ne_bytes())?;
    }
    for name in &options.only_process {
        let mut key = [0_u8; 16];
        for (slot, byte) in key.iter_mut().take(15).zip(name.bytes()) {
            *slot = byte;
        }
        insert(&maps.only_comm, &key)?;
    }
    for net in &options.only_cidr {
        let prefix = u32::from(net.prefix_len()).to_ne_bytes();
        match net {
            IpNet::V4(v4) => {
                insert(&maps.only_cidr4, &[&prefix[..], &v4.network().octets()].concat())?;
            }
            IpNet::V6(v6) => {
                insert(&maps.only_cidr6, &[&prefix[..], &v6.network().octets()].concat())?;
            }
        }
    }
    Ok(())
}

/// Names the control group beyond which the close of sockets is not seen.
pub(super) fn set_reach(skel: &ConnectSkel<'_>, cgroup: &Path) -> Result<(), CaptureError> {
    let failed = |source| CaptureError::Io {
        what: format!("cannot name the control group {} to the programs", cgroup.display()),
        source,
    };
    let directory = File::open(cgroup).map_err(failed)?;
    let fd = directory.as_raw_fd().to_ne_bytes();
    let set = skel.maps.reach.update(&0_u32.to_ne_bytes(), &fd, MapFlags::ANY);
    set.map_err(|e| failed(io_error(&e)))
}

fn insert(map: &MapImpl<'_, Mut>, key: &[u8]) -> Result<(), CaptureError> {
    map.update(key, &[1], MapFlags::ANY).map_err(|e| CaptureError::Io {
        what: "cannot set an in-kernel filter (at most 1,024 values of a kind)".into(),
        source: io_error(&e),
    })
}

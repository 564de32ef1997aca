//! Opens, sizes, loads and attaches the programs, and reports which hook serves which feature.

use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use ipnet::IpNet;
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{
    ErrorKind, Link, MapCore, MapFlags, MapImpl, Mut, OpenObject, PrintLevel, ProgramMut,
};

use super::clock;
use super::error::CaptureError;
use super::plan::{AttachPlan, Twin};
use super::report::{AttachReport, Feature, ProgramReport};
use super::skel::{ConnectSkel, ConnectSkelBuilder, OpenConnectSkel};
use super::sys;
use crate::stream::Builder;

/// The programs, loaded and attached. Dropping it detaches them.
pub(crate) struct Loaded<'obj> {
    pub skel: ConnectSkel<'obj>,
    /// Held: dropping a link detaches its program.
    _links: Vec<Link>,
    /// The sweep of what waits for an outcome.
    pub sweep: Option<Link>,
    pub report: AttachReport,
    /// For the counts of skipped runs.
    pub programs: Vec<OwnedFd>,
}

/// Loads and attaches with one of the plan's twins.
pub(crate) fn load<'obj>(
    storage: &'obj mut MaybeUninit<OpenObject>,
    options: &Builder,
    plan: &AttachPlan,
    twin: Twin,
) -> Result<Loaded<'obj>, CaptureError> {
    let log = VerifierLog::collect();
    let mut open = ConnectSkelBuilder::default().open(storage).map_err(|e| refused(&e, &log))?;
    configure(&mut open, options, plan)?;
    select(&mut open, plan, twin);
    let skel = open.load().map_err(|e| refused(&e, &log))?;
    drop(log);
    fill_filters(&skel, options)?;
    attach(skel, plan, twin)
}

fn configure(
    open: &mut OpenConnectSkel<'_>,
    options: &Builder,
    plan: &AttachPlan,
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
    if !plan.enter_args {
        size(&mut open.maps.enter_args, 1)?;
    }
    let Some(rodata) = open.maps.rodata_data.as_deref_mut() else {
        return Err(CaptureError::Attach {
            hook: "the options of the programs".into(),
            why: "the object file has none".into(),
        });
    };
    rodata.cfg_enter_args = plan.enter_args;
    rodata.cfg_only_pid = !options.only_pid.is_empty();
    rodata.cfg_only_comm = !options.only_process.is_empty();
    rodata.cfg_only_uid = !options.only_uid.is_empty();
    rodata.cfg_only_port = !options.only_port.is_empty();
    rodata.cfg_only_cgroup = !options.only_cgroup.is_empty();
    rodata.cfg_only_cidr = !options.only_cidr.is_empty();
    rodata.cfg_no_loopback = options.no_loopback;
    rodata.cfg_no_unix = options.no_unix;
    // A quarter of the ring leaves the reader the time in which the rest fills.
    rodata.cfg_wake_bytes = u64::from(ring / 4);
    rodata.cfg_start_ns = clock::boot_ns();
    Ok(())
}

/// Loads one twin of each feature, the other not.
fn select(open: &mut OpenConnectSkel<'_>, plan: &AttachPlan, twin: Twin) {
    let progs = &mut open.progs;
    let btf = twin == Twin::Btf;
    progs.set_state_btf.set_autoload(btf);
    progs.destroy_sock_btf.set_autoload(btf);
    progs.exec_btf.set_autoload(btf);
    progs.set_state_raw.set_autoload(!btf);
    progs.destroy_sock_raw.set_autoload(!btf);
    progs.exec_raw.set_autoload(!btf);
    progs.enter_connect.set_autoload(plan.enter_args);
}

fn fill_filters(skel: &ConnectSkel<'_>, options: &Builder) -> Result<(), CaptureError> {
    let maps = &skel.maps;
    for pid in &options.only_pid {
        insert(&maps.only_pid, &pid.to_ne_bytes())?;
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

fn insert(map: &MapImpl<'_, Mut>, key: &[u8]) -> Result<(), CaptureError> {
    map.update(key, &[1], MapFlags::ANY).map_err(|e| CaptureError::Io {
        what: "cannot set an in-kernel filter (at most 1,024 values of a kind)".into(),
        source: io_error(&e),
    })
}

/// One attached program, for the report.
struct Attached {
    program: ProgramReport,
    link: Link,
}

fn attach_one(
    program: &ProgramMut<'_>,
    hook: &str,
    fds: &mut Vec<OwnedFd>,
) -> Result<Attached, CaptureError> {
    let failed = |why: String| CaptureError::Attach { hook: hook.to_owned(), why };
    let link = program.attach().map_err(|e| failed(format!("{e:#}")))?;
    Ok(Attached { program: describe(program, hook, fds), link })
}

fn describe(program: &ProgramMut<'_>, hook: &str, fds: &mut Vec<OwnedFd>) -> ProgramReport {
    let id = sys::program_facts(program.as_fd()).map(|facts| facts.id).unwrap_or_default();
    if let Ok(fd) = program.as_fd().try_clone_to_owned() {
        fds.push(fd);
    }
    ProgramReport {
        name: program.name().to_string_lossy().into_owned(),
        kind: hook.split('/').next().unwrap_or_default().to_owned(),
        hook: hook.to_owned(),
        attached: true,
        id,
    }
}

fn attach<'obj>(
    skel: ConnectSkel<'obj>,
    plan: &AttachPlan,
    twin: Twin,
) -> Result<Loaded<'obj>, CaptureError> {
    let progs = &skel.progs;
    let (kind, set_state, destroy, exec) = match twin {
        Twin::Btf => ("tp_btf", &progs.set_state_btf, &progs.destroy_sock_btf, &progs.exec_btf),
        Twin::Raw => ("raw_tp", &progs.set_state_raw, &progs.destroy_sock_raw, &progs.exec_raw),
    };
    let mut fds = Vec::new();
    let mut features = BTreeMap::new();
    let mut programs = Vec::new();
    let mut links = Vec::new();
    let mut note = |name: &str, hook: &str, text: Option<&str>| {
        let note = text.map(str::to_owned);
        features.insert(name.to_owned(), Feature { hook: Some(hook.to_owned()), ok: true, note });
    };

    // What only cleans up comes first and what begins attempts last, so that nothing that begins
    // is without its end.
    let mut required = |program: &ProgramMut<'_>, hook: &str| -> Result<(), CaptureError> {
        let attached = attach_one(program, hook, &mut fds)?;
        programs.push(attached.program);
        links.push(attached.link);
        Ok(())
    };
    let hook = format!("{kind}/sched_process_exec");
    required(exec, &hook)?;
    note("process_start", &hook, None);
    let hook = format!("{kind}/tcp_destroy_sock");
    required(destroy, &hook)?;
    let hook = format!("{kind}/inet_sock_set_state");
    required(set_state, &hook)?;
    note("tcp_outcome", &hook, None);
    note("tcp_close", &hook, None);
    let mut hook = "tracepoint/syscalls/sys_exit_connect".to_owned();
    if plan.enter_args {
        required(&progs.enter_connect, "tracepoint/syscalls/sys_enter_connect")?;
        hook = format!("tracepoint/syscalls/sys_enter_connect + {hook}");
    }
    required(&progs.exit_connect, "tracepoint/syscalls/sys_exit_connect")?;
    note(
        "connect",
        &hook,
        Some(
            "system-call tracepoints do not see io_uring, 32-bit programs and fast open by \
             sendto(): of these, TCP is seen by its states, other protocols and refusals before \
             the first packet are not; a connect() to a UNIX socket is seen when it returns, and \
             not at all if a signal ends it while it blocks",
        ),
    );

    let sweep = progs.sweep.attach_iter(skel.maps.conns.as_fd());
    let sweep = match sweep {
        Ok(link) => {
            programs.push(describe(&progs.sweep, "iter/bpf_map_elem", &mut fds));
            note("in_progress", "iter/bpf_map_elem", None);
            Some(link)
        }
        Err(error) => {
            let note = format!("attempts show only at their outcome: {error:#}");
            let feature = Feature { hook: None, ok: false, note: Some(note) };
            features.insert("in_progress".to_owned(), feature);
            None
        }
    };
    for (name, why) in NOT_OBSERVED {
        let feature = Feature { hook: None, ok: false, note: Some((*why).to_owned()) };
        features.insert((*name).to_owned(), feature);
    }
    let report = AttachReport { backend: Some(plan.backend), features, programs };
    Ok(Loaded { _links: links, sweep, report, programs: fds, skel })
}

/// What this version does not look at, so that nobody takes its absence for an answer.
const NOT_OBSERVED: &[(&str, &str)] = &[
    (
        "datagram_sent",
        "this version does not see datagrams leave: a connected datagram socket stays 'associated'",
    ),
    ("datagrams_without_connect", "this version does not see datagrams sent without connect()"),
    ("inbound", "this version does not see accepted connections and listening sockets"),
    ("preexisting", "this version does not list connections that existed before it started"),
    ("dns_names", "this version does not see DNS answers"),
];

fn io_error(error: &libbpf_rs::Error) -> std::io::Error {
    std::io::Error::other(format!("{error:#}"))
}

fn refused(error: &libbpf_rs::Error, log: &VerifierLog) -> CaptureError {
    let log = log.tail();
    match error.kind() {
        ErrorKind::PermissionDenied if !log.contains("verif") && !log.contains("invalid") => {
            CaptureError::NoPrivilege { missing: format!("the kernel answered: {error:#}") }
        }
        _ => CaptureError::Refused { why: format!("{error:#}"), log },
    }
}

/// What libbpf says while an object is loaded; shown only when loading fails.
pub(super) struct VerifierLog {
    previous: Option<(PrintLevel, libbpf_rs::PrintCallback)>,
}

static LOG: Mutex<Vec<String>> = Mutex::new(Vec::new());
/// Lines kept of it.
const LOG_LINES: usize = 60;

impl VerifierLog {
    pub(super) fn collect() -> Self {
        LOG.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let previous = libbpf_rs::set_print(Some((PrintLevel::Warn, |_, message| {
            let mut log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
            log.extend(message.lines().map(str::to_owned));
            let surplus = log.len().saturating_sub(LOG_LINES);
            log.drain(..surplus);
        })));
        VerifierLog { previous }
    }

    pub(super) fn tail(&self) -> String {
        LOG.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }
}

impl Drop for VerifierLog {
    fn drop(&mut self) {
        libbpf_rs::set_print(self.previous);
    }
}

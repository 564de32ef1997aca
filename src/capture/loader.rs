//! Opens, loads and attaches the programs, falls to the next hook where the kernel refuses one, and
//! reports which serves which feature.

use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use libbpf_rs::skel::{OpenSkel, Skel, SkelBuilder};
use libbpf_rs::{ErrorKind, Link, OpenObject, PrintLevel, ProgramMut};

use super::configure::{Modes, Sends, configure, fill_filters, set_reach};
use super::error::CaptureError;
use super::features::Hook;
use super::plan::{AttachPlan, Planned, drop_dependents, nothing_serves};
use super::report::{AttachReport, Backend, Feature, NotUsed, ProgramReport};
use super::skel::{ConnectSkel, ConnectSkelBuilder};
use super::support::KernelSupport;
use super::sys;
use super::walk::Walk;
use crate::stream::Builder;

/// The programs, loaded and attached. Dropping it detaches them.
pub(crate) struct Loaded<'obj> {
    pub skel: ConnectSkel<'obj>,
    pub links: Links,
    /// What shows what waits for an outcome, when asked to.
    pub sweeps: Vec<Walk>,
    /// The iterator over what existed before.
    pub existing: Option<Link>,
    /// What tells what open connections have carried so far.
    pub traffic: Vec<Walk>,
    pub report: AttachReport,
    /// Programs of which the kernel counts the runs that it skipped.
    pub counted: Vec<OwnedFd>,
}

/// Why a selection of hooks does not work.
pub(crate) enum LoadError {
    /// The kernel refused this program; another hook may do instead.
    Program { name: String, error: CaptureError },
    /// Nothing else would help.
    Final(CaptureError),
}

impl From<CaptureError> for LoadError {
    fn from(error: CaptureError) -> Self {
        LoadError::Final(error)
    }
}

/// What keeps programs at their hooks, with the names of the programs, in the order of attachment.
#[derive(Debug, Default)]
pub(crate) struct Links(Vec<(&'static str, Link)>);

impl Links {
    /// Takes the programs from their hooks, those first that came last: what begins goes before
    /// what concludes, and stand-ins before all, since the end of a program is nothing to stand in for.
    pub(crate) fn detach(&mut self) {
        self.0.retain(|(name, _)| !name.ends_with(STANDIN));
        while self.0.pop().is_some() {}
    }

    /// The links of return probes, which count what they miss.
    pub(crate) fn of_return_probes(&self) -> impl Iterator<Item = &Link> {
        self.0.iter().filter(|(name, _)| name.ends_with("_kretprobe")).map(|(_, link)| link)
    }
}

fn is_entry(program: &&str) -> bool {
    program.ends_with("_kprobe")
}

impl AttachPlan {
    /// Whether a program is of a hook that is chosen now.
    fn wants(&self, program: &str) -> bool {
        self.chosen().any(|hook| hook.programs.contains(&program))
    }

    /// Whether a feature has a hook now.
    fn serves(&self, feature: &str) -> bool {
        self.hook(feature).is_some()
    }

    fn hook(&self, feature: &str) -> Option<&'static Hook> {
        self.features.iter().find(|p| p.feature.name == feature).and_then(Planned::chosen)
    }

    /// What the chosen hooks tell of datagrams that leave.
    fn sends(&self) -> Sends {
        let programs = |feature| self.hook(feature).map_or(&[][..], |hook| hook.programs);
        let peers = programs("datagram_sent");
        let flows = programs("datagrams_without_connect");
        let icmp_raw = programs("icmp_raw");
        let by_length = |programs: &[&str]| programs.contains(&"send_length");
        let of_cgroup = |program: &&str| program.starts_with("send_cgroup");
        // A cgroup program alone knows the destination, but not what becomes of the send.
        let at_once = !flows.is_empty() && flows.iter().all(of_cgroup);
        Sends {
            peers: !peers.is_empty(),
            flows: !flows.is_empty() && !at_once,
            flows_at_once: at_once,
            icmp_raw: !icmp_raw.is_empty(),
            stash: flows.iter().any(of_cgroup) && !at_once,
            entries: [peers, flows, icmp_raw].iter().any(|p| p.iter().any(is_entry)),
            length_udp: by_length(peers) || by_length(flows),
            length_icmp: by_length(icmp_raw),
        }
    }

    /// The control group beyond which the close of datagram sockets is not seen, where there is one.
    fn reach<'a>(&self, support: &'a KernelSupport) -> Option<&'a Path> {
        let closes = self.hook("datagram_close")?;
        let is_bounded = is_of_cgroup(closes.name) && !support.cgroup2_is_root;
        support.cgroup2.as_deref().filter(|_| is_bounded)
    }

    fn chosen(&self) -> impl Iterator<Item = &'static Hook> {
        self.features.iter().filter_map(Planned::chosen)
    }

    /// Gives up the hooks that the program is of; the features fall to their next.
    pub(crate) fn rule_out(
        &mut self,
        program: &str,
        error: CaptureError,
        support: &KernelSupport,
        forced: Option<Backend>,
    ) -> Result<(), CaptureError> {
        let chosen = self.chosen().find(|hook| hook.programs.contains(&program));
        let family = chosen.and_then(|hook| hook.backend);
        // What is not for this process at all is not for the others of the family either.
        let all = matches!(error, CaptureError::NoPrivilege { .. });
        let is_meant = |hook: &Hook| {
            hook.programs.contains(&program) || (all && family.is_some() && hook.backend == family)
        };
        let mut found = false;
        for planned in &mut self.features {
            let name = planned.feature.name;
            let Some(meant) = planned.chosen().filter(|hook| is_meant(hook)) else { continue };
            found = true;
            tracing::debug!("{name}: {} cannot be used: {error}", meant.name);
            planned.candidates.retain(|hook| {
                let goes = is_meant(hook);
                // Hooks that differ in what they read may have the same programs.
                if goes && !planned.ruled_out.iter().any(|not| not.hook == hook.name) {
                    let not = NotUsed { hook: hook.name.to_owned(), why: error.in_short() };
                    planned.ruled_out.push(not);
                }
                !goes
            });
            if planned.feature.required && planned.candidates.is_empty() {
                // The verifier's words, and a lack of privilege, say more than that nothing is left.
                return Err(match (error, forced) {
                    (error @ CaptureError::Refused { .. }, _) | (error, None) => error,
                    (_, Some(_)) => nothing_serves(planned, forced),
                });
            }
        }
        drop_dependents(&mut self.features, support);
        if found { Ok(()) } else { Err(error) }
    }
}

impl Planned {
    fn chosen(&self) -> Option<&'static Hook> {
        self.candidates.first().copied()
    }

    fn report(&self, support: &KernelSupport) -> Feature {
        let not_used = self.ruled_out.clone();
        match self.chosen() {
            Some(hook) => Feature {
                hook: Some(hook.name.to_owned()),
                ok: true,
                note: note(hook, support),
                not_used,
            },
            None => {
                let without = self.feature.without;
                let note = Some(match self.left_out {
                    Some(option) => format!("left out by {option}: {without}"),
                    None => without.to_owned(),
                });
                Feature { hook: None, ok: false, note, not_used }
            }
        }
    }
}

/// Whether a hook, or the section of its program, is of a control group.
fn is_of_cgroup(hook: &str) -> bool {
    hook.starts_with("cgroup/") || hook.starts_with("cgroup_skb/")
}

/// What a hook does not see, here.
fn note(hook: &Hook, support: &KernelSupport) -> Option<String> {
    let own = hook.note.map(str::to_owned);
    if !is_of_cgroup(hook.name) || support.cgroup2_is_root {
        return own;
    }
    let mount = support.cgroup2.as_deref().unwrap_or(Path::new("?")).display();
    let below = format!(
        "{mount} is not the root of the host's control groups: sockets of processes outside of it \
         are not seen; run netspy in the host's cgroup namespace"
    );
    Some(own.map_or(below.clone(), |own| format!("{own}; {below}")))
}

/// Loads and attaches the hooks that the plan has chosen now.
pub(crate) fn load<'obj>(
    storage: &'obj mut MaybeUninit<OpenObject>,
    options: &Builder,
    support: &KernelSupport,
    plan: &AttachPlan,
) -> Result<Loaded<'obj>, LoadError> {
    let log = VerifierLog::collect();
    let mut open = ConnectSkelBuilder::default().open(storage).map_err(|e| refused(&e, &log))?;
    let calls = ["connect_fentry", "connect_kprobe", "enter_connect"];
    let reach = plan.reach(support);
    let modes = Modes {
        calls: calls.into_iter().any(|program| plan.wants(program)),
        locked_down: !support.probe_read,
        // Trampolines are preempted by all kernels that preempt at all.
        stay_in_trampoline: support.can_stay,
        stay_in_tracepoint: support.stays_in_tracepoint(),
        standin_of_calls: plan.wants("exit_connect_standin"),
        hold: plan.serves("datagram_close"),
        reach: reach.is_some(),
        sends: plan.sends(),
        answers: plan.wants("traffic_walk"),
    };
    configure(&mut open, options, modes)?;
    for mut program in open.open_object_mut().progs_mut() {
        let wanted = program.name().to_str().is_some_and(|name| plan.wants(name));
        program.set_autoload(wanted);
    }
    let skel = open.load().map_err(|e| match log.culprit() {
        Some(name) => LoadError::Program { name, error: refused(&e, &log) },
        None => LoadError::Final(refused(&e, &log)),
    })?;
    drop(log);
    fill_filters(&skel, options)?;
    if let Some(cgroup) = reach {
        set_reach(&skel, cgroup)?;
    }
    attach(skel, plan, support)
}

fn attach<'obj>(
    skel: ConnectSkel<'obj>,
    plan: &AttachPlan,
    support: &KernelSupport,
) -> Result<Loaded<'obj>, LoadError> {
    let (mut links, mut sweeps, mut existing) = (Links::default(), Vec::new(), None);
    let mut traffic = Vec::new();
    let (mut counted, mut programs) = (Vec::new(), Vec::<ProgramReport>::new());
    for hook in plan.chosen() {
        for name in hook.programs.iter().copied() {
            if programs.iter().any(|program| program.name == name) {
                continue;
            }
            let error = |why| CaptureError::Attach { hook: hook.name.to_owned(), why };
            let Some(program) = skel.object().progs_mut().find(|p| p.name() == name) else {
                return Err(error(format!("the object file has no program {name}")).into());
            };
            let refused = |why| LoadError::Program { name: name.to_owned(), error: error(why) };
            let link = match is_run(name) {
                true => None,
                false => Some(attach_one(&skel, name, &program, support).map_err(refused)?),
            };
            let walk = || {
                let walk = Walk::new(program.as_fd(), link.as_ref().map(AsFd::as_fd));
                walk.map_err(|e| refused(format!("cannot share it: {e}")))
            };
            programs.push(describe(&program));
            // Runs of a stand-in are missed only if the program is missed as well.
            if !name.ends_with(STANDIN) {
                counted.extend(program.as_fd().try_clone_to_owned());
            }
            match name.trim_end_matches(WALK) {
                "sweep" | "sweep_flows" => sweeps.push(walk()?),
                "traffic" | "traffic_of_flows" => traffic.push(walk()?),
                "existing" => existing = link,
                _ => links.0.extend(link.map(|link| (name, link))),
            }
        }
    }
    let backend = plan.chosen().find(|h| h.programs.iter().any(|p| p.contains("connect")));
    let features = plan.features.iter().map(|p| (p.feature.name.to_owned(), p.report(support)));
    let features: BTreeMap<_, _> = features.collect();
    let report =
        AttachReport { backend: backend.and_then(|hook| hook.backend), features, programs };
    Ok(Loaded { links, sweeps, existing, traffic, report, counted, skel })
}

/// The end of the names of programs that do the work of others that did not run.
const STANDIN: &str = "_standin";

/// The end of the names of programs that are at no hook: user space runs them.
const WALK: &str = "_walk";

fn is_run(program: &str) -> bool {
    program.ends_with(WALK)
}

fn attach_one(
    skel: &ConnectSkel<'_>,
    name: &str,
    program: &ProgramMut<'_>,
    support: &KernelSupport,
) -> Result<Link, String> {
    let link = match name {
        "sweep" | "traffic" => program.attach_iter(skel.maps.conns.as_fd()),
        "sweep_flows" | "traffic_of_flows" => program.attach_iter(skel.maps.flows.as_fd()),
        _ if is_of_cgroup(&program.section().to_string_lossy()) => {
            let mount = support.cgroup2.as_deref().unwrap_or(Path::new("/sys/fs/cgroup"));
            let root = std::fs::File::open(mount)
                .map_err(|e| format!("cannot open {}: {e}", mount.display()))?;
            // By a link, which leaves programs of others where they are (BPF_F_ALLOW_MULTI is
            // implied: cgroup_bpf_link_attach() in kernel/bpf/cgroup.c).
            program.attach_cgroup(root.as_raw_fd())
        }
        _ => program.attach(),
    };
    link.map_err(|e| format!("{e:#}"))
}

fn describe(program: &ProgramMut<'_>) -> ProgramReport {
    let facts = sys::program_facts(program.as_fd()).unwrap_or_default();
    let hook = program.section().to_string_lossy().into_owned();
    ProgramReport {
        name: program.name().to_string_lossy().into_owned(),
        kind: hook.split('/').next().unwrap_or_default().to_owned(),
        hook,
        attached: true,
        id: facts.id,
        verified_insns: facts.verified_insns,
    }
}

pub(super) fn io_error(error: &libbpf_rs::Error) -> std::io::Error {
    std::io::Error::other(format!("{error:#}"))
}

fn refused(error: &libbpf_rs::Error, log: &VerifierLog) -> CaptureError {
    let log = log.tail();
    // The verifier's own refusal comes with its reasons; who may not load, or not this kind, is told
    // before it has looked at anything.
    let has_looked = log.contains("PROG LOAD LOG") && !log.contains("processed 0 insns");
    match error.kind() {
        ErrorKind::PermissionDenied if !has_looked => {
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
const LOG_LINES: usize = 30;

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

    /// The program that loading failed at.
    fn culprit(&self) -> Option<String> {
        let log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
        let failed =
            log.iter().rev().find(|line| line.contains("failed") && line.contains("prog '"))?;
        let (_, name) = failed.split_once("prog '")?;
        name.split_once('\'').map(|(name, _)| name.to_owned())
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

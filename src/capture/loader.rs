//! Opens, loads and attaches the programs, falls to the next hook where the kernel refuses one, and
//! reports which serves which feature.

use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use libbpf_rs::skel::{OpenSkel, Skel, SkelBuilder};
use libbpf_rs::{ErrorKind, Link, OpenObject, PrintLevel, ProgramMut};

use super::configure::{Modes, configure, fill_filters};
use super::error::CaptureError;
use super::features::{Hook, NOT_OBSERVED};
use super::plan::{AttachPlan, Planned, nothing_serves};
use super::report::{AttachReport, Backend, Feature, NotUsed, ProgramReport};
use super::skel::{ConnectSkel, ConnectSkelBuilder};
use super::support::KernelSupport;
use super::sys;
use crate::stream::Builder;

/// The programs, loaded and attached. Dropping it detaches them.
pub(crate) struct Loaded<'obj> {
    pub skel: ConnectSkel<'obj>,
    /// Held: dropping a link detaches its program. By the name of the program.
    pub links: BTreeMap<String, Link>,
    pub report: AttachReport,
    /// For the counts of skipped runs.
    pub programs: Vec<OwnedFd>,
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

impl AttachPlan {
    /// Whether a program is of a hook that is chosen now.
    fn wants(&self, program: &str) -> bool {
        self.chosen().any(|hook| hook.programs.contains(&program))
    }

    fn chosen(&self) -> impl Iterator<Item = &'static Hook> {
        self.features.iter().filter_map(Planned::chosen)
    }

    /// Gives up the hooks that the program is of; the features fall to their next.
    pub(crate) fn rule_out(
        &mut self,
        program: &str,
        error: CaptureError,
        forced: Option<Backend>,
    ) -> Result<(), CaptureError> {
        let mut found = false;
        for planned in &mut self.features {
            let Some(hook) = planned.chosen().filter(|hook| hook.programs.contains(&program))
            else {
                continue;
            };
            found = true;
            planned.candidates.remove(0);
            let why = error.in_short();
            tracing::debug!("{}: {} cannot be used: {error}", planned.feature.name, hook.name);
            planned.ruled_out.push(NotUsed { hook: hook.name.to_owned(), why });
            if planned.feature.required && planned.candidates.is_empty() {
                // The verifier's words, and a lack of privilege, say more than that nothing is left.
                return Err(match (error, forced) {
                    (error @ CaptureError::Refused { .. }, _) | (error, None) => error,
                    (_, Some(_)) => nothing_serves(planned, forced),
                });
            }
        }
        if found { Ok(()) } else { Err(error) }
    }
}

impl Planned {
    fn chosen(&self) -> Option<&'static Hook> {
        self.candidates.first().copied()
    }

    fn report(&self) -> Feature {
        let not_used = self.ruled_out.clone();
        match self.chosen() {
            Some(hook) => Feature {
                hook: Some(hook.name.to_owned()),
                ok: true,
                note: hook.note.map(str::to_owned),
                not_used,
            },
            None => {
                let note = Some(self.feature.without.to_owned());
                Feature { hook: None, ok: false, note, not_used }
            }
        }
    }
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
    let modes = Modes {
        calls: calls.into_iter().any(|program| plan.wants(program)),
        locked_down: !support.probe_read,
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
    attach(skel, plan)
}

fn attach<'obj>(skel: ConnectSkel<'obj>, plan: &AttachPlan) -> Result<Loaded<'obj>, LoadError> {
    let (mut links, mut fds, mut programs) = (BTreeMap::new(), Vec::new(), Vec::new());
    for hook in plan.chosen() {
        for name in hook.programs.iter().copied() {
            if links.contains_key(name) {
                continue;
            }
            let error = |why| CaptureError::Attach { hook: hook.name.to_owned(), why };
            let Some(program) = skel.object().progs_mut().find(|p| p.name() == name) else {
                return Err(error(format!("the object file has no program {name}")).into());
            };
            let link = attach_one(&skel, name, &program).map_err(|e| LoadError::Program {
                name: name.to_owned(),
                error: error(format!("{e:#}")),
            })?;
            programs.push(describe(&program, &mut fds));
            links.insert(name.to_owned(), link);
        }
    }
    let backend = plan.chosen().find(|h| h.programs.iter().any(|p| p.contains("connect")));
    let features = plan.features.iter().map(|p| (p.feature.name.to_owned(), p.report()));
    let mut features: BTreeMap<_, _> = features.collect();
    for (name, why) in NOT_OBSERVED {
        features.insert((*name).to_owned(), Feature::missing(why));
    }
    let report =
        AttachReport { backend: backend.and_then(|hook| hook.backend), features, programs };
    Ok(Loaded { links, report, programs: fds, skel })
}

fn attach_one(
    skel: &ConnectSkel<'_>,
    name: &str,
    program: &ProgramMut<'_>,
) -> libbpf_rs::Result<Link> {
    match name {
        "sweep" => program.attach_iter(skel.maps.conns.as_fd()),
        _ => program.attach(),
    }
}

fn describe(program: &ProgramMut<'_>, fds: &mut Vec<OwnedFd>) -> ProgramReport {
    let facts = sys::program_facts(program.as_fd()).unwrap_or_default();
    if let Ok(fd) = program.as_fd().try_clone_to_owned() {
        fds.push(fd);
    }
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
    // The verifier's own refusal is EACCES or EINVAL and comes with its reasons.
    match error.kind() {
        ErrorKind::PermissionDenied if !log.contains("PROG LOAD LOG") => {
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

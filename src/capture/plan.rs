//! Which programs to load for which feature: a pure function of the facts.

use super::error::CaptureError;
use super::features::{DESCENDANTS, FEATURES, FeatureHooks, Hook, Need};
use super::report::{Backend, NotUsed};
use super::support::KernelSupport;

/// What may serve one feature on this kernel.
#[derive(Debug, Clone)]
pub struct Planned {
    /// The feature.
    pub feature: &'static FeatureHooks,
    /// What the kernel should take, best first.
    pub candidates: Vec<&'static Hook>,
    /// What is ruled out before anything is loaded, and why.
    pub ruled_out: Vec<NotUsed>,
    /// The option that leaves it out.
    pub left_out: Option<&'static str>,
}

/// What to load and attach: of each feature the first candidate that the kernel takes.
#[derive(Debug, Clone)]
pub struct AttachPlan {
    /// In the order in which to attach.
    pub features: Vec<Planned>,
}

/// Chooses from the facts, or says what stands in the way. `left_out` are features that are not
/// wanted, each with the option that says so.
///
/// # Errors
///
/// A privilege, or something that capture cannot do without, is missing.
pub fn plan(
    support: &KernelSupport,
    forced: Option<Backend>,
    left_out: &[(&str, &'static str)],
) -> Result<AttachPlan, CaptureError> {
    if !support.missing_capabilities.is_empty() {
        let missing = format!("this process lacks {}", support.missing_capabilities.join(" and "));
        return Err(CaptureError::NoPrivilege { missing });
    }
    if !support.btf {
        return Err(CaptureError::NoBtf);
    }
    if !support.probe_read && !support.typed_task {
        return Err(CaptureError::LockedDown { release: support.release.clone() });
    }
    let consider = |feature: &'static FeatureHooks| match left_out
        .iter()
        .find(|(name, _)| *name == feature.name)
    {
        Some((_, option)) => leave_out(feature, option),
        None => consider(feature, support, forced),
    };
    let mut features: Vec<_> = FEATURES.iter().map(consider).collect();
    drop_dependents(&mut features, support);
    for planned in &features {
        if planned.feature.required && planned.candidates.is_empty() {
            return Err(nothing_serves(planned, forced));
        }
    }
    Ok(AttachPlan { features })
}

impl AttachPlan {
    /// Follows processes from fork to exit, before anything else is attached.
    pub(crate) fn follow_descendants(&mut self, support: &KernelSupport) {
        self.features.insert(0, consider(&DESCENDANTS, support, None));
    }
}

fn leave_out(feature: &'static FeatureHooks, option: &'static str) -> Planned {
    let (candidates, ruled_out) = (Vec::new(), Vec::new());
    Planned { feature, candidates, ruled_out, left_out: Some(option) }
}

fn consider(
    feature: &'static FeatureHooks,
    support: &KernelSupport,
    forced: Option<Backend>,
) -> Planned {
    let (candidates, ruled_out) = (Vec::new(), Vec::new());
    let mut planned = Planned { feature, candidates, ruled_out, left_out: None };
    for hook in feature.hooks {
        // Another family's, and nobody asked for it to be tried.
        if forced.is_some() && hook.backend.is_some() && hook.backend != forced {
            continue;
        }
        let missing = hook.needs.iter().find(|need| !need.is_met(support));
        match missing {
            None => planned.candidates.push(hook),
            // A twin serves the kernels that have it otherwise.
            Some(Need::Parameters(..) | Need::Preempted) => {}
            Some(need) => planned
                .ruled_out
                .push(NotUsed { hook: hook.name.to_owned(), why: need.missing(support) }),
        }
    }
    planned
}

/// Rules out what has nothing to join its events to, as long as that leaves less.
pub(crate) fn drop_dependents(features: &mut [Planned], support: &KernelSupport) {
    loop {
        let served = |name: &str| {
            features.iter().any(|p| p.feature.name == name && !p.candidates.is_empty())
        };
        let missing = |hook: &&'static Hook| {
            let lacks = |need: &&Need| matches!(need, Need::Feature(name) if !served(name));
            hook.needs.iter().find(lacks).copied()
        };
        let found = features.iter().enumerate().find_map(|(at, planned)| {
            let hook = planned.candidates.iter().position(|hook| missing(hook).is_some())?;
            Some((at, hook, missing(&planned.candidates[hook])?))
        });
        let Some((at, hook, need)) = found else { return };
        let hook = features[at].candidates.remove(hook).name.to_owned();
        features[at].ruled_out.push(NotUsed { hook, why: need.missing(support) });
    }
}

/// Why a feature that nothing can replace has no hook left.
pub(crate) fn nothing_serves(planned: &Planned, forced: Option<Backend>) -> CaptureError {
    let reasons: Vec<_> =
        planned.ruled_out.iter().map(|not| format!("{}: {}", not.hook, not.why)).collect();
    let why = match reasons.as_slice() {
        [] => "it has no hook for this".to_owned(),
        reasons => reasons.join("; "),
    };
    match forced {
        Some(backend) => CaptureError::BackendUnavailable { backend, why },
        None => CaptureError::Attach { hook: planned.feature.name.to_owned(), why },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modern() -> KernelSupport {
        let all = |names: &[&'static str]| names.iter().copied().collect();
        KernelSupport {
            release: "6.12".into(),
            missing_capabilities: Vec::new(),
            btf: true,
            functions: all(&super::super::features::functions()),
            parameters: [("inet_csk_accept", 2)].into(),
            tracepoints: all(&super::super::features::tracepoints()),
            syscall_events: true,
            kprobes: true,
            task_pt_regs: true,
            typed_task: true,
            probe_read: true,
            walks: true,
            preempts: false,
            can_stay: true,
            cgroup2: Some("/sys/fs/cgroup".into()),
            cgroup2_is_root: true,
            tracking_is_built_in: true,
        }
    }

    /// The hooks that may serve a feature, in their order.
    fn candidates(
        support: &KernelSupport,
        forced: Option<Backend>,
        name: &str,
    ) -> Vec<&'static str> {
        let plan = plan(support, forced, &[]).unwrap();
        let planned = plan.features.iter().find(|p| p.feature.name == name).unwrap();
        planned.candidates.iter().map(|hook| hook.name).collect()
    }

    #[test]
    fn the_best_hook_comes_first_and_the_others_remain_to_fall_back_to() {
        let hooks = candidates(&modern(), None, "connect");
        let families: Vec<_> = hooks.iter().map(|h| h.split('/').next().unwrap()).collect();
        assert_eq!(families, ["fentry+fexit", "kprobe+kretprobe", "tracepoint", "tracepoint"]);
    }

    #[test]
    fn a_forced_backend_leaves_only_its_own_hooks() {
        for (backend, prefix) in [
            (Backend::Fentry, "fentry"),
            (Backend::Kprobe, "kprobe"),
            (Backend::Tracepoint, "tracepoint"),
        ] {
            let hooks = candidates(&modern(), Some(backend), "connect");
            assert!(!hooks.is_empty() && hooks.iter().all(|h| h.starts_with(prefix)), "{hooks:?}");
            // What belongs to no family serves all.
            assert!(!candidates(&modern(), Some(backend), "tcp_outcome").is_empty());
        }
    }

    #[test]
    fn the_entry_of_the_call_is_hooked_only_where_the_exit_does_not_tell_the_arguments() {
        let old = KernelSupport { task_pt_regs: false, ..modern() };
        let exit_alone = "tracepoint/syscalls/sys_exit_connect";
        assert!(candidates(&modern(), None, "connect").contains(&exit_alone));
        assert!(!candidates(&old, None, "connect").contains(&exit_alone));
    }

    #[test]
    fn the_exit_of_the_call_has_a_stand_in_where_programs_are_preempted() {
        for preempts in [false, true] {
            let support = KernelSupport { preempts, ..modern() };
            let plan = plan(&support, Some(Backend::Tracepoint), &[]).unwrap();
            let planned = plan.features.iter().find(|p| p.feature.name == "connect").unwrap();
            let has_standin = planned.candidates[0].programs.contains(&"exit_connect_standin");
            assert_eq!(has_standin, preempts);
            assert!(planned.ruled_out.is_empty(), "{:?}", planned.ruled_out);
        }
    }

    #[test]
    fn a_feature_that_is_not_wanted_has_no_hooks() {
        let plan = plan(&modern(), None, &[("inbound", "no_inbound")]).unwrap();
        for planned in &plan.features {
            let is_left_out = planned.feature.name == "inbound";
            assert_eq!(planned.candidates.is_empty(), is_left_out, "{}", planned.feature.name);
            assert_eq!(planned.left_out.is_some(), is_left_out);
        }
    }

    #[test]
    fn a_kernel_that_is_locked_down_has_only_what_reads_through_typed_pointers() {
        let locked = KernelSupport { probe_read: false, ..modern() };
        assert_eq!(candidates(&locked, None, "connect"), ["fentry+fexit/__sys_connect_file"]);
        assert_eq!(candidates(&locked, None, "tcp_outcome"), ["tp_btf/inet_sock_set_state"]);
    }

    #[test]
    fn what_has_nothing_to_join_its_events_to_is_not_used() {
        let errors = ["tp_btf/inet_sk_error_report", "raw_tp/inet_sk_error_report"];
        assert_eq!(candidates(&modern(), None, "datagram_errors"), errors);
        let blind = KernelSupport { cgroup2: None, functions: Default::default(), ..modern() };
        let plan = plan(&blind, Some(Backend::Tracepoint), &[]).unwrap();
        let planned = plan.features.iter().find(|p| p.feature.name == "datagram_errors").unwrap();
        assert!(planned.candidates.is_empty());
        assert!(planned.ruled_out.iter().all(|not| not.why.contains("datagram_close")));
    }

    #[test]
    fn a_backend_that_the_kernel_lacks_is_an_error_that_says_what_would_bring_it() {
        let without = KernelSupport { kprobes: false, ..modern() };
        let error = plan(&without, Some(Backend::Kprobe), &[]).unwrap_err().to_string();
        assert!(error.contains("kprobe") && error.contains("CONFIG_KPROBE_EVENTS"), "{error}");
    }

    #[test]
    fn what_is_missing_is_named_with_what_to_do() {
        let no_hook = KernelSupport {
            syscall_events: false,
            kprobes: false,
            functions: Default::default(),
            ..modern()
        };
        let cases = [
            (
                KernelSupport { missing_capabilities: vec!["CAP_BPF"], ..modern() },
                ["CAP_BPF", "sudo"],
            ),
            (KernelSupport { btf: false, ..modern() }, ["BTF", "CONFIG_DEBUG_INFO_BTF"]),
            (
                KernelSupport { probe_read: false, typed_task: false, ..modern() },
                ["lockdown=confidentiality", "lockdown=integrity"],
            ),
            (no_hook, ["tracing file system", "mount -t tracefs"]),
        ];
        for (support, words) in cases {
            let error = plan(&support, None, &[]).unwrap_err().to_string();
            for word in words {
                assert!(error.contains(word), "{word} in: {error}");
            }
        }
    }
}

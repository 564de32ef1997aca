//! Which programs to load for which feature: a pure function of the facts.

use super::error::CaptureError;
use super::report::Backend;
use super::support::KernelSupport;

/// How the programs on kernel tracepoints get their arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Twin {
    /// Typed by BTF (`tp_btf`).
    Btf,
    /// Untyped (`raw_tp`).
    Raw,
}

/// What to load and attach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachPlan {
    /// The family of hooks on connect(2).
    pub backend: Backend,
    /// Take the arguments of connect(2) at its entry, since they are lost at its exit.
    pub enter_args: bool,
    /// Tried in this order, until one loads and attaches.
    pub twins: Vec<Twin>,
}

/// Chooses from the facts, or says what stands in the way.
pub fn plan(support: &KernelSupport, forced: Option<Backend>) -> Result<AttachPlan, CaptureError> {
    if !support.missing_capabilities.is_empty() {
        let missing = format!("this process lacks {}", support.missing_capabilities.join(" and "));
        return Err(CaptureError::NoPrivilege { missing });
    }
    if !support.btf {
        return Err(CaptureError::NoBtf);
    }
    if !support.tracefs {
        return Err(CaptureError::NoTracefs {
            why: "events/syscalls/sys_exit_connect is not there; \
                  if it is mounted, the kernel lacks CONFIG_FTRACE_SYSCALLS"
                .to_owned(),
        });
    }
    Ok(AttachPlan {
        backend: forced.unwrap_or(Backend::Tracepoint),
        enter_args: !support.task_pt_regs,
        twins: vec![Twin::Btf, Twin::Raw],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modern() -> KernelSupport {
        KernelSupport {
            release: "6.12".into(),
            missing_capabilities: Vec::new(),
            btf: true,
            tracefs: true,
            task_pt_regs: true,
        }
    }

    #[test]
    fn the_entry_is_hooked_only_where_the_exit_does_not_tell_the_arguments() {
        assert!(!plan(&modern(), None).unwrap().enter_args);
        let old = KernelSupport { task_pt_regs: false, ..modern() };
        assert!(plan(&old, None).unwrap().enter_args);
    }

    #[test]
    fn what_is_missing_is_named_with_what_to_do() {
        let cases = [
            (
                KernelSupport { missing_capabilities: vec!["CAP_BPF"], ..modern() },
                ["CAP_BPF", "sudo"],
            ),
            (KernelSupport { btf: false, ..modern() }, ["BTF", "CONFIG_DEBUG_INFO_BTF"]),
            (KernelSupport { tracefs: false, ..modern() }, ["tracing file system", "mount -t"]),
        ];
        for (support, words) in cases {
            let error = plan(&support, None).unwrap_err().to_string();
            for word in words {
                assert!(error.contains(word), "{word} in: {error}");
            }
        }
    }
}

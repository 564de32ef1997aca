//! `doctor`: what this machine offers to capture, feature by feature, and what would bring the rest.

use serde::Serialize;

use super::args;
use super::failure::Failure;
use super::render::Output;
use super::render::answers::Printer;
use crate::capture::error::CaptureError;
use crate::capture::report::{AttachReport, Backend};
use crate::capture::support::KernelSupport;
use crate::stream::{Builder, ConnectionStream};

/// One fact about the machine.
#[derive(Debug, Serialize)]
pub struct Fact {
    /// What it is about.
    pub name: &'static str,
    /// Whether it stands in nobody's way.
    pub ok: bool,
    /// What was found, and what would mend it.
    pub found: String,
}

/// What `doctor` found.
#[derive(Debug, Serialize)]
pub struct Diagnosis {
    /// Kernel release.
    pub kernel: String,
    /// What hooks depend on.
    pub facts: Vec<Fact>,
    /// What attached, where anything did.
    pub report: Option<AttachReport>,
    /// Why nothing did.
    pub error: Option<String>,
}

/// Loads and attaches everything for a moment, as capture would, and says how that went.
pub fn run(args: &args::Doctor, printer: &mut Printer<'_>) -> Result<(), Failure> {
    let support = KernelSupport::probe();
    let builder = Builder { backend: args.backend, ..ConnectionStream::builder() };
    let attached = builder.start().map(|stream| stream.capabilities());
    let failure = attached.as_ref().err().map(ToString::to_string);
    let diagnosis = Diagnosis {
        kernel: support.release.clone(),
        facts: facts(&support),
        report: attached.as_ref().ok().cloned(),
        error: failure.clone(),
    };
    printer.diagnosis(&diagnosis, args.output)?;
    match attached {
        Ok(_) => Ok(()),
        Err(CaptureError::NoPrivilege { .. }) => Err(Failure::Said(4)),
        Err(CaptureError::BackendUnavailable { .. }) => Err(Failure::Said(2)),
        Err(_) => Err(Failure::Said(3)),
    }
}

fn facts(support: &KernelSupport) -> Vec<Fact> {
    let fact = |name, ok, yes: String, no: &str| Fact {
        name,
        ok,
        found: if ok { yes } else { no.to_owned() },
    };
    let privileged = support.missing_capabilities.is_empty();
    let mut facts = vec![
        fact(
            "privileges",
            privileged,
            "sufficient".into(),
            &format!(
                "{} missing: run as root, or give the program CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN \
                 and CAP_SYS_RESOURCE",
                support.missing_capabilities.join(" and ")
            ),
        ),
        fact(
            "kernel types",
            support.btf,
            "/sys/kernel/btf/vmlinux".into(),
            "the kernel needs CONFIG_DEBUG_INFO_BTF=y",
        ),
        fact(
            "kprobes",
            support.kprobes,
            "there".into(),
            "none: the kernel lacks CONFIG_KPROBE_EVENTS",
        ),
        fact(
            "tracing files",
            support.syscall_events,
            "events/syscalls is there".into(),
            "no events/syscalls: mount -t tracefs tracefs /sys/kernel/tracing; if it is mounted, this \
             user may not read it, or the kernel lacks CONFIG_FTRACE_SYSCALLS",
        ),
        Fact {
            name: "cgroup v2",
            ok: support.cgroup2.is_some(),
            found: match &support.cgroup2 {
                Some(path) => path.display().to_string(),
                None => "not mounted: mount -t cgroup2 none /sys/fs/cgroup".into(),
            },
        },
    ];
    // What only a loaded program can find out.
    if privileged {
        facts.push(fact(
            "lockdown",
            support.probe_read,
            "programs may read kernel memory".into(),
            "confidentiality: helpers may not read kernel memory; what needs that is left out",
        ));
        facts.push(fact(
            "system calls",
            support.task_pt_regs,
            "programs know the arguments of the current one".into(),
            "arguments are lost at the exit of a call; Linux 5.15 keeps them",
        ));
    }
    facts
}

/// The word of a backend on the command line.
pub fn backend(text: &str) -> Result<Backend, String> {
    use strum::VariantNames;
    text.parse().map_err(|_| format!("one of {}", Backend::VARIANTS.join(", ")))
}

impl Printer<'_> {
    fn diagnosis(&mut self, diagnosis: &Diagnosis, output: Output) -> std::io::Result<()> {
        match output {
            Output::Table => self.diagnosis_table(diagnosis),
            Output::Json => self.json(diagnosis, true),
            Output::Jsonl => self.json(diagnosis, false),
            Output::Csv => self.flat(diagnosis),
        }
    }

    fn diagnosis_table(&mut self, diagnosis: &Diagnosis) -> std::io::Result<()> {
        writeln!(self.out, "Kernel {}\n", diagnosis.kernel)?;
        for fact in &diagnosis.facts {
            self.verdict(&format!("{:<14}", fact.name), fact.ok, &fact.found)?;
        }
        if let Some(report) = &diagnosis.report {
            let backend = report.backend.map_or_else(String::new, |b| b.to_string());
            writeln!(self.out, "\nCapture works here, with the backend {backend}.\n")?;
            self.features(&report.features)?;
            self.programs(&report.programs)?;
        }
        if let Some(error) = &diagnosis.error {
            writeln!(self.out, "\nCapture does not work here: {error}")?;
        }
        Ok(())
    }
}

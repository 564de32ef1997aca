//! The capability report: complete, and printed, so that tables can be made of it.
//!
//! Lines that begin with `report` are read by tests/kernels/verdicts.awk; tabs separate fields.

use netspy::ConnectionStream;

use crate::harness::{forced, watch_with_existing};

/// What the verifier may go through for one program. The kernel's own limit is a million; beyond
/// some hundred thousand a harmless change of the compiler may cross it, and loading takes long. About
/// twice the most that was measured (docs/kernels.md): growth within that is no accident to stop
/// for, growth past it is a loop that unrolled or a branch that multiplied.
const MOST_INSTRUCTIONS: u32 = 70_000;

fn field(text: &str) -> String {
    text.replace(|c: char| c.is_control(), " ")
}

#[test]
fn each_feature_has_a_hook_or_says_what_is_missing() {
    let Some(watch) = watch_with_existing(ConnectionStream::builder()) else { return };
    let report = watch.handle.capabilities();
    let backend = report.backend.unwrap();
    println!("report\tbackend\t{backend}");
    for (name, feature) in &report.features {
        let hook = feature.hook.as_deref().unwrap_or_default();
        let note = feature.note.as_deref().unwrap_or_default();
        let ok = if feature.ok { "yes" } else { "no" };
        println!("report\tfeature\t{name}\t{ok}\t{}\t{}", field(hook), field(note));
        for not in &feature.not_used {
            println!("report\tunused\t{}\t{}", field(&not.hook), field(&not.why));
        }
    }
    for (name, feature) in &report.features {
        let told = if feature.ok { &feature.hook } else { &feature.note };
        assert!(told.as_ref().is_some_and(|text| !text.is_empty()), "{name}: {feature:?}");
        // That the verifier takes a program on no kernel is a defect, whatever replaces it.
        let refused = feature.not_used.iter().find(|not| not.why.contains("refused it"));
        assert!(refused.is_none(), "{name}: {refused:?}");
    }
    assert!(forced().is_none_or(|forced| forced == backend), "{backend} though another is forced");
}

#[test]
fn no_program_takes_the_verifier_long() {
    let Some(watch) = watch_with_existing(ConnectionStream::builder()) else { return };
    let report = watch.handle.capabilities();
    let mut long = Vec::new();
    for program in &report.programs {
        // Kernels before 5.16 do not tell.
        let instructions = program.verified_insns.unwrap_or_default();
        println!("report\tprogram\t{}\t{}\t{instructions}", program.name, field(&program.hook));
        if instructions > MOST_INSTRUCTIONS {
            long.push((&program.name, instructions));
        }
    }
    assert!(!report.programs.is_empty());
    assert!(long.is_empty(), "more instructions than {MOST_INSTRUCTIONS}: {long:?}");
}

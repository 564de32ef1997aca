//! tests/kernels/verdicts.awk: whatever a guest says or fails to say becomes a verdict.

#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::process::{Command, Stdio};

/// Lines of fields, as they come from what a guest wrote.
fn verdicts(runs: &str, may_skip: &str, end: &str, output: &str) -> Vec<String> {
    let mut awk = Command::new("awk")
        .args(["-v", "kernel=6.1", "-v", &format!("runs={runs}")])
        .args(["-v", &format!("may_skip={may_skip}"), "-v", &format!("end={end}")])
        .args(["-f", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kernels/verdicts.awk")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    awk.stdin.take().unwrap().write_all(output.as_bytes()).unwrap();
    let output = awk.wait_with_output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| line.replace('\t', "|")).collect()
}

const LOADED: &str = "---- report::r stdout ----\nreport\tbackend\tkprobe\n\n";

#[test]
fn each_test_has_its_verdict_whatever_stands_between() {
    let output = format!(
        "== release 6.1.0\n== run kprobe\n\nrunning 4 tests\ntest a::plain ... ok\r\n\
         test a::noisy ... RTNETLINK answers: File exists\nok\ntest a::bad ... FAILED\n\
         test a::partly ... ok\ntest a::left ... ignored, takes long\n\nsuccesses:\n\n\
         ---- a::partly stdout ----\nskipped: no module here\n\n{LOADED}\nsuccesses:\n    a::plain\n\n\
         failures:\n\n---- a::bad stdout ----\nskipped: not, since it failed\n  left: 1\n\n\n\
         failures:\n    a::bad\n\n\
         test result: FAILED. 3 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out\n\
         == end kprobe 101\n"
    );
    let expected = [
        "kernel|6.1|6.1.0",
        "backend|6.1|kprobe|kprobe",
        "detail|6.1|kprobe|a::bad|skipped: not, since it failed",
        "detail|6.1|kprobe|a::bad|  left: 1",
        "case|6.1|kprobe|a::plain|ok|",
        "case|6.1|kprobe|a::noisy|ok|",
        "case|6.1|kprobe|a::bad|FAILED|",
        "case|6.1|kprobe|a::partly|skipped|no module here",
        "case|6.1|kprobe|a::left|skipped|takes long",
    ];
    assert_eq!(verdicts("kprobe", "", "", &output), expected);
}

#[test]
fn a_machine_that_ends_early_has_failed_what_it_did_not_finish() {
    let output = "== run fentry\ntest a::first ... ok\ntest a::second ... ";
    let expected = [
        "case|6.1|fentry|a::first|ok|",
        "case|6.1|fentry|a::second|FAILED|did not end: BUG",
        "case|6.1|fentry|(the run)|FAILED|ended without a code: BUG",
        "case|6.1|kprobe|(the run)|FAILED|not begun: BUG",
    ];
    assert_eq!(verdicts("fentry kprobe", "", "BUG", output), expected);
}

#[test]
fn a_run_that_loaded_nothing_has_failed_unless_it_may_be_skipped() {
    let output = "== run fentry\ntest a::t ... ok\n\nsuccesses:\n\n---- a::t stdout ----\n\
                  skipped: no fentry\n\ntest result: ok. 1 passed; 0 failed; 0 ignored\n\
                  == end fentry 0\n";
    let skipped = "case|6.1|fentry|a::t|skipped|no fentry";
    let failed = "case|6.1|fentry|(the run)|FAILED|this kernel has it, yet nothing was loaded";
    assert_eq!(verdicts("fentry", "", "", output), [skipped, failed]);
    assert_eq!(verdicts("fentry", "lockdown fentry", "", output), [skipped]);
}

#[test]
fn totals_that_do_not_agree_and_warnings_of_the_kernel_are_failures() {
    let output = format!(
        "== run kprobe\ntest a::t ... ok\n\nsuccesses:\n\n{LOADED}\
         test result: ok. 2 passed; 0 failed; 0 ignored\n== end kprobe 0\n\
         == kernel WARNING: at kernel/bpf\n"
    );
    let all = verdicts("kprobe", "", "", &output);
    let failed: Vec<_> = all.iter().filter(|line| line.contains("FAILED")).collect();
    assert_eq!(failed.len(), 2, "{all:?}");
    assert!(failed[0].contains("not understood") && failed[1].contains("WARNING"), "{all:?}");
}

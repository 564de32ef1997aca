//! Tools of others that PyPI has.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::Command;

fn path(name: &str) -> String {
    format!("{}/tests/fixtures/{name}.txt", env!("CARGO_MANIFEST_DIR"))
}

/// What `tests/fixtures/NAME.txt` lists.
pub fn list(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap()
}

/// The directory of programs of a Python environment with what `tests/fixtures/NAME.txt` lists;
/// `None`, and said, where that cannot be had. Made once for each list, in the build's directory.
pub fn environment(name: &str) -> Option<PathBuf> {
    let wanted = list(name);
    let list = path(name);
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let programs = venv.join("bin");
    let python = programs.join("python");
    // Two that want the same at once wait for each other.
    let lock = std::fs::File::create(venv.with_extension("lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    // Written last: an installation that was broken off is none, nor is one of an earlier list.
    let stamp = venv.join("installed.txt");
    let runs = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
    let works = || runs(Command::new(&python).args(["-m", "pip", "check"]));
    if std::fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) && works() {
        return Some(programs);
    }
    let made = runs(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))
        && runs(Command::new(&python).args(["-m", "pip", "install", "-q", "-r", &list]))
        && works();
    if !made {
        println!("skipped: what tests/fixtures/{name}.txt lists cannot be had from PyPI here");
        return None;
    }
    std::fs::write(stamp, wanted).unwrap();
    Some(programs)
}

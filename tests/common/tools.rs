//! Programs of others that tests drive.
#![allow(dead_code, missing_docs)]

use std::path::PathBuf;
use std::process::Command;

/// Where `script/tools` puts what is not installed.
pub fn directory() -> Option<PathBuf> {
    let directory = |variable: &str| std::env::var_os(variable).map(PathBuf::from);
    let cache = || {
        let cache = directory("XDG_CACHE_HOME").or_else(|| Some(directory("HOME")?.join(".cache")));
        Some(cache?.join("netspy/tools"))
    };
    directory("NETSPY_TOOLS").or_else(cache)
}

/// A program that is in PATH, or where `script/tools` puts what is not installed; `None`, and said,
/// where it is in neither.
pub fn program(name: &str) -> Option<PathBuf> {
    let fetched = directory().map(|tools| tools.join(name));
    let runs = |path: &PathBuf| {
        let output = Command::new(path).arg("--version").output();
        output.is_ok_and(|output| output.status.success())
    };
    let found = [Some(name.into()), fetched].into_iter().flatten().find(runs);
    if found.is_none() {
        println!("skipped: there is no {name} (script/bootstrap test fetches it, where it can)");
    }
    found
}

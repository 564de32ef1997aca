//! Tools of others that npm has.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::Command;

use super::tools;

/// Where `script/tools` puts what `tests/fixtures/mcp-tools` lists; `None`, and said, where that is
/// not, or is of another list.
pub fn mcp_tools() -> Option<Node> {
    let list = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/mcp-tools/package-lock.json");
    let directory = tools::directory().map(|tools| tools.join("mcp-tools"));
    let lock = |path: &Path| std::fs::read(path).ok();
    let found = directory
        .filter(|directory| lock(&directory.join("package-lock.json")) == lock(Path::new(list)));
    if found.is_none() {
        println!(
            "skipped: there are no MCP tools of npm (script/bootstrap test fetches them, where it can)"
        );
    }
    found.map(|directory| Node { programs: directory.join("node_modules/.bin") })
}

pub struct Node {
    programs: PathBuf,
}

impl Node {
    /// One of the programs, which finds the node that came with it. It is ended after this many
    /// seconds.
    pub fn program(&self, name: &str, seconds: u32) -> Command {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let all = [self.programs.clone()].into_iter().chain(std::env::split_paths(&path));
        let mut command = Command::new("timeout");
        command.arg(seconds.to_string()).arg(self.programs.join(name));
        command.env("PATH", std::env::join_paths(all).unwrap());
        command
    }
}

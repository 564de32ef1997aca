//! Completion scripts for shells, made from the arguments themselves.

use std::io::{self, Write};

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::args::Cli;

/// Arguments of `completions`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  netspy completions bash > /usr/share/bash-completion/completions/netspy
  netspy completions zsh > /usr/local/share/zsh/site-functions/_netspy
  netspy completions fish > ~/.config/fish/completions/netspy.fish
  source <(netspy completions bash)            for this shell alone")]
pub struct Completions {
    /// The shell
    #[arg(value_enum)]
    pub shell: For,
}

/// A shell that the script is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum For {
    /// GNU Bash, 4 or later.
    Bash,
    /// The Z shell.
    Zsh,
    /// fish.
    Fish,
}

/// Writes the script.
pub fn write(args: &Completions, out: &mut dyn Write) -> io::Result<()> {
    let shell = match args.shell {
        For::Bash => Shell::Bash,
        For::Zsh => Shell::Zsh,
        For::Fish => Shell::Fish,
    };
    // The generator knows no failing writers.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "netspy", &mut script);
    out.write_all(&script)
}

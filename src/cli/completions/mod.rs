//! Completion of the command line in bash, zsh and fish. Their scripts ask netspy itself
//! (`netspy complete`), which knows what can follow ([`suggest`](super::suggest)).

use std::ffi::OsString;
use std::io::{self, Write};

use clap::{Args, CommandFactory};
use tokio::runtime::Runtime;

use super::args::Cli;
use super::locate::{Capture, Named, locate};
use super::suggest::{self, Candidate, Next};

mod typed;

/// Arguments of `completions`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Commands, options and their values are completed, several of a list too, and the names of processes,
remotes, ports and units that the server has seen; after 'netspy run --' whatever the shell would
complete there.

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

/// Arguments of `complete`, which the scripts call.
#[derive(Debug, Clone, Args)]
pub struct Complete {
    /// Whose script asks
    #[arg(long, value_enum)]
    pub shell: For,
    /// Characters at which the shell cuts words by itself
    #[arg(long, default_value = "")]
    pub breaks: String,
    /// The line up to the cursor: its words, or for bash as it was typed
    #[arg(last = true)]
    pub line: Vec<OsString>,
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
    out.write_all(match args.shell {
        For::Bash => include_bytes!("netspy.bash"),
        For::Zsh => include_bytes!("netspy.zsh"),
        For::Fish => include_bytes!("netspy.fish"),
    })
}

/// Writes what can follow: a line that says of what kind it is, and a line for each word.
pub fn complete(
    args: &Complete,
    runtime: &Runtime,
    named: Named<'_>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let line = args.line.iter().map(|word| word.to_string_lossy().into_owned());
    let line: Vec<String> = line.collect();
    let typed = (args.shell == For::Bash).then(|| line.join(" "));
    let words = typed.as_deref().map_or(line, typed::words);
    let mut commands = Cli::command();
    commands.build();
    let server = suggest::given(&words, "server");
    let next = suggest::next(&commands, &words, &|by| {
        let named = Named { server: server.as_deref().or(named.server), ..named };
        // A capture of its own knows no names yet.
        let names = async {
            let found = locate(named, Capture::Never).await.ok()?;
            suggest::names(&*found.source, by).await
        };
        runtime.block_on(suggest::in_time(names))
    });
    match next {
        Next::Files => writeln!(out, "files"),
        Next::Command(first) => writeln!(out, "command {first}"),
        Next::Words(words) => {
            writeln!(out, "words")?;
            words.iter().try_for_each(|word| match &typed {
                Some(typed) => {
                    writeln!(out, "{}", typed::continued(typed, &word.word, &args.breaks))
                }
                None => writeln!(out, "{}", with_help(word)),
            })
        }
    }
}

fn with_help(candidate: &Candidate) -> String {
    format!("{}\t{}", candidate.word, candidate.help)
}

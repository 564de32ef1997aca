//! `mcp config`: what makes an assistant's program start netspy.

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::cli::failure::{Failure, note};
use crate::cli::locate::Named;
use crate::cli::render::answers::Printer;

/// Arguments of `mcp config`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
The text goes to standard output, where to put it to standard error. --server, --token-file and
--ca-cert are passed on, as are NETSPY_SERVER, NETSPY_TOKEN_FILE and NETSPY_CA_CERT; with --ssh only the
options are, which then mean what HOST knows by these names.

Examples:
  netspy mcp config | sh                                 Claude Code
  netspy mcp config --client cursor > .cursor/mcp.json
  netspy mcp config --client vscode --ssh admin@web-1
  netspy mcp config --ssh web-1 --server unix:/run/netspy/other.sock")]
pub struct Config {
    /// The assistant's program
    #[arg(long, value_enum, default_value_t, value_name = "NAME")]
    pub client: Client,
    /// Run netspy on this host over ssh, so that this machine needs no netspy
    #[arg(long, value_name = "HOST")]
    pub ssh: Option<String>,
}

/// Programs whose configuration is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Client {
    #[default]
    ClaudeCode,
    ClaudeDesktop,
    Vscode,
    Cursor,
}

/// Prints the snippet.
pub fn print(config: &Config, named: Named<'_>, printer: &mut Printer<'_>) -> Result<(), Failure> {
    let start = command(config, named)?;
    let (program, args) = (start[0].clone(), &start[1..]);
    let plain = json!({"command": program, "args": args});
    let text = match config.client {
        Client::ClaudeCode => {
            let quoted = quote(start.iter().map(String::as_str))?;
            format!("claude mcp add --scope user netspy -- {quoted}")
        }
        Client::ClaudeDesktop | Client::Cursor => pretty(&json!({"mcpServers": {"netspy": plain}})),
        Client::Vscode => {
            let server = json!({"type": "stdio", "command": program, "args": args});
            pretty(&json!({"servers": {"netspy": server}}))
        }
    };
    writeln!(printer.out, "{text}")?;
    printer.out.flush()?;
    note(match config.client {
        Client::ClaudeCode => "run this command once; 'claude mcp list' then shows netspy",
        Client::ClaudeDesktop => {
            "put this into claude_desktop_config.json (Settings, Developer, Edit Config), beside \
             what is there, and start Claude Desktop again"
        }
        Client::Vscode => "put this into .vscode/mcp.json, beside what is there",
        Client::Cursor => "put this into ~/.cursor/mcp.json, beside what is there",
    });
    Ok(())
}

/// Program and arguments; never empty.
fn command(config: &Config, named: Named<'_>) -> Result<Vec<String>, Failure> {
    let mut own = vec!["mcp".to_owned()];
    let files = [("--token-file", named.token_file), ("--ca-cert", named.ca_cert)];
    if let Some(server) = named.server.filter(|server| !server.is_empty()) {
        own.extend(["--server".to_owned(), server.to_owned()]);
    }
    for (flag, file) in files {
        let Some(file) = file else { continue };
        // The assistant's program starts elsewhere; what lies on another host lies there.
        let file = match config.ssh {
            Some(_) => file.to_owned(),
            None => std::path::absolute(file)?,
        };
        own.extend([flag.to_owned(), file.display().to_string()]);
    }
    let Some(host) = &config.ssh else {
        let program = std::env::current_exe()?;
        let mut all = vec![program.display().to_string()];
        all.extend(own);
        return Ok(all);
    };
    // ssh would take what begins with a dash for an option, of which some run commands.
    if host.is_empty() || host.starts_with('-') || host.chars().any(|c| c.is_whitespace()) {
        let text = format!("--ssh: '{host}' is no host (accepted: HOST or USER@HOST)");
        return Err(Failure::Usage(text));
    }
    // The words go through a shell over there.
    let remote = quote(std::iter::once("netspy").chain(own.iter().map(String::as_str)))?;
    let ssh = ["ssh", "-T", "-o", "BatchMode=yes", host, &remote];
    Ok(ssh.map(str::to_owned).to_vec())
}

fn quote<'a>(words: impl Iterator<Item = &'a str>) -> Result<String, Failure> {
    shlex::try_join(words).map_err(|_| Failure::Usage("a value holds a NUL character".to_owned()))
}

fn pretty(value: &Value) -> String {
    format!("{value:#}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(client: Client, ssh: Option<&str>) -> Config {
        Config { client, ssh: ssh.map(str::to_owned) }
    }

    #[test]
    fn what_is_named_is_passed_on_and_a_shell_on_the_way_sees_one_word() {
        let server = Some("http://127.0.0.1:8080");
        let file = std::path::Path::new("/etc/my tokens");
        let named = Named { server, token_file: Some(file), ca_cert: None };
        let here = command(&config(Client::Cursor, None), named).unwrap();
        let there = ["mcp", "--server", "http://127.0.0.1:8080", "--token-file", "/etc/my tokens"];
        assert_eq!(here[1..], there);
        let ssh = command(&config(Client::Cursor, Some("ann@web-1")), named).unwrap();
        assert_eq!(ssh[..5], ["ssh", "-T", "-o", "BatchMode=yes", "ann@web-1"]);
        let words = shlex::split(&ssh[5]).unwrap();
        assert_eq!((words[0].as_str(), &words[1..]), ("netspy", &there.map(str::to_owned)[..]));
    }

    #[test]
    fn a_file_is_found_from_wherever_this_program_is_started() {
        let file = std::path::Path::new("t.tok");
        let named = Named { token_file: Some(file), ..Named::default() };
        let here = command(&config(Client::Cursor, None), named).unwrap();
        let absolute = std::env::current_dir().unwrap().join(file);
        assert_eq!(here.last().map(String::as_str), absolute.to_str());
        // Of another host only who is there knows where it is.
        let named = Named { token_file: Some(file), ..Named::default() };
        let there = command(&config(Client::Cursor, Some("web-1")), named).unwrap();
        assert!(there[5].ends_with("--token-file t.tok"), "{there:?}");
    }

    #[test]
    fn a_host_that_ssh_would_take_for_an_option_is_refused() {
        for host in ["-oProxyCommand=id", "", "a b"] {
            let refused = command(&config(Client::Cursor, Some(host)), Named::default());
            assert!(matches!(refused, Err(Failure::Usage(_))), "{host}");
        }
    }
}

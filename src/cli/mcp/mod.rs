//! `mcp`: the tools for AI assistants, over standard input and output or HTTP; and what sets that
//! up and looks after it.

mod config;
mod doctor;
mod source;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};

use super::failure::Failure;
#[cfg(any(feature = "ai", feature = "server"))]
use super::failure::note;
use super::locate::Named;
use super::render::answers::Printer;
use super::signals::Signals;
use crate::mcp::{self, McpError};
use crate::tools::{Advisor, AllTools, RuleBased};
use source::Lazy;

/// Arguments of `mcp`.
#[derive(Debug, Clone, Default, Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_help = "\
Standard input and output are for an assistant's program, which starts this by itself.

Examples:
  netspy mcp config --client claude-code       how to make an assistant start it
  netspy mcp config --ssh web-1                the same for another host, over ssh
  netspy mcp doctor                            whether all of it works
  netspy mcp --http 127.0.0.1:8090             for clients that speak HTTP")]
pub struct Mcp {
    /// Serve HTTP at http://ADDR:PORT/mcp; another address than loopback needs --http-token-file
    #[arg(long, value_name = "ADDR:PORT")]
    pub http: Option<SocketAddr>,
    /// A file (mode 0600) with tokens, one of which a client of --http has to show
    #[arg(long, value_name = "FILE", requires = "http")]
    pub http_token_file: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Option<McpCommand>,
}

impl Mcp {
    /// Whether netspy is to run elsewhere, where what the environment of this host names is another
    /// server, or none.
    pub fn is_for_another_host(&self) -> bool {
        matches!(&self.command, Some(McpCommand::Config(config)) if config.ssh.is_some())
    }
}

/// What is there beside serving.
#[derive(Debug, Clone, Subcommand)]
pub enum McpCommand {
    /// Print what an assistant's program needs to start netspy
    Config(config::Config),
    /// Check the whole way from an assistant to the records, and say what to mend
    #[command(after_help = "\
Starts netspy mcp as an assistant's program would, shakes hands, lists the tools and calls each once. Exit
codes: 0 all of it works, 3 something does not.

Examples:
  netspy mcp doctor
  netspy mcp doctor --server unix:/run/netspy/api.sock")]
    Doctor,
}

/// What is there beside serving.
pub async fn run_beside(
    args: &Mcp,
    named: Named<'_>,
    printer: &mut Printer<'_>,
) -> Result<(), Failure> {
    match &args.command {
        Some(McpCommand::Config(config)) => config::print(config, named, printer),
        Some(McpCommand::Doctor) => doctor::run(named, printer).await,
        None => Ok(()),
    }
}

/// Serves until the client ends it, or a signal.
pub async fn serve(args: &Mcp, named: Named<'_>) -> Result<(), Failure> {
    let source = Arc::new(Lazy::new(named)?);
    // Looked for at once, so that a capture of its own begins with the conversation; not waited
    // for, so that a client gets its tools in any case.
    let looked_for = Arc::clone(&source);
    tokio::spawn(async move { looked_for.look().await });
    let tools = Arc::new(AllTools::new(source, advisor()));
    match args.http {
        None => {
            let mut signals = Signals::new()?;
            mcp::serve_stdio(mcp::Mcp::new(tools), signals.wait()).await.map_err(failure)
        }
        Some(address) => http(tools, address, args.http_token_file.as_deref()).await,
    }
}

/// A model where NETSPY_MODEL names one, whatever key there is; rules otherwise.
fn advisor() -> Arc<dyn Advisor> {
    #[cfg(feature = "ai")]
    match crate::ai::Settings::from_environment(None) {
        Ok(settings) => return Arc::new(crate::ai::Assistant::new(settings)),
        Err(error) => note(&format!("no model can be asked, rules answer: {error}")),
    }
    Arc::new(RuleBased)
}

fn failure(error: McpError) -> Failure {
    Failure::Usage(error.to_string())
}

#[cfg(feature = "server")]
async fn http(
    tools: Arc<AllTools>,
    address: SocketAddr,
    token_file: Option<&std::path::Path>,
) -> Result<(), Failure> {
    use crate::api::Tokens;
    use crate::server::{listen, serve_mcp};

    let tokens = token_file.map(Tokens::read).transpose();
    let tokens = tokens.map_err(|e| Failure::Usage(format!("--http-token-file: {e}")))?;
    if tokens.is_none() && !address.ip().to_canonical().is_loopback() {
        return Err(Failure::Usage(format!(
            "--http: {address} can be reached from other hosts, and nobody would have to show who \
             they are: add --http-token-file FILE, or serve 127.0.0.1:{}",
            address.port()
        )));
    }
    let listener = listen::tcp(address).await;
    let listener = listener.map_err(|error| {
        let why = match error {
            // Its own words name options of the server.
            listen::ListenError::PortInUse { .. } => format!(
                "{address} is in use: another program listens there (ss -ltnp 'sport = :{}' shows \
                 it); choose another port",
                address.port()
            ),
            listen::ListenError::Tcp { source, .. } => {
                format!("cannot listen on {address}: {source}; choose another address")
            }
            error => error.to_string(),
        };
        Failure::Usage(format!("--http: {why}"))
    })?;
    let address = listener.local_addr()?;
    let mut signals = Signals::new()?;
    note(&format!("serving MCP at http://{address}{}", mcp::PATH));
    serve_mcp(mcp::maker(tools), listener, tokens.map(Arc::new), signals.wait()).await;
    Ok(())
}

#[cfg(not(feature = "server"))]
async fn http(
    _tools: Arc<AllTools>,
    _address: SocketAddr,
    _token_file: Option<&std::path::Path>,
) -> Result<(), Failure> {
    let text = "--http: this netspy was built without its feature 'server'";
    Err(Failure::Usage(text.to_owned()))
}

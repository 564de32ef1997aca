//! The log, on standard error.

use tracing_subscriber::Registry;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

use super::options::LogFormat;

/// Changes the level of the log while it is written.
#[derive(Debug, Clone)]
pub struct Level(reload::Handle<Targets, Registry>);

impl Level {
    /// Another level from now on.
    pub fn set(&self, level: tracing::Level) {
        // Fails only when there is no log any more.
        let _ = self.0.reload(targets(level));
    }
}

/// What is logged at a level. Each request of an assistant makes the MCP library say three lines, and
/// each that is refused a warning, which are of use only to who looks for a fault in it: anybody could fill
/// the log with them.
fn targets(level: tracing::Level) -> Targets {
    let of_library = if level > tracing::Level::INFO { level } else { tracing::Level::ERROR };
    Targets::new().with_default(level).with_target("rmcp", of_library)
}

/// Sets up the log of this process.
pub fn set_up(format: LogFormat, level: tracing::Level) -> Level {
    let (filter, handle) = reload::Layer::new(targets(level));
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    // A standard error that nobody reads any more ends no task: told of, it would panic.
    let lines = lines.log_internal_errors(false);
    // A second subscriber is the only error, and then there is a log already.
    let _ = match format {
        LogFormat::Text => {
            let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
            let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
            registry.with(lines.with_ansi(colour)).try_init()
        }
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
    Level(handle)
}

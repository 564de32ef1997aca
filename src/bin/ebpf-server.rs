//! `ebpf-server`: captures the connection attempts of this host, answers questions over HTTP.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use netspy::server::{
    self, CheckReport, ConfigError, Configuration, Options, ServerError, logging,
};

/// Wrong options, wherever they stand.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let configuration = match Configuration::load(&arguments) {
        Ok(configuration) => configuration,
        // Help and the version come this way, too.
        Err(ConfigError::Usage(error)) => error.exit(),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            return ExitCode::from(USAGE);
        }
    };
    let options = &configuration.options;
    let log = logging::set_up(options.log_format, options.log_level);
    let result = match options.check {
        true => check(options),
        false => server::run(configuration, arguments, Some(log)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn check(options: &Options) -> Result<(), ServerError> {
    let CheckReport { attach: report, history, model, .. } = server::check(options)?;
    let mut text = String::from("options: ok\n");
    if let Some(history) = history {
        text += &format!("history: {history}\n");
    }
    if let Some(model) = model {
        text += &format!("model: {model}\n");
    }
    let backend = report.backend.map_or_else(|| "replay".to_owned(), |b| b.to_string());
    text += &format!("backend: {backend}\n");
    for (name, feature) in &report.features {
        let verdict = if feature.ok { "ok" } else { "missing" };
        let hook = feature.hook.as_deref().unwrap_or("-");
        let note = feature.note.as_deref().map_or_else(String::new, |note| format!(" ({note})"));
        text += &format!("{name}: {verdict}, {hook}{note}\n");
    }
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(|source| ServerError::System { what: "cannot write the report", source })
}

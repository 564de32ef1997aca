//! `ebpf-server`: captures the connection attempts of this host, answers questions over HTTP.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use netspy::server::{self, Options, ServerError, logging};
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let options = Options::parse();
    logging::set_up(options.log_format, options.log_level);
    let result = if options.check { check(&options) } else { run(&options) };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(options: &Options) -> Result<(), ServerError> {
    let failed = |what| move |source| ServerError::System { what, source };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("netspy-server")
        .enable_all()
        .build()
        .map_err(failed("cannot start the runtime"))?;
    runtime.block_on(async {
        // Before anything is attached: a signal from here on ends the server in order.
        let mut terminate =
            signal(SignalKind::terminate()).map_err(failed("cannot handle signals"))?;
        let mut interrupt =
            signal(SignalKind::interrupt()).map_err(failed("cannot handle signals"))?;
        server::run(options, async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        })
        .await
    })
}

fn check(options: &Options) -> Result<(), ServerError> {
    let report = server::check(options)?;
    let mut text = String::from("options: ok\n");
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

//! Asks which process connects where, and how it ended.

fn main() -> std::process::ExitCode {
    netspy::cli::run(std::env::args_os())
}

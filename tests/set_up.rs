//! What the package promises to those who build it: the library alone brings in no server and no
//! command line, and a build without changes does nothing.

#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

/// cargo in this package. What the cargo around this test set does not reach it, so that build
/// scripts see what they see in a build by hand.
fn cargo(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO"));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        let of_the_user = ["CARGO_HOME", "CARGO_TARGET_DIR", "CARGO_NET_OFFLINE"];
        if name.starts_with("CARGO") && !of_the_user.contains(&&*name) {
            command.env_remove(&*name);
        }
    }
    let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).args(arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo {arguments:?}: {errors}");
    output
}

#[test]
fn the_library_alone_compiles_no_server_no_command_line_and_no_model_client() {
    let arguments =
        ["tree", "--locked", "--no-default-features", "-e", "normal", "--prefix", "none"];
    let output = cargo(&[&arguments[..], &["--format", "{p}"]].concat());
    let tree = String::from_utf8(output.stdout).unwrap();
    let names: Vec<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(names.contains(&"netspy") && names.contains(&"libbpf-rs"), "{names:?}");
    let unwanted = [
        "anstream",
        "anstyle",
        "async-trait",
        "axum",
        "clap",
        "futures-util",
        "hyper",
        "hyper-util",
        "openai-api-rs",
        "reqwest",
        "rmcp",
        "rustyline",
        "sd-notify",
        "tokio",
        "tracing-subscriber",
    ];
    let found: Vec<_> = names.iter().filter(|name| unwanted.contains(name)).collect();
    assert!(found.is_empty(), "the library alone brings in {found:?}");
}

#[test]
fn a_second_build_without_changes_does_nothing() {
    // With what the tests bring in, this has been built: they run the programs.
    let arguments = [
        "test",
        "--no-run",
        "--locked",
        "--features",
        "bench-peers",
        "--lib",
        "--bins",
        "--message-format",
        "json",
    ];
    cargo(&arguments);
    let output = cargo(&arguments);
    let messages = String::from_utf8(output.stdout).unwrap();
    let stale: Vec<&str> =
        messages.lines().filter(|line| line.contains(r#""fresh":false"#)).collect();
    assert!(stale.is_empty(), "built again: {stale:#?}");
    assert!(messages.contains(r#""fresh":true"#), "{messages}");
}

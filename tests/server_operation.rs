//! `ebpf-server` as a service: configuration file, reload, tokens, TLS, what the service manager is
//! told. Nothing here captures.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Output;

use common::daemon::{Daemon, PATIENCE, command, recording};
use common::records::*;
use rustix::process::Signal;

const TOKEN: &str = "0123456789abcdef-a-token";
const OTHER_TOKEN: &str = "fedcba9876543210-another";

struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("netspy-operation-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        let directory = Directory(path);
        let bytes = recording(&[refused(1, &info(7, "curl"))]);
        std::fs::write(directory.path("recording.jsonl"), bytes).unwrap();
        directory
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// A configuration file that begins with what all tests need.
    fn config(&self, more: &str) -> String {
        let recording = self.path("recording.jsonl");
        let text = format!("replay = {recording:?}\nno-unix = true\n{more}");
        self.write("server.toml", &text)
    }

    /// A certificate for localhost, and its key.
    fn certificate(&self) -> (String, String) {
        self.certificate_of("localhost", rcgen::IsCa::NoCa)
    }

    fn certificate_of(&self, name: &str, is_ca: rcgen::IsCa) -> (String, String) {
        let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.is_ca = is_ca;
        let key = rcgen::KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap();
        (self.write("cert.pem", &cert.pem()), self.write("key.pem", &key.serialize_pem()))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn configured(config: &str) -> Daemon {
    let mut command = command(env!("CARGO_BIN_EXE_ebpf-server"));
    command.args(["--config", config, "--port", "0"]);
    Daemon::start(command)
}

fn ask(server: &Daemon, header: &str) -> (u16, String) {
    server.get("/api/v1/connections", header)
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

fn netspy(arguments: &[&str]) -> Output {
    command(env!("CARGO_BIN_EXE_netspy")).args(arguments).output().unwrap()
}

/// As where the service's log was piped to something that has ended.
#[test]
fn a_log_that_nobody_reads_any_more_ends_nothing() {
    let directory = Directory::new("unread");
    let mut server = command(env!("CARGO_BIN_EXE_ebpf-server"));
    server.args(["--port", "0", "--config", &directory.config("")]);
    let mut server = server.spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(server.stderr.take().unwrap()));
    assert!(lines.any(|line| line.unwrap().contains("ready: listening on ")));
    drop(lines);
    // Which it tells of.
    rustix::process::kill_process(rustix::process::Pid::from_child(&server), Signal::TERM).unwrap();
    assert_eq!(server.wait().unwrap().code(), Some(0));
}

#[test]
fn the_version_names_the_commit_where_it_is_known() {
    for program in [env!("CARGO_BIN_EXE_ebpf-server"), env!("CARGO_BIN_EXE_netspy")] {
        let output = command(program).arg("--version").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let name = Path::new(program).file_name().unwrap().to_str().unwrap();
        assert_eq!(text.trim(), format!("{name} {}", netspy::VERSION_AND_COMMIT));
    }
}

#[test]
fn a_wrong_file_is_refused_with_its_line_and_what_is_accepted() {
    let directory = Directory::new("wrong");
    for (text, says) in [
        ("colour = \"red\"\n", "server.toml:3: there is no option 'colour' (accepted: "),
        ("log-level = \"loud\"\n", "server.toml:3: log-level: 'loud' is not accepted"),
        ("token-file = \"/nonexistent/token\"\n", "/nonexistent/token"),
    ] {
        let config = directory.config(text);
        let output = command(env!("CARGO_BIN_EXE_ebpf-server"))
            .args(["--config", &config, "--check"])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(says), "{said}");
        assert_eq!(output.status.code(), Some(2), "{said}");
    }
}

#[test]
fn a_file_that_may_not_grow_does_not_end_the_server() {
    let directory = Directory::new("file-size");
    let server = configured(&directory.config(""));
    // What the kernel sends to who writes beyond the limit on file sizes.
    server.signal(Signal::XFSZ);
    assert_eq!(ask(&server, "").0, 200);
    server.stop();
}

#[test]
fn flags_come_before_variables_and_these_before_the_file() {
    let directory = Directory::new("order");
    let config = directory.config("max-streams = 1\nlog-format = \"json\"\nlog-level = \"loud\"\n");
    let check = |variable: &str, arguments: &[&str]| {
        let mut command = command(env!("CARGO_BIN_EXE_ebpf-server"));
        command.args(["--check"]).args(arguments).env("NETSPY_CONFIG", &config);
        command.env("NETSPY_LOG_LEVEL", variable).output().unwrap()
    };
    // A wrong value is wrong, even where another would win.
    assert_eq!(check("info", &[]).status.code(), Some(2));
    directory.config("log-level = \"error\"\n");
    assert_eq!(check("info", &[]).status.code(), Some(0));
    assert_eq!(check("loud", &[]).status.code(), Some(2));
    assert_eq!(check("debug", &["--log-level", "warn"]).status.code(), Some(0));
    // An address that only one of the places would refuse.
    let listens = |variables: &[(&str, &str)], arguments: &[&str]| {
        let mut command = command(env!("CARGO_BIN_EXE_ebpf-server"));
        command.args(["--check", "--config", &config]).args(arguments);
        let output = command.envs(variables.iter().copied()).output().unwrap();
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    directory.config("port = 5\n");
    let said = listens(&[], &["--listen", "10.0.0.1:6"]);
    assert!(said.contains("10.0.0.1:6:"), "{said}");
    let said = listens(&[("NETSPY_LISTEN", "10.0.0.1:6")], &[]);
    assert!(said.contains("10.0.0.1:6:"), "{said}");
    let said = listens(&[("NETSPY_PORT", "7")], &["--listen", "10.0.0.1:6"]);
    assert!(said.contains("10.0.0.1:6:"), "{said}");
    let said = listens(&[("NETSPY_LISTEN", "10.0.0.1:6"), ("NETSPY_PORT", "7")], &[]);
    assert!(said.contains("10.0.0.1:7:"), "{said}");
}

#[test]
fn a_check_says_what_could_not_be_made() {
    let directory = Directory::new("places");
    let config = directory.config("");
    let file = directory.path("recording.jsonl");
    let file = file.to_str().unwrap();
    // What the command line says rules out the recording that the file names.
    for (arguments, says) in [
        (["--unix", "/nonexistent/s"], "--unix /nonexistent/s: cannot be made there: No such file"),
        (["--unix", file], "no socket"),
        (["--record", "/nonexistent/f"], "--record /nonexistent/f: cannot be made there: No such"),
        (["--record", file], "exist"),
        (["--data-dir", "/proc/x"], "--data-dir /proc/x: cannot be made there: "),
    ] {
        let mut command = command(env!("CARGO_BIN_EXE_ebpf-server"));
        let output =
            command.args(["--config", &config, "--check"]).args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains(says), "{arguments:?}: {said}");
    }
    // A switch that is off excludes nothing, wherever it is said.
    let socket = directory.path("s");
    let mut command = command(env!("CARGO_BIN_EXE_ebpf-server"));
    command.args(["--config", &config, "--check", "--unix", socket.to_str().unwrap()]);
    assert_eq!(command.env("NETSPY_NO_UNIX", "false").output().unwrap().status.code(), Some(0));
}

#[test]
fn sighup_reads_what_can_change_and_names_what_cannot() {
    let directory = Directory::new("reload");
    let token = directory.write("token", TOKEN);
    let config = directory.config(&format!("token-file = {token:?}\n"));
    let server = configured(&config);
    assert_eq!(ask(&server, &bearer(TOKEN)).0, 200);
    // A new token, and a new limit.
    directory.write("token", OTHER_TOKEN);
    directory
        .config(&format!("token-file = {token:?}\nmax-connections = 100\nlog-level = \"debug\"\n"));
    let line = server.reload("reloaded");
    assert!(line.contains("log-level") && line.contains("max-connections"), "{line}");
    assert_eq!(ask(&server, &bearer(TOKEN)).0, 401);
    assert_eq!(ask(&server, &bearer(OTHER_TOKEN)).0, 200);
    // What takes a restart is named, each time.
    directory.config(&format!("token-file = {token:?}\nmemory-limit = \"1GiB\"\n"));
    for _ in 0..2 {
        server.signal(Signal::HUP);
        let line = server.says("take a restart");
        assert!(line.contains("memory-limit"), "{line}");
        server.says("reloaded");
    }
    // What is wrong changes nothing, and says why.
    directory.write("token", "two words");
    let line = server.reload("stays as it was");
    assert!(line.contains("line 1"), "{line}");
    directory.write("token", OTHER_TOKEN);
    directory.config("nonsense");
    let line = server.reload("stays as it was");
    assert!(line.contains("server.toml:3"), "{line}");
    assert_eq!(ask(&server, &bearer(OTHER_TOKEN)).0, 200);
    server.stop();
}

#[test]
fn without_the_token_there_is_no_answer_and_with_it_command_lines_are_shown() {
    let directory = Directory::new("token");
    let token = directory.write("token", TOKEN);
    let config = directory.config(&format!("token-file = {token:?}\n"));
    let server = configured(&config);
    for header in ["", &bearer(OTHER_TOKEN), "Authorization: Basic eDp5\r\n"] {
        let (status, answer) = ask(&server, header);
        assert_eq!(status, 401, "{answer}");
        assert!(answer.to_lowercase().contains("www-authenticate: bearer"), "{answer}");
        assert!(answer.contains("application/problem+json") && !answer.contains("curl"));
    }
    let (status, answer) = ask(&server, &bearer(TOKEN));
    assert!(status == 200 && answer.contains("curl --secret"), "{answer}");
    // A token makes it plain that no page of another site asks.
    let (status, _) = ask(&server, &format!("Host: web-1.example.com\r\n{}", bearer(TOKEN)));
    assert_eq!(status, 200);
    let url = format!("http://127.0.0.1:{}", server.port);
    let output = netspy(&["list", "--server", &url]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(3) && said.contains("--token-file"), "{said}");
    let output = netspy(&["list", "--server", &url, "--token-file", &token]);
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && shown.contains("curl"), "{output:?}");
    server.stop();
    // Others may read it now.
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o644)).unwrap();
    let output = command(env!("CARGO_BIN_EXE_ebpf-server"))
        .args(["--config", &config, "--port", "0"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && said.contains("chmod 600"), "{said}");
}

#[test]
fn without_a_token_command_lines_are_withheld_and_every_address_is_loopback() {
    let directory = Directory::new("loopback");
    let server = configured(&directory.config(""));
    let (status, answer) = ask(&server, "");
    assert!(status == 200 && answer.contains("curl") && !answer.contains("--secret"), "{answer}");
    server.stop();
    let output = command(env!("CARGO_BIN_EXE_ebpf-server"))
        .args(["--config", &directory.config(""), "--listen", "0.0.0.0:0"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && said.contains("--token-file"), "{said}");
}

#[test]
fn tls_is_spoken_with_who_knows_the_certificate_which_can_be_exchanged() {
    let directory = Directory::new("tls");
    let token = directory.write("token", TOKEN);
    let (cert, key) = directory.certificate();
    let config = directory
        .config(&format!("token-file = {token:?}\ntls-cert = {cert:?}\ntls-key = {key:?}\n"));
    let server = configured(&config);
    let old = directory.write("old.pem", &std::fs::read_to_string(&cert).unwrap());
    let url = format!("https://localhost:{}", server.port);
    let asks = |certificate: &str| {
        let arguments =
            ["status", "--server", &url, "--ca-cert", certificate, "--token-file", &token];
        let output = netspy(&arguments);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let works = |(code, said): (Option<i32>, String)| assert_eq!(code, Some(0), "{said}");
    works(asks(&cert));
    // Who knows another certificate trusts this server as little as nobody's.
    let strangers = Directory::new("tls-stranger");
    let (code, said) = asks(&strangers.certificate().0);
    assert!(code == Some(3) && said.contains("--ca-cert"), "{said}");
    let output = netspy(&["status", "--server", &url.replace("https", "http")]);
    assert_eq!(output.status.code(), Some(3));
    // Clients that speak no TLS, or stop in the middle, harm nobody.
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01\xff\xff", b""] {
        let mut stream = TcpStream::connect(format!("127.0.0.1:{}", server.port)).unwrap();
        stream.write_all(bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    }
    directory.certificate();
    server.reload("reloaded");
    works(asks(&cert));
    assert_eq!(asks(&old).0, Some(3));
    // One that is an authority too, as openssl makes them; and one for somebody else.
    let authority = || rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    directory.certificate_of("localhost", authority());
    server.reload("reloaded");
    works(asks(&cert));
    directory.certificate_of("web-1.example.com", authority());
    server.reload("reloaded");
    assert_eq!(asks(&cert).0, Some(3));
    directory.certificate();
    server.reload("reloaded");
    // A key that does not belong to the certificate leaves both as they were.
    directory.write("key.pem", &std::fs::read_to_string(strangers.path("key.pem")).unwrap());
    server.reload("stays as it was");
    works(asks(&cert));
    server.stop();
}

#[test]
fn the_service_manager_is_told_everything() {
    let directory = Directory::new("notify");
    let path = directory.path("notify.sock");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let hears = |wanted: &str| loop {
        let mut bytes = [0; 4096];
        let length = manager.recv(&mut bytes).unwrap_or_else(|error| panic!("{wanted}: {error}"));
        let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
        if text.lines().any(|line| line == wanted) {
            return text;
        }
    };
    let mut command = command(env!("CARGO_BIN_EXE_ebpf-server"));
    command.args(["--config", &directory.config(""), "--port", "0"]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "200000");
    let server = Daemon::start(command);
    assert!(hears("READY=1").contains("STATUS=listening on http://127.0.0.1:"));
    for _ in 0..3 {
        hears("WATCHDOG=1");
    }
    server.signal(Signal::HUP);
    assert!(hears("RELOADING=1").contains("MONOTONIC_USEC="));
    hears("READY=1");
    server.signal(Signal::TERM);
    hears("STOPPING=1");
    server.stop();
}

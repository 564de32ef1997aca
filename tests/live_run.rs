//! `netspy run` on the running kernel: what it reports of real commands, and what it leaves alone.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const NOBODY: u32 = 65_534;

/// Whether these can run here; says why not.
fn can_capture() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: this takes root");
    }
    root
}

fn netspy(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_netspy"));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("NETSPY_") || name.starts_with("SUDO_") {
            command.env_remove(name);
        }
    }
    command.arg("run").args(arguments).stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    netspy(arguments).output().unwrap()
}

/// What the command did, as JSON.
fn report(arguments: &[&str]) -> (Value, Output) {
    let file = Scratch::new("report.json");
    let path = file.0.to_str().unwrap();
    let output = run(&[&["--output", "json", "--report", path], arguments].concat());
    let text = std::fs::read_to_string(&file.0).unwrap();
    // Command lines may hold secrets.
    let mode = std::fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "{mode:o}");
    let report = serde_json::from_str(&text);
    (report.unwrap_or_else(|error| panic!("{error}: {text}\n{output:?}")), output)
}

fn groups(report: &Value) -> Vec<(&str, &str, u64)> {
    let groups = report["groups"].as_array().unwrap().iter();
    let mut all: Vec<_> = groups
        .map(|g| {
            let text = |name: &str| g[name].as_str().unwrap();
            (text("place"), text("outcome"), g["count"].as_u64().unwrap())
        })
        .collect();
    all.sort_unstable();
    all
}

/// A file of one test, gone with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let thread = std::thread::current();
        let test = thread.name().unwrap_or("main").replace("::", "-");
        let name = format!("netspy-run-{}-{test}-{name}", std::process::id());
        Scratch(std::env::temp_dir().join(name))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A port of this host where nobody listens.
fn closed() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A connection in the words of a shell.
fn connect(to: SocketAddr) -> String {
    format!("exec 3<>/dev/tcp/{}/{}", to.ip(), to.port())
}

/// Others that connect all the time, as long as this lives.
struct Strangers(std::sync::Arc<AtomicBool>, Option<std::thread::JoinHandle<u64>>);

impl Strangers {
    fn new(to: SocketAddr) -> Self {
        let ends = std::sync::Arc::new(AtomicBool::new(false));
        let end = std::sync::Arc::clone(&ends);
        let thread = std::thread::spawn(move || {
            let mut count = 0;
            while !end.load(Ordering::Acquire) {
                let _ = TcpStream::connect(to);
                count += 1;
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            count
        });
        Strangers(ends, Some(thread))
    }

    fn end(mut self) -> u64 {
        self.0.store(true, Ordering::Release);
        self.1.take().unwrap().join().unwrap()
    }
}

#[test]
fn what_was_reached_and_what_was_not_is_reported_and_nothing_of_others() {
    if !can_capture() {
        return;
    }
    let (refused, strange, listener) =
        (closed(), closed(), TcpListener::bind("127.0.0.1:0").unwrap());
    let open = listener.local_addr().unwrap();
    let strangers = Strangers::new(strange);
    let script =
        format!("({}); ({}) & wait; {}; exit 3", connect(refused), connect(refused), connect(open));
    let (report, output) = report(&["--", "bash", "-c", &script]);
    assert!(strangers.end() > 0);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let mut wanted = [(open.to_string(), "established", 1), (refused.to_string(), "refused", 2)];
    wanted.sort_unstable();
    let wanted: Vec<_> = wanted.iter().map(|(place, o, n)| (place.as_str(), *o, *n)).collect();
    assert_eq!(groups(&report), wanted, "{report:#}");
    assert_eq!((&report["connections"], &report["unsuccessful"]), (&3.into(), &2.into()));
    assert_eq!(report["exit"], serde_json::json!({"code": 3, "signal": null}));
    assert_eq!(report["command"], serde_json::json!(["bash", "-c", script]));
    assert_eq!(report["accounting"]["complete"], true, "{report:#}");
    assert!(report["accounting"]["filtered"].as_u64().unwrap() > 0, "{report:#}");
    // What the command says is its own.
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.stdout.is_empty() && stderr.contains("Connection refused"), "{stderr}");
    assert!(!stderr.contains("netspy"), "{stderr}");
}

#[test]
fn a_person_reads_first_what_could_not_be_reached() {
    if !can_capture() {
        return;
    }
    let (refused, listener) = (closed(), TcpListener::bind("127.0.0.1:0").unwrap());
    let open = listener.local_addr().unwrap();
    let script = format!("echo out; ({}) 2>/dev/null; {}", connect(refused), connect(open));
    let output = run(&["--live", "bash", "-c", &script]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), &*output.stdout), (Some(0), &b"out\n"[..]), "{said}");
    let place = |text: &str| said.find(text).unwrap_or_else(|| panic!("no '{text}' in {said}"));
    assert!(place("ended with exit code 0") < place("\nCould not reach\n"), "{said}");
    assert!(place("\nCould not reach\n") < place("\nReached\n"), "{said}");
    assert!(said.contains("2 connections, 1 unsuccessful"), "{said}");
    for (address, outcome) in [(refused, "refused"), (open, "established")] {
        let lines =
            said.lines().filter(|l| l.contains(&address.to_string()) && l.contains(outcome));
        assert_eq!(lines.count(), 2, "as it happened, and in the report: {said}");
    }
}

/// A datagram that met a closed port and whose socket was told so, one that somebody may have read,
/// and a socket that only has a peer.
#[test]
fn a_datagram_is_reached_by_nobody_as_far_as_is_known() {
    if !can_capture() {
        return;
    }
    let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let open = UdpSocket::bind("127.0.0.1:0").unwrap();
    let script = format!(
        "import socket\n\
         def connected(port):\n    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n    \
         s.connect((\"127.0.0.1\", port))\n    return s\n\
         a = connected({closed})\na.send(b\"x\")\n\
         try:\n    a.settimeout(30)\n    a.recv(1)\nexcept ConnectionRefusedError:\n    pass\n\
         b = connected({open})\nb.send(b\"x\")\n\
         c = connected(9)\n",
        closed = closed.port(),
        open = open.local_addr().unwrap().port(),
    );
    let output = run(&["--all", "--", "python3", "-c", &script]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    let part = |title: &str| {
        let (_, part) = said.split_once(&format!("\n{title}\n")).unwrap_or_default();
        part.split("\n\n").next().unwrap_or_default().to_owned()
    };
    assert!(part("Could not reach").contains(&closed.to_string()), "{said}");
    assert!(
        part("Sent; no answer is known").contains(&open.local_addr().unwrap().to_string()),
        "{said}"
    );
    let silent = part("Datagram sockets that are not known to have sent anything");
    assert!(silent.contains("127.0.0.1:9 "), "{said}");
    assert!(!said.contains("\nReached\n"), "{said}");
}

#[test]
fn every_connection_is_a_line_of_json() {
    if !can_capture() {
        return;
    }
    let refused = closed();
    let script = format!("for i in 1 2 3; do ({}); done 2>/dev/null", connect(refused));
    let file = Scratch::new("report.jsonl");
    let path = file.0.to_str().unwrap();
    let output = run(&["--output", "jsonl", "--report", path, "--", "bash", "-c", &script]);
    assert_eq!(output.status.code(), Some(1));
    let text = std::fs::read_to_string(&file.0).unwrap();
    let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.len(), 3, "{text}");
    let pids: std::collections::BTreeSet<_> =
        lines.iter().map(|c| c["process"]["pid"].as_u64().unwrap()).collect();
    assert_eq!(pids.len(), 3);
    for c in &lines {
        assert_eq!(
            (&c["outcome"], &c["remote"]["port"]),
            (&"refused".into(), &refused.port().into())
        );
    }
}

/// A name server and who asks it, in a network of their own.
#[test]
fn a_name_that_does_not_exist_is_what_could_not_be_resolved() {
    if !can_capture() {
        return;
    }
    let script = "import socket, struct\n\
         server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
         server.bind((\"127.0.0.1\", 53))\n\
         def ask(name, code, data=b\"\"):\n    \
             s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n    \
             s.connect((\"127.0.0.1\", 53))\n    \
             labels = b\"\".join(bytes([len(l)]) + l.encode() for l in name.split(\".\"))\n    \
             body = labels + b\"\\0\" + struct.pack(\"!HH\", 1, 1)\n    \
             s.send(struct.pack(\"!HHHHHH\", 7, 0x100, 1, 0, 0, 0) + body)\n    \
             _, who = server.recvfrom(512)\n    \
             head = struct.pack(\"!HHHHHH\", 7, 0x8180 | code, 1, 1 if data else 0, 0, 0)\n    \
             server.sendto(head + body + data, who)\n    \
             s.recv(512)\n\
         there = b\"\\xc0\\x0c\" + struct.pack(\"!HHIH\", 1, 1, 60, 4) + bytes([198, 51, 100, 1])\n\
         ask(\"gone.example.test\", 3)\nask(\"there.example\", 0, there)\n";
    let inside = format!("ip link set lo up && exec python3 -c '{script}'");
    let command = ["unshare", "-n", "sh", "-c", &inside];
    let (report, output) = report(&[&["--"][..], &command].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let names = report["unresolved"].as_array().unwrap();
    let [name] = &names[..] else { panic!("{report:#}") };
    let expected = serde_json::json!({"name": "gone.example.test", "process": "python3",
        "outcome": "nxdomain", "server": "127.0.0.1:53", "questions": 1, "processes": 1});
    assert_eq!(*name, expected);
    let said = String::from_utf8(run(&[&["--"][..], &command].concat()).stderr).unwrap();
    assert!(said.contains("1 name without an address"), "{said}");
    let (_, part) = said.split_once("\nCould not resolve\n").unwrap_or_else(|| panic!("{said}"));
    assert!(part.contains("gone.example.test") && part.contains("nxdomain"), "{said}");
}

/// Without SHELL, bash looks its user up: the C library asks nscd first.
#[test]
fn a_cache_of_names_that_does_not_run_is_left_out_and_said_so() {
    if !can_capture() {
        return;
    }
    if std::path::Path::new("/var/run/nscd/socket").exists() {
        println!("skipped: nscd runs here");
        return;
    }
    let file = Scratch::new("report");
    let path = file.0.to_str().unwrap();
    let [plain, all] = [&[][..], &["--all"]].map(|arguments| {
        let report = ["--report", path, "--", "bash", "-c", "true"];
        let mut command = netspy(&[arguments, &report].concat());
        assert!(command.env_remove("SHELL").status().unwrap().success());
        std::fs::read_to_string(&file.0).unwrap()
    });
    assert!(plain.contains("no connections"), "{plain}");
    assert!(plain.contains("Left out: ") && !plain.contains("/var/run/nscd"), "{plain}");
    assert!(all.contains("/var/run/nscd/socket") && !all.contains("Left out"), "{all}");
}

#[test]
fn the_exit_code_is_the_commands_or_says_why_it_did_not_run() {
    if !can_capture() {
        return;
    }
    for (command, code) in [
        (&["true"][..], 0),
        (&["sh", "-c", "exit 42"], 42),
        (&["sh", "-c", "kill -TERM $$"], 128 + 15),
        (&["sh", "-c", "kill -KILL $$"], 128 + 9),
        (&["/nonexistent/program"], 127),
        (&["/etc/passwd"], 126),
        (&["/"], 126),
        (&["--user", "no-such-user", "true"], 125),
        (&["--report", "/nonexistent/file", "true"], 125),
    ] {
        let output = run(command);
        assert_eq!(output.status.code(), Some(code), "{command:?}: {output:?}");
    }
}

#[test]
fn a_command_that_cannot_be_watched_is_not_run() {
    if !can_capture() {
        return;
    }
    let file = Scratch::new("ran");
    // Where others may get at it, which root's home is not.
    let program = Scratch::new("netspy");
    std::fs::copy(env!("CARGO_BIN_EXE_netspy"), &program.0).unwrap();
    let mut command = Command::new(&program.0);
    command.args(["run", "touch", file.0.to_str().unwrap()]);
    let output = command.uid(NOBODY).gid(NOBODY).output().unwrap();
    assert_eq!(output.status.code(), Some(125), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("CAP_BPF"), "{output:?}");
    assert!(!file.0.exists());
}

/// A command in a process group of its own, that says when it is there.
fn start(arguments: &[&str]) -> (Child, impl Iterator<Item = String> + use<>) {
    let mut command = netspy(arguments);
    let mut child = command
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    (child, lines)
}

#[test]
fn what_is_typed_is_for_the_command_and_netspy_reports_all_the_same() {
    if !can_capture() {
        return;
    }
    let refused = closed();
    let script = format!(
        "trap '({}) 2>/dev/null; exit 7' INT; echo there; while :; do read -t 60 x; done",
        connect(refused)
    );
    let (child, mut lines) = start(&["--", "bash", "-c", &script]);
    assert_eq!(lines.next().as_deref(), Some("there"));
    // As a terminal does: to all of the group in front.
    let group = Pid::from_child(&child);
    rustix::process::kill_process_group(group, Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(7), "{said}");
    assert!(said.contains(&refused.to_string()) && said.contains("refused"), "{said}");
}

#[test]
fn a_signal_for_netspy_is_handed_on_to_the_command() {
    if !can_capture() {
        return;
    }
    let (child, mut lines) = start(&["--", "sh", "-c", "echo there; exec sleep 600"]);
    assert_eq!(lines.next().as_deref(), Some("there"));
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.status.signal()), (Some(128 + 15), None), "{said}");
    assert!(said.contains("was ended by signal 15"), "{said}");
}

#[test]
fn descendants_that_are_left_behind_are_named_or_waited_for() {
    if !can_capture() {
        return;
    }
    let refused = closed();
    let fifo = Scratch::new("fifo");
    let path = fifo.0.to_str().unwrap();
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    let left = format!("(read x <{path}; {}) >/dev/null 2>&1 & ", connect(refused));
    let let_go =
        || std::fs::OpenOptions::new().write(true).open(path).unwrap().write_all(b"\n").unwrap();

    let (report, output) = report(&["--", "bash", "-c", &left]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!((&report["living"], &report["connections"]), (&1.into(), &0.into()), "{report:#}");
    let_go();

    let (mut child, _lines) = start(&["--wait-descendants", "--", "bash", "-c", &left]);
    let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let said = stderr.next().unwrap();
    assert!(said.contains("waiting for 1 process"), "{said}");
    let_go();
    let said: Vec<String> = stderr.collect();
    assert!(child.wait().unwrap().success());
    assert!(said.iter().any(|line| line.contains(&refused.to_string())), "{said:?}");
}

#[test]
fn a_thousand_children_that_connect_once_are_all_reported() {
    if !can_capture() {
        return;
    }
    let refused = closed();
    let strangers = Strangers::new(refused);
    let script =
        format!("for i in {{1..1000}}; do ({}) 2>/dev/null; done; exit 0", connect(refused));
    let (report, _) = report(&["--", "bash", "-c", &script]);
    assert!(strangers.end() > 0);
    assert_eq!(groups(&report), [(&*refused.to_string(), "refused", 1000)], "{report:#}");
    assert_eq!(report["groups"][0]["processes"], 1000);
    assert_eq!(report["accounting"]["complete"], true);
}

#[test]
fn the_command_has_nothing_of_what_capture_takes() {
    if !can_capture() {
        return;
    }
    let script = "ls /proc/self/fd; nice; ulimit -a; grep -E '^(NoNewPrivs|Cap|Sig|Groups|Uid)' \
                  /proc/self/status | grep -v SigQ; env | grep -v ^_= | sort";
    let under = netspy(&["--", "sh", "-c", script]);
    let mut alone = Command::new("sh");
    alone.args(["-c", script]).stdin(Stdio::null());
    for (name, _) in under.get_envs() {
        alone.env_remove(name);
    }
    let [under, alone] = [under, alone].map(|mut command| {
        let output = command.output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    });
    assert_eq!(under, alone);
}

/// Sets of signals by name, without the two that are the C library's own business.
fn signals(output: &Output) -> Vec<(String, u64)> {
    const OWN: u64 = 0b11 << 31;
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let sets = text.lines().map(|line| {
        let (name, set) = line.split_once(":\t").unwrap();
        (name.to_owned(), u64::from_str_radix(set, 16).unwrap() & !OWN)
    });
    sets.collect()
}

/// As nohup, a shell that runs it in the background, or a service manager starts it.
#[test]
fn what_netspy_was_started_to_ignore_or_to_block_the_command_does_too() {
    if !can_capture() {
        return;
    }
    let status = "grep ^Sig /proc/self/status | grep -v SigQ";
    for (start, what) in [
        ("trap '' HUP;", "hanging up"),
        ("trap '' HUP INT QUIT PIPE;", "signals of a background job"),
        ("trap '' CHLD TERM USR1;", "the end of children"),
        ("set -- env --block-signal=USR1,TERM \"$@\";", "a mask"),
    ] {
        let command = ["sh", "-c", status];
        let under = netspy(&["--", "sh", "-c", &format!("{status}; exit 3")]);
        let [under, alone] = [true, false].map(|is_under| {
            let mut shell = Command::new("sh");
            shell.args(["-c", &format!("{start} exec \"$@\""), "sh"]).stdin(Stdio::null());
            match is_under {
                true => shell.arg(under.get_program()).args(under.get_args()),
                false => shell.args(command),
            };
            shell.output().unwrap()
        });
        assert_eq!(signals(&under), signals(&alone), "{what}");
        assert_eq!(signals(&under).len(), 4, "{under:?}");
        assert_eq!(under.status.code(), Some(3), "{what}: {under:?}");
    }
}

#[test]
fn another_user_has_their_groups_and_home_and_no_privileges() {
    if !can_capture() {
        return;
    }
    let script = "grep -E '^(Uid|Gid|Groups|CapPrm|CapEff|CapInh|CapAmb)' /proc/self/status; \
                  echo $HOME $USER $LOGNAME $SUDO_USER; touch /root/x 2>/dev/null || echo refused";
    let entry = Command::new("getent").args(["passwd", "nobody"]).output();
    let Some(entry) = entry.ok().filter(|e| e.status.success()) else {
        println!("skipped: there is no user 'nobody' here");
        return;
    };
    let entry = String::from_utf8(entry.stdout).unwrap();
    let fields: Vec<_> = entry.trim().split(':').collect();
    let (uid, gid, home) = (fields[2], fields[3], fields[5]);
    let output = run(&["--user", "nobody", "--", "sh", "-c", script]);
    let said = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Vec<&str>> = said.lines().map(|l| l.split_whitespace().collect()).collect();
    let none = "0000000000000000";
    let wanted = [
        vec!["Uid:", uid, uid, uid, uid],
        vec!["Gid:", gid, gid, gid, gid],
        vec!["Groups:", gid],
        vec!["CapInh:", none],
        vec!["CapPrm:", none],
        vec!["CapEff:", none],
        vec!["CapAmb:", none],
        vec![home, "nobody", "nobody"],
        vec!["refused"],
    ];
    assert_eq!(lines, wanted, "{said}");
}

#[test]
fn a_namespace_of_process_ids_changes_nothing() {
    if !can_capture() {
        return;
    }
    let refused = closed();
    let script = format!("({}) 2>/dev/null; exit 5", connect(refused));
    let run = netspy(&["--", "bash", "-c", &script]);
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc"]).arg(run.get_program()).args(run.get_args());
    let Ok(output) = command.output() else {
        println!("skipped: there is no unshare(1)");
        return;
    };
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert!(said.contains(&refused.to_string()), "{said}");
}

/// As `docker ps` without its daemon: it must not look as if it had connected to nothing.
#[test]
fn unix_sockets_that_failed_are_reported() {
    if !can_capture() {
        return;
    }
    let socket = Scratch::new("there.sock");
    let _there = std::os::unix::net::UnixListener::bind(&socket.0).unwrap();
    let missing = Scratch::new("missing.sock");
    let (there, missing) = (socket.0.to_str().unwrap(), missing.0.to_str().unwrap());
    let script = "import socket, sys
def to(path):
    try: socket.socket(socket.AF_UNIX).connect(path)
    except OSError: pass
to(sys.argv[1])
for n in range(3): to(sys.argv[2])";
    let command = ["--", "python3", "-c", script, there, missing];
    let (found, _) = report(&command);
    let all = groups(&found);
    assert!(all.contains(&(missing, "failed", 3)), "{found}");
    assert!(!all.iter().any(|(place, _, _)| *place == there), "{found}");
    let output = run(&command);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("Could not reach") && said.contains("ENOENT"), "{said}");
    let (found, _) = report(&[&["--all"], &command[..]].concat());
    assert!(groups(&found).contains(&(there, "established", 1)), "{found}");
}

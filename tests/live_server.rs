//! `ebpf-server` on the running kernel: what it may still do once it captures, and that it can do all
//! that it has to.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
#[path = "live/group.rs"]
#[allow(dead_code)]
mod group;
#[path = "common/maxmind.rs"]
mod maxmind;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::mem::ManuallyDrop;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use common::daemon::{Daemon, PATIENCE};
use group::Group;
use serde_json::Value;

const NOBODY: u32 = 65_534;

impl Daemon {
    /// The lines of `/proc/PID/task/TID/status` of each thread, by its name.
    fn threads(&self) -> Vec<BTreeMap<String, String>> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let status = tasks.filter_map(|task| {
            let path = task.unwrap().path().join("status");
            // A thread may have ended meanwhile.
            let text = std::fs::read_to_string(path).ok()?;
            let lines = text.lines().filter_map(|line| line.split_once(':'));
            Some(lines.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect())
        });
        status.collect()
    }
}

/// Numbers as capabilities(7) lists them.
fn number(name: &str) -> u32 {
    match name {
        "CAP_NET_ADMIN" => 12,
        "CAP_SYS_PTRACE" => 19,
        "CAP_SYS_ADMIN" => 21,
        "CAP_SYSLOG" => 34,
        "CAP_BPF" => 39,
        other => panic!("{other} is kept"),
    }
}

fn has_given_everything_up(server: &Daemon, uid: u32) {
    let status = server.json("/api/v1/status");
    let privileges = &status["privileges"];
    assert_eq!((&privileges["dropped"], &privileges["uid"]), (&true.into(), &uid.into()));
    let kept = privileges["kept"].as_object().unwrap();
    let allowed = kept.keys().fold(0_u64, |set, name| set | 1 << number(name));
    let kept_is_told = server
        .beginning
        .iter()
        .any(|line| line.contains("capabilities kept: ") && line.contains("CAP_SYS_PTRACE"));
    assert!(kept_is_told, "{:?}", server.beginning);
    let threads = server.threads();
    let names: Vec<_> = threads.iter().map(|thread| thread["Name"].as_str()).collect();
    for name in ["netspy-capture", "netspy-ingest", "netspy-server"] {
        assert!(names.contains(&name), "{names:?}");
    }
    for thread in &threads {
        let caps = |set: &str| u64::from_str_radix(&thread[set], 16).unwrap();
        // What looks at other processes is the capture thread's alone, and what asks about address
        // translation that of the thread that does.
        let (looks, asks) = (["CAP_SYS_PTRACE", "CAP_SYSLOG"], ["CAP_NET_ADMIN"]);
        let without = |names: &[&str]| names.iter().fold(allowed, |set, n| set & !(1 << number(n)));
        let allowed = match thread["Name"].as_str() {
            "netspy-capture" => without(&asks),
            "netspy-nat" => without(&looks),
            _ => without(&[&looks[..], &asks].concat()),
        };
        for set in ["CapEff", "CapPrm", "CapBnd"] {
            assert_eq!(caps(set) & !allowed, 0, "{set} of {thread:#?}");
        }
        assert_eq!((caps("CapInh"), caps("CapAmb")), (0, 0), "{thread:#?}");
        assert_eq!(thread["NoNewPrivs"], "1", "{thread:#?}");
        let ids = [uid; 4].map(|id| id.to_string()).join("\t");
        assert_eq!(thread["Uid"], ids, "{thread:#?}");
    }
}

/// A process of another user, which is there before the server: what it runs is not told by its
/// start, but only by /proc. It connects to the port that it reads, and stays until its input ends.
///
/// `None`, and the reason told, where there are not the privileges.
fn stranger_if_root() -> Option<Child> {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root");
        return None;
    }
    let script = "read port; : 3<>/dev/tcp/127.0.0.1/$port; read end";
    let mut stranger = Command::new("/bin/bash");
    stranger.args(["-c", script]).uid(NOBODY).gid(NOBODY);
    Some(stranger.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap())
}

/// Connections of another user's process, datagrams that only a sweep shows, drops, open
/// connections' bytes, and the books.
fn still_does_its_work(server: &Daemon, mut other: Child) {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut input = other.stdin.take().unwrap();
    writeln!(input, "{closed}").unwrap();
    let target = format!("/api/v1/connections?port={closed}&outcome=refused");
    let refused = server.wait_for(&target, "connections", |_| true);
    assert_eq!(refused["process"]["uid"], NOBODY, "{refused:#}");
    let exe = std::fs::canonicalize("/bin/bash").unwrap();
    assert_eq!(refused["process"]["exe"], exe.to_str().unwrap(), "{refused:#}");
    drop(input);
    other.wait().unwrap();

    let datagram = UdpSocket::bind("127.0.0.1:0").unwrap();
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    datagram.connect(peer.local_addr().unwrap()).unwrap();
    let port = peer.local_addr().unwrap().port();
    let target = format!("/api/v1/connections?port={port}&protocol=udp");
    server.wait_for(&target, "connections", |record| record["state"] == "open");

    if server.json("/api/v1/status")["features"]["drops"]["ok"] == true {
        server.wait_for("/api/v1/drops?limit=1000", "drops", |drop| {
            drop["destination"]["port"] == closed
        });
    } else {
        println!("skipped: drops: not seen on this kernel");
    }

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut open = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut accepted, _) = listener.accept().unwrap();
    open.write_all(&[0; 1_000]).unwrap();
    accepted.read_exact(&mut [0; 1_000]).unwrap();
    let port = listener.local_addr().unwrap().port();
    let target = format!("/api/v1/connections?port={port}&direction=outbound");
    if server.json("/api/v1/status")["features"]["traffic"]["ok"] == true {
        server.wait_for(&target, "connections", |record| record["traffic"]["bytes_sent"] == 1_000);
    } else {
        println!("skipped: traffic: not seen on this kernel");
    }

    let books = &server.json("/api/v1/status")["accounting"];
    assert!(books["attempts"].as_u64().unwrap() >= 3, "{books:#}");
    assert_eq!(books["updates_lost"], 0, "{books:#}");
}

#[test]
fn every_thread_gives_its_privileges_up_and_capture_goes_on() {
    let Some(other) = stranger_if_root() else { return };
    let server = Daemon::capture(&[]);
    has_given_everything_up(&server, 0);
    still_does_its_work(&server, other);
    has_given_everything_up(&server, 0);
    server.stop();
}

#[test]
fn another_user_does_the_work_as_well() {
    let user = format!("{NOBODY}:{NOBODY}");
    let Some(other) = stranger_if_root() else { return };
    let server = Daemon::capture(&["--user", &user]);
    has_given_everything_up(&server, NOBODY);
    still_does_its_work(&server, other);
    server.stop();
}

/// Databases are read again with the rest; a damaged one changes nothing.
#[test]
fn countries_change_with_their_database_at_a_reload_and_records_keep_theirs() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root");
        return;
    }
    let file = std::env::temp_dir().join(format!("netspy-live-geo-{}", std::process::id()));
    let write = |country| std::fs::write(&file, maxmind::countries_of(country, &["127.0.0.0/8"]));
    write("DE").unwrap();
    let server = Daemon::capture(&["--geoip", file.to_str().unwrap()]);
    let country = || {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        TcpStream::connect(closed).unwrap_err();
        let target = format!("/api/v1/connections?port={}&outcome=refused", closed.port());
        (server.wait_for(&target, "connections", |_| true)["remote"]["country"].clone(), target)
    };
    let (first, target) = country();
    assert_eq!(first, "DE");
    write("FR").unwrap();
    server.reload("reloaded; changed: ");
    assert_eq!(country().0, "FR");
    assert_eq!(server.json(&target)["connections"][0]["remote"]["country"], "DE");
    std::fs::write(&file, b"no database").unwrap();
    let said = server.reload("the configuration stays as it was: ");
    assert!(said.contains("is no whole database"), "{said}");
    assert_eq!(country().0, "FR");
    let (_, metrics) = server.get("/metrics", "");
    assert!(metrics.contains("\nnetspy_geoip_failures_total 0\n"), "{metrics}");
    server.stop();
    std::fs::remove_file(file).unwrap();
}

#[test]
fn check_says_what_can_be_seen_and_leaves_nothing_behind() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root");
        return;
    }
    let output = Command::new(env!("CARGO_BIN_EXE_ebpf-server")).arg("--check").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("options: ok") && text.contains("\nconnect: ok, "), "{text}");
}

/// As in a container that has control groups of its own: those of others are out of reach.
#[test]
fn sockets_whose_end_is_out_of_reach_take_no_room() {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "));
    let Some(mount) = mount.and_then(|line| line.split(' ').nth(4)) else {
        println!("skipped: no cgroup v2 hierarchy is mounted");
        return;
    };
    let group = format!("{mount}/netspy-reach-{}", std::process::id());
    if let Err(why) = std::fs::create_dir(&group) {
        println!("skipped: there can be no control group here: {why}");
        return;
    }
    let mut command = Command::new("sh");
    let script = "echo $$ > \"$0/cgroup.procs\" && exec unshare --cgroup --mount sh -ec \
                  'umount \"$0\"; mount -t cgroup2 none \"$0\"; exec \"$@\"' \"$@\"";
    command.args(["-c", script, &group, mount, env!("CARGO_BIN_EXE_ebpf-server")]);
    let server = Daemon::capture_by(command, &["--no-preexisting", "--max-sockets", "500"]);
    for _ in 0..2_000 {
        UdpSocket::bind("127.0.0.1:0").unwrap().connect("127.0.0.1:9").unwrap();
    }
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for _ in 0..100 {
        TcpStream::connect(closed).unwrap_err();
    }
    let target = format!("/api/v1/summary?port={}&protocol=tcp", closed.port());
    let until = Instant::now() + PATIENCE;
    let summary = loop {
        let summary = server.json(&target);
        if summary["by_outcome"]["refused"] == 100 || Instant::now() > until {
            break summary;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(summary["by_outcome"]["refused"], 100, "{summary:#}");
    assert_eq!(summary["accounting"]["lost"]["map_full"], 0, "{summary:#}");
    server.stop();
    std::fs::remove_dir(&group).unwrap();
}

/// The books of a window of time, and how many records there are of it.
fn books_between(server: &Daemon, since: &Value, until: &str) -> (Value, u64) {
    let (since, path) = (since.as_str().unwrap(), "/api/v1/connections");
    let answer = server.json(&format!("{path}?since={since}&until={until}&limit=1"));
    let books = answer["accounting"].clone();
    let term = |name: &str| books[name].as_u64().unwrap();
    let lost = books["lost"].as_object().unwrap().values().map(|n| n.as_u64().unwrap());
    let terms = term("delivered") + term("filtered") + term("pending") + lost.sum::<u64>();
    assert_eq!(term("attempts"), terms, "{books:#}");
    (books, answer["total"].as_u64().unwrap())
}

#[test]
fn the_books_of_a_server_outlive_it_and_say_when_nobody_watched() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root");
        return;
    }
    let now = || format!("{:.9}", jiff::Timestamp::now());
    let directory = std::env::temp_dir().join(format!("netspy-books-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&directory);
    let arguments = ["--data-dir", directory.to_str().unwrap(), "--no-preexisting"];
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let connect = |server: &Daemon, times: u64, before: u64| {
        (0..times).for_each(|_| drop(TcpStream::connect(closed).unwrap_err()));
        let until = Instant::now() + PATIENCE;
        let target = format!("/api/v1/summary?port={}", closed.port());
        while server.json(&target)["total"].as_u64().unwrap() < before + times {
            assert!(Instant::now() < until, "{:#}", server.json(&target));
            std::thread::sleep(Duration::from_millis(20));
        }
    };

    let server = Daemon::capture(&arguments);
    let start = server.json("/api/v1/status")["accounting"]["since"].clone();
    connect(&server, 50, 0);
    let first = now();
    let (said, _) = books_between(&server, &start, &first);
    server.stop();
    let stopped = now();

    let mut server = Daemon::capture(&arguments);
    // Of the first one it says what that one said.
    let (books, total) = books_between(&server, &start, &first);
    assert_eq!((&books["complete"], &books["gaps"]), (&said["complete"], &said["gaps"]), "{books}");
    assert_eq!(books["complete"], true, "{books:#}");
    assert!(books["attempts"].as_u64().unwrap() >= 50 && total >= 50, "{books:#}");
    let own = server.json("/api/v1/status")["accounting"].clone();
    assert_eq!((&own["complete"], own["attempts"].as_u64() < Some(50)), (&true.into(), true));
    // Between them nobody watched.
    let (books, _) = books_between(&server, &start, &now());
    let gaps = books["gaps"].as_array().unwrap();
    assert_eq!((gaps.len(), &books["complete"]), (1, &false.into()), "{books:#}");
    assert_eq!(gaps[0]["why"], "the server had been stopped");
    assert_eq!(gaps[0]["until"], own["since"]);
    let times = [&first, gaps[0]["since"].as_str().unwrap(), &stopped].map(|time| {
        let time: jiff::Timestamp = time.parse().unwrap();
        time
    });
    assert!(times.is_sorted(), "{times:?}");

    connect(&server, 30, 50);
    let file = directory.join("books");
    let until = Instant::now() + PATIENCE;
    while std::fs::read_to_string(&file).unwrap().matches("\"started\"").count() < 2 {
        assert!(Instant::now() < until, "the second is not in the books");
        std::thread::sleep(Duration::from_millis(20));
    }
    server.child.kill().unwrap();
    server.child.wait().unwrap();
    let server = Daemon::capture(&arguments);
    let (books, _) = books_between(&server, &start, &first);
    assert_eq!(books["complete"], true, "{books:#}");
    let (books, _) = books_between(&server, &start, &now());
    let why = books["gaps"].as_array().unwrap().iter().map(|gap| gap["why"].as_str().unwrap());
    let why: Vec<_> = why.collect();
    let expected = ["the server had been stopped", "the server had ended without notice"];
    assert_eq!((why, &books["complete"]), (expected.to_vec(), &false.into()));
    server.stop();
    std::fs::remove_dir_all(&directory).unwrap();
}

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A socket that says what Docker would of the container `ID`, once it may; gone with this value.
struct Runtime(PathBuf);

impl Runtime {
    fn new(may_answer: Receiver<()>) -> Self {
        let name = format!("netspy-live-docker-{}.sock", std::process::id());
        let path = std::env::temp_dir().join(name);
        let listener = UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream: UnixStream = stream.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    if stream.read(&mut byte).unwrap() == 0 {
                        return;
                    }
                    head.extend(byte);
                }
                let head = String::from_utf8(head).unwrap();
                assert!(head.starts_with(&format!("GET /containers/{ID}/json ")), "{head}");
                // Until the other end is dropped. Whoever has waited too long has gone, and asks again.
                let _ = may_answer.recv();
                let body = format!(
                    r#"{{"Id":"{ID}","Name":"/web-1","Config":{{"Image":"nginx:1.29",
                        "Labels":{{"proxy.users":"ann:se-cret"}}}}}}"#
                );
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                let _ = stream.write_all(format!("{head}{body}").as_bytes());
            }
        });
        Runtime(path)
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Connects to a port at which nobody listens, from within a control group.
fn refused_within(group: &Group) -> u16 {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut connect = Command::new("/bin/bash");
    connect.args(["-c", &format!(": 3<>/dev/tcp/127.0.0.1/{port}")]).stderr(Stdio::null());
    assert!(!group.take(connect).status().unwrap().success());
    port
}

#[test]
fn a_record_is_shown_at_once_and_again_with_the_name_of_its_container() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root");
        return;
    }
    let Some(top) = Group::new("names") else { return };
    let (answer, may_answer) = std::sync::mpsc::channel::<()>();
    let runtime = Runtime::new(may_answer);
    let server = Daemon::capture(&["--runtime-socket", runtime.0.to_str().unwrap()]);
    if server.json("/api/v1/status")["features"]["cgroup_names"]["ok"] != true {
        println!("skipped: nothing tells the paths of new control groups here");
        server.stop();
        return;
    }
    let path: PathBuf = [&top.path, Path::new("docker"), Path::new(ID)].iter().collect();
    std::fs::create_dir_all(&path).unwrap();
    let group = ManuallyDrop::new(Group { path });
    let port = refused_within(&group);
    let target = format!("/api/v1/connections?port={port}");
    let container = |record: &Value| record["process"]["container"].clone();
    let unnamed = server.wait_for(&target, "connections", |record| !container(record).is_null());
    let unnamed = container(&unnamed);
    assert_eq!((&unnamed["id"], &unnamed["name"]), (&ID.into(), &Value::Null), "{unnamed:#}");
    drop(answer);
    let named = server.wait_for(&target, "connections", |r| container(r)["name"] == "web-1");
    let named = container(&named);
    assert_eq!((&named["id"], &named["image"]), (&ID.into(), &"nginx:1.29".into()), "{named:#}");
    // Over loopback everybody could read them.
    assert_eq!(named.get("labels"), None, "{named:#}");

    // What comes later has the name from the beginning, and nobody is asked again.
    let later = refused_within(&group);
    let target = format!("/api/v1/connections?container=web-1&port={later}");
    server.wait_for(&target, "connections", |_| true);
    let by = server.json("/api/v1/top?by=container");
    assert_eq!((&by["groups"][0]["key"], &by["groups"][0]["label"]), (&ID.into(), &"web-1".into()));
    let status = server.json("/api/v1/status");
    assert_eq!(status["containers"]["named"], 1, "{status:#}");
    assert_eq!(status["features"]["container_names"]["ok"], true, "{status:#}");
    server.stop();
    for directory in group.path.ancestors().take(2) {
        let _ = std::fs::remove_dir(directory);
    }
}

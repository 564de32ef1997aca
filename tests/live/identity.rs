//! Whose attempt it was: facts that survive the process.

use std::process::Command;

use netspy::ConnectionStream;

use crate::harness::{bound_port, goes_to, watch};

#[test]
fn a_process_that_is_gone_is_described_all_the_same() {
    let Some(watch) = watch(ConnectionStream::builder()) else { return };
    let remote = bound_port();
    let program = format!(
        "import socket\ntry: socket.create_connection(('127.0.0.1', {}))\nexcept OSError: pass",
        remote.port()
    );
    let mut child =
        Command::new("/usr/bin/python3").args(["-c", &program, "an argument"]).spawn().unwrap();
    let pid = child.id();
    child.wait().unwrap();
    let process = watch.only(remote).process.unwrap();
    assert_eq!((process.pid, process.tid), (pid, pid));
    assert_eq!(&*process.comm, "python3");
    assert_eq!(process.thread, process.comm);
    assert_eq!(process.ppid, std::process::id());
    assert_eq!((process.uid, process.user.as_deref()), (0, Some("root")));
    assert!(process.exe.as_deref().unwrap().contains("python3"), "{:?}", process.exe);
    let cmdline = process.cmdline.as_deref().unwrap();
    assert!(cmdline.contains("python3 -c import"), "{cmdline}");
    assert!(cmdline.ends_with("an argument"), "{cmdline}");
    let age = jiff::Timestamp::now().duration_since(process.start_time.unwrap());
    assert!(!age.is_negative() && age < jiff::SignedDuration::from_mins(5), "{age}");
    assert!(process.cgroup.as_deref().is_none_or(|path| path.starts_with('/')));
}

#[test]
fn a_thread_is_named_beside_its_process() {
    let Some(watch) = watch(ConnectionStream::builder()) else { return };
    let remote = bound_port();
    let thread = std::thread::Builder::new().name("the-dialler".into());
    let tid = thread
        .spawn(move || {
            std::net::TcpStream::connect(remote).unwrap_err();
            rustix::thread::gettid().as_raw_nonzero().get()
        })
        .unwrap()
        .join()
        .unwrap();
    let process = watch.only(remote).process.unwrap();
    assert_eq!((process.pid, process.tid), (std::process::id(), tid as u32));
    assert_eq!(&*process.thread, "the-dialler");
    let comm = std::fs::read_to_string("/proc/self/comm").unwrap();
    assert_eq!(&*process.comm, comm.trim());
}

#[test]
fn two_streams_at_once_see_the_same() {
    let Some(watch) = watch(ConnectionStream::builder()) else { return };
    let other = ConnectionStream::builder().start().unwrap();
    let remote = bound_port();
    std::net::TcpStream::connect(remote).unwrap_err();
    let mine = watch.only(remote);
    let theirs = other.into_iter().find(|c| goes_to(c, remote)).unwrap();
    assert_eq!((mine.outcome, mine.errno), (theirs.outcome, theirs.errno));
}

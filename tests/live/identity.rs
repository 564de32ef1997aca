//! Whose attempt it was: facts that survive the process.

use netspy::ConnectionStream;

use crate::harness::{bound_port, goes_to, shared, start, watch};
use crate::roles::play;

#[test]
fn a_process_that_is_gone_is_described_all_the_same() {
    let Some(watch) = shared() else { return };
    let remote = bound_port();
    let mut child = play("connect", remote).spawn().unwrap();
    let pid = child.id();
    child.wait().unwrap();
    let process = watch.only(remote).process.unwrap();
    assert_eq!(process.pid, pid);
    let exe = std::env::current_exe().unwrap();
    let name = exe.file_name().unwrap().to_str().unwrap();
    assert_eq!(&*process.comm, &name[..name.len().min(15)], "the kernel keeps 15 bytes");
    assert_eq!(process.ppid, std::process::id());
    assert_eq!((process.uid, process.user.as_deref()), (0, Some("root")));
    if watch.handle.capabilities().features["process_start"].ok {
        assert_eq!(process.exe.as_deref(), exe.to_str());
        let cmdline = process.cmdline.as_deref().unwrap();
        assert!(cmdline.contains("--exact roles::a_role_is_played"), "{cmdline}");
    }
    let age = jiff::Timestamp::now().duration_since(process.start_time.unwrap());
    assert!(!age.is_negative() && age < jiff::SignedDuration::from_mins(5), "{age}");
    assert!(process.cgroup.as_deref().is_none_or(|path| path.starts_with('/')));
}

#[test]
fn a_thread_is_named_beside_its_process() {
    let Some(watch) = shared() else { return };
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
    let other = start(ConnectionStream::builder()).unwrap();
    let remote = bound_port();
    std::net::TcpStream::connect(remote).unwrap_err();
    let mine = watch.only(remote);
    let theirs = other.into_iter().find(|c| goes_to(c, remote)).unwrap();
    assert_eq!((mine.outcome, mine.errno), (theirs.outcome, theirs.errno));
}

//! Whose attempt it was: facts that survive the process.

use netspy::ConnectionStream;

use crate::harness::{bound_port, goes_to, observes, shared, start, watch};
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

/// How many processes (`NETSPY_LIVE_PROCESSES`).
fn processes() -> usize {
    let wanted = std::env::var("NETSPY_LIVE_PROCESSES").map(|text| text.parse().unwrap());
    let usual = if crate::harness::is_small_machine() { 50 } else { 400 };
    wanted.unwrap_or(usual)
}

#[test]
fn of_very_many_programs_that_end_at_once_each_is_described() {
    let Some(watch) = shared() else { return };
    if !observes(&watch, "process_start") {
        println!("skipped: the start of programs is not seen");
        return;
    }
    let exe = std::env::current_exe().unwrap();
    let count = processes();
    // One after the other asks for a port of its own, so that each record is known by it; nobody
    // listens beyond.
    let remote = |n: usize| {
        let [high, low] = u16::try_from(n % 60_000).unwrap().to_be_bytes();
        crate::harness::v4([127, 77, high, low], u16::try_from(1 + n / 60_000).unwrap())
    };
    let workers = 4;
    std::thread::scope(|scope| {
        for worker in 0..workers {
            scope.spawn(move || {
                for n in (worker..count).step_by(workers) {
                    let status = play("connect", remote(n)).status().unwrap();
                    assert_eq!(status.code(), Some(libc::ECONNREFUSED));
                }
            });
        }
    });
    let mine = std::fs::read_to_string("/proc/self/comm").unwrap();
    let cwd = std::env::current_dir().unwrap();
    let records = watch
        .records(|c| c.remote.as_ref().is_some_and(|r| r.ip.to_string().starts_with("127.77.")));
    assert_eq!(records.len(), count);
    for record in records {
        let process = record.process.as_ref().unwrap();
        let info = &process.info;
        assert_eq!(info.exe.as_deref(), exe.to_str(), "{record:?}");
        let line = info.cmdline.as_deref().unwrap_or_default();
        assert!(line.ends_with("--test-threads=1 --nocapture"), "{line}");
        assert!(info.user.is_some() && info.start_time.is_some(), "{record:?}");
        assert_eq!((info.ppid, info.parent.as_deref()), (std::process::id(), Some(mine.trim())));
        assert_eq!(info.cwd.as_deref(), cwd.to_str(), "{record:?}");
        assert_eq!(info.ancestry.first().map(|name| &**name), Some(mine.trim()), "{record:?}");
    }
}

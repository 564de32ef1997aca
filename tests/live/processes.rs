//! What a process is called and where it comes from, also of one that is gone at once: its
//! executable, its working directory, what it descends from; and that two of one number are two.

use std::ffi::CString;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use netspy::ConnectionStream;
use netspy::event::Process;
use netspy::stream::Builder;

use crate::harness::{Watch, bound_port, observes, shared};
use crate::roles::play;

/// Where the role goes before it connects.
pub const ELSEWHERE: &str = "/proc/self";

/// The role "connect, orphaned": whoever started it has ended.
pub fn wait_for_another_parent() {
    let (parent, end) = (rustix::process::getppid(), Instant::now() + Duration::from_secs(10));
    while rustix::process::getppid() == parent && Instant::now() < end {
        std::thread::yield_now();
    }
}

/// The capture, where it sees processes start.
fn watch() -> Option<Watch> {
    let watch = shared()?;
    if observes(&watch, "process_start") && observes(&watch, "ancestry") {
        return Some(watch);
    }
    println!("skipped: the start of programs is not seen");
    None
}

fn process(watch: &Watch, remote: SocketAddr) -> Process {
    watch.only(remote).process.unwrap()
}

/// Names of this process and of those above it, as /proc has them.
fn line_of_this_process() -> Vec<String> {
    let (mut names, mut pid) = (Vec::new(), std::process::id());
    while pid != 0 {
        let comm = std::fs::read_to_string(format!("/proc/{pid}/comm"));
        let Ok(comm) = comm else { break };
        names.push(comm.trim_end_matches('\n').to_owned());
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap();
        pid = parent.trim().parse().unwrap();
    }
    names
}

/// A directory that goes with the test.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("netspy-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        Place(path.canonicalize().unwrap())
    }

    /// This program under a name of the test's own.
    fn program(&self, name: &str) -> PathBuf {
        let (exe, path) = (std::env::current_exe().unwrap(), self.0.join(name));
        if std::fs::hard_link(&exe, &path).is_err() {
            std::fs::copy(&exe, &path).unwrap();
        }
        path
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What starts another program in a role.
fn play_as(program: &Path, role: &str, remote: SocketAddr) -> Command {
    let usual = play(role, remote);
    let mut command = Command::new(program);
    command.args(usual.get_args()).stdout(Stdio::null());
    for (name, value) in usual.get_envs() {
        command.env(name, value.unwrap());
    }
    command
}

#[test]
fn what_a_program_descends_from_is_known_when_its_shells_are_gone() {
    let Some(watch) = watch() else { return };
    let remote = bound_port();
    let role = play("connect, orphaned", remote);
    let mut shells = Command::new("sh");
    // A shell that starts a shell, which starts the program and ends; so does the first.
    shells.args(["-c", r#"sh -c '"$0" "$@" & :' "$0" "$@"; :"#]);
    shells.arg(role.get_program()).args(role.get_args()).stdout(Stdio::null());
    for (name, value) in role.get_envs() {
        shells.env(name, value.unwrap());
    }
    assert!(shells.status().unwrap().success());
    let made = watch.wait("the attempt of an orphan", |c| crate::harness::goes_to(c, remote));
    let process = made.process.unwrap();
    assert_ne!(process.parent.as_deref(), Some("sh"), "it was to be an orphan");
    let mut expected = ["sh", "sh"].map(str::to_owned).to_vec();
    expected.extend(line_of_this_process());
    let ancestry: Vec<_> = process.ancestry.iter().map(|name| name.to_string()).collect();
    assert_eq!(ancestry, expected);
}

#[test]
fn a_program_that_is_started_by_a_relative_path_is_known_by_its_place() {
    let Some(watch) = watch() else { return };
    let (place, remote) = (Place::new("relative"), bound_port());
    let program = place.program("a program");
    let status =
        play_as(Path::new("./a program"), "connect", remote).current_dir(&place.0).status();
    assert_eq!(status.unwrap().code(), Some(libc::ECONNREFUSED));
    let process = process(&watch, remote);
    assert_eq!(process.exe.as_deref(), program.to_str());
    assert_eq!(process.cwd.as_deref(), place.0.to_str());
    let file = std::fs::metadata(&program).unwrap();
    assert_eq!((process.exe_dev, process.exe_inode), (Some(file.dev()), Some(file.ino())));
    assert!(!process.exe_deleted);
}

#[test]
fn an_executable_that_is_gone_is_said_to_be() {
    let Some(watch) = watch() else { return };
    let place = Place::new("gone");
    let program = place.program("gone");
    let file = std::fs::File::open(&program).unwrap();
    let metadata = file.metadata().unwrap();
    std::fs::remove_file(&program).unwrap();
    // Started without a name, and over before anybody can look.
    let remote = bound_port();
    let handle =
        format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&file));
    let status = play_as(Path::new(&handle), "connect", remote).status().unwrap();
    assert_eq!(status.code(), Some(libc::ECONNREFUSED));
    let gone = process(&watch, remote);
    assert_eq!((gone.exe.as_deref(), gone.exe_deleted), (program.to_str(), true));
    assert_eq!((gone.exe_dev, gone.exe_inode), (Some(metadata.dev()), Some(metadata.ino())));
    // Removed while it runs.
    let (program, remote) = (place.program("going"), bound_port());
    let mut child = play_as(&program, "connect and wait", remote);
    let mut child = child.stdin(Stdio::piped()).spawn().unwrap();
    // It is asked for when its record comes, which is later.
    std::fs::remove_file(&program).unwrap();
    let going = watch.outcome(remote).process.unwrap();
    drop(child.stdin.take());
    child.wait().unwrap();
    assert_eq!((going.exe.as_deref(), going.exe_deleted), (program.to_str(), true));
}

#[test]
fn the_working_directory_is_that_of_the_attempt() {
    let Some(watch) = watch() else { return };
    let place = Place::new("cwd");
    let start = |role: &str, remote| {
        let mut command = play(role, remote);
        command.current_dir(&place.0);
        command
    };
    let stayed = bound_port();
    start("connect", stayed).status().unwrap();
    assert_eq!(process(&watch, stayed).cwd.as_deref(), place.0.to_str());
    // It has gone elsewhere, and lives.
    let went = bound_port();
    let mut child = start("connect from elsewhere and wait", went);
    let mut child = child.stdin(Stdio::piped()).spawn().unwrap();
    let cwd = watch.outcome(went).process.unwrap().cwd.clone();
    assert_eq!(cwd, Some(format!("/proc/{}", child.id()).into()));
    drop(child.stdin.take());
    child.wait().unwrap();
    // It has gone elsewhere, and may be gone altogether: never where it was before.
    let gone = bound_port();
    let mut child = start("connect from elsewhere", gone).spawn().unwrap();
    let elsewhere = format!("/proc/{}", child.id());
    child.wait().unwrap();
    let cwd = process(&watch, gone).cwd.clone();
    assert!(cwd.as_deref().is_none_or(|cwd| cwd == elsewhere), "{cwd:?}");
}

#[test]
fn the_hash_of_an_executable_comes_when_it_is_known() {
    let exe = std::env::current_exe().unwrap();
    let Ok(output) = Command::new("sha256sum").arg(&exe).output() else {
        println!("skipped: there is no sha256sum");
        return;
    };
    let expected = String::from_utf8(output.stdout).unwrap();
    let expected = expected.split(' ').next().unwrap();
    let builder = Builder { hash_exe: true, ..ConnectionStream::builder() };
    let Some(watch) = crate::harness::watch(builder) else { return };
    if !observes(&watch, "process_start") {
        println!("skipped: the start of programs is not seen");
        return;
    }
    let remote = bound_port();
    let mut child = play("connect and wait", remote).stdin(Stdio::piped()).spawn().unwrap();
    let record = watch.wait("a hash", |c| {
        let sha256 = c.process.as_ref().and_then(|process| process.exe_sha256.as_deref());
        crate::harness::goes_to(c, remote) && sha256.is_some()
    });
    drop(child.stdin.take());
    child.wait().unwrap();
    // The rest of the record is as it would be.
    assert_eq!(record.outcome, netspy::event::Outcome::Refused);
    assert_eq!(record.process.unwrap().exe_sha256.as_deref(), Some(expected));
}

/// A process of a given number (clone3(2)), which runs `child`: only calls that a process made in
/// the midst of threads may use. `None` where that may not be chosen.
fn made_as(pid: libc::pid_t, child: impl FnOnce()) -> Option<()> {
    let mut numbers = [pid];
    let mut how = libc::clone_args {
        flags: 0,
        pidfd: 0,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: libc::SIGCHLD as u64,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: numbers.as_mut_ptr() as u64,
        set_tid_size: 1,
        cgroup: 0,
    };
    // SAFETY: as fork(); the structure and the number that it points to live through the call, and
    // the child leaves by _exit() or execve().
    #[allow(unsafe_code)]
    unsafe {
        let made = libc::syscall(libc::SYS_clone3, &raw mut how, size_of::<libc::clone_args>());
        match made {
            0 => {
                child();
                libc::_exit(1)
            }
            made if made == libc::c_long::from(pid) => {
                libc::waitpid(pid, std::ptr::null_mut(), 0);
                Some(())
            }
            _ => {
                println!("skipped: clone3: {}", std::io::Error::last_os_error());
                None
            }
        }
    }
}

#[test]
fn two_processes_of_one_number_are_two() {
    let Some(watch) = watch() else { return };
    // One that is free: that of a process which has just ended.
    let mut ended = Command::new("true").spawn().unwrap();
    let pid = ended.id() as libc::pid_t;
    ended.wait().unwrap();
    let (first, second) = (bound_port(), bound_port());
    let role = play("connect", first);
    let text = |text: &std::ffi::OsStr| CString::new(text.as_bytes()).unwrap();
    let arguments: Vec<_> =
        std::iter::once(role.get_program()).chain(role.get_args()).map(text).collect();
    let variables: Vec<_> = role
        .get_envs()
        .map(|(name, value)| {
            let (name, value) = (name.to_str().unwrap(), value.unwrap().to_str().unwrap());
            CString::new(format!("{name}={value}")).unwrap()
        })
        .collect();
    let list = |texts: &[CString]| {
        let pointers = texts.iter().map(|text| text.as_ptr());
        pointers.chain([std::ptr::null()]).collect::<Vec<_>>()
    };
    let (argv, envp) = (list(&arguments), list(&variables));
    let run = || {
        // SAFETY: all three are of texts that live on, and the lists end with a null pointer.
        #[allow(unsafe_code)]
        unsafe {
            libc::execve(argv[0], argv.as_ptr(), envp.as_ptr());
        }
    };
    let Some(()) = made_as(pid, run) else { return };
    use rustix::net::{AddressFamily, SocketType, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    let connect = || {
        let _ = rustix::net::connect(&socket, &second);
    };
    let Some(()) = made_as(pid, connect) else { return };
    let (first, second) = (process(&watch, first), process(&watch, second));
    assert_eq!((first.pid, second.pid), (pid as u32, pid as u32));
    assert!(first.start_time < second.start_time, "{first:?} {second:?}");
    let line = |process: &Process| process.cmdline.as_deref().unwrap_or_default().to_owned();
    assert!(line(&first).contains("--exact roles::"), "{first:?}");
    // It runs what this process does.
    let mine = std::fs::read("/proc/self/cmdline").unwrap();
    let mine = String::from_utf8_lossy(&mine).trim_end_matches('\0').replace('\0', " ");
    assert_eq!(line(&second), mine);
}

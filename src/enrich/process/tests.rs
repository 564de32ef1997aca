use super::*;

fn named(name: &[u8]) -> [u8; 16] {
    let mut comm = [0; 16];
    comm[..name.len()].copy_from_slice(name);
    comm
}

fn attempt(pid: u32, start: u64, comm: &[u8]) -> netspy_conn {
    netspy_conn {
        pid,
        tid: pid,
        task_start_ns: start,
        start_ns: start + 10,
        comm: named(comm),
        thread: named(comm),
        ..Default::default()
    }
}

/// A path as the kernel side writes it.
fn backwards(path: &str) -> Vec<u8> {
    path.split('/').skip(1).collect::<Vec<_>>().into_iter().rev().fold(
        Vec::new(),
        |mut all, name| {
            all.extend(name.as_bytes());
            all.push(0);
            all
        },
    )
}

fn started(pid: u32, start: u64, exe: &str, args: &[u8]) -> netspy_exec {
    let (exe, cwd) = (backwards(exe), backwards("/srv/work"));
    let mut exec = netspy_exec {
        kind: 3,
        pid,
        task_start_ns: start,
        time_ns: start,
        exe_ino: 77,
        exe_dev: (8 << 20) | 1,
        cwd_ino: 5,
        cwd_dev: 9 << 20,
        exe_len: exe.len() as u16,
        cwd_len: cwd.len() as u16,
        flags: 2 | 4,
        args_len: args.len() as u16,
        args_total: args.len() as u32,
        ..Default::default()
    };
    exec.args[..args.len()].copy_from_slice(args);
    exec.names[..exe.len()].copy_from_slice(&exe);
    exec.names[exe.len()..exe.len() + cwd.len()].copy_from_slice(&cwd);
    exec
}

fn forked(parent: (u32, u64), name: &[u8], child: (u32, u64)) -> netspy_fork {
    netspy_fork {
        kind: 7,
        pid: child.0,
        task_start_ns: child.1,
        ppid: parent.0,
        parent_start_ns: parent.1,
        parent: named(name),
        ..Default::default()
    }
}

fn ancestry(process: &Process) -> Vec<&str> {
    process.ancestry.iter().map(|name| &**name).collect()
}

const GONE: u32 = u32::MAX - 1;

#[test]
fn a_process_that_is_gone_keeps_what_its_start_told() {
    let mut processes = Processes::default();
    processes.exec(&started(GONE, 7, "/usr/bin/curl", b"curl\0-s\0http://x\0"));
    let there = netspy_conn { cwd_dev: 9 << 20, cwd_ino: 5, ..attempt(GONE, 7, b"curl") };
    let process = processes.resolve(&there, &Clock::new());
    assert_eq!(process.exe.as_deref(), Some("/usr/bin/curl"));
    assert_eq!((process.exe_dev, process.exe_inode), (Some(0x801), Some(77)));
    assert_eq!(process.cmdline.as_deref(), Some("curl -s http://x"));
    assert_eq!(process.cwd.as_deref(), Some("/srv/work"));
    // It went elsewhere before it made this one, and nobody can be asked where.
    let elsewhere = netspy_conn { cwd_ino: 6, ..there };
    assert_eq!(processes.resolve(&elsewhere, &Clock::new()).cwd, None);
}

#[test]
fn a_reused_number_is_another_process() {
    let mut processes = Processes::default();
    processes.fork(&forked((GONE - 1, 1), b"sh", (GONE, 7)));
    processes.exec(&started(GONE, 7, "/usr/bin/curl", b"curl\0"));
    let process = processes.resolve(&attempt(GONE, 8, b"other"), &Clock::new());
    assert_eq!((process.exe.as_deref(), process.cmdline.as_deref()), (None, None));
    assert!(process.ancestry.is_empty(), "{:?}", process.ancestry);
}

#[test]
fn an_attempt_belongs_to_the_program_that_made_it_and_not_to_the_next() {
    let mut processes = Processes::default();
    let clock = Clock::new();
    processes.exec(&started(GONE, 7, "/usr/bin/first", b"first\0"));
    let attempt = attempt(GONE, 7, b"first");
    processes.resolve(&attempt, &clock);
    processes.exec(&netspy_exec { time_ns: 100, ..started(GONE, 7, "/bin/second", b"second\0") });
    let closed = processes.resolve(&attempt, &clock);
    assert_eq!(closed.exe.as_deref(), Some("/usr/bin/first"));
    let later = processes.resolve(&netspy_conn { start_ns: 101, ..attempt }, &clock);
    assert_eq!(later.exe.as_deref(), Some("/bin/second"));
}

#[test]
fn a_chain_of_programs_that_have_all_ended_is_known_to_its_top() {
    let mut processes = Processes::default();
    let clock = Clock::new();
    let (shell, inner, program) = ((GONE - 2, 10), (GONE - 1, 20), (GONE, 30));
    processes.exec(&started(shell.0, shell.1, "/bin/bash", b"bash\0"));
    processes.fork(&forked(shell, b"bash", inner));
    processes.exec(&started(inner.0, inner.1, "/bin/sh", b"sh\0-c\0x\0"));
    processes.fork(&forked(inner, b"sh", program));
    // Before its own start it runs what its parent does.
    let before = processes.resolve(&attempt(program.0, program.1, b"sh"), &clock);
    assert_eq!((before.exe.as_deref(), ancestry(&before)), (Some("/bin/sh"), vec!["sh", "bash"]));
    processes.exec(&netspy_exec { time_ns: 50, ..started(program.0, program.1, "/bin/x", b"x\0") });
    // The shells are gone: whose child it is has changed, what it descends from has not.
    let attempt = netspy_conn { start_ns: 60, ppid: 1, ..attempt(program.0, program.1, b"x") };
    let process = processes.resolve(&attempt, &clock);
    assert_eq!(process.exe.as_deref(), Some("/bin/x"));
    assert_eq!(ancestry(&process), ["sh", "bash"]);
}

#[test]
fn the_start_of_a_program_tells_the_parent_where_the_fork_was_lost() {
    let mut processes = Processes::default();
    let exec = started(GONE, 7, "/bin/x", b"x\0");
    let exec = netspy_exec { ppid: GONE - 1, parent_start_ns: 3, parent: named(b"make"), ..exec };
    processes.exec(&exec);
    let process = processes.resolve(&attempt(GONE, 7, b"x"), &Clock::new());
    assert_eq!(ancestry(&process), ["make"]);
}

#[test]
fn children_of_one_process_share_their_line() {
    let mut processes = Processes::default();
    processes.fork(&forked((GONE, 7), b"sh", (1_000_000_001, 8)));
    processes.fork(&forked((GONE, 7), b"sh", (1_000_000_002, 9)));
    processes.fork(&forked((GONE, 7), b"renamed", (1_000_000_003, 10)));
    let line = |pid: u32| match &processes.table.young[&pid].descent {
        Descent::Known(Some(line)) => Arc::clone(line),
        _ => unreachable!(),
    };
    assert!(Arc::ptr_eq(&line(1_000_000_001), &line(1_000_000_002)));
    assert_eq!(line(1_000_000_003).name(), "renamed");
}

#[test]
fn records_of_one_process_share_its_description() {
    let mut processes = Processes::default();
    let clock = Clock::new();
    let first = processes.resolve(&attempt(GONE, 7, b"a"), &clock);
    let second = processes.resolve(&attempt(GONE, 7, b"a"), &clock);
    assert!(Arc::ptr_eq(&first.info, &second.info));
    let renamed = processes.resolve(&attempt(GONE, 7, b"b"), &clock);
    assert_eq!(&*renamed.comm, "b");
}

#[test]
fn this_process_is_found_in_proc() {
    use std::os::unix::fs::MetadataExt;
    let pid = std::process::id();
    let stat = Stat::of(pid).unwrap();
    let start = stat.start_ticks * 10_000_000;
    let cwd = std::env::current_dir().unwrap();
    let place = fs::metadata(&cwd).unwrap();
    let here = netspy_conn {
        cwd_dev: (rustix::fs::major(place.dev()) << 20) | rustix::fs::minor(place.dev()),
        cwd_ino: place.ino(),
        ppid: stat.ppid,
        ..attempt(pid, start, stat.comm.as_bytes())
    };
    let mut processes = Processes::default();
    let process = processes.resolve(&here, &Clock::new());
    let exe = std::env::current_exe().unwrap();
    assert_eq!(process.exe.as_deref(), exe.to_str());
    let file = fs::metadata(&exe).unwrap();
    assert_eq!((process.exe_dev, process.exe_inode), (Some(file.dev()), Some(file.ino())));
    assert_eq!(process.cwd.as_deref(), cwd.to_str());
    let parent = Stat::of(stat.ppid).unwrap();
    assert_eq!(process.ancestry.first().map(|name| name.to_string()), Some(parent.comm));
    // It has gone elsewhere since.
    let elsewhere = netspy_conn { cwd_ino: place.ino() + 1, ..here };
    assert_eq!(processes.resolve(&elsewhere, &Clock::new()).cwd, None);
    // Under another name it may have run another program.
    let mut processes = Processes::default();
    let process = processes.resolve(&attempt(pid, start, b"another"), &Clock::new());
    assert_eq!((process.exe.as_deref(), process.cmdline.as_deref()), (None, None));
}

#[test]
fn the_table_is_bounded() {
    let mut processes = Processes::default();
    for pid in 1..3 * GENERATION as u32 {
        processes.exec(&started(pid, 1, "/x", b"x\0"));
        processes.fork(&forked((pid, 1), b"x", (pid + 1_000_000, 2)));
    }
    let table = &processes.table;
    assert!(table.young.len() + table.old.len() <= 2 * GENERATION);
}

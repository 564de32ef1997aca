//! What is known of processes: from the attempt itself, from the start of their program, and from
//! /proc while they live.

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;

use super::cgroup::Cgroups;
use super::owner::Owner;
use super::text;
use super::users::Users;
use crate::capture::clock::Clock;
use crate::capture::skel::types::{netspy_conn, netspy_exec};
use crate::event::{Process, ProcessInfo};

/// Processes in one generation of the table; two generations are kept.
const GENERATION: usize = 8192;
/// The longest command line that is kept, in bytes.
const CMDLINE: usize = 4096;

/// The processes that were seen, bounded: when the young generation is full, the old one is
/// forgotten and the young one takes its place.
#[derive(Debug, Default)]
pub(crate) struct Processes {
    young: HashMap<u32, Entry>,
    old: HashMap<u32, Entry>,
    users: Users,
    cgroups: Cgroups,
}

#[derive(Debug)]
struct Entry {
    task_start_ns: u64,
    /// Start of the program, 0 where it was not seen.
    since_ns: u64,
    program: Program,
    /// What ran in the process before, for the attempts of that program.
    before: Option<Box<Entry>>,
    /// The last record's process, with what it was made from.
    last: Option<(Facts, Arc<ProcessInfo>)>,
    /// The last name of a thread that differs from that of the process.
    thread: Option<Arc<str>>,
}

/// The program that runs in a process.
#[derive(Debug)]
enum Program {
    /// Its start was seen; what /proc adds was not looked up yet.
    Started { file: String, args: Vec<u8>, truncated: bool },
    /// All that can be known is.
    Known(Known),
}

#[derive(Debug, Clone, Default)]
struct Known {
    exe: Option<Arc<str>>,
    exe_deleted: bool,
    cmdline: Option<Arc<str>>,
}

/// What one attempt tells of its process. As long as it stays the same, records share one
/// [`ProcessInfo`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Facts {
    comm: [u8; 16],
    parent: [u8; 16],
    ppid: u32,
    uid: u32,
    netns: u32,
    cgroup_id: u64,
}

impl Facts {
    fn of(raw: &netspy_conn) -> Self {
        Facts {
            comm: raw.comm,
            parent: raw.parent,
            ppid: raw.ppid,
            uid: raw.uid,
            netns: raw.netns,
            cgroup_id: raw.cgroup_id,
        }
    }
}

impl Processes {
    /// A program was started in a process: what was known of its program before is void.
    pub(crate) fn exec(&mut self, exec: &netspy_exec) {
        let used = |bytes: &[u8], len: u16| bytes[..bytes.len().min(len.into())].to_vec();
        let args = used(&exec.args, exec.args_len);
        let program = Program::Started {
            file: text(&used(&exec.file, exec.file_len)),
            truncated: (args.len() as u64) < u64::from(exec.args_total),
            args,
        };
        let before = self.young.remove(&exec.pid).or_else(|| self.old.remove(&exec.pid));
        // One program back is kept: its connections may outlive it.
        let before = before.filter(|entry| entry.task_start_ns == exec.task_start_ns);
        let before = before.map(|entry| Box::new(Entry { before: None, ..entry }));
        let entry = Entry {
            task_start_ns: exec.task_start_ns,
            since_ns: exec.time_ns,
            program,
            before,
            last: None,
            thread: None,
        };
        self.insert(exec.pid, entry);
    }

    /// A control group was made.
    pub(crate) fn cgroup(&mut self, id: u64, path: &str) {
        self.cgroups.made(id, path);
    }

    fn insert(&mut self, pid: u32, entry: Entry) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(pid, entry);
    }

    /// The process and thread of an attempt.
    pub(crate) fn resolve(&mut self, raw: &netspy_conn, clock: &Clock) -> Process {
        if !self.young.contains_key(&raw.pid) {
            let entry = self.old.remove(&raw.pid);
            let entry = entry.unwrap_or_else(|| Entry::unseen(raw.task_start_ns));
            self.insert(raw.pid, entry);
        }
        let Some(entry) = self.young.get_mut(&raw.pid) else {
            // Inserted above; an entry of its own keeps this total.
            let mut entry = Entry::unseen(raw.task_start_ns);
            return entry.process(raw, clock, &mut self.users, &mut self.cgroups);
        };
        if entry.task_start_ns != raw.task_start_ns {
            // The number was given to another process.
            *entry = Entry::unseen(raw.task_start_ns);
        }
        let entry = entry.at(raw.start_ns);
        entry.process(raw, clock, &mut self.users, &mut self.cgroups)
    }
}

impl Entry {
    /// A process that started before capture, or by fork alone.
    fn unseen(task_start_ns: u64) -> Self {
        let program = Program::Started { file: String::new(), args: Vec::new(), truncated: true };
        Entry { task_start_ns, since_ns: 0, program, before: None, last: None, thread: None }
    }

    /// The program that ran when an attempt was made.
    fn at(&mut self, start_ns: u64) -> &mut Entry {
        if start_ns >= self.since_ns {
            return self;
        }
        let task_start_ns = self.task_start_ns;
        self.before.get_or_insert_with(|| {
            // Nothing can be known of it any more: /proc has the later program.
            let program = Program::Known(Known::default());
            Box::new(Entry { program, ..Entry::unseen(task_start_ns) })
        })
    }

    fn process(
        &mut self,
        raw: &netspy_conn,
        clock: &Clock,
        users: &mut Users,
        cgroups: &mut Cgroups,
    ) -> Process {
        let facts = Facts::of(raw);
        let info = match &self.last {
            Some((last, info)) if *last == facts => Arc::clone(info),
            _ => {
                let info = Arc::new(self.describe(raw, clock, users, cgroups));
                self.last = Some((facts, Arc::clone(&info)));
                info
            }
        };
        let thread = if raw.thread == raw.comm {
            Arc::clone(&info.comm)
        } else {
            self.thread_name(&raw.thread)
        };
        Process { tid: raw.tid, thread, info }
    }

    fn thread_name(&mut self, raw: &[u8]) -> Arc<str> {
        let name = text(raw);
        match &self.thread {
            Some(last) if **last == *name => Arc::clone(last),
            _ => Arc::clone(self.thread.insert(name.into())),
        }
    }

    fn describe(
        &mut self,
        raw: &netspy_conn,
        clock: &Clock,
        users: &mut Users,
        cgroups: &mut Cgroups,
    ) -> ProcessInfo {
        let is_alive = is_alive(raw.pid, raw.task_start_ns);
        let known = match &self.program {
            Program::Known(known) => known.clone(),
            Program::Started { file, args, truncated } => {
                let known = look_up(raw, is_alive, file, args, *truncated);
                self.program = Program::Known(known.clone());
                known
            }
        };
        let parent = text(&raw.parent);
        let cgroup = cgroups.path(raw.cgroup_id, raw.pid, is_alive);
        let mut owner = cgroup.as_deref().map(Owner::of_path).unwrap_or_default();
        // Beside hierarchies of v1, these may be what tells processes apart: that of v2 has all in its
        // root then, or those of a container in the service that started it.
        let is_v2_enough = cgroup.as_deref().is_some_and(|path| path != "/");
        if is_alive && (!is_v2_enough || cgroups.are_beside_v1()) {
            let text = fs::read_to_string(format!("/proc/{}/cgroup", raw.pid));
            owner = text.map(|text| Owner::of_process(&text)).unwrap_or_default();
        }
        ProcessInfo {
            pid: raw.pid,
            comm: text(&raw.comm).into(),
            exe: known.exe,
            exe_deleted: known.exe_deleted,
            cmdline: known.cmdline,
            unit: owner.unit,
            uid: raw.uid,
            user: users.name(raw.uid),
            ppid: raw.ppid,
            parent: (!parent.is_empty()).then(|| parent.into()),
            ancestry: Vec::new(),
            start_time: (raw.task_start_ns != 0).then(|| clock.wall(raw.task_start_ns)),
            cgroup,
            netns: raw.netns,
            container: owner.container,
        }
    }
}

/// What the start of the program told, completed by /proc.
fn look_up(raw: &netspy_conn, is_alive: bool, file: &str, args: &[u8], truncated: bool) -> Known {
    let pid = raw.pid;
    let from_proc = if is_alive { fs::read(format!("/proc/{pid}/cmdline")).ok() } else { None };
    // Another program may have started in the process since: then /proc is about that one. Where
    // the start of this one was not seen, its name at the attempt has to tell.
    let same = from_proc.as_ref().is_some_and(|proc| match args {
        [] => fs::read(format!("/proc/{pid}/comm"))
            .is_ok_and(|now| text(now.strip_suffix(b"\n").unwrap_or(&now)) == text(&raw.comm)),
        args => proc.starts_with(args),
    });
    let link = if same { fs::read_link(format!("/proc/{pid}/exe")).ok() } else { None };
    let (exe, exe_deleted) = match link {
        Some(path) => {
            let path = path.to_string_lossy();
            match path.strip_suffix(" (deleted)") {
                Some(gone) => (Some(gone.into()), true),
                None => (Some(path.into()), false),
            }
        }
        // A relative name means nothing without the directory that it was relative to.
        None => (file.starts_with('/').then(|| file.into()), false),
    };
    let cmdline = match from_proc {
        Some(proc) if same && truncated => command_line(&proc, false),
        _ => command_line(args, truncated),
    };
    Known { exe, exe_deleted, cmdline }
}

/// Arguments joined by spaces; `None` where there are none to be seen.
fn command_line(args: &[u8], truncated: bool) -> Option<Arc<str>> {
    let bytes = &args[..args.len().min(CMDLINE)];
    let trimmed = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    if trimmed.is_empty() {
        return None;
    }
    let mut line = String::from_utf8_lossy(trimmed).replace('\0', " ");
    if truncated || args.len() > CMDLINE {
        line.push('…');
    }
    Some(line.into())
}

/// Whether /proc still has the process that started then, rather than a later one of its number.
fn is_alive(pid: u32, task_start_ns: u64) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let Some(ticks) = start_ticks(&stat) else { return false };
    // In clock ticks since boot, rounded down; user space always sees 100 per second
    // (USER_HZ, include/asm-generic/param.h).
    ticks == task_start_ns / 10_000_000
}

/// Member 22 of /proc/PID/stat (proc_pid_stat(5)). The name before may hold anything, so count
/// from its last parenthesis.
fn start_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(pid: u32, start: u64, comm: &[u8]) -> netspy_conn {
        let mut raw = netspy_conn {
            pid,
            tid: pid,
            task_start_ns: start,
            start_ns: start + 10,
            ..Default::default()
        };
        raw.comm[..comm.len()].copy_from_slice(comm);
        raw.thread = raw.comm;
        raw
    }

    fn started(pid: u32, start: u64, file: &[u8], args: &[u8]) -> netspy_exec {
        let mut exec = netspy_exec {
            kind: 3,
            pid,
            task_start_ns: start,
            time_ns: start,
            file_len: file.len() as u16,
            args_len: args.len() as u16,
            args_total: args.len() as u32,
            file: [0; 256],
            args: [0; 768],
        };
        exec.file[..file.len()].copy_from_slice(file);
        exec.args[..args.len()].copy_from_slice(args);
        exec
    }

    const GONE: u32 = u32::MAX - 1;

    #[test]
    fn a_process_that_is_gone_keeps_what_its_start_told() {
        let mut processes = Processes::default();
        processes.exec(&started(GONE, 7, b"/usr/bin/curl", b"curl\0-s\0http://x\0"));
        let process = processes.resolve(&attempt(GONE, 7, b"curl"), &Clock::new());
        assert_eq!(process.exe.as_deref(), Some("/usr/bin/curl"));
        assert_eq!(process.cmdline.as_deref(), Some("curl -s http://x"));
    }

    #[test]
    fn a_reused_number_is_another_process() {
        let mut processes = Processes::default();
        processes.exec(&started(GONE, 7, b"/usr/bin/curl", b"curl\0"));
        let process = processes.resolve(&attempt(GONE, 8, b"other"), &Clock::new());
        assert_eq!((process.exe.as_deref(), process.cmdline.as_deref()), (None, None));
    }

    #[test]
    fn an_attempt_belongs_to_the_program_that_made_it_and_not_to_the_next() {
        let mut processes = Processes::default();
        let clock = Clock::new();
        processes.exec(&started(GONE, 7, b"/usr/bin/first", b"first\0"));
        let attempt = attempt(GONE, 7, b"first");
        processes.resolve(&attempt, &clock);
        processes
            .exec(&netspy_exec { time_ns: 100, ..started(GONE, 7, b"/bin/second", b"second\0") });
        let closed = processes.resolve(&attempt, &clock);
        assert_eq!(closed.exe.as_deref(), Some("/usr/bin/first"));
        let later = processes.resolve(&netspy_conn { start_ns: 101, ..attempt }, &clock);
        assert_eq!(later.exe.as_deref(), Some("/bin/second"));
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
        let pid = std::process::id();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let start = start_ticks(&stat).unwrap() * 10_000_000;
        let comm = fs::read_to_string("/proc/self/comm").unwrap();
        let mut processes = Processes::default();
        let process =
            processes.resolve(&attempt(pid, start, comm.trim().as_bytes()), &Clock::new());
        let exe = std::env::current_exe().unwrap();
        assert_eq!(process.exe.as_deref(), exe.to_str());
        // Under another name it may have run another program.
        let mut processes = Processes::default();
        let process = processes.resolve(&attempt(pid, start, b"another"), &Clock::new());
        assert_eq!((process.exe.as_deref(), process.cmdline.as_deref()), (None, None));
    }

    #[test]
    fn the_table_is_bounded() {
        let mut processes = Processes::default();
        for pid in 0..3 * GENERATION as u32 {
            processes.exec(&started(pid, 1, b"/x", b"x\0"));
        }
        assert!(processes.young.len() + processes.old.len() <= 2 * GENERATION);
    }

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_members() {
        let stat = "1 (a) b) S 0 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 99 22 33";
        assert_eq!(start_ticks(stat), Some(99));
    }
}

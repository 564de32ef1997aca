//! What is known of processes: from the attempt itself, from the start of the process and of its
//! program, and from /proc while they live.

mod lineage;
mod program;
mod stat;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;

use lineage::{Asked, Line};
use program::Program;
use stat::{Stat, ticks};

use super::cgroup::Cgroups;
use super::owner::Owner;
use super::text;
use super::users::Users;
use crate::capture::clock::Clock;
use crate::capture::skel::types::{netspy_conn, netspy_exec, netspy_fork};
use crate::event::{Process, ProcessInfo};

/// Whether a process that started then is there, rather than a later one of its number or none.
pub(super) fn lives(pid: u32, task_start_ns: u64) -> bool {
    Stat::of(pid).is_some_and(|stat| stat.is_of(task_start_ns))
}

/// Processes in one generation of the table; two generations are kept.
const GENERATION: usize = 8192;

/// The processes that were seen, and where their names are looked up.
#[derive(Debug, Default)]
pub(crate) struct Processes {
    table: Table,
    names: Names,
}

/// Bounded: when the young generation is full, the old one is forgotten and the young one takes
/// its place.
#[derive(Debug, Default)]
struct Table {
    young: HashMap<u32, Entry>,
    old: HashMap<u32, Entry>,
}

#[derive(Debug, Default)]
struct Names {
    users: Users,
    cgroups: Cgroups,
    asked: Asked,
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
    descent: Descent,
    /// The line of those that it made, as long as it has the same name.
    children: Option<Arc<Line>>,
}

/// What a process descends from.
#[derive(Debug, Clone)]
enum Descent {
    /// Its making was not seen, and nobody has asked yet.
    Unasked,
    /// All that can be known.
    Known(Option<Arc<Line>>),
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
    cwd: (u32, u64),
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
            cwd: (raw.cwd_dev, raw.cwd_ino),
        }
    }
}

impl Table {
    /// The entry of a process, which is a young one from here on.
    fn entry(&mut self, pid: u32, task_start_ns: u64) -> &mut Entry {
        self.make_room(pid);
        let old = &mut self.old;
        let entry = self.young.entry(pid);
        let entry = entry
            .or_insert_with(|| old.remove(&pid).unwrap_or_else(|| Entry::unseen(task_start_ns)));
        if entry.task_start_ns != task_start_ns {
            // The number was given to another process.
            *entry = Entry::unseen(task_start_ns);
        }
        entry
    }

    /// What is known of the process, which is forgotten.
    fn take(&mut self, pid: u32, task_start_ns: u64) -> Option<Entry> {
        let entry = self.young.remove(&pid).or_else(|| self.old.remove(&pid));
        entry.filter(|entry| entry.task_start_ns == task_start_ns)
    }

    fn insert(&mut self, pid: u32, entry: Entry) {
        self.make_room(pid);
        self.young.insert(pid, entry);
    }

    fn make_room(&mut self, pid: u32) {
        if self.young.len() >= GENERATION && !self.young.contains_key(&pid) {
            self.old = std::mem::take(&mut self.young);
        }
    }
}

impl Processes {
    /// A process was made: it runs what the one that made it does.
    pub(crate) fn fork(&mut self, fork: &netspy_fork) {
        let parent = self.table.entry(fork.ppid, fork.parent_start_ns);
        let line = parent.line_of_children(fork.ppid, &fork.parent, &mut self.names.asked);
        let child = Entry {
            program: parent.program.clone(),
            descent: Descent::Known(line),
            ..Entry::unseen(fork.task_start_ns)
        };
        self.table.insert(fork.pid, child);
    }

    /// A program was started in a process: what was known of its program before is void.
    pub(crate) fn exec(&mut self, exec: &netspy_exec) {
        // One program back is kept: its connections may outlive it.
        let before = self.table.take(exec.pid, exec.task_start_ns);
        let descent = match &before {
            Some(Entry { descent: known @ Descent::Known(_), .. }) => known.clone(),
            _ => {
                let parent = self.table.entry(exec.ppid, exec.parent_start_ns);
                let asked = &mut self.names.asked;
                Descent::Known(parent.line_of_children(exec.ppid, &exec.parent, asked))
            }
        };
        let entry = Entry {
            since_ns: exec.time_ns,
            program: Program::started(exec),
            before: before.map(|entry| Box::new(Entry { before: None, ..entry })),
            descent,
            ..Entry::unseen(exec.task_start_ns)
        };
        self.table.insert(exec.pid, entry);
    }

    /// A control group was made.
    pub(crate) fn cgroup(&mut self, id: u64, path: &str) {
        self.names.cgroups.made(id, path);
    }

    /// The process and thread of an attempt.
    pub(crate) fn resolve(&mut self, raw: &netspy_conn, clock: &Clock) -> Process {
        let entry = self.table.entry(raw.pid, raw.task_start_ns).at(raw.start_ns);
        entry.process(raw, clock, &mut self.names)
    }
}

impl Entry {
    /// A process that started before capture.
    fn unseen(task_start_ns: u64) -> Self {
        Entry {
            task_start_ns,
            since_ns: 0,
            program: Program::unseen(),
            before: None,
            last: None,
            thread: None,
            descent: Descent::Unasked,
            children: None,
        }
    }

    /// The program that ran when an attempt was made.
    fn at(&mut self, start_ns: u64) -> &mut Entry {
        if start_ns >= self.since_ns {
            return self;
        }
        let (task_start_ns, descent) = (self.task_start_ns, self.descent.clone());
        self.before.get_or_insert_with(|| {
            // /proc has the later program.
            let program = Program::unknown();
            Box::new(Entry { program, descent, ..Entry::unseen(task_start_ns) })
        })
    }

    /// What those descend from that this process, which has this name, makes.
    fn line_of_children(&mut self, pid: u32, name: &[u8], asked: &mut Asked) -> Option<Arc<Line>> {
        // The kernel's own, which has made the first process.
        if pid == 0 {
            return None;
        }
        let name = text(name);
        if let Some(line) = self.children.as_ref().filter(|line| line.name() == name) {
            return Some(Arc::clone(line));
        }
        let above = match &self.descent {
            Descent::Known(line) => line.clone(),
            Descent::Unasked => {
                let stat = Stat::of(pid).filter(|stat| stat.is_of(self.task_start_ns));
                let line = stat.and_then(|stat| asked.above(pid, &stat));
                self.descent = Descent::Known(line.clone());
                line
            }
        };
        let line = Line::new(name.into(), above);
        self.children = Some(Arc::clone(&line));
        Some(line)
    }

    fn process(&mut self, raw: &netspy_conn, clock: &Clock, names: &mut Names) -> Process {
        let facts = Facts::of(raw);
        let info = match &self.last {
            Some((last, info)) if *last == facts => Arc::clone(info),
            _ => {
                let info = Arc::new(self.describe(raw, clock, names));
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

    fn describe(&mut self, raw: &netspy_conn, clock: &Clock, names: &mut Names) -> ProcessInfo {
        // Of a later process that has the same number, /proc says nothing of use.
        let now = Stat::of(raw.pid).filter(|stat| stat.is_of(raw.task_start_ns));
        let program = self.program.known(raw, now.as_ref());
        let parent = text(&raw.parent);
        let cgroup = names.cgroups.path(raw.cgroup_id, raw.pid, now.is_some());
        let mut owner = cgroup.as_deref().map(Owner::of_path).unwrap_or_default();
        // Beside hierarchies of v1, these may be what tells processes apart: that of v2 has all in its
        // root then, or those of a container in the service that started it.
        let is_v2_enough = cgroup.as_deref().is_some_and(|path| path != "/");
        if now.is_some()
            && (!is_v2_enough || names.cgroups.are_beside_v1())
            && let Ok(text) = fs::read_to_string(format!("/proc/{}/cgroup", raw.pid))
        {
            owner = owner.or_of_process(&text);
        }
        ProcessInfo {
            pid: raw.pid,
            comm: text(&raw.comm).into(),
            exe: program.exe.clone(),
            exe_deleted: program.is_unlinked,
            exe_dev: program.file.map(|file| file.dev),
            exe_inode: program.file.map(|file| file.inode),
            exe_sha256: None,
            cmdline: program.cmdline.clone(),
            cwd: program.cwd(raw, now.as_ref()),
            unit: owner.unit,
            uid: raw.uid,
            user: names.users.name(raw.uid),
            ppid: raw.ppid,
            ancestry: self.ancestry(raw, &parent, &mut names.asked),
            parent: (!parent.is_empty()).then(|| parent.into()),
            start_time: (raw.task_start_ns != 0).then(|| clock.wall(raw.task_start_ns)),
            cgroup,
            netns: raw.netns,
            container: owner.container,
        }
    }

    fn ancestry(&mut self, raw: &netspy_conn, parent: &str, asked: &mut Asked) -> Vec<Arc<str>> {
        let line = match &self.descent {
            Descent::Known(line) => line.clone(),
            Descent::Unasked if raw.ppid == 0 => None,
            Descent::Unasked => {
                let born = ticks(raw.task_start_ns);
                let line = asked.of_child(raw.ppid, born).or_else(|| {
                    // At least the one that the attempt tells of.
                    (!parent.is_empty()).then(|| Line::new(parent.into(), None))
                });
                self.descent = Descent::Known(line.clone());
                line
            }
        };
        line.iter().flat_map(|line| line.names()).collect()
    }
}

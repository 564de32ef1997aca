//! The program that runs in a process: what its start told, completed by /proc.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use super::stat::Stat;
use crate::capture::skel::types::{netspy_conn, netspy_exec};
use crate::enrich::text;

/// The longest command line that is kept, in bytes.
const CMDLINE: usize = 4096;

/// `netspy_exec.flags` of connect.h.
const UNLINKED: u16 = 1;
const WHOLE_EXE: u16 = 2;
const WHOLE_CWD: u16 = 4;

/// Which file or directory it is, whatever its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct FileId {
    /// As stat(2) has it.
    pub(super) dev: u64,
    pub(super) inode: u64,
}

impl FileId {
    /// `dev` as the kernel has it (include/linux/kdev_t.h: 20 bits for the minor number).
    pub(super) fn of_kernel(dev: u32, inode: u64) -> Option<Self> {
        let dev = rustix::fs::makedev(dev >> 20, dev & 0xf_ffff);
        (inode != 0).then_some(FileId { dev, inode })
    }

    fn of(metadata: &fs::Metadata) -> Self {
        FileId { dev: metadata.dev(), inode: metadata.ino() }
    }

    /// Whether it is what a path leads to. Btrfs tells stat(2) of devices that the kernel's own
    /// tables do not have.
    fn is_at(self, path: &str) -> bool {
        /// BTRFS_SUPER_MAGIC of linux/magic.h.
        const BTRFS: u64 = 0x9123_683E;
        let Ok(found) = fs::metadata(path).map(|metadata| Self::of(&metadata)) else {
            return false;
        };
        let is_btrfs =
            || rustix::fs::statfs(Path::new(path)).is_ok_and(|fs| fs.f_type as u64 == BTRFS);
        found == self || (found.inode == self.inode && is_btrfs())
    }
}

/// A program, as its start told.
#[derive(Debug, Default)]
pub(super) struct Start {
    exe: Option<Arc<str>>,
    is_unlinked: bool,
    file: Option<FileId>,
    cwd: Option<(FileId, Arc<str>)>,
    args: Vec<u8>,
    is_truncated: bool,
}

/// What can be known of a program.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    pub(super) exe: Option<Arc<str>>,
    pub(super) is_unlinked: bool,
    pub(super) file: Option<FileId>,
    pub(super) cmdline: Option<Arc<str>>,
    /// Where it was started.
    cwd: Option<(FileId, Arc<str>)>,
}

/// The program of a process. A process that was made by another runs what that one ran.
#[derive(Debug, Clone)]
pub(super) enum Program {
    /// Its start was seen; what /proc adds was not looked up yet.
    Started(Arc<Start>),
    /// All that can be known is.
    Known(Arc<Known>),
}

impl Program {
    /// Its start was not seen.
    pub(super) fn unseen() -> Self {
        Program::Started(Arc::new(Start { is_truncated: true, ..Start::default() }))
    }

    /// Nothing can be known of it any more.
    pub(super) fn unknown() -> Self {
        Program::Known(Arc::default())
    }

    pub(super) fn started(exec: &netspy_exec) -> Self {
        let args = exec.args[..exec.args.len().min(exec.args_len.into())].to_vec();
        let has = |flag: u16| exec.flags & flag != 0;
        let (exe_len, cwd_len) = (usize::from(exec.exe_len), usize::from(exec.cwd_len));
        let names = |from: usize, len: usize| exec.names.get(from..from + len).unwrap_or_default();
        let cwd_id = FileId::of_kernel(exec.cwd_dev, exec.cwd_ino);
        let cwd = has(WHOLE_CWD).then(|| path(names(exe_len, cwd_len)));
        Program::Started(Arc::new(Start {
            exe: has(WHOLE_EXE).then(|| path(names(0, exe_len))),
            is_unlinked: has(UNLINKED),
            file: FileId::of_kernel(exec.exe_dev, exec.exe_ino),
            cwd: cwd_id.zip(cwd),
            is_truncated: (args.len() as u64) < u64::from(exec.args_total),
            args,
        }))
    }

    /// What is known at an attempt; `now` is what /proc has of the process, if it lives.
    pub(super) fn known(&mut self, raw: &netspy_conn, now: Option<&Stat>) -> Arc<Known> {
        let known = match self {
            Program::Known(known) => return Arc::clone(known),
            Program::Started(start) => Arc::new(start.look_up(raw, now)),
        };
        *self = Program::Known(Arc::clone(&known));
        known
    }
}

/// A path from its components, the last of which comes first, each with a zero byte.
fn path(names: &[u8]) -> Arc<str> {
    let mut path = String::new();
    // A root that is in no directory is named so, too.
    let names = names.split(|b| *b == 0).filter(|name| !name.is_empty() && *name != b"/");
    for name in names.collect::<Vec<_>>().into_iter().rev() {
        path.push('/');
        path.push_str(&String::from_utf8_lossy(name));
    }
    if path.is_empty() { "/".into() } else { path.into() }
}

impl Start {
    /// Completed by /proc.
    fn look_up(&self, raw: &netspy_conn, now: Option<&Stat>) -> Known {
        let pid = raw.pid;
        let from_proc = now.and_then(|_| fs::read(format!("/proc/{pid}/cmdline")).ok());
        // Another program may have started in the process since: then /proc is about that one.
        // Where the start of this one was not seen, its name at the attempt has to tell.
        let is_same = from_proc.as_ref().is_some_and(|proc| match &*self.args {
            [] => now.is_some_and(|now| now.comm == text(&raw.comm)),
            args => proc.starts_with(args),
        });
        let link = format!("/proc/{pid}/exe");
        let found = if is_same { fs::read_link(&link).ok() } else { None };
        let (exe, is_unlinked) = match &found {
            Some(path) => {
                let path = path.to_string_lossy();
                match path.strip_suffix(" (deleted)") {
                    Some(gone) => (Some(gone.into()), true),
                    None => (Some(path.into()), false),
                }
            }
            None => (self.exe.clone(), self.is_unlinked),
        };
        let file = self.file.or_else(|| {
            found.as_ref()?;
            fs::metadata(&link).ok().map(|metadata| FileId::of(&metadata))
        });
        let cmdline = match from_proc {
            Some(proc) if is_same && self.is_truncated => command_line(&proc, false),
            _ => command_line(&self.args, self.is_truncated),
        };
        Known { exe, is_unlinked, file, cmdline, cwd: self.cwd.clone() }
    }
}

impl Known {
    /// The working directory of an attempt: that of the start, unless it was changed since. Then
    /// /proc is asked, which tells of the same directory if nothing has changed since the attempt.
    pub(super) fn cwd(&self, raw: &netspy_conn, now: Option<&Stat>) -> Option<Arc<str>> {
        let id = FileId::of_kernel(raw.cwd_dev, raw.cwd_ino)?;
        if let Some((at_start, path)) = &self.cwd
            && *at_start == id
        {
            return Some(Arc::clone(path));
        }
        now?;
        let link = format!("/proc/{}/cwd", raw.pid);
        let path = fs::read_link(&link).ok()?;
        if !id.is_at(&link) {
            return None;
        }
        let path = path.to_string_lossy();
        Some(path.strip_suffix(" (deleted)").unwrap_or(&path).into())
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_put_together_from_its_end() {
        assert_eq!(&*path(b"curl\0bin\0usr\0"), "/usr/bin/curl");
        assert_eq!(&*path(b""), "/");
        assert_eq!(&*path(b"memfd:x\0"), "/memfd:x");
        assert_eq!(&*path(b"\xff\0/\0"), "/\u{fffd}");
    }

    #[test]
    fn a_device_is_that_of_stat() {
        let metadata = fs::metadata("/proc/self").unwrap();
        let (major, minor) = (rustix::fs::major(metadata.dev()), rustix::fs::minor(metadata.dev()));
        let kernel = (major << 20) | minor;
        let id = FileId::of_kernel(kernel, metadata.ino()).unwrap();
        assert_eq!(id, FileId::of(&metadata));
        assert!(id.is_at("/proc/self") && !id.is_at("/"));
        assert_eq!(FileId::of_kernel(kernel, 0), None);
    }

    #[test]
    fn lengths_beyond_the_record_are_no_path() {
        let exec = netspy_exec {
            flags: WHOLE_EXE | WHOLE_CWD,
            exe_len: u16::MAX,
            cwd_len: u16::MAX,
            args_len: u16::MAX,
            ..Default::default()
        };
        let Program::Started(start) = Program::started(&exec) else { unreachable!() };
        assert_eq!((start.exe.as_deref(), start.args.len()), (Some("/"), 768));
    }
}

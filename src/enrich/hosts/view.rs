//! Whether a process sees the same /etc/hosts as this one: others have another root, or another file
//! in its place in a mount namespace of their own.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, fstat, open, openat2};
use rustix::io::Errno;

use crate::capture::skel::types::netspy_conn;
use crate::enrich::process::lives;

/// Tells files apart.
type Id = (u64, u64);

/// Whether the process of an attempt sees the file at `path`; `None` where nobody can tell: it has ended
/// and so has its parent, or may not be looked at. Of one that has ended, the parent tells.
pub(super) fn sees(raw: &netspy_conn, path: &Path) -> Option<bool> {
    let own = id(Path::new("/"), path).ok()?;
    let is_same = |pid: u32| {
        let root = PathBuf::from(format!("/proc/{pid}/root"));
        let found = is_at(&root, path, own);
        // It may have ended meanwhile.
        found.filter(|_| root.exists())
    };
    let of_process = lives(raw.pid, raw.task_start_ns).then(|| is_same(raw.pid)).flatten();
    of_process.or_else(|| (raw.ppid != 0).then(|| is_same(raw.ppid)).flatten())
}

/// Whether this file is at `path` below `root`.
fn is_at(root: &Path, path: &Path, own: Id) -> Option<bool> {
    match id(root, path) {
        Ok(found) => Some(found == own),
        // There is a root, and no such file in it.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => root.exists().then_some(false),
        Err(_) => None,
    }
}

/// Links are followed as whoever has this root does.
fn id(root: &Path, path: &Path) -> Result<Id, Errno> {
    let root: OwnedFd =
        open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let path = path.strip_prefix("/").unwrap_or(path);
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let file = openat2(&root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT)?;
    let stat = fstat(&file)?;
    Ok((stat.st_dev, stat.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_file_and_none_are_not_the_same_and_links_stay_within_the_root() {
        let root = std::env::temp_dir().join(format!("netspy-view-{}", std::process::id()));
        let (hosts, etc) = (Path::new("/etc/hosts"), root.join("etc"));
        std::fs::create_dir_all(&etc).unwrap();
        let own = id(Path::new("/"), hosts).unwrap();
        assert_eq!(is_at(Path::new("/proc/self/root"), hosts, own), Some(true));
        assert_eq!(is_at(&root, hosts, own), Some(false), "none");
        std::os::unix::fs::symlink("/etc/hosts", etc.join("hosts")).unwrap();
        assert_eq!(is_at(&root, hosts, own), Some(false), "a link to itself there");
        std::fs::remove_file(etc.join("hosts")).unwrap();
        std::fs::write(etc.join("hosts"), "127.0.66.9 x\n").unwrap();
        assert_eq!(is_at(&root, hosts, own), Some(false), "another");
        assert_eq!(is_at(&root.join("gone"), hosts, own), None);
        std::fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn this_process_sees_its_file_and_of_one_that_is_gone_the_parent_tells() {
        let hosts = Path::new("/etc/hosts");
        let own = std::process::id();
        let gone = u32::MAX - 1;
        let child = netspy_conn { pid: gone, ppid: own, ..netspy_conn::default() };
        assert_eq!(sees(&child, hosts), Some(true));
        assert_eq!(sees(&netspy_conn { ppid: gone, ..child }, hosts), None);
    }
}

//! From the kernel's id of a cgroup to its path.
//!
//! The id of a v2 cgroup is the inode number of its directory.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Paths kept; a host with more cgroups than this looks some of them up again.
const KEPT: usize = 4096;
/// Directories visited in one walk.
const VISITED: usize = 20_000;
/// Time between walks.
const PAUSE: Duration = Duration::from_secs(1);

/// Paths of cgroups by id.
#[derive(Debug)]
pub(crate) struct Cgroups {
    root: Option<PathBuf>,
    beside_v1: bool,
    paths: HashMap<u64, Arc<str>>,
    walked: Option<Instant>,
}

impl Default for Cgroups {
    fn default() -> Self {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        Cgroups {
            root: cgroup2_mount(&mounts),
            beside_v1: has_cgroup1(&mounts),
            paths: HashMap::new(),
            walked: None,
        }
    }
}

impl Cgroups {
    /// The path of a cgroup. `pid` is a process that was in it, asked first, since that is cheap;
    /// the tree is walked when it is gone.
    pub(crate) fn path(&mut self, id: u64, pid: u32, is_alive: bool) -> Option<Arc<str>> {
        if let Some(path) = self.paths.get(&id) {
            return Some(Arc::clone(path));
        }
        if self.paths.len() >= KEPT {
            self.paths.clear();
        }
        if is_alive && let Some(path) = self.of_process(id, pid) {
            self.paths.insert(id, Arc::clone(&path));
            return Some(path);
        }
        if self.walked.is_some_and(|at| at.elapsed() < PAUSE) {
            return None;
        }
        self.walked = Some(Instant::now());
        self.walk();
        self.paths.get(&id).cloned()
    }

    /// Whether there are hierarchies of v1, too.
    pub(crate) fn are_beside_v1(&self) -> bool {
        self.beside_v1
    }

    /// One was made. Ids are not given twice.
    pub(crate) fn made(&mut self, id: u64, path: &str) {
        if !path.starts_with('/') {
            return;
        }
        if self.paths.len() >= KEPT {
            self.paths.clear();
        }
        self.paths.insert(id, path.into());
    }

    /// What /proc says, if it is about the same cgroup (the process may have been moved).
    fn of_process(&self, id: u64, pid: u32) -> Option<Arc<str>> {
        let file = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let path = file.lines().find_map(|line| line.strip_prefix("0::"))?;
        let directory = self.root.as_ref()?.join(path.trim_start_matches('/'));
        let same = std::fs::metadata(directory).is_ok_and(|m| m.ino() == id);
        same.then(|| path.into())
    }

    fn walk(&mut self) {
        let Some(root) = self.root.clone() else { return };
        let mut left = VISITED;
        let mut todo = vec![root.clone()];
        while let Some(directory) = todo.pop() {
            if left == 0 || self.paths.len() >= KEPT {
                return;
            }
            left -= 1;
            if let Ok(metadata) = std::fs::metadata(&directory) {
                let relative = directory.strip_prefix(&root).unwrap_or(Path::new(""));
                let path = format!("/{}", relative.to_string_lossy());
                self.paths.insert(metadata.ino(), path.into());
            }
            let entries = std::fs::read_dir(&directory).into_iter().flatten().flatten();
            let is_directory =
                |e: &std::fs::DirEntry| e.file_type().is_ok_and(|kind| kind.is_dir());
            todo.extend(entries.filter(is_directory).map(|e| e.path()));
        }
    }
}

/// Where the cgroup v2 hierarchy is mounted; beside v1 that may be anywhere.
fn cgroup2_mount(mountinfo: &str) -> Option<PathBuf> {
    mounts(mountinfo).find(|(kind, _)| *kind == "cgroup2").map(|(_, place)| place.into())
}

/// Whether hierarchies of v1 are mounted.
fn has_cgroup1(mountinfo: &str) -> bool {
    mounts(mountinfo).any(|(kind, _)| kind == "cgroup")
}

/// The type and the place of each mount.
fn mounts(mountinfo: &str) -> impl Iterator<Item = (&str, &str)> {
    // "36 35 98:0 /root /mount/point options - type source super-options"
    mountinfo.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        Some((right.split(' ').next()?, left.split(' ').nth(4)?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_v2_mount_is_found_beside_v1() {
        let info = "25 20 0:22 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n\
                    26 25 0:23 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                    27 25 0:24 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(cgroup2_mount(info), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert!(has_cgroup1(info));
        assert_eq!(cgroup2_mount("nonsense"), None);
        assert!(!has_cgroup1("28 1 0:24 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"));
    }
}

//! A cgroup of a test's own.

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

/// Gone with this value, once what was in it has ended.
pub struct Group {
    pub path: PathBuf,
}

impl Group {
    /// `None`, with the reason printed, where there is no cgroup v2 hierarchy to make one in.
    pub fn new(name: &str) -> Option<Self> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "));
        let Some(mount) = mount.and_then(|line| line.split(' ').nth(4)) else {
            println!("skipped: no cgroup v2 hierarchy is mounted");
            return None;
        };
        let name = format!("netspy-live-{name}-{}", std::process::id());
        let path = PathBuf::from(mount).join(name);
        std::fs::create_dir_all(&path).unwrap();
        Some(Group { path })
    }

    /// The kernel's id of it.
    pub fn id(&self) -> u64 {
        std::fs::metadata(&self.path).unwrap().ino()
    }

    /// Has a program start in the group.
    pub fn take(&self, mut command: Command) -> Command {
        let procs = std::fs::File::create(self.path.join("cgroup.procs")).unwrap();
        // SAFETY: between fork and exec only write() is called, on an open descriptor.
        #[allow(unsafe_code)]
        unsafe {
            command.pre_exec(move || {
                rustix::io::write(&procs, b"0").map(drop).map_err(std::io::Error::from)
            })
        };
        command
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.path);
    }
}

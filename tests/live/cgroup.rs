//! A control group with a program of its own, which drops what its processes send.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command};

use libbpf_rs::libbpf_sys;

/// Removed when it is dropped, and its program with it.
pub struct Cgroup {
    directory: PathBuf,
    _program: OwnedFd,
}

impl Cgroup {
    /// Whose processes send nothing; `None`, with the reason printed, where there can be none.
    pub fn that_drops_egress() -> Option<Self> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let Some(root) = mounts.lines().find_map(|line| {
            let (mount, kind) = line.split_once(" - ")?;
            kind.starts_with("cgroup2 ").then(|| mount.split(' ').nth(4))?
        }) else {
            println!("skipped: no cgroup v2 hierarchy is mounted");
            return None;
        };
        let directory = PathBuf::from(root).join(format!("netspy-test-{}", std::process::id()));
        if let Err(error) = std::fs::create_dir(&directory) {
            println!("skipped: no control group can be made in {root}: {error}");
            return None;
        }
        let program = program_that_returns_0();
        let cgroup = Cgroup { directory, _program: program };
        let opened = std::fs::File::open(&cgroup.directory).unwrap();
        // SAFETY: takes descriptors that live through the call.
        #[allow(unsafe_code)]
        let ret = unsafe {
            libbpf_sys::bpf_prog_attach(
                cgroup._program.as_raw_fd(),
                opened.as_raw_fd(),
                libbpf_sys::BPF_CGROUP_INET_EGRESS,
                0,
            )
        };
        assert_eq!(ret, 0, "attaching to the cgroup: {}", std::io::Error::last_os_error());
        Some(cgroup)
    }

    /// Starts a command whose sockets are of the group.
    pub fn run(&self, command: &mut Command) -> Child {
        let procs = self.directory.join("cgroup.procs");
        // SAFETY: between fork and exec this only opens and writes a file; the name of the file was
        // made before.
        #[allow(unsafe_code)]
        unsafe {
            command.pre_exec(move || {
                let file = rustix::fs::open(
                    &procs,
                    rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC,
                    rustix::fs::Mode::empty(),
                )?;
                // 0 is the writer itself.
                rustix::io::write(&file, b"0")?;
                Ok(())
            });
        }
        command.spawn().unwrap()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.directory);
    }
}

/// `r0 = 0; exit`, as a cgroup_skb program: nothing may pass.
fn program_that_returns_0() -> OwnedFd {
    let [mut zero, mut exit] = [libbpf_sys::bpf_insn::default(); 2];
    zero.code = 0xb7;
    exit.code = 0x95;
    let insns = [zero, exit];
    // SAFETY: the instructions and strings live through the call; no options are given.
    #[allow(unsafe_code)]
    unsafe {
        let fd = libbpf_sys::bpf_prog_load(
            libbpf_sys::BPF_PROG_TYPE_CGROUP_SKB,
            c"drop".as_ptr(),
            c"GPL".as_ptr(),
            insns.as_ptr(),
            insns.len() as _,
            std::ptr::null_mut(),
        );
        assert!(fd >= 0, "loading a program: {}", std::io::Error::last_os_error());
        OwnedFd::from_raw_fd(fd)
    }
}

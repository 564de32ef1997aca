//! A control group with a program of its own, which drops what its processes send.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use libbpf_rs::libbpf_sys;

use crate::group::Group;

/// A group whose processes send nothing; the program goes with the group.
pub fn that_drops_egress() -> Option<Group> {
    let group = Group::new("drops")?;
    let (program, opened) = (program_that_returns_0(), std::fs::File::open(&group.path).unwrap());
    // SAFETY: takes descriptors that live through the call.
    #[allow(unsafe_code)]
    let ret = unsafe {
        let kind = libbpf_sys::BPF_CGROUP_INET_EGRESS;
        libbpf_sys::bpf_prog_attach(program.as_raw_fd(), opened.as_raw_fd(), kind, 0)
    };
    assert_eq!(ret, 0, "attaching to the cgroup: {}", std::io::Error::last_os_error());
    Some(group)
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

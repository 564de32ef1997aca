//! The tracing file system, in which system-call tracepoints are found.

use std::path::Path;

/// Whether one of the two places where libbpf looks has the file.
pub(super) fn has(file: &str) -> bool {
    ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"]
        .iter()
        .any(|root| Path::new(root).join(file).exists())
}

/// Makes it visible to this thread alone, where the host has not mounted it. Failure shows later,
/// as the absence of what was to be found there.
pub(super) fn find() {
    if has("events") {
        return;
    }
    if let Err(error) = mount_privately() {
        tracing::debug!("cannot mount tracefs privately: {error}");
    }
}

fn mount_privately() -> rustix::io::Result<()> {
    use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
    use rustix::thread::UnshareFlags;
    // SAFETY: a mount namespace of its own (and with it its own working directory and umask) for
    // this thread, which touches no relative path.
    #[allow(unsafe_code)]
    unsafe {
        rustix::thread::unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS)?;
    }
    // Mounts of the host still arrive here; the one made here does not go back.
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("tracefs", "/sys/kernel/tracing", "tracefs", flags, None)
}

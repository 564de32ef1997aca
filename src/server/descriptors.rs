//! File descriptors: connections take them, and the server itself needs some.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::clients::Limits;

/// Connections are file descriptors, of which a process may have few unless it asks for more.
pub(super) fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!("the limit of open files stays: {error}");
    }
}

/// Descriptors that are kept free of connections: for files of history, for /proc, and for connections
/// that are being closed to make room.
const SPARE_FILES: u64 = 64;
/// Connections that there are whatever is left, as the least that can be configured.
const LEAST_CONNECTIONS: u64 = 8;

/// Keeps clients from taking the descriptors that the server itself needs: those beyond the limit
/// could not even be accepted, nor anybody closed to make room for them.
pub(super) fn bound(limits: &Limits, asked: u32) {
    let Some(may) = getrlimit(Resource::Nofile).current else {
        return;
    };
    let open = std::fs::read_dir("/proc/self/fd").map_or(SPARE_FILES, |fds| fds.count() as u64);
    let most = may.saturating_sub(open + SPARE_FILES).max(LEAST_CONNECTIONS);
    if most < u64::from(asked) {
        tracing::warn!(
            "no more than {most} connections can be open, not {asked}: this process may have {may} \
             open files (ulimit -n, LimitNOFILE=)"
        );
    }
    limits.bound(usize::try_from(most).unwrap_or(usize::MAX));
}

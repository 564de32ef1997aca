//! Which connections a report is about, and which are left out of it unless asked for.

use crate::event::{Connection, Protocol};

/// Sockets at which the C library asks for users and names before it goes another way: nscd(8),
/// nss-resolve(8) and nss-mdns. Where none of them is installed, that nothing listens there is as it
/// should be, and nearly every command finds it so.
const ASKED_FIRST: &[&str] = &[
    "/var/run/nscd/socket",
    "/run/nscd/socket",
    "/run/systemd/resolve/io.systemd.Resolve",
    "/var/run/avahi-daemon/socket",
    "/run/avahi-daemon/socket",
];

/// What a report does with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    Yes,
    /// Only counted: the C library has asked where nothing listens.
    AskedFirst,
    No,
}

impl Shown {
    /// UNIX sockets that were reached are of the inner workings of a host, as a rule; one that was not
    /// is why a command failed, unless the C library does without it.
    pub fn of(c: &Connection, all: bool) -> Self {
        if all || c.protocol != Protocol::Unix {
            Shown::Yes
        } else if !c.outcome.is_unsuccessful() {
            Shown::No
        } else if is_asked_first(c) {
            Shown::AskedFirst
        } else {
            Shown::Yes
        }
    }
}

fn is_asked_first(c: &Connection) -> bool {
    let nobody = [libc::ENOENT, libc::ECONNREFUSED];
    c.path.as_deref().is_some_and(|path| ASKED_FIRST.contains(&path))
        && c.errno.is_some_and(|errno| nobody.contains(&errno))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_records::{established, info, refused};

    #[test]
    fn of_unix_sockets_only_what_could_not_be_reached_is_shown_unless_asked_for() {
        let curl = info(7, "curl");
        let unix = |c: Connection| Connection { protocol: Protocol::Unix, remote: None, ..c };
        let (reached, failed) = (unix(established(1, &curl)), unix(refused(2, &curl)));
        assert_eq!(Shown::of(&reached, false), Shown::No);
        assert_eq!(Shown::of(&reached, true), Shown::Yes);
        assert_eq!(Shown::of(&failed, false), Shown::Yes);
        assert_eq!(Shown::of(&established(3, &curl), false), Shown::Yes);
    }

    #[test]
    fn a_cache_of_names_that_is_not_there_is_only_counted_and_one_that_is_forbidden_is_shown() {
        let to = |path: &str, errno| {
            let path = Some(path.into());
            let errno = Some(errno);
            let c = refused(1, &info(7, "curl"));
            Connection { protocol: Protocol::Unix, remote: None, path, errno, ..c }
        };
        let nscd = to("/var/run/nscd/socket", libc::ENOENT);
        assert_eq!(Shown::of(&nscd, false), Shown::AskedFirst);
        assert_eq!(Shown::of(&nscd, true), Shown::Yes);
        for other in
            [to("/var/run/nscd/socket", libc::EACCES), to("/run/postgresql/.s", libc::ENOENT)]
        {
            assert_eq!(Shown::of(&other, false), Shown::Yes, "{other:?}");
        }
    }
}

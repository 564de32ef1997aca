//! Names of /etc/hosts, for the processes that see this file: those of the host's own namespaces.

mod view;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use crate::capture::skel::types::netspy_conn;

/// Read as far as this; a longer file is a list of what to block, whose names are of nobody.
const MOST: u64 = 1 << 20;

/// A file of addresses and names (hosts(5)).
#[derive(Debug)]
pub(crate) struct Hosts {
    path: PathBuf,
    /// The network namespace that it is for.
    netns: u32,
    /// Inode, time of change and size, as it was read.
    version: Option<(u64, i64, i64, u64)>,
    names: HashMap<IpAddr, Arc<str>>,
}

impl Hosts {
    /// That of the host, which is taken to be that of this process.
    pub(crate) fn of_host() -> Self {
        let netns = std::fs::metadata("/proc/self/ns/net").map_or(0, |m| m.ino());
        Hosts::at("/etc/hosts".into(), u32::try_from(netns).unwrap_or(0))
    }

    pub(crate) fn at(path: PathBuf, netns: u32) -> Self {
        let mut hosts = Hosts { path, netns, version: None, names: HashMap::new() };
        hosts.refresh();
        hosts
    }

    /// Reads it again where it has changed. Without one, there are no names.
    pub(crate) fn refresh(&mut self) {
        let found = std::fs::metadata(&self.path).ok().filter(|found| found.is_file());
        let version = found.map(|m| (m.ino(), m.mtime(), m.mtime_nsec(), m.size()));
        if version == self.version {
            return;
        }
        self.version = version;
        let is_short = version.is_some_and(|(.., size)| size <= MOST);
        let text = is_short.then(|| std::fs::read(&self.path).ok()).flatten().unwrap_or_default();
        self.names = names(&String::from_utf8_lossy(&text));
    }

    /// The first name of an address. The one that every host calls `localhost` has none: it is in every
    /// file, and of more names than one can be meant.
    pub(crate) fn name(&self, ip: IpAddr, netns: u32) -> Option<Arc<str>> {
        let is_localhost =
            [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()].contains(&ip);
        if netns != self.netns || is_localhost || ip.is_unspecified() {
            return None;
        }
        self.names.get(&ip).cloned()
    }

    /// Whether the process of an attempt sees this file, as far as can be known: of one that has ended
    /// with its parent, the network namespace has to tell.
    pub(crate) fn are_of(&self, raw: &netspy_conn) -> bool {
        view::sees(raw, &self.path).unwrap_or(true)
    }
}

fn names(text: &str) -> HashMap<IpAddr, Arc<str>> {
    let mut names = HashMap::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_ascii_whitespace();
        let (Some(Ok(ip)), Some(name)) = (words.next().map(str::parse::<IpAddr>), words.next())
        else {
            continue;
        };
        if name.len() <= 255 {
            names.entry(ip).or_insert_with(|| name.to_ascii_lowercase().into());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_of_an_address_counts_and_comments_do_not() {
        let text = "# 192.0.2.9 no\n192.0.2.1 Db db.example # main\n::1 localhost\nnonsense\n\
                    192.0.2.1 other\n2001:db8::1\tsix.example\n192.0.2.2\n\
                    127.0.0.1 localhost\n127.0.66.9 loop.test\n";
        let hosts = Hosts { path: PathBuf::new(), netns: 7, version: None, names: names(text) };
        let name = |ip: &str, netns| hosts.name(ip.parse().unwrap(), netns);
        assert_eq!(name("192.0.2.1", 7).as_deref(), Some("db"));
        assert_eq!(name("2001:db8::1", 7).as_deref(), Some("six.example"));
        assert_eq!(name("192.0.2.1", 8), None, "another namespace may have another file");
        assert_eq!(name("127.0.66.9", 7).as_deref(), Some("loop.test"));
        assert_eq!(name("127.0.0.1", 7), None, "every host's");
        assert_eq!(
            (name("::1", 7), name("192.0.2.9", 7), name("192.0.2.2", 7)),
            (None, None, None)
        );
    }

    #[test]
    fn a_file_that_changes_is_read_again() {
        let path = std::env::temp_dir().join(format!("netspy-hosts-{}", std::process::id()));
        let ip = "192.0.2.1".parse().unwrap();
        let mut hosts = Hosts::at(path.clone(), 7);
        assert_eq!(hosts.name(ip, 7), None);
        std::fs::write(&path, "192.0.2.1 one\n").unwrap();
        hosts.refresh();
        assert_eq!(hosts.name(ip, 7).as_deref(), Some("one"));
        std::fs::remove_file(&path).unwrap();
        hosts.refresh();
        assert_eq!(hosts.name(ip, 7), None);
    }
}

//! User names from /etc/passwd.
//!
//! Read directly: the C library's look-up may ask the network, and cannot be linked statically.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

const PASSWD: &str = "/etc/passwd";
/// Time between looks at the file for changes.
const CHECK: Duration = Duration::from_secs(10);

/// User names by id.
#[derive(Debug, Default)]
pub(crate) struct Users {
    names: HashMap<u32, Arc<str>>,
    modified: Option<SystemTime>,
    checked: Option<Instant>,
}

impl Users {
    /// The name of a user, if the file has it.
    pub(crate) fn name(&mut self, uid: u32) -> Option<Arc<str>> {
        if self.checked.is_none_or(|at| at.elapsed() > CHECK) {
            self.checked = Some(Instant::now());
            let modified = std::fs::metadata(PASSWD).and_then(|m| m.modified()).ok();
            if modified != self.modified || self.names.is_empty() {
                self.modified = modified;
                self.names = parse(&std::fs::read(PASSWD).unwrap_or_default());
            }
        }
        self.names.get(&uid).cloned()
    }
}

/// All that the file has.
#[cfg(feature = "ai")]
pub(crate) fn all() -> HashMap<u32, Arc<str>> {
    parse(&std::fs::read(PASSWD).unwrap_or_default())
}

/// `name:password:uid:...` per line; the first line of a uid counts, as in getpwuid(3).
fn parse(file: &[u8]) -> HashMap<u32, Arc<str>> {
    let mut names = HashMap::new();
    for line in String::from_utf8_lossy(file).lines() {
        let mut fields = line.split(':');
        let (Some(name), Some(uid)) = (fields.next(), fields.nth(1)) else { continue };
        if let Ok(uid) = uid.parse() {
            names.entry(uid).or_insert_with(|| name.into());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_are_no_users_are_passed_over() {
        let names = parse(b"root:x:0:0::/root:/bin/sh\nbad\ntoor:x:0:0\n:x:y:\nann:x:1000:");
        assert_eq!(names.get(&0).map(|n| &**n), Some("root"));
        assert_eq!(names.get(&1000).map(|n| &**n), Some("ann"));
        assert_eq!(names.len(), 2);
    }
}

//! What can be said of a directory before history is kept there: nothing is changed by looking.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{fmt, io};

use rustix::fs::{FlockOperation, flock};

use super::directory::{Name, failed, list, room};
use super::{HistoryError, HistoryOptions};

/// What lies in a directory of history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryReport {
    /// The directory.
    pub directory: PathBuf,
    /// Whether it is there; if not, a start makes it.
    pub exists: bool,
    /// Segments in it.
    pub segments: u64,
    /// Journals in it, which a start makes a segment of.
    pub journals: u64,
    /// Bytes of these files.
    pub bytes: u64,
    /// Bytes that the file system still has for it.
    pub room_bytes: u64,
    /// Whether a server keeps its history there now.
    pub in_use: bool,
}

impl fmt::Display for HistoryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (directory, room) = (self.directory.display(), self.room_bytes >> 20);
        let (segments, journals, mib) = (self.segments, self.journals, self.bytes >> 20);
        match self.exists {
            false => write!(f, "{directory}: will be made")?,
            true => write!(f, "{directory}: {segments} segments, {journals} journals, {mib} MiB")?,
        }
        write!(f, ", room for {room} MiB")?;
        if self.in_use { f.write_str(", in use by a server") } else { Ok(()) }
    }
}

impl HistoryOptions {
    /// Looks whether this user and group could keep history in the directory, without privileges.
    pub fn check(&self, owner: (u32, u32)) -> Result<HistoryReport, HistoryError> {
        let path = &self.directory;
        let mut report = HistoryReport {
            directory: path.clone(),
            exists: false,
            segments: 0,
            journals: 0,
            bytes: 0,
            room_bytes: 0,
            in_use: false,
        };
        match fs::metadata(path) {
            Ok(found) if !found.is_dir() => {
                return Err(failed("cannot use", path)(io::ErrorKind::NotADirectory.into()));
            }
            Ok(found) if !may_write(&found, owner) => {
                let (uid, mode) = (found.uid(), found.mode() & 0o777);
                let why = format!("user {} may not write to it (user {uid}, {mode:o})", owner.0);
                return Err(failed("cannot use", path)(io::Error::other(why)));
            }
            Ok(_) => report.exists = true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let above = path.parent().filter(|above| !above.as_os_str().is_empty());
                let above = above.unwrap_or(Path::new("."));
                fs::metadata(above).map_err(failed("cannot make a directory in", above))?;
                report.room_bytes = room(above).map_err(failed("cannot look at", above))?;
                return Ok(report);
            }
            Err(error) => return Err(failed("cannot look at", path)(error)),
        }
        report.room_bytes = room(path).map_err(failed("cannot look at", path))?;
        for (name, file) in list(path).map_err(failed("cannot read", path))? {
            match name {
                Name::Segment(..) => report.segments += 1,
                Name::Journal(_) => report.journals += 1,
                Name::Unfinished | Name::Foreign(_) => {}
            }
            report.bytes += fs::metadata(&file).map_or(0, |file| file.len());
        }
        report.in_use = is_locked(path);
        Ok(report)
    }
}

/// As the kernel decides for a process without capabilities.
fn may_write(directory: &fs::Metadata, (uid, gid): (u32, u32)) -> bool {
    let shift = match () {
        () if directory.uid() == uid => 6,
        () if directory.gid() == gid => 3,
        () => 0,
    };
    // Files are found, made and removed in it.
    (directory.mode() >> shift) & 0o7 == 0o7
}

fn is_locked(path: &Path) -> bool {
    let path = path.join("lock");
    if !fs::metadata(&path).is_ok_and(|lock| lock.is_file()) {
        return false;
    }
    let Ok(lock) = File::open(path) else { return false };
    // Given back when the file is closed.
    flock(&lock, FlockOperation::NonBlockingLockExclusive) == Err(rustix::io::Errno::WOULDBLOCK)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::store::Store;
    use crate::test_records::{info, refused};

    #[test]
    fn what_is_there_is_told_and_nothing_is_changed() {
        let path = std::env::temp_dir().join(format!("netspy-check-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        let options =
            HistoryOptions { directory: path.clone(), limit_bytes: 1 << 30, max_age: None };
        let me = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let report = options.check(me).unwrap();
        assert!(!report.exists && report.room_bytes > 0 && !path.exists(), "{report:?}");
        let store = Store::open(1 << 20, &options).unwrap();
        store.apply(vec![refused(1, &info(7, "curl"))]);
        store.close();
        assert!(options.check(me).unwrap().in_use);
        drop(store);
        let report = options.check(me).unwrap();
        assert!(report.exists && !report.in_use && report.bytes > 0, "{report:?}");
        assert_eq!((report.segments, report.journals), (0, 1));
        let other = options.check((me.0 + 1, me.1 + 1)).unwrap_err().to_string();
        assert!(other.contains("may not write to it") && other.contains("--data-dir"), "{other}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o500)).unwrap();
        assert!(options.check(me).is_err());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        for directory in [path.join("lock"), path.join("a/b")] {
            assert!(HistoryOptions { directory, ..options.clone() }.check(me).is_err());
        }
        let _ = fs::remove_dir_all(&path);
    }
}

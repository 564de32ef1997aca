//! The directory: whose it is, what lies in it, and how files come and go.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, chown};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock, statvfs};

use super::HistoryError;

/// Room that is left to others on the file system, unless that is small.
const RESERVE: u64 = 64 << 20;
/// Of a small one, a part of so many.
const RESERVE_PART: u64 = 20;

#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// Held for as long as this is alive.
    lock: File,
}

/// What the name of a file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    Journal(u64),
    /// With the checksum of the file.
    Segment(u64, u32),
    /// What was being written when the process ended.
    Unfinished,
    /// Named as one of these, and none, for this reason.
    Foreign(&'static str),
}

/// Numbers end here: one that is greater was not given by this program, and would leave none to go
/// on with.
const MAX_NUMBER: u64 = 900_000_000_000;
/// Only there while it is tried whether the disk takes anything.
const PROBE: &str = "probe.tmp";
/// Who holds it has the directory.
const LOCK: &str = "lock";
/// The books, and what is to take their place.
const BOOKS: &str = "books";
const UNFINISHED_BOOKS: &str = "books.tmp";

impl Name {
    fn parse(name: &str) -> Option<Name> {
        let (stem, kind) = name.split_once('.')?;
        let number = |digits: &str| {
            let plain = digits.len() == 12 && digits.bytes().all(|b| b.is_ascii_digit());
            plain.then(|| digits.parse().ok()).flatten()
        };
        let named = match kind {
            "arrow" => Name::Journal(number(stem)?),
            "parquet" => {
                let (stem, crc) = stem.split_once('-')?;
                Name::Segment(number(stem)?, u32::from_str_radix(crc, 16).ok()?)
            }
            "parquet.tmp" => number(stem).map(|_| Name::Unfinished)?,
            "tmp" if name == PROBE => Name::Unfinished,
            _ => return None,
        };
        Some(match named {
            Name::Journal(number) | Name::Segment(number, _) if number > MAX_NUMBER => {
                Name::Foreign("no file of this program has such a number")
            }
            named => named,
        })
    }
}

pub(super) fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> HistoryError {
    let path = path.to_owned();
    move |source| HistoryError::Directory { what, path, source }
}

impl Directory {
    /// Makes the directory where there is none, for this user and group; one that is there stays as
    /// it is.
    pub(super) fn make(path: &Path, owner: Option<(u32, u32)>) -> Result<(), HistoryError> {
        match DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            Err(error) => return Err(failed("cannot make", path)(error)),
        }
        let Some((uid, gid)) = owner else { return Ok(()) };
        chown(path, Some(uid), Some(gid)).map_err(failed("cannot change the owner of", path))
    }

    /// Takes a directory, which is made where there is none.
    pub(super) fn take(path: &Path) -> Result<Self, HistoryError> {
        Directory::make(path, None)?;
        let lock = path.join(LOCK);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        // Nobody waits for the other end of a pipe.
        options.custom_flags(libc::O_NONBLOCK);
        let file = options.open(&lock).map_err(failed("cannot open", &lock))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Directory { path: path.to_owned(), lock: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                Err(HistoryError::InUse { path: path.to_owned() })
            }
            Err(error) => Err(failed("cannot lock", &lock)(error.into())),
        }
    }

    /// An error where the directory that this process holds is no longer to be found under its name.
    pub(super) fn is_there(&self) -> io::Result<()> {
        let held = self.lock.metadata()?;
        match fs::symlink_metadata(self.path.join(LOCK)) {
            Ok(found) if (found.dev(), found.ino()) == (held.dev(), held.ino()) => Ok(()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Err(io::Error::other(
                "the directory, or the file `lock` in it, was removed or replaced while the server \
                 ran; start the server again, so that it takes the directory",
            )),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn journal(&self, number: u64) -> PathBuf {
        self.path.join(format!("{number:012}.arrow"))
    }

    pub(super) fn segment(&self, number: u64, crc: u32) -> PathBuf {
        self.path.join(format!("{number:012}-{crc:08x}.parquet"))
    }

    pub(super) fn unfinished(&self, number: u64) -> PathBuf {
        self.path.join(format!("{number:012}.parquet.tmp"))
    }

    /// A file for trying whether the disk takes anything.
    pub(super) fn probe(&self) -> PathBuf {
        self.path.join(PROBE)
    }

    /// The books of the captures.
    pub(super) fn books(&self) -> PathBuf {
        self.path.join(BOOKS)
    }

    /// The same, until they are written.
    pub(super) fn unfinished_books(&self) -> PathBuf {
        self.path.join(UNFINISHED_BOOKS)
    }

    /// The files of records that are of this program; see [`list`].
    pub(super) fn list(&self) -> io::Result<Vec<(Name, PathBuf)>> {
        list(&self.path)
    }

    /// A new file. One that is there was begun by somebody who could not go on.
    pub(super) fn create(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new().append(true).create(true).mode(0o600).open(path)
    }

    /// Makes what happened to names last.
    pub(super) fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    /// Moves a file aside, so that it is not looked at again.
    pub(super) fn set_aside(&self, path: &Path) -> io::Result<PathBuf> {
        let (aside, is_there) = self.aside(path)?;
        // Of two names of one file, renaming takes neither away.
        if is_there {
            fs::remove_file(path)?
        } else {
            fs::rename(path, &aside)?
        }
        Ok(aside)
    }

    /// Gives a file a second name, under which it stays when it goes under its own.
    pub(super) fn keep_aside(&self, path: &Path) -> io::Result<PathBuf> {
        let (aside, is_there) = self.aside(path)?;
        if !is_there {
            fs::hard_link(path, &aside)?;
        }
        Ok(aside)
    }

    /// The name of a file that is set aside, and whether it has it already.
    fn aside(&self, path: &Path) -> io::Result<(PathBuf, bool)> {
        let file = fs::symlink_metadata(path)?;
        let mut count = 1;
        loop {
            let mut name = path.file_name().unwrap_or_default().to_owned();
            if count > 1 {
                name.push(format!(".{count}"));
            }
            name.push(".corrupt");
            let aside = self.path.join(name);
            match fs::symlink_metadata(&aside) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((aside, false)),
                Err(error) => return Err(error),
                Ok(other) if (other.dev(), other.ino()) == (file.dev(), file.ino()) => {
                    return Ok((aside, true));
                }
                // Of an earlier time, when its number was given once more.
                Ok(_) => count += 1,
            }
        }
    }

    /// Bytes that may still be written.
    pub(super) fn room(&self) -> io::Result<u64> {
        room(&self.path)
    }

    /// The same with what is left to others.
    pub(super) fn whole_room(&self) -> io::Result<u64> {
        let fs = statvfs(&self.path)?;
        Ok(fs.f_bavail.saturating_mul(fs.f_frsize))
    }
}

/// The files in a directory that are of this program, by number; those of others are left alone.
pub(super) fn list(directory: &Path) -> io::Result<Vec<(Name, PathBuf)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_str().and_then(Name::parse);
        let Some(name) = name else { continue };
        let is_file = entry.file_type().is_ok_and(|t| t.is_file());
        let name = if is_file { name } else { Name::Foreign("it is no regular file") };
        files.push((name, entry.path()));
    }
    files.sort_by(|(_, a), (_, b)| a.cmp(b));
    Ok(files)
}

/// Bytes that may still be written to a directory.
pub(super) fn room(directory: &Path) -> io::Result<u64> {
    let fs = statvfs(directory)?;
    let reserve = RESERVE.min(fs.f_blocks.saturating_mul(fs.f_frsize) / RESERVE_PART);
    Ok(fs.f_bavail.saturating_mul(fs.f_frsize).saturating_sub(reserve))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_named_as_the_programs_files_is_one_of_them() {
        assert_eq!(Name::parse("000000000007.arrow"), Some(Name::Journal(7)));
        assert_eq!(Name::parse("000000000007-0000002a.parquet"), Some(Name::Segment(7, 42)));
        assert_eq!(Name::parse("000000000007.parquet.tmp"), Some(Name::Unfinished));
        assert_eq!(Name::parse("probe.tmp"), Some(Name::Unfinished));
        for name in ["999999999999.arrow", "999999999999-0000002a.parquet"] {
            assert!(matches!(Name::parse(name), Some(Name::Foreign(_))), "{name}");
        }
        for name in [
            "7.arrow",
            "lock",
            "a.parquet",
            "000000000007.parquet",
            "000000000007.arrow.corrupt",
            "a.tmp",
            "é",
        ] {
            assert_eq!(Name::parse(name), None, "{name}");
        }
    }
}

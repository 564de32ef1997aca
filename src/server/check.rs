//! What `--check` looks at without making anything: whether there could be what is to be made.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use super::options::Options;
use super::run::ServerError;
use crate::store::HistoryReport;

/// A file or directory that could not be made.
#[derive(Debug, thiserror::Error)]
#[error("--{option} {}: cannot be made there: {source}", path.display())]
pub struct PlaceError {
    option: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Whether the UNIX socket and the recording could be made.
pub(super) fn files(options: &Options) -> Result<(), ServerError> {
    if let Some(path) = options.unix.as_deref() {
        let failed = |source| PlaceError { option: "unix", path: path.to_owned(), source };
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                let source = io::Error::other("there is something that is no socket");
                return Err(failed(source).into());
            }
            _ => may_make(above(path)).map_err(failed)?,
        }
    }
    if let Some(path) = options.record.as_deref() {
        let failed = |source| PlaceError { option: "record", path: path.to_owned(), source };
        if fs::symlink_metadata(path).is_ok() {
            return Err(failed(io::ErrorKind::AlreadyExists.into()).into());
        }
        may_make(above(path)).map_err(failed)?;
    }
    Ok(())
}

/// Whether there is a place where history, of which this is known, could be kept.
pub(super) fn history(report: &HistoryReport) -> Result<(), ServerError> {
    let path = &report.directory;
    let failed = |source| PlaceError { option: "data-dir", path: path.clone(), source };
    may_make(if report.exists { path } else { above(path) }).map_err(failed)?;
    // Where there are segments, the oldest make room.
    if report.room_bytes == 0 && report.segments == 0 {
        let source = io::Error::other("its file system has no room for history");
        return Err(failed(source).into());
    }
    Ok(())
}

fn above(path: &Path) -> &Path {
    path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether files can be made in a directory, also as far as its file system is concerned.
fn may_make(directory: &Path) -> io::Result<()> {
    match fs::metadata(directory)?.is_dir() {
        true => Ok(access(directory, Access::WRITE_OK | Access::EXEC_OK)?),
        false => Err(io::ErrorKind::NotADirectory.into()),
    }
}

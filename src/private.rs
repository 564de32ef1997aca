//! Files that hold a secret: nobody but their owner may read or write them.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The largest file that is read.
const LIMIT: u64 = 16 * 1024;

/// Why a file's secret cannot be had.
#[derive(Debug)]
pub(crate) enum PrivateError {
    /// It cannot be read.
    Read(io::Error),
    /// Others than its owner can read or write it; its permissions.
    Mode(u32),
}

/// What a file holds, if only its owner can read it.
pub(crate) fn read(path: &Path) -> Result<String, PrivateError> {
    let failed = PrivateError::Read;
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(failed(io::Error::other("it is no file")));
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(PrivateError::Mode(mode));
    }
    let mut text = String::new();
    let read = file.take(LIMIT + 1).read_to_string(&mut text).map_err(failed)?;
    if read as u64 > LIMIT {
        return Err(failed(io::Error::other("it is larger than 16 KiB")));
    }
    Ok(text)
}

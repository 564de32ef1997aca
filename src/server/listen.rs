//! Binding the listeners, before anything is loaded: a port in use fails at once.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, UnixListener};

/// The socket of a server that runs as root.
pub const DEFAULT_UNIX: &str = "/run/netspy/api.sock";
/// Members of this group may ask, if there is one.
const GROUP: &str = "netspy";

/// A listener could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// Something else listens there.
    #[error(
        "{address} is in use: another server is listening there; stop it (ss -ltnp 'sport = :{}' \
         shows it), or choose another port with --port", address.port()
    )]
    PortInUse {
        /// Where.
        address: SocketAddr,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}; choose another with --listen")]
    Tcp {
        /// Where.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
    /// Another server answers on the socket.
    #[error(
        "{} belongs to a server that is running; stop it, choose another path with --unix, or \
         use --no-unix", path.display()
    )]
    UnixInUse {
        /// Which socket.
        path: PathBuf,
    },
    /// Something that is no socket has the path.
    #[error("{} exists and is no socket; choose another path with --unix", path.display())]
    NoSocket {
        /// Which path.
        path: PathBuf,
    },
    /// The directory of the socket is missing.
    #[error(
        "cannot listen on {}: there is no directory {}; make it, or choose another path with \
         --unix", path.display(), directory.display()
    )]
    NoDirectory {
        /// Which socket.
        path: PathBuf,
        /// What is missing.
        directory: PathBuf,
    },
    /// The socket cannot be made.
    #[error("cannot listen on {}: {source}; choose another path with --unix", path.display())]
    Unix {
        /// Which socket.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// Listens on TCP.
pub async fn tcp(address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::PortInUse { address },
        _ => ListenError::Tcp { address, source },
    })
}

/// A UNIX socket, whose file goes with it.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl SocketFile {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Another server may have taken the place meanwhile.
        if inode(&self.path).ok() == Some(self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

/// Listens on a UNIX socket, which its owner and the group may use. What a server that is gone
/// has left there is replaced.
pub fn unix(path: &Path) -> Result<(UnixListener, SocketFile), ListenError> {
    let failed = |source| ListenError::Unix { path: path.to_owned(), source };
    if let Some(directory) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        // /run is empty after each boot. Any other path that is not there may be a slip.
        if path == Path::new(DEFAULT_UNIX) {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(directory).map_err(failed)?;
        } else if fs::metadata(directory).is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
            let directory = directory.to_owned();
            return Err(ListenError::NoDirectory { path: path.to_owned(), directory });
        }
    }
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
        Ok(file) if !file.file_type().is_socket() => {
            return Err(ListenError::NoSocket { path: path.to_owned() });
        }
        Ok(_) => match UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path).map_err(failed)?;
            }
            // It answers, or would if it had time or liked us better.
            _ => return Err(ListenError::UnixInUse { path: path.to_owned() }),
        },
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    let file = SocketFile { path: path.to_owned(), inode: inode(path).map_err(failed)? };
    if let Some(group) = group_id(&fs::read_to_string("/etc/group").unwrap_or_default(), GROUP)
        && let Err(error) = chown(path, None, Some(group))
    {
        tracing::debug!("{} stays with its group: {error}", path.display());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o660)).map_err(failed)?;
    Ok((listener, file))
}

/// The id of a group, from the text of group(5).
fn group_id(groups: &str, name: &str) -> Option<u32> {
    let mut lines = groups.lines().map(|line| line.split(':'));
    let mut line = lines.find(|line| line.clone().next() == Some(name))?;
    line.nth(2)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("netspy-listen-{}-{name}", std::process::id()))
    }

    #[test]
    fn a_group_is_found_by_its_whole_name() {
        let groups = "root:x:0:\nnetspy2:x:7:\nnetspy:x:42:ann\nbroken";
        assert_eq!(group_id(groups, "netspy"), Some(42));
        assert_eq!(group_id(groups, "broken"), None);
        assert_eq!(group_id(groups, "none"), None);
    }

    #[tokio::test]
    async fn a_port_in_use_is_named_with_what_to_do() {
        let first = tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = first.local_addr().unwrap();
        let error = tcp(address).await.unwrap_err();
        assert!(matches!(error, ListenError::PortInUse { .. }));
        let text = error.to_string();
        assert!(text.contains(&address.to_string()) && text.contains("--port"), "{text}");
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_a_live_one_and_a_file_are_not() {
        let directory = directory("stale");
        let path = directory.join("run/api.sock");
        let error = unix(&path).unwrap_err();
        assert!(error.to_string().contains("there is no directory"), "{error}");
        assert!(!directory.exists());
        fs::create_dir_all(directory.join("run")).unwrap();
        let (listener, file) = unix(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o660);
        assert!(matches!(unix(&path), Err(ListenError::UnixInUse { .. })));
        drop(listener);
        // As after SIGKILL: the file is there, nobody listens.
        std::mem::forget(file);
        let (_listener, file) = unix(&path).unwrap();
        drop(file);
        assert!(!path.exists());
        fs::write(&path, "precious").unwrap();
        assert!(matches!(unix(&path), Err(ListenError::NoSocket { .. })));
        fs::remove_dir_all(&directory).unwrap();
    }
}

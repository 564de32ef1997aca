//! UNIX sockets.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};

use netspy::event::{Family, Outcome, Protocol, SocketType};

use crate::harness::shared;

#[test]
fn a_unix_connection_has_a_path_and_no_address() {
    let Some(watch) = shared() else { return };
    let directory = std::env::temp_dir().join(format!("netspy-live-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("listening.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    let _client = UnixStream::connect(&path).unwrap();
    let absent = directory.join("absent.sock");
    UnixStream::connect(&absent).unwrap_err();
    let datagrams = directory.join("datagrams.sock");
    let _receiver = UnixDatagram::bind(&datagrams).unwrap();
    UnixDatagram::unbound().unwrap().connect(&datagrams).unwrap();
    let of = |path: &std::path::Path| {
        let all = watch.records(|c| c.path.as_deref() == path.to_str());
        assert_eq!(all.len(), 1, "{path:?}");
        all.into_iter().next().unwrap()
    };
    let c = of(&path);
    assert_eq!(
        (c.protocol, c.family, c.outcome),
        (Protocol::Unix, Family::Unix, Outcome::Established)
    );
    assert_eq!((c.local, c.remote, c.socket_type), (None, None, SocketType::Stream));
    let c = of(&absent);
    assert_eq!(
        (c.outcome, c.errno, c.error.as_deref()),
        (Outcome::Failed, Some(2), Some("ENOENT"))
    );
    let c = of(&datagrams);
    assert_eq!((c.outcome, c.socket_type), (Outcome::Associated, SocketType::Dgram));
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn an_abstract_name_is_shown_with_an_at_sign() {
    let Some(watch) = shared() else { return };
    let name = format!("netspy-live-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let _listener = UnixListener::bind_addr(&address).unwrap();
    UnixStream::connect_addr(&address).unwrap();
    let all = watch.records(|c| c.path.as_deref() == Some(&format!("@{name}")));
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].outcome, Outcome::Established);
}

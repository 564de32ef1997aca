//! Where the answers come from: a server, or capture in this process.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};

use super::failure::{Failure, note};
use super::own::OwnCapture;
use super::patience::Patient;
use crate::capture::error::CaptureError;
use crate::capture::support;
use crate::client::{Access, Address, HttpSource, InvalidAddress};
use crate::query::{QueryError, Source};

/// How long a server that was not named by the user may take to say that it is there.
const PROBE: Duration = Duration::from_secs(2);

/// What a command needs where no server runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capture {
    /// Only a server can answer.
    Never,
    /// Only a server can, since this flag leads back to an answer of one.
    NeverWith(&'static str),
    /// Capture in this process.
    Allowed {
        /// Leave out UNIX sockets.
        no_unix: bool,
    },
}

/// The server that the user named.
#[derive(Debug, Clone, Copy, Default)]
pub struct Named<'a> {
    /// Where it is.
    pub server: Option<&'a str>,
    /// Its token. A server that was only found is shown none: it may be anybody's.
    pub token_file: Option<&'a Path>,
    /// What it is known by.
    pub ca_cert: Option<&'a Path>,
}

impl Named<'_> {
    fn access(&self) -> Result<Access, Failure> {
        let mut access = Access::default();
        if let Some(path) = self.token_file {
            let read = access.with_token_file(path);
            access = read.map_err(|error| Failure::Usage(format!("--token-file: {error}")))?;
        }
        Ok(match self.ca_cert {
            Some(path) => access.with_authorities(path),
            None => access,
        })
    }
}

/// Where a server is looked for.
#[derive(Debug, Clone)]
pub struct Places {
    /// The server's socket.
    pub socket: PathBuf,
    /// The server's TCP address.
    pub tcp: SocketAddrV4,
}

impl Default for Places {
    fn default() -> Self {
        Places {
            socket: PathBuf::from("/run/netspy/api.sock"),
            tcp: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8080),
        }
    }
}

/// What was found.
#[derive(Clone)]
pub struct Origin {
    /// Answers the questions.
    pub source: Arc<dyn Source>,
    /// Where no server was found: the capture that feeds the source.
    pub own: Option<Arc<OwnCapture>>,
}

impl std::fmt::Debug for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Origin").field("source", &self.source.describe()).finish_non_exhaustive()
    }
}

impl Origin {
    fn server(source: HttpSource) -> Self {
        Origin { source: Patient::over(Arc::new(source)), own: None }
    }
}

/// Finds the place of the answers.
pub async fn locate(named: Named<'_>, capture: Capture) -> Result<Origin, Failure> {
    locate_at(named, capture, &Places::default()).await
}

async fn locate_at(named: Named<'_>, capture: Capture, places: &Places) -> Result<Origin, Failure> {
    if let Some(text) = named.server.filter(|text| !text.is_empty()) {
        let source = HttpSource::new(read_address(text)?).with_access(named.access()?);
        return Ok(Origin::server(source));
    }
    let reasons = match find_server(places).await {
        Ok(source) => return Ok(Origin::server(source)),
        Err(reasons) => reasons,
    };
    let none = no_server(&reasons);
    let no_unix = match capture {
        Capture::Allowed { no_unix } => no_unix,
        Capture::Never => return Err(only_a_server(&none, support::is_privileged())),
        Capture::NeverWith(flag) => {
            let problem = format!("is of an answer of a server, and {none}");
            return Err(Failure::of_flag(flag, &problem, "none where there is no server"));
        }
    };
    let own = OwnCapture::start(no_unix).map_err(|error| no_way(&error, &none))?;
    note(&format!("{none}: capturing in this process"));
    Ok(Origin { source: own.source(), own: Some(Arc::new(own)) })
}

/// Reads the address of a server.
pub fn read_address(text: &str) -> Result<Address, Failure> {
    text.parse().map_err(|error: InvalidAddress| {
        Failure::Usage(format!("--server: {error} (accepted: {})", InvalidAddress::ACCEPTED))
    })
}

/// A place without a usable server.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reason {
    text: String,
    /// Just nothing there: not worth a word.
    absent: bool,
}

fn no_server(reasons: &[Reason]) -> String {
    for reason in reasons {
        tracing::debug!("{}", reason.text);
    }
    let telling: Vec<&str> =
        reasons.iter().filter(|r| !r.absent).map(|reason| reason.text.as_str()).collect();
    match telling.is_empty() {
        true => "no server runs here".to_owned(),
        false => format!("no server can be used here ({})", telling.join("; ")),
    }
}

/// For a question that a capture which only begins now cannot answer. The exit code is the one that
/// this user gets for every other question.
fn only_a_server(none: &str, privileged: bool) -> Failure {
    let text = format!(
        "{none}, and only a server knows the past: start one with 'sudo ebpf-server', or name one \
         with --server"
    );
    if privileged { Failure::Unreachable(text) } else { Failure::NoPrivilege(text) }
}

fn no_way(error: &CaptureError, none: &str) -> Failure {
    if let CaptureError::NoPrivilege { .. } = error {
        return Failure::NoPrivilege(format!(
            "{none}, and this user may not capture: start a server with 'sudo ebpf-server', or \
             run netspy itself with sudo"
        ));
    }
    Failure::Unreachable(format!("{none}, and netspy cannot capture by itself: {error}"))
}

/// The first server that answers, or why each place has none.
async fn find_server(places: &Places) -> Result<HttpSource, Vec<Reason>> {
    let mut reasons = Vec::new();
    if places.socket.exists() {
        match probe(Address::Unix(places.socket.clone())).await {
            Ok(source) => return Ok(source),
            Err(reason) => reasons.push(reason),
        }
    } else {
        let text = format!("{} is not there", places.socket.display());
        reasons.push(Reason { text, absent: true });
    }
    let (host, port) = (places.tcp.ip().to_string(), places.tcp.port());
    let address = Address::Http { host, port };
    if rustix::process::geteuid().is_root() {
        let strangers = strangers(Path::new("/proc/net"), places.tcp);
        if let Some(uid) = strangers {
            let text = format!(
                "{address} belongs to user {uid}, not to root; --server {address} would ask it"
            );
            reasons.push(Reason { text, absent: false });
            return Err(reasons);
        }
    }
    match probe(address).await {
        Ok(source) => Ok(source),
        Err(reason) => {
            reasons.push(reason);
            Err(reasons)
        }
    }
}

/// Something else may listen at a place that was only guessed: the answer has to make sense.
async fn probe(address: Address) -> Result<HttpSource, Reason> {
    let (listening, place) = (is_listening(&address).await, address.to_string());
    let reason = |text: String| Reason { text, absent: false };
    if let Err(error) = listening {
        use io::ErrorKind::{ConnectionRefused, NotFound, PermissionDenied};
        let absent = matches!(error.kind(), ConnectionRefused | NotFound);
        let text = match error.kind() {
            PermissionDenied => format!("{place} is for root and the group netspy: join it"),
            _ => format!("{place}: {error}"),
        };
        return Err(Reason { text, absent });
    }
    let source = HttpSource::new(address);
    match tokio::time::timeout(PROBE, source.status()).await {
        Ok(Ok(_)) => Ok(source),
        Ok(Err(QueryError::Unreachable { why, .. })) => Err(reason(format!("{place}: {why}"))),
        Ok(Err(_)) => Err(reason(format!("{place} is no netspy server"))),
        Err(_) => Err(reason(format!("{place} does not answer"))),
    }
}

/// Whether anything listens, told by the system's error where nothing does.
async fn is_listening(address: &Address) -> io::Result<()> {
    let connected = async {
        match address {
            Address::Http { host, port } | Address::Https { host, port } => {
                TcpStream::connect((host.as_str(), *port)).await.map(drop)
            }
            Address::Unix(path) => UnixStream::connect(path).await.map(drop),
        }
    };
    tokio::time::timeout(PROBE, connected).await?
}

/// The owner of a socket that listens at `at`, if that is not root. A user without privileges may
/// listen on port 8080 first and tell root anything.
fn strangers(proc_net: &Path, at: SocketAddrV4) -> Option<u32> {
    let tables = ["tcp", "tcp6"].map(|name| std::fs::read_to_string(proc_net.join(name)));
    let lines = tables.iter().flatten().flat_map(|table| table.lines().skip(1));
    lines.filter_map(|line| listener(line, at)).find(|uid| *uid != 0)
}

/// The owner of the socket in a line of /proc/net/tcp or tcp6, if it takes connections to `at`.
fn listener(line: &str, at: SocketAddrV4) -> Option<u32> {
    const LISTEN: &str = "0A";
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let (local, state, uid) = (fields.get(1)?, fields.get(3)?, fields.get(7)?);
    let (ip, port) = local.split_once(':')?;
    if *state != LISTEN || u16::from_str_radix(port, 16).ok()? != at.port() {
        return None;
    }
    // Addresses are shown as 32-bit words in the byte order of the machine.
    let words = ip.as_bytes().chunks(8).map(|word| {
        let word = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
        Some(word.to_ne_bytes())
    });
    let words: Vec<[u8; 4]> = words.collect::<Option<_>>()?;
    let takes = match words.as_slice() {
        [v4] => {
            let ip = Ipv4Addr::from(*v4);
            ip == *at.ip() || ip.is_unspecified()
        }
        [a, b, c, d] => {
            let bytes: [u8; 16] = [*a, *b, *c, *d].concat().try_into().ok()?;
            let ip = Ipv6Addr::from(bytes);
            ip.is_unspecified() || ip.to_ipv4_mapped() == Some(*at.ip())
        }
        _ => false,
    };
    takes.then(|| uid.parse().ok())?
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::AsyncWriteExt;

    use super::*;

    const AT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8080);

    fn line(local: &str, state: &str, uid: u32) -> String {
        format!(
            "   0: {local} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000  \
             {uid}        0 12345 1 0000000000000000 100 0 0 10 0"
        )
    }

    #[test]
    fn the_owner_of_whatever_takes_the_connection_is_found() {
        let any6 = "00000000000000000000000000000000:1F90";
        let mapped = "0000000000000000FFFF00000100007F:1F90";
        for local in ["0100007F:1F90", "00000000:1F90", any6, mapped] {
            assert_eq!(listener(&line(local, "0A", 1000), AT), Some(1000), "{local}");
        }
    }

    #[test]
    fn other_sockets_do_not_matter() {
        let loopback6 = "00000000000000000000000001000000:1F90";
        for (local, state) in [
            ("0100007F:1F91", "0A"),
            ("0100007F:1F90", "01"),
            ("0200007F:1F90", "0A"),
            (loopback6, "0A"),
            ("x", "0A"),
        ] {
            assert_eq!(listener(&line(local, state, 1000), AT), None, "{local}");
        }
        assert_eq!(listener("", AT), None);
    }

    #[tokio::test]
    async fn something_else_at_the_usual_port_is_no_server_and_is_told() {
        let other = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let SocketAddr::V4(tcp) = other.local_addr().unwrap() else { unreachable!() };
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = other.accept().await {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await;
            }
        });
        let places = Places { socket: PathBuf::from("/nonexistent/api.sock"), tcp };
        let none = no_server(&find_server(&places).await.unwrap_err());
        assert_eq!(none, format!("no server can be used here (http://{tcp} is no netspy server)"));
    }

    #[test]
    fn a_question_for_a_server_alone_ends_like_the_others_of_its_user() {
        let refused = CaptureError::NoPrivilege { missing: String::new() };
        let others = no_way(&refused, "no server runs here");
        assert_eq!(only_a_server("no server runs here", false).code(), others.code());
        assert_eq!(only_a_server("no server runs here", true).code(), 3);
    }

    #[tokio::test]
    async fn each_place_without_a_server_says_why() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = closed.local_addr().unwrap().port();
        drop(closed);
        let tcp = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        let places = Places { socket: PathBuf::from("/nonexistent/api.sock"), tcp };
        // A cursor is refused before anything is captured for it.
        let cursor = locate_at(Named::default(), Capture::NeverWith("cursor"), &places).await;
        let failure = cursor.unwrap_err();
        assert_eq!(failure.code(), 2);
        let said = "--cursor: is of an answer of a server, and no server runs here";
        assert!(failure.to_string().starts_with(said), "{failure}");
        let reasons = find_server(&places).await.unwrap_err();
        assert_eq!(reasons[0].text, "/nonexistent/api.sock is not there");
        assert!(reasons[1].text.starts_with(&format!("http://127.0.0.1:{port}: ")));
        assert_eq!(no_server(&reasons), "no server runs here");
    }
}

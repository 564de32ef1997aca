//! A server in this process, and a client that sees every byte.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod daemon;
pub mod records;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use netspy::Connection;
use netspy::accounting::Counters;
use netspy::capture::report::{AttachReport, Backend, Feature, ProgramReport};
use netspy::event::{ConnectionId, Traffic};
use netspy::query::CaptureHandle;
use netspy::server::{Listeners, Terms, listen, serve_on};
use netspy::store::{LocalSource, Store};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Stands in for a capture; the tests set what it says.
pub struct FakeCapture {
    pub since: Timestamp,
    pub counters: Mutex<Counters>,
    pub stopped: Mutex<Option<String>>,
    pub traffic: Mutex<HashMap<ConnectionId, Traffic>>,
}

impl CaptureHandle for FakeCapture {
    fn counters(&self) -> Counters {
        *self.counters.lock().unwrap()
    }
    fn drain(&self) {}
    fn since(&self) -> Timestamp {
        self.since
    }
    fn report(&self) -> AttachReport {
        let hook = Some("tracepoint/syscalls/sys_exit_connect".to_owned());
        AttachReport {
            backend: Some(Backend::Tracepoint),
            features: ["connect", "dns_names", "drops"]
                .map(|name| {
                    let hook = hook.clone();
                    (name.to_owned(), Feature { hook, ok: true, note: None, not_used: vec![] })
                })
                .into(),
            programs: vec![ProgramReport {
                name: "sys_exit_connect".to_owned(),
                kind: "tracepoint".to_owned(),
                hook: "syscalls/sys_exit_connect".to_owned(),
                attached: true,
                id: 17,
                verified_insns: None,
            }],
        }
    }
    fn stopped(&self) -> Option<String> {
        self.stopped.lock().unwrap().clone()
    }
    fn traffic(&self) -> Arc<HashMap<ConnectionId, Traffic>> {
        Arc::new(self.traffic.lock().unwrap().clone())
    }
}

pub struct Server {
    pub address: SocketAddr,
    pub unix: PathBuf,
    pub store: Arc<Store>,
    pub capture: Arc<FakeCapture>,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<()>,
    _file: listen::SocketFile,
}

/// Starts a server whose store holds these records.
pub async fn server(records: Vec<Connection>) -> Server {
    server_on(records, Terms::default()).await
}

/// The same, on these terms.
pub async fn server_on(records: Vec<Connection>, terms: Terms) -> Server {
    server_over(Store::new(16 << 20), records, terms).await
}

/// The same, with this store.
pub async fn server_over(store: Store, records: Vec<Connection>, terms: Terms) -> Server {
    static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let store = Arc::new(store);
    let applied = store.apply(records);
    let counters =
        Counters { attempts: applied.attempts, delivered: applied.attempts, ..Counters::default() };
    let capture = Arc::new(FakeCapture {
        since: records::epoch(),
        counters: Mutex::new(counters),
        stopped: Mutex::default(),
        traffic: Mutex::default(),
    });
    let source = LocalSource::new(store.clone(), capture.clone());
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let name = format!("netspy-api-{}-{number}.sock", std::process::id());
    let unix = std::env::temp_dir().join(name);
    let (listener, file) = listen::unix(&unix).unwrap();
    let (stop, stopped) = oneshot::channel();
    let listeners = Listeners { tcp: Some(tcp), unix: Some(listener) };
    let running = tokio::spawn(serve_on(source, listeners, terms, async {
        let _ = stopped.await;
    }));
    Server { address, unix, store, capture, stop: Some(stop), running, _file: file }
}

#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.body)))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

impl Server {
    pub async fn get(&self, target: &str) -> Answer {
        self.ask(&format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n"), b"").await
    }

    pub async fn post(&self, target: &str, kind: &str, body: &[u8]) -> Answer {
        let length = body.len();
        let head = format!(
            "POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n\
             Content-Length: {length}\r\n"
        );
        self.ask(&head, body).await
    }

    /// Sends a request over TCP: its head without the empty line at the end, and its body.
    pub async fn ask(&self, head: &str, body: &[u8]) -> Answer {
        ask(TcpStream::connect(self.address).await.unwrap(), head, body).await
    }

    pub async fn get_unix(&self, target: &str) -> Answer {
        let stream = UnixStream::connect(&self.unix).await.unwrap();
        ask(stream, &format!("GET {target} HTTP/1.1\r\nHost: anything\r\n"), b"").await
    }

    /// Opens an event stream.
    pub async fn events(&self, target: &str, header: &str) -> Events {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // The end of the stream is then that of the connection, which would wait for another request.
        let more = format!("{header}Connection: close\r\n");
        let head = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut events = Events { stream, buffer: Vec::new() };
        let head = events.until("\r\n\r\n").await.unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(head.contains("text/event-stream"), "{head}");
        events
    }

    /// Asks the server to stop; returns when it has.
    pub async fn stop(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        self.running.await.unwrap();
    }
}

/// What a server at this address answers, if there is one yet.
pub async fn get(address: SocketAddr, target: &str) -> Option<Answer> {
    let stream = TcpStream::connect(address).await.ok()?;
    let head = format!("GET {target} HTTP/1.0\r\nHost: localhost\r\n");
    Some(ask(stream, &head, b"").await)
}

pub async fn ask(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    head: &str,
    body: &[u8],
) -> Answer {
    let head = format!("{head}Connection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    // A server that refuses the head may have closed already.
    let _ = stream.write_all(body).await;
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, body: bytes[end + 4..].to_vec() }
}

pub struct Events {
    stream: TcpStream,
    buffer: Vec<u8>,
}

#[derive(Debug)]
pub struct Event {
    pub id: Option<u64>,
    pub name: String,
    pub data: Value,
}

impl Events {
    /// The next event; `None` at the end of the stream.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            // Chunk sizes of the transfer lie on lines of their own, between events.
            let text = self.until("\n\n").await?;
            let (mut id, mut name, mut data) = (None, String::new(), None);
            for line in text.lines() {
                match line.split_once(": ") {
                    Some(("id", value)) => id = Some(value.parse().unwrap()),
                    Some(("event", value)) => name = value.to_owned(),
                    Some(("data", value)) => data = Some(serde_json::from_str(value).unwrap()),
                    _ => {}
                }
            }
            if let Some(data) = data {
                return Some(Event { id, name, data });
            }
        }
    }

    async fn until(&mut self, end: &str) -> Option<String> {
        loop {
            if let Some(at) = self.buffer.windows(end.len()).position(|w| w == end.as_bytes()) {
                let rest = self.buffer.split_off(at + end.len());
                let text = std::mem::replace(&mut self.buffer, rest);
                return Some(String::from_utf8(text).unwrap());
            }
            if self.stream.read_buf(&mut self.buffer).await.unwrap() == 0 {
                return None;
            }
        }
    }
}

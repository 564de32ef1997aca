//! Clients that are slow, silent, many or broken: each costs itself.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
#[path = "common/malformed.rs"]
mod malformed;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use common::records::*;
use common::{Server, server, server_on};
use malformed::malformed;
use netspy::server::{Limits, Terms};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(120);

async fn connect(server: &Server) -> TcpStream {
    TcpStream::connect(server.address).await.unwrap()
}

/// All that comes until the server closes.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    // A reset is an end, too.
    let _ = read.expect("the server closes");
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn figure(server: &Server, name: &str) -> u64 {
    let page = String::from_utf8(server.get("/metrics").await.body).unwrap();
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {page}")).parse().unwrap()
}

/// Waits for a figure, as what happens to other connections is not told.
async fn until(server: &Server, name: &str, is: impl Fn(u64) -> bool) {
    let waiting = async {
        while !is(figure(server, name).await) {
            // What is waited for takes processors, too.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect(name);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_idle_clients_lock_nobody_out() {
    let server = server(vec![refused(1, &info(7, "curl"))]).await;
    let mut herd = Vec::new();
    for n in 0..1_000 {
        let mut idle = connect(&server).await;
        // Some have sent the beginning of a request.
        if n % 2 == 0 {
            let _ = idle.write_all(b"GET /health HTTP/1.1\r\nHost: local").await;
        }
        herd.push(idle);
    }
    // No answer waits for any of their patience to end.
    for _ in 0..10 {
        assert_eq!(server.get("/api/v1/connections").await.status, 200);
    }
    assert!(figure(&server, "netspy_http_closed_idle_total").await >= 1_000 - 512);
    assert!(figure(&server, "netspy_http_connections").await <= 512);
    // The first to come has been idle for longest.
    assert_eq!(rest(&mut herd[0]).await, "");
    // The last is still served.
    let last = herd.last_mut().unwrap();
    last.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    assert!(rest(last).await.starts_with("HTTP/1.1 200"));
    server.stop().await;
}

#[tokio::test]
async fn who_holds_every_connection_busy_is_told_to_come_back() {
    let server = server(Vec::new()).await;
    let mut streams = Vec::new();
    for _ in 0..netspy::api::MAX_STREAMS {
        streams.push(server.events("/api/v1/stream", "").await);
    }
    let refused = server.get("/api/v1/stream").await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("5")));
    assert_eq!(server.get("/api/v1/connections").await.status, 200);
    // One that goes away makes room.
    drop(streams.pop());
    until(&server, "netspy_http_streams", |n| n < netspy::api::MAX_STREAMS as u64).await;
    drop(server.events("/api/v1/stream", "").await);
    server.stop().await;
}

#[tokio::test]
async fn where_all_connections_are_busy_another_is_told_to_come_back() {
    let terms = Terms { limits: Arc::new(Limits::new(8, 8)), ..Terms::default() };
    let server = server_on(Vec::new(), terms).await;
    let mut streams = Vec::new();
    for _ in 0..8 {
        streams.push(server.events("/api/v1/stream", "").await);
    }
    let refused = server.get("/health").await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("5")));
    assert_eq!(refused.json()["status"], 503);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_requests_in_bulk_are_answered_with_errors_or_closed() {
    let server = server(vec![refused(1, &info(7, "curl"))]).await;
    let mut wild = Random(7);
    let mut answers = BTreeMap::<String, usize>::new();
    for _ in 0..5_000 {
        let mut stream = connect(&server).await;
        let _ = stream.write_all(&malformed(&mut wild)).await;
        let _ = stream.shutdown().await;
        let answer = rest(&mut stream).await;
        let status = answer.split(' ').nth(1).unwrap_or("closed").to_owned();
        *answers.entry(status).or_default() += 1;
    }
    assert!(!answers.keys().any(|status| status.starts_with('5')), "{answers:?}");
    assert!(answers.get("400").is_some_and(|n| *n > 1_000), "{answers:?}");
    assert_eq!(server.get("/api/v1/connections").await.json()["total"], 1);
    until(&server, "netspy_http_connections", |n| n == 1).await;
    server.stop().await;
}

#[tokio::test]
async fn heads_and_bodies_that_are_too_large_are_refused_at_once() {
    let server = server(Vec::new()).await;
    let head = format!("GET /health HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n", "x".repeat(200_000));
    assert_eq!(server.ask(&head, b"").await.status, 431);
    // What the server reads beyond the limit on the way is no way around it.
    for (bytes, status) in [(60_000, 200), (70_000, 431), (90_000, 431)] {
        let head =
            format!("GET /health HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n", "x".repeat(bytes));
        assert_eq!(server.ask(&head, b"").await.status, status, "{bytes}");
    }
    let many: String = (0..200).map(|n| format!("X{n}: y\r\n")).collect();
    let head = format!("GET /health HTTP/1.1\r\nHost: localhost\r\n{many}");
    assert_eq!(server.ask(&head, b"").await.status, 431);
    let head = "POST /api/connection-summary HTTP/1.1\r\nHost: localhost\r\n\
                Content-Type: application/json\r\nContent-Length: 999999999\r\n";
    assert_eq!(server.ask(head, b"{").await.status, 413);
    server.stop().await;
}

#[tokio::test]
async fn what_is_no_request_of_http_is_answered_without_a_body_as_documented() {
    let server = server(Vec::new()).await;
    let long = "a".repeat(70_000);
    let many: String = (0..150).map(|n| format!("X{n}: y\r\n")).collect();
    for (head, status) in [
        (b"GET /h\xff HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(), "400"),
        (b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\n\r\n".to_vec(), "400"),
        (format!("GET /{long} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes(), "414"),
        (format!("GET /health HTTP/1.1\r\nHost: localhost\r\n{many}\r\n").into_bytes(), "431"),
    ] {
        let mut stream = connect(&server).await;
        stream.write_all(&head).await.unwrap();
        let answer = rest(&mut stream).await;
        let has_status = answer.starts_with(&format!("HTTP/1.1 {status} "));
        assert!(has_status && answer.ends_with("\r\n\r\n"), "{answer}");
    }
    server.stop().await;
}

/// A client that sends a byte now and then, while others are served.
async fn slow(server: &Server, beginning: &str, more: &str) -> String {
    let mut stream = connect(server).await;
    stream.write_all(beginning.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let dripping = async {
        let (mut read, mut write) = stream.split();
        let drip = async {
            loop {
                tokio::time::sleep(Duration::from_millis(500)).await;
                if write.write_all(more.as_bytes()).await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::select! {
            () = drip => {}
            _ = read.read_to_string(&mut answer) => {}
        }
    };
    let others = async {
        for _ in 0..20 {
            assert_eq!(server.get("/health").await.status, 200);
        }
    };
    let both = async { tokio::join!(dripping, others) };
    tokio::time::timeout(PATIENCE, both).await.expect("the server gives up");
    answer
}

#[tokio::test]
async fn a_head_that_never_ends_is_given_up_however_steadily_it_drips() {
    let server = server(Vec::new()).await;
    let answer = slow(&server, "GET /health HTTP/1.1\r\nHost: localhost\r\n", "X: y\r\n").await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn a_body_that_never_ends_is_given_up() {
    let server = server(Vec::new()).await;
    let head = "POST /api/connection-summary HTTP/1.1\r\nHost: localhost\r\n\
                Content-Type: application/json\r\nContent-Length: 60000\r\n\r\n";
    let answer = slow(&server, head, " ").await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    server.stop().await;
}

/// A connection whose receive buffer is as small as it can be.
async fn narrow(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(2048).unwrap();
    socket.connect(address).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_and_streams_that_nobody_reads_end_and_cost_no_more_than_their_room() {
    let curl = info(7, "curl");
    let server = server((0..10_000).map(|n| refused(n, &curl)).collect()).await;
    let mut silent = Vec::new();
    let lists = std::iter::repeat_n("/api/v1/connections?limit=10000", 8);
    for path in lists.chain(["/api/v1/stream?after=0"]) {
        let mut stream = narrow(server.address).await;
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        // The answer has begun, and goes no further.
        let mut begun = [0; 12];
        let read = tokio::time::timeout(PATIENCE, stream.read_exact(&mut begun)).await;
        read.expect("an answer").unwrap();
        assert_eq!(&begun, b"HTTP/1.1 200");
        silent.push(stream);
    }
    // Meanwhile the store takes records in, and others have their answers.
    for n in 10_000..20_000 {
        server.store.apply(vec![refused(n, &curl)]);
    }
    assert_eq!(server.get("/api/v1/connections?limit=1").await.json()["total"], 20_000);
    // The scrape itself is one.
    until(&server, "netspy_http_in_flight", |n| n == 1).await;
    until(&server, "netspy_http_streams", |n| n == 0).await;
    drop(silent);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_answers_that_nobody_reads_share_a_room_and_beyond_it_clients_are_told_to_come_back()
{
    const ROOM: usize = 128 << 20;
    let curl = info(7, "curl");
    let server = server((0..10_000).map(|n| refused(n, &curl)).collect()).await;
    let list = "/api/v1/connections?limit=10000";
    let size = server.get(list).await.body.len();
    let (mut given, mut told) = (Vec::new(), 0);
    // Half of them leave their answer to be compressed, which is made as it is read.
    for n in 0..2 * ROOM / size {
        let mut stream = narrow(server.address).await;
        let gzip = if n % 2 == 0 { "" } else { "Accept-Encoding: gzip\r\n" };
        let request = format!("GET {list} HTTP/1.1\r\nHost: localhost\r\n{gzip}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = [0; 512];
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut head)).await;
        let head = String::from_utf8_lossy(&head[..read.unwrap().unwrap()]).into_owned();
        match head.split(' ').nth(1) {
            Some("200") => given.push((gzip.is_empty(), stream)),
            Some("503") => told += usize::from(head.contains("retry-after: 5")),
            _ => panic!("{head}"),
        }
    }
    let held = given.iter().filter(|(plain, _)| *plain).count() * size;
    assert!(held <= ROOM && told > 0, "{held} bytes are held, {told} were told");
    // Small answers are had meanwhile, and large ones again once the others are gone.
    assert_eq!(server.get("/api/v1/connections?limit=1").await.status, 200);
    drop(given);
    until(&server, "netspy_http_in_flight", |n| n == 1).await;
    assert_eq!(server.get(list).await.status, 200);
    server.stop().await;
}

#[tokio::test]
async fn clients_that_leave_in_mid_answer_leave_nothing_behind() {
    let curl = info(7, "curl");
    let server = server((0..3_000).map(|n| refused(n, &curl)).collect()).await;
    for n in 0..24 {
        let mut stream = narrow(server.address).await;
        let target = if n % 2 == 0 { "connections?limit=3000" } else { "stream?after=0" };
        let request = format!("GET /api/v1/{target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        if n % 4 < 2 {
            stream.read_exact(&mut [0; 1024]).await.unwrap();
        }
    }
    until(&server, "netspy_http_in_flight", |n| n == 1).await;
    until(&server, "netspy_http_connections", |n| n == 1).await;
    server.stop().await;
}

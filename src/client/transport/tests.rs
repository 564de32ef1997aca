use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::*;
use crate::client::HttpSource;
use crate::event::ConnectionId;
use crate::query::{Filter, Source, sees_sent};

/// Accepts everything; answers `/health` where it is to, and nothing else.
async fn silent(is_there: bool) -> Address {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 16];
            if is_there
                && stream.read_exact(&mut head).await.is_ok()
                && &head[..11] == b"GET /health"
            {
                let _ = stream.write_all(b"HTTP/1.1 503 x\r\ncontent-length: 0\r\n\r\n").await;
            }
            open.push(stream);
        }
    });
    format!("http://{address}").parse().unwrap()
}

async fn asked(is_there: bool) -> (Duration, String) {
    let source = HttpSource::new(silent(is_there).await);
    let begin = Instant::now();
    let error = source.list(&Filter::default(), &<_>::default()).await.unwrap_err();
    assert!(matches!(error, QueryError::Unreachable { .. }), "{error:?}");
    (begin.elapsed(), error.to_string())
}

#[tokio::test(start_paused = true)]
async fn one_that_accepts_and_never_says_a_word_is_not_waited_for() {
    let (took, error) = asked(false).await;
    assert!(took <= Duration::from_secs(11), "{took:?}");
    assert!(error.ends_with("nothing came within 10 s"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn one_that_is_at_work_gets_its_time() {
    let (took, error) = asked(true).await;
    assert!(took >= Duration::from_secs(29), "{took:?}");
    assert!(error.ends_with("nothing came within 30 s"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn nobody_asks_on_where_the_first_question_has_no_answer() {
    let source = HttpSource::new(silent(false).await);
    assert!(matches!(sees_sent(&source).await, Err(QueryError::Unreachable { .. })));
}

/// Answers each request with an empty list of nothing, `each` of them on one connection; says how many
/// connections there were.
async fn answering(each: usize) -> (Address, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                for _ in 0..each {
                    let mut line = String::new();
                    while line != "\r\n" {
                        line.clear();
                        if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    let body = r#"{"type":"about:blank","title":"none","status":404}"#;
                    let head = "HTTP/1.1 404 x\r\ncontent-type: application/problem+json\r\n";
                    let answer = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            });
        }
    });
    (format!("http://{address}").parse().unwrap(), connections)
}

#[tokio::test]
async fn who_asks_again_and_again_does_so_on_one_connection() {
    let (address, connections) = answering(usize::MAX).await;
    let source = HttpSource::new(address);
    for _ in 0..20 {
        assert!(source.get(ConnectionId { start_ns: 1, tid: 1, boot: 1 }).await.unwrap().is_none());
    }
    assert_eq!(connections.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn what_is_asked_on_a_connection_that_the_server_has_ended_is_asked_again() {
    let (address, connections) = answering(1).await;
    let source = HttpSource::new(address);
    for _ in 0..20 {
        assert!(source.get(ConnectionId { start_ns: 1, tid: 1, boot: 1 }).await.unwrap().is_none());
    }
    assert_eq!(connections.load(Ordering::Relaxed), 20);
}

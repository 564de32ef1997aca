use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::*;
use crate::client::HttpSource;
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

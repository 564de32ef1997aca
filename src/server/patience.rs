//! Connections whose other side has to read what it is sent.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// What a client has to take in the time it may keep writes waiting.
const LEAST_BYTES: usize = 64 << 10;

/// Fails writes to a client that takes too little: one that reads nothing, or a byte now and then,
/// would otherwise keep its answer, and its place, for ever.
///
/// Only time in which a write waits for the client counts.
#[derive(Debug)]
pub(super) struct WriteTimeout<S> {
    stream: S,
    patience: Duration,
    /// Waited for the client, and taken by it, since it had last taken enough.
    waited: Duration,
    taken: usize,
    waiting: Option<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    since: Instant,
    until: Pin<Box<Sleep>>,
}

impl<S> WriteTimeout<S> {
    pub(super) fn new(stream: S, patience: Duration) -> Self {
        WriteTimeout { stream, patience, waited: Duration::ZERO, taken: 0, waiting: None }
    }

    fn timed<T>(
        &mut self,
        cx: &mut Context<'_>,
        progress: Poll<io::Result<T>>,
        bytes: impl Fn(&T) -> usize,
    ) -> Poll<io::Result<T>> {
        if let Poll::Ready(result) = progress {
            if let Some(waiting) = self.waiting.take() {
                self.waited += waiting.since.elapsed();
            }
            self.taken += result.as_ref().map_or(0, bytes);
            if self.taken >= LEAST_BYTES {
                (self.taken, self.waited) = (0, Duration::ZERO);
            }
            return Poll::Ready(result);
        }
        let left = self.patience.saturating_sub(self.waited);
        let waiting = self.waiting.get_or_insert_with(|| {
            let since = Instant::now();
            Waiting { since, until: Box::pin(tokio::time::sleep_until(since + left)) }
        });
        ready!(waiting.until.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteTimeout<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteTimeout<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let progress = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.timed(cx, progress, |written| *written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let progress = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.timed(cx, progress, |written| *written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let progress = Pin::new(&mut self.stream).poll_flush(cx);
        self.timed(cx, progress, |()| 0)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_write_that_nobody_reads_fails() {
        let (mut near, _far) = tokio::io::duplex(16);
        let mut timed = WriteTimeout::new(&mut near, Duration::from_millis(5));
        let error = timed.write_all(&[0; 64]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_a_little_now_and_then_loses_its_answer() {
        let (near, mut far) = tokio::io::duplex(16);
        let mut timed = WriteTimeout::new(near, Duration::from_secs(30));
        let reader = tokio::spawn(async move {
            let mut taken = 0;
            while let Ok(1..) = far.read(&mut [0; 8]).await {
                taken += 8;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            taken
        });
        let error = timed.write_all(&vec![0; 1 << 20]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(timed);
        assert!(reader.await.unwrap() < 1_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_is_slow_but_steady_and_one_that_hears_little_keep_theirs() {
        let (near, mut far) = tokio::io::duplex(16 << 10);
        let mut timed = WriteTimeout::new(near, Duration::from_secs(30));
        let reader = tokio::spawn(async move {
            let mut buffer = vec![0; 16 << 10];
            while let Ok(1..) = far.read(&mut buffer).await {
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
        });
        timed.write_all(&vec![0; 1 << 20]).await.unwrap();
        for _ in 0..100 {
            timed.write_all(b"event").await.unwrap();
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        drop(timed);
        reader.await.unwrap();
    }
}

//! Streams end with the token that opened them.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::response::Response;
use futures_util::future::BoxFuture;
use hyper::body::{Frame, SizeHint};

use super::Tokens;

/// What a request showed to be let in.
pub(super) struct Shown {
    tokens: Arc<Tokens>,
    headers: HeaderMap,
}

impl Shown {
    pub(super) fn new(tokens: &Arc<Tokens>, headers: &HeaderMap) -> Self {
        let values = headers.get_all(AUTHORIZATION).iter();
        let headers = values.map(|value| (AUTHORIZATION, value.clone())).collect();
        Shown { tokens: Arc::clone(tokens), headers }
    }

    /// Ends the answer, if it is a stream, once this no longer lets anybody in. Other answers are
    /// over soon, and would be broken if they ended before.
    pub(super) fn opened(self, response: Response) -> Response {
        let kind = response.headers().get(CONTENT_TYPE);
        if !kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream")) {
            return response;
        }
        response.map(|body| {
            let revoked = async move { self.tokens.revoked(&self.headers).await };
            Body::new(UntilRevoked { body, revoked: Box::pin(revoked) })
        })
    }
}

struct UntilRevoked {
    body: Body,
    revoked: BoxFuture<'static, ()>,
}

impl HttpBody for UntilRevoked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match self.revoked.as_mut().poll(cx) {
            Poll::Ready(()) => {
                // Polled again, it would be asked beyond its end.
                self.revoked = Box::pin(std::future::ready(()));
                Poll::Ready(None)
            }
            Poll::Pending => Pin::new(&mut self.body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

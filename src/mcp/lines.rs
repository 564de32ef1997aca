//! Messages as lines, of which each that asks for an answer gets one.
//!
//! The transport of rmcp (3.11) drops a line that is no JSON, is nested too deep or is too long, and
//! answers what is no message without the id that it has: clients would wait for ever.

use std::io;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use rmcp::RoleServer;
use rmcp::model::{ErrorCode, ErrorData, RequestId};
use rmcp::service::{RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::Transport;
use rmcp::transport::async_rw::{AsyncRwTransport, JsonRpcMessageCodec};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite, Empty};
use tokio_util::bytes::BytesMut;
use tokio_util::codec::{Decoder, FramedRead, LinesCodec, LinesCodecError};
use tokio_util::sync::CancellationToken;

/// The longest line that is read; what is longer is skipped as it comes.
const LONGEST: usize = super::MAX_BODY;

/// Reads lines itself, and writes as rmcp does.
pub(super) struct Lines<R, W: AsyncWrite> {
    read: FramedRead<R, LinesCodec>,
    /// The frames end once after each error, and then go on.
    failed: bool,
    write: AsyncRwTransport<RoleServer, Empty, W>,
    /// An answer that is being written: nothing more is read until it is, and dropping `receive`
    /// does not lose it.
    answer: Option<BoxFuture<'static, io::Result<()>>>,
    /// Told when nothing more will come.
    closed: CancellationToken,
}

impl<R, W> Lines<R, W>
where
    R: AsyncRead + Send + Unpin,
    W: AsyncWrite + Send + Unpin + 'static,
{
    pub(super) fn new(read: R, write: W, closed: CancellationToken) -> Self {
        Lines {
            read: FramedRead::new(read, LinesCodec::new_with_max_length(LONGEST)),
            failed: false,
            write: AsyncRwTransport::new(tokio::io::empty(), write),
            answer: None,
            closed,
        }
    }

    fn refuse(&mut self, refused: Refused) {
        let message = TxJsonRpcMessage::<RoleServer>::error(refused.error, refused.id);
        self.answer = Some(self.write.send(message).boxed());
    }

    async fn next(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        loop {
            if let Some(answer) = &mut self.answer {
                let written = answer.await;
                self.answer = None;
                written.ok()?;
            }
            let line = match self.read.next().await {
                Some(line) => line,
                None if self.failed => {
                    self.failed = false;
                    continue;
                }
                None => return None,
            };
            match line {
                Ok(line) => match message(&line) {
                    Ok(Some(message)) => return Some(message),
                    Ok(None) => {}
                    Err(refused) => self.refuse(refused),
                },
                Err(LinesCodecError::MaxLineLengthExceeded) => {
                    self.failed = true;
                    let why = format!("the message is too long: at most {LONGEST} bytes");
                    self.refuse(Refused::nameless(ErrorCode::INVALID_REQUEST, why));
                }
                Err(LinesCodecError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
                    self.failed = true;
                    let why = "the line is not UTF-8".to_owned();
                    self.refuse(Refused::nameless(ErrorCode::PARSE_ERROR, why));
                }
                Err(LinesCodecError::Io(error)) => {
                    tracing::error!(%error, "reading messages failed");
                    return None;
                }
            }
        }
    }
}

impl<R, W> Transport<RoleServer> for Lines<R, W>
where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin + 'static,
{
    type Error = io::Error;

    fn send(
        &mut self,
        item: TxJsonRpcMessage<RoleServer>,
    ) -> impl Future<Output = io::Result<()>> + Send + 'static {
        self.write.send(item)
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        let message = self.next().await;
        if message.is_none() {
            self.closed.cancel();
        }
        message
    }

    async fn close(&mut self) -> io::Result<()> {
        self.write.close().await
    }
}

/// What is answered to a line that is no message.
struct Refused {
    error: ErrorData,
    id: Option<RequestId>,
}

impl Refused {
    fn nameless(code: ErrorCode, why: String) -> Self {
        Refused { error: ErrorData::new(code, why, None), id: None }
    }
}

/// The message in a line; `None` where there is none that wants an answer.
fn message(line: &str) -> Result<Option<RxJsonRpcMessage<RoleServer>>, Refused> {
    if line.trim().is_empty() {
        return Ok(None);
    }
    // What of other protocols is let pass is for rmcp to say.
    let mut framed = BytesMut::from(line);
    framed.extend_from_slice(b"\n");
    if let Ok(message) = JsonRpcMessageCodec::default().decode(&mut framed) {
        return Ok(message);
    }
    let value: Value =
        serde_json::from_str(line.trim_start_matches('\u{feff}')).map_err(|error| {
            Refused::nameless(ErrorCode::PARSE_ERROR, format!("the line is no JSON: {error}"))
        })?;
    let asks = value.get("method").is_some();
    let id = value.get("id").and_then(|id| serde_json::from_value(id.clone()).ok());
    // Neither notifications nor answers are answered.
    let is_answer = !asks && (value.get("result").is_some() || value.get("error").is_some());
    if is_answer || (asks && value.get("id").is_none()) {
        return Ok(None);
    }
    let params = value.get("params");
    let error = match params {
        Some(params) if asks && !params.is_object() => {
            ErrorData::invalid_params("params: not an object; accepted: an object", None)
        }
        _ => {
            let why = "not a request of JSON-RPC 2.0: accepted is an object with jsonrpc \"2.0\", an \
                       id that is a number or a string, and a method";
            ErrorData::invalid_request(why, None)
        }
    };
    Err(Refused { error, id })
}

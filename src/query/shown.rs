//! What views (tables, the answers to an assistant) leave out unless asked: it is true, but nobody
//! who asks for connections means it.

use strum::VariantArray;

use super::{Filter, QueryError, Source};
use crate::event::{Outcome, Protocol};

/// Capture's feature that sees whether a datagram was sent.
const DATAGRAM_SENT: &str = "datagram_sent";

impl Filter {
    /// Leaves out UNIX sockets, unless protocols are named.
    pub fn hide_unix(&mut self) {
        if self.protocol.is_empty() {
            let others = Protocol::VARIANTS.iter().copied().filter(|p| *p != Protocol::Unix);
            self.protocol = others.collect();
        }
    }

    /// Leaves out what existed before capture began, unless states are named: it did not begin in
    /// any time that an answer is about.
    pub fn hide_preexisting(&mut self) {
        if self.state.is_empty() && self.preexisting.is_none() {
            self.preexisting = Some(false);
        }
    }

    /// Leaves datagram sockets out that sent nothing, unless outcomes are named: look-ups of names
    /// make one of every address that they weigh. Only where it is seen what is sent.
    ///
    /// # Errors
    ///
    /// As [`sees_sent`].
    pub async fn hide_associated(&mut self, source: &dyn Source) -> Result<(), QueryError> {
        if self.outcome.is_empty() {
            self.hide_associated_where(sees_sent(source).await?);
        }
        Ok(())
    }

    /// The same, where [`sees_sent`] has been asked.
    pub fn hide_associated_where(&mut self, sees_sent: bool) {
        if self.outcome.is_empty() && sees_sent {
            let others = Outcome::VARIANTS.iter().copied().filter(|o| *o != Outcome::Associated);
            self.outcome = others.collect();
        }
    }
}

/// Whether a source sees what datagram sockets send.
///
/// # Errors
///
/// Where nobody answers: who asks on would only wait for as long again.
pub async fn sees_sent(source: &dyn Source) -> Result<bool, QueryError> {
    match source.status().await {
        Ok(status) => Ok(status.features.get(DATAGRAM_SENT).is_some_and(|feature| feature.ok)),
        Err(error @ QueryError::Unreachable { .. }) => Err(error),
        Err(_) => Ok(false),
    }
}

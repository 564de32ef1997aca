//! What views (tables, the answers to an assistant) leave out unless asked: it is true, but nobody
//! who asks for connections means it.

use std::fmt;

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

    /// The same with everything in it again that views leave out.
    pub fn with_left_out(&self) -> Filter {
        let mut whole = self.clone();
        if self.leaves_out_unix() {
            whole.protocol.clear();
        }
        if self.leaves_out_associated() {
            whole.outcome.clear();
        }
        if self.preexisting == Some(false) {
            whole.preexisting = None;
        }
        whole
    }

    /// Whether every protocol is meant but this one. Who names all the others leaves it out, too.
    fn leaves_out_unix(&self) -> bool {
        let mut others = Protocol::VARIANTS.iter().filter(|p| **p != Protocol::Unix);
        !self.protocol.contains(&Protocol::Unix)
            && !self.protocol.is_empty()
            && others.all(|p| self.protocol.contains(p))
    }

    fn leaves_out_associated(&self) -> bool {
        let mut others = Outcome::VARIANTS.iter().filter(|o| **o != Outcome::Associated);
        !self.outcome.contains(&Outcome::Associated)
            && !self.outcome.is_empty()
            && others.all(|o| self.outcome.contains(o))
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

/// What views left out of an answer, by why: no record is counted twice.
///
/// An empty answer that does not tell of it would deny what the records hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// UNIX sockets.
    pub unix: u64,
    /// Datagram sockets that sent nothing.
    pub associated: u64,
    /// What existed before capture began.
    pub preexisting: u64,
    /// Whether these are outside the window, where there were none inside.
    pub outside: bool,
}

impl LeftOut {
    /// Counts what `filter` would match but for what views leave out: in its window, or where that
    /// holds none of it, at any time.
    ///
    /// # Errors
    ///
    /// Where the source does not answer.
    pub async fn of(source: &dyn Source, filter: &Filter) -> Result<LeftOut, QueryError> {
        let inside = LeftOut::within(source, filter).await?;
        if inside.any() || (filter.since.is_none() && filter.until.is_none()) {
            return Ok(inside);
        }
        let anytime = Filter { since: None, until: None, ..filter.clone() };
        Ok(LeftOut { outside: true, ..LeftOut::within(source, &anytime).await? })
    }

    /// The same for the filter's window alone.
    ///
    /// # Errors
    ///
    /// Where the source does not answer.
    pub async fn within(source: &dyn Source, filter: &Filter) -> Result<LeftOut, QueryError> {
        let mut left_out = LeftOut::default();
        if filter.leaves_out_unix() {
            let protocol = vec![Protocol::Unix];
            let unix = Filter { protocol, ..filter.with_left_out() };
            left_out.unix = source.count(&unix).await?.total;
        }
        if filter.leaves_out_associated() {
            let (outcome, preexisting) = (vec![Outcome::Associated], None);
            let associated = Filter { outcome, preexisting, ..filter.clone() };
            left_out.associated = source.count(&associated).await?.total;
        }
        if filter.preexisting == Some(false) {
            let preexisting = Filter { preexisting: Some(true), ..filter.clone() };
            left_out.preexisting = source.count(&preexisting).await?.total;
        }
        Ok(left_out)
    }

    /// The parameters, with their values, that ask for what there is of it.
    pub fn ways(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let ways = [
            (self.unix, ("protocol", "unix")),
            (self.associated, ("outcome", "associated")),
            (self.preexisting, ("state", "open")),
        ];
        ways.into_iter().filter(|(n, _)| *n > 0).map(|(_, way)| way)
    }

    /// Whether there is any.
    pub fn any(&self) -> bool {
        self.unix > 0 || self.associated > 0 || self.preexisting > 0
    }
}

/// `7 UNIX sockets, 1 datagram socket that sent nothing`.
impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = [
            (self.unix, "UNIX socket", "UNIX sockets"),
            (
                self.associated,
                "datagram socket that sent nothing",
                "datagram sockets that sent nothing",
            ),
            (
                self.preexisting,
                "connection of before capture began",
                "connections of before capture began",
            ),
        ];
        let some = kinds.into_iter().filter(|(n, _, _)| *n > 0);
        let told = some.map(|(n, one, many)| format!("{n} {}", if n == 1 { one } else { many }));
        f.write_str(&told.collect::<Vec<_>>().join(", "))
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

//! What stands out among records, by fixed rules: no history, no chance. The same records give the
//! same findings in whatever order they are seen, and each finding names the figures that it rests
//! on.
//!
//! Texts here are fixed words and figures. What somebody on the host may have chosen, such as the
//! name of a process, stands in the subject alone.

mod beats;
mod finding;
mod names;
mod questions;
mod records;
mod rules;
mod tally;
#[cfg(test)]
mod tests;
mod unnamed;

pub use finding::{Evidence, Finding, Kind, Severity, Subject};
pub use rules::in_order;
#[cfg(feature = "cli")]
pub(crate) use tally::was_given_up;
pub use tally::{Seen, Tally};
pub use unnamed::Askers;

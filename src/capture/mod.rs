//! Capture: the only place that knows libbpf-rs.
pub mod error;
pub mod report;

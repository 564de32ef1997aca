//! The command-line tool.
pub mod render;

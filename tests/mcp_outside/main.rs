//! The MCP server as tools of others find it: the official conformance suite and inspector, and the
//! client libraries that assistants' programs are built on.
#![allow(missing_docs, deprecated, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
mod conformance;
mod fixture;
mod inspector;
#[path = "../mcp_support/mod.rs"]
mod mcp_support;
#[path = "../common/node.rs"]
mod node;
mod place;
#[path = "../common/python.rs"]
mod python;
mod sdks;
#[path = "../common/tools.rs"]
mod tools;

//! Resources: the status, the newest connections, and all that is known of one process or remote.

use percent_encoding::percent_decode_str;
use rmcp::ErrorData;
use rmcp::model::{ReadResourceResult, Resource, ResourceContents, ResourceTemplate};
use serde_json::{Value, json};

use crate::query::{Filter, QueryError, filter};
use crate::tools::{AllTools, ToolError, Toolset};

const JSON: &str = "application/json";
/// The status.
pub(super) const STATUS: &str = "netspy://status";
/// The newest connections.
pub(super) const RECENT: &str = "netspy://connections/recent";
const PROCESS: &str = "netspy://process/";
const REMOTE: &str = "netspy://remote/";

/// Rows of each of the two answers that a resource joins, and bytes of both: together they cost a
/// model no more than one tool's answer.
const ROWS: usize = 8;
const BYTES: usize = 2_600;

/// A resource that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    Status,
    Recent,
    Process(String),
    Remote(String),
}

pub(super) fn list() -> Vec<Resource> {
    vec![
        Resource::new(STATUS, "status")
            .with_description("Health, what is observed, what was lost")
            .with_mime_type(JSON),
        Resource::new(RECENT, "recent connections")
            .with_description("The newest connection attempts")
            .with_mime_type(JSON),
    ]
}

pub(super) fn templates() -> Vec<ResourceTemplate> {
    vec![
        ResourceTemplate::new(format!("{PROCESS}{{name}}"), "process")
            .with_description("What one process connects to, and how that ends")
            .with_mime_type(JSON),
        ResourceTemplate::new(format!("{REMOTE}{{address}}"), "remote")
            .with_description("Who talks to one remote (IP, CIDR or host name), and how that ends")
            .with_mime_type(JSON),
    ]
}

/// What the address names.
pub(super) fn parse(uri: &str) -> Result<What, ErrorData> {
    let part = |text: &str| {
        let text = percent_decode_str(text).decode_utf8().ok()?;
        (!text.trim().is_empty() && text.len() <= 256).then(|| text.into_owned())
    };
    let what = match uri {
        STATUS => Some(What::Status),
        RECENT => Some(What::Recent),
        uri => match (uri.strip_prefix(PROCESS), uri.strip_prefix(REMOTE)) {
            (Some(name), _) => part(name).map(What::Process),
            (_, Some(remote)) => part(remote).map(What::Remote),
            _ => None,
        },
    };
    what.ok_or_else(|| {
        let known = format!("{STATUS}, {RECENT}, {PROCESS}{{name}}, {REMOTE}{{address}}");
        let message = format!("there is no such resource; there are: {known}");
        ErrorData::resource_not_found(message, Some(json!({"uri": uri})))
    })
}

impl What {
    /// The arguments of the tools that answer it.
    fn args(&self) -> Value {
        match self {
            What::Status | What::Recent => json!({}),
            // A comma in a name separates nothing here.
            What::Process(name) => json!({"process_name": filter::escape(name)}),
            What::Remote(remote) => json!({"remote": remote}),
        }
    }

    /// Which records change it; `None` for the status, which no record changes.
    pub(super) fn filter(&self) -> Result<Option<Filter>, QueryError> {
        let mut filter = match self {
            What::Status => return Ok(None),
            What::Recent => Filter::default(),
            What::Process(name) => Filter { process: vec![name.clone()], ..Filter::default() },
            What::Remote(remote) => crate::tools::remote_filter(remote)?,
        };
        filter.hide_unix();
        filter.hide_preexisting();
        Ok(Some(filter))
    }
}

/// The resource as it is now.
pub(super) async fn read(tools: &AllTools, uri: &str) -> Result<ReadResourceResult, ErrorData> {
    let what = parse(uri)?;
    let content = match what {
        What::Status => ask(tools, "get_status", what.args()).await?,
        What::Recent => ask(tools, "list_connections", what.args()).await?,
        What::Process(_) | What::Remote(_) => all_of(tools, &what).await?,
    };
    let text = ResourceContents::text(content.to_string(), uri).with_mime_type(JSON);
    Ok(ReadResourceResult::new(vec![text]))
}

/// What two tools say of a process or remote.
async fn all_of(tools: &AllTools, what: &What) -> Result<Value, ErrorData> {
    let mut rows = ROWS;
    loop {
        let mut args = what.args();
        args["max_events"] = rows.into();
        let content = json!({
            "summary": ask(tools, "get_network_summary", args.clone()).await?,
            "recent": ask(tools, "list_connections", args).await?,
        });
        // How long a row is depends on the names in it. Each answer says how many it leaves out.
        if rows <= 1 || content.to_string().len() <= BYTES {
            return Ok(content);
        }
        rows /= 2;
    }
}

async fn ask(tools: &AllTools, tool: &str, args: Value) -> Result<Value, ErrorData> {
    match tools.call(tool, args).await {
        Ok(answer) => Ok(answer.content),
        Err(error @ ToolError::Invalid { .. }) => {
            Err(ErrorData::invalid_params(error.to_string(), None))
        }
        Err(error) => Err(ErrorData::internal_error(error.to_string(), None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_what_it_says_and_nothing_else() {
        assert_eq!(parse("netspy://status").unwrap(), What::Status);
        let named = parse("netspy://process/my%20app%2Fx").unwrap();
        assert_eq!(named, What::Process("my app/x".to_owned()));
        let named = parse("netspy://remote/2001:db8::1").unwrap();
        assert_eq!(named, What::Remote("2001:db8::1".to_owned()));
        for uri in [
            "",
            "netspy://",
            "netspy://process/",
            "netspy://x",
            "file:///etc/passwd",
            "netspy://process/%ff",
            "netspy://status/",
        ] {
            assert!(parse(uri).is_err(), "{uri}");
        }
    }
}

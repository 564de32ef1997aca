//! Prompts: how an experienced engineer would go about the usual questions.

use rmcp::ErrorData;
use rmcp::model::{GetPromptResult, JsonObject, Prompt, PromptArgument, PromptMessage, Role};
use serde_json::Value;

use crate::query::filter;
use crate::text;

/// The longest argument, in characters.
const LONGEST: usize = 120;

/// Gives the argument of this name, quoted; empty where there is none.
type Given<'a> = &'a dyn Fn(&str) -> String;

pub(super) struct Runbook {
    name: &'static str,
    description: &'static str,
    /// Name, what it is, whether it must be there.
    arguments: &'static [(&'static str, &'static str, bool)],
    steps: fn(Given<'_>) -> String,
}

const RUNBOOKS: [Runbook; 4] = [
    Runbook {
        name: "why_unreachable",
        description: "Why can one process not reach one remote?",
        arguments: &[
            ("process", "Name of the process", true),
            ("remote", "IP, CIDR or host name", true),
        ],
        steps: |value| {
            format!(
                "Find out why the process {} cannot reach {}.\n\
                 1. analyze_patterns with this process_name and remote: reach.verdict, outcomes, \
                 errors, what others get.\n\
                 2. If nothing was attempted, list_connections for the process alone: it may use \
                 another address.\n\
                 3. If attempts timed out, get_packet_drop_summary for the remote: did this host \
                 drop the packets?\n\
                 4. Answer with the outcome, the figures, the most likely cause, and one check that \
                 would confirm it. Say so if complete is false.",
                value("process"),
                value("remote")
            )
        },
    },
    Runbook {
        name: "what_is_new",
        description: "What connects now that did not before?",
        arguments: &[("since", "RFC 3339 or an age such as 1h", true)],
        steps: |value| {
            format!(
                "Find out what is new on this host's network since {}.\n\
                 1. get_network_summary with this since and compare=before: new processes, remotes, \
                 flows.\n\
                 2. For each new flow that is not explained by its name, list_connections with \
                 response_format=detailed: unit, parent, executable.\n\
                 3. Answer with what is new, what changed its outcome and what is gone, most \
                 important first, each with its figures.",
                value("since")
            )
        },
    },
    Runbook {
        name: "who_talks_to",
        description: "Which processes talk to one remote, and does it work?",
        arguments: &[("remote", "IP, CIDR or host name", true)],
        steps: |value| {
            format!(
                "Find out who talks to {}.\n\
                 1. get_network_summary with this remote and group_by=process: who, how often, with \
                 what outcome.\n\
                 2. list_connections with this remote and state=open: what is open now, and inbound \
                 connections from there.\n\
                 3. Answer with the processes, their figures and failures.",
                value("remote")
            )
        },
    },
    Runbook {
        name: "beaconing_check",
        description: "Does anything call out at regular intervals, or scan?",
        arguments: &[("process", "Only this process", false)],
        steps: |value| {
            let process = value("process");
            let whom = match process.is_empty() {
                true => "any process on this host".to_owned(),
                false => format!("the process {process}"),
            };
            format!(
                "Find out whether {whom} calls out at regular intervals or scans.\n\
                 1. analyze_patterns over the last day (since=1d): beaconing (equal intervals, to \
                 public addresses), port_scan, and what else stands out.\n\
                 2. What has fewer than ten beats, or lies in this network, is no finding: \
                 get_network_summary with group_by=remote shows who is called again and again, the \
                 same with its remote and group_by=time whether the gaps are equal.\n\
                 3. list_connections of each candidate with response_format=detailed: executable, \
                 parent, unit. Package managers, monitoring and time synchronisation call at equal \
                 intervals by design.\n\
                 4. Answer with the candidates, their intervals and figures, and what would explain \
                 them."
            )
        },
    },
];

pub(super) fn list() -> Vec<Prompt> {
    let prompt = |runbook: &Runbook| {
        let arguments = runbook.arguments.iter().map(|(name, description, required)| {
            PromptArgument::new(*name).with_description(*description).with_required(*required)
        });
        Prompt::new(runbook.name, Some(runbook.description), Some(arguments.collect()))
    };
    RUNBOOKS.iter().map(prompt).collect()
}

/// The prompt of this name.
pub(super) fn known(name: &str) -> Result<&'static Runbook, ErrorData> {
    RUNBOOKS.iter().find(|runbook| runbook.name == name).ok_or_else(|| {
        let known: Vec<&str> = RUNBOOKS.iter().map(|runbook| runbook.name).collect();
        let message = format!("there is no such prompt; there are: {}", known.join(", "));
        ErrorData::invalid_params(message, None)
    })
}

pub(super) fn get(name: &str, arguments: &JsonObject) -> Result<GetPromptResult, ErrorData> {
    let runbook = known(name)?;
    let value = |name: &str| {
        let text = arguments.get(name).and_then(Value::as_str).unwrap_or_default();
        // Quoted, so that a name is seen to be one; and as the tools take it, to which a comma parts
        // two names.
        match text.trim() {
            "" => String::new(),
            text if name == "process" => quoted(&filter::escape(text)),
            text => quoted(text),
        }
    };
    if let Some((missing, ..)) =
        runbook.arguments.iter().find(|(name, _, required)| *required && value(name).is_empty())
    {
        let message = format!("the prompt {name} needs the argument {missing}");
        return Err(ErrorData::invalid_params(message, None));
    }
    let message = PromptMessage::new_text(Role::User, (runbook.steps)(&value));
    Ok(GetPromptResult::new(vec![message]).with_description(runbook.description))
}

fn quoted(text: &str) -> String {
    format!("`{}`", text::short(text, LONGEST).replace('`', "'"))
}

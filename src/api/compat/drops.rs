//! The original server's questions about dropped packets.

use axum::Json;
use axum::extract::{Request, State};
use jiff::Timestamp;
use serde::Serialize;

use super::super::Api;
use super::super::event::{address_family, destination, protocol_number};
use super::super::problem::Problem;
use super::request::Asked;
use super::{ByPid, Count, ago, by_pid, query_time};
use crate::event::{DropId, DropRecord, time};
use crate::query::drops::DropFilter;
use crate::query::{Page, QueryError};
use crate::store::{DropSelection, SelectedDrops};

/// Drops in the form in which the original server showed its events. It showed each packet; these
/// are packets of one flow that were dropped for one reason, with their `count`.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub(crate) struct DropEvent {
    id: DropId,
    r#type: &'static str,
    pid: u32,
    command: String,
    time: String,
    timestamp: u64,
    drop_reason: String,
    drop_reason_code: u32,
    /// The name that the original's client reads.
    reason: String,
    packet_size_bytes: u64,
    skb_length: u64,
    protocol: String,
    raw_protocol: u16,
    address_family: u16,
    source: String,
    destination: String,
    destination_ip: String,
    destination_port: u16,
    count: u64,
}

impl From<&DropRecord> for DropEvent {
    fn from(d: &DropRecord) -> Self {
        let size = d.bytes / d.count.max(1);
        let end =
            |end: Option<crate::event::Endpoint>| destination(end.map(|end| (end.ip, end.port)));
        DropEvent {
            id: d.id,
            r#type: "packet_drop",
            pid: d.process.as_ref().map_or(0, |p| p.pid),
            command: d.process.as_ref().map_or_else(String::new, |p| p.comm.to_string()),
            time: time::Shown(d.time).to_string(),
            timestamp: d.id.first_ns,
            drop_reason: d.reason.to_string(),
            drop_reason_code: d.reason_code,
            reason: d.reason.to_string(),
            packet_size_bytes: size,
            skb_length: size,
            protocol: d.protocol.map(|p| p.as_str().to_uppercase()).unwrap_or_default(),
            raw_protocol: d
                .ip_protocol
                .map_or_else(|| d.protocol.map_or(0, protocol_number), u16::from),
            address_family: d.family.map_or(0, address_family),
            source: end(d.source),
            destination: end(d.destination),
            destination_ip: d.destination.map_or_else(String::new, |end| end.ip.to_string()),
            destination_port: d.destination.map_or(0, |end| end.port),
            count: d.count,
        }
    }
}

pub(crate) async fn summary(
    State(api): State<Api>,
    request: Request,
) -> Result<Json<Count>, Problem> {
    let asked = Asked::read(request).await?;
    let duration_seconds = asked.duration_or(60);
    let page = Page { limit: Some(1), ..Page::default() };
    let selection = selection(&asked, Some(ago(duration_seconds)), None);
    let selected = api.source.select_drops(selection, page).await?;
    Ok(Json(Count {
        count: selected.packets,
        pid: asked.pid,
        command: asked.command,
        duration_seconds,
        query_time: query_time(),
    }))
}

pub(crate) async fn list(
    State(api): State<Api>,
    request: Request,
) -> Result<Json<ByPid<DropEvent>>, Problem> {
    let asked = Asked::read(request).await?;
    let selected = select(&api, &asked, Some(ago(asked.duration_or(3600))), None).await?;
    let events = selected.drops.iter().map(DropEvent::from).map(|event| (event.pid, event));
    Ok(Json(by_pid(events, selected.total, &asked)))
}

/// The events of `/api/events`, and how many match.
pub(super) async fn events(api: &Api, asked: &Asked) -> Result<(Vec<DropEvent>, u64), QueryError> {
    let selected = select(api, asked, asked.since, asked.until).await?;
    Ok((selected.drops.iter().map(DropEvent::from).collect(), selected.total))
}

async fn select(
    api: &Api,
    asked: &Asked,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
) -> Result<SelectedDrops, QueryError> {
    let page = Page { limit: Some(asked.limit_or_default()), ..Page::default() };
    api.source.select_drops(selection(asked, since, until), page).await
}

fn selection(asked: &Asked, since: Option<Timestamp>, until: Option<Timestamp>) -> DropSelection {
    let pid = if asked.pid == 0 { Vec::new() } else { vec![asked.pid] };
    DropSelection {
        filter: DropFilter { pid, since, until, ..DropFilter::default() },
        command: (!asked.command.is_empty()).then(|| asked.command.clone()),
    }
}

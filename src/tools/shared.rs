//! Parameters that several tools take, and what they mean everywhere.

use jiff::Timestamp;

use super::spec::{Param, number, text, words};
use super::{ToolError, parts};
use crate::query::{Filter, LeftOut, QueryError, Source};
use crate::text;

pub(super) const PROCESS: Param = text("process_name");
pub(super) const PID: Param = number("pid", u32::MAX as u64);
pub(super) const REMOTE: Param = text("remote").says("IP, CIDR or host name");
/// Of drops, whose both ends are addresses alone.
pub(super) const END: Param = text("remote").says("IP of either end");
pub(super) const PORT: Param = number("port", u16::MAX as u64);
pub(super) const UNIT: Param = text("unit");
pub(super) const CONTAINER: Param = text("container").says("name, id, pod:NAME");
pub(super) const DIRECTION: Param = words("direction", &["outbound", "inbound"]);
pub(super) const DURATION: Param = number("duration", u32::MAX as u64);
pub(super) const SINCE: Param = text("since");
pub(super) const UNTIL: Param = text("until");
pub(super) const FORMAT: Param = words("response_format", &["concise", "detailed"]);

/// Whether it is one process that is asked about, or those of one unit or container.
pub(super) fn says_who(filter: &Filter) -> bool {
    let names = [&filter.process, &filter.unit, &filter.container, &filter.pod, &filter.namespace];
    names.iter().any(|named| !named.is_empty()) || !filter.pid.is_empty()
}

/// Leaves out what nobody means who asks for connections, unless it is asked for.
pub(super) async fn hide(filter: &mut Filter, source: &dyn Source) -> Result<(), ToolError> {
    filter.hide_unix();
    filter.hide_preexisting();
    Ok(filter.hide_associated(source).await?)
}

/// What to say where nothing matches: also of what was left out, and how to see it.
pub(super) async fn nothing(
    source: &dyn Source,
    filter: &Filter,
    newest_outside: Option<Timestamp>,
) -> Result<String, QueryError> {
    let left_out = LeftOut::of(source, filter).await?;
    // Where something else is outside the window, that is what was asked for.
    if !left_out.any() || (left_out.outside && newest_outside.is_some()) {
        return Ok(parts::nothing(newest_outside));
    }
    let ways: Vec<_> = left_out.ways().map(|(name, value)| format!("{name}={value}")).collect();
    let mut said = match left_out.outside {
        false => "Nothing matches but what is left out unless asked for".to_owned(),
        true => {
            "Nothing in this window; outside it is what is left out unless asked for".to_owned()
        }
    };
    said.push_str(&format!(": {left_out} (list_connections with {}).", ways.join(" or ")));
    if newest_outside.is_some() {
        said.push(' ');
        said.push_str(&parts::nothing(newest_outside));
    }
    Ok(said)
}

/// Names are known only where something told them: that none matches says little.
pub(super) fn unknown_name(filter: &Filter) -> Option<String> {
    let name = filter.host_name.first()?;
    let name = text::short(name, 60);
    Some(format!(
        "Records carry a host name only where its look-up was seen: for {name}, try its addresses."
    ))
}

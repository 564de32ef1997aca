//! Parameters that several tools take, and what they mean everywhere.

use super::ToolError;
use super::spec::{Param, number, text, words};
use crate::query::{Filter, Source};
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

/// Names are known only where something told them: that none matches says little.
pub(super) fn unknown_name(filter: &Filter) -> Option<String> {
    let name = filter.host_name.first()?;
    let name = text::short(name, 60);
    Some(format!(
        "Records carry a host name only where its look-up was seen: for {name}, try its addresses."
    ))
}

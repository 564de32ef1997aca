//! Filters as flags. Their values are read by the parser that the REST API uses, so that the same
//! words mean the same.

use std::fmt;

use clap::Args;
use jiff::{SignedDuration, Timestamp};

use super::failure::Failure;
use super::locate::Capture;
use crate::query::dns::DnsFilter;
use crate::query::drops::DropFilter;
use crate::query::{self, Filter, QueryError, Source, filter};

/// Which connections.
#[derive(Debug, Clone, Default, Args)]
#[command(
    next_help_heading = "Which connections (several values: separated by commas, one within a value: \\,)"
)]
pub struct What {
    #[command(flatten)]
    pub which: Which,
    /// outbound or inbound
    #[arg(long, value_name = "DIRECTION")]
    pub direction: Vec<String>,
    /// UNIX sockets, datagram sockets that sent nothing and what existed before capture began too;
    /// hidden unless asked for with this, --protocol, --outcome or --state
    #[arg(long)]
    pub all: bool,
}

/// Whose connections, and which of theirs.
#[derive(Debug, Clone, Default, Args)]
pub struct Which {
    /// Name of the process or thread, or base name of its executable
    #[arg(long, value_name = "NAME")]
    pub process: Vec<String>,
    /// Process id
    #[arg(long, value_name = "PID")]
    pub pid: Vec<String>,
    #[command(flatten)]
    pub narrow: Narrow,
}

/// What every question can be narrowed by.
#[derive(Debug, Clone, Default, Args)]
pub struct Narrow {
    /// User id
    #[arg(long, value_name = "UID")]
    pub uid: Vec<String>,
    /// Remote address, or where address translation sends to
    #[arg(long, value_name = "IP")]
    pub remote: Vec<String>,
    /// Name of the remote, as it was asked for; .example.com for a domain
    #[arg(long, value_name = "NAME")]
    pub host_name: Vec<String>,
    /// Remote network, such as 10.0.0.0/8, likewise
    #[arg(long, value_name = "NET")]
    pub cidr: Vec<String>,
    /// Kind of remote address: loopback, private, link_local, multicast, global, ...
    #[arg(long, value_name = "SCOPE")]
    pub scope: Vec<String>,
    /// Country of the remote, two letters
    #[arg(long, value_name = "COUNTRY")]
    pub country: Vec<String>,
    /// Number of the remote's network (autonomous system)
    #[arg(long, value_name = "ASN")]
    pub asn: Vec<String>,
    /// Remote port (of inbound connections the local port)
    #[arg(long, value_name = "PORT")]
    pub port: Vec<String>,
    /// tcp, udp, unix, ...
    #[arg(long, value_name = "PROTOCOL")]
    pub protocol: Vec<String>,
    /// connecting, open, listening or closed
    #[arg(long, value_name = "STATE")]
    pub state: Vec<String>,
    /// established, refused, timed_out, ...; unsuccessful stands for all failures
    #[arg(long, value_name = "OUTCOME")]
    pub outcome: Vec<String>,
    /// systemd unit
    #[arg(long, value_name = "UNIT")]
    pub unit: Vec<String>,
    /// Name or id of a container
    #[arg(long, value_name = "CONTAINER")]
    pub container: Vec<String>,
    /// Kubernetes pod
    #[arg(long, value_name = "POD")]
    pub pod: Vec<String>,
    /// Kubernetes namespace
    #[arg(long, value_name = "NAMESPACE")]
    pub namespace: Vec<String>,
    /// part of a name, path or address, in any letter case
    #[arg(long, value_name = "TEXT")]
    pub text: Vec<String>,
}

impl Narrow {
    /// The parameters of the REST API that say the same.
    pub fn pairs(&self) -> Vec<(&'static str, String)> {
        let lists = [
            ("uid", &self.uid),
            ("remote", &self.remote),
            ("host_name", &self.host_name),
            ("cidr", &self.cidr),
            ("scope", &self.scope),
            ("country", &self.country),
            ("asn", &self.asn),
            ("port", &self.port),
            ("protocol", &self.protocol),
            ("state", &self.state),
            ("outcome", &self.outcome),
            ("unit", &self.unit),
            ("container", &self.container),
            ("pod", &self.pod),
            ("namespace", &self.namespace),
            ("text", &self.text),
        ];
        lists.into_iter().filter_map(|(name, values)| Some((name, joined(values)?))).collect()
    }
}

/// A flag may be repeated: its values add up.
fn joined(values: &[String]) -> Option<String> {
    (!values.is_empty()).then(|| values.join(","))
}

/// When they began.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "When they began")]
pub struct When {
    /// At or after: an age (30s, 15m, 2h, 1d) or RFC 3339
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Before: an age or RFC 3339
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// In the last so many seconds. Without a server: how long to capture before the answer [10]
    #[arg(long, value_name = "SECONDS", conflicts_with_all = ["since", "until"],
          value_parser = clap::value_parser!(u32).range(1..))]
    pub duration: Option<u32>,
}

impl When {
    /// What is needed for it where no server runs: a capture that begins now has seen nothing of a time
    /// that is over.
    pub fn capture(&self, otherwise: Capture) -> Capture {
        let now = Timestamp::now();
        let until = self.until.as_deref().map(|until| filter::parse_time("until", until, now));
        match until {
            Some(Ok(until)) if until <= now => Capture::Never,
            _ => otherwise,
        }
    }
}

/// Which part of a list.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Which part")]
pub struct Page {
    /// At most this many; 100 unless given
    #[arg(long, value_name = "COUNT")]
    pub limit: Option<String>,
    /// Continue where the answer with this cursor ended
    #[arg(long, value_name = "CURSOR")]
    pub cursor: Option<String>,
    /// newest or oldest first
    #[arg(long, value_name = "ORDER")]
    pub sort: Option<String>,
}

impl What {
    /// The parameters of the REST API that say the same.
    fn pairs(&self) -> Vec<(&'static str, String)> {
        let Which { process, pid, narrow } = &self.which;
        let mut pairs = narrow.pairs();
        let lists = [("process", process), ("pid", pid), ("direction", &self.direction)];
        pairs.extend(lists.into_iter().filter_map(|(name, v)| Some((name, joined(v)?))));
        pairs
    }

    /// The filter that these flags, with a time and a page, stand for.
    pub fn read(&self, when: &When, page: &Page) -> Result<(Filter, query::Page), Failure> {
        let mut pairs = self.pairs();
        let single = [
            ("since", &when.since),
            ("until", &when.until),
            ("limit", &page.limit),
            ("cursor", &page.cursor),
            ("sort", &page.sort),
        ];
        pairs.extend(single.into_iter().filter_map(|(name, v)| Some((name, v.clone()?))));
        let (mut filter, page) = filter::parse(pairs)?;
        if let Some(seconds) = when.duration {
            filter.since = last(seconds);
        }
        if !self.all {
            filter.hide_unix();
            filter.hide_preexisting();
        }
        Ok((filter, page))
    }

    /// The filter of these flags and of what was typed later, which stands in for flags of the same
    /// name. It matches at every time. `sees_sent` is the answer of [`sees_sent`].
    pub fn narrowed(
        &self,
        typed: &[(&'static str, String)],
        sees_sent: bool,
    ) -> Result<Filter, QueryError> {
        let is_typed = |name: &str| typed.iter().any(|(n, _)| *n == name);
        let mut pairs: Vec<_> = self.pairs();
        pairs.retain(|(name, _)| !is_typed(name));
        pairs.extend_from_slice(typed);
        let (mut filter, _) = filter::parse(pairs)?;
        if !self.all {
            filter.hide_unix();
            filter.hide_preexisting();
            filter.hide_associated_where(sees_sent);
        }
        Ok(filter)
    }

    /// Whether UNIX sockets are left out because nobody asked for them.
    pub fn hides_unix(&self) -> bool {
        !self.all && self.which.narrow.protocol.is_empty()
    }

    /// Leaves datagram sockets out that sent nothing, unless somebody asks for them.
    pub async fn hide_associated(
        &self,
        filter: &mut Filter,
        source: &dyn Source,
    ) -> Result<(), QueryError> {
        if !self.all {
            filter.hide_associated(source).await?;
        }
        Ok(())
    }
}

/// As it would be typed into a view: `process:curl port:443`.
impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<String> =
            self.pairs().into_iter().map(|(name, value)| format!("{name}:{value}")).collect();
        f.write_str(&words.join(" "))
    }
}

/// Which drops.
#[derive(Debug, Clone, Default, Args)]
#[command(
    next_help_heading = "Which drops (several values: separated by commas, one within a value: \\,)"
)]
pub struct WhatDrops {
    /// Name of the process or thread whose attempt was hit, or base name of its executable
    #[arg(long, value_name = "NAME")]
    pub process: Vec<String>,
    /// Its process id
    #[arg(long, value_name = "PID")]
    pub pid: Vec<String>,
    /// Address of either end
    #[arg(long, value_name = "IP")]
    pub remote: Vec<String>,
    /// Port of either end
    #[arg(long, value_name = "PORT")]
    pub port: Vec<String>,
    /// tcp, udp, ...
    #[arg(long, value_name = "PROTOCOL")]
    pub protocol: Vec<String>,
    /// NO_SOCKET, NETFILTER_DROP, ...
    #[arg(long, value_name = "REASON")]
    pub reason: Vec<String>,
}

/// Which questions for names.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Which questions (several values: separated by commas)")]
pub struct WhatDns {
    /// Name of the process or thread that asked, or base name of its executable
    #[arg(long, value_name = "NAME")]
    pub process: Vec<String>,
    /// Its process id
    #[arg(long, value_name = "PID")]
    pub pid: Vec<String>,
    /// Name or id of its container
    #[arg(long, value_name = "CONTAINER")]
    pub container: Vec<String>,
    /// Its Kubernetes pod
    #[arg(long, value_name = "POD")]
    pub pod: Vec<String>,
    /// Kubernetes namespace of that pod
    #[arg(long, value_name = "NAMESPACE")]
    pub namespace: Vec<String>,
    /// The name that was asked for; .example.com for that domain and everything below it
    #[arg(long, value_name = "NAME")]
    pub host_name: Vec<String>,
    /// Address of the server, or one that was the answer
    #[arg(long, value_name = "IP")]
    pub remote: Vec<String>,
    /// udp or tcp
    #[arg(long, value_name = "PROTOCOL")]
    pub protocol: Vec<String>,
    /// A, AAAA, PTR, ...
    #[arg(long = "type", value_name = "TYPE")]
    pub record_type: Vec<String>,
    /// answered, no_data, nxdomain, servfail, refused, failed, truncated, timed_out; unsuccessful for
    /// all of these that are failures
    #[arg(long, value_name = "OUTCOME")]
    pub outcome: Vec<String>,
    /// A connection that carried the question, or followed the answer
    #[arg(long, value_name = "ID")]
    pub connection: Vec<String>,
}

impl WhatDns {
    /// The filter that these flags, with a time and a page, stand for.
    pub fn read(&self, when: &When, page: &DropPage) -> Result<(DnsFilter, query::Page), Failure> {
        let lists = [
            ("process", &self.process),
            ("pid", &self.pid),
            ("container", &self.container),
            ("pod", &self.pod),
            ("namespace", &self.namespace),
            ("host_name", &self.host_name),
            ("remote", &self.remote),
            ("protocol", &self.protocol),
            ("type", &self.record_type),
            ("outcome", &self.outcome),
            ("connection", &self.connection),
        ];
        let lists = lists.into_iter().filter_map(|(name, v)| Some((name, joined(v)?)));
        let (mut filter, page) = query::dns::parse(lists.chain(window_and_page(when, page)))?;
        if let Some(seconds) = when.duration {
            filter.since = last(seconds);
        }
        Ok((filter, page))
    }
}

fn window_and_page(
    when: &When,
    page: &DropPage,
) -> impl Iterator<Item = (&'static str, String)> + use<> {
    let single = [
        ("since", when.since.clone()),
        ("until", when.until.clone()),
        ("limit", page.limit.clone()),
        ("cursor", page.cursor.clone()),
    ];
    single.into_iter().filter_map(|(name, v)| Some((name, v?)))
}

/// Which part of a list that is newest first.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Which part")]
pub struct DropPage {
    /// At most this many; 100 unless given
    #[arg(long, value_name = "COUNT")]
    pub limit: Option<String>,
    /// Continue where the answer with this cursor ended
    #[arg(long, value_name = "CURSOR")]
    pub cursor: Option<String>,
}

impl WhatDrops {
    /// The filter that these flags, with a time and a page, stand for.
    pub fn read(&self, when: &When, page: &DropPage) -> Result<(DropFilter, query::Page), Failure> {
        let lists = [
            ("process", &self.process),
            ("pid", &self.pid),
            ("remote", &self.remote),
            ("port", &self.port),
            ("protocol", &self.protocol),
            ("reason", &self.reason),
        ];
        let lists = lists.into_iter().filter_map(|(name, v)| Some((name, joined(v)?)));
        let (mut filter, page) = query::drops::parse(lists.chain(window_and_page(when, page)))?;
        if let Some(seconds) = when.duration {
            filter.since = last(seconds);
        }
        Ok((filter, page))
    }
}

/// The start of a window of so many seconds that ends now.
pub fn last(seconds: u32) -> Option<Timestamp> {
    Timestamp::now().checked_sub(SignedDuration::from_secs(seconds.into())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Protocol;

    fn narrowed(narrow: Narrow) -> What {
        What { which: Which { narrow, ..Which::default() }, ..What::default() }
    }

    #[test]
    fn unix_sockets_are_hidden_unless_asked_for() {
        let protocols =
            |what: What| what.read(&When::default(), &Page::default()).unwrap().0.protocol;
        assert!(!protocols(What::default()).contains(&Protocol::Unix));
        assert!(protocols(What::default()).contains(&Protocol::Udp));
        assert_eq!(protocols(What { all: true, ..What::default() }), []);
        let narrow = Narrow { protocol: vec!["unix".to_owned()], ..Narrow::default() };
        let unix = narrowed(narrow);
        assert_eq!(protocols(unix), [Protocol::Unix]);
    }

    #[test]
    fn what_existed_before_is_hidden_unless_asked_for_by_its_state() {
        let preexisting =
            |what: What| what.read(&When::default(), &Page::default()).unwrap().0.preexisting;
        assert_eq!(preexisting(What::default()), Some(false));
        assert_eq!(preexisting(What { all: true, ..What::default() }), None);
        let narrow = Narrow { state: vec!["open".to_owned()], ..Narrow::default() };
        assert_eq!(preexisting(narrowed(narrow)), None);
    }

    #[test]
    fn a_time_that_is_over_needs_a_server() {
        let allowed = Capture::Allowed { no_unix: true };
        for (until, needed) in [
            (None, allowed),
            (Some("1h"), Capture::Never),
            (Some("2020-01-31T09:30:00Z"), Capture::Never),
            (Some("2200-01-31T09:30:00Z"), allowed),
        ] {
            let when = When { until: until.map(str::to_owned), ..When::default() };
            assert_eq!(when.capture(allowed), needed, "{until:?}");
        }
    }

    #[test]
    fn flags_that_are_repeated_add_up() {
        let which = Which { pid: vec!["1,2".to_owned(), "3".to_owned()], ..Which::default() };
        let what = What { which, ..What::default() };
        let (filter, _) = what.read(&When::default(), &Page::default()).unwrap();
        assert_eq!(filter.pid, [1, 2, 3]);
    }
}

//! A connection as a line of a table, as fields of a CSV file, and in full.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};

use anstyle::Style;
use jiff::Timestamp;

use super::csv::{self, known as show};
use super::screen::{BAD, DIM, GOOD, ODD, PENDING, PLAIN, Screen, TITLE};
use super::table::{Cell, Cut, Steps};
use super::text::{clean, width};
use super::units::{self, Clock};
use crate::event::{Connection, Direction, Endpoint, NameSource, Outcome, Protocol, Remote};

/// Titles of the columns of a list and of the live view.
pub const TITLES: [&str; 8] =
    ["TIME", "PROCESS", "PROTO", "REMOTE", "OUTCOME", "ERROR", "LATENCY", "ID"];

/// What gives way on a narrow terminal. In 80 columns, an IPv4 address with its port, a name with
/// its pid and the error still stand whole.
pub const STEPS: Steps = &[
    (7, 0),
    (3, 40),
    (1, 20),
    (3, 21),
    (1, 13),
    (3, 19),
    (2, 4),
    (6, 7),
    (5, 7),
    (1, 10),
    (3, 15),
    (5, 0),
    (0, 8),
    (6, 0),
    (1, 6),
    (3, 9),
    (2, 0),
];

/// The fields under [`TITLES`].
pub fn cells(connection: &Connection, clock: &Clock, screen: &Screen) -> Vec<Cell> {
    let time = match screen.is_wide() {
        _ if connection.preexisting => "earlier".to_owned(),
        true => clock.fine(connection.time),
        false => clock.short(connection.time),
    };
    vec![
        Cell::new(time, DIM),
        process_cell(connection),
        Cell::plain(connection.protocol.as_str()),
        remote_cell(connection),
        Cell::new(connection.outcome.as_str(), style(connection.outcome)),
        Cell::plain(cause(connection)),
        Cell::plain(connection.latency_us.map(units::duration).unwrap_or_default()),
        Cell::new(connection.id.to_string(), DIM),
    ]
}

/// The process; where it is cut, its pid stays whole.
fn process_cell(connection: &Connection) -> Cell {
    let pid = connection.process.as_ref().map_or(0, |p| format!("[{}]", p.pid).len());
    Cell::plain(process(connection)).cut(Cut::Before(pid))
}

/// The other side; where it is cut, its address stays whole.
pub fn remote_cell(connection: &Connection) -> Cell {
    let text = remote(connection);
    let cut = match &connection.remote {
        Some(remote) if remote.name.is_some() || connection.remote_actual.is_some() => {
            Cut::After(text.split_once(" (").map_or(0, |(address, _)| width(address)))
        }
        // The widest IPv4 address with its port; of a longer one the middle tells the least.
        Some(_) if width(&text) <= "from 255.255.255.255:65535".len() => Cut::After(width(&text)),
        _ => Cut::Middle,
    };
    Cell::plain(text).cut(cut)
}

/// The colour of an outcome.
pub fn style(outcome: Outcome) -> Style {
    match outcome {
        Outcome::Established => GOOD,
        Outcome::InProgress => PENDING,
        Outcome::Aborted => ODD,
        outcome if outcome.is_unsuccessful() => BAD,
        _ => PLAIN,
    }
}

/// `curl[1234]`.
pub fn process(connection: &Connection) -> String {
    match &connection.process {
        Some(process) => format!("{}[{}]", clean(&process.comm), process.pid),
        None => "-".to_owned(),
    }
}

/// `93.184.215.14:443 (example.com)`, `10.96.0.1:443 (-> 10.42.0.7:8443)` where address translation
/// sends it elsewhere, where a socket listens, or the path of a UNIX socket.
pub fn remote(connection: &Connection) -> String {
    let from = if connection.direction == Direction::Inbound { "from " } else { "" };
    match (&connection.remote, &connection.path) {
        (Some(remote), _) => {
            let actual = connection.remote_actual.map(|a| format!("-> {}", address(a.ip, a.port)));
            let name = remote.name.as_deref().map(clean);
            let address = address(remote.ip, remote.port);
            match (name, actual) {
                (Some(name), Some(actual)) => format!("{from}{address} ({name} {actual})"),
                (Some(name), None) => format!("{from}{address} ({name})"),
                (None, Some(actual)) => format!("{from}{address} ({actual})"),
                (None, None) => format!("{from}{address}"),
            }
        }
        (None, Some(path)) => clean(path).into_owned(),
        (None, None) if connection.protocol == Protocol::Unix => "(local socket)".to_owned(),
        (None, None) => match connection.local {
            Some(Endpoint { ip, port }) if connection.outcome == Outcome::Listening => {
                format!("at {}", address(ip, port))
            }
            _ => "-".to_owned(),
        },
    }
}

/// The error's symbol, or its number.
pub fn error(connection: &Connection) -> String {
    match (&connection.error, connection.errno) {
        (Some(error), _) => clean(error).into_owned(),
        (None, Some(errno)) => format!("errno {errno}"),
        (None, None) => String::new(),
    }
}

/// The error, and what the kernel dropped where that tells more than the error does.
fn cause(connection: &Connection) -> String {
    let error = error(connection);
    let told = matches!(connection.outcome, Outcome::Established | Outcome::Refused);
    match &connection.drop {
        Some(drop) if !told => {
            let dropped = format!("{} ×{}", clean(&drop.reason), units::count(drop.count));
            if error.is_empty() { dropped } else { format!("{error}, {dropped}") }
        }
        _ => error,
    }
}

/// `10.0.0.1:80`, `[::1]:80`.
pub fn address(ip: IpAddr, port: u16) -> String {
    SocketAddr::new(ip, port).to_string()
}

/// `curl -> 10.0.0.1:80`, as far as it is known.
pub fn flow(process: Option<&str>, remote: Option<IpAddr>, port: Option<u16>) -> String {
    let remote = match (remote, port) {
        (Some(ip), Some(port)) => Some(address(ip, port)),
        (Some(ip), None) => Some(ip.to_string()),
        (None, port) => port.map(|port| format!("port {port}")),
    };
    match (process.map(clean), remote) {
        (Some(process), Some(remote)) => format!("{process} -> {remote}"),
        (Some(process), None) => process.into_owned(),
        (None, remote) => remote.unwrap_or_else(|| "-".to_owned()),
    }
}

/// Titles of the CSV form. New ones come at the end, so that those who count columns may go on.
pub const CSV_TITLES: &str = "id,time,host,direction,protocol,family,local_ip,local_port,\
remote_ip,remote_port,remote_name,path,pid,tid,comm,thread,exe,cmdline,unit,uid,user,ppid,parent,\
state,outcome,errno,error,evidence,latency_us,syn_retransmits,close_time,duration_us,bytes_sent,\
bytes_received,datagrams_sent,retransmits,srtt_us,close_reason,preexisting,drop_reason,drop_count,\
socket_type,remote_name_source,remote_service,exe_deleted,ancestry,start_time,cgroup,netns,\
container_id,container_runtime,container_name,pod,pod_namespace,exe_dev,exe_inode,exe_sha256,cwd,remote_scope,\
remote_country,remote_asn,remote_as_name,pod_uid,container_image,container_labels,remote_name_time,\
remote_actual_ip,remote_actual_port";

/// The fields under [`CSV_TITLES`]; what is unknown is empty.
pub fn csv(c: &Connection) -> String {
    let (process, remote, close) = (c.process.as_ref(), c.remote.as_ref(), c.close.as_ref());
    let carried = c.carried();
    let container = process.and_then(|p| p.container.as_ref());
    csv::line([
        c.id.to_string(),
        csv::time(c.time),
        c.host.to_string(),
        c.direction.to_string(),
        c.protocol.to_string(),
        c.family.to_string(),
        show(c.local.map(|l| l.ip)),
        show(c.local.map(|l| l.port)),
        show(remote.map(|r| r.ip)),
        show(remote.map(|r| r.port)),
        show(remote.and_then(|r| r.name.as_ref())),
        show(c.path.as_ref()),
        show(process.map(|p| p.pid)),
        show(process.map(|p| p.tid)),
        show(process.map(|p| &p.comm)),
        show(process.map(|p| &p.thread)),
        show(process.and_then(|p| p.exe.as_ref())),
        show(process.and_then(|p| p.cmdline.as_ref())),
        show(process.and_then(|p| p.unit.as_ref())),
        show(process.map(|p| p.uid)),
        show(process.and_then(|p| p.user.as_ref())),
        show(process.map(|p| p.ppid)),
        show(process.and_then(|p| p.parent.as_ref())),
        c.state.to_string(),
        c.outcome.to_string(),
        show(c.errno),
        show(c.error.as_ref()),
        show(c.evidence),
        show(c.latency_us),
        show(c.syn_retransmits),
        close.map(|c| csv::time(c.time)).unwrap_or_default(),
        show(close.and_then(|c| c.duration_us)),
        show(carried.and_then(|c| c.bytes_sent)),
        show(carried.and_then(|c| c.bytes_received)),
        show(carried.and_then(|c| c.datagrams_sent)),
        show(carried.and_then(|c| c.retransmits)),
        show(carried.and_then(|c| c.srtt_us)),
        show(close.map(|c| c.reason)),
        c.preexisting.to_string(),
        show(c.drop.as_ref().map(|d| &d.reason)),
        show(c.drop.as_ref().map(|d| d.count)),
        c.socket_type.to_string(),
        show(remote.and_then(|r| r.name_source)),
        show(remote.and_then(|r| r.service.as_ref())),
        show(process.map(|p| p.exe_deleted)),
        process.map(|p| p.ancestry.join(" < ")).unwrap_or_default(),
        process.and_then(|p| p.start_time).map(csv::time).unwrap_or_default(),
        show(process.and_then(|p| p.cgroup.as_ref())),
        show(process.map(|p| p.netns)),
        show(container.map(|c| &c.id)),
        show(container.map(|c| &c.runtime)),
        show(container.and_then(|c| c.name.as_ref())),
        show(container.and_then(|c| c.pod.as_ref())),
        show(container.and_then(|c| c.namespace.as_ref())),
        show(process.and_then(|p| p.exe_dev)),
        show(process.and_then(|p| p.exe_inode)),
        show(process.and_then(|p| p.exe_sha256.as_ref())),
        show(process.and_then(|p| p.cwd.as_ref())),
        show(remote.map(|r| r.scope)),
        show(remote.and_then(|r| r.country.as_ref())),
        show(remote.and_then(|r| r.asn)),
        show(remote.and_then(|r| r.as_name.as_ref())),
        show(container.and_then(|c| c.pod_uid.as_ref())),
        show(container.and_then(|c| c.image.as_ref())),
        container.map(|c| labels(&c.labels, ";")).unwrap_or_default(),
        remote.and_then(|r| r.name_time).map(csv::time).unwrap_or_default(),
        show(c.remote_actual.map(|actual| actual.ip)),
        show(c.remote_actual.map(|actual| actual.port)),
    ])
}

/// Who asked for the name, and when.
fn name_in_words(remote: &Remote, clock: &Clock) -> String {
    let Some(source) = remote.name_source.map(name_source_in_words) else { return String::new() };
    let time = remote.name_time.map(|time| format!(", {}", clock.full(time))).unwrap_or_default();
    format!("{source}{time}")
}

/// `KEY=VALUE` of each.
fn labels(labels: &BTreeMap<String, String>, between: &str) -> String {
    let pairs: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join(between)
}

/// Everything that is known of one connection, a fact per line.
pub fn write_full(
    out: &mut dyn Write,
    screen: &Screen,
    clock: &Clock,
    c: &Connection,
) -> io::Result<()> {
    facts(c, clock).into_iter().try_for_each(|(title, text, style)| {
        let title = screen.paint(&format!("{title:<18}"), TITLE);
        writeln!(out, "{title} {}", screen.paint(text.trim_end(), style))
    })
}

/// Everything that is known of one connection: what, and how it looks.
pub fn facts(c: &Connection, clock: &Clock) -> Vec<(&'static str, String, Style)> {
    let mut facts: Vec<(&'static str, String, Style)> = vec![
        ("Id", c.id.to_string(), PLAIN),
        ("Host", clean(&c.host).into_owned(), PLAIN),
        ("Time", time_in_words(c, clock), PLAIN),
        ("Outcome", outcome_in_words(c), style(c.outcome)),
        ("State", c.state.to_string(), PLAIN),
        ("Protocol", format!("{} ({}, {})", c.protocol, c.socket_type, c.family), PLAIN),
        ("Direction", c.direction.to_string(), PLAIN),
        (
            "Local",
            c.local.map(|Endpoint { ip, port }| address(ip, port)).unwrap_or_default(),
            PLAIN,
        ),
        ("Remote", remote(c), PLAIN),
    ];
    let mut fact = |title, text: String| facts.push((title, text, PLAIN));
    if let Some(Endpoint { ip, port }) = c.remote_actual {
        fact("Translated to", address(ip, port));
    }
    if let Some(remote) = &c.remote {
        fact("Name known from", name_in_words(remote, clock));
        fact("Kind of remote", remote.scope.to_string());
        fact(
            "Country",
            remote.country.as_deref().map(|c| clean(c).into_owned()).unwrap_or_default(),
        );
        let network = remote.asn.map(|asn| format!("AS{asn} ")).unwrap_or_default();
        fact("Network", network + &clean(remote.as_name.as_deref().unwrap_or_default()));
    }
    if let Some(evidence) = c.evidence {
        fact("Evidence", evidence.to_string());
    }
    if let Some(n) = c.syn_retransmits.filter(|n| *n > 0) {
        fact("SYN retransmits", n.to_string());
    }
    if let Some(drop) = &c.drop {
        let packets = units::counted(drop.count, "packet", "packets");
        fact("Dropped", format!("{packets}, {}", clean(&drop.reason)));
    }
    if let Some(close) = &c.close {
        fact("Closed", format!("{}, {}", clock.full(close.time), close.reason));
        fact("Open for", close.duration_us.map_or("unknown".to_owned(), units::duration));
    }
    if let Some(carried) = c.carried() {
        let bytes = |n: Option<u64>| n.map_or("unknown".to_owned(), units::bytes);
        if let (Some(n), sent) = (carried.datagrams_sent, bytes(carried.bytes_sent)) {
            fact("Sent", format!("{n} datagrams, {sent}"));
        } else if carried.bytes_sent.is_some() || carried.bytes_received.is_some() {
            let (sent, received) = (bytes(carried.bytes_sent), bytes(carried.bytes_received));
            fact("Sent, received", format!("{sent}, {received}"));
        }
        if let Some(n) = carried.retransmits {
            fact("Retransmits", n.to_string());
        }
        if let Some(us) = carried.srtt_us {
            fact("Round trip", units::duration(us.into()));
        }
    }
    if let Some(p) = &c.process {
        let text = |value: &Option<std::sync::Arc<str>>| {
            value.as_deref().map(|v| clean(v).into_owned()).unwrap_or_default()
        };
        fact("Process", process(c));
        if p.thread != p.comm || p.tid != p.pid {
            fact("Thread", format!("{}[{}]", clean(&p.thread), p.tid));
        }
        let deleted = if p.exe_deleted { " (deleted)" } else { "" };
        fact("Executable", format!("{}{deleted}", text(&p.exe)));
        if let (Some(dev), Some(inode)) = (p.exe_dev, p.exe_inode) {
            let (major, minor) = (rustix::fs::major(dev), rustix::fs::minor(dev));
            fact("Executable file", format!("device {major}:{minor}, inode {inode}"));
        }
        fact("SHA-256", text(&p.exe_sha256));
        fact("Command line", text(&p.cmdline));
        fact("Directory", text(&p.cwd));
        fact("User", format!("{} {}", p.uid, text(&p.user)));
        fact("Parent", format!("{} {}", p.ppid, text(&p.parent)));
        let ancestry: Vec<Cow<'_, str>> = p.ancestry.iter().map(|name| clean(name)).collect();
        fact("Ancestry", ancestry.join(" < "));
        fact("Started", p.start_time.map(|t| clock.full(t)).unwrap_or_default());
        fact("Unit", text(&p.unit));
        fact("cgroup", text(&p.cgroup));
        fact("Network namespace", p.netns.to_string());
        if let Some(container) = &p.container {
            let text =
                |value: &Option<String>| clean(value.as_deref().unwrap_or_default()).into_owned();
            let id = format!("{} ({})", clean(&container.id), clean(&container.runtime));
            fact("Container", format!("{id} {}", text(&container.name)));
            fact("Image", text(&container.image));
            let pod = container.pod.as_ref().or(container.pod_uid.as_ref()).map(|pod| clean(pod));
            let namespace = container.namespace.as_deref().map(|of| format!("{}/", clean(of)));
            fact("Pod", format!("{}{}", namespace.unwrap_or_default(), pod.unwrap_or_default()));
            fact("Labels", clean(&labels(&container.labels, ", ")).into_owned());
        }
    }
    facts.retain(|(_, text, _)| !text.trim().is_empty());
    facts
}

/// When it began, as far as that is known.
fn time_in_words(c: &Connection, clock: &Clock) -> String {
    let age = Timestamp::now().duration_since(c.time).as_secs();
    match c.preexisting {
        // Of a clock that was set back meanwhile, no age is told.
        false if age >= 0 => {
            format!("{}, {} ago", clock.full(c.time), units::seconds(age.unsigned_abs()))
        }
        false => clock.full(c.time),
        true => format!("before capture began, {}", clock.full(c.time)),
    }
}

fn name_source_in_words(source: NameSource) -> &'static str {
    match source {
        NameSource::Dns => "a DNS answer to this process",
        NameSource::DnsNetns => "a DNS answer to another process of this network namespace",
        NameSource::DnsHost => "a DNS answer in another network namespace",
        NameSource::Hosts => "/etc/hosts",
    }
}

fn outcome_in_words(c: &Connection) -> String {
    let mut words = c.outcome.to_string();
    if c.errno.is_some() || c.error.is_some() {
        words.push_str(&format!(", {}", error(c)));
    }
    if let Some(us) = c.latency_us {
        words.push_str(&format!(", after {}", units::duration(us)));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::super::table::Layout;
    use super::*;
    use crate::test_records::{established, info};
    use crate::text::is_unsafe;

    #[test]
    fn it_says_where_it_really_goes_and_how_old_its_name_is() {
        let mut c = established(0, &info(1, "curl"));
        c.remote_actual = Some(Endpoint { ip: [10, 42, 0, 7].into(), port: 8443 });
        assert_eq!(remote(&c), "192.0.2.0:443 (-> 10.42.0.7:8443)");
        if let Some(remote) = &mut c.remote {
            remote.name = Some("api.example".into());
            remote.name_source = Some(NameSource::DnsNetns);
            remote.name_time = Some(c.time);
        }
        assert_eq!(remote(&c), "192.0.2.0:443 (api.example -> 10.42.0.7:8443)");
        let clock = Clock::local();
        let facts = facts(&c, &clock);
        let fact = |title| facts.iter().find(|fact| fact.0 == title).map(|fact| fact.1.as_str());
        assert_eq!(fact("Translated to"), Some("10.42.0.7:8443"));
        let from = "a DNS answer to another process of this network namespace";
        assert_eq!(fact("Name known from"), Some(&*format!("{from}, {}", clock.full(c.time))));
    }

    /// A name server may answer with any 253 bytes.
    #[test]
    fn the_longest_host_name_takes_no_more_than_its_column_and_leaves_the_address() {
        let hostile = format!("\u{1b}[2J\u{202e}{}", "日".repeat(80));
        for name in ["a".repeat(253), "x.".repeat(126), hostile] {
            let mut c = established(0, &info(1, "curl"));
            if let Some(remote) = &mut c.remote {
                remote.name = Some(name.as_str().into());
            }
            for columns in [80, 200] {
                let screen = Screen { width: Some(columns), color: false };
                let cells = cells(&c, &Clock::local(), &screen);
                let natural = cells.iter().map(|cell| width(&cell.text)).collect();
                let line = Layout::new(natural, STEPS, &screen).line(&cells, &screen);
                assert!(width(&line) <= columns, "{line}");
                assert!(line.contains(" 192.0.2.0:443"), "{line}");
                assert!(!line.chars().any(is_unsafe), "{line:?}");
            }
        }
    }
}

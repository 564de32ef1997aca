use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::event::{DnsId, DnsRecord, Process};
use crate::test_records::{asked, epoch, info};

/// A question so many milliseconds after the start, for an address unless its type is changed.
fn question(ms: i64, name: &str, outcome: DnsOutcome) -> DnsRecord {
    let id = DnsId { start_ns: ms as u64 * 1_000_000, number: name.len() as u32, boot: 1 };
    let time = epoch().checked_add(SignedDuration::from_millis(ms)).unwrap();
    DnsRecord { id, time, name: name.into(), outcome, ..asked(0) }
}

fn of(comm: &str, record: DnsRecord) -> DnsRecord {
    let process = Some(Process { tid: 7, thread: comm.into(), info: info(7, comm) });
    DnsRecord { process, ..record }
}

fn tally(all: impl IntoIterator<Item = DnsRecord>) -> Tally {
    let mut tally = Tally::new(Timestamp::now());
    all.into_iter().for_each(|record| tally.add_question(&record));
    tally
}

/// What stands out, each as `kind process name`.
fn found(all: impl IntoIterator<Item = DnsRecord>) -> Vec<String> {
    shown(&tally(all).findings())
}

fn shown(findings: &[Finding]) -> Vec<String> {
    let shown = findings.iter().map(|f| {
        let name = f.subject.name.as_deref().or(f.subject.remote.map(|_| "server"));
        let process = f.subject.process.as_deref().unwrap_or("*");
        format!("{} {process} {}", f.kind, name.unwrap_or("*"))
    });
    shown.collect()
}

/// So many look-ups of both families, a minute apart.
fn look_ups(n: i64, name: &str, outcome: DnsOutcome) -> Vec<DnsRecord> {
    let both = (0..n).flat_map(|n| {
        let aaaa =
            DnsRecord { record_type: "AAAA".into(), ..question(n * 60_000 + 1, name, outcome) };
        [question(n * 60_000, name, outcome), aaaa]
    });
    both.collect()
}

#[test]
fn a_name_that_fails_is_a_finding_from_five_look_ups_of_both_families() {
    use DnsOutcome::*;
    for outcome in [Nxdomain, Servfail, TimedOut, Refused, Failed] {
        assert_eq!(found(look_ups(4, "db.example", outcome)), [""; 0], "{outcome}");
        let expected = ["failing_name curl db.example"];
        assert_eq!(found(look_ups(5, "db.example", outcome)), expected, "{outcome}");
    }
    for outcome in [Answered, NoData, Truncated] {
        assert_eq!(found(look_ups(50, "db.example", outcome)), [""; 0], "{outcome}");
    }
    let all = tally(look_ups(6, "db.example", Nxdomain)).findings();
    let [finding] = &all[..] else { panic!("{all:?}") };
    assert_eq!(finding.evidence.figures["look_ups"], 6);
    assert_eq!(finding.evidence.figures["unsuccessful"], 6);
    assert_eq!(finding.evidence.figures["nxdomain"], 12);
    let newest = look_ups(6, "db.example", Nxdomain).last().unwrap().clone();
    assert_eq!(finding.evidence.questions[0], newest.id);
    assert_eq!((finding.evidence.questions.len(), finding.evidence.last), (5, newest.time));
}

#[test]
fn the_same_questions_give_the_same_findings_in_any_order() {
    let mut all = look_ups(9, "db.example", DnsOutcome::Nxdomain);
    all.extend(look_ups(12, "other.example", DnsOutcome::Servfail));
    let forward = tally(all.clone()).findings();
    all.reverse();
    assert_eq!(tally(all).findings(), forward);
    assert_eq!(forward.len(), 2);
}

#[test]
fn a_name_that_has_an_answer_for_one_family_or_mostly_is_no_finding() {
    let half = |n: i64| {
        let aaaa = question(n * 60_000 + 3, "v4.example", DnsOutcome::Servfail);
        [question(n * 60_000, "v4.example", DnsOutcome::Answered), aaaa]
    };
    assert_eq!(found((0..20).flat_map(half)), [""; 0]);
    let mut mostly = look_ups(9, "x.example", DnsOutcome::TimedOut);
    mostly.extend((0..9).map(|n| question(n * 60_000 + 5_000, "x.example", DnsOutcome::Answered)));
    assert_eq!(found(mostly), [""; 0]);
}

#[test]
fn domains_that_are_searched_on_the_way_to_a_name_are_none() {
    // As in a pod of Kubernetes, with five dots.
    let search = |n: i64, last: DnsOutcome| {
        let at = n * 60_000;
        let tried = |ms, name| question(at + ms, name, DnsOutcome::Nxdomain);
        [
            tried(0, "api.example.com.shop.svc.cluster.local"),
            tried(10, "api.example.com.cluster.local"),
            question(at + 20, "api.example.com", last),
        ]
    };
    assert_eq!(found((0..20).flat_map(|n| search(n, DnsOutcome::Answered))), [""; 0]);
    // Where the name itself does not exist, it alone is told of.
    let expected = ["failing_name curl api.example.com"];
    assert_eq!(found((0..20).flat_map(|n| search(n, DnsOutcome::Nxdomain))), expected);
}

#[test]
fn what_is_asked_to_be_told_that_there_is_none_is_no_finding() {
    for name in [
        "wpad.corp.example",
        "use-application-dns.net",
        "4.3.2.192.zen.example.org",
        "1.2.0.192.in-addr.arpa",
        "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.0.0.0.0.1.2.3.4.lists.example",
    ] {
        assert_eq!(found(look_ups(50, name, DnsOutcome::Nxdomain)), [""; 0], "{name}");
    }
    let text = |record| DnsRecord { record_type: "TXT".into(), ..record };
    let texts = look_ups(50, "x.example", DnsOutcome::Nxdomain).into_iter().map(text);
    assert_eq!(found(texts), [""; 0]);
    let stub = look_ups(50, "db.example", DnsOutcome::Nxdomain);
    assert_eq!(found(stub.into_iter().map(|record| of("systemd-resolve", record))), [""; 0]);
}

#[test]
fn a_server_that_leaves_several_names_without_answer_is_one_finding() {
    let silent = |names: i64, rounds: i64| {
        (0..rounds).flat_map(move |round| {
            (0..names).map(move |n| {
                let name = format!("host{n}.example");
                question(round * 60_000 + n * 7_000, &name, DnsOutcome::TimedOut)
            })
        })
    };
    assert_eq!(found(silent(3, 10)), ["failing_name_server * server"]);
    assert_eq!(found(silent(3, 3)), [""; 0]);
    let all = tally(silent(3, 10)).findings();
    assert_eq!(all[0].severity, Severity::Critical);
    assert_eq!(all[0].evidence.figures["names"], 3);
    assert_eq!(all[0].subject.remote, Some(asked(0).server.ip));
    // One name alone says nothing about the server.
    assert_eq!(found(silent(1, 10)), ["failing_name curl host0.example"]);
    // That there is no such name is an answer.
    let missing = silent(10, 4).map(|r| DnsRecord { outcome: DnsOutcome::Nxdomain, ..r });
    assert_eq!(found(missing), [""; 0]);
    // It answers others well.
    let well = (0..31).map(|n| question(n * 900, "fine.example", DnsOutcome::Answered));
    let partly = found(silent(3, 10).chain(well));
    assert!(partly.iter().all(|found| found.starts_with("failing_name curl")), "{partly:?}");
    // Elsewhere this is another server.
    let elsewhere = silent(3, 10).enumerate().map(|(n, record)| {
        let mut process = record.process.clone().unwrap();
        process.info = std::sync::Arc::new(crate::event::ProcessInfo {
            netns: n as u32,
            ..(*process.info).clone()
        });
        DnsRecord { process: Some(process), ..record }
    });
    let elsewhere = found(elsewhere);
    assert!(elsewhere.iter().all(|found| found.starts_with("failing_name curl")), "{elsewhere:?}");
}

#[test]
fn silence_says_nothing_where_messages_were_lost() {
    let mut lossy = tally(look_ups(20, "db.example", DnsOutcome::TimedOut));
    lossy.answers_may_be_lost();
    assert_eq!(lossy.findings(), []);
    let mut lossy = tally(look_ups(20, "db.example", DnsOutcome::Servfail));
    lossy.answers_may_be_lost();
    assert_eq!(shown(&lossy.findings()), ["failing_name curl db.example"]);
}

/// Names as a tunnel makes them, below a domain.
fn tunnel(n: i64, domain: &str) -> DnsRecord {
    let record = question(n * 100, &format!("{n:040x}.{n:08}.{domain}"), DnsOutcome::Answered);
    DnsRecord { record_type: "TXT".into(), addresses: Vec::new(), ..record }
}

#[test]
fn many_long_names_that_nobody_connects_to_are_a_finding() {
    let names = |n| (0..n).map(|n| tunnel(n, "t.example.co.uk"));
    assert_eq!(found(names(49)), [""; 0]);
    assert_eq!(found(names(50)), ["dns_without_connection curl example.co.uk"]);
    let all = tally(names(60)).findings();
    assert_eq!(all[0].evidence.figures["names"], 60);
    assert_eq!(all[0].evidence.figures["longest_label_bytes"], 40);
    // The same name over and over, names as people choose them, a resolver, and one connection.
    let one = tunnel(1, "x.example").name;
    assert_eq!(found((0..500).map(|n| question(n, &one, DnsOutcome::Answered))), [""; 0]);
    let hosts = (0..500).map(|n| {
        let name = format!("ec2-192-0-2-{n}.eu-central-1.compute.example.com");
        question(n * 100, &name, DnsOutcome::Answered)
    });
    assert_eq!(found(hosts), [""; 0]);
    assert_eq!(found(names(500).map(|record| of("unbound", record))), [""; 0]);
    let followed = names(500).enumerate().map(|(n, record)| {
        let id = crate::event::ConnectionId { start_ns: 1, tid: 7, boot: 1 };
        DnsRecord { connections: if n == 77 { vec![id] } else { Vec::new() }, ..record }
    });
    assert_eq!(found(followed), [""; 0]);
}

#[test]
fn the_registered_part_of_a_name_is_told() {
    for (name, is) in [
        ("a.b.example.com", Some("example.com")),
        ("a.example.co.uk", Some("example.co.uk")),
        ("example.co.uk", None),
        ("a.example.de", Some("example.de")),
        ("a.ab.de", None),
        ("example.com", None),
        ("localhost", None),
        ("", None),
        ("..", Some(".")),
        ("é.example.org", Some("example.org")),
    ] {
        assert_eq!(domain(name), is, "{name}");
    }
}

#[test]
fn questions_are_bounded_and_what_does_not_fit_is_told() {
    let mut tally = tally((0..100_000).map(|n| question(n, "x.example", DnsOutcome::Answered)));
    assert!(tally.is_exact());
    tally.add_question(&question(0, "y.example", DnsOutcome::Answered));
    assert!(!tally.is_exact());
}

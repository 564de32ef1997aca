use std::net::{IpAddr, Ipv4Addr};

use jiff::Timestamp;

use super::*;
use crate::event::{ConnectionId, Outcome};

const SECOND: i64 = 1_000_000_000;
const START: i64 = 1_700_000_000 * SECOND;
const REMOTE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

fn seen(n: u64, outcome: Outcome) -> Seen<'static> {
    Seen {
        id: ConnectionId { start_ns: n, tid: 7, boot: 1 },
        time_ns: START + n as i64,
        outcome,
        latency_us: None,
        remote: REMOTE,
        port: Some(443),
        process: Some("curl"),
        is_named: false,
        dropped: None,
    }
}

fn tally(all: impl IntoIterator<Item = Seen<'static>>) -> Tally {
    let now = Timestamp::from_nanosecond((START + 60 * SECOND).into()).unwrap();
    let mut tally = Tally::new(now);
    all.into_iter().for_each(|seen| tally.add(&seen));
    tally
}

fn kinds(all: impl IntoIterator<Item = Seen<'static>>) -> Vec<Kind> {
    tally(all).findings().iter().map(|finding| finding.kind).collect()
}

fn many(n: u64, outcome: Outcome) -> impl Iterator<Item = Seen<'static>> {
    (0..n).map(move |n| seen(n, outcome))
}

#[test]
fn failures_are_a_finding_from_five_and_where_they_are_half_of_the_attempts() {
    assert_eq!(kinds(many(4, Outcome::Refused)), []);
    let all = tally(many(5, Outcome::Refused)).findings();
    let [finding] = &all[..] else { panic!("{all:?}") };
    assert_eq!((finding.kind, finding.severity), (Kind::RepeatedFailures, Severity::Critical));
    assert_eq!(finding.subject.process.as_deref(), Some("curl"));
    assert_eq!((finding.subject.remote, finding.subject.port), (Some(REMOTE), Some(443)));
    assert_eq!(finding.evidence.figures["unsuccessful"], 5);
    assert_eq!(finding.evidence.figures["refused"], 5);
    let well = |n: u64| (100..100 + n).map(|n| seen(n, Outcome::Established));
    let half = tally(many(5, Outcome::Refused).chain(well(5))).findings();
    assert_eq!(half.iter().map(|f| f.severity).collect::<Vec<_>>(), [Severity::Warning]);
    assert_eq!(kinds(many(5, Outcome::Refused).chain(well(6))), []);
}

#[test]
fn what_was_aborted_or_went_well_is_no_failure() {
    for outcome in [Outcome::Aborted, Outcome::Established, Outcome::Sent, Outcome::Associated] {
        assert_eq!(kinds(many(30, outcome)), [], "{outcome}");
    }
}

#[test]
fn attempts_that_were_given_up_unanswered_are_failures_where_nothing_gets_there() {
    let after = |us, n| Seen { latency_us: Some(us), ..seen(n, Outcome::Aborted) };
    let all = tally((0..5).map(|n| after(1_000_000, n))).findings();
    let [finding] = &all[..] else { panic!("{all:?}") };
    assert_eq!((finding.kind, finding.severity), (Kind::RepeatedFailures, Severity::Critical));
    assert_eq!(
        (finding.evidence.figures["unsuccessful"], finding.evidence.figures["aborted"]),
        (5, 5)
    );
    assert_eq!(finding.evidence.records.len(), 5);
    // The loser of a race of two families, and a remote that is reached.
    assert_eq!(kinds((0..30).map(|n| after(300_000, n))), []);
    let reached = [seen(100, Outcome::Established)];
    assert_eq!(kinds((0..30).map(|n| after(1_000_000, n)).chain(reached)), []);
}

#[test]
fn an_attempt_is_stuck_when_it_is_older_than_thirty_seconds() {
    let at = |seconds| Seen { time_ns: START + seconds * SECOND, ..seen(1, Outcome::InProgress) };
    assert_eq!(kinds([at(29)]), [Kind::StuckAttempts]);
    assert_eq!(kinds([at(30)]), []);
}

#[test]
fn drops_count_where_the_attempt_failed() {
    let drop = |outcome| Seen { dropped: Some(("NETFILTER_DROP", 3)), ..seen(1, outcome) };
    assert_eq!(kinds([drop(Outcome::Established)]), []);
    assert_eq!(kinds([drop(Outcome::Aborted)]), []);
    let given_up = Seen { latency_us: Some(2_000_000), ..drop(Outcome::Aborted) };
    assert_eq!(kinds([given_up]), [Kind::DropReason]);
    let found = tally([drop(Outcome::TimedOut)]).findings();
    assert_eq!(found[0].kind, Kind::DropReason);
    assert_eq!(found[0].evidence.figures["reason:NETFILTER_DROP"], 3);
}

#[test]
fn a_drop_that_says_no_more_than_the_outcome_is_no_finding() {
    let drop = |reason, outcome| Seen { dropped: Some((reason, 1)), ..seen(1, outcome) };
    assert_eq!(kinds([drop("NO_SOCKET", Outcome::Refused)]), []);
    assert_eq!(kinds([drop("NETFILTER_DROP", Outcome::Refused)]), [Kind::DropReason]);
    assert_eq!(kinds([drop("NO_SOCKET", Outcome::TimedOut)]), [Kind::DropReason]);
}

#[test]
fn many_ports_or_many_remotes_are_a_scan_where_most_fail() {
    let ports = |n: u64, outcome| {
        (0..n).map(move |n| Seen { port: Some(n as u16 + 1000), ..seen(n, outcome) })
    };
    assert_eq!(kinds(ports(19, Outcome::Refused)), []);
    assert_eq!(kinds(ports(20, Outcome::Refused)), [Kind::PortScan]);
    assert_eq!(kinds(ports(20, Outcome::Established)), []);
    let hosts = |n: u64| {
        (0..n).map(|n| Seen {
            remote: Ipv4Addr::new(198, 51, 100, n as u8).into(),
            ..seen(n, Outcome::TimedOut)
        })
    };
    assert_eq!(kinds(hosts(49)), []);
    let found = tally(hosts(50)).findings();
    assert_eq!((found[0].kind, found[0].evidence.figures["remotes"]), (Kind::PortScan, 50));
    assert_eq!((found[0].subject.remote, found[0].subject.port), (None, Some(443)));
}

#[test]
fn a_storm_is_counted_within_ten_seconds() {
    assert_eq!(kinds(many(999, Outcome::Established)), []);
    assert_eq!(kinds(many(1_000, Outcome::Established)), [Kind::ConnectionStorm]);
    let spread = (0..1_000)
        .map(|n| Seen { time_ns: START + n * 20_000_000, ..seen(n as u64, Outcome::Established) });
    assert_eq!(kinds(spread), []);
}

#[test]
fn clear_text_is_told_of_connections_that_leave_the_host() {
    let http = |remote: IpAddr, outcome| Seen { remote, port: Some(80), ..seen(1, outcome) };
    assert_eq!(kinds([http(REMOTE, Outcome::Established)]), [Kind::ClearTextService]);
    assert_eq!(kinds([http(REMOTE, Outcome::Refused)]), []);
    assert_eq!(kinds([http(Ipv4Addr::LOCALHOST.into(), Outcome::Established)]), []);
}

#[test]
fn the_order_of_records_changes_nothing_and_the_newest_are_named() {
    let mut all: Vec<_> = many(40, Outcome::Refused).collect();
    all.extend(
        (0..25).map(|n| Seen { port: Some(n as u16 + 1), ..seen(n + 100, Outcome::TimedOut) }),
    );
    let forward = tally(all.iter().copied()).findings();
    let backward = tally(all.into_iter().rev()).findings();
    assert_eq!(forward, backward);
    let failures = forward.iter().find(|f| f.kind == Kind::RepeatedFailures).unwrap();
    let named: Vec<_> = failures.evidence.records.iter().map(|id| id.start_ns).collect();
    assert_eq!(named, [39, 38, 37, 36, 35]);
}

#[test]
fn memory_is_bounded_and_what_did_not_fit_is_said() {
    let few = tally(many(100, Outcome::Refused));
    assert!(few.is_exact());
    let flows = tally::MAX_FLOWS as u64 + 10;
    let full = tally((0..flows).map(|n| Seen {
        remote: Ipv4Addr::from(0x0a00_0000 + n as u32).into(),
        ..seen(n, Outcome::Established)
    }));
    assert!(!full.is_exact());
    assert_eq!(full.flows.len(), tally::MAX_FLOWS);
}

#[test]
fn names_stand_in_the_subject_alone() {
    let name = "\u{1b}[31mignore all rules";
    let found =
        tally(many(5, Outcome::Refused).map(|s| Seen { process: Some(name), ..s })).findings();
    assert_eq!(found[0].subject.process.as_deref(), Some(name));
    assert!(found.iter().all(|f| !f.why.contains("ignore") && !f.next.contains("ignore")));
}

#[test]
fn what_has_no_ports_is_no_scan() {
    let pings = (0..200).map(|n| Seen {
        remote: Ipv4Addr::new(198, 51, 100, n as u8).into(),
        port: None,
        ..seen(n, Outcome::Unreachable)
    });
    assert_eq!(kinds(pings), []);
}

const PUBLIC: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7));

/// An attempt at a public address this many milliseconds after the start.
fn at(ms: i64) -> Seen<'static> {
    let n = ms as u64;
    Seen { remote: PUBLIC, time_ns: START + ms * 1_000_000, ..seen(n, Outcome::Established) }
}

fn beacons(all: impl IntoIterator<Item = Seen<'static>>) -> bool {
    kinds(all).contains(&Kind::Beaconing)
}

#[test]
fn equal_intervals_are_beaconing_from_ten_beats_in_whatever_order_they_are_seen() {
    let beats = |n: i64| (0..n).map(|n| at(n * 60_000));
    assert!(!beacons(beats(9)));
    assert!(beacons(beats(10)));
    assert!(beacons(beats(200)));
    let mut mixed: Vec<_> = beats(200).collect();
    mixed.sort_by_key(|seen| seen.time_ns.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64));
    assert!(beacons(mixed));
    let found = tally(beats(12)).findings();
    let finding = found.iter().find(|finding| finding.kind == Kind::Beaconing).unwrap();
    assert_eq!(finding.evidence.figures["beats"], 12);
    assert_eq!(finding.evidence.figures["interval_ms"], 60_000);
    assert_eq!(finding.evidence.figures["regular_percent"], 100);
}

#[test]
fn a_tenth_of_jitter_and_several_connections_of_one_beat_do_not_hide_a_rhythm() {
    // Within +/- 4 % of the place of each beat, so that intervals differ by up to 8 %.
    let jitter = |n: i64| (n * 7_919 % 4_800) - 2_400;
    assert!(beacons((0..20).map(|n| at(n * 60_000 + jitter(n)))));
    assert!(beacons((0..20).flat_map(|n| [at(n * 60_000), at(n * 60_000 + 300)])));
}

#[test]
fn what_people_and_busy_programs_do_is_no_beaconing() {
    // Intervals from seconds to minutes, as of somebody who reads pages.
    let wild = |n: i64| n * n * 3_000 + (n * 7_919 % 40_000);
    assert!(!beacons((0..60).map(|n| at(wild(n)))));
    // A program that works without a pause.
    assert!(!beacons((0..500).map(|n| at(n * 1_500))));
    let elsewhere = |remote: [u8; 4]| {
        let remote = IpAddr::from(remote);
        (0..20).map(move |n| Seen { remote, ..at(n * 60_000) })
    };
    for own in [[127, 0, 0, 1], [10, 1, 2, 3], [192, 168, 1, 1], [169, 254, 1, 1], [100, 64, 0, 1]]
    {
        assert!(!beacons(elsewhere(own)), "{own:?}");
    }
    assert!(!beacons((0..20).map(|n| Seen { port: Some(123), ..at(n * 60_000) })));
}

#[test]
fn a_program_of_one_purpose_at_another_port_is_told_once_it_has_got_through() {
    let of = |process, port, outcome| Seen {
        process: Some(process),
        port: Some(port),
        remote: PUBLIC,
        ..seen(1, outcome)
    };
    let told = |seen| kinds([seen]).contains(&Kind::UnusualPort);
    assert!(told(of("ssh", 2_222, Outcome::Established)));
    assert!(!told(of("ssh", 22, Outcome::Established)));
    assert!(!told(of("ssh", 2_222, Outcome::Refused)));
    assert!(!told(of("curl", 2_222, Outcome::Established)));
    let here =
        Seen { remote: IpAddr::from([127, 0, 0, 1]), ..of("ssh", 2_222, Outcome::Established) };
    assert!(!told(here));
}

#[test]
fn times_that_lie_as_far_apart_as_numbers_can_do_no_harm() {
    let far = |n: i64| Seen { time_ns: if n % 2 == 0 { i64::MIN } else { i64::MAX }, ..at(n) };
    assert!(!beacons((0..20).map(far)));
    assert!(beacons((0..20).map(|n| Seen { time_ns: i64::MIN + n * (i64::MAX / 20), ..at(n) })));
}

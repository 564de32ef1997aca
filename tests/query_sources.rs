//! The questions of the query layer, asked of the store of this process and of a server over TCP
//! and over its UNIX socket: all have to give the same answers.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;

use common::records::*;
use common::{Server, server};
use futures_util::StreamExt;
use jiff::Timestamp;
use netspy::Connection;
use netspy::client::{Address, HttpSource};
use netspy::event::*;
use netspy::query::diff::Compare;
use netspy::query::drops::DropFilter;
use netspy::query::filter;
use netspy::query::series::Step;
use netspy::query::top::{Key, TopBy};
use netspy::query::{Filter, Follow, Page, QueryError, Sort, Source};
use netspy::store::LocalSource;
use strum::VariantArray;

/// Has each kind of source answer from these records.
async fn everywhere(records: Vec<Connection>, check: impl AsyncFn(&dyn Source, &Server)) {
    let server = server(records).await;
    let local = LocalSource::new(server.store.clone(), server.capture.clone());
    let tcp = HttpSource::new(server.address.to_string().parse().unwrap());
    let unix = HttpSource::new(Address::Unix(server.unix.clone()));
    for source in [&local as &dyn Source, &tcp, &unix] {
        check(source, &server).await;
    }
    server.stop().await;
}

fn filter(pairs: &[(&str, &str)]) -> Filter {
    filter::parse(pairs.iter().copied()).unwrap().0
}

/// The start of the tests' time, and so many seconds after it.
fn second(n: i64) -> Timestamp {
    micros(n * 1_000_000)
}

fn at(n: i64, record: Connection) -> Connection {
    Connection { time: second(n), ..record }
}

fn to(ip: &str, port: u16, record: Connection) -> Connection {
    Connection { remote: Some(Remote::new(ip.parse().unwrap(), port)), ..record }
}

/// One process in a unit and a container, two outside; names, errors, a drop, a path.
fn varied() -> Vec<Connection> {
    let mut web = (*info(9, "nginx")).clone();
    web.unit = Some("nginx.service".into());
    web.uid = 33;
    web.user = Some("www-data".into());
    web.container = Some(
        Container {
            id: "0123456789abcdef".to_owned(),
            runtime: "docker".to_owned(),
            name: Some("shop".to_owned()),
            pod: Some("shop-7d9f".to_owned()),
            namespace: Some("prod".to_owned()),
            ..Container::default()
        }
        .into(),
    );
    let (curl, wget, web) = (info(7, "curl"), info(8, "wget"), web.into());
    let mut named = to("198.51.100.1", 80, closed(3, &curl));
    named.remote.as_mut().unwrap().name = Some("www.Example.com".into());
    named.remote.as_mut().unwrap().name_source = Some(NameSource::Dns);
    named.remote.as_mut().unwrap().country = Some("DE".into());
    named.remote.as_mut().unwrap().asn = Some(64_500);
    let mut dropped = to("203.0.113.9", 81, refused(4, &wget));
    dropped.outcome = Outcome::TimedOut;
    dropped.error = Some("ETIMEDOUT".into());
    dropped.drop = Some(Dropped { reason: "NETFILTER_DROP".to_owned(), count: 3 });
    vec![
        at(0, to("192.0.2.1", 443, refused(1, &curl))),
        at(1, to("192.0.2.1", 443, closed(2, &curl))),
        at(2, named),
        at(3, dropped),
        at(4, udp(5, &wget)),
        at(5, unix(6, &web, "/run/shop.sock")),
        at(6, Connection { direction: Direction::Inbound, ..closed(7, &web) }),
        at(7, listening(8, &web)),
        at(8, Connection { preexisting: true, ..established(9, &curl) }),
        at(9, Connection { process: None, ..refused(10, &curl) }),
    ]
}

#[tokio::test]
async fn each_filter_selects_and_count_list_and_summary_agree() {
    let cases: [(&[(&str, &str)], u64); 33] = [
        (&[], 10),
        (&[("process", "curl")], 4),
        (&[("process", "curl,wget")], 6),
        (&[("pid", "9")], 3),
        (&[("uid", "33")], 3),
        (&[("container", "012345")], 3),
        (&[("container", "shop")], 3),
        (&[("pod", "shop-7d9f")], 3),
        (&[("namespace", "prod,dev")], 3),
        (&[("pod", "shop-7d9f"), ("namespace", "dev")], 0),
        (&[("text", "HOP-7D9")], 3),
        (&[("remote", "192.0.2.1")], 2),
        (&[("cidr", "198.51.100.0/24,203.0.113.0/24")], 2),
        (&[("scope", "documentation")], 8),
        (&[("scope", "global,private")], 0),
        (&[("country", "de,FR")], 1),
        (&[("asn", "AS64500,7")], 1),
        (&[("host_name", "www.example.com")], 1),
        (&[("host_name", ".example.com")], 1),
        (&[("host_name", "example.com")], 0),
        (&[("port", "80,81")], 2),
        (&[("protocol", "udp,unix")], 2),
        (&[("direction", "inbound")], 2),
        (&[("state", "listening")], 1),
        (&[("outcome", "unsuccessful")], 3),
        (&[("outcome", "refused"), ("process", "curl")], 1),
        (&[("unit", "nginx.service")], 3),
        (&[("preexisting", "true")], 1),
        (&[("text", "EXAMPLE.c")], 1),
        (&[("text", "netfilter,shop.sock")], 2),
        (&[("text", "203.0.113")], 1),
        (&[("text", "--secret")], 0),
        (&[("since", "2023-11-14T22:13:23Z"), ("until", "2023-11-14T22:13:26Z")], 3),
    ];
    everywhere(varied(), async |source, _| {
        for (pairs, total) in cases {
            let asked = filter(pairs);
            let count = source.count(&asked).await.unwrap();
            let list = source.list(&asked, &Page::default()).await.unwrap();
            let summary = source.summary(&asked).await.unwrap();
            assert_eq!(count.total, total, "{pairs:?}");
            assert_eq!((list.total, list.connections.len() as u64), (total, total), "{pairs:?}");
            assert_eq!(summary.total, total, "{pairs:?}");
            assert_eq!(summary.by_outcome.values().sum::<u64>(), total, "{pairs:?}");
            assert!(list.connections.iter().all(|c| asked.matches(c)), "{pairs:?}");
            assert!(count.accounting.balances() && summary.accounting.balances());
        }
    })
    .await;
}

#[tokio::test]
async fn pages_hold_each_record_once_in_either_order_whatever_comes_meanwhile() {
    let curl = info(7, "curl");
    everywhere((0..50).map(|n| refused(n, &curl)).collect(), async |source, server| {
        let wget = info(8, "wget");
        for sort in [Sort::Newest, Sort::Oldest] {
            let asked = filter(&[("process", "curl")]);
            let mut page = Page { limit: Some(7), cursor: None, sort };
            let mut seen = Vec::new();
            loop {
                let list = source.list(&asked, &page).await.unwrap();
                seen.extend(list.connections.iter().map(|c| c.id.start_ns));
                server.store.apply(vec![refused(1_000 + seen.len() as u64, &wget)]);
                page.cursor = list.next_cursor;
                if page.cursor.is_none() {
                    break;
                }
            }
            assert_eq!(seen.len(), 50);
            assert!(seen.is_sorted_by(|a, b| (a < b) == (sort == Sort::Oldest)), "{sort}");
        }
    })
    .await;
}

#[tokio::test]
async fn one_record_is_found_by_its_id_or_not_at_all() {
    everywhere(varied(), async |source, _| {
        let known = varied().remove(2);
        let found = source.get(known.id).await.unwrap().unwrap();
        assert_eq!((found.time, found.remote), (known.time, known.remote));
        let unknown = ConnectionId { start_ns: 1, tid: 2, boot: 3 };
        assert_eq!(source.get(unknown).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn the_largest_groups_come_first_and_nothing_is_left_out_of_the_sum() {
    let text = |text: &str| Key::Text(text.to_owned());
    let expected = [
        (TopBy::Process, vec![(text("curl"), 4), (text("nginx"), 3), (text("wget"), 2)], 1),
        (TopBy::Pid, vec![(Key::Number(7), 4), (Key::Number(9), 3), (Key::Number(8), 2)], 1),
        (TopBy::Scope, vec![(text("documentation"), 8)], 2),
        (TopBy::Country, vec![(text("DE"), 1)], 9),
        (TopBy::Asn, vec![(Key::Number(64_500), 1)], 9),
        (TopBy::HostName, vec![(text("www.Example.com"), 1)], 9),
        (TopBy::Container, vec![(text("0123456789abcdef"), 3)], 7),
        (TopBy::Unit, vec![(text("nginx.service"), 3)], 7),
        (TopBy::Uid, vec![(Key::Number(1000), 6), (Key::Number(33), 3)], 1),
        (TopBy::Direction, vec![(text("outbound"), 8), (text("inbound"), 2)], 0),
        (TopBy::Error, vec![(text("ECONNREFUSED"), 2), (text("ETIMEDOUT"), 1)], 7),
        (TopBy::DropReason, vec![(text("NETFILTER_DROP"), 1)], 9),
        (TopBy::Host, vec![(text("web-1"), 10)], 0),
    ];
    everywhere(varied(), async |source, _| {
        for (by, groups, without) in &expected {
            let top = source.top(&Filter::default(), *by, None).await.unwrap();
            let found: Vec<_> = top.groups.iter().map(|g| (g.key.clone(), g.count)).collect();
            assert_eq!((&found, top.without), (groups, *without), "{by}");
        }
        for by in TopBy::VARIANTS {
            let top = source.top(&Filter::default(), *by, Some(1)).await.unwrap();
            let shown: u64 = top.groups.iter().map(|group| group.count).sum();
            assert_eq!(shown + top.others + top.without, top.total, "{by}");
            assert_eq!((top.total, top.exact, top.by), (10, true, *by));
            let whole = source.top(&Filter::default(), *by, Some(1_000)).await.unwrap();
            assert_eq!(whole.distinct, Some(whole.groups.len() as u64));
            assert_eq!((whole.others, whole.groups.first()), (0, top.groups.first()));
        }
        let top = source.top(&filter(&[("process", "curl")]), TopBy::Remote, None).await.unwrap();
        let first = &top.groups[0];
        let outcomes = BTreeMap::from([(Outcome::Established, 1), (Outcome::Refused, 1)]);
        assert_eq!((first.unsuccessful, &first.by_outcome), (1, &outcomes));
        assert_eq!((first.first, first.last), (second(0), second(1)));
        let named = top.groups.iter().find(|group| group.key == text("198.51.100.1")).unwrap();
        assert_eq!(named.label.as_deref(), Some("www.Example.com"));

        let ends = filter(&[("remote", "192.0.2.1,192.0.2.7,198.51.100.1")]);
        let top = source.top(&ends, TopBy::Endpoint, None).await.unwrap();
        let ends: Vec<_> =
            top.groups.iter().map(|g| (g.key.clone(), g.count, g.label.as_deref())).collect();
        let named = (text("198.51.100.1:80"), 1, Some("www.Example.com"));
        // Of what comes in, the port that it came to.
        let inbound = (text("192.0.2.7:40000"), 1, None);
        assert_eq!(ends, [(text("192.0.2.1:443"), 2, None), inbound, named]);
    })
    .await;
}

#[tokio::test]
async fn a_series_has_every_step_of_its_window_and_counts_attempts_only() {
    everywhere(varied(), async |source, _| {
        let window = [("since", "2023-11-14T22:13:18.5Z"), ("until", "2023-11-14T22:13:33Z")];
        let series = source.series(&filter(&window), Step::of_millis(2_000)).await.unwrap();
        let counts: Vec<_> = series.points.iter().map(|p| (p.time, p.count)).collect();
        // The socket that listens (7) and the connection that existed before (8) are no attempts.
        let expected: Vec<_> = [0, 2, 2, 2, 1, 1, 0, 0]
            .into_iter()
            .enumerate()
            .map(|(step, count)| (second(-2 + 2 * step as i64), count))
            .collect();
        assert_eq!(counts, expected);
        assert_eq!((series.step_ms, series.total), (2_000, 8));
        assert_eq!(series.points[1].by_outcome[&Outcome::Refused], 1);
        assert_eq!(series.points[1].unsuccessful, 1);
        let usual = source.series(&filter(&window), Step::default()).await.unwrap();
        assert_eq!((usual.step_ms, usual.total), (1_000, 8));
        let none = filter(&[("process", "nobody"), window[0], window[1]]);
        let none = source.series(&none, Step::default()).await.unwrap();
        assert_eq!((none.total, none.points.len()), (0, 15));
        let error = source.series(&filter(&window[..1]), Step::of_millis(1)).await.unwrap_err();
        let QueryError::Invalid { parameter, problem, accepted } = error else { panic!("{error}") };
        assert_eq!(parameter, "step");
        assert!(problem.contains("10000 at most"), "{problem}");
        assert!(accepted.ends_with("s or longer for this window"), "{accepted}");
    })
    .await;
}

/// Two windows of a minute each: what is only in one, what fails now, what comes more often.
fn before_and_after() -> Vec<Connection> {
    let (curl, wget, ssh) = (info(7, "curl"), info(8, "wget"), info(9, "ssh"));
    let mut n = 0;
    let mut next = || {
        n += 1;
        n
    };
    let mut records = vec![
        at(10, to("192.0.2.1", 443, closed(next(), &curl))),
        at(70, to("192.0.2.1", 443, refused(next(), &curl))),
        at(20, to("192.0.2.2", 22, closed(next(), &ssh))),
        at(80, to("192.0.2.3", 80, closed(next(), &curl))),
        at(80, to("192.0.2.3", 80, closed(next(), &curl))),
        at(50, to("192.0.2.4", 80, closed(next(), &wget))),
        at(90, to("192.0.2.4", 80, closed(next(), &wget))),
    ];
    records.extend((0..12).map(|_| at(100, to("192.0.2.4", 80, closed(next(), &wget)))));
    records.extend((0..5).map(|s| at(30 + 10 * s, to("192.0.2.5", 80, closed(next(), &wget)))));
    records
}

#[tokio::test]
async fn a_diff_tells_what_is_new_gone_and_changed() {
    everywhere(before_and_after(), async |source, _| {
        let asked = filter(&[("since", "2023-11-14T22:14:20Z"), ("until", "2023-11-14T22:15:20Z")]);
        let diff = source.diff(&asked, Compare::default(), None).await.unwrap();
        assert_eq!((diff.window.since, diff.window.until), (second(60), second(120)));
        let before = &diff.compared_with;
        assert_eq!((before.window.since, before.window.until), (second(0), second(60)));
        assert_eq!((before.total, diff.total), (6, 18));
        assert!(diff.accounting.balances() && before.accounting.balances());

        let flow = |d: &netspy::query::diff::Difference| {
            let remote = d.remote.unwrap().to_string();
            (d.process.clone().unwrap(), remote, d.port.unwrap(), d.before.count, d.after.count)
        };
        let named = |p: &str, r: &str, port, a, b| (p.to_owned(), r.to_owned(), port, a, b);
        let flows = |list: &[_]| list.iter().map(flow).collect::<Vec<_>>();
        assert_eq!(flows(&diff.flows.new), [named("curl", "192.0.2.3", 80, 0, 2)]);
        assert_eq!(flows(&diff.flows.gone), [named("ssh", "192.0.2.2", 22, 1, 0)]);
        let changed =
            [named("wget", "192.0.2.4", 80, 1, 13), named("curl", "192.0.2.1", 443, 1, 1)];
        assert_eq!(flows(&diff.flows.changed), changed);
        assert_eq!((diff.flows.same, diff.flows.left_out), (1, 0));
        assert_eq!(diff.flows.changed[1].before.by_outcome[&Outcome::Established], 1);
        assert_eq!(diff.flows.changed[1].after.unsuccessful, 1);

        let processes = |list: &[netspy::query::diff::Difference]| {
            list.iter().map(|d| d.process.clone().unwrap()).collect::<Vec<_>>()
        };
        assert!(diff.processes.new.is_empty());
        assert_eq!(processes(&diff.processes.gone), ["ssh"]);
        assert_eq!(diff.remotes.new[0].remote, Some("192.0.2.3".parse().unwrap()));

        let one = source.diff(&asked, Compare::default(), Some(1)).await.unwrap();
        assert_eq!((one.flows.changed.len(), one.flows.changed_total), (1, 2));
        let named = Compare { since: Some(second(60)), until: Some(second(120)) };
        let same = source.diff(&asked, named, None).await.unwrap();
        assert_eq!((same.flows.new_total, same.flows.changed_total, same.flows.same), (0, 0, 4));
    })
    .await;
}

#[tokio::test]
async fn wrong_questions_are_refused_in_the_same_words() {
    everywhere(Vec::new(), async |source, _| {
        let mut errors = Vec::new();
        let cursor = Page { cursor: Some("garbage".to_owned()), ..Page::default() };
        errors.push(source.list(&Filter::default(), &cursor).await.unwrap_err());
        errors.push(source.series(&Filter::default(), Step::of_millis(1)).await.unwrap_err());
        let ahead = Filter { since: Some(Timestamp::MAX), ..Filter::default() };
        errors.push(source.diff(&ahead, Compare::default(), None).await.unwrap_err());
        let parameters: Vec<_> = errors
            .iter()
            .map(|error| match error {
                QueryError::Invalid { parameter, .. } => parameter.as_str(),
                other => panic!("{other}"),
            })
            .collect();
        assert_eq!(parameters, ["cursor", "step", "since"]);
    })
    .await;
}

#[tokio::test]
async fn an_empty_answer_names_the_newest_match_outside_its_window() {
    everywhere(varied(), async |source, _| {
        let later = [("process", "wget"), ("since", "2023-11-15T00:00:00Z")];
        let asked = filter(&later);
        let newest = Some(second(4));
        let count = source.count(&asked).await.unwrap();
        let top = source.top(&asked, TopBy::Remote, None).await.unwrap();
        let series = source.series(&asked, Step::default()).await.unwrap();
        let summary = source.summary(&asked).await.unwrap();
        assert_eq!(count.newest_outside_window, newest);
        assert_eq!(top.newest_outside_window, newest);
        assert_eq!(series.newest_outside_window, newest);
        assert_eq!(summary.newest_outside_window, newest);
    })
    .await;
}

#[tokio::test]
async fn followers_go_on_where_they_were_and_hear_of_what_is_gone() {
    everywhere(varied(), async |source, server| {
        let asked = filter(&[("process", "curl")]);
        let mut all = source.follow(&asked, Some(0)).await.unwrap();
        let mut seen = Vec::new();
        for _ in 0..4 {
            match all.next().await.unwrap().unwrap() {
                Follow::Change(change) => seen.push(change.seq),
                Follow::Skipped { changes } => panic!("{changes:?} skipped"),
            }
        }
        assert!(seen.is_sorted());
        let mut rest = source.follow(&asked, Some(seen[1])).await.unwrap();
        for expected in &seen[2..] {
            let Follow::Change(change) = rest.next().await.unwrap().unwrap() else { panic!() };
            assert_eq!(change.seq, *expected);
        }
        // A number of an earlier life of the server.
        let mut told = source.follow(&asked, Some(5)).await.unwrap();
        assert!(matches!(told.next().await.unwrap().unwrap(), Follow::Skipped { .. }));
        let next = server.store.latest();
        let mut live = source.follow(&asked, Some(next)).await.unwrap();
        let n = 10_000 + next % 1_000_000;
        server.store.apply(vec![refused(n, &info(7, "curl"))]);
        let Follow::Change(change) = live.next().await.unwrap().unwrap() else { panic!() };
        assert_eq!(change.connection.id, refused(n, &info(7, "curl")).id);
        // The others have seen it, too: the next source begins with the records of now.
        server.store.apply(vec![]);
    })
    .await;
}

#[tokio::test]
async fn drops_and_status_are_the_same_everywhere() {
    everywhere(Vec::new(), async |source, server| {
        server.store.apply_drops(vec![dropped(server.store.latest() % 1_000)]);
        let drops = source.drops(&DropFilter::default(), &Page::default()).await.unwrap();
        assert!(drops.total >= 1 && drops.packets == 3 * drops.total);
        let status = source.status().await.unwrap();
        assert_eq!((status.health.as_str(), status.backend.as_str()), ("healthy", "tracepoint"));
        assert!(status.features["connect"].ok && status.accounting.balances());
        assert!(!source.describe().is_empty());
    })
    .await;
}

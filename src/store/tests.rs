use std::collections::{BTreeMap, HashMap};

use super::*;
use crate::event::{NameSource, Outcome, Process, ProcessInfo, Protocol, Remote, State};
use crate::query::filter::parse_at;
use crate::query::top::TopBy;
use crate::query::{Filter, Follow, Page, Sort};
use crate::test_records::*;

fn store() -> Arc<Store> {
    Arc::new(Store::new(16 << 20))
}

fn everything() -> Selection {
    Selection::default()
}

fn page(limit: usize, sort: Sort, cursor: Option<String>) -> Page {
    Page { limit: Some(limit), cursor, sort }
}

/// All pages of a list, with what happens between them.
fn pages(store: &Store, limit: usize, sort: Sort, mut between: impl FnMut()) -> Vec<Connection> {
    let mut all = Vec::new();
    let mut cursor = None;
    loop {
        let selected = store.list(&everything(), &page(limit, sort, cursor)).unwrap();
        assert!(selected.connections.len() <= limit);
        all.extend(selected.connections);
        between();
        cursor = selected.next_cursor;
        if cursor.is_none() {
            return all;
        }
    }
}

#[test]
fn a_name_that_is_forgotten_by_the_end_stays_with_its_record() {
    let store = store();
    let mut named = in_progress(1, &info(7, "curl"));
    let remote = named.remote.as_mut().unwrap();
    (remote.name, remote.name_source) = (Some("a.example".into()), Some(NameSource::Dns));
    let mut ended = refused(1, &info(7, "curl"));
    ended.id = named.id;
    ended.remote.as_mut().unwrap().ip = remote.ip;
    assert_eq!(ended.remote.as_ref().unwrap().name, None);
    store.apply(vec![named.clone()]);
    store.apply(vec![ended]);
    let found = store.get(named.id).unwrap();
    assert_eq!(found.outcome, Outcome::Refused);
    assert_eq!(found.remote.unwrap().name.as_deref(), Some("a.example"));
}

#[test]
fn every_record_comes_out_as_it_went_in_and_versions_replace_each_other() {
    let store = store();
    let mut random = Random(1);
    let mut expected: HashMap<ConnectionId, Connection> = HashMap::new();
    for _ in 0..20_000 {
        let mut c = random.connection();
        let rank = |state| match state {
            State::Connecting => 0,
            State::Open | State::Listening => 1,
            _ => 2,
        };
        let known = expected.get(&c.id);
        let applied = store.apply(vec![c.clone()]);
        if let Some(known) = known {
            c.time = known.time;
            c.drop = c.drop.or_else(|| known.drop.clone());
            if let (Some(remote), Some(before)) = (&mut c.remote, &known.remote)
                && remote.ip == before.ip
            {
                if remote.name.is_none() && before.name.is_some() {
                    (remote.name, remote.name_source) = (before.name.clone(), before.name_source);
                }
                let named = |r: &Remote| (r.name.clone(), r.name_source);
                if named(remote) == named(before) {
                    remote.name_time = before.name_time.or(remote.name_time);
                }
                if remote.port == before.port {
                    c.remote_actual = c.remote_actual.or(known.remote_actual);
                }
            }
            if rank(c.state) < rank(known.state) || c == *known {
                assert_eq!(applied.unchanged, 1);
                continue;
            }
            assert_eq!(applied.updated, 1);
        } else {
            assert_eq!(applied.inserted, 1);
        }
        assert_eq!(store.get(c.id), Some(c.clone()));
        expected.insert(c.id, c);
    }
    for (id, c) in &expected {
        assert_eq!(store.get(*id).as_ref(), Some(c));
    }
    assert_eq!(store.status().records, expected.len() as u64);
}

#[test]
fn a_filter_means_the_same_on_rows_as_on_records() {
    let mut random = Random(2);
    // Small segments, so that what is worked out per segment differs.
    let store = Store::new(2 << 20);
    let mut all = HashMap::new();
    for _ in 0..2_000 {
        let c = random.connection();
        store.apply(vec![c.clone()]);
        all.insert(c.id, store.get(c.id).unwrap());
    }
    assert_eq!(store.status().evicted, 0);
    let parameters: [(&str, &[&str]); 20] = [
        ("process", &["curl", "a\\,b,docker"]),
        ("pid", &["1,2", "7"]),
        ("uid", &["0", "1,2"]),
        ("container", &["012345", "short,docker"]),
        ("pod", &["curl", "docker,x"]),
        ("namespace", &["docker,curl"]),
        ("remote", &["10.0.0.1,10.0.0.2", "0:0:0:3::1"]),
        ("cidr", &["10.0.0.0/30", "::/0"]),
        ("scope", &["private", "global,loopback"]),
        ("country", &["DE", "de,FR"]),
        ("asn", &["64500", "AS64500,7"]),
        ("host_name", &[".example.com", "curl"]),
        ("port", &["1", "2,3"]),
        ("protocol", &["tcp,udp", "unix"]),
        ("direction", &["inbound"]),
        ("state", &["open", "closed,connecting"]),
        ("outcome", &["unsuccessful", "established,in_progress"]),
        ("text", &["URL", "ümL,netfilter", "0.0.2", "::1", "fedc"]),
        ("since", &["2023-11-14T22:13:20Z", "2023-11-14T22:13:20.2Z"]),
        ("until", &["2023-11-14T22:13:20.3Z"]),
    ];
    for round in 0..400 {
        let mut pairs = Vec::new();
        for (name, values) in &parameters {
            if random.one_in(if round % 2 == 0 { 14 } else { 5 }) {
                pairs.push((*name, random.one(values)));
            }
        }
        let (filter, _) = parse_at(pairs.clone(), epoch()).unwrap();
        let selection = Selection {
            filter,
            command: random.one_in(4).then(|| "curl".to_owned()),
            attempts_only: random.one_in(4),
        };
        let mut expected: Vec<_> = all.values().filter(|c| selection.matches(c)).collect();
        expected.sort_by_key(|c| std::cmp::Reverse((row::nanos(c.time), c.id)));
        assert_eq!(store.count(&selection), expected.len() as u64, "{pairs:?}");
        let listed = store.list(&selection, &page(10_000, Sort::Newest, None)).unwrap();
        let ids = |list: Vec<&Connection>| list.iter().map(|c| c.id).collect::<Vec<_>>();
        assert_eq!(listed.total, expected.len() as u64);
        assert_eq!(ids(listed.connections.iter().collect()), ids(expected.clone()));
        let newest = expected.first().map(|c| row::wide(row::nanos(c.time)));
        assert_eq!(store.newest(&selection), newest);
        let totals = store.totals(&selection);
        let mut outcomes = BTreeMap::new();
        let mut processes = std::collections::HashSet::new();
        for c in &expected {
            *outcomes.entry(c.outcome).or_insert(0) += 1;
            processes.extend(c.process.as_ref().map(|p| (p.pid, p.start_time)));
        }
        assert_eq!((totals.total, totals.by_outcome), (listed.total, outcomes));
        assert_eq!(totals.processes, processes.len() as u64);
    }
}

#[test]
fn a_view_says_the_same_as_the_record() {
    let store = store();
    let mut random = Random(5);
    for _ in 0..2_000 {
        store.apply(vec![random.connection()]);
    }
    let mut seen = Vec::new();
    let mut views = 0;
    let everything = everything();
    store.for_each(&everything, Columns::ALL, &mut |view| {
        views += 1;
        let remote = (view.remote_ip(), view.remote_port(), view.remote_name().map(str::to_owned));
        let who = view.process().map(|who| {
            let container = who.container_id().map(str::to_owned);
            (who.pid(), who.start_time(), who.uid(), who.name().to_owned(), container)
        });
        let more = (view.latency_us(), view.errno(), view.evidence(), view.close());
        let dropped = view.dropped().map(|(reason, count)| (reason.to_owned(), count));
        seen.push((view.id(), view.outcome(), view.state(), remote, who, more, dropped));
    });
    for (id, outcome, state, remote, who, more, dropped) in seen {
        let c = store.get(id).unwrap();
        assert_eq!((outcome, state), (c.outcome, c.state));
        let address = c.remote.as_ref();
        let name = address.and_then(|r| r.name.as_deref().map(str::to_owned));
        assert_eq!(remote, (address.map(|r| r.ip), address.map(|r| r.port), name));
        let process = c.process.as_ref().map(|p| {
            let container = p.container.as_ref().map(|c| c.id.clone());
            (p.pid, p.start_time, p.uid, p.comm.to_string(), container)
        });
        assert_eq!(who, process);
        assert_eq!(more, (c.latency_us, c.errno, c.evidence, c.close));
        assert_eq!(dropped, c.drop.map(|drop| (drop.reason, drop.count)));
    }
    assert_eq!(views, store.status().records);
}

#[test]
fn pages_hold_every_record_once_while_new_ones_arrive() {
    let curl = info(7, "curl");
    for sort in [Sort::Newest, Sort::Oldest] {
        let store = store();
        store.apply((0..1_000).map(|n| refused(n, &curl)).collect());
        let mut next = 1_000;
        let all = pages(&store, 37, sort, || {
            if next < 1_200 {
                store.apply((next..next + 10).map(|n| refused(n, &curl)).collect());
                next += 10;
            }
        });
        let starts: Vec<_> = all.iter().map(|c| c.id.start_ns).collect();
        let mut sorted = starts.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), all.len(), "a record came twice");
        if sort == Sort::Newest {
            assert_eq!(all.len(), 1_000);
            sorted.reverse();
        }
        assert_eq!(starts, sorted);
    }
}

#[test]
fn a_later_version_keeps_the_time_of_the_first_and_a_repeated_one_changes_nothing() {
    let store = store();
    let curl = info(7, "curl");
    store.apply(vec![in_progress(1, &curl)]);
    let outcome = Connection { time: micros(99), ..established(1, &curl) };
    assert_eq!(store.apply(vec![outcome]).updated, 1);
    let end = Connection { time: micros(99), ..closed(1, &curl) };
    assert_eq!(store.apply(vec![end.clone()]).updated, 1);
    let seq = store.latest();
    assert_eq!(store.apply(vec![end, in_progress(1, &curl)]).unchanged, 2);
    assert_eq!(store.latest(), seq);
    let record = store.get(closed(1, &curl).id).unwrap();
    assert_eq!(record, closed(1, &curl));
    assert_eq!(store.status().records, 1);
}

#[test]
fn the_oldest_go_first_and_are_counted() {
    let store = Store::new(256 * 1024);
    let curl = info(7, "curl");
    for n in 0..20_000 {
        store.apply(vec![refused(n, &curl)]);
        let status = store.status();
        assert!(status.bytes <= 256 * 1024, "{status:?}");
    }
    let status = store.status();
    assert_eq!(status.records + status.evicted, 20_000);
    assert!(status.records > 1_000, "{status:?}");
    assert_eq!(store.get(refused(19_999, &curl).id), Some(refused(19_999, &curl)));
    assert_eq!(store.get(refused(0, &curl).id), None);
    assert_eq!(status.oldest, Some(micros(20_000 - status.records as i64)));
    let late = store.evicted_between(micros(19_000), micros(30_000));
    assert_eq!(late, 0);
    assert_eq!(store.evicted_between(micros(0), micros(30_000)), status.evicted);
}

#[test]
fn records_that_are_each_as_large_as_can_be_do_not_break_the_bound() {
    let store = Store::new(256 * 1024);
    for n in 0..200 {
        let mut big = (*info(n as u32, "big")).clone();
        big.cmdline = Some("x".repeat(40_000).into());
        store.apply(vec![refused(n, &Arc::new(big))]);
        assert!(store.status().bytes < 256 * 1024 + 50_000);
    }
    assert!(store.status().records >= 1);
}

#[test]
fn a_million_records_need_less_than_150_bytes_each() {
    let store = Store::new(1 << 30);
    let processes: Vec<_> = (0..100).map(|pid| info(pid, "curl")).collect();
    for n in 0..40_000 {
        let info = &processes[n as usize % 100];
        store.apply(vec![if n % 2 == 0 { refused(n, info) } else { closed(n, info) }]);
    }
    let per_record = store.status().bytes as f64 / 40_000.0;
    assert!(per_record < 150.0, "{per_record}");
}

#[tokio::test]
async fn a_follower_sees_each_change_once_and_resumes_where_it_was() {
    let store = store();
    let curl = info(7, "curl");
    let mut follower = Follower::new(store.clone(), everything(), None);
    store.apply(vec![in_progress(1, &curl), refused(2, &curl)]);
    store.apply(vec![refused(1, &curl)]);
    let changes = drain(&mut follower, 3).await;
    let outcomes: Vec<_> = changes.iter().map(|(_, c)| c.outcome).collect();
    assert_eq!(outcomes, [Outcome::InProgress, Outcome::Refused, Outcome::Refused]);
    let seqs: Vec<_> = changes.iter().map(|(seq, _)| *seq).collect();
    assert!(seqs.windows(2).all(|pair| pair[1] == pair[0] + 1));
    let mut resumed = Follower::new(store.clone(), everything(), Some(seqs[0]));
    assert_eq!(drain(&mut resumed, 2).await, changes[1..]);
    store.close();
    assert!(follower.next().await.is_none());
}

/// The next changes, which must not be told as skipped.
async fn drain(follower: &mut Follower, count: usize) -> Vec<(u64, Connection)> {
    let mut all = Vec::new();
    while all.len() < count {
        for follow in follower.next().await.unwrap() {
            match follow {
                Follow::Change(change) => all.push((change.seq, change.connection)),
                Follow::Skipped { changes } => panic!("{changes:?} changes were skipped"),
            }
        }
    }
    assert_eq!(all.len(), count);
    all
}

#[tokio::test]
async fn a_follower_that_is_far_behind_reads_the_rows_and_misses_no_record() {
    let store = store();
    let curl = info(7, "curl");
    let mut follower = Follower::new(store.clone(), everything(), None);
    let count = 30_000;
    assert!(count > LOG_CHANGES as u64 * 2);
    for n in 0..count {
        store.apply(vec![in_progress(n, &curl)]);
    }
    store.apply(vec![refused(5, &curl)]);
    let changes = drain(&mut follower, count as usize).await;
    let mut ids: Vec<_> = changes.iter().map(|(_, c)| c.id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), count as usize);
    assert!(changes.is_sorted_by_key(|(seq, _)| *seq));
    assert_eq!(changes.last().unwrap().1, refused(5, &curl));
}

#[tokio::test]
async fn a_follower_is_told_of_changes_that_the_store_no_longer_has() {
    let store = Arc::new(Store::new(256 * 1024));
    let curl = info(7, "curl");
    store.apply(vec![refused(0, &curl)]);
    let mut follower = Follower::new(store.clone(), everything(), Some(store.latest()));
    for n in 1..10_000 {
        store.apply(vec![refused(n, &curl)]);
    }
    let kept = store.status().records;
    let first = follower.next().await.unwrap();
    assert!(matches!(first[0], Follow::Skipped { changes: Some(n) } if n >= 9_999 - kept));
    // A number of another life of the server.
    for after in [1, u64::MAX] {
        let mut stranger = Follower::new(store.clone(), everything(), Some(after));
        let first = stranger.next().await.unwrap();
        assert!(matches!(first[0], Follow::Skipped { changes: None }));
    }
    let mut from_the_start = Follower::new(store.clone(), everything(), Some(0));
    assert_eq!(drain_some(&mut from_the_start).await, store_oldest(&store));
}

async fn drain_some(follower: &mut Follower) -> Connection {
    match follower.next().await.unwrap().swap_remove(0) {
        Follow::Change(change) => change.connection,
        Follow::Skipped { changes } => panic!("{changes:?} changes were skipped"),
    }
}

fn store_oldest(store: &Store) -> Connection {
    store.list(&everything(), &page(1, Sort::Oldest, None)).unwrap().connections.swap_remove(0)
}

#[tokio::test]
async fn a_follower_gets_what_its_filter_means_and_nothing_else() {
    let store = store();
    let curl = info(7, "curl");
    let filter = Filter { protocol: vec![Protocol::Udp], ..Filter::default() };
    let mut follower = Follower::new(store.clone(), filter.into(), None);
    store.apply((0..2_000).map(|n| refused(n, &curl)).collect());
    store.apply(vec![udp(3_000, &curl)]);
    let changes = drain(&mut follower, 1).await;
    assert_eq!(changes[0].1, udp(3_000, &curl));
}

#[test]
fn a_rare_match_far_behind_is_found_in_one_look_at_the_rows() {
    let store = store();
    let curl = info(7, "curl");
    let start = store.latest();
    let rare: Vec<_> = (0..20_000)
        .map(|n| if n % 1_000 == 0 { udp(n, &curl) } else { refused(n, &curl) })
        .collect();
    for batch in rare.chunks(100) {
        store.apply(batch.to_vec());
    }
    let filter = Filter { protocol: vec![Protocol::Udp], ..Filter::default() };
    let changes = store.changes(&filter.into(), start, start);
    assert!(changes.follow.len() >= 10, "{}", changes.follow.len());
    assert!(changes.up_to >= start + 10_000);
}

#[test]
fn questions_and_ingest_run_at_the_same_time() {
    let store = Arc::new(Store::new(2 << 20));
    let curl = info(7, "curl");
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while store.latest() == 0 || store.status().evicted < 20_000 {
                let all = store.list(&everything(), &Page::default()).unwrap();
                let ranks: Vec<_> = all.connections.iter().map(|c| (c.time, c.id)).collect();
                assert!(ranks.is_sorted_by(|a, b| a > b));
                store.totals(&everything());
            }
        });
        for n in 0..60_000 {
            store.apply(vec![in_progress(n, &curl)]);
            store.apply(vec![refused(n, &curl)]);
        }
        reader.join().unwrap();
    });
    let status = store.status();
    assert_eq!(status.records + status.evicted, 60_000);
}

#[test]
fn handshake_percentiles_are_of_established_tcp_alone() {
    let store = store();
    let curl = info(7, "curl");
    let mut batch: Vec<_> =
        (1..=100).map(|n| Connection { latency_us: Some(n), ..established(n, &curl) }).collect();
    batch.push(Connection { latency_us: Some(9_999), ..refused(200, &curl) });
    batch.push(Connection { latency_us: Some(9_999), ..udp(201, &curl) });
    store.apply(batch);
    let handshake = store.totals(&everything()).handshake.unwrap();
    assert_eq!((handshake.p50_us, handshake.p95_us, handshake.p99_us), (50, 95, 99));
    assert_eq!(handshake.count, 100);
}

#[test]
fn a_hundred_thousand_names_take_no_more_memory_than_there_is() {
    let limit = 24 << 20;
    let store = Store::new(limit);
    let template = refused(0, &info(1, "x"));
    for n in 0..100_000_u32 {
        let name = format!("p{n}");
        let process = ProcessInfo {
            cwd: Some(format!("/srv/{name}").into()),
            ancestry: vec![name.as_str().into(), "systemd".into()],
            ..(*info(n, &name)).clone()
        };
        let remote = Remote {
            name: Some(format!("{name}.example").into()),
            asn: Some(n),
            as_name: Some(name.as_str().into()),
            ..Remote::new(std::net::Ipv4Addr::from(0x0a00_0000 + n).into(), 443)
        };
        let thread = process.comm.clone();
        let process = Process { tid: n, thread, info: Arc::new(process) };
        let c = Connection { process: Some(process), remote: Some(remote), ..template.clone() };
        store.apply(vec![Connection { id: ConnectionId { start_ns: n.into(), ..c.id }, ..c }]);
    }
    let status = store.status();
    assert!(status.bytes <= limit, "{status:?}");
    assert!(status.evicted > 0 && status.records > 10_000, "{status:?}");
    for by in [TopBy::Process, TopBy::Pid, TopBy::Remote, TopBy::HostName, TopBy::Asn] {
        let top = store.top(&everything(), by, 5);
        assert_eq!((top.groups.len(), top.total), (5, status.records), "{by}");
    }
    // A closed list, whatever there is.
    let top = store.top(&everything(), TopBy::Scope, 5);
    assert_eq!((top.groups.len(), top.groups[0].count), (1, status.records));
}

//! What is fuzzed (fuzz/), and replayed from its corpus in the unit tests: each function takes any
//! bytes at all, and panics where a promise is broken.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, Uri};
use form_urlencoded::Serializer;
use jiff::Timestamp;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tower::ServiceExt;

use crate::accounting::Counters;
use crate::api::{Api, Transport};
use crate::capture::report::{AttachReport, Backend};
use crate::event::{Connection, DnsRecord, DropRecord};
use crate::query::{
    CaptureHandle, QueryError, Window, diff, dns, drops, filter, findings, series, top,
};
use crate::store::{DropSelection, HistoryOptions, LocalSource, Selection, Store};
use crate::test_records::*;

pub use crate::enrich::{conntrack_answer, dns_message};
pub use crate::store::journal_recovery;

type Pairs = Vec<(String, String)>;

/// A query string, after a byte that says of which question: parameters that are accepted say the
/// same once they are written out, memory and disk answer alike and as the records themselves do, and
/// REST says the same as the query layer, and is never at a loss.
pub fn query_parameters(data: &[u8]) {
    static WORLD: OnceLock<World> = OnceLock::new();
    let Some((question, query)) = data.split_first() else { return };
    let world = WORLD.get_or_init(World::new);
    let pairs: Pairs = form_urlencoded::parse(query).into_owned().collect();
    // Where what is right depends on the moment, either may be.
    let which = if *question == b'8' { 8 } else { question % 8 };
    let (path, accepted) = match which {
        0 => ("/api/v1/connections", Some(list(world, &pairs))),
        1 => ("/api/v1/summary", None),
        2 => ("/api/v1/top", Some(groups(world, &pairs))),
        3 => ("/api/v1/series", steps(world, &pairs)),
        4 => ("/api/v1/diff", differences(world, &pairs)),
        5 => ("/api/v1/drops", Some(dropped_packets(world, &pairs))),
        6 => ("/api/v1/findings", Some(stands_out(&pairs))),
        8 => ("/api/v1/dns", Some(questions(world, &pairs))),
        _ => ("/api/events", None),
    };
    if let Some(status) = world.ask(path, query) {
        let expected =
            accepted.map(|yes| if yes { StatusCode::OK } else { StatusCode::BAD_REQUEST });
        assert!(expected.is_none_or(|expected| status == expected), "{status}: {path} {pairs:?}");
    }
}

/// The parameters as the next program along the way reads them.
fn written(pairs: &[(&'static str, String)]) -> Pairs {
    let text = Serializer::new(String::new()).extend_pairs(pairs).finish();
    form_urlencoded::parse(text.as_bytes()).into_owned().collect()
}

fn list(world: &World, pairs: &Pairs) -> bool {
    let Ok((filter, page)) = filter::parse(pairs.clone()) else { return false };
    let again = [filter.to_pairs(), page.to_pairs()].concat();
    assert_eq!(filter::parse(written(&again)).unwrap(), (filter.clone(), page.clone()));
    let selection = Selection::from(filter);
    let meant = world.records.iter().filter(|c| selection.filter.matches(c)).count() as u64;
    let [memory, disk] = world.stores.each_ref().map(|store| {
        assert_eq!(store.count(&selection), meant, "{pairs:?}");
        assert_eq!(store.totals(&selection).total, meant, "{pairs:?}");
        store.list(&selection, &page)
    });
    match (memory, disk) {
        (Ok(memory), Ok(disk)) => {
            assert_eq!((memory.total, disk.total), (meant, meant), "{pairs:?}");
            assert_eq!(memory.connections, disk.connections, "{pairs:?}");
            assert_eq!(memory.next_cursor, disk.next_cursor, "{pairs:?}");
            true
        }
        (memory, disk) => {
            assert!(page.cursor.is_some() && memory.is_err() && disk.is_err(), "{pairs:?}");
            false
        }
    }
}

fn groups(world: &World, pairs: &Pairs) -> bool {
    let Ok((filter, by, limit)) = top::parse(pairs.clone()) else { return false };
    let again = top::to_pairs(&filter, by, limit);
    assert_eq!(top::parse(written(&again)).unwrap(), (filter.clone(), by, limit));
    let selection = Selection::from(filter);
    let limit = limit.unwrap_or(top::Top::DEFAULT_LIMIT);
    for store in &world.stores {
        let top = store.top(&selection, by, limit);
        let shown: u64 = top.groups.iter().map(|group| group.count).sum();
        assert_eq!(shown + top.others + top.without, top.total, "{pairs:?}");
        assert_eq!(top.total, store.count(&selection), "{pairs:?}");
        assert!(top.groups.len() <= limit, "{pairs:?}");
    }
    true
}

fn steps(world: &World, pairs: &Pairs) -> Option<bool> {
    let Ok((filter, step)) = series::parse(pairs.clone()) else { return Some(false) };
    let again = series::to_pairs(&filter, step);
    assert_eq!(series::parse(written(&again)).unwrap(), (filter.clone(), step));
    let since = filter.since.unwrap_or(Timestamp::UNIX_EPOCH);
    let until = filter.until.unwrap_or_else(Timestamp::now);
    let window = Window { since: since.min(until), until };
    let millis = step.millis_in(window).ok()?;
    let selection = Selection { attempts_only: true, ..Selection::from(filter) };
    for store in &world.stores {
        let points = store.series(&selection, window, millis);
        assert!(points.len() as u64 <= series::Series::MAX_STEPS, "{pairs:?}");
        assert!(points.is_sorted_by(|a, b| a.time < b.time), "{pairs:?}");
    }
    None
}

fn differences(world: &World, pairs: &Pairs) -> Option<bool> {
    // A window that lies ahead by a moment is one a moment later.
    let Ok((filter, compare, limit)) = diff::parse(pairs.clone()) else { return None };
    let again = diff::to_pairs(&filter, compare, limit);
    assert_eq!(diff::parse(written(&again)).unwrap(), (filter.clone(), compare, limit));
    let (before, after) = compare.windows(&filter, Timestamp::now()).unwrap();
    let selection = Selection::from(filter);
    let [memory, disk] =
        world.stores.each_ref().map(|store| store.diff(&selection, [before, after], 100));
    assert_eq!(memory, disk, "{pairs:?}");
    Some(true)
}

fn dropped_packets(world: &World, pairs: &Pairs) -> bool {
    let Ok((filter, page)) = drops::parse(pairs.clone()) else { return false };
    let again = [filter.to_pairs(), page.to_pairs()].concat();
    // The order is not asked for here, and there is but one.
    assert_eq!(drops::parse(written(&again)).unwrap(), (filter.clone(), page.clone()));
    let meant = world.drops.iter().filter(|drop| filter.matches(drop)).count() as u64;
    let selected = world.stores[0].drops(&DropSelection::from(filter), &page);
    has_total(selected.map(|selected| selected.total), meant, pairs)
}

/// Whether a list was to be had: it has so many records, or its cursor is of no use.
fn has_total(total: Result<u64, QueryError>, meant: u64, pairs: &Pairs) -> bool {
    match total {
        Ok(total) => {
            assert_eq!(total, meant, "{pairs:?}");
            true
        }
        Err(error) => {
            assert!(
                matches!(error, QueryError::Invalid { parameter, .. } if parameter == "cursor")
            );
            false
        }
    }
}

fn questions(world: &World, pairs: &Pairs) -> bool {
    let Ok((filter, page)) = dns::parse(pairs.clone()) else { return false };
    let again = [filter.to_pairs(), page.to_pairs()].concat();
    assert_eq!(dns::parse(written(&again)).unwrap(), (filter.clone(), page.clone()));
    let meant = world.asked.iter().filter(|record| filter.matches(record)).count() as u64;
    let selected = world.stores[0].dns(&filter, &page);
    has_total(selected.map(|selected| selected.total), meant, pairs)
}

fn stands_out(pairs: &Pairs) -> bool {
    let Ok((filter, limit)) = findings::parse(pairs.clone()) else { return false };
    let again = findings::to_pairs(&filter, limit);
    assert_eq!(findings::parse(written(&again)).unwrap(), (filter, limit));
    true
}

/// The same records in memory alone, and half on disk; and REST over them.
struct World {
    records: Vec<Connection>,
    drops: Vec<DropRecord>,
    asked: Vec<DnsRecord>,
    stores: [Arc<Store>; 2],
    router: Router,
    runtime: Runtime,
    _stop: watch::Sender<bool>,
}

/// Nothing is captured, and nothing is wrong with that.
struct NoCapture;

impl CaptureHandle for NoCapture {
    fn counters(&self) -> Counters {
        Counters::default()
    }
    fn drain(&self) {}
    fn since(&self) -> Timestamp {
        epoch()
    }
    fn report(&self) -> AttachReport {
        AttachReport { backend: Some(Backend::Fentry), ..AttachReport::replay("nowhere") }
    }
    fn stopped(&self) -> Option<String> {
        None
    }
}

/// Where the records of [`query_parameters`] lie, for as long as the process runs.
fn directory() -> std::path::PathBuf {
    std::env::temp_dir().join(format!("netspy-fuzz-queries-{}", std::process::id()))
}

impl World {
    fn new() -> Self {
        let mut random = Random(1);
        let wild = (0..150).map(|n| {
            let mut c = random.connection();
            c.id.start_ns = n;
            c
        });
        let (curl, nginx) = (info(7, "curl"), info(8, "nginx"));
        let plain = (0..50u64).flat_map(|n| {
            let n = n * 10;
            [
                refused(n, &curl),
                closed(n + 1, &nginx),
                udp(n + 2, &curl),
                listening(n + 3, &nginx),
                unix(n + 4, &curl, "/run/x.sock"),
                in_progress(n + 5, &nginx),
            ]
        });
        let records: Vec<_> = wild.chain(plain).collect();
        // A store shows each in its newest version, and there is but one of each.
        let ids: HashMap<_, _> = records.iter().map(|c| (c.id, c)).collect();
        assert_eq!(ids.len(), records.len());
        let drops: Vec<_> = (0..20).map(dropped).collect();
        let options =
            HistoryOptions { directory: directory(), limit_bytes: 1 << 30, max_age: None };
        let open = || Store::open(8 << 20, &options).unwrap();
        let (first, second) = records.split_at(records.len() / 2);
        open().apply(first.to_vec());
        // What was left becomes a segment by the end of the next one, at the latest.
        drop(open());
        let stores = [Arc::new(Store::new(8 << 20)), Arc::new(open())];
        stores[0].apply(records.clone());
        stores[0].apply_drops(drops.clone());
        let asked: Vec<_> = (0..20).map(asked).collect();
        stores[0].apply_dns(asked.clone());
        stores[1].apply(second.to_vec());
        let (stop, stopping) = watch::channel(false);
        let source = LocalSource::new(Arc::clone(&stores[0]), Arc::new(NoCapture));
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        // It has tasks of its own.
        let within = runtime.enter();
        let router = Api::new(source, stopping).router(Transport::Unix);
        drop(within);
        World { records, drops, asked, stores, router, runtime, _stop: stop }
    }

    /// Asks over REST; `None` where the bytes are no part of an address.
    fn ask(&self, path: &str, query: &[u8]) -> Option<StatusCode> {
        if query.contains(&b'#') {
            return None;
        }
        let target = [path.as_bytes(), b"?", query].concat();
        let uri = Uri::try_from(target.as_slice()).ok()?;
        let request = Request::builder().uri(uri).header("Host", "localhost").body(Body::empty());
        self.runtime.block_on(async {
            let answer = self.router.clone().oneshot(request.unwrap()).await.unwrap();
            let status = answer.status();
            assert!(matches!(status.as_u16(), 200 | 400), "{status}: {path} {query:?}");
            let body = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
            serde_json::from_slice::<serde_json::Value>(&body).unwrap();
            Some(status)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// Has a target look at each file of its corpus; how many there are.
    fn replay(target: &str, run: fn(&[u8])) -> usize {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        let files = fs::read_dir(&corpus).unwrap_or_else(|e| panic!("{}: {e}", corpus.display()));
        let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        files.sort();
        for file in &files {
            // Told before, so that the log names the one that panics.
            println!("{}", file.display());
            run(&fs::read(file).unwrap());
        }
        files.len()
    }

    #[test]
    fn queries_of_the_corpus_are_answered_alike_everywhere() {
        let replayed = replay("query_parameters", query_parameters);
        let _ = fs::remove_dir_all(directory());
        assert!(replayed >= 20, "{replayed}");
    }

    #[test]
    fn messages_of_the_corpus_name_what_is_text() {
        let replayed = replay("dns_message", dns_message);
        assert!(replayed >= 12, "{replayed}");
    }

    /// Where no fuzzer can be had: shows it each file of the corpus with changes, so many times.
    /// `likely` are bytes that mean something there.
    fn change(target: &str, rounds: usize, likely: &[u8], run: fn(&[u8])) {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        let files = fs::read_dir(&corpus).unwrap().map(|file| fs::read(file.unwrap().path()));
        let mut files: Vec<_> = files.map(Result::unwrap).collect();
        // Directories have no order, and a seed is to mean the same everywhere.
        files.sort();
        let mut random = Random(7);
        for round in 0..rounds * files.len() {
            let mut bytes = files[round % files.len()].clone();
            for _ in 0..=random.next(4) {
                let len = bytes.len() as u64;
                let at = random.next(len + 1) as usize;
                match random.next(4) {
                    0 if at < bytes.len() => bytes[at] = random.next(256) as u8,
                    1 if at < bytes.len() => {
                        bytes[at] = likely[random.next(likely.len() as u64) as usize];
                    }
                    2 => bytes.truncate(at),
                    _ => bytes.insert(at, random.next(256) as u8),
                }
            }
            run(&bytes);
        }
    }

    /// How often each file is changed: 500 times unless the environment says otherwise.
    fn rounds(variable: &str) -> usize {
        std::env::var(variable).ok().map_or(500, |rounds| rounds.parse().unwrap())
    }

    #[test]
    fn changed_messages_name_what_is_text() {
        // What begins a pointer, the longest label, the end of a name.
        let likely = [0xc0, 0xc1, 63, 0, 255];
        change("dns_message", rounds("NETSPY_DNS_MUTATIONS"), &likely, dns_message);
    }

    #[test]
    fn answers_of_the_corpus_are_those_to_one_question() {
        let replayed = replay("conntrack_answer", conntrack_answer);
        assert!(replayed >= 10, "{replayed}");
    }

    #[test]
    fn changed_answers_are_those_to_no_other_question() {
        // Lengths and kinds of attributes; what is nested.
        let likely = [0, 1, 2, 3, 4, 5, 8, 20, 28, 52, 0x80, 255];
        change("conntrack_answer", rounds("NETSPY_NAT_MUTATIONS"), &likely, conntrack_answer);
    }

    #[test]
    fn files_of_the_corpus_are_recovered_or_set_aside() {
        let replayed = replay("journal_recovery", journal_recovery);
        assert!(replayed >= 20, "{replayed}");
    }
}

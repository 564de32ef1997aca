use std::io::BufReader;

use super::*;
use crate::accounting::{Counters, Lost};
use crate::event::Connection;
use crate::query::CaptureHandle;
use crate::store::Store;
use crate::test_records::*;

fn books() -> Accounting {
    let lost = Lost { ring_full: 3, ..Lost::default() };
    let counters =
        Counters { attempts: 20, delivered: 10, filtered: 5, lost, ..Counters::default() };
    Accounting::between(&Counters::default(), &counters, epoch(), micros(1_000_000))
}

fn recorded(connections: &[Connection]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut writer = Writer::new(&mut file, &Header::new("web-1", epoch())).unwrap();
    for batch in connections.chunks(3) {
        writer.write(batch).unwrap();
    }
    writer.finish(&books()).unwrap();
    file
}

fn some(count: u64) -> Vec<Connection> {
    let mut random = Random(5);
    (0..count).map(|_| random.connection()).collect()
}

#[test]
fn any_record_comes_back_from_a_recording_as_it_was() {
    let connections = some(500);
    let file = recorded(&connections);
    let mut reader = Reader::new(&file[..]).unwrap();
    assert_eq!(reader.header(), &Header::new("web-1", epoch()));
    let read: Vec<_> = reader.by_ref().map(Result::unwrap).collect();
    assert_eq!(read, connections);
    assert_eq!(reader.accounting(), Some(&books()));
}

#[test]
fn a_recording_that_is_cut_anywhere_yields_every_whole_line_before_the_cut() {
    let connections = some(6);
    let file = recorded(&connections);
    let header = file.iter().position(|b| *b == b'\n').unwrap();
    for cut in header..file.len() {
        let mut reader = Reader::new(&file[..cut]).unwrap();
        let items: Vec<_> = reader.by_ref().collect();
        let whole = file[..cut].iter().filter(|b| **b == b'\n').count();
        let good = items.iter().filter(|item| item.is_ok()).count();
        assert!(good >= whole.saturating_sub(1).min(6), "cut at {cut}");
        let bad: Vec<_> = items.iter().filter_map(|item| item.as_ref().err()).collect();
        for error in &bad {
            assert!(matches!(error, RecordError::Torn { line } if *line as usize == whole + 1));
        }
        assert!(bad.len() <= 1);
    }
}

#[test]
fn a_bad_line_is_named_and_the_rest_is_read() {
    let connections = some(2);
    let good: Vec<_> = connections.iter().map(|c| serde_json::to_string(c).unwrap()).collect();
    let header = serde_json::to_string(&Header::new("h", epoch())).unwrap();
    let long = "x".repeat(MAX_LINE + 10);
    let file = [&header, &good[0], "{\"id\":1}", "\u{0}", &long, "", &good[1], ""].join("\n");
    let mut lines = Vec::new();
    let mut read = Vec::new();
    for item in Reader::new(file.as_bytes()).unwrap() {
        match item {
            Ok(connection) => read.push(connection),
            Err(RecordError::BadLine { line, why }) => {
                assert!(!why.is_empty() && why.len() < 300);
                lines.push(line);
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((lines, read), (vec![3, 4, 5], connections));
}

#[test]
fn what_is_no_recording_is_told_apart() {
    let open = |bytes: &[u8]| Reader::new(BufReader::new(bytes)).unwrap_err();
    assert!(matches!(open(b""), RecordError::Empty));
    for file in [&b"hello\n"[..], b"{}\n", b"\x7fELF\x02\x01", b"\n", b"{\"netspy_recording\":1}\n"]
    {
        assert!(matches!(open(file), RecordError::NotARecording { .. }));
    }
    assert!(matches!(open(&[b'x'; MAX_LINE * 2]), RecordError::NotARecording { .. }));
    let later = b"{\"netspy_recording\":2,\"hosts\":[]}\n";
    assert!(matches!(open(later), RecordError::Version { found: 2 }));
    let missing = std::path::Path::new("/nonexistent/recording");
    assert!(matches!(Reader::open(missing), Err(RecordError::Open { .. })));
    assert!(matches!(Reader::open("/tmp".as_ref()), Err(RecordError::Open { .. })));
}

#[test]
fn a_recording_is_not_written_over_and_is_readable_by_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = std::env::temp_dir().join(format!("netspy-record-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("one.jsonl");
    let header = Header::new("h", epoch());
    Writer::create(&path, &header).unwrap().finish(&books()).unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let error = Writer::create(&path, &header).unwrap_err();
    assert!(matches!(error, RecordError::Create { .. }));
    let text = error.to_string();
    assert!(text.contains("one.jsonl") && text.contains("name another file"), "{text}");
    let empty = dir.join("empty.jsonl");
    std::fs::write(&empty, "").unwrap();
    let text = Reader::open(&empty).unwrap_err().to_string();
    assert!(text.contains("empty.jsonl: the file is empty"), "{text}");
    assert_eq!(Reader::open(&path).unwrap().count(), 0);
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn the_books_of_a_replay_balance_with_a_footer_and_without() {
    let curl = info(7, "curl");
    let connections: Vec<_> =
        (0..10).flat_map(|n| [in_progress(n, &curl), refused(n, &curl)]).collect();
    let file = recorded(&connections);
    let torn = &file[..file.len() - 20];
    for (bytes, finished, attempts) in [(&file[..], true, 18), (torn, false, 10)] {
        let mut reader = Reader::new(bytes).unwrap();
        let capture = ReplayCapture::new(reader.header(), "a.jsonl");
        let store = Store::new(1 << 20);
        let replayed = replay(&mut reader, &store, &capture);
        assert_eq!((replayed.records, replayed.finished), (20, finished));
        assert_eq!(replayed.errors.len(), usize::from(!finished));
        let counters = capture.counters();
        assert_eq!((counters.attempts, counters.delivered, counters.pending()), (attempts, 10, 0));
        assert_eq!(store.status().records, 10);
    }
}

/// The books of a list over this window, from a replay of these bytes.
fn replayed_books(bytes: &[u8], since: Option<i64>, until: Option<i64>) -> Accounting {
    use crate::query::{Filter, Page, Source};
    let mut reader = Reader::new(bytes).unwrap();
    let capture = ReplayCapture::new(reader.header(), "a.jsonl");
    let store = std::sync::Arc::new(Store::new(1 << 20));
    replay(&mut reader, &store, &capture);
    let source = crate::store::LocalSource::new(store, std::sync::Arc::new(capture));
    let filter = Filter { since: since.map(micros), until: until.map(micros), ..Filter::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(source.list(&filter, &Page::default())).unwrap().accounting
}

#[test]
fn what_a_recording_does_not_cover_is_a_gap() {
    let curl = info(7, "curl");
    let mut file = Vec::new();
    let mut writer = Writer::new(&mut file, &Header::new("web-1", epoch())).unwrap();
    writer.write(&[refused(10, &curl), refused(20, &curl)]).unwrap();
    let counters = Counters { attempts: 2, delivered: 2, ..Counters::default() };
    let whole = Accounting::between(&Counters::default(), &counters, epoch(), micros(1_000));
    writer.finish(&whole).unwrap();
    let footer = file[..file.len() - 1].iter().rposition(|b| *b == b'\n').unwrap() + 1;
    let mut bad = file.clone();
    bad.splice(footer..footer, *b"{\"id\":1}\n");
    let gaps = |bytes: &[u8], since, until| {
        let books = replayed_books(bytes, since, until);
        assert!(books.balances());
        assert_eq!(books.complete, books.gaps.is_empty());
        books.gaps.into_iter().map(|gap| (gap.since, gap.why)).collect::<Vec<_>>()
    };
    assert_eq!(gaps(&file, None, None), []);
    assert_eq!(gaps(&file, Some(0), Some(1_000)), []);
    assert_eq!(gaps(&file, Some(-5), None)[0], (micros(-5), "before the recording began".into()));
    let after = "after the recording ended".to_owned();
    assert_eq!(gaps(&file, None, Some(2_000)), [(micros(1_000), after.clone())]);
    assert_eq!(gaps(&file, Some(3_000), None), [(micros(3_000), after)]);
    let torn = "the recording ends in the middle of a line".to_owned();
    assert_eq!(gaps(&file[..footer + 5], None, None), [(micros(20), torn)]);
    assert_eq!(gaps(&file[..footer + 5], None, Some(15)), []);
    assert_eq!(gaps(&file[..footer], None, None)[0].1, "the recording was not finished");
    let books = replayed_books(&bad, None, None);
    assert_eq!((books.lost.undecodable, books.complete, books.balances()), (1, false, true));
}

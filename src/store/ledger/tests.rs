use super::past::Run;
use super::*;
use crate::accounting::Lost;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).unwrap()
}

fn figures(attempts: u64, lost: u64) -> Counters {
    let lost = Lost { ring_full: lost, ..Lost::default() };
    Counters { attempts, delivered: attempts - lost.ring_full, lost, ..Counters::default() }
}

#[test]
fn a_window_has_the_figures_of_its_own_time() {
    let mut ledger = Ledger::new(at(0));
    for second in 1..=100 {
        let n = second as u64 * 10;
        ledger.note(at(second), figures(n, if second >= 50 { 5 } else { 0 }));
    }
    let now = figures(1000, 5);
    let all = ledger.books(None, None, at(100), &now);
    assert_eq!((all.attempts, all.lost.ring_full, all.complete), (1000, 5, false));
    let late = ledger.books(Some(at(60)), None, at(100), &now);
    assert_eq!((late.attempts, late.lost.ring_full, late.complete), (400, 0, true));
    let early = ledger.books(Some(at(10)), Some(at(40)), at(100), &now);
    assert_eq!((early.attempts, early.complete), (300, true));
    for books in [all, late, early] {
        assert!(books.balances());
    }
}

#[test]
fn a_loss_at_the_edge_of_a_window_is_counted_rather_than_hidden() {
    let mut ledger = Ledger::new(at(0));
    ledger.note(at(1), figures(10, 0));
    ledger.note(at(2), figures(20, 1));
    let half = at(1).checked_add(SignedDuration::from_millis(500)).unwrap();
    assert!(!ledger.books(None, Some(half), at(3), &figures(20, 1)).complete);
    assert!(!ledger.books(Some(half), None, at(3), &figures(20, 1)).complete);
}

#[test]
fn a_window_is_clipped_to_the_time_of_capture() {
    let ledger = Ledger::new(at(100));
    let books = ledger.books(Some(at(0)), None, at(150), &figures(3, 0));
    assert_eq!((books.since, books.until, books.attempts), (at(100), at(150), 3));
    let gap = |until| Gap { since: at(0), until, why: BEFORE_CAPTURE.to_owned() };
    assert_eq!((books.gaps, books.complete), (vec![gap(at(100))], false));
    for since in [None, Some(at(100)), Some(at(120))] {
        let books = ledger.books(since, None, at(150), &figures(3, 0));
        assert_eq!((books.gaps, books.complete), (vec![], true), "{since:?}");
    }
    let before = ledger.books(Some(at(0)), Some(at(50)), at(150), &figures(3, 0));
    assert_eq!((before.attempts, before.complete), (0, false));
    assert_eq!(before.gaps, [gap(at(50))]);
}

#[test]
fn what_comes_after_a_stop_is_a_gap() {
    let mut ledger = Ledger::new(at(0));
    ledger.note_stop(at(10), "detached");
    ledger.note_stop(at(20), "other");
    let books = ledger.books(None, None, at(30), &figures(1, 0));
    let gap = Gap { since: at(10), until: at(30), why: "detached".to_owned() };
    assert_eq!((books.gaps, books.complete), (vec![gap], false));
    assert!(ledger.books(None, Some(at(9)), at(30), &figures(1, 0)).gaps.is_empty());
}

#[test]
fn the_books_stay_bounded_over_weeks_and_remember_the_start() {
    let mut ledger = Ledger::new(at(0));
    let seconds = 3_600 * 24 * 9;
    for second in 1..=seconds {
        ledger.note(at(second), figures(second as u64, 0));
    }
    assert!(ledger.fine.len() <= FINE && ledger.coarse.len() <= COARSE);
    let now = figures(seconds as u64, 0);
    assert_eq!(ledger.books(None, None, at(seconds), &now).attempts, seconds as u64);
    let day = ledger.books(Some(at(seconds - 86_400)), None, at(seconds), &now);
    assert!((86_400..=86_460).contains(&day.attempts));
}

fn run(start: i64, samples: &[(i64, u64, u64)], why: &str) -> Run {
    let sample = |&(second, attempts, lost): &(i64, u64, u64)| {
        Sample::new(at(second), figures(attempts, lost))
    };
    let samples = [Sample::zero(at(start))].into_iter().chain(samples.iter().map(sample)).collect();
    Run { samples, why: Some(why.to_owned()), ..Run::new(at(start), false) }
}

fn after_two_runs() -> Ledger {
    let runs =
        vec![run(0, &[(10, 100, 0), (20, 200, 5)], "killed"), run(30, &[(40, 50, 0)], "stopped")];
    Ledger::after(Arc::new(Past { runs, damage: Vec::new() }), at(60))
}

fn gap(since: i64, until: i64, why: &str) -> Gap {
    Gap { since: at(since), until: at(until), why: why.to_owned() }
}

#[test]
fn a_window_of_earlier_captures_has_their_figures_and_what_lies_between_them_as_gaps() {
    let ledger = after_two_runs();
    let now = figures(7, 0);
    let all = ledger.books(Some(at(0)), None, at(70), &now);
    assert_eq!((all.attempts, all.lost.ring_full, all.balances()), (257, 5, true));
    assert_eq!(all.gaps, [gap(20, 30, "killed"), gap(40, 60, "stopped")]);
    assert!(!all.complete);
    // Each alone.
    let first = ledger.books(Some(at(0)), Some(at(10)), at(70), &now);
    assert_eq!((first.attempts, first.complete), (100, true));
    let lossy = ledger.books(Some(at(11)), Some(at(19)), at(70), &now);
    assert_eq!((lossy.lost.ring_full, lossy.complete), (5, false));
    let second = ledger.books(Some(at(32)), Some(at(39)), at(70), &now);
    assert_eq!((second.attempts, second.complete), (50, true));
    let nobody = ledger.books(Some(at(22)), Some(at(25)), at(70), &now);
    assert_eq!((nobody.attempts, nobody.gaps), (0, vec![gap(22, 25, "killed")]));
    let own = ledger.books(Some(at(60)), None, at(70), &now);
    assert_eq!((own.attempts, own.complete), (7, true));
    assert_eq!(ledger.books(None, None, at(70), &now), own);
    let earlier = ledger.books(Some(at(-5)), Some(at(5)), at(70), &now);
    assert_eq!(earlier.gaps, [gap(-5, 0, BEFORE_CAPTURE)]);
}

#[test]
fn what_was_pending_when_a_capture_ended_is_lost() {
    let mut counters = figures(10, 0);
    counters.delivered = 8;
    let sample = Sample::new(at(5), counters);
    let runs = vec![Run {
        samples: vec![sample],
        why: Some("killed".to_owned()),
        ..Run::new(at(0), false)
    }];
    let ledger = Ledger::after(Arc::new(Past { runs, damage: Vec::new() }), at(9));
    let books = ledger.books(Some(at(0)), None, at(10), &Counters::default());
    assert_eq!((books.pending, books.lost.capture_ended, books.balances()), (0, 2, true));
    assert!(!books.complete);
}

#[test]
fn damage_is_a_gap_of_the_windows_that_it_touches() {
    let damage = vec![gap(5, 8, "set aside")];
    let runs = vec![run(0, &[(20, 10, 0)], "stopped")];
    let ledger = Ledger::after(Arc::new(Past { runs, damage }), at(30));
    let now = Counters::default();
    let touched = ledger.books(Some(at(1)), Some(at(6)), at(40), &now);
    assert_eq!((touched.gaps, touched.complete), (vec![gap(5, 6, "set aside")], false));
    assert!(ledger.books(Some(at(9)), Some(at(20)), at(40), &now).complete);
}

#[test]
fn very_many_gaps_are_told_in_few() {
    let runs = (0..1_000).map(|n| run(n * 10, &[(n * 10 + 5, 1, 0)], "killed")).collect();
    let ledger = Ledger::after(Arc::new(Past { runs, damage: Vec::new() }), at(10_000));
    let books = ledger.books(Some(at(0)), None, at(10_001), &Counters::default());
    assert_eq!((books.attempts, books.gaps.len(), books.complete), (1_000, GAPS, false));
    let last = books.gaps.last().unwrap();
    assert_eq!(last.until, at(10_000));
    assert!(last.why.starts_with("901 gaps"), "{last:?}");
}

#[test]
fn a_clock_that_was_set_back_between_captures_counts_nothing_twice() {
    let runs = vec![run(0, &[(100, 10, 0)], "killed")];
    let ledger = Ledger::after(Arc::new(Past { runs, damage: Vec::new() }), at(50));
    let books = ledger.books(Some(at(50)), None, at(60), &figures(3, 0));
    assert_eq!((books.attempts, books.balances()), (3 + 10, true));
}

#[test]
fn a_stop_in_which_the_clock_was_set_back_is_named_where_the_next_capture_begins() {
    let runs = vec![run(3_600, &[(3_700, 10, 1)], "stopped")];
    let ledger = Ledger::after(Arc::new(Past { runs, damage: Vec::new() }), at(100));
    let now = figures(3, 0);
    let all = ledger.books_of_all(at(100), None, at(160), &now);
    let back = gap(100, 100, "stopped, and the clock set back meanwhile, by 3600 s or more");
    assert_eq!((&all.gaps, all.complete), (&vec![back.clone()], false));
    // Who names no end is shown what is of a time to come, too.
    assert_eq!((all.attempts, all.lost.ring_full, all.balances()), (13, 1, true));
    assert_eq!(ledger.books(Some(at(99)), None, at(160), &now).gaps.last(), Some(&back));
    for (since, until) in [(100, 150), (120, 150)] {
        let later = ledger.books(Some(at(since)), Some(at(until)), at(160), &now);
        assert_eq!((later.gaps, later.complete), (vec![], true), "{since}");
    }
    let own = ledger.books_of_capture(at(160), &now);
    assert_eq!((own.attempts, own.gaps, own.complete), (3, vec![], true));
}

#[test]
fn captures_keep_their_times_where_the_clock_was_set_back_between_them() {
    let runs = vec![run(3_600, &[(3_700, 10, 0)], "stopped"), run(100, &[(200, 20, 0)], "killed")];
    let past = Past { runs, damage: Vec::new() };
    let ledger = Ledger::after(Arc::new(past), at(260));
    let now = figures(3, 0);
    let all = ledger.books_of_all(at(100), None, at(300), &now);
    let whys: Vec<_> = all.gaps.iter().map(|gap| (gap.since, gap.until)).collect();
    assert_eq!(whys, [(at(100), at(100)), (at(200), at(260))]);
    assert_eq!((all.attempts, all.balances()), (33, true));
    let second = ledger.books(Some(at(110)), Some(at(190)), at(300), &now);
    assert_eq!((second.attempts, second.complete), (20, true));
}

#[test]
fn what_captures_had_not_shown_at_their_ends_is_counted() {
    let mut killed = run(0, &[(100, 60, 3)], "killed");
    killed.samples.last_mut().unwrap().counters.delivered -= 2;
    let past = Past { runs: vec![run(0, &[(5, 9, 1)], "stopped"), killed], ..Past::default() };
    assert_eq!(past.lost_at_ends(), 2);
}

#[test]
fn a_capture_whose_whole_time_the_clock_was_behind_is_in_the_sums() {
    // As it is read: none begins before the one before it has ended.
    let behind = run(100, &[(100, 60, 0)], "stopped");
    let runs = vec![run(0, &[(100, 10, 0)], "stopped"), behind];
    let ledger = Ledger::after(Arc::new(Past { runs, damage: Vec::new() }), at(150));
    let books = ledger.books(Some(at(0)), None, at(160), &figures(3, 0));
    assert_eq!((books.attempts, books.balances()), (10 + 60 + 3, true));
}

#[test]
fn a_clock_that_is_set_back_does_not_break_the_books() {
    let mut ledger = Ledger::new(at(0));
    ledger.note(at(100), figures(10, 0));
    ledger.note(at(50), figures(20, 0));
    let books = ledger.books(None, None, at(50), &figures(20, 0));
    assert_eq!((books.attempts, books.balances()), (20, true));
}

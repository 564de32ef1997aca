use super::*;
use crate::test_records::{established, in_progress, info, refused};

/// Where it goes.
const ACTUAL: Endpoint =
    Endpoint { ip: std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 42, 0, 7)), port: 8443 };

/// What waits for answers, with the thread's ends of both queues.
struct Scripted {
    nat: Nat,
    asker: Asker,
}

impl Scripted {
    fn new() -> Self {
        let mut nat = Nat::new(Arc::new(NatDesk::new(true, false)));
        let asker = nat.asker.take().unwrap();
        Scripted { nat, asker }
    }

    /// As where connections are tracked.
    fn note(&mut self, mut connection: Connection) -> Connection {
        self.nat.is_of_use = Some(true);
        self.nat.note(&mut connection);
        connection
    }

    /// What is asked.
    fn asked(&self) -> Vec<ConnectionId> {
        self.asker.questions.try_iter().map(|question| question.id).collect()
    }

    fn answer(&mut self, id: ConnectionId, actual: Option<Endpoint>) -> Vec<Connection> {
        self.asker.tell.send((id, actual)).unwrap();
        self.nat.updates()
    }
}

#[test]
fn a_record_comes_again_where_it_goes_elsewhere_and_later_versions_say_so_at_once() {
    let (mut s, curl) = (Scripted::new(), info(1, "curl"));
    let first = s.note(established(1, &curl));
    assert_eq!((first.remote_actual, s.asked()), (None, vec![first.id]));
    // The version that comes meanwhile is the one to be told again.
    let newest = s.note(Connection { latency_us: Some(7), ..established(1, &curl) });
    assert_eq!(s.asked(), []);
    let updates = s.answer(first.id, Some(ACTUAL));
    assert_eq!(updates, [Connection { remote_actual: Some(ACTUAL), ..newest }]);
    let closed = s.note(crate::test_records::closed(1, &curl));
    assert_eq!((closed.remote_actual, s.asked()), (Some(ACTUAL), vec![]));
    assert_eq!(s.nat.updates(), []);
}

#[test]
fn what_goes_where_it_seems_to_is_asked_about_once_with_its_outcome() {
    let (mut s, curl) = (Scripted::new(), info(1, "curl"));
    let waiting = s.note(in_progress(1, &curl));
    assert_eq!(s.asked(), [waiting.id]);
    assert_eq!(s.answer(waiting.id, None), []);
    // Its packets may not have been tracked then.
    s.note(in_progress(1, &curl));
    assert_eq!(s.asked(), []);
    s.note(refused(1, &curl));
    assert_eq!(s.asked(), [waiting.id]);
    assert_eq!(s.answer(waiting.id, None), []);
    s.note(refused(1, &curl));
    assert_eq!(s.asked(), []);
}

#[test]
fn nobody_asks_about_what_is_not_translated() {
    let (mut s, curl) = (Scripted::new(), info(1, "curl"));
    let local = |ip: [u8; 4], port| Some(Endpoint { ip: ip.into(), port });
    let to = |ip: [u8; 4]| Some(crate::event::Remote::new(ip.into(), 53));
    for other in [
        Connection { direction: Direction::Inbound, ..established(1, &curl) },
        Connection { protocol: Protocol::Icmp, ..established(1, &curl) },
        Connection { protocol: Protocol::Unix, remote: None, ..established(1, &curl) },
        Connection { local: None, ..established(1, &curl) },
        Connection { local: local([0; 4], 40_000), ..established(1, &curl) },
        Connection { local: local([192, 0, 2, 1], 0), ..established(1, &curl) },
        Connection { remote: to([224, 0, 0, 251]), ..established(1, &curl) },
        Connection { outcome: Outcome::Associated, ..established(1, &curl) },
    ] {
        s.note(other.clone());
        assert_eq!(s.asked(), [], "{other:?}");
    }
    // Nor where nothing is tracked.
    s.nat.is_of_use = Some(false);
    s.nat.note(&mut established(1, &curl));
    assert_eq!(s.asked(), []);
}

#[test]
fn what_does_not_fit_the_queue_is_counted_and_asked_about_with_its_next_version() {
    let (mut s, curl) = (Scripted::new(), info(1, "curl"));
    for n in 0..QUESTIONS as u64 + 3 {
        s.note(established(n, &curl));
    }
    assert_eq!(s.nat.desk.counters().skipped, 3);
    assert_eq!(s.asked().len(), QUESTIONS);
    let last = s.note(crate::test_records::closed(QUESTIONS as u64 + 2, &curl));
    assert_eq!(s.asked(), [last.id]);
}

#[test]
fn what_is_known_is_bounded_and_what_was_lost_does_not_come_again() {
    let (mut s, curl) = (Scripted::new(), info(1, "curl"));
    for n in 0..3 * GENERATION as u64 {
        let c = s.note(established(n, &curl));
        assert_eq!(s.asked(), [c.id]);
        assert_eq!(s.answer(c.id, None), []);
    }
    assert!(s.nat.young.len() <= GENERATION && s.nat.old.len() <= GENERATION);
    let lost = s.note(established(1 << 40, &curl));
    s.nat.forget(std::slice::from_ref(&lost));
    assert_eq!(s.answer(lost.id, Some(ACTUAL)), []);
}

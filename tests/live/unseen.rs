//! Changes of state that no program has seen, as where the kernel has programs off in the context of
//! some task: the entry of a socket is put back to what it was before, and a sweep finds out.

use std::net::{SocketAddr, TcpListener, TcpStream};

use libbpf_rs::{MapCore, MapFlags, MapHandle};
use netspy::event::{Connection, Evidence, Outcome, State};

use crate::harness::{Watch, goes_to, local_of, shared};
use crate::kernel;

// Places in struct netspy_conn, and of enum netspy_phase (connect.h).
const PHASE: usize = 6;
const EVIDENCE: usize = 7;
const LOCAL_PORT: usize = 118;
const PENDING: u8 = 0;

/// A connection, and the table that holds its entry.
struct Held {
    client: TcpStream,
    server: TcpStream,
    remote: SocketAddr,
    table: MapHandle,
    key: Vec<u8>,
}

impl Held {
    fn new(watch: &Watch) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let remote = listener.local_addr().unwrap();
        let client = TcpStream::connect(remote).unwrap();
        let (server, _) = listener.accept().unwrap();
        let port = local_of(&watch.outcome(remote)).port();
        let table = kernel::maps(&watch.handle.capabilities()).remove("conns").unwrap();
        let is_its = |key: &Vec<u8>| {
            let value = table.lookup(key, MapFlags::ANY).unwrap();
            value.is_some_and(|value| {
                value[LOCAL_PORT..][..4]
                    == [port.to_ne_bytes(), remote.port().to_ne_bytes()].concat()[..]
            })
        };
        let key = table.keys().find(is_its).unwrap();
        Held { client, server, remote, table, key }
    }

    fn change(&self, change: impl FnOnce(&mut [u8])) {
        let mut value = self.table.lookup(&self.key, MapFlags::ANY).unwrap().unwrap();
        change(&mut value);
        self.table.update(&self.key, &value, MapFlags::EXIST).unwrap();
    }

    /// The version that the sweep makes of it.
    fn found(&self, watch: &Watch, what: &str, is_it: impl Fn(&Connection) -> bool) -> Connection {
        watch.wait(what, |c| goes_to(c, self.remote) && is_it(c))
    }
}

/// Whether programs may look at socks that they are not given.
fn can_look() -> bool {
    let lockdown = std::fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    let can = !lockdown.contains("[confidentiality]");
    if !can {
        println!("skipped: the kernel is locked down, programs cannot look at socks");
    }
    can
}

fn forget_outcome(value: &mut [u8]) {
    (value[PHASE], value[EVIDENCE]) = (PENDING, 0);
}

fn move_away(value: &mut [u8]) {
    value[LOCAL_PORT] ^= 1;
}

#[test]
fn a_connection_whose_end_went_by_unseen_is_closed_at_a_time_that_nobody_knows() {
    let Some(watch) = shared().filter(|_| can_look()) else { return };
    let before = watch.handle.accounting();
    let held = Held::new(&watch);
    // As if another sock were in its place.
    held.change(move_away);

    let c = held.found(&watch, "an end", |c| c.state == State::Closed);
    assert_eq!((c.outcome, c.close), (Outcome::Established, None));
    let after = watch.handle.accounting();
    assert_eq!(after.updates_lost, before.updates_lost + 1, "{after:?}");
    assert!(!after.complete && after.balances(), "{after:?}");
    assert_eq!(watch.records(|c| goes_to(c, held.remote)).len(), 1);
}

#[test]
fn an_outcome_that_went_by_unseen_is_that_of_the_socket() {
    let Some(watch) = shared().filter(|_| can_look()) else { return };
    let held = Held::new(&watch);
    held.change(forget_outcome);

    let is_found = |c: &Connection| c.evidence == Some(Evidence::SocketState);
    let c = held.found(&watch, "an outcome", is_found);
    assert_eq!((c.outcome, c.state, c.latency_us), (Outcome::Established, State::Open, None));

    let Held { client, server, remote, .. } = held;
    // So that it ends at once, when this side closes as well.
    drop(server);
    drop(client);
    let c = watch.wait("a close", |c| goes_to(c, remote) && c.close.is_some());
    assert_eq!((c.outcome, c.evidence), (Outcome::Established, Some(Evidence::SocketState)));
}

#[test]
fn an_attempt_whose_socket_has_gone_unseen_has_failed_nobody_knows_why() {
    let Some(watch) = shared().filter(|_| can_look()) else { return };
    let held = Held::new(&watch);
    held.change(|value| {
        forget_outcome(value);
        // The remote port.
        value[LOCAL_PORT + 2] ^= 1;
    });

    let remote = SocketAddr::new(held.remote.ip(), held.remote.port() ^ 1);
    let is_found = |c: &Connection| c.evidence == Some(Evidence::SocketState);
    let c = watch.wait("an outcome", |c| goes_to(c, remote) && is_found(c));
    assert_eq!((c.outcome, c.state, c.errno), (Outcome::Failed, State::Closed, None));
    assert_eq!((c.latency_us, c.close), (None, None));
}

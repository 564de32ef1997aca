//! Where address translation (NAT) sends connections, asked of the kernel beside capture.
//!
//! iptables and nftables translate, and with them the ports that Docker publishes and the services of
//! Kubernetes. A socket knows nothing of that; the kernel's connection tracking does, for some seconds
//! after the end of a connection. A record is handed on without it, and comes again where the
//! connection goes elsewhere. Nothing is loaded for it, and nobody is asked where nothing is tracked.

mod asker;
mod desk;
#[cfg(all(feature = "server", any(test, fuzzing)))]
mod fuzzing;
pub(crate) mod message;
mod places;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};

use asker::{Answer, Asker, Question};
pub(crate) use desk::NatDesk;
use foldhash::{HashMap, HashMapExt};
#[cfg(all(feature = "server", any(test, fuzzing)))]
pub use fuzzing::conntrack_answer;
use message::Flow;

use crate::capture::privileges::GiveUp;
use crate::event::{Connection, ConnectionId, Direction, Endpoint, Outcome, Protocol, Scope};

/// Questions that may wait for the thread; what comes beyond is counted.
const QUESTIONS: usize = 4096;
/// Connections in one generation of what is known; two generations are kept.
const GENERATION: usize = 16_384;

/// What is known of a connection.
#[derive(Debug)]
enum Known {
    /// The thread was asked, and this is the newest version of the record.
    Asked(Box<Connection>),
    /// It goes where it seems to. Before it has an outcome, its packets may not have been tracked yet.
    Same { had_outcome: bool },
    /// It goes elsewhere.
    Elsewhere(Endpoint),
}

/// What is asked, and what waits for it. Owned by the capture thread.
#[derive(Debug)]
pub(crate) struct Nat {
    ask: SyncSender<Question>,
    answers: Receiver<Answer>,
    asker: Option<Asker>,
    desk: Arc<NatDesk>,
    young: HashMap<ConnectionId, Known>,
    old: HashMap<ConnectionId, Known>,
    /// Whether anything is tracked, looked at once for the records that come together.
    is_of_use: Option<bool>,
}

impl Nat {
    pub(crate) fn new(desk: Arc<NatDesk>) -> Self {
        let (ask, questions) = sync_channel(QUESTIONS);
        let (tell, answers) = channel();
        let asker = Some(Asker { questions, tell, desk: Arc::clone(&desk) });
        let (young, old) = (HashMap::new(), HashMap::new());
        Nat { ask, answers, asker, desk, young, old, is_of_use: None }
    }

    /// Starts the thread, which gives up what it has no use for if that is said. Returns what it kept,
    /// and what for.
    ///
    /// # Errors
    ///
    /// There is no such thread, and nobody is asked.
    pub(crate) fn start(
        &mut self,
        give_up: Option<GiveUp>,
    ) -> io::Result<BTreeMap<String, String>> {
        self.asker.take().map_or_else(|| Ok(BTreeMap::new()), |asker| asker.start(give_up))
    }

    /// A version of a record on its way to the reader: it gets what is known, or is remembered until
    /// that is.
    pub(crate) fn note(&mut self, connection: &mut Connection) {
        let has_outcome = connection.outcome != Outcome::InProgress;
        match self.known(connection.id) {
            Some(Known::Elsewhere(actual)) => connection.remote_actual = Some(*actual),
            Some(Known::Asked(newest)) => **newest = connection.clone(),
            Some(Known::Same { had_outcome }) if *had_outcome || !has_outcome => {}
            Some(Known::Same { .. }) | None => {
                if let Some(flow) = flow(connection) {
                    self.ask(flow, connection);
                }
            }
        }
    }

    fn ask(&mut self, flow: Flow, connection: &Connection) {
        if !self.is_of_use() {
            return;
        }
        let process = connection.process.as_ref();
        let question = Question {
            id: connection.id,
            flow,
            netns: process.map_or(0, |process| process.netns),
            tasks: process.map_or([0; 3], |process| [process.tid, process.pid, process.ppid]),
        };
        match self.ask.try_send(question) {
            Ok(()) => self.put(connection.id, Known::Asked(Box::new(connection.clone()))),
            // The next version of the record asks again.
            Err(_) => {
                self.desk.skipped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn is_of_use(&mut self) -> bool {
        let desk = &self.desk;
        *self.is_of_use.get_or_insert_with(|| {
            (if desk.others { places::is_loaded() } else { places::tracks() })
                && !places::would_load(desk.is_built_in)
        })
    }

    /// Records of which it has become known that they go elsewhere, in the order of their ids.
    pub(crate) fn updates(&mut self) -> Vec<Connection> {
        self.is_of_use = None;
        let mut updates = Vec::new();
        while let Ok((id, actual)) = self.answers.try_recv() {
            let Some(Known::Asked(mut connection)) = self.take(id) else { continue };
            let known = match actual {
                Some(actual) => {
                    connection.remote_actual = Some(actual);
                    updates.push(*connection);
                    Known::Elsewhere(actual)
                }
                None => Known::Same { had_outcome: connection.outcome != Outcome::InProgress },
            };
            self.put(id, known);
        }
        updates.sort_unstable_by_key(|connection| connection.id);
        updates
    }

    /// Records that never reached the reader, who must not be told of them by an update.
    pub(crate) fn forget(&mut self, lost: &[Connection]) {
        for connection in lost {
            self.take(connection.id);
        }
    }

    fn known(&mut self, id: ConnectionId) -> Option<&mut Known> {
        if let Some(known) = self.old.remove(&id) {
            self.put(id, known);
        }
        self.young.get_mut(&id)
    }

    fn take(&mut self, id: ConnectionId) -> Option<Known> {
        self.young.remove(&id).or_else(|| self.old.remove(&id))
    }

    fn put(&mut self, id: ConnectionId, known: Known) {
        if self.young.len() >= GENERATION && !self.young.contains_key(&id) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(id, known);
    }
}

/// The packets by which an outbound connection is tracked; `None` of what is none, or none that is
/// translated by its ports.
fn flow(connection: &Connection) -> Option<Flow> {
    // To have a peer is not to have sent it anything.
    let is_silent = matches!(connection.outcome, Outcome::Associated | Outcome::Listening);
    if connection.direction != Direction::Outbound || is_silent {
        return None;
    }
    let protocol = match connection.protocol {
        Protocol::Tcp | Protocol::Mptcp => libc::IPPROTO_TCP,
        Protocol::Udp => libc::IPPROTO_UDP,
        Protocol::Udplite => libc::IPPROTO_UDPLITE,
        Protocol::Sctp => libc::IPPROTO_SCTP,
        Protocol::Dccp => libc::IPPROTO_DCCP,
        _ => return None,
    };
    let (local, remote) = (connection.local?, connection.remote.as_ref()?);
    let is_one =
        |ip| !matches!(Scope::of(ip), Scope::Unspecified | Scope::Multicast | Scope::Broadcast);
    let is_whole = local.port != 0 && remote.port != 0 && is_one(local.ip) && is_one(remote.ip);
    // Of an address that is mapped to IPv6 the packets are those of IPv4.
    let (from, to) = (local.ip.to_canonical(), remote.ip.to_canonical());
    (is_whole && from.is_ipv4() == to.is_ipv4()).then_some(Flow {
        protocol: u8::try_from(protocol).ok()?,
        from: SocketAddr::new(from, local.port),
        to: SocketAddr::new(to, remote.port),
    })
}

#[cfg(test)]
mod tests;

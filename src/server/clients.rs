//! The connections that are open: how many, of whom, and which of them only wait.
//!
//! When there is no room for another, the one that has been idle for longest is closed. So those who
//! open connections and ask nothing lock nobody out: they lose theirs.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use crate::api::HttpFigures;

/// Whose connections count together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Client {
    /// An address; of IPv6 the network that one subscriber usually has.
    Ip(IpAddr),
    /// A user of this host, on the UNIX socket.
    User(u32),
}

impl Client {
    pub(super) fn at(ip: IpAddr) -> Self {
        Client::Ip(match ip.to_canonical() {
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
            v4 => v4,
        })
    }
}

/// How many connections may be open. Can be changed while the server runs.
#[derive(Debug)]
pub struct Limits {
    connections: AtomicUsize,
    per_client: AtomicUsize,
    /// What this process has file descriptors for.
    most: AtomicUsize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits::new(512, 256)
    }
}

impl Limits {
    /// So many in all, and so many of one client.
    pub fn new(connections: usize, per_client: usize) -> Self {
        Limits {
            connections: AtomicUsize::new(connections),
            per_client: AtomicUsize::new(per_client),
            most: AtomicUsize::new(usize::MAX),
        }
    }

    /// Never more than this in all, whatever the limits say.
    pub(super) fn bound(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed).min(self.most.load(Ordering::Relaxed))
    }

    /// Other limits from now on; connections that are open stay.
    pub fn set(&self, connections: usize, per_client: usize) {
        self.connections.store(connections, Ordering::Relaxed);
        self.per_client.store(per_client, Ordering::Relaxed);
    }
}

/// All connections.
#[derive(Debug)]
pub(super) struct Clients {
    table: Mutex<Table>,
    limits: Arc<Limits>,
    figures: Arc<HttpFigures>,
}

#[derive(Debug, Default)]
struct Table {
    open: HashMap<u64, Arc<Open>>,
    per_client: HashMap<Client, usize>,
    next: u64,
}

/// A connection.
#[derive(Debug)]
struct Open {
    client: Client,
    /// Since when it only waits; `None` while a request is answered.
    idle_since: Mutex<Option<Instant>>,
    closing: Notify,
}

impl Open {
    fn idle_since(&self) -> Option<Instant> {
        *lock(&self.idle_since)
    }
}

impl Table {
    fn remove(&mut self, number: u64) -> Option<Arc<Open>> {
        let open = self.open.remove(&number)?;
        if let Some(count) = self.per_client.get_mut(&open.client) {
            *count -= 1;
            if *count == 0 {
                self.per_client.remove(&open.client);
            }
        }
        Some(open)
    }

    /// The one that has been idle for longest, of this client or of all.
    fn longest_idle(&self, of: Option<Client>) -> Option<u64> {
        let of = self.open.iter().filter(|(_, open)| of.is_none_or(|client| client == open.client));
        let idle = of.filter_map(|(number, open)| Some((open.idle_since()?, *number)));
        idle.min().map(|(_, number)| number)
    }
}

impl Clients {
    pub(super) fn new(limits: Arc<Limits>, figures: Arc<HttpFigures>) -> Arc<Self> {
        Arc::new(Clients { table: Mutex::default(), limits, figures })
    }

    /// Room for a connection of this client, if need be in place of an idle one; `None` where
    /// there is none.
    pub(super) fn admit(self: &Arc<Self>, client: Client) -> Option<Slot> {
        let mut table = lock(&self.table);
        let of_client = table.per_client.get(&client).copied().unwrap_or(0);
        let full = if of_client >= self.limits.per_client.load(Ordering::Relaxed) {
            Some(Some(client))
        } else if table.open.len() >= self.limits.connections() {
            Some(None)
        } else {
            None
        };
        if let Some(of) = full {
            let Some(idle) = table.longest_idle(of).and_then(|number| table.remove(number)) else {
                self.figures.refused.fetch_add(1, Ordering::Relaxed);
                return None;
            };
            idle.closing.notify_one();
            self.figures.closed_idle.fetch_add(1, Ordering::Relaxed);
        }
        let number = table.next;
        table.next += 1;
        let idle_since = Mutex::new(Some(Instant::now()));
        let open = Arc::new(Open { client, idle_since, closing: Notify::new() });
        table.open.insert(number, Arc::clone(&open));
        *table.per_client.entry(client).or_default() += 1;
        self.count(&table);
        Some(Slot { clients: Arc::clone(self), number, open })
    }

    fn count(&self, table: &Table) {
        self.figures.connections.store(table.open.len() as u64, Ordering::Relaxed);
    }
}

/// The place of an open connection.
#[derive(Debug)]
pub(super) struct Slot {
    clients: Arc<Clients>,
    number: u64,
    open: Arc<Open>,
}

impl Slot {
    /// A request is being answered, until this is dropped.
    pub(super) fn busy(&self) -> Busy {
        *lock(&self.open.idle_since) = None;
        self.clients.figures.in_flight.fetch_add(1, Ordering::Relaxed);
        Busy { open: Arc::clone(&self.open), figures: Arc::clone(&self.clients.figures) }
    }

    /// When the place is wanted for another.
    pub(super) async fn closing(&self) {
        self.open.closing.notified().await;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut table = lock(&self.clients.table);
        table.remove(self.number);
        self.clients.count(&table);
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(super) struct Busy {
    open: Arc<Open>,
    figures: Arc<HttpFigures>,
}

impl Drop for Busy {
    fn drop(&mut self) {
        *lock(&self.open.idle_since) = Some(Instant::now());
        self.figures.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clients(connections: usize, per_client: usize) -> Arc<Clients> {
        Clients::new(Arc::new(Limits::new(connections, per_client)), Arc::default())
    }

    fn ip(last: u8) -> Client {
        Client::at(IpAddr::from([192, 0, 2, last]))
    }

    #[tokio::test]
    async fn the_longest_idle_makes_room_and_busy_ones_stay() {
        let clients = clients(2, 2);
        let first = clients.admit(ip(1)).unwrap();
        let second = clients.admit(ip(2)).unwrap();
        let busy = first.busy();
        let third = clients.admit(ip(3)).unwrap();
        // It is told, rather than find out.
        second.closing().await;
        drop(second);
        let _busy_too = third.busy();
        assert!(clients.admit(ip(4)).is_none());
        drop(busy);
        let _fourth = clients.admit(ip(4)).unwrap();
        first.closing().await;
        assert_eq!(clients.figures.connections.load(Ordering::Relaxed), 2);
        assert_eq!(clients.figures.closed_idle.load(Ordering::Relaxed), 2);
        assert_eq!(clients.figures.refused.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn descriptors_bound_what_may_be_open_whatever_is_configured_later() {
        let clients = clients(10, 10);
        clients.limits.bound(1);
        clients.limits.set(20, 20);
        let only = clients.admit(ip(1)).unwrap();
        let _busy = only.busy();
        assert!(clients.admit(ip(2)).is_none());
    }

    #[tokio::test]
    async fn who_has_too_many_loses_one_of_their_own() {
        let clients = clients(10, 2);
        let other = clients.admit(ip(1)).unwrap();
        let slots = [clients.admit(ip(2)).unwrap(), clients.admit(ip(2)).unwrap()];
        let _third = clients.admit(ip(2)).unwrap();
        slots[0].closing().await;
        drop(slots);
        drop(other);
        assert_eq!(lock(&clients.table).per_client, HashMap::from([(ip(2), 1)]));
    }

    #[test]
    fn an_ipv6_network_is_one_client_and_a_mapped_address_is_ipv4() {
        let at = |text: &str| Client::at(text.parse().unwrap());
        assert_eq!(at("2001:db8::1"), at("2001:db8::ffff:1"));
        assert_ne!(at("2001:db8::1"), at("2001:db8:0:1::1"));
        assert_eq!(at("::ffff:192.0.2.1"), ip(1));
    }
}

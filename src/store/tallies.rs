//! What was taken in since the start, for metrics: counters that only rise.
//!
//! Every dimension is a closed list, so that nothing that runs on the host, or stands in a file that
//! is replayed, can make more of them.

use std::array;
use std::sync::atomic::{AtomicU64, Ordering};

use strum::VariantArray;

use crate::event::{Connection, Direction, DnsOutcome, DropRecord, Outcome, Protocol};

const DIRECTIONS: usize = Direction::VARIANTS.len();
const PROTOCOLS: usize = Protocol::VARIANTS.len();
const OUTCOMES: usize = Outcome::VARIANTS.len();

/// Upper bounds of the classes of handshake times, in microseconds; one more class has no bound.
pub const HANDSHAKE_BOUNDS_US: [u64; 14] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000,
    3_000_000, 10_000_000,
];
const CLASSES: usize = HANDSHAKE_BOUNDS_US.len() + 1;

/// The same of the time until a question for a name is answered.
pub const ANSWER_BOUNDS_US: [u64; 14] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 5_000_000,
];
const DNS_OUTCOMES: usize = DnsOutcome::VARIANTS.len();

/// Counters of what was taken in.
#[derive(Debug)]
pub struct Tallies {
    outcomes: [[[AtomicU64; OUTCOMES]; PROTOCOLS]; DIRECTIONS],
    handshakes: [AtomicU64; CLASSES],
    handshakes_us: AtomicU64,
    /// By place in [`DROP_REASONS`]; the last is for all that is not there.
    drops: [AtomicU64; DROP_REASONS.len() + 1],
    dns: [AtomicU64; DNS_OUTCOMES],
    answers: [AtomicU64; ANSWER_BOUNDS_US.len() + 1],
    answers_us: AtomicU64,
}

impl Default for Tallies {
    fn default() -> Self {
        let zero = |_: usize| AtomicU64::new(0);
        Tallies {
            outcomes: array::from_fn(|_| array::from_fn(|_| array::from_fn(zero))),
            handshakes: array::from_fn(zero),
            handshakes_us: AtomicU64::new(0),
            drops: array::from_fn(zero),
            dns: array::from_fn(zero),
            answers: array::from_fn(zero),
            answers_us: AtomicU64::new(0),
        }
    }
}

impl Tallies {
    /// A version of a record, and the outcome of the version before. An attempt counts once under
    /// each outcome that it comes to: what was sent may turn out to be refused.
    pub(super) fn note(&self, c: &Connection, before: Option<Outcome>) {
        if before == Some(c.outcome) || c.outcome == Outcome::InProgress || !c.is_attempt() {
            return;
        }
        let counters = self.outcomes.get(place(Direction::VARIANTS, c.direction));
        let counters = counters.and_then(|c2| c2.get(place(Protocol::VARIANTS, c.protocol)));
        let counter = counters.and_then(|c3| c3.get(place(Outcome::VARIANTS, c.outcome)));
        add(counter, 1);
        let tcp = matches!(c.protocol, Protocol::Tcp | Protocol::Mptcp);
        if let Some(us) = c.latency_us.filter(|_| tcp && c.outcome == Outcome::Established) {
            let class = HANDSHAKE_BOUNDS_US.iter().position(|bound| us <= *bound);
            add(self.handshakes.get(class.unwrap_or(CLASSES - 1)), 1);
            self.handshakes_us.fetch_add(us, Ordering::Relaxed);
        }
    }

    pub(super) fn note_drop(&self, drop: &DropRecord) {
        let place = DROP_REASONS.binary_search(&&*drop.reason).unwrap_or(DROP_REASONS.len());
        add(self.drops.get(place), drop.count);
    }

    pub(super) fn note_dns(&self, outcome: DnsOutcome, latency_us: Option<u64>) {
        add(self.dns.get(place(DnsOutcome::VARIANTS, outcome)), 1);
        if let Some(us) = latency_us {
            let class = ANSWER_BOUNDS_US.iter().position(|bound| us <= *bound);
            add(self.answers.get(class.unwrap_or(ANSWER_BOUNDS_US.len())), 1);
            self.answers_us.fetch_add(us, Ordering::Relaxed);
        }
    }

    /// Questions for names by what came of them, where there were any.
    pub fn dns(&self) -> impl Iterator<Item = (DnsOutcome, u64)> {
        let counts = self.dns.iter().map(|n| n.load(Ordering::Relaxed));
        DnsOutcome::VARIANTS.iter().copied().zip(counts).filter(|(_, n)| *n > 0)
    }

    /// Times from question to answer: how many are in each class of [`ANSWER_BOUNDS_US`], and their
    /// sum in microseconds.
    pub fn answers(&self) -> ([u64; ANSWER_BOUNDS_US.len() + 1], u64) {
        let classes = self.answers.each_ref().map(|n| n.load(Ordering::Relaxed));
        (classes, self.answers_us.load(Ordering::Relaxed))
    }

    /// Attempts by direction, protocol and outcome; those that there were.
    pub fn outcomes(&self) -> impl Iterator<Item = (Direction, Protocol, Outcome, u64)> {
        let directions = Direction::VARIANTS.iter().zip(&self.outcomes);
        directions
            .flat_map(|(d, of)| Protocol::VARIANTS.iter().zip(of).map(move |(p, of)| (d, p, of)))
            .flat_map(|(d, p, of)| Outcome::VARIANTS.iter().zip(of).map(move |(o, n)| (d, p, o, n)))
            .map(|(d, p, o, n)| (*d, *p, *o, n.load(Ordering::Relaxed)))
            .filter(|(.., n)| *n > 0)
    }

    /// Times from attempt to `established` of TCP and MPTCP: how many are in each class of
    /// [`HANDSHAKE_BOUNDS_US`], and their sum in microseconds.
    pub fn handshakes(&self) -> ([u64; CLASSES], u64) {
        let classes = self.handshakes.each_ref().map(|n| n.load(Ordering::Relaxed));
        (classes, self.handshakes_us.load(Ordering::Relaxed))
    }

    /// Dropped packets by the kernel's name of the reason, where there were any; `other` for names
    /// that the kernel is not known to have.
    pub fn drops(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let names = DROP_REASONS.iter().chain(&["other"]);
        let counts = self.drops.iter().map(|n| n.load(Ordering::Relaxed));
        names.copied().zip(counts).filter(|(_, n)| *n > 0)
    }
}

fn place<T: PartialEq>(variants: &[T], of: T) -> usize {
    variants.iter().position(|variant| *variant == of).unwrap_or(usize::MAX)
}

fn add(counter: Option<&AtomicU64>, n: u64) {
    if let Some(counter) = counter {
        counter.fetch_add(n, Ordering::Relaxed);
    }
}

/// Reasons that kernels name (`include/net/dropreason-core.h`, up to Linux 6.18), in order.
const DROP_REASONS: &[&str] = &[
    "ARP_PVLAN_DISABLE",
    "BPF_CGROUP_EGRESS",
    "BRIDGE_INGRESS_STP_STATE",
    "CAKE_FLOOD",
    "CANFD_RX_INVALID_FRAME",
    "CANXL_RX_INVALID_FRAME",
    "CAN_RX_INVALID_FRAME",
    "CPU_BACKLOG",
    "DEV_HDR",
    "DEV_READY",
    "DUALPI2_STEP_DROP",
    "DUP_FRAG",
    "FQ_BAND_LIMIT",
    "FQ_FLOW_LIMIT",
    "FQ_HORIZON_LIMIT",
    "FRAG_REASM_TIMEOUT",
    "FRAG_TOO_FAR",
    "FULL_RING",
    "HDR_TRUNC",
    "ICMP_CSUM",
    "INVALID_PROTO",
    "IPV6DISABLED",
    "IPV6_BAD_EXTHDR",
    "IPV6_NDISC_BAD_CODE",
    "IPV6_NDISC_BAD_OPTIONS",
    "IPV6_NDISC_FRAG",
    "IPV6_NDISC_HOP_LIMIT",
    "IPV6_NDISC_NS_OTHERHOST",
    "IP_CSUM",
    "IP_INADDRERRORS",
    "IP_INHDR",
    "IP_INNOROUTES",
    "IP_INVALID_DEST",
    "IP_INVALID_SOURCE",
    "IP_LOCALNET",
    "IP_LOCAL_SOURCE",
    "IP_NOPROTO",
    "IP_OUTNOROUTES",
    "IP_RPFILTER",
    "IP_TUNNEL_ECN",
    "LOCAL_MAC",
    "MAC_IEEE_MAC_CONTROL",
    "MAC_INVALID_SOURCE",
    "NEIGH_CREATEFAIL",
    "NEIGH_DEAD",
    "NEIGH_FAILED",
    "NEIGH_HH_FILLFAIL",
    "NEIGH_QUEUEFULL",
    "NETFILTER_DROP",
    "NOMEM",
    "NOT_SPECIFIED",
    "NO_SOCKET",
    "NO_TX_TARGET",
    "OTHERHOST",
    "PACKET_SOCK_ERROR",
    "PFMEMALLOC",
    "PKT_TOO_BIG",
    "PKT_TOO_SMALL",
    "PROTO_MEM",
    "PSP_INPUT",
    "PSP_OUTPUT",
    "QDISC_CONGESTED",
    "QDISC_DROP",
    "QDISC_OVERLIMIT",
    "QUEUE_PURGE",
    "RECURSION_LIMIT",
    "SECURITY_HOOK",
    "SKB_CONSUMED",
    "SKB_CSUM",
    "SKB_GSO_SEG",
    "SKB_UCOPY_FAULT",
    "SOCKET_BACKLOG",
    "SOCKET_CLOSE",
    "SOCKET_FILTER",
    "SOCKET_RCVBUFF",
    "TAP_FILTER",
    "TAP_TXFILTER",
    "TCP_ABORT_ON_DATA",
    "TCP_ACK_UNSENT_DATA",
    "TCP_AOFAILURE",
    "TCP_AOKEYNOTFOUND",
    "TCP_AONOTFOUND",
    "TCP_AOUNEXPECTED",
    "TCP_AUTH_HDR",
    "TCP_CLOSE",
    "TCP_CSUM",
    "TCP_FASTOPEN",
    "TCP_FLAGS",
    "TCP_INVALID_ACK_SEQUENCE",
    "TCP_INVALID_END_SEQUENCE",
    "TCP_INVALID_SEQUENCE",
    "TCP_INVALID_SYN",
    "TCP_LISTEN_OVERFLOW",
    "TCP_MD5FAILURE",
    "TCP_MD5NOTFOUND",
    "TCP_MD5UNEXPECTED",
    "TCP_MINTTL",
    "TCP_OFOMERGE",
    "TCP_OFO_DROP",
    "TCP_OFO_QUEUE_PRUNE",
    "TCP_OLD_ACK",
    "TCP_OLD_DATA",
    "TCP_OLD_SEQUENCE",
    "TCP_OVERWINDOW",
    "TCP_RESET",
    "TCP_RFC7323_PAWS",
    "TCP_RFC7323_PAWS_ACK",
    "TCP_RFC7323_TSECR",
    "TCP_RFC7323_TW_PAWS",
    "TCP_TOO_OLD_ACK",
    "TCP_ZEROWINDOW",
    "TC_CHAIN_NOTFOUND",
    "TC_COOKIE_ERROR",
    "TC_EGRESS",
    "TC_INGRESS",
    "TC_RECLASSIFY_LOOP",
    "TUNNEL_TXINFO",
    "UDP_CSUM",
    "UNHANDLED_PROTO",
    "UNICAST_IN_L2_MULTICAST",
    "UNIX_DISCONNECT",
    "UNIX_SKIP_OOB",
    "VXLAN_ENTRY_EXISTS",
    "VXLAN_INVALID_HDR",
    "VXLAN_VNI_NOT_FOUND",
    "XDP",
    "XFRM_POLICY",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_records::*;

    #[test]
    fn an_attempt_counts_once_under_each_outcome() {
        let tallies = Tallies::default();
        let mut c = refused(1, &info(7, "curl"));
        c.outcome = Outcome::InProgress;
        tallies.note(&c, None);
        assert_eq!(tallies.outcomes().count(), 0);
        c.outcome = Outcome::Established;
        c.latency_us = Some(250);
        tallies.note(&c, Some(Outcome::InProgress));
        // Its close changes no outcome.
        tallies.note(&c, Some(Outcome::Established));
        let counted: Vec<_> = tallies.outcomes().collect();
        assert_eq!(counted, [(Direction::Outbound, Protocol::Tcp, Outcome::Established, 1)]);
        let (classes, sum) = tallies.handshakes();
        assert_eq!((classes[1], classes.iter().sum::<u64>(), sum), (1, 1, 250));
    }

    #[test]
    fn the_list_of_reasons_can_be_searched() {
        assert!(DROP_REASONS.is_sorted());
        for reason in ["NETFILTER_DROP", "TCP_CLOSE", "NO_SOCKET"] {
            assert!(DROP_REASONS.binary_search(&reason).is_ok(), "{reason}");
        }
    }
}

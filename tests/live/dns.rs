//! What remotes are called: by the answers that a DNS server of the test's own gave.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use netspy::event::{Connection, NameSource, Remote};
use rustix::net::{AddressFamily, SocketType};
use simple_dns::rdata::{A, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, ResourceRecord, TYPE};

use crate::harness::{Watch, connect, goes_to, ip, observes, own_network, shared, v4};

/// Answers for names with the addresses that they have at the moment.
struct Server {
    address: IpAddr,
    zone: Arc<Mutex<HashMap<String, Vec<Ipv4Addr>>>>,
    is_over: Arc<AtomicBool>,
    /// Whether it waits before it answers: what comes back before the send has returned is that of
    /// nobody who is known to have asked.
    waits: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

const PORT: u16 = 53;

impl Server {
    /// In the network namespace of the calling thread.
    fn start(address: IpAddr) -> Self {
        let socket = UdpSocket::bind(SocketAddr::new(address, PORT)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let zone = Arc::new(Mutex::new(HashMap::<String, Vec<Ipv4Addr>>::new()));
        let is_over = Arc::new(AtomicBool::new(false));
        let waits = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (zone, is_over) = (Arc::clone(&zone), Arc::clone(&is_over));
            let waits = Arc::clone(&waits);
            move || {
                let mut buffer = [0; 512];
                while !is_over.load(Ordering::Relaxed) {
                    let Ok((len, from)) = socket.recv_from(&mut buffer) else { continue };
                    while waits.load(Ordering::Relaxed) {
                        std::thread::yield_now();
                    }
                    let reply = answer(&buffer[..len], &zone.lock().unwrap());
                    socket.send_to(&reply, from).unwrap();
                }
            }
        });
        Server { address, zone, is_over, waits, thread: Some(thread) }
    }

    /// Asks it for a name.
    fn ask(&self, name: &str, how: Ask) {
        let server = self.address;
        let local: IpAddr = match server {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind(SocketAddr::new(local, 0)).unwrap();
        let remote = SocketAddr::new(server, PORT);
        let query = question(name);
        self.waits.store(true, Ordering::Relaxed);
        match how {
            Ask::Connected => {
                socket.connect(remote).unwrap();
                socket.send(&query).unwrap();
            }
            Ask::Unconnected => {
                socket.send_to(&query, remote).unwrap();
            }
        }
        self.waits.store(false, Ordering::Relaxed);
        let mut buffer = [0; 512];
        assert!(socket.recv(&mut buffer).unwrap() > 12);
    }

    fn set(&self, name: &str, addresses: &[[u8; 4]]) {
        let addresses = addresses.iter().copied().map(Ipv4Addr::from).collect();
        self.zone.lock().unwrap().insert(name.to_owned(), addresses);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

fn question(name: &str) -> Vec<u8> {
    let (qtype, class) = (QTYPE::TYPE(TYPE::A), QCLASS::CLASS(CLASS::IN));
    let mut query = Packet::new_query(7);
    query.questions.push(Question::new(Name::new(name).unwrap(), qtype, class, false));
    query.build_bytes_vec().unwrap()
}

fn answer(question: &[u8], zone: &HashMap<String, Vec<Ipv4Addr>>) -> Vec<u8> {
    let query = Packet::parse(question).unwrap();
    let mut reply = Packet::new_reply(query.id());
    reply.set_flags(PacketFlag::RESPONSE | PacketFlag::RECURSION_AVAILABLE);
    let question = query.questions[0].clone();
    if question.qtype == QTYPE::TYPE(TYPE::A) {
        let name = question.qname.to_string().to_ascii_lowercase();
        for ip in zone.get(&name).into_iter().flatten() {
            let data = RData::A(A { address: (*ip).into() });
            reply.answers.push(ResourceRecord::new(question.qname.clone(), CLASS::IN, 60, data));
        }
    }
    reply.questions.push(question);
    reply.build_bytes_vec_compressed().unwrap()
}

/// How a program asks.
#[derive(Debug, Clone, Copy)]
enum Ask {
    /// With a peer, as glibc and Go do.
    Connected,
    /// By sendto(), as musl does.
    Unconnected,
}

/// A capture that sees names, and a network of the test's own in which 198.51.100.0/24 and
/// 10.9.0.0/24 are of this host and refuse.
fn network() -> Option<Watch> {
    let watch = shared()?;
    if !observes(&watch, "dns_names") {
        println!("skipped: nothing here sees DNS answers");
        return None;
    }
    own_network();
    ip("address add 198.51.100.0/24 dev lo");
    ip("address add 10.9.0.0/24 dev lo");
    Some(watch)
}

fn refuse(remote: SocketAddr) {
    let _ = connect(AddressFamily::INET, SocketType::STREAM, remote);
}

fn called(watch: &Watch, remote: SocketAddr) -> (Option<String>, Option<NameSource>) {
    let record: Connection = watch.outcome(remote);
    let Some(Remote { name, name_source, .. }) = record.remote else { unreachable!() };
    (name.map(|name| name.to_string()), name_source)
}

fn is(name: &str, source: NameSource) -> (Option<String>, Option<NameSource>) {
    (Some(name.to_owned()), Some(source))
}

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[test]
fn a_remote_is_called_what_the_process_asked_for() {
    let Some(watch) = network() else { return };
    for (number, server, how) in [
        (1, LOCALHOST, Ask::Connected),
        (2, LOCALHOST, Ask::Unconnected),
        (3, std::net::Ipv6Addr::LOCALHOST.into(), Ask::Connected),
        (4, std::net::Ipv6Addr::LOCALHOST.into(), Ask::Unconnected),
    ] {
        let name = format!("host-{number}.example");
        let running = Server::start(server);
        running.set(&name, &[[198, 51, 100, number], [198, 51, 100, number + 100]]);
        running.ask(&name, how);
        for last in [number, number + 100] {
            let remote = v4([198, 51, 100, last], 443);
            refuse(remote);
            assert_eq!(called(&watch, remote), is(&name, NameSource::Dns), "{server} {how:?}");
        }
    }
    let unnamed = v4([198, 51, 100, 99], 443);
    refuse(unnamed);
    assert_eq!(called(&watch, unnamed), (None, None));
}

#[test]
fn of_two_names_for_one_address_the_last_counts_and_records_keep_theirs() {
    let Some(watch) = network() else { return };
    let server = Server::start(LOCALHOST);
    for (port, name) in [(1001, "first.example"), (1002, "second.example"), (1003, "first.example")]
    {
        server.set(name, &[[198, 51, 100, 7]]);
        server.ask(name, Ask::Connected);
        refuse(v4([198, 51, 100, 7], port));
    }
    for (port, name) in [(1001, "first.example"), (1002, "second.example"), (1003, "first.example")]
    {
        let remote = v4([198, 51, 100, 7], port);
        assert_eq!(called(&watch, remote), is(name, NameSource::Dns), "{port}");
    }
}

#[test]
fn what_another_process_asked_for_is_told_apart() {
    let Some(watch) = network() else { return };
    let server = Server::start(LOCALHOST);
    server.set("shared.example", &[[198, 51, 100, 8], [10, 9, 0, 8]]);
    server.ask("shared.example", Ask::Connected);
    let other = |remote: SocketAddr| {
        let status = crate::roles::play("connect", remote).status().unwrap();
        assert_eq!(status.code(), Some(libc::ECONNREFUSED));
    };
    let near = v4([198, 51, 100, 8], 2001);
    other(near);
    assert_eq!(called(&watch, near), is("shared.example", NameSource::DnsNetns));
    // From another namespace, where private addresses are those of others.
    let (far, private) = (v4([198, 51, 100, 8], 2002), v4([10, 9, 0, 8], 2003));
    std::thread::scope(|scope| {
        let elsewhere = scope.spawn(|| {
            own_network();
            ip("address add 198.51.100.0/24 dev lo");
            ip("address add 10.9.0.0/24 dev lo");
            other(far);
            other(private);
        });
        elsewhere.join().unwrap();
    });
    assert_eq!(called(&watch, far), is("shared.example", NameSource::DnsHost));
    assert_eq!(called(&watch, private), (None, None));
}

#[test]
fn what_nobody_asked_for_names_nothing() {
    let Some(watch) = network() else { return };
    // A service that takes datagrams from anybody, and one who sends it an answer unasked.
    let service = UdpSocket::bind("127.0.0.1:0").unwrap();
    let forger = UdpSocket::bind(("127.0.0.2", PORT)).unwrap();
    let zone =
        HashMap::from([("forged.example".to_owned(), vec![Ipv4Addr::new(198, 51, 100, 66)])]);
    let query = question("forged.example");
    let forged = answer(&query, &zone);
    forger.send_to(&forged, service.local_addr().unwrap()).unwrap();
    assert!(service.recv(&mut [0; 512]).unwrap() > 12);
    let remote = v4([198, 51, 100, 66], 443);
    refuse(remote);
    assert_eq!(called(&watch, remote), (None, None));
}

#[test]
fn programs_of_others_are_understood() {
    let Some(watch) = network() else { return };
    let server = Server::start(LOCALHOST);
    server.set("www.netspy.example", &[[198, 51, 100, 10]]);
    let has_curl = Command::new("curl").arg("--version").output().is_ok();
    if !has_curl {
        println!("skipped: curl is not installed");
        return;
    }
    // Their resolver reads this file; a mount namespace gives them one of their own.
    let dir = std::env::temp_dir().join(format!("netspy-live-dns-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join("resolv.conf");
    std::fs::write(&file, "nameserver 127.0.0.1\noptions attempts:1 timeout:5\n").unwrap();
    let script = format!(
        "mount --bind {} /etc/resolv.conf && exec curl -s -m 5 http://www.netspy.example:8443/",
        file.display()
    );
    let status = Command::new("unshare").args(["-m", "sh", "-c", &script]).status().unwrap();
    // CURLE_COULDNT_CONNECT
    assert_eq!(status.code(), Some(7));
    let remote = v4([198, 51, 100, 10], 8443);
    assert_eq!(called(&watch, remote), is("www.netspy.example", NameSource::Dns));
    let of_server = watch.records(|c| goes_to(c, SocketAddr::new(LOCALHOST, PORT)));
    assert!(!of_server.is_empty(), "the question itself is a record");
    std::fs::remove_dir_all(&dir).unwrap();
}

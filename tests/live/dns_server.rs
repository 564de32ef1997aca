//! A name server of the test's own, over UDP and TCP, and those who ask it.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use simple_dns::rdata::{A, RData};
use simple_dns::{
    CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, ResourceRecord, TYPE,
};

pub const PORT: u16 = 53;
/// How long a question may take.
const PATIENCE: Duration = Duration::from_secs(20);

type Zone = Arc<Mutex<HashMap<String, Vec<Ipv4Addr>>>>;

/// Answers for names with the addresses that they have at the moment. What begins with `missing.`,
/// `broken.` or `forbidden.` has a failure for an answer, what begins with `silent.` none.
pub struct Server {
    address: IpAddr,
    zone: Zone,
    is_over: Arc<AtomicBool>,
    /// How the next answers over TCP are sent.
    segments: Arc<Mutex<Segments>>,
    threads: Vec<JoinHandle<()>>,
}

/// How a program asks.
#[derive(Debug, Clone, Copy)]
pub enum Ask {
    /// With a peer, as glibc and Go do.
    Connected,
    /// By sendto(), as musl does.
    Unconnected,
}

/// How messages are laid out in the segments of TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segments {
    /// One message in each.
    Whole,
    /// The length by itself, then the message.
    LengthFirst,
    /// The message in two halves.
    Halves,
    /// All messages in one.
    AllAtOnce,
}

impl Server {
    /// In the network namespace of the calling thread.
    pub fn start(address: IpAddr) -> Self {
        Server::with(address, false)
    }

    /// One that waits for questions without sleeping, so that it answers at once.
    pub fn busy(address: IpAddr) -> Self {
        Server::with(address, true)
    }

    fn with(address: IpAddr, is_busy: bool) -> Self {
        let place = SocketAddr::new(address, PORT);
        let socket = UdpSocket::bind(place).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        socket.set_nonblocking(is_busy).unwrap();
        let listener = TcpListener::bind(place).unwrap();
        let zone = Zone::default();
        let is_over = Arc::new(AtomicBool::new(false));
        let segments = Arc::new(Mutex::new(Segments::Whole));
        let datagrams = std::thread::spawn({
            let (zone, is_over) = (Arc::clone(&zone), Arc::clone(&is_over));
            move || {
                let mut buffer = [0; 512];
                while !is_over.load(Ordering::Relaxed) {
                    let Ok((len, from)) = socket.recv_from(&mut buffer) else {
                        // Where there is one processor, who asks has its turn.
                        std::thread::yield_now();
                        continue;
                    };
                    if let Some(reply) = answer(&buffer[..len], &zone) {
                        socket.send_to(&reply, from).unwrap();
                    }
                }
            }
        });
        let streams = std::thread::spawn({
            let (zone, is_over) = (Arc::clone(&zone), Arc::clone(&is_over));
            let segments = Arc::clone(&segments);
            move || {
                for stream in listener.incoming() {
                    if is_over.load(Ordering::Relaxed) {
                        return;
                    }
                    serve(stream.unwrap(), &zone, *segments.lock().unwrap());
                }
            }
        });
        Server { address, zone, is_over, segments, threads: vec![datagrams, streams] }
    }

    /// Asks it for a name, and waits for the answer.
    pub fn ask(&self, name: &str, how: Ask) -> Vec<u8> {
        let socket = self.send(name, how);
        let mut buffer = [0; 512];
        let len = socket.recv(&mut buffer).unwrap();
        buffer[..len].to_vec()
    }

    /// Asks it for a name.
    pub fn send(&self, name: &str, how: Ask) -> UdpSocket {
        let local: IpAddr = match self.address {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind(SocketAddr::new(local, 0)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let remote = SocketAddr::new(self.address, PORT);
        let query = question(name);
        match how {
            Ask::Connected => {
                socket.connect(remote).unwrap();
                socket.send(&query).unwrap();
            }
            Ask::Unconnected => {
                socket.send_to(&query, remote).unwrap();
            }
        }
        socket
    }

    /// Asks it for names over one connection, all before the first answer.
    pub fn ask_over_tcp(&self, names: &[&str], segments: Segments) {
        *self.segments.lock().unwrap() = segments;
        let mut stream = TcpStream::connect((self.address, PORT)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let questions: Vec<_> = names.iter().map(|name| question(name)).collect();
        write(&mut stream, &questions, segments);
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        assert!(all.len() > names.len() * 14);
    }

    pub fn set(&self, name: &str, addresses: &[[u8; 4]]) {
        let addresses = addresses.iter().copied().map(Ipv4Addr::from).collect();
        self.zone.lock().unwrap().insert(name.to_owned(), addresses);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        // So that the thread that accepts sees it.
        let _ = TcpStream::connect((self.address, PORT));
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

/// One connection: all of its questions are read before the first is answered.
fn serve(mut stream: TcpStream, zone: &Zone, segments: Segments) {
    stream.set_nodelay(true).unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    let (mut rest, mut replies) = (&all[..], Vec::new());
    while let Some((length, after)) = rest.split_first_chunk() {
        let (message, after) = after.split_at(u16::from_be_bytes(*length).into());
        replies.extend(answer(message, zone));
        rest = after;
    }
    write(&mut stream, &replies, segments);
}

fn write(stream: &mut TcpStream, messages: &[Vec<u8>], segments: Segments) {
    let framed = |message: &Vec<u8>| [&(message.len() as u16).to_be_bytes()[..], message].concat();
    if segments == Segments::AllAtOnce {
        let all: Vec<_> = messages.iter().flat_map(framed).collect();
        stream.write_all(&all).unwrap();
        return;
    }
    for message in messages {
        let framed = framed(message);
        let first = match segments {
            Segments::LengthFirst => 2,
            Segments::Halves => framed.len() / 2,
            Segments::Whole | Segments::AllAtOnce => framed.len(),
        };
        // Without delay, each write is a segment of its own.
        stream.write_all(&framed[..first]).unwrap();
        stream.write_all(&framed[first..]).unwrap();
    }
}

/// A question for the IPv4 addresses of a name.
pub fn question(name: &str) -> Vec<u8> {
    static NUMBERS: std::sync::atomic::AtomicU16 = std::sync::atomic::AtomicU16::new(7);
    let (qtype, class) = (QTYPE::TYPE(TYPE::A), QCLASS::CLASS(CLASS::IN));
    let mut query = Packet::new_query(NUMBERS.fetch_add(1, Ordering::Relaxed));
    query.questions.push(Question::new(Name::new(name).unwrap(), qtype, class, false));
    query.build_bytes_vec().unwrap()
}

fn answer(question: &[u8], zone: &Zone) -> Option<Vec<u8>> {
    let query = Packet::parse(question).ok()?;
    let name = query.questions.first()?.qname.to_string().to_ascii_lowercase();
    let code = match name.split('.').next()? {
        "missing" => RCODE::NameError,
        "broken" => RCODE::ServerFailure,
        "forbidden" => RCODE::Refused,
        "silent" => return None,
        _ => RCODE::NoError,
    };
    let addresses = zone.lock().unwrap().get(&name).cloned().unwrap_or_default();
    Some(reply(question, &addresses, code as u8))
}

/// The answer to a question, with these addresses if they are what was asked for.
pub fn reply(question: &[u8], addresses: &[Ipv4Addr], code: u8) -> Vec<u8> {
    let query = Packet::parse(question).unwrap();
    let mut reply = Packet::new_reply(query.id());
    reply.set_flags(PacketFlag::RESPONSE | PacketFlag::RECURSION_AVAILABLE);
    *reply.rcode_mut() = u16::from(code).into();
    let question = query.questions[0].clone();
    if question.qtype == QTYPE::TYPE(TYPE::A) {
        for ip in addresses {
            let data = RData::A(A { address: (*ip).into() });
            reply.answers.push(ResourceRecord::new(question.qname.clone(), CLASS::IN, 60, data));
        }
    }
    reply.questions.push(question);
    reply.build_bytes_vec_compressed().unwrap()
}

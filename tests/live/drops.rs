//! experiment
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};

use crate::harness::{ip, own_network, watch};
use netspy::ConnectionStream;

#[test]
fn usual_traffic() {
    let Some(watch) = watch(ConnectionStream::builder()) else { return };
    println!("AT {} ", jiff::Timestamp::now().to_string().split_at(17).1);
    println!("{:#?}", watch.handle.capabilities().features.get("drops"));
    std::thread::spawn(|| {
        own_network();
        std::thread::sleep(std::time::Duration::from_millis(1200));
        for first in [true, false] {
            for _ in 0..100 {
                let l = TcpListener::bind("127.0.0.1:0").unwrap();
                let mut c = TcpStream::connect(l.local_addr().unwrap()).unwrap();
                let (mut s, _) = l.accept().unwrap();
                c.write_all(&[1; 1000]).unwrap();
                s.read_exact(&mut [0; 1000]).unwrap();
                s.write_all(&vec![1; 100000]).unwrap();
                c.read_exact(&mut vec![0; 100000]).unwrap();
                if first {
                    drop(c);
                    drop(s);
                } else {
                    drop(s);
                    let _ = c.read(&mut [0; 10]);
                    drop(c);
                }
            }
            println!("AT {} ", jiff::Timestamp::now().to_string().split_at(17).1);
            println!("tcp done");
            std::thread::sleep(std::time::Duration::from_millis(1200));
        }
        println!("AT {} ", jiff::Timestamp::now().to_string().split_at(17).1);
        println!("refused");
        for _ in 0..10 {
            let _ = TcpStream::connect("127.0.0.1:9");
        }
        std::thread::sleep(std::time::Duration::from_millis(1200));
        println!("AT {} ", jiff::Timestamp::now().to_string().split_at(17).1);
        println!("refused6");
        for _ in 0..10 {
            let _ = TcpStream::connect("[::1]:9");
        }
        std::thread::sleep(std::time::Duration::from_millis(1200));
        println!("AT {} ", jiff::Timestamp::now().to_string().split_at(17).1);
        println!("udp");
        for _ in 0..10 {
            let a = UdpSocket::bind("127.0.0.1:0").unwrap();
            let b = UdpSocket::bind("127.0.0.1:0").unwrap();
            a.connect(b.local_addr().unwrap()).unwrap();
            a.send(b"abc").unwrap();
            b.recv(&mut [0; 10]).unwrap();
            a.send(b"unread").unwrap();
        }
        std::thread::sleep(std::time::Duration::from_millis(1200));
        println!("AT {} ", jiff::Timestamp::now().to_string().split_at(17).1);
        println!("unix");
        for _ in 0..10 {
            let (mut a, mut b) = UnixStream::pair().unwrap();
            a.write_all(b"abc").unwrap();
            b.read_exact(&mut [0; 3]).unwrap();
            a.write_all(b"abc").unwrap();
            let (a, b) = UnixDatagram::pair().unwrap();
            a.send(b"abc").unwrap();
            b.recv(&mut [0; 3]).unwrap();
            a.send(b"abc").unwrap();
        }
        std::thread::sleep(std::time::Duration::from_millis(1200));
        println!("AT {} ", jiff::Timestamp::now().to_string().split_at(17).1);
        println!("netlink");
        for _ in 0..10 {
            ip("route show");
            ip("link set lo up");
        }
        std::thread::sleep(std::time::Duration::from_millis(1200));
        println!("AT {} ", jiff::Timestamp::now().to_string().split_at(17).1);
        println!("linger, half close, unaccepted");
        for kind in 0..4 {
            for _ in 0..10 {
                let l = TcpListener::bind("127.0.0.1:0").unwrap();
                let mut c = TcpStream::connect(l.local_addr().unwrap()).unwrap();
                if kind == 3 {
                    continue;
                }
                let (mut s, _) = l.accept().unwrap();
                c.write_all(&[1; 1000]).unwrap();
                if kind == 0 {
                    drop(s);
                    let _ = c.read(&mut [0; 10]);
                    continue;
                }
                s.read_exact(&mut [0; 1000]).unwrap();
                c.shutdown(std::net::Shutdown::Write).unwrap();
                if kind == 1 {
                    s.write_all(&vec![1; 100000]).unwrap();
                    c.read_exact(&mut vec![0; 100000]).unwrap();
                    drop(s);
                    drop(c);
                } else {
                    drop(c);
                    let _ = s.write_all(&vec![1; 10]);
                    std::thread::sleep(std::time::Duration::from_millis(10));
                    let _ = s.write_all(&vec![1; 10]);
                }
            }
            std::thread::sleep(std::time::Duration::from_millis(1200));
            println!("AT {} ", jiff::Timestamp::now().to_string().split_at(17).1);
            println!("next");
        }
        if std::process::Command::new("ip")
            .args("link add va type veth peer name vb".split(' '))
            .status()
            .unwrap()
            .success()
        {
            ip("link set va up");
            ip("link set vb up");
            std::thread::sleep(std::time::Duration::from_millis(2500));
        }
        println!("AT {} ", jiff::Timestamp::now().to_string().split_at(17).1);
        println!("ping");
        let _ =
            std::process::Command::new("ping").args(["-c", "3", "-i", "0.2", "127.0.0.1"]).output();
        std::thread::sleep(std::time::Duration::from_millis(1200));
    })
    .join()
    .unwrap();
    let d = watch.drops("x", 0, |_| true);
    let mut sums = std::collections::BTreeMap::new();
    for d in d {
        let key = (
            d.time.to_string()[17..19].to_owned(),
            d.reason.to_string(),
            d.protocol,
            d.family,
            d.source.map(|s| s.port > 9999),
            d.destination.map(|s| s.port.min(10)),
            d.connection.is_some(),
            d.bytes / d.count,
        );
        *sums.entry(key).or_insert(0) += d.count;
    }
    for (k, n) in sums {
        println!("AT {} ", jiff::Timestamp::now().to_string().split_at(17).1);
        println!("{k:?} {n}");
    }
    println!("AT {} ", jiff::Timestamp::now().to_string().split_at(17).1);
    println!("{:?}", watch.handle.counters().drops);
}

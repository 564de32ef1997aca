//! Observed programs do not notice: the same results, the same data, about the same time.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use netspy::ConnectionStream;
use rustix::net::{AddressFamily, SocketType};

use crate::harness::{alone, connect, free_port, ip, is_small_machine, own_network, v4, watch};

/// Bytes that each connection carries there and back.
const CARRIED: usize = 100_000;

/// Where the attempts go, the same in every round.
struct Workload {
    listener: TcpListener,
    refused: SocketAddr,
    path: std::path::PathBuf,
    unix: UnixListener,
}

/// What a round saw: return values in their order, and a checksum of all that was read.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    errors: Vec<i32>,
    checksum: u64,
    bytes: usize,
}

impl Seen {
    fn read(&mut self, data: &[u8]) {
        self.bytes += data.len();
        for byte in data {
            // FNV-1a
            self.checksum = (self.checksum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// Takes note of what a call returned.
    fn returned<T>(&mut self, result: std::io::Result<T>) -> Option<T> {
        self.errors.push(result.as_ref().err().map_or(0, |e| e.raw_os_error().unwrap()));
        result.ok()
    }
}

impl Workload {
    /// In a network of this thread.
    fn new() -> Self {
        own_network();
        ip("route add unreachable 198.51.100.1");
        ip("route add prohibit 198.51.100.2");
        let path = std::env::temp_dir().join(format!("netspy-isolation-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        Workload {
            listener: TcpListener::bind("127.0.0.1:0").unwrap(),
            refused: free_port(v4([127, 0, 0, 1], 0)),
            unix: UnixListener::bind(&path).unwrap(),
            path,
        }
    }

    fn round(&self) -> Seen {
        let mut seen = Seen::default();
        let (stream, datagram) = (SocketType::STREAM, SocketType::DGRAM);
        for (kind, remote) in [
            (stream, self.refused),
            (stream, v4([192, 0, 2, 1], 80)),
            (stream, v4([198, 51, 100, 1], 80)),
            (stream, v4([198, 51, 100, 2], 80)),
            (datagram, v4([198, 51, 100, 2], 80)),
            (datagram, v4([127, 0, 0, 1], 9)),
        ] {
            let (fd, result) = connect(AddressFamily::INET, kind, remote);
            seen.returned(result);
            seen.returned(rustix::net::connect_unspec(&fd).map_err(Into::into));
        }

        let remote = self.listener.local_addr().unwrap();
        let mut client = seen.returned(TcpStream::connect(remote)).unwrap();
        let (server, _) = self.listener.accept().unwrap();
        exchange(&mut seen, &mut client, server);
        let again = rustix::net::connect(&client, &remote).map_err(Into::into);
        assert!(seen.returned(again).is_none(), "EISCONN");
        drop(client);

        let mut client = seen.returned(UnixStream::connect(&self.path)).unwrap();
        let (server, _) = self.unix.accept().unwrap();
        exchange(&mut seen, &mut client, server);
        seen.returned(UnixStream::connect("/nowhere.sock"));

        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        seen.returned(sender.connect(receiver.local_addr().unwrap()));
        let mut buffer = [0; 1500];
        for n in 0..50_u8 {
            seen.returned(sender.send(&[n; 1400]));
            let length = receiver.recv(&mut buffer).unwrap();
            seen.read(&buffer[..length]);
        }
        seen
    }

    /// How long each of many connects took, of those that are answered at once.
    fn times(&self, connects: usize) -> Vec<Duration> {
        let one = |_| {
            let began = Instant::now();
            connect(AddressFamily::INET, SocketType::STREAM, self.refused).1.unwrap_err();
            began.elapsed()
        };
        (0..connects).map(one).collect()
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The client sends, the server sends it back changed.
fn exchange<S: Read + Write + Send + 'static>(seen: &mut Seen, client: &mut S, mut server: S) {
    let serving = std::thread::spawn(move || {
        let mut data = vec![0; CARRIED];
        server.read_exact(&mut data).unwrap();
        data.iter_mut().for_each(|byte| *byte = byte.wrapping_add(1));
        server.write_all(&data).unwrap();
    });
    let data: Vec<u8> = (0..CARRIED).map(|n| ((n * n) >> 3) as u8).collect();
    seen.returned(client.write_all(&data));
    let mut back = Vec::new();
    seen.returned(client.read_to_end(&mut back));
    seen.read(&back);
    serving.join().unwrap();
}

#[test]
fn results_and_data_are_the_same_with_and_without_capture() {
    std::thread::spawn(|| {
        drop(alone());
        let workload = Workload::new();
        let without = workload.round();
        assert_eq!(without.bytes, 2 * CARRIED + 50 * 1400);
        assert_eq!(without.errors[..8], [111, 0, 101, 0, 113, 0, 13, 0]);
        for _ in 0..if is_small_machine() { 1 } else { 3 } {
            let Some(watch) = watch(ConnectionStream::builder()) else { return };
            let with = workload.round();
            drop(watch);
            assert_eq!(with, without);
            assert_eq!(workload.round(), without, "after capture");
        }
    })
    .join()
    .unwrap();
}

fn quantile(times: &mut [Duration], of_hundred: usize) -> Duration {
    times.sort_unstable();
    times[times.len() * of_hundred / 100]
}

#[test]
fn connects_take_about_as_long_with_capture_as_without() {
    let rounds = if is_small_machine() { 3 } else { 5 };
    std::thread::spawn(move || {
        // It runs alone: the other tests that capture wait for this watch to end.
        drop(alone());
        let workload = Workload::new();
        let connects = if is_small_machine() { 300 } else { 2000 };
        workload.times(connects / 4);
        let (mut with, mut without) = (Vec::new(), Vec::new());
        let (mut slow_with, mut slow_without) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let mut times = workload.times(connects);
            without.push(quantile(&mut times, 50));
            slow_without.push(quantile(&mut times, 90));
            let Some(watch) = watch(ConnectionStream::builder()) else { return };
            let mut times = workload.times(connects);
            with.push(quantile(&mut times, 50));
            slow_with.push(quantile(&mut times, 90));
            drop(watch);
        }
        for (what, with, without) in [
            ("median", &mut with, &mut without),
            ("slowest tenth", &mut slow_with, &mut slow_without),
        ] {
            let (with, without) = (quantile(with, 50), quantile(without, 50));
            let ratio = with.as_secs_f64() / without.as_secs_f64();
            println!("{what}: {without:?} without capture, {with:?} with it: {ratio:.2} times");
            // Machines differ, and emulated ones make a probe dear; a wake-up of the reader per
            // event would be several times that.
            assert!(ratio < 3.0, "{what}: {ratio}");
        }
    })
    .join()
    .unwrap();
}

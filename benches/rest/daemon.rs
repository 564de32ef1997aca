//! The real server, in a process of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A directory that is taken away in the end.
pub struct Place(PathBuf);

impl Place {
    pub fn new() -> Self {
        let path = std::env::temp_dir().join(format!("netspy-bench-rest-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Place(path)
    }

    pub fn data(&self) -> PathBuf {
        self.0.join("data")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub struct Daemon {
    child: Child,
    address: String,
}

impl Daemon {
    pub fn start(place: &Place) -> Self {
        let built = env!("CARGO_BIN_EXE_ebpf-server").into();
        let mut command = Command::new(std::env::var_os("NETSPY_BENCH_SERVER").unwrap_or(built));
        command.args(["--no-unix", "--port", "0", "--data-dir"]).arg(place.data());
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("NETSPY_")) {
                command.env_remove(name);
            }
        }
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let address = loop {
            let line = lines.next().expect("the server says that it is ready");
            if let Some((_, rest)) = line.split_once("ready: listening on http://") {
                break rest.split([' ', ',']).next().unwrap().to_owned();
            }
        };
        // What it says from now on is of interest only when something is wrong.
        std::thread::spawn(move || {
            lines.filter(|line| !line.contains(" INFO ")).for_each(|line| eprintln!("{line}"));
        });
        Daemon { child, address }
    }

    pub fn url(&self, target: &str) -> String {
        format!("http://{}{target}", self.address)
    }

    /// A request whose answer ends with the connection.
    pub fn ask(&self, target: &str) -> std::io::Result<BufReader<TcpStream>> {
        let mut stream = TcpStream::connect(&self.address)?;
        write!(stream, "GET {target} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        Ok(BufReader::new(stream))
    }

    pub fn status(&self) -> Value {
        let mut answer = String::new();
        self.ask("/api/v1/status").unwrap().read_to_string(&mut answer).unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap()
    }

    pub fn books(&self) -> Value {
        self.status()["accounting"].clone()
    }

    /// Until everything that it found is part of the answers.
    pub fn wait_for_records(&self, count: u64) {
        let until = Instant::now() + Duration::from_secs(60);
        while self.status()["store"]["records"].as_u64().unwrap() < count {
            assert!(Instant::now() < until, "{}", self.status());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// CPU-seconds so far, and the most resident memory in MiB.
    pub fn usage(&self) -> (f64, f64) {
        let read = |name: &str| {
            std::fs::read_to_string(format!("/proc/{}/{name}", self.child.id())).unwrap()
        };
        let stat = read("stat");
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let ticks: Vec<f64> =
            fields.split(' ').skip(11).take(2).map(|n| n.parse().unwrap()).collect();
        let cpu = ticks.iter().sum::<f64>() / rustix::param::clock_ticks_per_second() as f64;
        let status = read("status");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let kib: f64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
        (cpu, kib / 1024.0)
    }

    pub fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

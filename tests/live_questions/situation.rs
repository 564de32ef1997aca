//! A host, the network that it talks to, and programs that connect: what the questions are about.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

pub const API: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
pub const DATABASE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 9);
pub const STRANGER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 66);
pub const NO_ROUTE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 200);
pub const FAR_AWAY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);

/// How often each program does what it does.
pub const SOLD: u64 = 6;
pub const BACKUPS: u64 = 2;
pub const BILLS: u64 = 20;
pub const MAILS: u64 = 3;
pub const REPORTS: u64 = 2;
/// SYNs of each report: one, and one again.
pub const SYNS: u64 = 2;
pub const SCANNED: u64 = 40;
pub const CRAWLS: usize = 3;
pub const BEATS: u64 = 10;
/// Seconds between two beats: the shortest rhythm that is taken for one, and a little.
pub const BEAT: &str = "5.1";

/// A network namespace, held by a process that ends with this.
struct Network {
    holder: Child,
    _end: ChildStdin,
}

impl Network {
    fn new() -> Result<Self, String> {
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", "echo made; read end"]);
        let holder = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut holder = holder.map_err(|why| format!("unshare: {why}"))?;
        let end = holder.stdin.take().unwrap();
        let output = holder.stdout.take().unwrap();
        let network = Network { holder, _end: end };
        let mut made = String::new();
        BufReader::new(output).read_line(&mut made).unwrap();
        match made.as_str() {
            "made\n" => Ok(network),
            _ => Err("unshare makes no network namespace".to_owned()),
        }
    }

    fn pid(&self) -> u32 {
        self.holder.id()
    }

    /// Does this inside: its sockets stay there.
    fn inside<T: Send>(&self, run: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/proc/{}/ns/net", self.pid())).unwrap();
        let kind = Some(LinkNameSpaceType::Network);
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                move_into_link_name_space(namespace.as_fd(), kind).unwrap();
                run()
            });
            inside.join().unwrap()
        })
    }

    /// Runs a command inside; what it complains about.
    fn does(&self, line: &str) -> Result<(), String> {
        let mut words = line.split(' ');
        let mut command = Command::new(words.next().unwrap());
        command.args(words);
        let output = self.inside(|| command.output()).map_err(|why| format!("{line}: {why}"))?;
        match output.status.success() {
            true => Ok(()),
            false => Err(format!("{line}: {}", String::from_utf8_lossy(&output.stderr).trim())),
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Since when and until when something was done.
#[derive(Debug, Clone, Copy)]
pub struct During {
    pub since: Timestamp,
    pub until: Timestamp,
}

pub struct Situation {
    host: Network,
    /// Holds what the host talks to.
    remote: Network,
    /// Symbolic links to bash: a process is named after the one that it was started by.
    programs: PathBuf,
    listeners: HashMap<SocketAddr, TcpListener>,
    /// Why nothing is slow here.
    pub no_slow_link: Option<String>,
    /// Why nothing is dropped here.
    pub no_firewall: Option<String>,
    /// When each program did what it did.
    pub times: HashMap<&'static str, During>,
    /// How long each connect over the slow link took at most.
    pub crawled: Vec<Duration>,
    /// Those that stay as they are: their input ends with this.
    pub staying: HashMap<&'static str, Child>,
    /// Port of the host on which something listens.
    pub served: u16,
}

impl Situation {
    /// Networks without traffic; `Err` where there can be none.
    pub fn new() -> Result<Self, String> {
        let (host, remote) = (Network::new()?, Network::new()?);
        host.does("ip link add near type veth peer name far")?;
        host.does("ip link add slow type veth peer name end")?;
        for link in ["far", "end"] {
            host.does(&format!("ip link set {link} netns {}", remote.pid()))?;
        }
        for line in [
            "ip link set lo up",
            "ip link set far up",
            "ip link set end up",
            "ip addr add 192.0.2.2/24 dev far",
            "ip addr add 203.0.113.2/24 dev end",
            "ip addr add 198.51.100.7/32 dev lo",
            "ip addr add 198.51.100.9/32 dev lo",
            "ip addr add 198.51.100.66/32 dev lo",
        ] {
            remote.does(line)?;
        }
        for line in [
            "ip link set lo up",
            "ip link set near up",
            "ip link set slow up",
            "ip addr add 192.0.2.1/24 dev near",
            "ip addr add 203.0.113.1/24 dev slow",
            "ip route add 198.51.100.0/24 via 192.0.2.2",
            "ip route add unreachable 198.51.100.200",
        ] {
            host.does(line)?;
        }
        // A SYN and one more: 3 s until it is given up.
        let retries = "/proc/sys/net/ipv4/tcp_syn_retries";
        host.inside(|| std::fs::write(retries, "1")).map_err(|why| format!("{retries}: {why}"))?;
        // Since Linux 6.5 so many more come first; kernels before have no such file.
        let _ = host.inside(|| std::fs::write("/proc/sys/net/ipv4/tcp_syn_linear_timeouts", "0"));
        // 8,000 bytes a second once its bucket is empty.
        let shape = "tc qdisc add dev slow root tbf rate 64kbit burst 2000 limit 100000";
        let no_slow_link = host.does(shape).err();
        let drop = "nft add table inet t ; add chain inet t out { type filter hook output priority \
                    0 ; } ; add rule inet t out ip daddr 198.51.100.9 tcp dport 5432 drop";
        let no_firewall = host.does(drop).err();
        let programs = std::env::temp_dir().join(format!("netspy-oncall-{}", std::process::id()));
        std::fs::create_dir(&programs).unwrap();
        Ok(Situation {
            host,
            remote,
            programs,
            listeners: HashMap::new(),
            no_slow_link,
            no_firewall,
            times: HashMap::new(),
            crawled: Vec::new(),
            staying: HashMap::new(),
            served: 0,
        })
    }

    /// Something answers there from now on.
    fn serve(&mut self, ip: Ipv4Addr, port: u16) {
        let at = SocketAddr::new(ip.into(), port);
        let listener = self.remote.inside(|| TcpListener::bind(at)).unwrap();
        self.listeners.insert(at, listener);
    }

    /// A program of this name, which bash plays; it reads what the test says.
    fn start(&self, name: &str, script: &str) -> Child {
        let program = self.programs.join(name);
        let _ = std::os::unix::fs::symlink("/bin/bash", &program);
        let mut command = Command::new(program);
        command.args(["-c", script]).stderr(Stdio::null());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        self.host.inside(|| command.spawn()).unwrap()
    }

    /// Runs one to its end.
    fn run(&mut self, name: &'static str, script: &str) {
        let since = Timestamp::now();
        let output = self.start(name, script).wait_with_output().unwrap();
        assert!(output.status.success(), "{name}: {output:?}");
        self.took_place(name, since);
    }

    fn took_place(&mut self, name: &'static str, since: Timestamp) {
        self.times.insert(name, During { since, until: Timestamp::now() });
    }

    /// Everything as it should be, but for one that beats until [`end`](Self::end).
    pub fn begin(&mut self) {
        for port in [443, 8080, 8022] {
            self.serve(API, port);
        }
        self.serve(STRANGER, 4444);
        self.serve(FAR_AWAY, 8443);
        let listener = self.host.inside(|| TcpListener::bind("192.0.2.1:0")).unwrap();
        let at = listener.local_addr().unwrap();
        self.served = at.port();
        self.listeners.insert(at, listener);

        let beat = format!(
            "for i in {{1..{BEATS}}}; do [ $i = 1 ] || read -t {BEAT}; {}; done; :",
            to(STRANGER, 4444)
        );
        let agent = self.start("agentd", &beat);
        self.staying.insert("agentd", agent);
        let mut worker = self.start("worker", &format!("exec 3<>{}; echo; read", tcp(API, 443)));
        let mut there = [0];
        std::io::Read::read_exact(worker.stdout.as_mut().unwrap(), &mut there).unwrap();
        self.staying.insert("worker", worker);
        self.run("shop", &times(SOLD, &to(API, 8080)));
        self.run("backup", &times(BACKUPS, &to(API, 8022)));
    }

    /// Much goes wrong, beginning with the service that the shop needs.
    pub fn break_down(&mut self) {
        self.listeners.remove(&SocketAddr::new(API.into(), 8080)).unwrap();
        self.run("shop", &format!("{}{}", times(SOLD, &to(API, 8080)), times(3, &to(API, 443))));
        self.run("billing", &times(BILLS, &to(API, 8081)));
        self.run("mailer", &times(MAILS, &to(NO_ROUTE, 25)));
        let ports = format!("for port in {{1..{SCANNED}}}; do : 3<>/dev/tcp/{API}/$port; done; :");
        self.run("mapper", &ports);
        if self.no_firewall.is_none() {
            self.run("reports", &times(REPORTS, &to(DATABASE, 5432)));
        }
        if self.no_slow_link.is_none() {
            self.crawl();
        }
    }

    /// Connects while the slow link is busy with what came before.
    fn crawl(&mut self) {
        let since = Timestamp::now();
        let ahead = self.host.inside(|| UdpSocket::bind("203.0.113.1:0")).unwrap();
        let sink = self.remote.inside(|| UdpSocket::bind("203.0.113.2:0")).unwrap();
        for _ in 0..CRAWLS {
            let mut crawler = self.start("crawler", &format!("read; {}; :", to(FAR_AWAY, 8443)));
            let mut input = crawler.stdin.take().unwrap();
            for _ in 0..5 {
                ahead.send_to(&[0; 1_000], sink.local_addr().unwrap()).unwrap();
            }
            let begun = Instant::now();
            writeln!(input, "go").unwrap();
            assert!(crawler.wait().unwrap().success());
            self.crawled.push(begun.elapsed());
        }
        self.took_place("crawler", since);
    }

    /// Waits for the last beat.
    pub fn end(&mut self) {
        let mut agent = self.staying.remove("agentd").unwrap();
        // Its input stays open: it reads from there until the next beat is due.
        let input = agent.stdin.take();
        assert!(agent.wait().unwrap().success());
        drop(input);
    }
}

impl Drop for Situation {
    fn drop(&mut self) {
        for child in self.staying.values_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.programs);
    }
}

/// A place in the words of bash.
fn tcp(ip: Ipv4Addr, port: u16) -> String {
    format!("/dev/tcp/{ip}/{port}")
}

/// A connection that is closed at once; that it fails ends nothing.
fn to(ip: Ipv4Addr, port: u16) -> String {
    format!(": 3<>{}", tcp(ip, port))
}

fn times(n: u64, what: &str) -> String {
    format!("for i in {{1..{n}}}; do {what}; done; :; ")
}

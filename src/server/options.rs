//! The options of `ebpf-server`. Each has a `NETSPY_…` variable, over which the flag wins, and a key
//! in the configuration file, which comes last.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use ipnet::IpNet;

use super::lists::Listed;
use crate::capture::privileges::{GiveUp, Identity};
use crate::capture::report::Backend;
use crate::store::HistoryOptions;
use crate::stream::{Builder, ConnectionStream};

/// Captures the connection attempts of this host and answers questions about them over HTTP.
#[derive(Debug, Clone, Parser)]
#[command(name = "ebpf-server", version = crate::VERSION_AND_COMMIT, about, max_term_width = 100)]
#[command(after_help = "\
Examples:
  sudo ebpf-server                                       on 127.0.0.1:8080 and /run/netspy/api.sock
  sudo ebpf-server --check                               what would be captured here, and how
  sudo ebpf-server --data-dir /var/lib/netspy            with history that outlives it
  sudo ebpf-server --no-loopback --only-port 80,443
  sudo ebpf-server --listen 0.0.0.0:8080 --token-file /etc/netspy/tokens
  ebpf-server --replay minute.jsonl --port 8081          answers from a recording

Exit codes: 0 stopped as asked, 1 could not run, 2 wrong options, 4 not the privileges to capture.")]
pub struct Options {
    /// A file with options (TOML); flags and variables win over it.
    #[arg(long, env = "NETSPY_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Where to listen: a loopback address, or with --token-file any address, and a port.
    #[arg(long, env = "NETSPY_LISTEN", value_name = "ADDR:PORT", default_value = "127.0.0.1:8080",
          value_parser = listen_address)]
    pub listen: SocketAddr,

    /// The port to listen on, in place of that of --listen.
    #[arg(long, env = "NETSPY_PORT", value_name = "N")]
    pub port: Option<u16>,

    /// The same as --listen, as the original server spelled it; ":8080" is loopback here.
    #[arg(long, value_name = "ADDR:PORT", value_parser = listen_address)]
    pub addr: Option<SocketAddr>,

    /// Accepted for compatibility: HTTP is always served.
    #[arg(long)]
    pub http: bool,

    /// The UNIX socket to listen on [default, as root: /run/netspy/api.sock].
    #[arg(long, env = "NETSPY_UNIX", value_name = "PATH")]
    pub unix: Option<PathBuf>,

    /// Listen on no UNIX socket.
    #[arg(long, env = "NETSPY_NO_UNIX")]
    pub no_unix: bool,

    /// Tokens, one on a line, of which those who ask over TCP have to show one.
    #[arg(long, env = "NETSPY_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// The certificate for TLS over TCP, with its chain (PEM).
    #[arg(long, env = "NETSPY_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,

    /// The key of the certificate (PEM).
    #[arg(long, env = "NETSPY_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,

    /// Connections that may be open; beyond, the one that is idle for longest is closed.
    #[arg(long, env = "NETSPY_MAX_CONNECTIONS", value_name = "N", default_value_t = 512,
          value_parser = clap::value_parser!(u32).range(8..=65_536))]
    pub max_connections: u32,

    /// Connections of one address, or of one user on the UNIX socket.
    #[arg(long, env = "NETSPY_MAX_CONNECTIONS_PER_CLIENT", value_name = "N", default_value_t = 256,
          value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub max_connections_per_client: u32,

    /// Event streams that may be open.
    #[arg(long, env = "NETSPY_MAX_STREAMS", value_name = "N", default_value_t = 64,
          value_parser = clap::value_parser!(u32).range(1..=4_096))]
    pub max_streams: u32,

    /// The user to run as once capture is attached, by name or as UID:GID.
    #[arg(long, env = "NETSPY_USER", value_name = "NAME", value_parser = user)]
    pub user: Option<Identity>,

    /// Memory for recent records.
    #[arg(long, env = "NETSPY_MEMORY_LIMIT", value_name = "SIZE", default_value = "256MiB",
          value_parser = memory_limit)]
    pub memory_limit: u64,

    /// Keep records in this directory, too: they outlive the server.
    #[arg(long, env = "NETSPY_DATA_DIR", value_name = "DIR", conflicts_with = "replay")]
    pub data_dir: Option<PathBuf>,

    /// Where records are kept [default: disk with --data-dir, else memory].
    #[arg(long, env = "NETSPY_STORE", value_enum)]
    pub store: Option<StoreChoice>,

    /// The most that the files in --data-dir may take; the oldest go first.
    #[arg(long, env = "NETSPY_DISK_LIMIT", value_name = "SIZE", default_value = "10GiB",
          value_parser = disk_limit)]
    pub disk_limit: u64,

    /// How old records in --data-dir may become, such as 12h or 30d.
    #[arg(long, env = "NETSPY_MAX_AGE", value_name = "AGE", default_value = "30d",
          value_parser = max_age)]
    pub max_age: Duration,

    /// Ring buffer between kernel and server: a power of two.
    #[arg(long, env = "NETSPY_RING_SIZE", value_name = "SIZE", default_value = "8MiB",
          value_parser = ring_size)]
    pub ring_size: u32,

    /// Sockets that can be followed at a time.
    #[arg(long, env = "NETSPY_MAX_SOCKETS", value_name = "N", default_value_t = 65_536,
          value_parser = clap::value_parser!(u32).range(1..=16 << 20))]
    pub max_sockets: u32,

    /// Capture only processes or threads of this name (repeat, or separate by commas; one within a name: `\,`).
    #[arg(long, env = "NETSPY_ONLY_PROCESS", value_name = "NAME", value_parser = process_names)]
    pub only_process: Vec<Listed<String>>,

    /// Capture only these processes.
    #[arg(long, env = "NETSPY_ONLY_PID", value_name = "PID", value_delimiter = ',')]
    pub only_pid: Vec<u32>,

    /// Capture only processes of these users.
    #[arg(long, env = "NETSPY_ONLY_UID", value_name = "UID", value_delimiter = ',')]
    pub only_uid: Vec<u32>,

    /// Capture only these remote ports; of what comes in, local ports.
    #[arg(long, env = "NETSPY_ONLY_PORT", value_name = "PORT", value_delimiter = ',')]
    pub only_port: Vec<u16>,

    /// Capture only these remote networks; what listens has none.
    #[arg(long, env = "NETSPY_ONLY_CIDR", value_name = "NETWORK", value_delimiter = ',')]
    pub only_cidr: Vec<IpNet>,

    /// Leave out connections to and from loopback addresses, and what listens there.
    #[arg(long, env = "NETSPY_NO_LOOPBACK")]
    pub no_loopback: bool,

    /// Leave out UNIX sockets.
    #[arg(long, env = "NETSPY_NO_UNIX_SOCKETS")]
    pub no_unix_sockets: bool,

    /// Leave out connections that are accepted, and sockets that listen.
    #[arg(long, env = "NETSPY_NO_INBOUND")]
    pub no_inbound: bool,

    /// Leave out connections and sockets that existed before the start.
    #[arg(long, env = "NETSPY_NO_PREEXISTING")]
    pub no_preexisting: bool,

    /// Do not look at packets that the kernel drops.
    #[arg(long, env = "NETSPY_NO_DROPS")]
    pub no_drops: bool,

    /// Do not look at DNS messages: remotes have no names but those of /etc/hosts, and `netspy dns` has nothing to show.
    #[arg(long, env = "NETSPY_NO_DNS")]
    pub no_dns: bool,

    /// Do not ask the kernel where address translation (NAT) sends connections.
    #[arg(long, env = "NETSPY_NO_NAT")]
    pub no_nat: bool,

    /// Ask that within the network namespaces of containers, too, which have rules of their own at times; the thread that asks keeps CAP_SYS_ADMIN for it.
    #[arg(long, env = "NETSPY_NAT_NAMESPACES")]
    pub nat_namespaces: bool,

    /// A database of countries or of networks in MaxMind's format, by which remotes are told (repeat, or separate by commas; one within a path: `\,`).
    #[arg(long, env = "NETSPY_GEOIP", value_name = "FILE", conflicts_with = "replay",
          value_parser = paths)]
    pub geoip: Vec<Listed<PathBuf>>,

    /// Work out the SHA-256 of executables: each is read once, as long as it does not change.
    #[arg(long, env = "NETSPY_HASH_EXE")]
    pub hash_exe: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub containers: super::containers::ContainerOptions,

    /// The kernel hooks to use.
    #[arg(long, env = "NETSPY_BACKEND", value_enum, default_value_t = BackendChoice::Auto)]
    pub backend: BackendChoice,

    /// Answer from a recording; nothing is captured.
    #[arg(long, env = "NETSPY_REPLAY", value_name = "FILE", conflicts_with = "record")]
    pub replay: Option<PathBuf>,

    /// Record what is captured into a new file.
    #[arg(long, env = "NETSPY_RECORD", value_name = "FILE")]
    pub record: Option<PathBuf>,

    #[cfg(feature = "ai")]
    #[command(flatten)]
    #[allow(missing_docs)]
    pub model: super::model::ModelOptions,

    /// The form of the log, on standard error.
    #[arg(long, env = "NETSPY_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// What to log: error, warn, info, debug, trace.
    #[arg(long, env = "NETSPY_LOG_LEVEL", value_name = "LEVEL", default_value = "info")]
    pub log_level: tracing::Level,

    /// Check the options and what capture can see here, print the report, and exit.
    #[arg(long)]
    pub check: bool,
}

/// Where records are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StoreChoice {
    /// The newest, for as long as the server runs.
    Memory,
    /// Also in files.
    Disk,
}

/// Which hooks to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BackendChoice {
    /// The best that works here.
    Auto,
    /// Trampolines at the entry and exit of kernel functions.
    Fentry,
    /// Probes at the entry and return of kernel functions.
    Kprobe,
    /// System-call tracepoints.
    Tracepoint,
}

/// The form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Where an option was said; later ones win.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// In the file, or nowhere.
    File,
    /// In a variable.
    Variable,
    /// On the command line.
    Flag,
}

impl Options {
    /// Leaves out what an option that was said in a place before rules out, and refuses what does
    /// nothing beside one.
    pub(super) fn settle(&mut self, place: impl Fn(&str) -> Place) -> Result<(), String> {
        if place("port") < place("listen").max(place("addr")) {
            self.port = None;
        }
        if self.no_unix && place("unix") > place("no_unix") {
            self.no_unix = false;
        }
        if self.no_unix && place("unix") < place("no_unix") {
            self.unix = None;
        }
        if self.unix.is_some() && self.no_unix {
            return Err("--unix and --no-unix exclude each other: leave one out".to_owned());
        }
        if self.replay.is_none() {
            return Ok(());
        }
        let filters = [
            ("only_process", !self.only_process.is_empty()),
            ("only_pid", !self.only_pid.is_empty()),
            ("only_uid", !self.only_uid.is_empty()),
            ("only_port", !self.only_port.is_empty()),
            ("only_cidr", !self.only_cidr.is_empty()),
            ("no_loopback", self.no_loopback),
            ("no_unix_sockets", self.no_unix_sockets),
            ("no_inbound", self.no_inbound),
            ("no_preexisting", self.no_preexisting),
            ("hash_exe", self.hash_exe),
            ("nat_namespaces", self.nat_namespaces),
        ];
        let useless = |id: &str| place(id) >= place("replay");
        let asked = [
            ("runtime_socket", !self.containers.sockets.is_empty()),
            ("kubelet", self.containers.kubelet.is_some()),
        ];
        if let Some((id, _)) = asked.into_iter().find(|(id, is_set)| *is_set && useless(id)) {
            return Err(format!(
                "--{} says whom to ask about containers that run now, and with --replay nobody is \
                 asked: leave it out",
                id.replace('_', "-")
            ));
        }
        match filters.into_iter().find(|(id, is_set)| *is_set && useless(id)) {
            Some((id, _)) => Err(format!(
                "--{} says what is captured, and with --replay nothing is: leave it out, and name \
                 what you look for in each question (such as ?port=443)",
                id.replace('_', "-")
            )),
            None => Ok(()),
        }
    }

    /// What makes no sense together, told with what to do.
    pub(super) fn check_together(&self) -> Result<(), String> {
        let address = self.tcp_address();
        if !address.ip().to_canonical().is_loopback() && self.token_file.is_none() {
            return Err(format!(
                "--listen {address}: only loopback addresses (127.0.0.1, [::1]) can be listened on \
                 without --token-file: everybody who can connect would see every connection of \
                 this host; name a file of tokens, or forward the port \
                 (ssh -L 8080:127.0.0.1:8080)"
            ));
        }
        if self.store == Some(StoreChoice::Disk) && self.data_dir.is_none() {
            return Err(
                "--store disk needs --data-dir, the directory to keep records in".to_owned()
            );
        }
        if self.no_nat && self.nat_namespaces {
            return Err("--nat-namespaces says where to ask about address translation, and with \
                        --no-nat nobody does: leave one out"
                .to_owned());
        }
        self.containers.check_together()?;
        match (&self.tls_cert, &self.tls_key) {
            (Some(_), None) => Err("--tls-cert needs --tls-key, the key of it".to_owned()),
            (None, Some(_)) => Err("--tls-key needs --tls-cert, its certificate".to_owned()),
            _ => Ok(()),
        }
    }

    /// Connections of one client; no more than there may be in all.
    pub(super) fn connections_per_client(&self) -> u32 {
        self.max_connections_per_client.min(self.max_connections)
    }

    /// Where to listen, from the three ways to say it: a port stands in for that of an address.
    pub fn tcp_address(&self) -> SocketAddr {
        let mut address = self.addr.unwrap_or(self.listen);
        if let Some(port) = self.port {
            address.set_port(port);
        }
        address
    }

    /// Where history lies, if there is to be one.
    pub fn history(&self) -> Option<HistoryOptions> {
        let directory =
            self.data_dir.clone().filter(|_| self.store != Some(StoreChoice::Memory))?;
        let (limit_bytes, max_age) = (self.disk_limit, Some(self.max_age));
        Some(HistoryOptions { directory, limit_bytes, max_age })
    }

    /// What to capture.
    pub fn capture(&self) -> Builder {
        Builder {
            only_process: Listed::all(&self.only_process).cloned().collect(),
            only_pid: self.only_pid.clone(),
            only_uid: self.only_uid.clone(),
            only_port: self.only_port.clone(),
            only_cidr: self.only_cidr.clone(),
            no_loopback: self.no_loopback,
            no_unix: self.no_unix_sockets,
            no_inbound: self.no_inbound,
            no_preexisting: self.no_preexisting,
            no_drops: self.no_drops,
            hash_exe: self.hash_exe,
            no_dns: self.no_dns,
            no_nat: self.no_nat,
            nat_namespaces: self.nat_namespaces,
            give_up: Some(GiveUp { user: self.user }),
            ring_bytes: Some(self.ring_size),
            max_sockets: Some(self.max_sockets),
            backend: match self.backend {
                BackendChoice::Auto => None,
                BackendChoice::Fentry => Some(Backend::Fentry),
                BackendChoice::Kprobe => Some(Backend::Kprobe),
                BackendChoice::Tracepoint => Some(Backend::Tracepoint),
            },
            ..ConnectionStream::builder()
        }
    }
}

/// An address to listen on.
fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let text = text.trim();
    let with_host = match text.strip_prefix(':') {
        Some(port) => format!("{}:{port}", Ipv4Addr::LOCALHOST),
        None => match text.strip_prefix("localhost:") {
            Some(port) => format!("{}:{port}", Ipv4Addr::LOCALHOST),
            None => text.to_owned(),
        },
    };
    with_host
        .parse()
        .map_err(|_| "expected an address and a port, such as 127.0.0.1:8080".to_owned())
}

/// A user of /etc/passwd, or two numbers.
fn user(text: &str) -> Result<Identity, String> {
    let numbers = text.split_once(':').map(|(uid, gid)| (uid.parse(), gid.parse()));
    if let Some((Ok(uid), Ok(gid))) = numbers {
        return Ok(Identity { uid, gid });
    }
    let passwd = std::fs::read("/etc/passwd").unwrap_or_default();
    let passwd = String::from_utf8_lossy(&passwd);
    let mut lines = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let found = lines.find_map(|fields| match fields.as_slice() {
        [name, _, uid, gid, ..] if *name == text => {
            Some(Identity { uid: uid.parse().ok()?, gid: gid.parse().ok()? })
        }
        _ => None,
    });
    found.ok_or_else(|| {
        "there is no such user in /etc/passwd; users from elsewhere are named as UID:GID".to_owned()
    })
}

/// Bytes: a number alone, or with KiB, MiB or GiB (KB, K and so on mean the same).
fn size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => return Err("expected a size such as 256MiB".to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| "expected a size such as 256MiB".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "is too large".to_owned())
}

fn memory_limit(text: &str) -> Result<u64, String> {
    match size(text)? {
        bytes if bytes < 1 << 20 => Err("at least 1MiB is needed".to_owned()),
        bytes if bytes > 1 << 40 => Err("at most 1024GiB".to_owned()),
        bytes => Ok(bytes),
    }
}

fn disk_limit(text: &str) -> Result<u64, String> {
    match size(text)? {
        bytes if bytes < 16 << 20 => Err("at least 16MiB is needed".to_owned()),
        bytes => Ok(bytes),
    }
}

fn max_age(text: &str) -> Result<Duration, String> {
    let wrong = || "expected an age such as 12h or 30d".to_owned();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    match number.checked_mul(seconds) {
        Some(0) | None => Err(wrong()),
        Some(seconds) => Ok(Duration::from_secs(seconds)),
    }
}

fn ring_size(text: &str) -> Result<u32, String> {
    let bytes = size(text)?;
    match u32::try_from(bytes) {
        Ok(n) if n.is_power_of_two() && (64 << 10..=1 << 30).contains(&n) => Ok(n),
        _ => Err("expected a power of two from 64KiB to 1GiB".to_owned()),
    }
}

fn paths(text: &str) -> Result<Listed<PathBuf>, String> {
    Listed::read(text, |text| match text {
        "" => Err("expected the path of a file".to_owned()),
        path => Ok(PathBuf::from(path)),
    })
}

fn process_names(text: &str) -> Result<Listed<String>, String> {
    Listed::read(text, process_name)
}

fn process_name(text: &str) -> Result<String, String> {
    match text.len() {
        1..=15 => Ok(text.to_owned()),
        _ => Err("expected 1 to 15 bytes, which is what the kernel keeps of a name".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(arguments: &[&str]) -> Result<Options, clap::Error> {
        Options::try_parse_from([&["ebpf-server"], arguments].concat())
    }

    #[test]
    fn the_options_fit_together() {
        Options::command().debug_assert();
    }

    #[test]
    fn the_originals_spellings_work() {
        for arguments in [&["--http", "--port", "8080"][..], &["--addr", ":8080"], &[]] {
            let address = parse(arguments).unwrap().tcp_address();
            assert_eq!(address, "127.0.0.1:8080".parse().unwrap());
        }
        let address = parse(&["--listen", "[::1]:1", "--port", "2"]).unwrap().tcp_address();
        assert_eq!(address, "[::1]:2".parse().unwrap());
    }

    #[test]
    fn an_address_that_others_can_reach_is_refused_with_the_reason() {
        for address in ["0.0.0.0:8080", "[::]:8080", "10.0.0.1:80", "[::ffff:1.2.3.4]:80"] {
            let options = parse(&["--listen", address]).unwrap();
            let error = options.check_together().unwrap_err();
            assert!(error.contains("only loopback") && error.contains("--token-file"), "{error}");
            let options = parse(&["--listen", address, "--token-file", "x"]).unwrap();
            assert_eq!(options.check_together(), Ok(()));
        }
        for address in ["", "localhost", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:65536", ":"] {
            assert!(parse(&["--listen", address]).is_err(), "{address}");
        }
    }

    #[test]
    fn history_is_kept_where_a_directory_is_named() {
        assert_eq!(parse(&[]).unwrap().history(), None);
        let history = parse(&["--data-dir", "a", "--max-age", "12h"]).unwrap().history().unwrap();
        assert_eq!(history.directory, PathBuf::from("a"));
        assert_eq!(history.max_age, Some(Duration::from_secs(12 * 3_600)));
        assert_eq!(parse(&["--data-dir", "a", "--store", "memory"]).unwrap().history(), None);
        assert!(parse(&["--data-dir", "a", "--store", "disk"]).unwrap().history().is_some());
        let error = parse(&["--store", "disk"]).unwrap().check_together().unwrap_err();
        assert!(error.contains("--data-dir"), "{error}");
        assert!(parse(&["--data-dir", "a", "--replay", "b"]).is_err());
    }

    #[test]
    fn sizes_have_units_and_bounds() {
        let options = parse(&["--memory-limit", "1GiB", "--ring-size", "64k"]).unwrap();
        assert_eq!((options.memory_limit, options.ring_size), (1 << 30, 64 << 10));
        for (option, size) in [
            ("--ring-size", "100KiB"),
            ("--ring-size", "32KiB"),
            ("--ring-size", "2GiB"),
            ("--ring-size", ""),
            ("--memory-limit", "99999999999999GiB"),
            ("--memory-limit", "1"),
            ("--memory-limit", "-1"),
            ("--memory-limit", "1TB"),
            ("--max-sockets", "0"),
            ("--only-process", "a-name-of-more-than-15-bytes"),
            ("--only-cidr", "10.0.0.0/99"),
            ("--backend", "guess"),
            ("--log-level", "loud"),
            ("--max-connections", "1"),
            ("--max-streams", "0"),
            ("--user", "nobody of this name"),
            ("--user", "1:"),
        ] {
            assert!(parse(&[option, size]).is_err(), "{option} {size}");
        }
        assert!(parse(&["--replay", "a", "--record", "b"]).is_err());
        for (option, value) in [("--disk-limit", "1MiB"), ("--max-age", "30"), ("--max-age", "0d")]
        {
            assert!(parse(&["--data-dir", "a", option, value]).is_err(), "{option} {value}");
        }
        assert!(parse(&["--unknown"]).is_err());
        assert_eq!(parse(&["--user", "7:8"]).unwrap().user, Some(Identity { uid: 7, gid: 8 }));
        assert_eq!(parse(&["--user", "root"]).unwrap().user, Some(Identity { uid: 0, gid: 0 }));
    }

    #[test]
    fn certificate_and_key_come_together() {
        for (one, other) in [("--tls-cert", "--tls-key"), ("--tls-key", "--tls-cert")] {
            let error = parse(&[one, "x"]).unwrap().check_together().unwrap_err();
            assert!(error.contains(other), "{error}");
        }
        let both = parse(&["--tls-cert", "x", "--tls-key", "y"]).unwrap();
        assert_eq!(both.check_together(), Ok(()));
    }
}

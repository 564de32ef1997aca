//! Programs of others, and the ways in which resolvers ask, against a name server of the test's own.

use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use netspy::event::{Connection, DnsOutcome, NameSource, Protocol};

use crate::dns::{LOCALHOST, called, is, network, refuse};
use crate::dns_server::{PORT, Server, question};
use crate::harness::{goes_to, v4};

/// The files by which resolvers are set up, of the test's own.
struct Etc(PathBuf);

impl Etc {
    /// Resolvers ask this name server.
    fn new(server: Ipv4Addr) -> Self {
        let dir = std::env::temp_dir().join(format!("netspy-live-dns-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let resolv = format!("nameserver {server}\noptions attempts:1 timeout:5\n");
        std::fs::write(dir.join("resolv.conf"), resolv).unwrap();
        std::fs::write(dir.join("nsswitch.conf"), "hosts: files dns\n").unwrap();
        Etc(dir)
    }

    /// Runs a command of the shell that sees these files, by way of a mount namespace.
    fn run(&self, command: &str) -> Output {
        let dir = self.0.display();
        let script = format!(
            "mount --bind {dir}/resolv.conf /etc/resolv.conf && \
             mount --bind {dir}/nsswitch.conf /etc/nsswitch.conf && {command}"
        );
        Command::new("unshare").args(["-m", "sh", "-c", &script]).output().unwrap()
    }
}

impl Drop for Etc {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn has(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
    let found = found.is_ok_and(|output| output.status.success());
    if !found {
        println!("skipped: {program} is not installed");
    }
    found
}

#[test]
fn curl_is_understood() {
    let Some(watch) = network() else { return };
    if !has("curl") {
        return;
    }
    let server = Server::start(LOCALHOST);
    server.set("www.netspy.example", &[[198, 51, 100, 10]]);
    let ran =
        Etc::new(Ipv4Addr::LOCALHOST).run("exec curl -s -m 5 http://www.netspy.example:8443/");
    // CURLE_COULDNT_CONNECT
    assert_eq!(ran.status.code(), Some(7), "{ran:?}");
    let remote = v4([198, 51, 100, 10], 8443);
    assert_eq!(called(&watch, remote), is("www.netspy.example", NameSource::Dns));
    let of_server = watch.records(|c| goes_to(c, SocketAddr::new(LOCALHOST, PORT)));
    assert!(!of_server.is_empty(), "the question itself is a record");
    let asked =
        watch.dns("curl's question", |r| &*r.name == "www.netspy.example" && r.record_type == "A");
    assert_eq!(asked.outcome, DnsOutcome::Answered);
    assert_eq!(&*asked.process.unwrap().comm, "curl");
    let of_socket = of_server.iter().find(|c| Some(c.id) == asked.connection);
    assert!(of_socket.is_some(), "{:?} in {of_server:#?}", asked.connection);
}

#[test]
fn getent_is_understood_and_a_name_may_have_eight_addresses() {
    let Some(watch) = network() else { return };
    if !has("getent") {
        return;
    }
    let server = Server::start(LOCALHOST);
    let addresses: Vec<_> = (31..39).map(|n| [198, 51, 100, n]).collect();
    server.set("eight.example", &addresses);
    let ran = Etc::new(Ipv4Addr::LOCALHOST).run("exec getent ahostsv4 eight.example");
    assert!(ran.status.success(), "{ran:?}");
    let asked = watch.dns("getent's question", |r| &*r.name == "eight.example");
    assert_eq!(&*asked.process.as_ref().unwrap().comm, "getent");
    assert_eq!(asked.addresses.len(), 8, "{asked:#?}");
    for ip in addresses {
        let remote = v4(ip, 8080);
        refuse(remote);
        assert_eq!(called(&watch, remote), is("eight.example", NameSource::DnsNetns));
    }
}

/// The C library weighs each address by a datagram socket that sends nothing, and is then connected to.
#[test]
fn eight_addresses_that_are_tried_in_turn_are_those_that_follow_the_answer() {
    let Some(watch) = network() else { return };
    if !has("curl") {
        return;
    }
    let server = Server::start(LOCALHOST);
    let addresses: Vec<_> = (71..79).map(|n| [198, 51, 100, n]).collect();
    server.set("tried.example", &addresses);
    let curl = "exec curl -4 -s -m 10 http://tried.example:8447/";
    assert_eq!(Etc::new(Ipv4Addr::LOCALHOST).run(curl).status.code(), Some(7));
    let tried = addresses.into_iter().map(|ip| {
        let is_meant = |c: &Connection| goes_to(c, v4(ip, 8447)) && c.protocol == Protocol::Tcp;
        watch.wait("what is tried", is_meant).id
    });
    let tried: Vec<_> = tried.collect();
    watch.dns("all that was connected to", |r| {
        &*r.name == "tried.example" && tried.iter().all(|id| r.connections.contains(id))
    });
}

#[test]
fn two_sockets_of_one_thread_of_which_another_reads_are_understood() {
    let Some(watch) = network() else { return };
    // As Go does: a question for each family of addresses, on sockets of their own, whose answers
    // whatever thread is free reads.
    let server = Server::start(LOCALHOST);
    server.set("go.example", &[[198, 51, 100, 40]]);
    let asks = |name: &str| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        socket.connect((LOCALHOST, PORT)).unwrap();
        socket.send(&question(name)).unwrap();
        socket
    };
    let sockets = [asks("go.example"), asks("other.example")];
    std::thread::spawn(move || {
        for socket in sockets {
            assert!(socket.recv(&mut [0; 512]).unwrap() > 12);
        }
    })
    .join()
    .unwrap();
    let remote = v4([198, 51, 100, 40], 443);
    refuse(remote);
    assert_eq!(called(&watch, remote), is("go.example", NameSource::Dns));
    let other = watch.dns("the other question", |r| &*r.name == "other.example");
    assert_eq!(other.outcome, DnsOutcome::NoData);
}

#[test]
fn two_questions_on_one_socket_without_peer_are_understood() {
    let Some(watch) = network() else { return };
    // As musl does.
    let server = Server::start(LOCALHOST);
    server.set("musl.example", &[[198, 51, 100, 41]]);
    server.set("second.example", &[[198, 51, 100, 42]]);
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    for name in ["musl.example", "second.example"] {
        socket.send_to(&question(name), (LOCALHOST, PORT)).unwrap();
    }
    for _ in 0..2 {
        assert!(socket.recv(&mut [0; 512]).unwrap() > 12);
    }
    for (last, name) in [(41, "musl.example"), (42, "second.example")] {
        let remote = v4([198, 51, 100, last], 443);
        refuse(remote);
        assert_eq!(called(&watch, remote), is(name, NameSource::Dns));
        let asked = watch.dns(name, |r| &*r.name == name);
        assert_eq!((asked.outcome, asked.connection), (DnsOutcome::Answered, None));
        assert_eq!(asked.process.unwrap().pid, std::process::id());
    }
}

/// A resolver that runs until it is dropped.
struct Resolver(Child);

impl Drop for Resolver {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a resolver that is installed, or out of what `script/tools` has fetched, after a line of the
/// shell; waits until it takes connections here. `None`, and said, without it.
fn resolver(program: &str, line: &str, arguments: &str, address: Ipv4Addr) -> Option<Resolver> {
    let fetched = crate::tools::directory().unwrap_or_default().join("resolvers");
    let places = [PathBuf::from("/"), fetched.clone()];
    let Some(path) = places.iter().map(|place| place.join(program)).find(|path| path.exists())
    else {
        println!("skipped: there is no {program} (script/bootstrap test fetches it, where it can)");
        return None;
    };
    let libraries = ["usr/lib", "lib"].map(|lib| fetched.join(lib).join("x86_64-linux-gnu"));
    let libraries = libraries.iter().flat_map(|lib| [lib.clone(), lib.join("systemd")]);
    let libraries: Vec<_> = libraries.map(|lib| lib.display().to_string()).collect();
    let script = format!("{line} exec {} {arguments}", path.display());
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", &script]).env("LD_LIBRARY_PATH", libraries.join(":"));
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut resolver = Resolver(child);
    let patience = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect((address, PORT)).is_err() {
        if let Some(status) = resolver.0.try_wait().unwrap() {
            println!("skipped: {program} does not run here: {status}");
            return None;
        }
        assert!(Instant::now() < patience, "{program} takes no connections");
        std::thread::sleep(Duration::from_millis(20));
    }
    Some(resolver)
}

#[test]
fn the_stub_of_systemd_resolved_is_asked_like_any_server() {
    let Some(watch) = network() else { return };
    let stub = Ipv4Addr::new(127, 0, 0, 53);
    let server = Server::start(LOCALHOST);
    server.set("stub.netspy.example", &[[198, 51, 100, 50]]);
    // It wants a network that is up beside loopback, a user of its own, files in /run and a
    // configuration.
    let line = "ip link add up0 type veth peer name up1 && ip address add 192.0.2.1/24 dev up0 && \
        ip link set up0 up && ip link set up1 up && mount -t tmpfs none /run && mkdir -p /run/systemd && \
        { cat /etc/passwd; echo systemd-resolve:x:990:990::/:/bin/false; } > /run/passwd && \
        { cat /etc/group; echo systemd-resolve:x:990:; } > /run/group && \
        mount --bind /run/passwd /etc/passwd && mount --bind /run/group /etc/group && \
        mount -t tmpfs none /etc/systemd && \
        printf '[Resolve]\\nDNS=127.0.0.1\\nDNSSEC=no\\nLLMNR=no\\nDomains=~.\\n' \
        > /etc/systemd/resolved.conf &&";
    let Some(_resolver) = resolver("lib/systemd/systemd-resolved", line, "", stub) else { return };
    let ran = Etc::new(stub).run("exec getent ahostsv4 stub.netspy.example");
    assert!(ran.status.success(), "{ran:?}");
    // The program asks the stub, and the stub the server: two questions, each with who asked.
    for (comm, asked) in [("getent", stub.into()), ("systemd-resolve", LOCALHOST)] {
        let record = watch.dns(comm, |r| {
            &*r.name == "stub.netspy.example" && r.server.ip == asked && r.record_type == "A"
        });
        assert_eq!(&*record.process.unwrap().comm, comm);
        assert_eq!(record.outcome, DnsOutcome::Answered, "{comm}");
    }
    if has("curl") {
        let curl = "exec curl -s -m 5 http://stub.netspy.example:8444/";
        assert_eq!(Etc::new(stub).run(curl).status.code(), Some(7));
        let remote = v4([198, 51, 100, 50], 8444);
        assert_eq!(called(&watch, remote), is("stub.netspy.example", NameSource::Dns));
    }
}

#[test]
fn dnsmasq_answers_and_two_names_of_one_address_are_told_apart() {
    let Some(watch) = network() else { return };
    if !has("curl") {
        return;
    }
    let arguments = "--no-daemon --no-resolv --no-hosts --pid-file= --user=root \
        --conf-file=/dev/null --listen-address=127.0.0.1 --bind-interfaces \
        --address=/one.example/198.51.100.60 --address=/two.example/198.51.100.60";
    let Some(_dnsmasq) = resolver("usr/sbin/dnsmasq", "", arguments, Ipv4Addr::LOCALHOST) else {
        return;
    };
    for (name, port) in [("one.example", 8445), ("two.example", 8446)] {
        let curl = format!("exec curl -4 -s -m 5 http://{name}:{port}/");
        assert_eq!(Etc::new(Ipv4Addr::LOCALHOST).run(&curl).status.code(), Some(7));
    }
    for (name, port) in [("one.example", 8445), ("two.example", 8446)] {
        let remote = v4([198, 51, 100, 60], port);
        assert_eq!(called(&watch, remote), is(name, NameSource::Dns));
        let followed = watch.dns("an answer that was followed", |r| {
            &*r.name == name && r.record_type == "A" && !r.connections.is_empty()
        });
        let connection = watch.outcome(remote);
        assert_eq!(followed.connections, [connection.id], "{name}");
    }
}

//! What tests need another process for: this program, started again to play one role.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use rustix::net::{AddressFamily, SocketType};

/// Names the role, and tells the started program that it has one.
const ROLE: &str = "NETSPY_LIVE_ROLE";
const REMOTE: &str = "NETSPY_LIVE_REMOTE";

/// This program in a role; it ends with the errno of its connect(), 0 for none.
pub fn play(role: &str, remote: SocketAddr) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([
        "--exact",
        "roles::a_role_is_played_where_one_is_given",
        "--test-threads=1",
        "--nocapture",
    ]);
    command.env(ROLE, role).env(REMOTE, remote.to_string()).stdout(Stdio::null());
    command
}

#[test]
fn a_role_is_played_where_one_is_given() {
    let (Ok(role), Ok(remote)) = (std::env::var(ROLE), std::env::var(REMOTE)) else {
        let status = play("connect", crate::harness::bound_port()).status().unwrap();
        assert_eq!(status.code(), Some(libc::ECONNREFUSED), "what connect() said");
        return;
    };
    let remote: SocketAddr = remote.parse().unwrap();
    if let Some(then) = role.strip_prefix("accept from standard input") {
        let accepted = rustix::net::accept(std::io::stdin()).unwrap();
        if then == " and wait" {
            rustix::io::write(&accepted, b"!").unwrap();
            rustix::io::read(&accepted, &mut [0]).unwrap();
        }
        std::process::exit(0);
    }
    if role == "capture" {
        return crate::faults::capture_until_killed();
    }
    match role.as_str() {
        "family" => return crate::descendants::family(remote),
        "many" => return crate::descendants::many(remote),
        "two" => return crate::descendants::two(remote),
        "connect in a thread" => {
            let attempt = move || std::net::TcpStream::connect(remote).map(drop);
            std::thread::spawn(attempt).join().unwrap().unwrap_err();
            std::process::exit(0);
        }
        _ => {}
    }
    if role == "flood" {
        return crate::flood::flood(remote);
    }
    let family = if remote.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let kind = match role.as_str() {
        "connect a datagram socket" => SocketType::DGRAM,
        _ => SocketType::STREAM,
    };
    let fd = rustix::net::socket(family, kind, None).unwrap();
    match role.as_str() {
        "connect" | "connect a datagram socket" | "connect and wait" => {}
        "connect, orphaned" => crate::processes::wait_for_another_parent(),
        "connect from elsewhere" | "connect from elsewhere and wait" => {
            std::env::set_current_dir(crate::processes::ELSEWHERE).unwrap();
        }
        "connect, one retry" => crate::harness::set_syn_retries(&fd, 1),
        "connect through signals" => {
            crate::harness::set_syn_retries(&fd, 1);
            interrupt_with_restart();
        }
        other => panic!("no role {other}"),
    }
    let errno = rustix::net::connect(&fd, &remote).err().map_or(0, |e| e.raw_os_error());
    if role.ends_with("and wait") {
        // Until the other end is closed.
        std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).unwrap();
    }
    std::process::exit(errno);
}

/// Signals 20 times a second, whose handler lets interrupted calls start again.
fn interrupt_with_restart() {
    extern "C" fn nothing(_: libc::c_int) {}
    let every = libc::timeval { tv_sec: 0, tv_usec: 50_000 };
    let timer = libc::itimerval { it_interval: every, it_value: every };
    // SAFETY: the handler does nothing, the structures are initialised and live through the calls.
    #[allow(unsafe_code)]
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as *const () as usize;
        action.sa_flags = libc::SA_RESTART;
        assert_eq!(libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut()), 0);
        assert_eq!(libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()), 0);
    }
}

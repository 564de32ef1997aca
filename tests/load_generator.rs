//! The load that benches and live tests use does what it says: that many calls, these errors, no
//! faster than asked. Needs no privilege.

#[path = "../benches/overhead/load.rs"]
mod load;

use std::time::Duration;

use load::{Kind, Plan, Rate, run};

#[test]
fn every_connect_to_the_closed_port_is_refused() {
    let outcome = run(&Plan { kind: Kind::TcpRefused, rate: Rate::Max, count: 1_234 }).unwrap();
    assert_eq!(outcome.attempted, 1_234);
    assert_eq!(outcome.errors.into_iter().collect::<Vec<_>>(), [(libc::ECONNREFUSED, 1_234)]);
    assert!(outcome.with_close_ns > Some(outcome.call_ns));
}

#[test]
fn every_connect_to_the_listener_succeeds() {
    let outcome = run(&Plan { kind: Kind::TcpEstablished, rate: Rate::Max, count: 1_234 }).unwrap();
    assert_eq!((outcome.attempted, outcome.errors.len()), (1_234, 0));
    assert!(outcome.with_close_ns > Some(outcome.call_ns));
}

#[test]
fn datagram_calls_and_other_calls_succeed() {
    for kind in [Kind::Udp, Kind::UdpNew, Kind::UdpSend, Kind::Getppid] {
        let outcome = run(&Plan { kind, rate: Rate::Max, count: 250 }).unwrap();
        assert_eq!((outcome.attempted, outcome.errors.len()), (250, 0), "{kind}");
        assert!(outcome.call_ns > 0.0, "{kind}");
    }
}

#[test]
fn a_paced_load_is_no_faster_than_asked() {
    let outcome =
        run(&Plan { kind: Kind::Udp, rate: Rate::PerSecond(10_000), count: 501 }).unwrap();
    assert_eq!(outcome.attempted, 501);
    assert!(outcome.elapsed >= Duration::from_millis(50), "{:?}", outcome.elapsed);
}

#[test]
fn rates_are_words_or_positive_numbers() {
    assert_eq!("max".parse(), Ok(Rate::Max));
    assert_eq!("5000".parse(), Ok(Rate::PerSecond(5_000)));
    for bad in ["", "0", "-1", "fast", "4294967296"] {
        assert!(bad.parse::<Rate>().is_err(), "{bad}");
    }
}

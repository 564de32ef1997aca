//! `netspy doctor`: what capture can see on this machine.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::panic, dead_code)]

mod cli_support;

use cli_support::*;
use serde_json::Value;

#[test]
fn the_doctor_says_what_works_or_what_is_missing() {
    let ran = run(&["doctor", "--output", "json"]);
    let found: Value = serde_json::from_str(&ran.out).unwrap();
    let facts = found["facts"].as_array().unwrap();
    assert!(facts.iter().all(|fact| !fact["found"].as_str().unwrap().is_empty()), "{found}");
    let privileged = facts.iter().any(|f| f["name"] == "privileges" && f["ok"] == true);
    match ran.code {
        0 => {
            assert!(privileged && found["error"].is_null());
            for (name, feature) in found["report"]["features"].as_object().unwrap() {
                let says = if feature["ok"] == true { "hook" } else { "note" };
                assert!(feature[says].as_str().is_some_and(|s| !s.is_empty()), "{name}");
            }
        }
        4 => {
            let error = found["error"].as_str().unwrap();
            assert!(!privileged && error.contains("run as root"), "{error}");
        }
        code => panic!("exit code {code}: {}", ran.out),
    }
    let table = run(&["doctor"]);
    assert_eq!(table.code, ran.code);
    assert!(table.out.contains("Capture works here") == (ran.code == 0), "{}", table.out);
}

#[test]
fn a_backend_that_does_not_exist_is_a_usage_error_that_names_those_that_do() {
    let ran = run(&["doctor", "--backend", "magic"]);
    assert_eq!((ran.code, ran.out.as_str()), (2, ""));
    assert!(ran.err.contains("fentry, kprobe, tracepoint"), "{}", ran.err);
}

//! `/metrics`: what the books, the store, HTTP and the process itself have to say, for Prometheus.
//!
//! No label is taken from telemetry: each comes from a closed list, so that a scrape has a bounded
//! size whatever runs on the host.

pub(super) mod http;
mod process;
mod text;

use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use super::Api;
use crate::accounting::{Counters, DnsCounters, NatCounters};
use crate::capture::features::FEATURES;
use crate::containers::ContainerStatus;
use crate::query::{CaptureHandle, HistoryStatus, StoreStatus};
use crate::store::{ANSWER_BOUNDS_US, HANDSHAKE_BOUNDS_US, Tallies};
use text::{Form, Kind, Page};

pub(super) async fn metrics(State(api): State<Api>, headers: HeaderMap) -> Response {
    let form = Form::accepted(&headers);
    let mut page = Page::new(form);
    let capture = api.source.capture();
    build(&mut page);
    let counters = capture.counters();
    books(&mut page, &counters, api.source.store().lost_at_ends());
    details(&mut page, &counters);
    geoip(&mut page, api.geoip_failures.as_deref());
    capture_state(&mut page, capture.as_ref());
    tallies(&mut page, api.source.store().tallies());
    store(&mut page, &api.source.store().status());
    api.figures.write(&mut page, api.max_streams - api.streams.available_permits());
    process::write(&mut page);
    ([(CONTENT_TYPE, form.content_type())], page.finish()).into_response()
}

fn build(page: &mut Page) {
    let commit = crate::COMMIT.unwrap_or_default();
    page.family(Kind::Info, "netspy_build", "Which build this is.")
        .value(&[("version", crate::VERSION), ("commit", commit)], 1);
}

/// The books: attempts = delivered + filtered + lost + pending. What was lost at the ends of earlier
/// captures is beside that: the figures of this one begin with it.
fn books(page: &mut Page, counters: &Counters, lost_at_ends: u64) {
    let mut counter = |name, help: &str, value: u64| page.single(Kind::Counter, name, help, value);
    let help = "Connection attempts that the kernel side saw.";
    counter("netspy_attempts", help, counters.attempts);
    counter("netspy_delivered", "Attempts that reached the store.", counters.delivered);
    counter("netspy_filtered", "Attempts that the filters left out.", counters.filtered);
    let help = "Later versions of records that were lost.";
    counter("netspy_updates_lost", help, counters.updates_lost);
    let help = "Runs of BPF programs that the kernel skipped.";
    counter("netspy_missed", help, counters.missed);
    let help = "Dropped packets that the kernel side saw.";
    counter("netspy_drops_seen", help, counters.drops.packets);
    let help = "Dropped packets whose records were not taken in in time.";
    counter("netspy_drops_lost", help, counters.drops.lost);
    let help =
        "Dropped packets that found no room among the flows, and are counted by reason alone.";
    counter("netspy_drops_no_room", help, counters.drops.no_room);
    dns_books(&mut counter, &counters.dns);
    let help = "Attempts that wait for an outcome or are on their way.";
    page.single(Kind::Gauge, "netspy_pending", help, counters.pending());
    page.family(Kind::Counter, "netspy_lost", "Attempts that were lost, by cause.");
    let mut lost = counters.lost;
    lost.capture_ended += lost_at_ends;
    for (cause, count) in lost.by_cause() {
        page.value(&[("cause", cause)], count);
    }
}

/// What records lack; they are there themselves.
fn details(page: &mut Page, counters: &Counters) {
    let mut counter = |name, help: &str, value: u64| page.single(Kind::Counter, name, help, value);
    let help = "Starts of processes and programs, and new control groups, that the ring had no room \
                for: records may lack what they would have told.";
    counter("netspy_exec_lost", help, counters.exec_lost);
    let help = "Addresses that could not be read from the process.";
    counter("netspy_address_unread", help, counters.address_unread);
    let help = "Questions to the kernel about address translation, by what came of them.";
    page.family(Kind::Counter, "netspy_nat_questions", help);
    let NatCounters { asked, translated, failed, skipped } = counters.nat;
    for (result, count) in [
        ("translated", translated),
        ("same", asked.saturating_sub(translated + failed)),
        ("failed", failed),
        ("skipped", skipped),
    ] {
        page.value(&[("result", result)], count);
    }
}

/// Without databases the family is there, and has no samples.
fn geoip(page: &mut Page, failures: Option<&AtomicU64>) {
    let help = "Look-ups in databases of countries and networks that failed.";
    page.family(Kind::Counter, "netspy_geoip_failures", help);
    if let Some(failures) = failures {
        page.value(&[], failures.load(Ordering::Relaxed));
    }
}

/// Questions for names: questions = listed + no_room + those that wait.
fn dns_books(counter: &mut impl FnMut(&'static str, &str, u64), dns: &DnsCounters) {
    let help = "Questions for names that the kernel side saw.";
    counter("netspy_dns_questions", help, dns.questions);
    let help = "Questions for names that found no room among those that wait for an answer.";
    counter("netspy_dns_no_room", help, dns.no_room);
    let help = "DNS messages that were lost, or could not be understood.";
    counter("netspy_dns_messages_lost", help, dns.messages_lost);
    let help = "Records of questions for names that were not taken in in time.";
    counter("netspy_dns_lost", help, dns.lost);
}

fn capture_state(page: &mut Page, capture: &dyn CaptureHandle) {
    let up = u8::from(capture.stopped().is_none());
    page.single(Kind::Gauge, "netspy_capture_up", "Whether capture runs (1) or is down (0).", up);
    let report = capture.report();
    let help = "Whether a feature is observed on this kernel (1) or not (0).";
    page.family(Kind::Gauge, "netspy_feature_up", help);
    let others = ["drops", "container_names", "nat"];
    let names = FEATURES.iter().map(|feature| feature.name).chain(others);
    for (name, feature) in names.filter_map(|name| Some((name, report.features.get(name)?))) {
        page.value(&[("feature", name)], u8::from(feature.ok));
    }
    containers(page, capture.containers().as_ref());
}

/// Where nobody is asked the family is there, and has no samples.
fn containers(page: &mut Page, containers: Option<&ContainerStatus>) {
    let help =
        "Questions about containers to their runtimes and the kubelet, by what came of them.";
    page.family(Kind::Counter, "netspy_container_questions", help);
    let Some(status) = containers else { return };
    for (result, count) in [
        ("named", status.named),
        ("unknown", status.unknown),
        ("failed", status.failed),
        ("skipped", status.skipped),
    ] {
        page.value(&[("result", result)], count);
    }
}

fn tallies(page: &mut Page, tallies: &Tallies) {
    let help = "Outcomes that attempts came to. One that is sent and then refused counts as both.";
    page.family(Kind::Counter, "netspy_outcomes", help);
    for (direction, protocol, outcome, count) in tallies.outcomes() {
        let labels = [
            ("direction", direction.as_str()),
            ("protocol", protocol.as_str()),
            ("outcome", outcome.as_str()),
        ];
        page.value(&labels, count);
    }
    page.family(
        Kind::Counter,
        "netspy_dropped_packets",
        "Dropped packets, by the kernel's reason.",
    );
    for (reason, count) in tallies.drops() {
        page.value(&[("reason", reason)], count);
    }
    let help = "Time from attempt to established of TCP and MPTCP.";
    page.family(Kind::Histogram, "netspy_handshake_seconds", help);
    let (classes, sum) = tallies.handshakes();
    let bounds = HANDSHAKE_BOUNDS_US.map(|us| us as f64 / 1e6);
    page.histogram(&bounds, &classes, sum as f64 / 1e6);
    page.family(Kind::Counter, "netspy_dns_outcomes", "What came of questions for names.");
    for (outcome, count) in tallies.dns() {
        page.value(&[("outcome", outcome.as_str())], count);
    }
    let help = "Time from question for a name to answer.";
    page.family(Kind::Histogram, "netspy_dns_answer_seconds", help);
    let (classes, sum) = tallies.answers();
    let bounds = ANSWER_BOUNDS_US.map(|us| us as f64 / 1e6);
    page.histogram(&bounds, &classes, sum as f64 / 1e6);
}

fn store(page: &mut Page, store: &StoreStatus) {
    page.single(Kind::Gauge, "netspy_store_records", "Records held.", store.records);
    page.single(Kind::Gauge, "netspy_store_bytes", "Bytes in use by records.", store.bytes);
    let help = "The most bytes that records may use.";
    page.single(Kind::Gauge, "netspy_store_limit_bytes", help, store.limit_bytes);
    page.single(Kind::Counter, "netspy_store_evicted", "Records that aged out.", store.evicted);
    let help = "Start of the oldest record held, in seconds since 1970.";
    page.family(Kind::Gauge, "netspy_store_oldest_timestamp_seconds", help);
    if let Some(oldest) = store.oldest {
        page.value(&[], oldest.as_second());
    }
    history(page, store.history.as_ref());
}

/// Without history the families are there, and have no samples.
fn history(page: &mut Page, history: Option<&HistoryStatus>) {
    let mut single = |kind, name, help: &str, value: fn(&HistoryStatus) -> u64| {
        page.family(kind, name, help);
        if let Some(history) = history {
            page.value(&[], value(history));
        }
    };
    let help = "Whether history is written to disk (1) or the disk refuses (0).";
    single(Kind::Gauge, "netspy_history_up", help, |h| u64::from(h.stopped.is_none()));
    let help = "Bytes of the files of history.";
    single(Kind::Gauge, "netspy_history_bytes", help, |h| h.bytes);
    let help = "The most bytes that the files of history may use.";
    single(Kind::Gauge, "netspy_history_limit_bytes", help, |h| h.limit_bytes);
    let help = "Bytes that the file system still has for history.";
    single(Kind::Gauge, "netspy_history_room_bytes", help, |h| h.room_bytes);
    let help = "Segments of history, of which each is a file.";
    single(Kind::Gauge, "netspy_history_segments", help, |h| h.segments);
    let help = "Records in segments of history.";
    single(Kind::Gauge, "netspy_history_records", help, |h| h.records);
    let help = "Changes of records that are not in a file yet.";
    single(Kind::Gauge, "netspy_history_behind", help, |h| h.behind);
    let help = "Changes of records that were written to journals.";
    single(Kind::Counter, "netspy_history_written", help, |h| h.written);
    let help = "Changes of records that a journal could not take.";
    single(Kind::Counter, "netspy_history_unwritten", help, |h| h.unwritten);
    let help = "Segments that can no longer be read.";
    single(Kind::Gauge, "netspy_history_unreadable_segments", help, |h| h.unreadable);
    let help = "Files that the start found damaged, and set aside.";
    let set_aside = |h: &HistoryStatus| h.recovery.set_aside.len() as u64;
    single(Kind::Gauge, "netspy_history_set_aside_files", help, set_aside);
    let help = "Changes of records that had been written, and that the start found in no file.";
    let missing = |h: &HistoryStatus| h.recovery.missing_changes;
    single(Kind::Gauge, "netspy_history_missing_changes", help, missing);
    let help = "Changes of records that the start found in files, of a time that the books lack.";
    let unbooked = |h: &HistoryStatus| h.recovery.unbooked_changes;
    single(Kind::Gauge, "netspy_history_unbooked_changes", help, unbooked);
}

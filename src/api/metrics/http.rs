//! What HTTP does: requests by route and class of status, their time, connections.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;

use super::super::Api;
use super::text::{Kind, Page};

/// Upper bounds of the classes of times, in seconds.
const BOUNDS: [f64; 9] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0];
const CLASSES: usize = BOUNDS.len() + 1;

/// Figures that requests and connections leave.
#[derive(Debug, Default)]
pub struct HttpFigures {
    /// The paths are those of the router, so there is no end of neither.
    requests: Mutex<BTreeMap<(String, &'static str), u64>>,
    classes: [AtomicU64; CLASSES],
    microseconds: AtomicU64,
    /// Connections that are open.
    pub connections: AtomicU64,
    /// Requests that are being answered, streams included.
    pub in_flight: AtomicU64,
    /// Connections that were closed to make room, as they had been idle for longest.
    pub closed_idle: AtomicU64,
    /// Connections that were refused, as there was no room.
    pub refused: AtomicU64,
    /// Requests without the token.
    pub unauthorized: AtomicU64,
}

impl HttpFigures {
    fn note(&self, route: &str, status: u16, time: Duration) {
        let class = match status {
            100..=199 => "1xx",
            200..=299 => "2xx",
            300..=399 => "3xx",
            400..=499 => "4xx",
            _ => "5xx",
        };
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.entry((route.to_owned(), class)).or_default() += 1;
        drop(requests);
        let seconds = time.as_secs_f64();
        let class = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(CLASSES - 1);
        if let Some(class) = self.classes.get(class) {
            class.fetch_add(1, Ordering::Relaxed);
        }
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.microseconds.fetch_add(micros, Ordering::Relaxed);
    }

    pub(super) fn write(&self, page: &mut Page, streams: usize) {
        let help = "Requests answered, by route and class of status.";
        page.family(Kind::Counter, "netspy_http_requests", help);
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for ((route, class), count) in &requests {
            page.value(&[("route", route), ("status", class)], count);
        }
        let help = "Time from the head of a request to that of its answer.";
        let classes = self.classes.each_ref().map(|n| n.load(Ordering::Relaxed));
        let sum = self.microseconds.load(Ordering::Relaxed) as f64 / 1e6;
        page.family(Kind::Histogram, "netspy_http_request_duration_seconds", help);
        page.histogram(&BOUNDS, &classes, sum);
        let figure = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let help = "Requests that are being answered, event streams included.";
        page.single(Kind::Gauge, "netspy_http_in_flight", help, figure(&self.in_flight));
        page.single(Kind::Gauge, "netspy_http_streams", "Event streams that are open.", streams);
        let help = "Connections of clients that are open.";
        page.single(Kind::Gauge, "netspy_http_connections", help, figure(&self.connections));
        let help = "Idle connections that were closed to make room for others.";
        page.single(Kind::Counter, "netspy_http_closed_idle", help, figure(&self.closed_idle));
        let help = "Connections that were refused because there was no room.";
        page.single(Kind::Counter, "netspy_http_refused", help, figure(&self.refused));
        let help = "Requests without the token that they need.";
        page.single(Kind::Counter, "netspy_http_unauthorized", help, figure(&self.unauthorized));
    }
}

/// Notes each request.
pub(in crate::api) async fn measure(
    State(api): State<Api>,
    request: Request,
    next: Next,
) -> Response {
    let begun = Instant::now();
    // What matches no route is told apart by nothing: paths are the client's choice.
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    api.figures.note(route, response.status().as_u16(), begun.elapsed());
    response
}

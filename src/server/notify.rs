//! What the service manager is told (sd_notify(3)); nothing where there is none.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::query::CaptureHandle;

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!("the service manager could not be told: {error}");
    }
}

pub(super) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Until [`ready`] is said again. The time tells this reload from one before.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!("the service manager could not be told: {error}"),
    }
}

pub(super) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

/// Says that all is well for as long as it is: where the runtime hangs, or capture has stopped, the
/// service manager does what its unit says. Runs until it is dropped.
pub(super) async fn watch(capture: &dyn CaptureHandle) {
    let Some(patience) = sd_notify::watchdog_enabled() else {
        return std::future::pending().await;
    };
    // Twice in the time that is given, as sd_watchdog_enabled(3) advises.
    let pause = (patience / 2).max(Duration::from_millis(10));
    let mut was_well = true;
    loop {
        match capture.stopped() {
            None => tell(&[NotifyState::Watchdog]),
            Some(why) if was_well => {
                was_well = false;
                tell(&[NotifyState::Status(&format!("capture has stopped: {why}"))]);
            }
            Some(_) => {}
        }
        tokio::time::sleep(pause).await;
    }
}

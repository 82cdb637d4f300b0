//! What systemd is told of a daemon that it started (`sd_notify`). Elsewhere, nobody listens.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::task::JoinHandle;

/// How much time an end asks for at once.
const STEP: Duration = Duration::from_secs(15);

/// The mount is there.
pub(crate) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// How it fares, in one line.
pub(crate) fn status(status: &str) {
    tell(&[NotifyState::Status(status)]);
}

/// It ends.
pub(crate) fn stopping(status: &str) {
    tell(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// Asks for more time to stop, should it be stopping, again and again until this is dropped. Must run inside a tokio
/// runtime.
pub(crate) fn ask_for_time() -> MoreTime {
    let micros = u32::try_from(STEP.as_micros()).unwrap_or(u32::MAX);
    MoreTime(tokio::spawn(async move {
        let mut ticks = tokio::time::interval(STEP / 3);
        loop {
            ticks.tick().await;
            tell(&[NotifyState::ExtendTimeoutUsec(micros)]);
        }
    }))
}

/// That time is asked for.
#[must_use = "dropped, it asks for no more time"]
pub(crate) struct MoreTime(JoinHandle<()>);

impl Drop for MoreTime {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Tells it every now and then that this process is alive, if it wants to hear that: with a half of the time to spare.
pub(crate) async fn keep_alive() {
    let Some(within) = sd_notify::watchdog_enabled() else { return };
    let mut ticks = tokio::time::interval(within / 2);
    loop {
        ticks.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "systemd is not told");
    }
}

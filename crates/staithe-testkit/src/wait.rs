use std::thread;
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_millis(5);

/// Asks again and again until `holds` says yes, or the deadline has passed; returns the last answer.
///
/// The way to wait for another process: for what can be awaited, await it.
pub fn wait_until(deadline: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + deadline;
    loop {
        if holds() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        thread::sleep(INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_until_yes_or_too_late() {
        let mut asked = 0;
        assert!(wait_until(Duration::from_secs(10), || {
            asked += 1;
            asked == 3
        }));
        assert_eq!(asked, 3);
        assert!(!wait_until(Duration::ZERO, || false));
    }
}

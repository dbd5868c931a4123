//! How long a source is waited for, and how slow it may be.
//! It knows nothing of where the bytes come from.

use std::time::{Duration, Instant};

use super::ByteSize;

/// How patient a pull is; tiny in tests.
#[derive(Debug, Clone, Copy)]
pub(super) struct FetchTimeouts {
    /// Until a connection stands. Without a network the next source should get its turn soon.
    pub(super) connect: Duration,
    /// Until the hub has answered the first question.
    pub(super) answer: Duration,
    /// Until the first or the next bytes of a file come.
    pub(super) idle: Duration,
    /// Before an interrupted transfer is taken up again, the first time; doubled each time after.
    pub(super) retry_delay: Duration,
    /// Until a package client has told its version.
    pub(super) probe: Duration,
    /// The time in which [`Patience::bytes`] must come from a hub.
    pub(super) window: Duration,
    /// The same from a package client, which also asks an index, and tries again by itself.
    pub(super) client_window: Duration,
    /// Bytes that must come in that time, at least.
    pub(super) bytes: u64,
}

impl Default for FetchTimeouts {
    fn default() -> Self {
        FetchTimeouts {
            connect: Duration::from_secs(4),
            answer: Duration::from_secs(8),
            idle: Duration::from_secs(30),
            retry_delay: Duration::from_millis(200),
            probe: Duration::from_secs(20),
            window: Duration::from_secs(60),
            client_window: Duration::from_secs(180),
            bytes: 60_000,
        }
    }
}

/// Watches that a transfer makes progress.
#[derive(Debug)]
pub(super) struct StallDetector {
    window: Duration,
    bytes: u64,
    /// When the current window began, and with how many bytes.
    start: Instant,
    done: u64,
}

impl StallDetector {
    pub(super) fn new(window: Duration, bytes: u64, now: Instant, done: u64) -> StallDetector {
        StallDetector { window, bytes, start: now, done }
    }

    /// Says that `done` bytes are there; a message if too few came in the last window.
    pub(super) fn check_progress(&mut self, now: Instant, done: u64) -> Result<(), String> {
        // A transfer that begins again counts from there.
        self.done = self.done.min(done);
        if done - self.done >= self.bytes {
            (self.start, self.done) = (now, done);
        } else if now.saturating_duration_since(self.start) >= self.window {
            let (came, seconds) = (ByteSize(done - self.done), self.window.as_secs_f64());
            return Err(format!("only {came} came in {seconds:.0} s"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stall_detector_allows_steady_and_stops_slow_transfer() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut steady = StallDetector::new(Duration::from_secs(60), 1000, start, 0);
        for minute in 1..100 {
            assert_eq!(steady.check_progress(at(minute * 59), minute * 1000), Ok(()));
        }
        let mut drip = StallDetector::new(Duration::from_secs(60), 1000, start, 5);
        assert_eq!(drip.check_progress(at(59), 900), Ok(()));
        assert_eq!(drip.check_progress(at(60), 901), Err("only 896 B came in 60 s".to_owned()));
    }

    #[test]
    fn restarted_transfer_is_not_progress() {
        let start = Instant::now();
        let mut stall = StallDetector::new(Duration::from_secs(60), 1000, start, 900);
        assert_eq!(stall.check_progress(start + Duration::from_secs(30), 0), Ok(()));
        assert_eq!(stall.check_progress(start + Duration::from_secs(50), 900), Ok(()));
        assert!(stall.check_progress(start + Duration::from_secs(61), 950).is_err());
    }
}

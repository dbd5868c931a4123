//! Timeouts for sources, and detection of stalled transfers.

use std::time::{Duration, Instant};

use super::ByteSize;

/// The timeouts of a pull; tiny in tests.
#[derive(Debug, Clone, Copy)]
pub(super) struct FetchTimeouts {
    /// Until a connection is established. Without a network the next source should be tried soon.
    pub(super) connect: Duration,
    /// Until the hub has responded to the first request.
    pub(super) answer: Duration,
    /// Until the first or the next bytes of a file arrive.
    pub(super) idle: Duration,
    /// Before the first retry of an interrupted transfer; doubled for each further retry.
    pub(super) retry_delay: Duration,
    /// Until a package client has reported its version.
    pub(super) probe: Duration,
    /// The time in which [`FetchTimeouts::bytes`] must arrive from a hub.
    pub(super) window: Duration,
    /// The same for a package client, which also queries an index and retries by itself.
    pub(super) client_window: Duration,
    /// Minimum number of bytes that must arrive in a window.
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

/// Checks that a transfer makes progress.
#[derive(Debug)]
pub(super) struct StallDetector {
    window: Duration,
    bytes: u64,
    /// The start of the current window, and the number of bytes at that time.
    start: Instant,
    done: u64,
}

impl StallDetector {
    pub(super) fn new(window: Duration, bytes: u64, now: Instant, done: u64) -> StallDetector {
        StallDetector { window, bytes, start: now, done }
    }

    /// Records that `done` bytes have arrived; returns a message if too few arrived in the last window.
    pub(super) fn check_progress(&mut self, now: Instant, done: u64) -> Result<(), String> {
        // A restarted transfer counts from its new position.
        self.done = self.done.min(done);
        if done - self.done >= self.bytes {
            (self.start, self.done) = (now, done);
        } else if now.saturating_duration_since(self.start) >= self.window {
            let (received, seconds) = (ByteSize(done - self.done), self.window.as_secs_f64());
            return Err(format!("only {received} received in {seconds:.0} s"));
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
        assert_eq!(drip.check_progress(at(60), 901), Err("only 896 B received in 60 s".to_owned()));
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

//! The clock for the averages that determine the sizes of chunks and drafts.

use std::fmt;
use std::time::{Duration, Instant};

/// A clock. In tests a seed determines its steps, so that no run depends on the machine's speed.
pub(super) struct EngineClock(Box<dyn Fn() -> Instant + Send>);

impl EngineClock {
    /// The system's clock.
    pub(super) fn system() -> Self {
        Self(Box::new(Instant::now))
    }

    /// A clock that advances by up to some milliseconds per reading, as on machines of any speed.
    #[cfg(test)]
    pub(super) fn scripted(seed: u64) -> Self {
        use std::cell::RefCell;
        let state = RefCell::new((fastrand::Rng::with_seed(seed), Instant::now()));
        Self(Box::new(move || {
            let (random, now) = &mut *state.borrow_mut();
            *now += Duration::from_micros(1 << random.u32(..15));
            *now
        }))
    }

    pub(super) fn now(&self) -> Instant {
        (self.0)()
    }

    pub(super) fn elapsed_since(&self, earlier: Instant) -> Duration {
        self.now().saturating_duration_since(earlier)
    }
}

impl fmt::Debug for EngineClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

//! The primitives of the hand-off: the standard library's atomics and locks, and how long to poll before sleeping. The
//! model that tries all orders of the hand-off's steps has its own version of this file.

pub(super) use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence};
pub(super) use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a thread polls for work, or for the end of the others' work, before it sleeps.
const SPIN_TIME: Duration = Duration::from_micros(60);
/// How often a caller polls whether its background job is still wanted.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// Whether `ready` became true within [`SPIN_TIME`].
pub(super) fn spin_until(ready: impl Fn() -> bool) -> bool {
    let mut start = None;
    loop {
        for _ in 0..32 {
            if ready() {
                return true;
            }
            std::hint::spin_loop();
        }
        let start = *start.get_or_insert_with(Instant::now);
        if start.elapsed() > SPIN_TIME {
            return false;
        }
    }
}

/// Sleeps until notified, or for [`POLL_INTERVAL`].
pub(super) fn wait_briefly<'a>(condition: &Condvar, guard: MutexGuard<'a, ()>) -> MutexGuard<'a, ()> {
    match condition.wait_timeout(guard, POLL_INTERVAL) {
        Ok((guard, _)) => guard,
        Err(poisoned) => poisoned.into_inner().0,
    }
}

//! The priority of threads that do what nobody waits for.
//! It knows nothing of what they do.

use thread_priority::{Error, ThreadPriority, ThreadPriorityValue, set_current_thread_priority};

/// Of 100: niceness 9, so a compiler beside it gets seven times as much of a core.
const BACKGROUND: u8 = 25;

/// Lowers the calling thread's priority for good: a thread may not raise it again. Where the system refuses, it stays as it
/// is, and the log says so.
pub fn lower_priority() {
    let low = ThreadPriorityValue::try_from(BACKGROUND).map(ThreadPriority::Crossplatform);
    let low = low.map_err(|_| Error::Priority("out of range"));
    if let Err(problem) = low.and_then(set_current_thread_priority) {
        tracing::debug!(?problem, "a background thread stays at normal priority");
    }
}

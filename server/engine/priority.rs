//! Threads and processes that do what nobody waits for: their priority, their limits, and the memory that they leave.
//! It knows nothing of what they do.

use thread_priority::{Error, ThreadPriority, ThreadPriorityValue, set_current_thread_priority};

/// Of 100: niceness 9, so a compiler beside it gets seven times as much of a core.
const BACKGROUND_PRIORITY: u8 = 25;

/// Lowers the calling thread's priority for good: a thread may not raise it again. Where the system refuses, it stays as it
/// is, and the log says so.
pub fn lower_priority() {
    let low = ThreadPriorityValue::try_from(BACKGROUND_PRIORITY).map(ThreadPriority::Crossplatform);
    let low = low.map_err(|_| Error::Priority("out of range"));
    if let Err(problem) = low.and_then(set_current_thread_priority) {
        tracing::debug!(?problem, "a background thread stays at normal priority");
    }
}

/// Limits this whole process, for good: so many bytes of addresses, and no core dump when it dies of it. Where the system
/// has no such limits, nothing happens.
pub fn limit_process_memory(bytes: u64) {
    #[cfg(unix)]
    for (resource, most) in [(libc::RLIMIT_AS, bytes), (libc::RLIMIT_CORE, 0)] {
        let most = libc::rlim_t::try_from(most).unwrap_or(libc::RLIM_INFINITY);
        let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
        // SAFETY: the call reads one `rlimit`, which lives until it returns.
        if unsafe { libc::setrlimit(resource, &raw const limit) } != 0 {
            tracing::debug!("a limit of a background process is not set");
        }
    }
    #[cfg(not(unix))]
    let _ = bytes;
}

/// Gives memory that was freed back to the system. glibc keeps what lies between pieces that are still in use, which after
/// many documents is nearly all of it; other allocators give it back by themselves.
pub fn release_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it may be called at any time, from any thread; it locks what it looks at.
    unsafe {
        libc::malloc_trim(0);
    }
}

//! Background threads and processes: their priority, their limits, and the release of freed memory.

use thread_priority::{Error, ThreadPriority, ThreadPriorityValue, set_current_thread_priority};

/// The priority of a calculation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Priority {
    /// A client waits for the result.
    #[default]
    Interactive,
    /// No client waits: low-priority threads do the work, while the caller sleeps.
    Background,
}

impl Priority {
    /// `Background` if no client waits.
    pub fn from_background(background: bool) -> Self {
        if background { Self::Background } else { Self::Interactive }
    }
}

/// Out of 100: niceness 9, so a concurrent compiler gets seven times as much of a core.
const BACKGROUND_PRIORITY: u8 = 25;

/// Lowers the calling thread's priority permanently: a thread may not raise it again. If the system refuses, the
/// priority stays unchanged, which is logged.
pub fn lower_priority() {
    let low = ThreadPriorityValue::try_from(BACKGROUND_PRIORITY).map(ThreadPriority::Crossplatform);
    let low = low.map_err(|_| Error::Priority("out of range"));
    if let Err(problem) = low.and_then(set_current_thread_priority) {
        tracing::debug!(?problem, "a background thread stays at normal priority");
    }
}

/// Limits this whole process permanently: `bytes` of address space, and no core dump if it exceeds them. On systems
/// without such limits, nothing happens.
pub fn limit_process_memory(bytes: u64) {
    #[cfg(unix)]
    for (resource, most) in [(libc::RLIMIT_AS, bytes), (libc::RLIMIT_CORE, 0)] {
        let most = libc::rlim_t::try_from(most).unwrap_or(libc::RLIM_INFINITY);
        let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
        // SAFETY: the call reads one `rlimit`, which lives until it returns.
        if unsafe { libc::setrlimit(resource, &raw const limit) } != 0 {
            tracing::debug!("could not set a limit of a background process");
        }
    }
    #[cfg(not(unix))]
    let _ = bytes;
}

/// Returns freed memory to the system. glibc keeps freed memory between blocks that are still in use, which after many
/// documents is nearly all of it; other allocators return it by themselves.
pub fn release_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: `malloc_trim` may be called at any time, from any thread; it locks what it accesses.
    unsafe {
        libc::malloc_trim(0);
    }
}

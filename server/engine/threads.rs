//! Threads outside the thread pool: two tasks in parallel, and the threads that candle would start by itself.
//!
//! A process may have few threads left (`pids.max`, `ulimit -u`). rayon and candle panic if the system refuses a
//! thread, so their threads are started here, as many as the system allows.

use std::panic::resume_unwind;
use std::sync::{OnceLock, mpsc};
use std::thread;

use crate::EngineError;

/// Runs both in parallel if the system allows another thread, else one after the other.
pub(crate) fn run_both<A: Send, B>(first: impl Fn() -> A + Sync, second: impl FnOnce() -> B) -> (A, B) {
    thread::scope(|scope| {
        let started = thread::Builder::new().name("helper".to_owned()).spawn_scoped(scope, &first);
        let second = second();
        let first = match started {
            Ok(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
            Err(_) => first(),
        };
        (first, second)
    })
}

/// Ensures that candle has threads: rayon's, which it uses for matrix products, and on ARM its own.
///
/// # Errors
/// The system allows none, or on ARM fewer than candle will start.
pub(crate) fn start_candle_threads() -> Result<(), EngineError> {
    static STARTED: OnceLock<Result<(), String>> = OnceLock::new();
    let started = STARTED.get_or_init(|| {
        if cfg!(target_arch = "aarch64") {
            // If one of candle's own threads could not start, the others would work on freed memory.
            let own = candle_core::utils::get_num_threads();
            if spawn_waiting_threads(own).len() < own {
                return Err(format!("{own} threads are needed; set RAYON_NUM_THREADS to fewer"));
            }
            let _ = candle_core::utils::barrier_pool();
        }
        init_rayon_pool(rayon_thread_count())
    });
    started.clone().map_err(|problem| EngineError::Device {
        device: "candle".to_owned(),
        source: format!("the system allows too few threads ({problem}): raise the limit of threads").into(),
    })
}

/// The number of threads that rayon would start by itself.
fn rayon_thread_count() -> usize {
    let requested = std::env::var("RAYON_NUM_THREADS").ok().and_then(|threads| threads.parse().ok());
    let requested = requested.filter(|&threads: &usize| threads > 0);
    let most = crate::local::thread_pool::MAX_THREADS;
    requested.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from)).min(most)
}

/// Starts up to `threads` threads, as many as the system allows; each waits for the work that it will run.
fn spawn_waiting_threads(threads: usize) -> Vec<mpsc::Sender<rayon::ThreadBuilder>> {
    let start = |number: usize| {
        let (send, receive) = mpsc::channel::<rayon::ThreadBuilder>();
        let body = move || {
            if let Ok(body) = receive.recv() {
                body.run();
            }
        };
        thread::Builder::new().name(format!("rayon-{number}")).spawn(body).ok().map(|_| send)
    };
    (0..threads).map_while(start).collect()
}

/// Initialises rayon's global pool with up to `threads` threads, as many as the system allows.
fn init_rayon_pool(threads: usize) -> Result<(), String> {
    let mut waiting = spawn_waiting_threads(threads);
    if waiting.is_empty() {
        return Err("not even one could be started".to_owned());
    }
    if waiting.len() < threads {
        tracing::warn!(
            "only {} of {threads} threads could be started: responses take longer; raise the limit of threads",
            waiting.len()
        );
    }
    let count = waiting.len();
    let builder = rayon::ThreadPoolBuilder::new().num_threads(count).spawn_handler(move |thread| {
        let gone = || std::io::Error::from(std::io::ErrorKind::WouldBlock);
        waiting.pop().ok_or_else(gone)?.send(thread).map_err(|_| gone())
    });
    // This fails if the pool was started before.
    let _ = builder.build_global();
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn run_both_propagates_panics() {
        for at in 0..100 {
            assert_eq!(run_both(|| at + 1, || at + 2), (at + 1, at + 2));
        }
        let first =
            || catch_unwind(AssertUnwindSafe(|| run_both(|| assert!(rayon_thread_count() == 0, "no"), || 1)));
        assert!(first().is_err());
        let second =
            || catch_unwind(AssertUnwindSafe(|| run_both(|| 1, || assert!(rayon_thread_count() == 0, "no"))));
        assert!(second().is_err());
    }

    #[test]
    fn candle_threads_are_started_ahead() {
        assert!(start_candle_threads().is_ok() && start_candle_threads().is_ok());
        assert!(rayon::current_num_threads() >= 1);
        assert_eq!(spawn_waiting_threads(3).len(), 3);
    }
}

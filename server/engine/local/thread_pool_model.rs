//! The pool's hand-over in every order that its steps may have, under a memory model as weak as C++'s: a model for
//! loom (<https://docs.rs/loom>), which runs each test again and again until all orders were tried.
//! It knows nothing of real threads: it compiles the same source with loom's atomics and locks.
//!
//! loom finds a job or a piece that is lost or done twice, a thread that sleeps on, and what is read while it is
//! written. It does not know how long anything takes, so nobody spins here, and who waits for a moment waits until
//! notified.

use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::thread;

use job_handoff::JobHandoff;

#[path = "thread_pool/job_handoff.rs"]
#[expect(clippy::duplicate_mod, reason = "the pool's own source, with other atomics")]
mod job_handoff;

mod sync {
    pub(super) use loom::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence};
    pub(super) use loom::sync::{Condvar, Mutex, MutexGuard};
    pub(super) use std::sync::PoisonError;

    pub(super) fn spin_until(ready: impl Fn() -> bool) -> bool {
        ready()
    }

    pub(super) fn wait_briefly<'a>(condition: &Condvar, guard: MutexGuard<'a, ()>) -> MutexGuard<'a, ()> {
        condition.wait(guard).unwrap_or_else(PoisonError::into_inner)
    }
}

/// On the caller's stack, as the pool's jobs are; loom notices if a place is read or written by two at once.
struct ModelJob(Vec<UnsafeCell<usize>>);

fn run_piece(job: *const (), piece: usize) {
    // SAFETY: published by `jobs`, which waits for every piece.
    let ModelJob(places) = unsafe { &*job.cast::<ModelJob>() };
    // SAFETY: each piece is run once, and has a place of its own; the model is there to show it.
    places[piece].with_mut(|place| unsafe { *place += piece + 1 });
}

/// Hands jobs of so many pieces each to `workers` threads, one after the other, then ends them. In each order a thread is
/// interrupted where it need not be so many times at most; `LOOM_MAX_PREEMPTIONS` asks for more of them, and for hours.
fn check_jobs(workers: usize, preemptions: usize, sizes: &'static [usize], background: bool) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = model.preemption_bound.or(Some(preemptions));
    model.check(move || {
        let shared = Arc::new(JobHandoff::new());
        let workers: Vec<_> = (0..workers)
            .map(|_| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || shared.serve(&run_piece))
            })
            .collect();
        for &pieces in sizes {
            let job = ModelJob((0..pieces).map(|_| UnsafeCell::new(0)).collect());
            shared.publish((&raw const job).cast(), pieces);
            if background {
                shared.wait(pieces, Some(&mut || ()));
            } else {
                shared.help(&run_piece, &mut || ());
                shared.wait(pieces, None);
            }
            for (piece, place) in job.0.iter().enumerate() {
                // SAFETY: nobody is at the job any more.
                place.with(|place| assert_eq!(unsafe { *place }, piece + 1));
            }
        }
        shared.stop();
        for worker in workers {
            assert!(worker.join().is_ok());
        }
    });
}

#[test]
fn loom_one_worker_and_caller_share_two_jobs() {
    check_jobs(1, 2, &[2, 2], false);
}

#[test]
fn loom_two_workers_and_caller_share_a_job() {
    check_jobs(2, 1, &[2, 1], false);
}

#[test]
fn loom_worker_runs_while_caller_sleeps() {
    check_jobs(1, 2, &[2, 1], true);
}

#[test]
fn loom_two_workers_run_in_background() {
    check_jobs(2, 1, &[2, 1], true);
}

//! A model of the pool's hand-off for loom (<https://docs.rs/loom>): runs each test with every possible order of steps,
//! under a memory model as weak as C++'s. It compiles the pool's own source with loom's atomics and locks.
//!
//! loom finds jobs or pieces that are lost or run twice, threads that never wake, and data races. It has no notion of
//! time, so nothing spins here, and a brief wait lasts until it is notified.

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

/// A job on the caller's stack, like the pool's; loom notices a slot that two threads access at once.
struct ModelJob(Vec<UnsafeCell<usize>>);

fn run_piece(job: *const (), piece: usize) {
    // SAFETY: published by `check_jobs`, which waits for every piece.
    let ModelJob(places) = unsafe { &*job.cast::<ModelJob>() };
    // SAFETY: each piece runs once and has its own slot; the model exists to verify that.
    places[piece].with_mut(|place| unsafe { *place += piece + 1 });
}

/// Hands jobs of `sizes` pieces to `workers` threads, one after the other, then ends the threads. Explores orders with
/// at most `preemptions` preemptions; `LOOM_MAX_PREEMPTIONS` raises that limit, and the run takes hours.
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
                // SAFETY: no thread works on the job any more.
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

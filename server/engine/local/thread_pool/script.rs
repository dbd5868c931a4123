//! A pool without threads, for tests: a seed determines which thread takes each piece and when the caller polls.
//!
//! Where a job is cancelled depends on the speed of the threads and on how often the caller polls. Here both are
//! simulated on one thread: a job may run on the caller, on the others, or on all in turn, as on machines of any speed,
//! and runs the same way each time.

use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};

use super::CancelPoll;

#[derive(Debug)]
pub(super) struct PoolScript {
    threads: usize,
    random: Mutex<fastrand::Rng>,
}

impl PoolScript {
    /// A script for a pool of `threads` threads, including the caller.
    pub(super) fn new(threads: usize, seed: u64) -> Self {
        Self { threads, random: Mutex::new(fastrand::Rng::with_seed(seed)) }
    }

    pub(super) fn thread_count(&self) -> usize {
        self.threads
    }

    /// Runs a job; see [`super::PrioritizedPool::run_while`].
    pub(super) fn play_job(
        &self,
        pieces: usize,
        background: bool,
        look: CancelPoll<'_>,
        work: &dyn Fn(usize, usize),
    ) -> ControlFlow<()> {
        // A separate generator: a piece may run jobs.
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner).fork();
        // Of sixteen pieces, the caller takes `share`, or polls that often.
        let share = [0, 1, 16 / self.threads as u8, 15, 16][random.usize(..5)];
        let mut flow = ControlFlow::Continue(());
        // Pieces in progress on other threads when the caller cancels the job.
        let mut left = usize::MAX;
        for piece in 0..pieces {
            if left == 0 {
                break;
            }
            left -= 1;
            let looks = random.u8(..16) < share;
            let thread = match (background, looks) {
                (true, _) => random.usize(..self.threads),
                (false, true) => 0,
                (false, false) => random.usize(1.min(self.threads - 1)..self.threads),
            };
            work(piece, thread);
            if (looks || thread == 0 && !background) && flow.is_continue() {
                flow = look();
                if flow.is_break() {
                    left = random.usize(..self.threads);
                }
            }
        }
        flow
    }
}

//! A pool without threads, for tests: who takes which piece, and when the caller looks, is drawn from a seed.
//! It knows nothing of what the pieces do.
//!
//! What is broken off in the middle depends on how fast the threads are, and on how often the caller comes to look. Here
//! both are played on one thread: a job may fall to the caller, to the others, or to all in turn, as on machines of every
//! speed, and comes out the same each time.

use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};

use super::CancelPoll;

#[derive(Debug)]
pub(super) struct PoolScript {
    threads: usize,
    random: Mutex<fastrand::Rng>,
}

impl PoolScript {
    /// That of a pool of so many threads, the caller included.
    pub(super) fn new(threads: usize, seed: u64) -> Self {
        Self { threads, random: Mutex::new(fastrand::Rng::with_seed(seed)) }
    }

    pub(super) fn thread_count(&self) -> usize {
        self.threads
    }

    /// Plays a job; see [`super::Pool::run_while`].
    pub(super) fn play_job(
        &self,
        pieces: usize,
        background: bool,
        look: CancelPoll<'_>,
        work: &dyn Fn(usize, usize),
    ) -> ControlFlow<()> {
        // Of its own: a piece may run jobs.
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner).fork();
        // Of sixteen pieces the caller takes so many, or looks so often.
        let share = [0, 1, 16 / self.threads as u8, 15, 16][random.usize(..5)];
        let mut flow = ControlFlow::Continue(());
        // Pieces that other threads are at when the caller breaks the job off.
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

//! How the pieces of a job pass from the caller to the threads, and how their completion passes back.
//!
//! This file is compiled twice: as a part of the pool, and, with other atomics and locks under the same names
//! (`super::sync`), as the subject of the model in `thread_pool_model`, which tries all orders of its steps.

use std::ptr;

use super::sync::{
    AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Condvar, Mutex, MutexGuard, Ordering, PoisonError, fence,
    spin_until, wait_briefly,
};

/// Bits of the ticket that number the pieces; the other bits number the jobs.
const PIECE_BITS: u32 = 24;
/// Exclusive limit on the pieces of a job.
pub(super) const PIECE_MASK: u64 = (1 << PIECE_BITS) - 1;

/// The state that the caller and the threads share.
///
/// Each side writes, and then reads what the other side writes before it reads: a job is published, then sleepers are
/// checked; a thread registers as a sleeper, then checks for a job. A fence between the two ensures that at least one
/// side sees the other.
#[derive(Debug)]
pub(super) struct JobHandoff {
    /// Job number and next unclaimed piece. The piece number `PIECE_MASK` means: closed for replacement.
    ticket: AtomicU64,
    job: AtomicPtr<()>,
    pieces: AtomicUsize,
    done: AtomicUsize,
    sleepers: AtomicUsize,
    caller_sleeps: AtomicBool,
    stop: AtomicBool,
    lock: Mutex<()>,
    work_came: Condvar,
    work_done: Condvar,
}

impl JobHandoff {
    pub(super) fn new() -> Self {
        Self {
            ticket: AtomicU64::new(0),
            job: AtomicPtr::new(ptr::null_mut()),
            pieces: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            sleepers: AtomicUsize::new(0),
            caller_sleeps: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            lock: Mutex::new(()),
            work_came: Condvar::new(),
            work_done: Condvar::new(),
        }
    }

    /// Offers a job of `pieces` pieces to all threads. The previous job must be done.
    pub(super) fn publish(&self, job: *const (), pieces: usize) {
        let number = (self.ticket.load(Ordering::Relaxed) >> PIECE_BITS) + 1;
        // Closed first: a late thread that pairs the old ticket with the new fields must fail to claim.
        self.ticket.store(number << PIECE_BITS | PIECE_MASK, Ordering::SeqCst);
        self.done.store(0, Ordering::Release);
        self.job.store(job.cast_mut(), Ordering::Release);
        self.pieces.store(pieces, Ordering::Release);
        self.ticket.store(number << PIECE_BITS, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            let _guard = ignore_poison(self.lock.lock());
            self.work_came.notify_all();
        }
    }

    /// Whether a piece can be claimed.
    fn has_work(&self) -> bool {
        let next = self.ticket.load(Ordering::SeqCst) & PIECE_MASK;
        next != PIECE_MASK && (next as usize) < self.pieces.load(Ordering::Acquire)
    }

    /// Claims pieces until none is left, and calls `run(job, piece)` and then `look` for each. The job is the published
    /// one, and its caller does not return from [`JobHandoff::wait`] before `run` returns.
    pub(super) fn help(&self, run: &dyn Fn(*const (), usize), look: &mut dyn FnMut()) {
        loop {
            let ticket = self.ticket.load(Ordering::Acquire);
            let job = self.job.load(Ordering::Acquire);
            let pieces = self.pieces.load(Ordering::Acquire);
            let piece = ticket & PIECE_MASK;
            if piece == PIECE_MASK || piece as usize >= pieces {
                return;
            }
            if self
                .ticket
                .compare_exchange_weak(ticket, ticket + 1, Ordering::SeqCst, Ordering::Relaxed)
                .is_err()
            {
                continue;
            }
            // The claim succeeded, so the ticket was still that of the job whose fields were read (the fields change
            // only after the ticket was closed), and its caller waits until this piece is counted as done.
            run(job.cast_const(), piece as usize);
            if self.done.fetch_add(1, Ordering::SeqCst) + 1 == pieces {
                fence(Ordering::SeqCst);
                if self.caller_sleeps.load(Ordering::SeqCst) {
                    let _guard = ignore_poison(self.lock.lock());
                    self.work_done.notify_all();
                }
            }
            look();
        }
    }

    /// Blocks the caller until every piece is done, calling `look` every few milliseconds.
    pub(super) fn wait(&self, pieces: usize, mut look: Option<&mut dyn FnMut()>) {
        let done = || self.done.load(Ordering::SeqCst) == pieces;
        if spin_until(done) {
            return;
        }
        let mut guard = ignore_poison(self.lock.lock());
        self.caller_sleeps.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        while !done() {
            let Some(look) = &mut look else {
                guard = ignore_poison(self.work_done.wait(guard));
                continue;
            };
            guard = wait_briefly(&self.work_done, guard);
            // Without the lock, which the last thread needs to signal completion.
            drop(guard);
            look();
            guard = ignore_poison(self.lock.lock());
        }
        self.caller_sleeps.store(false, Ordering::SeqCst);
    }

    /// A thread's main loop: helps with every job, and sleeps between jobs, until [`JobHandoff::stop`].
    pub(super) fn serve(&self, run: &dyn Fn(*const (), usize)) {
        let stopped = || self.stop.load(Ordering::SeqCst);
        loop {
            self.help(run, &mut || ());
            if spin_until(|| self.has_work() || stopped()) {
                if stopped() {
                    return;
                }
                continue;
            }
            let mut guard = ignore_poison(self.lock.lock());
            self.sleepers.fetch_add(1, Ordering::SeqCst);
            fence(Ordering::SeqCst);
            while !self.has_work() && !stopped() {
                guard = ignore_poison(self.work_came.wait(guard));
            }
            self.sleepers.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Ends all serving threads once they are idle.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        let _guard = ignore_poison(self.lock.lock());
        self.work_came.notify_all();
    }

    /// The number of sleeping threads.
    #[cfg(test)]
    #[allow(dead_code, reason = "the model does not ask")]
    pub(super) fn sleepers(&self) -> usize {
        self.sleepers.load(Ordering::SeqCst)
    }
}

/// No lock here guards data that a panic could leave half-written.
fn ignore_poison<'a, T>(
    result: Result<MutexGuard<'a, T>, PoisonError<MutexGuard<'a, T>>>,
) -> MutexGuard<'a, T> {
    result.unwrap_or_else(PoisonError::into_inner)
}

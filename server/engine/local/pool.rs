//! A few threads that share the pieces of one calculation, and sleep between calculations.
//! It knows nothing of what is calculated.
//!
//! Pieces are claimed one at a time, so a thread that loses its core to a compiler delays at most the piece
//! that it holds; a thread that has not woken up yet delays nothing. Waiting threads spin for some tens of
//! microseconds (the gap between two layers of a forward pass) and then sleep: an idle pool costs nothing.
//! Work that nobody waits for has threads of its own at low priority, because a thread that lowered its priority
//! may not raise it again.

use std::any::Any;
use std::marker::PhantomData;
use std::ops::{ControlFlow, Range};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::slice;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::background;

/// How long a thread looks for work, or for the end of the others' work, before it sleeps.
const SPIN: Duration = Duration::from_micros(60);
/// How often a caller who leaves a job to the background looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(2);
/// Bits of the ticket that number the pieces; the rest numbers the jobs.
const PIECE_BITS: u32 = 24;
const PIECE_MASK: u64 = (1 << PIECE_BITS) - 1;

/// A fixed number of threads, the caller's among them.
#[derive(Debug)]
pub struct Pool {
    workers: Workers,
    /// As many as `workers` and the caller together; started when they are first needed.
    background: OnceLock<Workers>,
    /// Whether jobs are left to them.
    in_background: AtomicBool,
    /// Held while a job runs: one at a time.
    running: Mutex<()>,
}

/// Threads that serve the same jobs.
#[derive(Debug)]
struct Workers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What one piece runs: the piece's number, and the number of the thread (0 is the caller).
type Work<'a> = &'a (dyn Fn(usize, usize) + Sync);

/// Asked between pieces whether the job is still wanted.
type Look<'a> = &'a mut dyn FnMut() -> ControlFlow<()>;

/// A job on the caller's stack.
struct Job<'a> {
    work: Work<'a>,
    /// Set when nobody wants the pieces that were not begun yet.
    given_up: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl<'a> Job<'a> {
    fn new(work: Work<'a>) -> Self {
        Self { work, given_up: AtomicBool::new(false), panic: Mutex::new(None) }
    }

    /// Whether it is wanted; it is given up where it is not, or where `look` panics: other threads may be at its pieces,
    /// so that goes on once they are done, as a piece's panic does.
    fn look(&self, look: Look<'_>) -> ControlFlow<()> {
        let flow = catch_unwind(AssertUnwindSafe(look)).unwrap_or_else(|panic| {
            *unpoisoned(self.panic.lock()) = Some(panic);
            ControlFlow::Break(())
        });
        if flow.is_break() {
            self.given_up.store(true, Ordering::Relaxed);
        }
        flow
    }
}

#[derive(Debug, Default)]
struct Shared {
    /// Job number and next unclaimed piece. A piece number of `PIECE_MASK` means: closed, being replaced.
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

impl Pool {
    /// A pool of `threads` threads, the caller included: `threads - 1` are started. Fewer if the system refuses.
    pub fn new(threads: usize) -> Self {
        Self {
            workers: Workers::start(1..threads, false),
            background: OnceLock::new(),
            in_background: AtomicBool::new(false),
            running: Mutex::new(()),
        }
    }

    /// The physical cores that this process may use; the default number of threads. A second thread on the same
    /// core shares its multipliers and its path to memory, so it brings nothing here.
    pub fn default_threads() -> usize {
        let allowed = thread::available_parallelism().map_or(1, usize::from);
        num_cpus::get_physical().clamp(1, allowed)
    }

    /// Threads that work on a job, the caller included.
    pub fn threads(&self) -> usize {
        self.workers.threads.len() + 1
    }

    /// Whether the jobs from now on run at low priority, on threads other than the caller's, who waits asleep.
    pub fn set_background(&self, background: bool) {
        self.in_background.store(background, Ordering::Relaxed);
    }

    /// As [`Pool::run`], with pieces that lie beside each other: each thread goes through a run of its own, as long as
    /// there is one, so that what it asks memory for ahead of a piece is what it reads next.
    ///
    /// `look` is that of [`Pool::run_while`].
    pub fn run_in_order(
        &self,
        pieces: usize,
        look: Look<'_>,
        work: impl Fn(usize, usize) + Sync,
    ) -> ControlFlow<()> {
        let threads = self.threads();
        let end = |run: usize| pieces * (run + 1) / threads;
        let next = |run: usize| Cursor(AtomicUsize::new(pieces * run / threads));
        let next: Vec<Cursor> = (0..threads).map(next).collect();
        self.run_while(pieces, look, |_, thread| {
            for run in (thread..threads).chain(0..thread) {
                let Cursor(next) = &next[run];
                let piece = next.fetch_add(1, Ordering::Relaxed);
                // As many claims as pieces: each finds one, in one of the runs.
                if piece < end(run) {
                    work(piece, thread);
                    return;
                }
            }
        })
    }

    fn background(&self) -> &Workers {
        self.background.get_or_init(|| Workers::start(0..self.threads(), true))
    }

    /// Runs `work(piece, thread)` once for every piece below `pieces`, on all threads, and returns when all are
    /// done. Called from inside a piece, or while another job runs, it works on the caller's thread alone.
    ///
    /// # Panics
    /// With the panic of a piece, after all others are done.
    pub fn run(&self, pieces: usize, work: impl Fn(usize, usize) + Sync) {
        let _ = self.run_while(pieces, &mut || ControlFlow::Continue(()), work);
    }

    /// As [`Pool::run`], as long as the result is wanted: `look` is called on the caller's thread between its pieces, or
    /// every [`LOOK`] while the job is in the background. Once it breaks, it is not called again, and no further
    /// pieces are begun: which of them ran is not known then.
    ///
    /// # Panics
    /// As [`Pool::run`], and with the panic of `look`.
    pub fn run_while(
        &self,
        pieces: usize,
        look: Look<'_>,
        work: impl Fn(usize, usize) + Sync,
    ) -> ControlFlow<()> {
        let background = self.in_background.load(Ordering::Relaxed);
        let alone = pieces <= 1 || pieces as u64 >= PIECE_MASK || (self.workers.is_empty() && !background);
        let running = if alone { None } else { self.running.try_lock().ok() };
        let Some(running) = running else {
            return (0..pieces).try_for_each(|piece| {
                work(piece, 0);
                look()
            });
        };
        let job = Job::new(&work);
        let background = background.then(|| self.background()).filter(|workers| !workers.is_empty());
        let shared = &background.unwrap_or(&self.workers).shared;
        shared.publish(&job, pieces);
        let mut flow = ControlFlow::Continue(());
        let mut look = || {
            if flow.is_continue() {
                flow = job.look(look);
            }
        };
        if background.is_none() {
            shared.help(0, &mut look);
            shared.wait(pieces, None);
        } else {
            shared.wait(pieces, Some(&mut look));
        }
        let panic = unpoisoned(job.panic.lock()).take();
        // Released before the panic goes on, lest it be poisoned.
        drop(running);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
        flow
    }
}

/// The next piece of a run; in a cache line of its own, since each thread writes mostly its own.
#[repr(align(64))]
struct Cursor(AtomicUsize);

impl Workers {
    /// Threads with these numbers, at the caller's priority or for the background.
    fn start(numbers: Range<usize>, in_background: bool) -> Self {
        let shared = Arc::new(Shared::default());
        let asked = numbers.len();
        let start = |number: usize| {
            let shared = Arc::clone(&shared);
            let kind = if in_background { "background" } else { "kernel" };
            thread::Builder::new().name(format!("{kind}-{number}")).spawn(move || {
                if in_background {
                    background::lower_priority();
                }
                shared.serve(number);
            })
        };
        let threads = numbers.enumerate().map_while(|(started, number)| match start(number) {
            Ok(worker) => Some(worker),
            Err(error) => {
                tracing::warn!("only {started} of {asked} threads could be started: {error}");
                None
            }
        });
        let threads = threads.collect();
        Self { shared, threads }
    }

    fn is_empty(&self) -> bool {
        self.threads.is_empty()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        let guard = unpoisoned(self.shared.lock.lock());
        self.shared.work_came.notify_all();
        drop(guard);
        for worker in self.threads.drain(..) {
            // A worker cannot panic: pieces are caught.
            let _ = worker.join();
        }
    }
}

impl Shared {
    fn publish(&self, job: &Job<'_>, pieces: usize) {
        let number = (self.ticket.load(Ordering::Relaxed) >> PIECE_BITS) + 1;
        // Closed first: a late thread that pairs the old ticket with the new fields must fail to claim.
        self.ticket.store(number << PIECE_BITS | PIECE_MASK, Ordering::SeqCst);
        self.done.store(0, Ordering::Release);
        self.job.store(ptr::from_ref(job).cast_mut().cast(), Ordering::Release);
        self.pieces.store(pieces, Ordering::Release);
        self.ticket.store(number << PIECE_BITS, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            let _guard = unpoisoned(self.lock.lock());
            self.work_came.notify_all();
        }
    }

    /// Whether a piece can be claimed.
    fn has_work(&self) -> bool {
        let next = self.ticket.load(Ordering::SeqCst) & PIECE_MASK;
        next != PIECE_MASK && (next as usize) < self.pieces.load(Ordering::Acquire)
    }

    /// Claims and runs pieces until none is left, with a look behind each.
    fn help(&self, thread: usize, look: &mut dyn FnMut()) {
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
            // SAFETY: the claim succeeded, so the ticket was still that of the job whose fields were read (the
            // fields change only after the ticket was closed), and `run` does not return, hence the job lives,
            // before this piece is counted as done.
            let job: &Job<'_> = unsafe { &*job.cast_const().cast() };
            if !job.given_up.load(Ordering::Relaxed)
                && let Err(panic) = catch_unwind(AssertUnwindSafe(|| (job.work)(piece as usize, thread)))
            {
                *unpoisoned(job.panic.lock()) = Some(panic);
            }
            let last = self.done.fetch_add(1, Ordering::SeqCst) + 1 == pieces;
            if last && self.caller_sleeps.load(Ordering::SeqCst) {
                let _guard = unpoisoned(self.lock.lock());
                self.work_done.notify_all();
            }
            look();
        }
    }

    /// The caller waits until every piece is done, with a look every [`LOOK`].
    fn wait(&self, pieces: usize, mut look: Option<&mut dyn FnMut()>) {
        let done = || self.done.load(Ordering::SeqCst) == pieces;
        if spin_until(done) {
            return;
        }
        let mut guard = unpoisoned(self.lock.lock());
        self.caller_sleeps.store(true, Ordering::SeqCst);
        while !done() {
            let Some(look) = &mut look else {
                guard = unpoisoned(self.work_done.wait(guard));
                continue;
            };
            guard = match self.work_done.wait_timeout(guard, LOOK) {
                Ok((guard, _)) => guard,
                Err(poisoned) => poisoned.into_inner().0,
            };
            // Without the lock, which the last thread needs to say that all is done.
            drop(guard);
            look();
            guard = unpoisoned(self.lock.lock());
        }
        self.caller_sleeps.store(false, Ordering::SeqCst);
    }

    /// A worker's life.
    fn serve(&self, thread: usize) {
        let stopped = || self.stop.load(Ordering::SeqCst);
        loop {
            self.help(thread, &mut || ());
            if spin_until(|| self.has_work() || stopped()) {
                if stopped() {
                    return;
                }
                continue;
            }
            let mut guard = unpoisoned(self.lock.lock());
            self.sleepers.fetch_add(1, Ordering::SeqCst);
            while !self.has_work() && !stopped() {
                guard = unpoisoned(self.work_came.wait(guard));
            }
            self.sleepers.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// Whether `ready` came true within [`SPIN`].
fn spin_until(ready: impl Fn() -> bool) -> bool {
    let mut start = None;
    loop {
        for _ in 0..32 {
            if ready() {
                return true;
            }
            std::hint::spin_loop();
        }
        let start = *start.get_or_insert_with(Instant::now);
        if start.elapsed() > SPIN {
            return false;
        }
    }
}

/// No lock here guards data that a panic could leave half-written.
fn unpoisoned<'a, T>(result: Result<MutexGuard<'a, T>, PoisonError<MutexGuard<'a, T>>>) -> MutexGuard<'a, T> {
    result.unwrap_or_else(PoisonError::into_inner)
}

/// A slice that the pieces of a job share, each its own part.
#[derive(Debug)]
pub struct Chunks<'a, T> {
    start: *mut T,
    len: usize,
    chunk: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: it hands out disjoint parts of a slice, each to one thread at a time (the promise of `get`'s caller).
unsafe impl<T: Send> Sync for Chunks<'_, T> {}

impl<'a, T> Chunks<'a, T> {
    /// Parts of `chunk` values, the last one perhaps shorter.
    pub fn new(slice: &'a mut [T], chunk: usize) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), chunk, slice: PhantomData }
    }

    /// Part `index`; empty behind the end.
    ///
    /// # Safety
    /// While the part is used, nobody else asks for the same one.
    #[expect(clippy::mut_from_ref, reason = "the parts are disjoint, see Safety")]
    pub unsafe fn get(&self, index: usize) -> &mut [T] {
        let start = index.saturating_mul(self.chunk).min(self.len);
        let len = self.chunk.min(self.len - start);
        // SAFETY: inside the slice; disjoint from other indices' parts, and this index has one user.
        unsafe { slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
    use super::*;

    #[test]
    fn every_piece_runs_once() {
        for threads in [1, 2, 3, 5] {
            let pool = Pool::new(threads);
            for pieces in [0, 1, 2, 7, 100, 1000] {
                let counts: Vec<_> = (0..pieces).map(|_| AtomicUsize::new(0)).collect();
                pool.run(pieces, |piece, thread| {
                    assert!(thread < threads);
                    counts[piece].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn in_order_every_piece_runs_once_and_a_thread_takes_what_lies_beside() {
        for threads in [1, 2, 3, 5] {
            let pool = Pool::new(threads);
            for pieces in [0, 1, 2, 3, 7, 100, 1000] {
                let counts: Vec<_> = (0..pieces).map(|_| AtomicUsize::new(0)).collect();
                let taken: Vec<_> = (0..threads).map(|_| Mutex::new(Vec::new())).collect();
                let done = pool.run_in_order(pieces, &mut || ControlFlow::Continue(()), |piece, thread| {
                    counts[piece].fetch_add(1, Ordering::Relaxed);
                    taken[thread].lock().unwrap().push(piece);
                });
                assert!(done.is_continue());
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
                for (thread, taken) in taken.into_iter().enumerate() {
                    let taken = taken.into_inner().unwrap();
                    let run = pieces * thread / threads..pieces * (thread + 1) / threads;
                    let (own, others) =
                        taken.split_at(taken.iter().take_while(|it| run.contains(it)).count());
                    assert!(own.is_sorted(), "{own:?}");
                    assert!(others.iter().all(|it| !run.contains(it)), "others first: {others:?}");
                }
            }
        }
    }

    #[test]
    fn many_small_jobs_neither_lose_nor_repeat_pieces() {
        let pool = Pool::new(4);
        let total = AtomicUsize::new(0);
        for job in 0..20_000 {
            pool.run(1 + job % 9, |piece, _| {
                total.fetch_add(piece + 1, Ordering::Relaxed);
            });
        }
        let expected: usize = (0..20_000).map(|job| (1..=1 + job % 9).sum::<usize>()).sum();
        assert_eq!(total.into_inner(), expected);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
        let pool = Pool::new(3);
        let ran = AtomicUsize::new(0);
        let result = catch_unwind(AssertUnwindSafe(|| {
            pool.run(50, |piece, _| {
                ran.fetch_add(1, Ordering::Relaxed);
                assert!(piece != 17, "piece 17");
            });
        }));
        assert!(result.is_err());
        assert_eq!(ran.load(Ordering::Relaxed), 50);
        pool.run(10, |_, _| {
            ran.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(ran.into_inner(), 60);
    }

    #[test]
    fn background_work_is_done_by_threads_of_low_priority() {
        let pool = Pool::new(2);
        for background in [false, true, true, false] {
            pool.set_background(background);
            let (ran, own) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let caller = thread::current().id();
            pool.run(500, |_, thread| {
                assert!(thread < 2);
                ran.fetch_add(1, Ordering::Relaxed);
                if thread::current().id() == caller {
                    own.fetch_add(1, Ordering::Relaxed);
                } else if background && cfg!(target_os = "linux") {
                    // proc(5): field 19 of `stat`, the 17th behind the name in brackets.
                    let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
                    let niceness = stat.rsplit_once(") ").unwrap().1.split(' ').nth(16).unwrap();
                    assert!(niceness.parse::<i32>().unwrap() >= 9, "{stat}");
                }
            });
            assert_eq!(ran.into_inner(), 500);
            assert!(!background || own.into_inner() == 0, "the caller does not work in the background");
        }
    }

    #[test]
    fn what_nobody_wants_any_more_is_given_up() {
        for (threads, background) in [(1, false), (2, false), (4, false), (1, true), (2, true)] {
            let pool = Pool::new(threads);
            pool.set_background(background);
            for wanted in [1, 3, usize::MAX] {
                let (began, mut looks) = (AtomicUsize::new(0), 0);
                let (asked, given_up) = (&mut looks, AtomicBool::new(false));
                let mut look = || {
                    *asked += 1;
                    if *asked < wanted {
                        return ControlFlow::Continue(());
                    }
                    given_up.store(true, Ordering::SeqCst);
                    ControlFlow::Break(())
                };
                let pieces = if wanted == usize::MAX { 200 } else { 100_000 };
                let flow = pool.run_while(pieces, &mut look, |_, thread| {
                    began.fetch_add(1, Ordering::Relaxed);
                    // Those that do not look wait for the break: so it comes before the last piece.
                    let waits = (background || thread > 0) && wanted != usize::MAX;
                    while waits && !given_up.load(Ordering::SeqCst) {
                        thread::yield_now();
                    }
                });
                let began = began.into_inner();
                if wanted == usize::MAX {
                    assert!(flow.is_continue());
                    assert_eq!(began, pieces);
                } else {
                    assert!(flow.is_break());
                    assert_eq!(looks, wanted, "it does not look again");
                    assert!(began < pieces, "{began} pieces, {threads} threads");
                }
            }
            // The pool is as good as before.
            let ran = AtomicUsize::new(0);
            pool.run(100, |_, _| {
                ran.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(ran.into_inner(), 100);
        }
    }

    #[test]
    fn a_panic_of_a_look_reaches_the_caller_once_nobody_is_at_the_job() {
        for background in [false, true] {
            let pool = Pool::new(3);
            pool.set_background(background);
            let (looked, working) = (AtomicBool::new(false), AtomicUsize::new(0));
            let result = catch_unwind(AssertUnwindSafe(|| {
                let mut look = || {
                    looked.store(true, Ordering::SeqCst);
                    panic!("no more")
                };
                pool.run_while(1000, &mut look, |_, thread| {
                    working.fetch_add(1, Ordering::SeqCst);
                    while (background || thread > 0) && !looked.load(Ordering::SeqCst) {
                        thread::yield_now();
                    }
                    working.fetch_sub(1, Ordering::SeqCst);
                })
            }));
            assert_eq!(result.unwrap_err().downcast_ref(), Some(&"no more"));
            assert_eq!(working.into_inner(), 0);
            let ran = AtomicUsize::new(0);
            pool.run(10, |_, _| {
                ran.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(ran.into_inner(), 10);
        }
    }

    #[test]
    fn a_panic_in_the_background_reaches_the_caller() {
        let pool = Pool::new(2);
        pool.set_background(true);
        let result = catch_unwind(AssertUnwindSafe(|| pool.run(50, |piece, _| assert!(piece != 17))));
        assert!(result.is_err());
        pool.run(10, |_, _| {});
    }

    #[test]
    fn a_job_inside_a_piece_runs_on_its_thread() {
        let pool = Pool::new(2);
        let ran = AtomicUsize::new(0);
        pool.run(4, |_, _| {
            pool.run(5, |_, _| {
                ran.fetch_add(1, Ordering::Relaxed);
            });
        });
        assert_eq!(ran.into_inner(), 20);
    }

    #[test]
    fn sleepers_wake() {
        let pool = Pool::new(2);
        let shared = Arc::clone(&pool.workers.shared);
        for _ in 0..3 {
            while shared.sleepers.load(Ordering::SeqCst) == 0 {
                thread::yield_now();
            }
            // Both pieces wait for each other, so both threads must take one.
            let barrier = std::sync::Barrier::new(2);
            pool.run(2, |_, _| {
                barrier.wait();
            });
        }
        let workers = pool.workers.threads.len();
        drop(pool);
        assert_eq!((workers, Arc::try_unwrap(shared).unwrap().sleepers.into_inner()), (1, 0));
    }
}

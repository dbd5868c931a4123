//! Threads that share the pieces of one calculation and sleep between calculations.
//!
//! Pieces are claimed one at a time, so a thread that loses its core to another process delays at most the piece
//! that it holds, and a thread that has not woken up yet delays nothing. Waiting threads spin for some tens of
//! microseconds (the gap between two layers of a forward pass) and then sleep: an idle pool costs nothing.
//! Background work has its own threads at low priority, because a thread that lowered its priority may not raise it
//! again.

use std::any::Any;
use std::io;
use std::marker::PhantomData;
use std::ops::{ControlFlow, Range};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::slice;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};

use crate::priority::{self, Priority};

mod job_handoff;
#[cfg(test)]
mod script;
mod sync;

use job_handoff::{JobHandoff, PIECE_MASK};

/// Maximum number of threads in a pool: far more than any processor has use for, but few enough that a typo does not
/// freeze the machine.
pub(crate) const MAX_THREADS: usize = 512;

/// A fixed number of threads, including the caller's.
#[derive(Debug)]
pub struct ThreadPool {
    workers: WorkerThreads,
    /// As many threads as `workers` and the caller together; started on first use.
    background: OnceLock<WorkerThreads>,
    /// Held while a job runs: one at a time.
    running: Mutex<()>,
    spawn: SpawnThread,
    /// Replaces the threads.
    #[cfg(test)]
    script: Option<script::PoolScript>,
}

/// Starts a thread.
type SpawnThread = fn(thread::Builder, Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>>;

fn spawn_thread(builder: thread::Builder, life: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>> {
    builder.spawn(life)
}

/// Threads that serve the same jobs.
#[derive(Debug)]
struct WorkerThreads {
    shared: Arc<JobHandoff>,
    threads: Vec<JoinHandle<()>>,
}

/// The work of one piece: takes the piece's number and the number of the thread (0 is the caller).
type PieceWork<'a> = &'a (dyn Fn(usize, usize) + Sync);

/// Polled between pieces; breaks if the job is no longer wanted.
type CancelPoll<'a> = &'a mut dyn FnMut() -> ControlFlow<()>;

/// A job on the caller's stack.
struct PoolJob<'a> {
    work: PieceWork<'a>,
    /// Set when the remaining pieces are no longer wanted.
    cancelled: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl<'a> PoolJob<'a> {
    fn new(work: PieceWork<'a>) -> Self {
        Self { work, cancelled: AtomicBool::new(false), panic: Mutex::new(None) }
    }

    /// Calls `look`, and cancels the job if it breaks or panics. Other threads may still be running pieces, so the
    /// panic resumes after they are done, as a piece's panic does.
    fn poll_cancel(&self, look: CancelPoll<'_>) -> ControlFlow<()> {
        let flow = catch_unwind(AssertUnwindSafe(look)).unwrap_or_else(|panic| {
            *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
            ControlFlow::Break(())
        });
        if flow.is_break() {
            self.cancelled.store(true, Ordering::Relaxed);
        }
        flow
    }
}

/// Runs one piece of a job on a thread, unless the job is cancelled.
///
/// # Safety
/// [`PrioritizedPool::run_while`] has published `job` and waits for it.
unsafe fn run_piece(job: *const (), piece: usize, thread: usize) {
    // SAFETY: by the caller's contract, the job is alive.
    let job: &PoolJob<'_> = unsafe { &*job.cast() };
    if !job.cancelled.load(Ordering::Relaxed)
        && let Err(panic) = catch_unwind(AssertUnwindSafe(|| (job.work)(piece, thread)))
    {
        *job.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
    }
}

impl ThreadPool {
    /// A pool of `threads` threads including the caller: starts `threads - 1`. Starts fewer if the system refuses, and
    /// 512 at most; see [`ThreadPool::thread_count`].
    pub fn new(threads: usize) -> Self {
        Self::start_with(threads, spawn_thread)
    }

    fn start_with(threads: usize, spawn: SpawnThread) -> Self {
        Self {
            workers: WorkerThreads::start_threads(1..threads.min(MAX_THREADS), false, spawn),
            background: OnceLock::new(),
            running: Mutex::new(()),
            spawn,
            #[cfg(test)]
            script: None,
        }
    }

    /// A pool that simulates `threads` threads on the caller's; `seed` determines their schedule. See [`script`].
    #[cfg(test)]
    pub(super) fn scripted(threads: usize, seed: u64) -> Self {
        Self { script: Some(script::PoolScript::new(threads, seed)), ..Self::new(1) }
    }

    /// The number of physical cores that this process may use; the default number of threads. A second thread on the
    /// same core shares its multipliers and its path to memory, so it brings nothing here.
    pub fn default_thread_count() -> usize {
        let allowed = thread::available_parallelism().map_or(1, usize::from);
        num_cpus::get_physical().clamp(1, allowed)
    }

    /// Threads that work on a job, the caller included.
    pub fn thread_count(&self) -> usize {
        #[cfg(test)]
        if let Some(script) = &self.script {
            return script.thread_count();
        }
        self.workers.threads.len() + 1
    }

    /// The pool for jobs of this priority.
    pub fn with_priority(&self, priority: Priority) -> PrioritizedPool<'_> {
        PrioritizedPool { pool: self, priority }
    }

    /// [`PrioritizedPool::run_pieces`] at interactive priority.
    ///
    /// # Panics
    /// As there.
    pub fn run_pieces(&self, pieces: usize, work: impl Fn(usize, usize) + Sync) {
        self.with_priority(Priority::Interactive).run_pieces(pieces, work);
    }

    fn background_workers(&self) -> &WorkerThreads {
        self.background.get_or_init(|| WorkerThreads::start_threads(0..self.thread_count(), true, self.spawn))
    }
}

/// A pool for jobs of one priority.
#[derive(Debug, Clone, Copy)]
pub struct PrioritizedPool<'a> {
    pool: &'a ThreadPool,
    priority: Priority,
}

impl PrioritizedPool<'_> {
    /// Threads that work on a job, the caller included.
    pub fn thread_count(&self) -> usize {
        self.pool.thread_count()
    }

    /// As [`PrioritizedPool::run_while`], for pieces that are adjacent in memory: each thread takes a contiguous range (and
    /// steals from others when done), so its prefetches hit.
    pub fn run_in_order(
        &self,
        pieces: usize,
        look: CancelPoll<'_>,
        work: impl Fn(usize, usize) + Sync,
    ) -> ControlFlow<()> {
        let threads = self.thread_count();
        let end = |run: usize| pieces * (run + 1) / threads;
        let next = |run: usize| PieceCursor(AtomicUsize::new(pieces * run / threads));
        let next: Vec<PieceCursor> = (0..threads).map(next).collect();
        self.run_while(pieces, look, |_, thread| {
            for run in (thread..threads).chain(0..thread) {
                let PieceCursor(next) = &next[run];
                let piece = next.fetch_add(1, Ordering::Relaxed);
                // There are as many claims as pieces: each finds one in some range.
                if piece < end(run) {
                    work(piece, thread);
                    return;
                }
            }
        })
    }

    /// Runs `work(piece, thread)` once for every piece below `pieces`, on all threads, and returns when all are
    /// done. If called from inside a piece, or while another job runs, it uses the caller's thread only.
    ///
    /// # Panics
    /// With the panic of a piece, after all others are done.
    pub fn run_pieces(&self, pieces: usize, work: impl Fn(usize, usize) + Sync) {
        let _ = self.run_while(pieces, &mut || ControlFlow::Continue(()), work);
    }

    /// As [`PrioritizedPool::run_pieces`], as long as the result is wanted. `look` is called on the caller's thread between
    /// its pieces, or every two milliseconds while the job is in the background. Once it breaks, it is not called
    /// again, and no further pieces start; then it is unknown which pieces ran.
    ///
    /// # Panics
    /// As [`PrioritizedPool::run_pieces`], and with the panic of `look`.
    pub fn run_while(
        &self,
        pieces: usize,
        look: CancelPoll<'_>,
        work: impl Fn(usize, usize) + Sync,
    ) -> ControlFlow<()> {
        let Self { pool, priority } = *self;
        let background = priority == Priority::Background;
        #[cfg(test)]
        if let Some(script) = pool.script.as_ref().filter(|_| pieces > 1) {
            return script.play_job(pieces, background, look, &work);
        }
        let alone = pieces <= 1 || pieces as u64 >= PIECE_MASK || (pool.workers.is_empty() && !background);
        let running = if alone { None } else { pool.running.try_lock().ok() };
        let Some(running) = running else {
            return (0..pieces).try_for_each(|piece| {
                work(piece, 0);
                look()
            });
        };
        let job = PoolJob::new(&work);
        let background = background.then(|| pool.background_workers()).filter(|workers| !workers.is_empty());
        let shared = &background.unwrap_or(&pool.workers).shared;
        shared.publish(ptr::from_ref(&job).cast(), pieces);
        let mut flow = ControlFlow::Continue(());
        let mut look = || {
            if flow.is_continue() {
                flow = job.poll_cancel(look);
            }
        };
        if background.is_none() {
            // SAFETY: the job was published just above, and `wait` waits for every piece.
            shared.help(&|job, piece| unsafe { run_piece(job, piece, 0) }, &mut look);
            shared.wait(pieces, None);
        } else {
            shared.wait(pieces, Some(&mut look));
        }
        let panic = job.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Released before the panic resumes, so that it is not poisoned.
        drop(running);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
        flow
    }
}

/// The next piece of a range, in its own cache line, because each thread mostly writes its own.
#[repr(align(64))]
struct PieceCursor(AtomicUsize);

impl WorkerThreads {
    /// Starts threads with these numbers, at the caller's priority or for the background.
    fn start_threads(numbers: Range<usize>, in_background: bool, spawn: SpawnThread) -> Self {
        let shared = Arc::new(JobHandoff::new());
        let requested = numbers.len();
        let start = |number: usize| {
            let shared = Arc::clone(&shared);
            let kind = if in_background { "background" } else { "kernel" };
            let life = move || {
                if in_background {
                    priority::lower_priority();
                }
                // SAFETY: only `run_while` publishes jobs here, and it waits for every piece.
                shared.serve(&|job, piece| unsafe { run_piece(job, piece, number) });
            };
            spawn(thread::Builder::new().name(format!("{kind}-{number}")), Box::new(life))
        };
        let threads = numbers.enumerate().map_while(|(started, number)| match start(number) {
            Ok(worker) => Some(worker),
            Err(error) => {
                tracing::warn!(
                    "started only {started} of {requested} more threads ({error}), completions take longer: \
                     raise the thread limit or configure fewer threads"
                );
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

impl Drop for WorkerThreads {
    fn drop(&mut self) {
        self.shared.stop();
        for worker in self.threads.drain(..) {
            // A worker cannot panic: panics of pieces are caught.
            let _ = worker.join();
        }
    }
}

/// A slice that the pieces of a job share, one part each.
#[derive(Debug)]
pub struct DisjointChunks<'a, T> {
    start: *mut T,
    len: usize,
    chunk: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: hands out disjoint parts of a slice, each to one thread at a time (the contract of `get`).
unsafe impl<T: Send> Sync for DisjointChunks<'_, T> {}

impl<'a, T> DisjointChunks<'a, T> {
    /// Parts of `chunk` values; the last one may be shorter.
    pub fn new(slice: &'a mut [T], chunk: usize) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), chunk, slice: PhantomData }
    }

    /// Part `index`; empty past the end.
    ///
    /// # Safety
    /// While the part is in use, `get` is not called again with the same index.
    #[expect(clippy::mut_from_ref, reason = "the parts are disjoint, see Safety")]
    pub unsafe fn get(&self, index: usize) -> &mut [T] {
        let start = index.saturating_mul(self.chunk).min(self.len);
        let len = self.chunk.min(self.len - start);
        // SAFETY: inside the slice; disjoint from the parts of other indices, and this index has one user.
        unsafe { slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}

#[cfg(test)]
mod tests;

//! Tests of jobs on pools of several sizes: every piece runs once, panics, cancelled jobs, threads that the system
//! refuses.

use super::*;

#[test]
fn pool_runs_every_piece_once() {
    for threads in [1, 2, 3, 5] {
        let pool = ThreadPool::new(threads);
        for pieces in [0, 1, 2, 7, 100, 1000] {
            let counts: Vec<_> = (0..pieces).map(|_| AtomicUsize::new(0)).collect();
            pool.run_pieces(pieces, |piece, thread| {
                assert!(thread < threads);
                counts[piece].fetch_add(1, Ordering::Relaxed);
            });
            assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
        }
    }
}

#[test]
fn run_in_order_visits_each_piece_once_contiguously() {
    for threads in [1, 2, 3, 5] {
        let pool = ThreadPool::new(threads);
        for pieces in [0, 1, 2, 3, 7, 100, 1000] {
            let counts: Vec<_> = (0..pieces).map(|_| AtomicUsize::new(0)).collect();
            let taken: Vec<_> = (0..threads).map(|_| Mutex::new(Vec::new())).collect();
            let jobs = pool.with_priority(Priority::Interactive);
            let done = jobs.run_in_order(pieces, &mut || ControlFlow::Continue(()), |piece, thread| {
                counts[piece].fetch_add(1, Ordering::Relaxed);
                taken[thread].lock().unwrap().push(piece);
            });
            assert!(done.is_continue());
            assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
            for (thread, taken) in taken.into_iter().enumerate() {
                let taken = taken.into_inner().unwrap();
                let run = pieces * thread / threads..pieces * (thread + 1) / threads;
                let (own, others) = taken.split_at(taken.iter().take_while(|it| run.contains(it)).count());
                assert!(own.is_sorted(), "{own:?}");
                assert!(others.iter().all(|it| !run.contains(it)), "others first: {others:?}");
            }
        }
    }
}

#[test]
fn small_jobs_neither_lose_nor_repeat_pieces() {
    let pool = ThreadPool::new(4);
    let total = AtomicUsize::new(0);
    for job in 0..20_000 {
        pool.run_pieces(1 + job % 9, |piece, _| {
            total.fetch_add(piece + 1, Ordering::Relaxed);
        });
    }
    let expected: usize = (0..20_000).map(|job| (1..=1 + job % 9).sum::<usize>()).sum();
    assert_eq!(total.into_inner(), expected);
}

#[test]
fn piece_panic_reaches_caller_and_pool_stays_usable() {
    let pool = ThreadPool::new(3);
    let ran = AtomicUsize::new(0);
    let result = catch_unwind(AssertUnwindSafe(|| {
        pool.run_pieces(50, |piece, _| {
            ran.fetch_add(1, Ordering::Relaxed);
            assert!(piece != 17, "piece 17");
        });
    }));
    assert!(result.is_err());
    assert_eq!(ran.load(Ordering::Relaxed), 50);
    pool.run_pieces(10, |_, _| {
        ran.fetch_add(1, Ordering::Relaxed);
    });
    assert_eq!(ran.into_inner(), 60);
}

#[test]
fn background_work_runs_on_low_priority_threads() {
    let pool = ThreadPool::new(2);
    for background in [false, true, true, false] {
        let jobs = pool.with_priority(Priority::from_background(background));
        let (ran, own) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let caller = thread::current().id();
        jobs.run_pieces(500, |_, thread| {
            assert!(thread < 2);
            ran.fetch_add(1, Ordering::Relaxed);
            if thread::current().id() == caller {
                own.fetch_add(1, Ordering::Relaxed);
            } else if background && cfg!(target_os = "linux") {
                // proc(5): field 19 of `stat`, the 17th after the name in brackets.
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
fn cancelled_job_starts_no_further_pieces() {
    for (threads, background) in [(1, false), (2, false), (4, false), (1, true), (2, true)] {
        let pool = ThreadPool::new(threads);
        let jobs = pool.with_priority(Priority::from_background(background));
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
            let flow = jobs.run_while(pieces, &mut look, |_, thread| {
                began.fetch_add(1, Ordering::Relaxed);
                // Threads that do not poll wait for the break, so that it comes before the last piece.
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
                assert_eq!(looks, wanted, "it does not poll again");
                assert!(began < pieces, "{began} pieces, {threads} threads");
            }
        }
        // The pool stays usable.
        let ran = AtomicUsize::new(0);
        jobs.run_pieces(100, |_, _| {
            ran.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(ran.into_inner(), 100);
    }
}

#[test]
fn poll_panic_reaches_caller_after_pieces_finish() {
    for background in [false, true] {
        let pool = ThreadPool::new(3);
        let jobs = pool.with_priority(Priority::from_background(background));
        let (looked, working) = (AtomicBool::new(false), AtomicUsize::new(0));
        let result = catch_unwind(AssertUnwindSafe(|| {
            let mut look = || {
                looked.store(true, Ordering::SeqCst);
                panic!("no more")
            };
            jobs.run_while(1000, &mut look, |_, thread| {
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
        jobs.run_pieces(10, |_, _| {
            ran.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(ran.into_inner(), 10);
    }
}

#[test]
fn background_piece_panic_reaches_the_caller() {
    let pool = ThreadPool::new(2);
    let jobs = pool.with_priority(Priority::Background);
    let result = catch_unwind(AssertUnwindSafe(|| jobs.run_pieces(50, |piece, _| assert!(piece != 17))));
    assert!(result.is_err());
    jobs.run_pieces(10, |_, _| {});
}

#[test]
fn nested_job_runs_on_the_piece_thread() {
    let pool = ThreadPool::new(2);
    let ran = AtomicUsize::new(0);
    pool.run_pieces(4, |_, _| {
        pool.run_pieces(5, |_, _| {
            ran.fetch_add(1, Ordering::Relaxed);
        });
    });
    assert_eq!(ran.into_inner(), 20);
}

#[test]
fn sleeping_workers_wake_for_new_jobs() {
    let pool = ThreadPool::new(2);
    let shared = Arc::clone(&pool.workers.shared);
    for _ in 0..3 {
        while shared.sleepers() == 0 {
            thread::yield_now();
        }
        // Both pieces wait for each other, so each must run on its own thread.
        let barrier = std::sync::Barrier::new(2);
        pool.run_pieces(2, |_, _| {
            barrier.wait();
        });
    }
    let workers = pool.workers.threads.len();
    drop(pool);
    assert_eq!((workers, Arc::try_unwrap(shared).unwrap().sleepers()), (1, 0));
}

#[test]
fn refused_threads_leave_work_to_started_ones() {
    use std::cell::Cell;
    thread_local! { static LEFT: Cell<usize> = const { Cell::new(0) } }
    fn spawn_few(builder: thread::Builder, life: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>> {
        match LEFT.get().checked_sub(1) {
            Some(left) => {
                LEFT.set(left);
                spawn_thread(builder, life)
            }
            None => Err(io::Error::from(io::ErrorKind::WouldBlock)),
        }
    }
    for (left, threads) in [(0, 1), (1, 2), (3, 4), (9, 5)] {
        LEFT.set(left);
        let pool = ThreadPool::start_with(5, spawn_few);
        assert_eq!(pool.thread_count(), threads);
        // The background may have no threads at all.
        for (background, left) in [(false, 0), (true, left), (true, 0), (false, 0)] {
            LEFT.set(left);
            let jobs = pool.with_priority(Priority::from_background(background));
            for pieces in [1, 2, 100] {
                let counts: Vec<_> = (0..pieces).map(|_| AtomicUsize::new(0)).collect();
                let flow = jobs.run_in_order(pieces, &mut || ControlFlow::Continue(()), |piece, _| {
                    counts[piece].fetch_add(1, Ordering::Relaxed);
                });
                assert!(flow.is_continue());
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
            }
        }
    }
}

#[test]
fn thread_count_is_capped() {
    fn spawn_idle(_: thread::Builder, _: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>> {
        thread::Builder::new().spawn(|| ())
    }
    assert_eq!(ThreadPool::start_with(100_000, spawn_idle).thread_count(), MAX_THREADS);
    assert_eq!(ThreadPool::start_with(usize::MAX, spawn_idle).thread_count(), MAX_THREADS);
    assert_eq!(ThreadPool::start_with(0, spawn_idle).thread_count(), 1);
}

#[test]
fn scripted_pool_is_deterministic_and_runs_pieces_once() {
    for seed in 0..200 {
        let threads = 1 + seed as usize % 4;
        let run = || {
            let pool = ThreadPool::scripted(threads, seed);
            let mut breaks = Vec::new();
            for (job, background) in [false, true, false, true].into_iter().enumerate() {
                let jobs = pool.with_priority(Priority::from_background(background));
                let counts: Vec<_> = (0..50).map(|_| AtomicUsize::new(0)).collect();
                let mut looks = 0;
                let mut look = || {
                    looks += 1;
                    if job >= 2 && looks == 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                };
                let flow = jobs.run_in_order(50, &mut look, |piece, thread| {
                    assert!(thread < threads);
                    counts[piece].fetch_add(1, Ordering::Relaxed);
                });
                let counts: Vec<usize> = counts.into_iter().map(AtomicUsize::into_inner).collect();
                assert_eq!(flow.is_break(), job >= 2 && looks == 5);
                assert!(counts.iter().all(|&count| count == 1 || flow.is_break() && count == 0));
                breaks.push((looks, counts));
            }
            breaks
        };
        assert_eq!(run(), run());
    }
}

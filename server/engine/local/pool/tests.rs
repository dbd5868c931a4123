//! Jobs on pools of several sizes: every piece once, panics, what nobody wants any more, threads that the system refuses.
//! It knows nothing of what is calculated on them.

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
                let (own, others) = taken.split_at(taken.iter().take_while(|it| run.contains(it)).count());
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
        while shared.sleepers() == 0 {
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
    assert_eq!((workers, Arc::try_unwrap(shared).unwrap().sleepers()), (1, 0));
}

#[test]
fn where_the_system_refuses_threads_those_that_there_are_do_the_work() {
    use std::cell::Cell;
    thread_local! { static LEFT: Cell<usize> = const { Cell::new(0) } }
    fn few(builder: thread::Builder, life: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>> {
        match LEFT.get().checked_sub(1) {
            Some(left) => {
                LEFT.set(left);
                spawn(builder, life)
            }
            None => Err(io::Error::from(io::ErrorKind::WouldBlock)),
        }
    }
    for (left, threads) in [(0, 1), (1, 2), (3, 4), (9, 5)] {
        LEFT.set(left);
        let pool = Pool::start(5, few);
        assert_eq!(pool.threads(), threads);
        // Of those for the background there may be none at all.
        for (background, left) in [(false, 0), (true, left), (true, 0), (false, 0)] {
            LEFT.set(left);
            pool.set_background(background);
            for pieces in [1, 2, 100] {
                let counts: Vec<_> = (0..pieces).map(|_| AtomicUsize::new(0)).collect();
                let flow = pool.run_in_order(pieces, &mut || ControlFlow::Continue(()), |piece, _| {
                    counts[piece].fetch_add(1, Ordering::Relaxed);
                });
                assert!(flow.is_continue());
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
            }
        }
    }
}

#[test]
fn no_number_of_threads_brings_the_machine_to_a_halt() {
    fn none(_: thread::Builder, _: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>> {
        thread::Builder::new().spawn(|| ())
    }
    assert_eq!(Pool::start(100_000, none).threads(), MOST_THREADS);
    assert_eq!(Pool::start(usize::MAX, none).threads(), MOST_THREADS);
    assert_eq!(Pool::start(0, none).threads(), 1);
}

#[test]
fn a_scripted_pool_runs_every_piece_once_and_breaks_off_at_the_same_piece_each_time() {
    for seed in 0..200 {
        let threads = 1 + seed as usize % 4;
        let run = || {
            let pool = Pool::scripted(threads, seed);
            let mut breaks = Vec::new();
            for (job, background) in [false, true, false, true].into_iter().enumerate() {
                pool.set_background(background);
                let counts: Vec<_> = (0..50).map(|_| AtomicUsize::new(0)).collect();
                let mut looks = 0;
                let mut look = || {
                    looks += 1;
                    if job >= 2 && looks == 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                };
                let flow = pool.run_in_order(50, &mut look, |piece, thread| {
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

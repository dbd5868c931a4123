//! A mailbox of one slot: the newest job wins, and `put` returns the one that it displaced.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// One slot between a thread that puts and a thread that takes.
#[derive(Debug)]
pub(crate) struct Mailbox<T> {
    slot: Mutex<MailboxSlot<T>>,
    changed: Condvar,
    /// Whether a job waits: read after every token, so without the lock.
    waiting: AtomicBool,
}

#[derive(Debug)]
struct MailboxSlot<T> {
    job: Option<T>,
    closed: bool,
}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        Self {
            slot: Mutex::new(MailboxSlot { job: None, closed: false }),
            changed: Condvar::new(),
            waiting: AtomicBool::new(false),
        }
    }
}

impl<T> Mailbox<T> {
    fn slot(&self) -> MutexGuard<'_, MailboxSlot<T>> {
        // A thread that panicked while it held the lock cannot have left half a job: the slot is one move.
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts `job` into the slot and returns the one that was not taken, or `job` itself once closed.
    pub(crate) fn put(&self, job: T) -> Option<T> {
        let mut slot = self.slot();
        if slot.closed {
            return Some(job);
        }
        let displaced = slot.job.replace(job);
        self.waiting.store(true, Ordering::Release);
        self.changed.notify_one();
        displaced
    }

    /// Waits for a job; `None` once the mailbox is closed.
    pub(crate) fn take(&self) -> Option<T> {
        let mut slot = self.slot();
        loop {
            if slot.closed {
                return None;
            }
            if let Some(job) = slot.job.take() {
                self.waiting.store(false, Ordering::Release);
                return Some(job);
            }
            slot = self.changed.wait(slot).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes the waiting job if it `fits`; that must not take long, because `put` waits meanwhile.
    pub(crate) fn take_if(&self, fits: impl FnOnce(&T) -> bool) -> Option<T> {
        let mut slot = self.slot();
        if slot.closed || !slot.job.as_ref().is_some_and(fits) {
            return None;
        }
        self.waiting.store(false, Ordering::Release);
        slot.job.take()
    }

    /// Whether a job waits, or the mailbox is closed: running work should end.
    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Acquire)
    }

    /// Waits until [`is_waiting`](Self::is_waiting), at most for `pause`; returns whether it is.
    pub(crate) fn wait(&self, pause: Duration) -> bool {
        let slot = self.slot();
        let nothing = |slot: &mut MailboxSlot<T>| slot.job.is_none() && !slot.closed;
        let (slot, _) =
            self.changed.wait_timeout_while(slot, pause, nothing).unwrap_or_else(PoisonError::into_inner);
        drop(slot);
        self.is_waiting()
    }

    /// Ends every present and future `take`.
    pub(crate) fn close(&self) {
        let mut slot = self.slot();
        slot.closed = true;
        slot.job = None;
        self.waiting.store(true, Ordering::Release);
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    #[test]
    fn newest_job_displaces_older_one() {
        let mailbox = Mailbox::default();
        assert!(!mailbox.is_waiting());
        assert_eq!(mailbox.put(1), None);
        assert_eq!(mailbox.put(2), Some(1));
        assert!(mailbox.is_waiting());
        assert_eq!(mailbox.take(), Some(2));
        assert!(!mailbox.is_waiting());
    }

    #[test]
    fn mailbox_take_if_leaves_unwanted_jobs() {
        let mailbox = Mailbox::default();
        assert_eq!(mailbox.take_if(|_| true), None);
        mailbox.put(1);
        assert_eq!(mailbox.take_if(|&job| job > 1), None);
        assert!(mailbox.is_waiting());
        assert_eq!(mailbox.take_if(|&job| job == 1), Some(1));
        assert!(!mailbox.is_waiting());
        mailbox.close();
        assert_eq!(mailbox.take_if(|_| true), None);
        assert!(mailbox.is_waiting());
    }

    #[test]
    fn closed_mailbox_ends_take_and_refuses_jobs() {
        let mailbox = Arc::new(Mailbox::<u8>::default());
        let taker = thread::spawn({
            let mailbox = Arc::clone(&mailbox);
            move || mailbox.take()
        });
        mailbox.close();
        assert_eq!(taker.join().ok(), Some(None));
        assert_eq!(mailbox.put(7), Some(7));
        assert!(mailbox.is_waiting());
    }

    #[test]
    fn mailbox_wait_ends_on_job_or_timeout() {
        let mailbox = Arc::new(Mailbox::default());
        assert!(!mailbox.wait(Duration::from_millis(1)));
        let waiter = thread::spawn({
            let mailbox = Arc::clone(&mailbox);
            move || mailbox.wait(Duration::from_secs(600))
        });
        mailbox.put(1);
        assert_eq!(waiter.join().ok(), Some(true));
        assert_eq!(mailbox.take(), Some(1));
        mailbox.close();
        assert!(mailbox.wait(Duration::from_secs(600)));
    }

    #[test]
    fn mailbox_loses_and_doubles_no_job_across_threads() {
        let mailbox = Arc::new(Mailbox::default());
        let taker = thread::spawn({
            let mailbox = Arc::clone(&mailbox);
            move || {
                let mut taken = Vec::new();
                while let Some(job) = mailbox.take() {
                    taken.push(job);
                    if job == 9999 {
                        break;
                    }
                }
                taken
            }
        });
        let mut displaced: Vec<u32> = (0..10_000).filter_map(|job| mailbox.put(job)).collect();
        displaced.extend(taker.join().ok().into_iter().flatten());
        displaced.sort_unstable();
        assert_eq!(displaced, (0..10_000).collect::<Vec<_>>());
    }
}

//! What of the machine an engine uses: its memory, its clock, its threads; tests bring their own.
//! It knows nothing of models.

use super::clock::EngineClock;
use super::thread_pool::ThreadPool;
use crate::memory::MemoryProbe;

/// The machine.
pub(super) struct HostMachine {
    pub(super) memory: MemoryProbe,
    pub(super) clock: EngineClock,
    /// A pool of so many threads.
    pub(super) pool: Box<dyn Fn(usize) -> ThreadPool>,
}

impl HostMachine {
    /// This one.
    pub(super) fn current() -> Self {
        Self { memory: MemoryProbe::System, clock: EngineClock::system(), pool: Box::new(ThreadPool::new) }
    }

    /// One on which whatever depends on speed is drawn from a seed.
    #[cfg(test)]
    pub(super) fn scripted(seed: u64) -> Self {
        let pool = Box::new(move |threads| ThreadPool::scripted(threads, seed));
        Self { clock: EngineClock::scripted(seed), pool, ..Self::current() }
    }
}

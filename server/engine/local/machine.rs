//! The machine resources that an engine uses: memory, clock, threads. Tests substitute their own.

use super::clock::EngineClock;
use super::thread_pool::ThreadPool;
use crate::memory::MemoryProbe;

/// Access to the machine.
pub(super) struct HostMachine {
    pub(super) memory: MemoryProbe,
    pub(super) clock: EngineClock,
    /// Creates a pool with this number of threads.
    pub(super) pool: Box<dyn Fn(usize) -> ThreadPool>,
}

impl HostMachine {
    /// The actual machine.
    pub(super) fn current() -> Self {
        Self { memory: MemoryProbe::System, clock: EngineClock::system(), pool: Box::new(ThreadPool::new) }
    }

    /// A machine whose speed is determined by a seed.
    #[cfg(test)]
    pub(super) fn scripted(seed: u64) -> Self {
        let pool = Box::new(move |threads| ThreadPool::scripted(threads, seed));
        Self { clock: EngineClock::scripted(seed), pool, ..Self::current() }
    }
}

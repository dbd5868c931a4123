//! What of the machine an engine uses: its memory, its clock, its threads; tests bring their own.
//! It knows nothing of models.

use super::clock::Clock;
use super::pool::Pool;
use crate::memory::Memory;

/// The machine.
pub(super) struct Machine {
    pub(super) memory: Memory,
    pub(super) clock: Clock,
    /// A pool of so many threads.
    pub(super) pool: Box<dyn Fn(usize) -> Pool>,
}

impl Machine {
    /// This one.
    pub(super) fn here() -> Self {
        Self { memory: Memory::Here, clock: Clock::system(), pool: Box::new(Pool::new) }
    }

    /// One on which whatever depends on speed is drawn from a seed.
    #[cfg(test)]
    pub(super) fn scripted(seed: u64) -> Self {
        let pool = Box::new(move |threads| Pool::scripted(threads, seed));
        Self { clock: Clock::scripted(seed), pool, ..Self::here() }
    }
}

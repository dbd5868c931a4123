//! Forked sequences for decoding several branches after a prompt.

use super::{CachedSequences, MAX_BRANCHES};
use crate::local::Decoder;

impl CachedSequences {
    /// Whether branches can coexist with the current sequence, which then stays unchanged.
    pub(in crate::local) fn can_branch(&self) -> bool {
        self.can_shift
    }

    /// Forks a branch from the first `len` tokens of the current sequence; returns its number in the decoder. It shares
    /// pages and copies those that it writes to; nothing resident is evicted for it.
    ///
    /// If the decoder has no branches, truncates the current sequence.
    pub(in crate::local) fn create_branch(
        &self,
        decoder: &mut dyn Decoder,
        number: usize,
        len: usize,
    ) -> usize {
        if !self.can_shift {
            decoder.truncate_sequence(self.current, len);
            return self.current;
        }
        let to = 2 * self.cached.len() + number % MAX_BRANCHES;
        decoder.fork_sequence(self.current, to, 0..len);
        to
    }

    /// Removes all branches. Without branches in the decoder, the last one's tokens stay in the current sequence.
    pub(in crate::local) fn drop_branches(&self, decoder: &mut dyn Decoder) {
        if self.can_shift {
            for number in 0..MAX_BRANCHES {
                decoder.clear_sequence(2 * self.cached.len() + number);
            }
        }
    }
}

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
        &mut self,
        decoder: &mut dyn Decoder,
        number: usize,
        len: usize,
    ) -> usize {
        if !self.can_shift {
            self.truncate_current(decoder, len);
            return self.current;
        }
        let to = 2 * self.cached.len() + number % MAX_BRANCHES;
        decoder.fork_sequence(self.current, to, 0..len);
        to
    }

    /// Removes all branches.
    pub(in crate::local) fn drop_branches(&mut self, decoder: &mut dyn Decoder) {
        if self.can_shift {
            for number in 0..MAX_BRANCHES {
                let branch = 2 * self.cached.len() + number;
                decoder.fork_sequence(branch, branch, 0..0);
            }
        } else {
            // A branch may have written past the known tokens of the sequence.
            let held = self.current_tokens().len().min(decoder.sequence_len(self.current));
            self.truncate_current(decoder, held);
        }
    }
}

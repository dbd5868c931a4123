//! Sequences that fork off behind a prompt for as long as several ways to go on are looked at.
//! It knows nothing of which ways those are.

use super::{CachedSequences, MAX_BRANCHES};
use crate::local::Decoder;

impl CachedSequences {
    /// Whether branches can stand beside the sequence in use, which then is as it was afterwards.
    pub(in crate::local) fn can_branch(&self) -> bool {
        self.can_shift
    }

    /// Makes a branch of the first `len` tokens of the sequence in use; the number by which the decoder knows it. It
    /// shares the pages, and takes those that it writes to: nothing resident is given up for it.
    ///
    /// Where there are no branches, it is the sequence in use that is cut.
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

    /// Gives up all branches.
    pub(in crate::local) fn drop_branches(&mut self, decoder: &mut dyn Decoder) {
        if self.can_shift {
            for number in 0..MAX_BRANCHES {
                let branch = 2 * self.cached.len() + number;
                decoder.fork_sequence(branch, branch, 0..0);
            }
        } else {
            // What a branch wrote behind what is known of the sequence.
            let held = self.current_tokens().len().min(decoder.len());
            self.truncate_current(decoder, held);
        }
    }
}

//! Sequences that fork off behind a prompt for as long as several ways to go on are looked at.
//! It knows nothing of which ways those are.

use super::{BRANCHES, Sequences};
use crate::local::Decoder;

impl Sequences {
    /// Whether branches can stand beside the sequence in use, which then is as it was afterwards.
    pub(in crate::local) fn forks(&self) -> bool {
        self.moves
    }

    /// Makes a branch of the first `len` tokens of the sequence in use; the number by which the decoder knows it. It
    /// shares the pages, and takes those that it writes to: nothing resident is given up for it.
    ///
    /// Where there are no branches, it is the sequence in use that is cut.
    pub(in crate::local) fn branch(&mut self, decoder: &mut dyn Decoder, number: usize, len: usize) -> usize {
        if !self.moves {
            self.cut(decoder, len);
            return self.current;
        }
        let to = 2 * self.slots.len() + number % BRANCHES;
        decoder.fork(self.current, to, 0..len);
        to
    }

    /// Gives up all branches.
    pub(in crate::local) fn drop_branches(&mut self, decoder: &mut dyn Decoder) {
        if self.moves {
            for number in 0..BRANCHES {
                let branch = 2 * self.slots.len() + number;
                decoder.fork(branch, branch, 0..0);
            }
        } else {
            // What a branch wrote behind what is known of the sequence.
            let held = self.tokens().len().min(decoder.len());
            self.cut(decoder, held);
        }
    }
}

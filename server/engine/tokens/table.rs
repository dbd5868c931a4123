//! Tokens by their bytes, while a vocabulary is read.
//! It knows nothing of files.

use super::{Kind, NONE, TokenId, Tokens};

/// A hash table over the ordinary tokens' bytes, while the merges are read: three look-ups for each of them.
pub(super) struct Spellings {
    slots: Vec<TokenId>,
}

impl Spellings {
    pub(super) fn of(tokens: &Tokens) -> Self {
        let mut this = Self { slots: vec![NONE; (2 * tokens.len()).next_power_of_two()] };
        for kind in [Kind::Normal, Kind::User, Kind::Byte] {
            for id in 0..tokens.len() as TokenId {
                if tokens.kind(id) == kind {
                    let slot = this.slot(tokens, tokens.text(id));
                    if this.slots[slot] == NONE {
                        this.slots[slot] = id;
                    }
                }
            }
        }
        this
    }

    pub(super) fn find(&self, tokens: &Tokens, bytes: &[u8]) -> Option<TokenId> {
        Some(self.slots[self.slot(tokens, bytes)]).filter(|&id| id != NONE)
    }

    /// The slot that holds these bytes, or the free one where they belong. At least half of the slots are free.
    fn slot(&self, tokens: &Tokens, bytes: &[u8]) -> usize {
        let mut hash = 0_u64;
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            hash = (hash ^ u64::from_le_bytes(word) ^ chunk.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            hash ^= hash >> 29;
        }
        let mask = self.slots.len() - 1;
        let mut slot = hash as usize & mask;
        while self.slots[slot] != NONE && tokens.text(self.slots[slot]) != bytes {
            slot = (slot + 1) & mask;
        }
        slot
    }
}

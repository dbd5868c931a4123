//! Finds tokens by their bytes while a vocabulary is loaded.

use super::{NO_TOKEN, TokenId, TokenType, Tokenizer};

/// A hash table over the ordinary tokens' bytes, used while the merges are read: three lookups per merge.
pub(super) struct SpellingTable {
    slots: Vec<TokenId>,
}

impl SpellingTable {
    pub(super) fn from_tokenizer(tokens: &Tokenizer) -> Self {
        let mut this = Self { slots: vec![NO_TOKEN; (2 * tokens.len()).next_power_of_two()] };
        for kind in [TokenType::Normal, TokenType::User, TokenType::Byte] {
            for id in 0..tokens.len() as TokenId {
                if tokens.token_type(id) == kind {
                    let slot = this.find_slot(tokens, tokens.stored_bytes(id));
                    if this.slots[slot] == NO_TOKEN {
                        this.slots[slot] = id;
                    }
                }
            }
        }
        this
    }

    pub(super) fn find(&self, tokens: &Tokenizer, bytes: &[u8]) -> Option<TokenId> {
        Some(self.slots[self.find_slot(tokens, bytes)]).filter(|&id| id != NO_TOKEN)
    }

    /// The slot with these bytes, or the free slot where they belong. At least half of the slots are free.
    fn find_slot(&self, tokens: &Tokenizer, bytes: &[u8]) -> usize {
        let mut hash = 0_u64;
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            hash = (hash ^ u64::from_le_bytes(word) ^ chunk.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            hash ^= hash >> 29;
        }
        let mask = self.slots.len() - 1;
        let mut slot = hash as usize & mask;
        while self.slots[slot] != NO_TOKEN && tokens.stored_bytes(self.slots[slot]) != bytes {
            slot = (slot + 1) & mask;
        }
        slot
    }
}

//! The tokens of a cached sequence, and how many of them have the state that an empty cache would give.

use crate::TokenId;

/// The tokens whose keys and values a sequence holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SequenceTokens {
    tokens: Vec<TokenId>,
    /// The first `exact` tokens have the same state as with an empty cache; the others attended to a shifted suffix.
    exact: usize,
    /// The number of changed tokens before that suffix; 0 if all are exact.
    staleness: usize,
}

impl SequenceTokens {
    /// All tokens.
    pub fn as_slice(&self) -> &[TokenId] {
        &self.tokens
    }

    /// Their number.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// The first tokens, whose state does not depend on a shifted suffix.
    pub fn exact_tokens(&self) -> &[TokenId] {
        &self.tokens[..self.exact]
    }

    /// The first tokens, as many as a prompt can use that allows this staleness: see
    /// [`GenerationLimits::max_stale_tokens`](crate::GenerationLimits::max_stale_tokens).
    pub fn usable_tokens(&self, max_stale_tokens: usize) -> &[TokenId] {
        if self.staleness <= max_stale_tokens { &self.tokens } else { self.exact_tokens() }
    }

    /// A copy of the first `len` tokens.
    pub(super) fn copy_prefix(&self, len: usize) -> Self {
        let mut copy = Self { tokens: self.tokens[..len].to_vec(), ..*self };
        copy.truncate(len);
        copy
    }

    /// Appends evaluated tokens.
    pub(super) fn append_tokens(&mut self, tokens: &[TokenId]) {
        if self.exact == self.tokens.len() {
            self.exact += tokens.len();
        }
        self.tokens.extend_from_slice(tokens);
    }

    /// Appends tokens that were evaluated after a text that differs from this one by `changed` tokens.
    pub(super) fn append_shifted(&mut self, tokens: &[TokenId], changed: usize) {
        if changed == 0 {
            return self.append_tokens(tokens);
        }
        self.tokens.extend_from_slice(tokens);
        self.staleness = self.staleness.max(changed);
    }

    /// Keeps the first `len` tokens.
    pub(super) fn truncate(&mut self, len: usize) {
        self.tokens.truncate(len);
        self.exact = self.exact.min(self.tokens.len());
        if self.exact == self.tokens.len() {
            self.staleness = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_after_shifted_suffix_are_usable_by_staleness() {
        let mut tokens = SequenceTokens::default();
        tokens.append_tokens(&[1, 2]);
        tokens.append_shifted(&[3, 4], 0);
        assert_eq!(tokens.exact_tokens(), [1, 2, 3, 4]);
        tokens.append_shifted(&[5, 6], 7);
        tokens.append_tokens(&[8]);
        assert_eq!((tokens.exact_tokens(), tokens.len()), (&[1, 2, 3, 4][..], 7));
        assert_eq!((tokens.usable_tokens(6).len(), tokens.usable_tokens(7).len()), (4, 7));
        tokens.append_shifted(&[9], 3);
        assert_eq!((tokens.usable_tokens(6).len(), tokens.usable_tokens(7).len()), (4, 8));
        assert_eq!(tokens.copy_prefix(5).usable_tokens(6), [1, 2, 3, 4]);
        // Without the stale tokens, all are exact again.
        for mut exact in [tokens.copy_prefix(4), tokens.copy_prefix(2)] {
            exact.append_tokens(&[10]);
            assert_eq!(exact.usable_tokens(0), exact.as_slice());
        }
        tokens.truncate(99);
        assert_eq!(tokens.len(), 8);
    }
}

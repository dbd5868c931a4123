//! SentencePiece's byte-pair encoding: the neighbours whose joint spelling scores highest merge first.
//!
//! Kudo, Richardson 2018 (`bpe_model.cc`): no pre-tokenization, ties go to the leftmost pair, and a symbol without
//! a token falls back to its bytes.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::TokenId;

/// The lookups that the encoder needs from a vocabulary.
pub(crate) trait PieceLookup {
    /// The normal token with this spelling, and its score.
    fn find_piece(&self, bytes: &[u8]) -> Option<(TokenId, f32)>;
    /// The token of a single byte.
    fn fallback_byte_token(&self, byte: u8) -> Option<TokenId>;
}

/// Two neighbours, from `left` to `end`, that form a token together.
struct MergeCandidate {
    score: f32,
    left: usize,
    right: usize,
    end: usize,
}

impl Ord for MergeCandidate {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then_with(|| other.left.cmp(&self.left))
    }
}

impl PartialOrd for MergeCandidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for MergeCandidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for MergeCandidate {}

/// Appends the tokens of `text` to `out`.
pub(crate) fn encode_text(pieces: &dyn PieceLookup, text: &str, out: &mut Vec<TokenId>) {
    // A symbol is identified by the offset of its first byte; `end` there is 0 after a merge into its left neighbour.
    let bytes = text.as_bytes();
    let mut end = vec![0; bytes.len()];
    let mut previous = vec![usize::MAX; bytes.len()];
    let mut last = usize::MAX;
    for (start, char) in text.char_indices() {
        end[start] = start + char.len_utf8();
        previous[start] = last;
        last = start;
    }
    let mut heap = BinaryHeap::new();
    let push = |heap: &mut BinaryHeap<MergeCandidate>, left: usize, right: usize, end: usize| {
        if let Some((_, score)) = pieces.find_piece(&bytes[left..end]) {
            heap.push(MergeCandidate { score, left, right, end });
        }
    };
    let mut start = 0;
    while start < bytes.len() && end[start] < bytes.len() {
        push(&mut heap, start, end[start], end[end[start]]);
        start = end[start];
    }
    while let Some(MergeCandidate { left, right, end: whole, .. }) = heap.pop() {
        // Stale where either side has changed since.
        if end[left] != right || end[right] != whole {
            continue;
        }
        end[left] = whole;
        end[right] = 0;
        if whole < bytes.len() {
            previous[whole] = left;
            push(&mut heap, left, whole, end[whole]);
        }
        if previous[left] != usize::MAX {
            push(&mut heap, previous[left], left, whole);
        }
    }
    let mut start = 0;
    while start < bytes.len() {
        let symbol = &bytes[start..end[start]];
        match pieces.find_piece(symbol) {
            Some((id, _)) => out.push(id),
            None => out.extend(symbol.iter().filter_map(|&byte| pieces.fallback_byte_token(byte))),
        }
        start = end[start];
    }
}

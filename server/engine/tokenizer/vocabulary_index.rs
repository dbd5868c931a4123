//! The indexes by which tokens are found: by their bytes, by their first bytes, special ones by name.

use std::ops::Range;

use super::spelling::is_html_tag;
use super::{NO_TOKEN, TokenId, TokenType, Tokenizer};

/// Indexes for finding tokens.
#[derive(Default)]
pub(super) struct VocabularyIndex {
    /// Ordinary tokens sorted by their bytes.
    pub(super) sorted: Vec<TokenId>,
    /// Where in `sorted` the tokens with given first two bytes begin; see [`bucket_index`].
    pub(super) buckets: Vec<u32>,
    /// Special tokens sorted by name.
    pub(super) specials: Vec<TokenId>,
    /// Runs of blanks, and Gemma's tags of HTML, that are encoded as one token before anything else, longest first.
    pub(super) verbatim: Vec<TokenId>,
    /// Length of the longest ordinary token.
    pub(super) longest: usize,
}

impl VocabularyIndex {
    pub(super) fn empty() -> Self {
        Self { buckets: vec![0; BUCKET_COUNT + 1], ..Self::default() }
    }
}

impl Tokenizer {
    /// Indexes the ordinary tokens by their bytes, and the special ones by their names.
    pub(super) fn build_index(&self, sentencepiece: bool) -> VocabularyIndex {
        let mut keyed: Vec<(u64, TokenId)> = Vec::with_capacity(self.len());
        let (mut specials, mut verbatim) = (Vec::new(), Vec::new());
        let mut longest = 0;
        for id in 0..self.len() as TokenId {
            let text = self.stored_bytes(id);
            if self.token_type(id) == TokenType::Special {
                specials.push(id);
                continue;
            }
            let is_blank_run = text.len() > 1 && text.iter().all(u8::is_ascii_whitespace);
            if self.token_type(id) == TokenType::User && (is_blank_run || sentencepiece && is_html_tag(text))
            {
                verbatim.push(id);
            }
            // The first eight bytes decide nearly every comparison without access to the pool.
            let mut head = [0; 8];
            let len = text.len().min(8);
            head[..len].copy_from_slice(&text[..len]);
            longest = longest.max(text.len());
            keyed.push((u64::from_be_bytes(head), id));
        }
        keyed.sort_unstable_by(|&(a, x), &(b, y)| {
            let rest = || {
                self.stored_bytes(x)
                    .cmp(self.stored_bytes(y))
                    .then_with(|| self.token_type(x).cmp(&self.token_type(y)))
                    .then(x.cmp(&y))
            };
            a.cmp(&b).then_with(rest)
        });
        let sorted: Vec<TokenId> = keyed.into_iter().map(|(_, id)| id).collect();
        let mut buckets = vec![0_u32; BUCKET_COUNT + 1];
        for &id in &sorted {
            buckets[bucket_index(self.stored_bytes(id)) + 1] += 1;
        }
        for i in 1..buckets.len() {
            buckets[i] += buckets[i - 1];
        }
        specials.sort_by(|&x, &y| self.stored_bytes(x).cmp(self.stored_bytes(y)));
        verbatim.sort_by_key(|&id| std::cmp::Reverse(self.stored_bytes(id).len()));
        VocabularyIndex { sorted, buckets, specials, verbatim, longest }
    }

    pub(super) fn index_byte_tokens(&mut self) {
        for byte in 0..=255_u8 {
            self.bytes[usize::from(byte)] = self.spelling(&[byte]).unwrap_or(NO_TOKEN);
        }
        if let Some(id) =
            (0..self.kinds.len() as TokenId).find(|&id| self.kinds[id as usize] == TokenType::Byte)
        {
            // SentencePiece falls back to the byte tokens, not to letters that happen to be one byte long.
            for id in id..self.kinds.len() as TokenId {
                if self.token_type(id) == TokenType::Byte {
                    self.bytes[usize::from(self.stored_bytes(id)[0])] = id;
                }
            }
        }
    }

    /// A range of `sorted` that contains every token that begins with `bytes`.
    pub(super) fn bucket_range(&self, bytes: &[u8]) -> Range<usize> {
        let (first, last) = match bytes {
            [] => return 0..self.index.sorted.len(),
            [first] => (bucket_index(&[*first]), bucket_index(&[*first, 255])),
            more => (bucket_index(more), bucket_index(more)),
        };
        self.index.buckets[first] as usize..self.index.buckets[last + 1] as usize
    }
}

/// Number of buckets, see [`bucket_index`].
const BUCKET_COUNT: usize = 256 * 257;

/// The bucket of a spelling's first two bytes, in the order of the spellings; a single byte precedes all its pairs.
pub(super) fn bucket_index(bytes: &[u8]) -> usize {
    let first = bytes.first().map_or(0, |&byte| usize::from(byte));
    let second = bytes.get(1).map_or(0, |&byte| usize::from(byte) + 1);
    first * 257 + second
}

//! The decoder interface: takes tokens into the KV caches of its sequences and returns logits.

use std::ops::{ControlFlow, Range};

use super::SequenceTokens;
use crate::priority::Priority;
use crate::{EngineError, TokenId};

/// The logits requested for a position.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum LogitsRequest {
    /// All of them.
    #[default]
    All,
    /// The greatest one: it is exact, and so are all close to it; the others are smaller estimates. The probability of
    /// the greatest is accurate within two hundredths.
    Argmax,
    /// Those of these tokens are exact; the others are undefined.
    Subset(Vec<TokenId>),
}

/// Tokens to append to a sequence.
#[derive(Debug, Clone, Default)]
pub struct Batch<'a> {
    /// The number of the sequence.
    pub sequence: usize,
    /// The tokens to evaluate.
    pub tokens: &'a [TokenId],
    /// The logits requested for the last tokens, one request for each of them. A decoder may compute more than
    /// requested, but the result for a token never depends on the other requests.
    pub logits: &'a [LogitsRequest],
    /// The segment that is inserted between the tokens without evaluation.
    pub suffix_shift: Option<SuffixShift>,
    /// Whether the results must have the same bits as if the tokens were evaluated one at a time, for verifying
    /// drafts; see [`Decoder::is_batch_invariant`]. Reading a prompt may be faster without.
    pub exact: bool,
    /// The priority of the work.
    pub priority: Priority,
}

/// One token for each of several sequences, to evaluate together, exactly and at interactive priority. The three lists
/// have the same length.
#[derive(Debug, Clone, Copy)]
pub struct SequencesBatch<'a> {
    /// The numbers of the sequences; none occurs twice.
    pub sequences: &'a [usize],
    /// The token to append to each.
    pub tokens: &'a [TokenId],
    /// The logits requested after each.
    pub logits: &'a [LogitsRequest],
}

/// Positions of another sequence that are moved into this one: values unchanged, keys rotated to the new positions.
#[derive(Debug, Clone)]
pub struct SuffixShift {
    /// Number of the batch's tokens before them.
    pub insert_after: usize,
    /// The source sequence.
    pub source: usize,
    /// Their positions in it.
    pub rows: Range<usize>,
    /// Number of tokens by which the text before them has changed since they were evaluated; 0: their values are those
    /// that evaluating them again would give.
    pub changed: usize,
}

/// Tokens after the end of a sequence that an interrupted [`Decoder::forward_batch`] has started to evaluate.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ResumableWork {
    /// Their number.
    pub tokens: usize,
    /// The work done on them, in tokens: at most their number.
    pub work: f32,
    /// The work done on other tokens, which is discarded for these.
    pub discarded: f32,
}

/// A decoder-only transformer: weights, and the KV caches of one or several sequences, which can be truncated.
///
/// Two implementations: candle tensors (GPUs, and the reference on CPUs) and our own kernels (CPUs).
pub trait Decoder: Send {
    /// Appends a batch to its sequence and returns the requested logits, `[requests, vocabulary]` row-major. `look` is
    /// called every few milliseconds; if it breaks, the call returns `Break` and the sequence is as before. A
    /// decoder may keep completed layers ([`Decoder::resumable_work`]): the next batch of the same sequence continues
    /// from there as far as it begins with the same tokens, unless the sequence was truncated in between.
    ///
    /// # Errors
    /// The tokens do not fit into [`Decoder::capacity`], or the device failed; the cache then keeps
    /// only what it held before the call.
    fn forward_batch(
        &mut self,
        batch: &Batch<'_>,
        look: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<ControlFlow<(), &[f32]>, EngineError>;

    /// [`Decoder::forward_batch`] without interruption: appends `tokens` to the first sequence and returns all logits of
    /// the last `rows`; those of several rows are exact.
    ///
    /// # Errors
    /// See [`Decoder::forward_batch`].
    fn forward(&mut self, tokens: &[TokenId], rows: usize) -> Result<&[f32], EngineError> {
        let logits: Vec<_> = (0..rows).map(|_| LogitsRequest::All).collect();
        let batch = Batch { tokens, logits: &logits, exact: rows > 1, ..Batch::default() };
        match self.forward_batch(&batch, &mut || ControlFlow::Continue(()))? {
            ControlFlow::Continue(logits) => Ok(logits),
            ControlFlow::Break(()) => Ok(&[]),
        }
    }

    /// Appends one token to each of several sequences and returns the requested logits, `[sequences, vocabulary]`
    /// row-major; `look` is that of [`Decoder::forward_batch`]. A decoder with one sequence takes one token.
    ///
    /// # Errors
    /// See [`Decoder::forward_batch`].
    fn forward_sequences(
        &mut self,
        batch: &SequencesBatch<'_>,
        look: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<ControlFlow<(), &[f32]>, EngineError> {
        let SequencesBatch { tokens, logits, .. } = *batch;
        debug_assert!(tokens.len() <= 1, "tokens of several sequences for a decoder with one");
        self.forward_batch(&Batch { tokens, logits, exact: true, ..Batch::default() }, look)
    }

    /// The work that an interrupted call has left on `tokens`, if a batch for a sequence began with them now. It never
    /// includes tokens of a batch after [`Batch::suffix_shift`].
    fn resumable_work(&self, _sequence: usize, _tokens: &[TokenId]) -> ResumableWork {
        ResumableWork::default()
    }

    /// Whether it ever keeps work of an interrupted call.
    fn can_resume(&self) -> bool {
        false
    }

    /// The tokens of a sequence.
    fn sequence_tokens(&self, sequence: usize) -> &SequenceTokens;

    /// Their number.
    fn sequence_len(&self, sequence: usize) -> usize {
        self.sequence_tokens(sequence).len()
    }

    /// Keeps the first `len` tokens of a sequence.
    fn truncate_sequence(&mut self, sequence: usize, len: usize);

    /// Removes a sequence's tokens, and what an interrupted call left after them.
    fn clear_sequence(&mut self, sequence: usize) {
        self.truncate_sequence(sequence, 0);
    }

    /// Tokens that a sequence can hold.
    fn capacity(&self) -> usize;

    /// Whether a position's logits have the same bits for any number of tokens in the same batch if that is
    /// [exact](Batch::exact). Only then does a batch that verifies drafts choose the same tokens as decoding one by one.
    fn is_batch_invariant(&self) -> bool {
        false
    }

    /// Requests `sequences` sequences, numbered from 0; returns the available number. A decoder with one supports
    /// neither the methods below nor [`Batch::suffix_shift`].
    fn resize_sequences(&mut self, _sequences: usize) -> usize {
        1
    }

    /// Makes sequence `to` a copy of the positions `rows` of sequence `from`. If these do not begin at 0, they can only
    /// be shifted out of it.
    fn fork_sequence(&mut self, _from: usize, _to: usize, _rows: Range<usize>) {}

    /// Bytes of all sequences.
    fn kv_bytes(&self) -> usize {
        0
    }

    /// Maximum additional bytes for `tokens` more tokens.
    fn kv_bytes_for(&self, _tokens: usize) -> usize {
        0
    }
}

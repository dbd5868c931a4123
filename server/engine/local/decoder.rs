//! The decoder interface: takes tokens into the KV caches of its sequences and returns logits.

use std::ops::{ControlFlow, Range};

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
    /// The tokens to evaluate.
    pub tokens: &'a [TokenId],
    /// The number of last tokens whose logits are wanted.
    pub logit_rows: usize,
    /// The segment that is inserted between them without evaluation.
    pub suffix_shift: Option<SuffixShift>,
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
    /// Appends a batch to the selected sequence and returns the requested logits, `[rows, vocabulary]` row-major.
    /// `look` is called every few milliseconds; if it breaks, the call returns `Break` and the sequence is as before. A
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

    /// [`Decoder::forward_batch`] without interruption: appends `tokens` and returns the logits of the last `rows`.
    ///
    /// # Errors
    /// See [`Decoder::forward_batch`].
    fn forward(&mut self, tokens: &[TokenId], rows: usize) -> Result<&[f32], EngineError> {
        let batch = Batch { tokens, logit_rows: rows, suffix_shift: None };
        match self.forward_batch(&batch, &mut || ControlFlow::Continue(()))? {
            ControlFlow::Continue(logits) => Ok(logits),
            ControlFlow::Break(()) => Ok(&[]),
        }
    }

    /// Appends one token to each of several sequences, all in one batch, and returns the logits after each,
    /// `[rows, vocabulary]` row-major. No sequence occurs twice; `look` is that of [`Decoder::forward_batch`], and the
    /// selection stays. A decoder with one sequence takes one row.
    ///
    /// # Errors
    /// See [`Decoder::forward_batch`].
    fn forward_sequences(
        &mut self,
        rows: &[(usize, TokenId)],
        look: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<ControlFlow<(), &[f32]>, EngineError> {
        let tokens: Vec<TokenId> = rows.iter().map(|row| row.1).collect();
        debug_assert!(tokens.len() <= 1, "tokens of several sequences for a decoder with one");
        self.forward_batch(&Batch { tokens: &tokens, logit_rows: tokens.len(), suffix_shift: None }, look)
    }

    /// Sets the logits requested for the rows of the next [`Decoder::forward_batch`]; rows without a request get all
    /// logits. A decoder may compute more than requested, but the result for a row never depends on the other rows.
    fn set_logits_requests(&mut self, _requests: Vec<LogitsRequest>) {}

    /// The work that an interrupted call has left on `tokens`, if a batch for a sequence began with them now. It never
    /// includes tokens of a batch after [`Batch::suffix_shift`].
    fn resumable_work(&self, _sequence: usize, _tokens: &[TokenId]) -> ResumableWork {
        ResumableWork::default()
    }

    /// Whether it ever keeps work of an interrupted call.
    fn can_resume(&self) -> bool {
        false
    }

    /// Tokens in the selected sequence.
    fn len(&self) -> usize;

    /// Whether the selected sequence is empty.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps the first `len` tokens of the selected sequence.
    fn truncate(&mut self, len: usize);

    /// Tokens that a sequence can hold.
    fn capacity(&self) -> usize;

    /// Whether a position's logits have the same bits for any number of tokens in the same call. Only then does a batch
    /// that verifies drafts choose the same tokens as decoding one by one.
    fn is_batch_invariant(&self) -> bool {
        false
    }

    /// Sets whether subsequent calls are background work, to run at low priority.
    fn set_background(&mut self, _background: bool) {}

    /// Requests `sequences` sequences, numbered from 0; returns the available number. A decoder with one supports
    /// neither the methods below nor [`Batch::suffix_shift`].
    fn resize_sequences(&mut self, _sequences: usize) -> usize {
        1
    }

    /// Selects a sequence.
    fn select_sequence(&mut self, _sequence: usize) {}

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

//! What a decoder is: tokens into the KV caches of its sequences, logits out.
//! It knows nothing of text, of which token is chosen, or of how the layers are computed.

use std::ops::{ControlFlow, Range};

use crate::{EngineError, TokenId};

/// What the logits of a position are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum LogitsRequest {
    /// Every one of them.
    #[default]
    All,
    /// The greatest one: it is exact, and so are all that are near it; the others are estimates that are smaller. The
    /// probability of the greatest is right within two hundredths.
    Argmax,
    /// Those of these tokens are exact; the others are undefined.
    Subset(Vec<TokenId>),
}

/// Tokens to append to a sequence.
#[derive(Debug, Clone, Default)]
pub struct Batch<'a> {
    /// The tokens that are evaluated.
    pub tokens: &'a [TokenId],
    /// Logits are wanted for the last so many of them.
    pub logit_rows: usize,
    /// What comes between them without being evaluated.
    pub suffix_shift: Option<SuffixShift>,
}

/// Positions of another sequence that are moved into this one: values as they are, keys turned to the new positions.
#[derive(Debug, Clone)]
pub struct SuffixShift {
    /// Tokens of the batch in front of them.
    pub insert_after: usize,
    /// The other sequence.
    pub source: usize,
    /// Which of its positions.
    pub rows: Range<usize>,
}

/// Tokens behind the end of a sequence that an interrupted [`Decoder::advance`] has begun to evaluate.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ResumableWork {
    /// How many.
    pub tokens: usize,
    /// How much of the work on them is done, in tokens: at most as many as they are.
    pub work: f32,
    /// How much was done on others, which is given up for these.
    pub discarded: f32,
}

/// A decoder-only transformer: weights, and the KV caches of one or several sequences, which can be cut.
///
/// Two implementations: candle tensors (GPUs, and the reference on CPUs) and our own kernels (CPUs).
pub trait Decoder: Send {
    /// Appends a batch to the selected sequence and returns the logits that it asks for, `[rows, vocabulary]`
    /// row-major. `look` is called every few milliseconds; if it breaks, the call ends with `Break` and the sequence is as
    /// before. A decoder may keep what was done, layer by layer ([`Decoder::begun`]): the next batch of the same sequence
    /// goes on from there as far as it begins with the same tokens, unless the sequence was cut meanwhile.
    ///
    /// # Errors
    /// The tokens do not fit into [`Decoder::capacity`], or the device failed; the cache then keeps
    /// only what was there before the call.
    fn forward_batch(
        &mut self,
        batch: &Batch<'_>,
        look: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<ControlFlow<(), &[f32]>, EngineError>;

    /// [`Decoder::advance`] without interruption: appends `tokens` and returns the logits of the last `rows`.
    ///
    /// # Errors
    /// See [`Decoder::advance`].
    fn forward(&mut self, tokens: &[TokenId], rows: usize) -> Result<&[f32], EngineError> {
        let batch = Batch { tokens, logit_rows: rows, suffix_shift: None };
        match self.forward_batch(&batch, &mut || ControlFlow::Continue(()))? {
            ControlFlow::Continue(logits) => Ok(logits),
            ControlFlow::Break(()) => Ok(&[]),
        }
    }

    /// Appends one token to each of several sequences, all in one batch, and returns the logits behind each,
    /// `[rows, vocabulary]` row-major. No sequence is named twice; `look` is that of [`Decoder::advance`], and the
    /// selection stays. A decoder with one sequence takes one row.
    ///
    /// # Errors
    /// See [`Decoder::advance`].
    fn forward_sequences(
        &mut self,
        rows: &[(usize, TokenId)],
        look: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<ControlFlow<(), &[f32]>, EngineError> {
        let tokens: Vec<TokenId> = rows.iter().map(|row| row.1).collect();
        debug_assert!(tokens.len() <= 1, "tokens of several sequences for a decoder with one");
        self.forward_batch(&Batch { tokens: &tokens, logit_rows: tokens.len(), suffix_shift: None }, look)
    }

    /// Says what the rows of the next [`Decoder::advance`] are asked for; those that are not named are asked for all
    /// logits. A decoder may do more than it is asked for, but the result for a row never depends on the other rows.
    fn set_logits_requests(&mut self, _asks: Vec<LogitsRequest>) {}

    /// What of `tokens`, if a batch for a sequence began with them now, an interrupted call has left. Tokens of a batch
    /// behind [`Batch::moved`] are never among them.
    fn resumable_work(&self, _sequence: usize, _tokens: &[TokenId]) -> ResumableWork {
        ResumableWork::default()
    }

    /// Whether it ever keeps something of an interrupted call.
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

    /// Whether a position's logits are the same bits however many tokens are evaluated in the same call. Only then
    /// does a batch that verifies guesses choose what single tokens would have chosen.
    fn is_batch_invariant(&self) -> bool {
        false
    }

    /// Whether the calls from now on are work that nobody waits for, to be done at low priority.
    fn set_background(&mut self, _background: bool) {}

    /// Asks for so many sequences, numbered from 0; returns how many there are. A decoder with one knows nothing of
    /// the methods below, nor of [`Batch::moved`].
    fn resize_sequences(&mut self, _sequences: usize) -> usize {
        1
    }

    /// Selects a sequence.
    fn select_sequence(&mut self, _sequence: usize) {}

    /// Makes sequence `to` the positions `rows` of sequence `from`. If these do not begin at 0, they can only be
    /// moved out of it.
    fn fork_sequence(&mut self, _from: usize, _to: usize, _rows: Range<usize>) {}

    /// Bytes that all sequences take.
    fn kv_bytes(&self) -> usize {
        0
    }

    /// Bytes that so many tokens more may take.
    fn kv_bytes_for(&self, _tokens: usize) -> usize {
        0
    }
}

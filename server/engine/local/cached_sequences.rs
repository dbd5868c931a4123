//! The use of a decoder's sequences: which one a prompt continues, and what is forked, shifted or evicted for it.
//!
//! The rules:
//! - A prompt continues the sequence that leaves the fewest tokens to evaluate.
//! - The sequence is reused in place if the text around its suffix changed by no more than a keystroke, or if reuse
//!   discards nothing. Otherwise it is forked, and the fork shares the common prefix. So another place, another
//!   document, a short window beside the whole one, and a prefetched completion do not disturb each other.
//! - A fork takes an empty sequence, or else evicts the least recently used: among those with the same prefix if there
//!   are [`MAX_PER_PREFIX`] of them already, else among all. So no document evicts all others.
//! - Above the memory limit, the least recently used sequences are evicted.
//! - A fully evaluated suffix is retained. When the text before it has changed by no more than
//!   [`GenerationLimits::max_stale_tokens`], it is shifted instead of evaluated: always from the retained original, so
//!   that neither rounding nor staleness accumulates. Tokens after a shifted suffix are marked, and reused only by
//!   prompts that allow as much staleness.

use std::ops::Range;

use super::{Decoder, ResumableWork, SuffixShift};
use crate::{GenerationLimits, Prompt, TokenId};

/// Maximum number of resident sequences.
const MAX_SEQUENCES: usize = 8;
/// Sequences for branches of a generation, in addition to the resident ones.
pub(super) const MAX_BRANCHES: usize = 2;
/// Maximum number of sequences with the same prefix.
const MAX_PER_PREFIX: usize = 3;
/// Tokens that make two prefixes the same: more than the header that every window of a file has.
const SHARED_PREFIX_TOKENS: usize = 64;
/// Maximum number of tokens that a keystroke changes: more means another place.
const KEYSTROKE_TOKENS: usize = 16;
/// Minimum number of tokens of a suffix that is worth shifting.
const MIN_SHIFT_TOKENS: usize = 8;

/// The resident sequences of a decoder, which holds their tokens, keys and values.
#[derive(Debug)]
pub(super) struct CachedSequences {
    /// The use of sequence `i` of the decoder; its retained suffix is sequence `i + cached.len()`.
    cached: Vec<CachedSequence>,
    current: usize,
    /// Counts prompts.
    prompt_count: u64,
    /// Maximum number of bytes to hold.
    byte_limit: usize,
    /// Whether the decoder can shift suffixes.
    can_shift: bool,
}

#[derive(Debug, Default)]
struct CachedSequence {
    /// The last prompt here, evaluated or not, and the range of its suffix.
    last_prompt: Vec<TokenId>,
    suffix: Range<usize>,
    /// Where the retained suffix starts, if there is one.
    retained_start: Option<usize>,
    last_used: u64,
}

/// How a prompt continues a sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PromptStart {
    /// The prompt's first tokens that are kept.
    pub(super) keep: usize,
    /// The shifted part of the prompt.
    pub(super) shift: Option<PlannedShift>,
    /// Resumable work of an interrupted evaluation on the tokens after the kept ones, in tokens.
    resumable: usize,
    /// Whether interrupted work on other tokens is discarded.
    discards_work: bool,
}

/// A retained suffix, or its end, that is shifted into a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PlannedShift {
    /// Its range in the prompt.
    pub(super) prompt_range: Range<usize>,
    /// Its range when it was evaluated.
    source_rows: Range<usize>,
    /// Number of tokens by which the text before it differs.
    changed: usize,
}

impl PromptStart {
    /// The tokens of the prompt that are left to evaluate: all after the kept ones, except the shifted suffix.
    pub(super) fn unread_tokens(&self, prompt: &[TokenId]) -> Vec<TokenId> {
        let shifted = self.shift.as_ref().map_or(self.keep..self.keep, |shift| shift.prompt_range.clone());
        [&prompt[self.keep..shifted.start], &prompt[shifted.end..]].concat()
    }

    /// The remaining work on a prompt of `len` tokens, in tokens.
    fn remaining_work(&self, len: usize) -> usize {
        len - self.keep - self.resumable - self.shift.as_ref().map_or(0, |shift| shift.prompt_range.len())
    }
}

impl CachedSequence {
    /// Whether `prompt` is at the place of the last one here, or discards nothing of the `len` tokens.
    fn is_same_place(&self, len: usize, prompt: &Prompt, start: &PromptStart) -> bool {
        if self.last_prompt.len().min(len) <= start.keep && !start.discards_work {
            return true;
        }
        let around = |tokens: &[TokenId], suffix: &Range<usize>| {
            let start = suffix.start.min(tokens.len());
            let end = suffix.end.clamp(start, tokens.len());
            [&tokens[..start], &tokens[end..]].concat()
        };
        let old = around(&self.last_prompt, &self.suffix);
        changed_tokens(&old, &around(&prompt.tokens, &prompt.suffix)) <= KEYSTROKE_TOKENS
    }
}

impl CachedSequences {
    /// As many sequences as the decoder supports, within `bytes` of memory; the current sequence may exceed that.
    pub(super) fn new(decoder: &mut dyn Decoder, bytes: usize) -> Self {
        let all = 2 * MAX_SEQUENCES + MAX_BRANCHES;
        let moves = decoder.resize_sequences(all) == all;
        let count = if moves { MAX_SEQUENCES } else { 1 };
        let slots = (0..count).map(|_| CachedSequence::default()).collect();
        Self { cached: slots, current: 0, prompt_count: 0, byte_limit: bytes, can_shift: moves }
    }

    #[cfg(test)]
    pub(super) fn set_byte_limit(&mut self, bytes: usize) {
        self.byte_limit = bytes;
    }

    /// The remaining work on the prompt now, in tokens.
    pub(super) fn remaining_work(
        &self,
        decoder: &dyn Decoder,
        prompt: &Prompt,
        limits: &GenerationLimits,
    ) -> usize {
        let len = prompt.tokens.len();
        self.prompt_starts(decoder, prompt, limits, false)
            .map(|start| start.remaining_work(len))
            .min()
            .unwrap_or(len)
    }

    /// How the prompt would continue each sequence.
    fn prompt_starts<'a>(
        &'a self,
        decoder: &'a dyn Decoder,
        prompt: &'a Prompt,
        limits: &'a GenerationLimits,
        logits: bool,
    ) -> impl Iterator<Item = PromptStart> + 'a {
        (0..self.cached.len()).map(move |i| self.plan_reuse(decoder, i, prompt, limits, logits))
    }

    /// How the prompt would continue sequence `i`.
    fn plan_reuse(
        &self,
        decoder: &dyn Decoder,
        i: usize,
        prompt: &Prompt,
        limits: &GenerationLimits,
        logits: bool,
    ) -> PromptStart {
        let (cached, tokens) = (decoder.sequence_tokens(i), &prompt.tokens[..]);
        let same = common_prefix_len(cached.usable_tokens(limits.max_stale_tokens), tokens);
        // For logits of the prompt's end its last token must be evaluated now.
        let keep = if logits { same.min(tokens.len() - 1) } else { same };
        let shift = self.plan_shift(decoder, i, prompt, limits, keep);
        let until = shift.as_ref().map_or(tokens.len(), |shift| shift.prompt_range.start);
        // After truncation nothing is resumable.
        let begun = if keep == cached.len() {
            decoder.resumable_work(i, &tokens[keep..until])
        } else {
            ResumableWork::default()
        };
        PromptStart { keep, shift, resumable: begun.work as usize, discards_work: begun.discarded > 0.0 }
    }

    /// The part of the retained suffix of sequence `i` that the prompt can use after its first `keep` tokens.
    fn plan_shift(
        &self,
        decoder: &dyn Decoder,
        i: usize,
        prompt: &Prompt,
        limits: &GenerationLimits,
        keep: usize,
    ) -> Option<PlannedShift> {
        let start = self.cached[i].retained_start?;
        let old = decoder.sequence_tokens(i + self.cached.len()).as_slice();
        let suffix = prompt.suffix.clone();
        let text = prompt.tokens.get(suffix.clone())?;
        // The token after it is evaluated in the same batch.
        if suffix.end >= prompt.tokens.len() {
            return None;
        }
        let len = common_suffix_len(&old[start..], text);
        let at = suffix.end - len;
        let changed = changed_tokens(&old[..old.len() - len], &prompt.tokens[..at]);
        let place = at.max(keep)..suffix.end;
        if changed > limits.max_stale_tokens || place.len() < MIN_SHIFT_TOKENS {
            return None;
        }
        let rows = old.len() - place.len()..old.len();
        Some(PlannedShift { prompt_range: place, source_rows: rows, changed })
    }

    /// The index of the current sequence.
    pub(super) fn current_index(&self) -> usize {
        self.current
    }

    /// Selects a sequence for the prompt and truncates it to the common prefix. A prompt without decoding that is fully
    /// cached keeps the tokens after it.
    pub(super) fn acquire(
        &mut self,
        decoder: &mut dyn Decoder,
        prompt: &Prompt,
        limits: &GenerationLimits,
        logits: bool,
    ) -> PromptStart {
        self.prompt_count += 1;
        let len = prompt.tokens.len();
        let starts = self.prompt_starts(decoder, prompt, limits, logits);
        let best = starts.enumerate().min_by_key(|(i, start)| {
            let slot = &self.cached[*i];
            let is_same_place = slot.is_same_place(decoder.sequence_len(*i), prompt, start);
            // On a tie, prefer the one that has this place already, then the most recently used.
            (start.remaining_work(len), !is_same_place, u64::MAX - slot.last_used)
        });
        let Some((best, start)) = best else {
            return PromptStart { keep: 0, shift: None, resumable: 0, discards_work: false };
        };
        let whole = start.keep == len;
        self.current = best;
        if !whole && !self.cached[best].is_same_place(decoder.sequence_len(best), prompt, &start) {
            let own = self.eviction_candidate(decoder, best, &prompt.tokens);
            if own != best {
                self.fork_into(decoder, best, own, start.keep);
            }
        }
        self.cached[self.current].last_used = self.prompt_count;
        if !whole {
            decoder.truncate_sequence(self.current, start.keep);
            let slot = &mut self.cached[self.current];
            (slot.last_prompt, slot.suffix) = (prompt.tokens.clone(), prompt.suffix.clone());
        }
        self.evict_until_fits(decoder, len - start.keep);
        self.retain_suffix(decoder, prompt);
        start
    }

    /// The sequence to replace by a new one; `source` only as the last choice.
    fn eviction_candidate(&self, decoder: &dyn Decoder, source: usize, tokens: &[TokenId]) -> usize {
        let cached = |i: usize| decoder.sequence_tokens(i).as_slice();
        let others = || (0..self.cached.len()).filter(|&i| i != source);
        let oldest = |among: &mut dyn Iterator<Item = usize>| among.min_by_key(|&i| self.cached[i].last_used);
        let related = |&i: &usize| common_prefix_len(cached(i), tokens) >= SHARED_PREFIX_TOKENS;
        let crowded = (0..self.cached.len()).filter(related).count() >= MAX_PER_PREFIX;
        let own = if crowded { oldest(&mut others().filter(related)) } else { None };
        own.or_else(|| oldest(&mut others().filter(|&i| cached(i).is_empty())))
            .or_else(|| oldest(&mut others()))
            .unwrap_or(source)
    }

    /// Makes `to` a fork of the first `len` tokens of `from`.
    fn fork_into(&mut self, decoder: &mut dyn Decoder, from: usize, to: usize, len: usize) {
        decoder.fork_sequence(from, to, 0..len);
        let count = self.cached.len();
        let retained_start = self.cached[from].retained_start;
        let rows = retained_start.map_or(0..0, |start| start..decoder.sequence_len(from + count));
        decoder.fork_sequence(from + count, to + count, rows);
        self.cached[to] = CachedSequence { retained_start, ..CachedSequence::default() };
        self.current = to;
    }

    /// Evicts the least recently used sequences until `tokens` more fit into the memory limit.
    fn evict_until_fits(&mut self, decoder: &mut dyn Decoder, tokens: usize) {
        let need = decoder.kv_bytes_for(tokens);
        while decoder.kv_bytes() + need > self.byte_limit {
            let others = (0..self.cached.len()).filter(|&i| i != self.current);
            let held =
                others.filter(|&i| decoder.sequence_len(i) > 0 || self.cached[i].retained_start.is_some());
            let Some(oldest) = held.min_by_key(|&i| self.cached[i].last_used) else { return };
            self.evict(decoder, oldest);
        }
    }

    fn evict(&mut self, decoder: &mut dyn Decoder, i: usize) {
        self.cached[i] = CachedSequence::default();
        decoder.clear_sequence(i);
        if self.can_shift {
            decoder.clear_sequence(i + self.cached.len());
        }
    }

    /// Retains the prompt's suffix if it was evaluated as a whole.
    pub(super) fn retain_suffix(&mut self, decoder: &mut dyn Decoder, prompt: &Prompt) {
        let suffix = &prompt.suffix;
        if !self.can_shift || suffix.len() < MIN_SHIFT_TOKENS {
            return;
        }
        let Some(text) = prompt.tokens.get(..suffix.end) else { return };
        let (current, copy) = (self.current, self.current + self.cached.len());
        let is_whole = decoder.sequence_tokens(current).exact_tokens().starts_with(text);
        let retained_start = &mut self.cached[current].retained_start;
        let is_known =
            *retained_start == Some(suffix.start) && decoder.sequence_tokens(copy).as_slice() == text;
        if is_whole && !is_known {
            *retained_start = Some(suffix.start);
            decoder.fork_sequence(current, copy, suffix.clone());
        }
    }

    /// The shift for the decoder, to insert after `insert_after` tokens of the batch.
    pub(super) fn suffix_shift(&self, shift: &PlannedShift, insert_after: usize) -> SuffixShift {
        SuffixShift {
            insert_after,
            source: self.current + self.cached.len(),
            rows: shift.source_rows.clone(),
            changed: shift.changed,
        }
    }

    /// Removes all sequences.
    pub(super) fn clear(&mut self, decoder: &mut dyn Decoder) {
        for i in 0..self.cached.len() {
            self.evict(decoder, i);
        }
    }
}

mod branches;

/// The length of the common prefix.
fn common_prefix_len(a: &[TokenId], b: &[TokenId]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// The length of the common suffix.
fn common_suffix_len(a: &[TokenId], b: &[TokenId]) -> usize {
    a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count()
}

/// Number of tokens removed and added between the first and the last difference of `a` and `b`.
fn changed_tokens(a: &[TokenId], b: &[TokenId]) -> usize {
    let start = common_prefix_len(a, b);
    let (a, b) = (&a[start..], &b[start..]);
    a.len() + b.len() - 2 * common_suffix_len(a, b)
}

#[cfg(test)]
mod tests;

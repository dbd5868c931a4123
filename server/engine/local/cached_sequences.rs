//! The cached sequences: which one a prompt continues, and what is copied, shifted or evicted for it.
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

/// The tokens of the resident sequences; the decoder holds their keys and values.
#[derive(Debug)]
pub(super) struct CachedSequences {
    /// Sequence `i` of the decoder; its retained suffix is sequence `i + cached.len()`.
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
    tokens: Vec<TokenId>,
    /// The first `exact` tokens have the same state as with an empty cache; the others attended to a shifted suffix.
    exact: usize,
    /// The number of changed tokens before that suffix; 0 if all are exact.
    staleness: usize,
    /// The last prompt here, evaluated or not, and the range of its suffix.
    last_prompt: Vec<TokenId>,
    suffix: Range<usize>,
    retained: Option<RetainedSuffix>,
    last_used: u64,
}

/// A suffix as it was evaluated.
#[derive(Debug, Clone)]
struct RetainedSuffix {
    /// All tokens up to its end.
    tokens: Vec<TokenId>,
    /// Its start.
    start: usize,
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
    /// `begun` returns the resumable work on given tokens after the sequence's end.
    fn plan_reuse(
        &self,
        prompt: &Prompt,
        limits: &GenerationLimits,
        logits: bool,
        begun: impl FnOnce(&[TokenId]) -> ResumableWork,
    ) -> PromptStart {
        let tokens = &prompt.tokens[..];
        let valid = if self.staleness <= limits.max_stale_tokens { self.tokens.len() } else { self.exact };
        let same = common_prefix_len(&self.tokens[..valid], tokens);
        // For logits of the prompt's end its last token must be evaluated now.
        let keep = if logits { same.min(tokens.len() - 1) } else { same };
        let shift = self.plan_shift(prompt, limits, keep);
        let until = shift.as_ref().map_or(tokens.len(), |shift| shift.prompt_range.start);
        // After truncation nothing is resumable.
        let begun =
            if keep == self.tokens.len() { begun(&tokens[keep..until]) } else { ResumableWork::default() };
        PromptStart { keep, shift, resumable: begun.work as usize, discards_work: begun.discarded > 0.0 }
    }

    fn plan_shift(&self, prompt: &Prompt, limits: &GenerationLimits, keep: usize) -> Option<PlannedShift> {
        let RetainedSuffix { tokens: old, start } = self.retained.as_ref()?;
        let suffix = prompt.suffix.clone();
        let text = prompt.tokens.get(suffix.clone())?;
        // The token after it is evaluated in the same batch.
        if suffix.end >= prompt.tokens.len() {
            return None;
        }
        let len = common_suffix_len(&old[*start..], text);
        let at = suffix.end - len;
        let changed = changed_tokens(&old[..old.len() - len], &prompt.tokens[..at]);
        let place = at.max(keep)..suffix.end;
        if changed > limits.max_stale_tokens || place.len() < MIN_SHIFT_TOKENS {
            return None;
        }
        let rows = old.len() - place.len()..old.len();
        Some(PlannedShift { prompt_range: place, source_rows: rows, changed })
    }

    /// Whether `prompt` is at the place of the last one here, or discards nothing of it.
    fn is_same_place(&self, prompt: &Prompt, start: &PromptStart) -> bool {
        if self.last_prompt.len().min(self.tokens.len()) <= start.keep && !start.discards_work {
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

    fn truncate_tokens(&mut self, len: usize) {
        self.tokens.truncate(len);
        self.exact = self.exact.min(len);
        if self.exact == self.tokens.len() {
            self.staleness = 0;
        }
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

    /// The tokens of the current sequence.
    pub(super) fn current_tokens(&self) -> &[TokenId] {
        &self.cached[self.current].tokens
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
        self.cached.iter().enumerate().map(move |(i, slot)| {
            slot.plan_reuse(prompt, limits, logits, |tokens| decoder.resumable_work(i, tokens))
        })
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
        // Equal unless a panic was caught between the two updates and `clear` was not called.
        let held = decoder.sequence_len(self.current).min(self.current_tokens().len());
        self.truncate_current(decoder, held);
        self.prompt_count += 1;
        let len = prompt.tokens.len();
        let starts = self.prompt_starts(decoder, prompt, limits, logits);
        let best = starts.enumerate().min_by_key(|(i, start)| {
            let slot = &self.cached[*i];
            // On a tie, prefer the one that has this place already, then the most recently used.
            (start.remaining_work(len), !slot.is_same_place(prompt, start), u64::MAX - slot.last_used)
        });
        let Some((best, start)) = best else {
            return PromptStart { keep: 0, shift: None, resumable: 0, discards_work: false };
        };
        let slot = &self.cached[best];
        let whole = start.keep == len;
        self.current = best;
        if !whole && !slot.is_same_place(prompt, &start) {
            let own = self.eviction_candidate(best, &prompt.tokens);
            if own != best {
                self.fork_into(decoder, best, own, start.keep);
            }
        }
        self.cached[self.current].last_used = self.prompt_count;
        if !whole {
            self.truncate_current(decoder, start.keep);
            let slot = &mut self.cached[self.current];
            (slot.last_prompt, slot.suffix) = (prompt.tokens.clone(), prompt.suffix.clone());
        }
        self.evict_until_fits(decoder, len - start.keep);
        self.retain_suffix(decoder, prompt);
        start
    }

    /// The sequence to replace by a new one; `source` only as the last choice.
    fn eviction_candidate(&self, source: usize, tokens: &[TokenId]) -> usize {
        let others = || (0..self.cached.len()).filter(|&i| i != source);
        let oldest = |among: &mut dyn Iterator<Item = usize>| among.min_by_key(|&i| self.cached[i].last_used);
        let related = |&i: &usize| common_prefix_len(&self.cached[i].tokens, tokens) >= SHARED_PREFIX_TOKENS;
        let crowded = (0..self.cached.len()).filter(related).count() >= MAX_PER_PREFIX;
        let own = if crowded { oldest(&mut others().filter(related)) } else { None };
        own.or_else(|| oldest(&mut others().filter(|&i| self.cached[i].tokens.is_empty())))
            .or_else(|| oldest(&mut others()))
            .unwrap_or(source)
    }

    /// Makes `to` a fork of the first `len` tokens of `from`.
    fn fork_into(&mut self, decoder: &mut dyn Decoder, from: usize, to: usize, len: usize) {
        decoder.fork_sequence(from, to, 0..len);
        let count = self.cached.len();
        let source = &self.cached[from];
        let remembered = source.retained.clone();
        match &remembered {
            Some(it) => decoder.fork_sequence(from + count, to + count, it.start..it.tokens.len()),
            None => decoder.fork_sequence(from + count, to + count, 0..0),
        }
        let mut slot = CachedSequence {
            tokens: source.tokens.clone(),
            exact: source.exact,
            staleness: source.staleness,
            retained: remembered,
            ..CachedSequence::default()
        };
        slot.truncate_tokens(len);
        self.cached[to] = slot;
        self.current = to;
    }

    /// Evicts the least recently used sequences until `tokens` more fit into the memory limit.
    fn evict_until_fits(&mut self, decoder: &mut dyn Decoder, tokens: usize) {
        let need = decoder.kv_bytes_for(tokens);
        while decoder.kv_bytes() + need > self.byte_limit {
            let others = (0..self.cached.len()).filter(|&i| i != self.current);
            let held =
                others.filter(|&i| !self.cached[i].tokens.is_empty() || self.cached[i].retained.is_some());
            let Some(oldest) = held.min_by_key(|&i| self.cached[i].last_used) else { return };
            self.evict(decoder, oldest);
        }
    }

    fn evict(&mut self, decoder: &mut dyn Decoder, i: usize) {
        self.cached[i] = CachedSequence::default();
        decoder.fork_sequence(i, i, 0..0);
        if self.can_shift {
            decoder.fork_sequence(i, i + self.cached.len(), 0..0);
        }
    }

    /// Retains the prompt's suffix if it was evaluated as a whole.
    pub(super) fn retain_suffix(&mut self, decoder: &mut dyn Decoder, prompt: &Prompt) {
        let suffix = &prompt.suffix;
        let slot = &mut self.cached[self.current];
        let known =
            |it: &RetainedSuffix| it.start == suffix.start && it.tokens == prompt.tokens[..suffix.end];
        if !self.can_shift
            || suffix.len() < MIN_SHIFT_TOKENS
            || suffix.end > slot.exact
            || slot.tokens.get(..suffix.end) != prompt.tokens.get(..suffix.end)
            || slot.retained.as_ref().is_some_and(known)
        {
            return;
        }
        let tokens = prompt.tokens[..suffix.end].to_vec();
        slot.retained = Some(RetainedSuffix { tokens, start: suffix.start });
        decoder.fork_sequence(self.current, self.current + self.cached.len(), suffix.clone());
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

    /// Records that the decoder has appended `tokens`, with `shift` inserted.
    pub(super) fn append_tokens(&mut self, tokens: &[TokenId], shift: Option<&SuffixShift>) {
        let slot = &mut self.cached[self.current];
        let all_exact = slot.exact == slot.tokens.len();
        let mut exact = usize::MAX;
        if let Some(shift) = shift {
            let (before, after) = tokens.split_at(shift.insert_after);
            slot.tokens.extend_from_slice(before);
            if shift.changed > 0 {
                exact = slot.tokens.len();
                slot.staleness = slot.staleness.max(shift.changed);
            }
            if let Some(remembered) = &slot.retained {
                slot.tokens.extend_from_slice(&remembered.tokens[shift.rows.clone()]);
            }
            slot.tokens.extend_from_slice(after);
        } else {
            slot.tokens.extend_from_slice(tokens);
        }
        if all_exact {
            slot.exact = exact.min(slot.tokens.len());
        }
    }

    /// Keeps the first `len` tokens of the current sequence.
    pub(super) fn truncate_current(&mut self, decoder: &mut dyn Decoder, len: usize) {
        decoder.truncate_sequence(self.current, len);
        self.cached[self.current].truncate_tokens(len);
    }

    /// Removes all sequences.
    pub(super) fn clear(&mut self, decoder: &mut dyn Decoder) {
        for i in 0..self.cached.len() {
            if self.can_shift {
                self.evict(decoder, i);
            }
            self.cached[i] = CachedSequence::default();
        }
        decoder.truncate_sequence(self.current, 0);
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

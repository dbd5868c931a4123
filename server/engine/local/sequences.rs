//! The resident sequences: which one a prompt goes on from, what is copied, moved or given up for it.
//! It knows nothing of logits, of tensors, or of what a prompt means.
//!
//! The rules:
//! - A prompt goes on from the sequence that leaves least of it to evaluate.
//! - It stays in that sequence if the text around its suffix changed by a keystroke's few tokens, or if nothing that was
//!   read or begun there is given up. Else it gets a sequence of its own, which shares the common beginning: another place,
//!   another document, a short window beside the whole one, an answer computed ahead leave each other alone.
//! - For its own it takes an empty sequence, or the least recently used: of its own beginning, if that has
//!   [`KIN`] of them already, else of all. So no document crowds out all others.
//! - Beyond the bytes that may be held the least recently used are given up.
//! - A suffix that was evaluated whole is remembered as it was. When the text in front of it has changed by no more
//!   than [`Limits::stale`], it is moved instead of evaluated: always from what was remembered, so that neither
//!   rounding nor staleness adds up. What lies behind a moved suffix is marked, and is found only by prompts that
//!   allow as much.

use std::ops::Range;

use super::{Begun, Decoder, Moved};
use crate::{Limits, Prompt, TokenId};

/// Sequences that are resident at most.
const SEQUENCES: usize = 8;
/// Sequences for branches of what was said in one of them: beside those that are resident.
pub(super) const BRANCHES: usize = 2;
/// Sequences with the same beginning at most.
const KIN: usize = 3;
/// Tokens that make two beginnings the same: more than a header, which every window of a file has.
const SAME_BEGINNING: usize = 64;
/// Tokens that a keystroke changes at most: more is another place.
const KEYSTROKE: usize = 16;
/// Tokens of a suffix that are worth moving at least.
const WORTH_MOVING: usize = 8;

/// What is resident, token for token; the decoder holds the same.
#[derive(Debug)]
pub(super) struct Sequences {
    /// Sequence `i` of the decoder; its remembered suffix is sequence `i + slots.len()`.
    slots: Vec<Slot>,
    current: usize,
    /// Counts prompts.
    now: u64,
    /// Bytes that may be held.
    bytes: usize,
    /// Whether the decoder can move suffixes.
    moves: bool,
}

#[derive(Debug, Default)]
struct Slot {
    tokens: Vec<TokenId>,
    /// So many of them are what an empty cache would give; the others saw a suffix that was moved.
    exact: usize,
    /// By so many tokens the text in front of that suffix had changed; 0 if all are exact.
    stale: usize,
    /// The last prompt here, read or not, and where its suffix was.
    asked: Vec<TokenId>,
    suffix: Range<usize>,
    remembered: Option<Remembered>,
    used: u64,
}

/// A suffix as it was evaluated.
#[derive(Debug, Clone)]
struct Remembered {
    /// All tokens up to its end.
    tokens: Vec<TokenId>,
    /// Where it begins.
    start: usize,
}

/// How a prompt goes on from a sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Start {
    /// The prompt's first tokens that are kept.
    pub(super) keep: usize,
    /// What of the prompt is moved.
    pub(super) shift: Option<Shift>,
    /// Tokens behind what is kept that an interrupted evaluation has spared, the work on them counted.
    begun: usize,
    /// Whether others that it has begun are given up.
    loses: bool,
}

/// A remembered suffix, or its end, that is moved into a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shift {
    /// Where it stands in the prompt.
    pub(super) place: Range<usize>,
    /// Where it stood when it was evaluated.
    rows: Range<usize>,
    /// Tokens by which the text in front of it differs.
    changed: usize,
}

impl Start {
    /// The work that is left on a prompt of `len`, in tokens.
    fn unread(&self, len: usize) -> usize {
        len - self.keep - self.begun - self.shift.as_ref().map_or(0, |shift| shift.place.len())
    }
}

impl Slot {
    /// `begun` says what of some tokens behind its end an interrupted evaluation has spared.
    fn reuse(
        &self,
        prompt: &Prompt,
        limits: &Limits,
        logits: bool,
        begun: impl FnOnce(&[TokenId]) -> Begun,
    ) -> Start {
        let tokens = &prompt.tokens[..];
        let valid = if self.stale <= limits.stale { self.tokens.len() } else { self.exact };
        let same = common(&self.tokens[..valid], tokens);
        // For logits of the prompt's end its last token must be evaluated now.
        let keep = if logits { same.min(tokens.len() - 1) } else { same };
        let shift = self.shift(prompt, limits, keep);
        let until = shift.as_ref().map_or(tokens.len(), |shift| shift.place.start);
        // Behind what is cut off nothing is left.
        let begun = if keep == self.tokens.len() { begun(&tokens[keep..until]) } else { Begun::default() };
        Start { keep, shift, begun: begun.work as usize, loses: begun.lost > 0.0 }
    }

    fn shift(&self, prompt: &Prompt, limits: &Limits, keep: usize) -> Option<Shift> {
        let Remembered { tokens: old, start } = self.remembered.as_ref()?;
        let suffix = prompt.suffix.clone();
        let text = prompt.tokens.get(suffix.clone())?;
        // The token behind it is evaluated in the same batch.
        if suffix.end >= prompt.tokens.len() {
            return None;
        }
        let len = common_end(&old[*start..], text);
        let at = suffix.end - len;
        let changed = difference(&old[..old.len() - len], &prompt.tokens[..at]);
        let place = at.max(keep)..suffix.end;
        if changed > limits.stale || place.len() < WORTH_MOVING {
            return None;
        }
        let rows = old.len() - place.len()..old.len();
        Some(Shift { place, rows, changed })
    }

    /// Whether `prompt` is at the place where the last one here was, or gives up nothing of that one.
    fn is_place_of(&self, prompt: &Prompt, start: &Start) -> bool {
        if self.asked.len().min(self.tokens.len()) <= start.keep && !start.loses {
            return true;
        }
        let around = |tokens: &[TokenId], suffix: &Range<usize>| {
            let start = suffix.start.min(tokens.len());
            let end = suffix.end.clamp(start, tokens.len());
            [&tokens[..start], &tokens[end..]].concat()
        };
        let old = around(&self.asked, &self.suffix);
        difference(&old, &around(&prompt.tokens, &prompt.suffix)) <= KEYSTROKE
    }

    fn cut(&mut self, len: usize) {
        self.tokens.truncate(len);
        self.exact = self.exact.min(len);
        if self.exact == self.tokens.len() {
            self.stale = 0;
        }
    }
}

impl Sequences {
    /// As many sequences as the decoder can hold, within `bytes` of memory but for the one in use.
    pub(super) fn new(decoder: &mut dyn Decoder, bytes: usize) -> Self {
        let all = 2 * SEQUENCES + BRANCHES;
        let moves = decoder.hold(all) == all;
        let count = if moves { SEQUENCES } else { 1 };
        let slots = (0..count).map(|_| Slot::default()).collect();
        Self { slots, current: 0, now: 0, bytes, moves }
    }

    #[cfg(test)]
    pub(super) fn hold_at_most(&mut self, bytes: usize) {
        self.bytes = bytes;
    }

    /// What the sequence in use holds.
    pub(super) fn tokens(&self) -> &[TokenId] {
        &self.slots[self.current].tokens
    }

    /// The work that the prompt would be now, in tokens.
    pub(super) fn unread(&self, decoder: &dyn Decoder, prompt: &Prompt, limits: &Limits) -> usize {
        let len = prompt.tokens.len();
        self.starts(decoder, prompt, limits, false).map(|start| start.unread(len)).min().unwrap_or(len)
    }

    /// How the prompt would go on from each sequence.
    fn starts<'a>(
        &'a self,
        decoder: &'a dyn Decoder,
        prompt: &'a Prompt,
        limits: &'a Limits,
        logits: bool,
    ) -> impl Iterator<Item = Start> + 'a {
        self.slots
            .iter()
            .enumerate()
            .map(move |(i, slot)| slot.reuse(prompt, limits, logits, |tokens| decoder.begun(i, tokens)))
    }

    /// The sequence in use.
    pub(super) fn current(&self) -> usize {
        self.current
    }

    /// Selects a sequence for the prompt and cuts it to what it shares with it. A prompt that is only read and is there
    /// as a whole leaves what stands behind it.
    pub(super) fn settle(
        &mut self,
        decoder: &mut dyn Decoder,
        prompt: &Prompt,
        limits: &Limits,
        logits: bool,
    ) -> Start {
        // Equal unless a panic was caught between the two and nobody called `clear`.
        let held = decoder.len().min(self.tokens().len());
        self.cut(decoder, held);
        self.now += 1;
        let len = prompt.tokens.len();
        let starts = self.starts(decoder, prompt, limits, logits);
        let best = starts.enumerate().min_by_key(|(i, start)| {
            let slot = &self.slots[*i];
            // Of equals the one that has this place already, then the one used last.
            (start.unread(len), !slot.is_place_of(prompt, start), u64::MAX - slot.used)
        });
        let Some((best, start)) = best else { return Start { keep: 0, shift: None, begun: 0, loses: false } };
        let slot = &self.slots[best];
        let whole = start.keep == len;
        self.current = best;
        if !whole && !slot.is_place_of(prompt, &start) {
            let own = self.victim(best, &prompt.tokens);
            if own != best {
                self.fork(decoder, best, own, start.keep);
            }
        }
        self.slots[self.current].used = self.now;
        decoder.select(self.current);
        if !whole {
            self.cut(decoder, start.keep);
            let slot = &mut self.slots[self.current];
            (slot.asked, slot.suffix) = (prompt.tokens.clone(), prompt.suffix.clone());
        }
        self.make_room(decoder, len - start.keep);
        self.remember(decoder, prompt);
        start
    }

    /// The sequence whose place a new one takes; `source` only if there is no other.
    fn victim(&self, source: usize, tokens: &[TokenId]) -> usize {
        let others = || (0..self.slots.len()).filter(|&i| i != source);
        let oldest = |among: &mut dyn Iterator<Item = usize>| among.min_by_key(|&i| self.slots[i].used);
        let kin = |&i: &usize| common(&self.slots[i].tokens, tokens) >= SAME_BEGINNING;
        let crowded = (0..self.slots.len()).filter(kin).count() >= KIN;
        let own = if crowded { oldest(&mut others().filter(kin)) } else { None };
        own.or_else(|| oldest(&mut others().filter(|&i| self.slots[i].tokens.is_empty())))
            .or_else(|| oldest(&mut others()))
            .unwrap_or(source)
    }

    /// Makes `to` the first `len` tokens of `from`.
    fn fork(&mut self, decoder: &mut dyn Decoder, from: usize, to: usize, len: usize) {
        decoder.fork(from, to, 0..len);
        let count = self.slots.len();
        let source = &self.slots[from];
        let remembered = source.remembered.clone();
        match &remembered {
            Some(it) => decoder.fork(from + count, to + count, it.start..it.tokens.len()),
            None => decoder.fork(from + count, to + count, 0..0),
        }
        let mut slot = Slot {
            tokens: source.tokens.clone(),
            exact: source.exact,
            stale: source.stale,
            remembered,
            ..Slot::default()
        };
        slot.cut(len);
        self.slots[to] = slot;
        self.current = to;
    }

    /// Gives up what was used least recently until `tokens` more fit into the memory that may be held.
    fn make_room(&mut self, decoder: &mut dyn Decoder, tokens: usize) {
        let need = decoder.bytes_of(tokens);
        while decoder.held_bytes() + need > self.bytes {
            let others = (0..self.slots.len()).filter(|&i| i != self.current);
            let held =
                others.filter(|&i| !self.slots[i].tokens.is_empty() || self.slots[i].remembered.is_some());
            let Some(oldest) = held.min_by_key(|&i| self.slots[i].used) else { return };
            self.release(decoder, oldest);
        }
    }

    fn release(&mut self, decoder: &mut dyn Decoder, i: usize) {
        self.slots[i] = Slot::default();
        decoder.fork(i, i, 0..0);
        if self.moves {
            decoder.fork(i, i + self.slots.len(), 0..0);
        }
    }

    /// Remembers the prompt's suffix if it was evaluated as a whole.
    pub(super) fn remember(&mut self, decoder: &mut dyn Decoder, prompt: &Prompt) {
        let suffix = &prompt.suffix;
        let slot = &mut self.slots[self.current];
        let known = |it: &Remembered| it.start == suffix.start && it.tokens == prompt.tokens[..suffix.end];
        if !self.moves
            || suffix.len() < WORTH_MOVING
            || suffix.end > slot.exact
            || slot.tokens.get(..suffix.end) != prompt.tokens.get(..suffix.end)
            || slot.remembered.as_ref().is_some_and(known)
        {
            return;
        }
        let tokens = prompt.tokens[..suffix.end].to_vec();
        slot.remembered = Some(Remembered { tokens, start: suffix.start });
        decoder.fork(self.current, self.current + self.slots.len(), suffix.clone());
    }

    /// Where the decoder finds what is moved, `behind` tokens of the batch in front of it.
    pub(super) fn moved(&self, shift: &Shift, behind: usize) -> Moved {
        Moved { behind, from: self.current + self.slots.len(), rows: shift.rows.clone() }
    }

    /// The decoder has appended `tokens`, `shift` behind so many of them.
    pub(super) fn append(&mut self, tokens: &[TokenId], shift: Option<(&Shift, usize)>) {
        let slot = &mut self.slots[self.current];
        let all_exact = slot.exact == slot.tokens.len();
        let mut exact = usize::MAX;
        if let Some((shift, behind)) = shift {
            let (before, after) = tokens.split_at(behind);
            slot.tokens.extend_from_slice(before);
            if shift.changed > 0 {
                exact = slot.tokens.len();
                slot.stale = slot.stale.max(shift.changed);
            }
            if let Some(remembered) = &slot.remembered {
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

    /// Keeps the first `len` tokens of the sequence in use.
    pub(super) fn cut(&mut self, decoder: &mut dyn Decoder, len: usize) {
        decoder.truncate(len);
        self.slots[self.current].cut(len);
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self, decoder: &mut dyn Decoder) {
        for i in 0..self.slots.len() {
            if self.moves {
                self.release(decoder, i);
            }
            self.slots[i] = Slot::default();
        }
        decoder.select(self.current);
        decoder.truncate(0);
    }
}

mod branches;

/// Tokens that both begin with.
fn common(a: &[TokenId], b: &[TokenId]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Tokens that both end with.
fn common_end(a: &[TokenId], b: &[TokenId]) -> usize {
    a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count()
}

/// Tokens removed and added between `a` and `b`, all between the first and the last difference.
fn difference(a: &[TokenId], b: &[TokenId]) -> usize {
    let start = common(a, b);
    let (a, b) = (&a[start..], &b[start..]);
    a.len() + b.len() - 2 * common_end(a, b)
}

#[cfg(test)]
mod tests;

//! Speculation without a second model: drafts the next tokens from the prompt and from earlier output. Drafts are
//! verified elsewhere, so a wrong one costs time but never changes the result.
//!
//! Drafts have two sources. First, the last generations: a keystroke that follows a suggestion, and a request that is
//! repeated after cancellation, continue text that was already generated. Second, the prompt and the output so far:
//! the text after the longest earlier occurrence of the last tokens ("prompt lookup decoding",
//! <https://github.com/apoorvumang/prompt-lookup-decoding>; llama.cpp's `lookup` example does the same).
//!
//! Two running averages determine how much of a draft is verified: how often a draft's tokens were accepted, by
//! source and length of the match, and the time of a batch by its number of rows.

use std::collections::VecDeque;
use std::time::Duration;

use crate::tokenizer::{FimTokens, TokenId, Tokenizer};

/// Number of generations to remember.
const MAX_GENERATIONS: usize = 8;
/// Bytes before the output by which a remembered generation is recognised.
const CONTEXT_BYTES: usize = 128;
/// Number of these bytes that must match, if there are as many.
const MATCH_BYTES: usize = 64;
/// Shorter matches are ignored, unless they are all of the text before the output.
const MIN_MATCH_BYTES: usize = 8;
/// Length of a match in tokens beyond which a longer one does not help.
const MAX_MATCH_TOKENS: usize = 16;
/// Weight of the newest token in the odds.
const ODDS_WEIGHT: f32 = 0.04;
/// Weight of the newest measurement of a batch.
const COST_WEIGHT: f32 = 0.2;
/// A measurement beyond this multiple of the average was disturbed and is clamped to it.
const OUTLIER_FACTOR: f32 = 1.5;
/// The assumed time of an additional row relative to the first, before it is measured. Too little rather than too
/// much: chosen sizes get measured, sizes that are never chosen are never corrected.
const EXTRA_ROW_COST: f32 = 0.06;
/// How fast the average of an unused size returns to that assumption.
const COST_DECAY: f32 = 0.02;

/// Batch sizes with an average time; others count as the next larger one.
const BATCH_SIZES: [usize; 10] = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32];
/// Maximum number of tokens in a draft.
pub(super) const MAX_DRAFT_TOKENS: usize = BATCH_SIZES[BATCH_SIZES.len() - 1] - 1;

/// The source of a draft; the longer the match, the better the odds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DraftSource {
    /// A remembered generation.
    Generation,
    /// An earlier occurrence of this number of last tokens.
    Match(usize),
}

/// Initial odds that a token of a draft is right, in the order of [`DraftSource::odds_index`].
const INITIAL_ODDS: [f32; 6] = [0.9, 0.25, 0.4, 0.55, 0.7, 0.85];

impl DraftSource {
    /// The index into the odds.
    fn odds_index(self) -> usize {
        match self {
            Self::Generation => 0,
            Self::Match(1) => 1,
            Self::Match(2) => 2,
            Self::Match(3..=4) => 3,
            Self::Match(5..=8) => 4,
            Self::Match(_) => 5,
        }
    }
}

/// Statistics of speculation since the model was loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpeculationStats {
    /// Batches that chose tokens.
    pub steps: u64,
    /// Tokens chosen by these batches.
    pub tokens: u64,
    /// Draft tokens that were verified.
    pub drafted: u64,
    /// Verified draft tokens that were right.
    pub accepted: u64,
}

/// The drafts for one sequence.
#[derive(Debug, Default)]
pub(super) struct PromptLookup {
    /// The text to search: remembered outputs, the prompt after the cursor, the prompt before it, and the output so
    /// far.
    text: Vec<TokenId>,
    /// Start of the output in it.
    output_start: usize,
    /// The bytes before the output, at most [`CONTEXT_BYTES`].
    context_before: Vec<u8>,
    /// Remembered generations, the most recent last.
    generations: VecDeque<PastGeneration>,
    draft: Vec<TokenId>,
    source: Option<DraftSource>,
    odds: AcceptanceOdds,
    costs: BatchCosts,
    stats: SpeculationStats,
    /// In tests, the length of all drafts regardless of cost.
    #[cfg(test)]
    pub(super) fixed_draft_len: Option<usize>,
}

/// A remembered generation.
#[derive(Debug)]
struct PastGeneration {
    tokens: Vec<TokenId>,
    /// The bytes before the output, then those of the output.
    bytes: Vec<u8>,
    /// The start of each token in these bytes.
    starts: Vec<usize>,
    alignment: Alignment,
}

/// The position of the generation in progress in a remembered one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Alignment {
    /// All bytes up to here agree.
    At(usize),
    /// All bytes agree, and the one in progress is longer.
    Exceeded,
    /// The texts differ.
    Diverged,
}

impl PromptLookup {
    /// Starts a generation after `prompt`, which must spell `forced` first.
    pub(super) fn begin_generation(&mut self, tokens: &Tokenizer, prompt: &[TokenId], forced: &[u8]) {
        let seam = cursor_boundary(tokens.fim_tokens(), prompt);
        self.text.clear();
        for past in &self.generations {
            self.text.extend_from_slice(&past.tokens);
        }
        self.text.extend_from_slice(&prompt[seam..]);
        self.text.extend_from_slice(&prompt[..seam]);
        self.output_start = self.text.len();

        // A special token ends the text before the cursor; it has no bytes anyway.
        let near = prompt[..seam].iter().rev().take_while(|&&token| !tokens.is_special(token));
        let mut parts: Vec<&[u8]> = Vec::new();
        let mut len = 0;
        for &token in near {
            if len >= CONTEXT_BYTES {
                break;
            }
            let bytes = tokens.token_bytes(token);
            len += bytes.len();
            parts.push(bytes);
        }
        parts.reverse();
        self.context_before = parts.concat();
        self.context_before.drain(..len.saturating_sub(CONTEXT_BYTES));
        for past in &mut self.generations {
            past.align_to(&self.context_before, forced);
        }
        self.draft.clear();
        self.source = None;
    }

    /// Extends the output by `token`, which spells `bytes`.
    pub(super) fn push_token(&mut self, token: TokenId, bytes: &[u8]) {
        self.text.push(token);
        for past in &mut self.generations {
            past.advance_alignment(bytes);
        }
    }

    /// Ends the generation and remembers its output.
    pub(super) fn end_generation(&mut self, tokens: &Tokenizer) {
        let output = &self.text[self.output_start..];
        if output.is_empty() {
            return;
        }
        // Remove generations that this one repeats and continues; a longer one that begins with this one replaces it.
        self.generations.retain(|past| {
            past.alignment != Alignment::Exceeded && past.alignment != Alignment::At(past.bytes.len())
        });
        let longer = self.generations.iter().rposition(|past| matches!(past.alignment, Alignment::At(_)));
        let past = longer.and_then(|at| self.generations.remove(at)).unwrap_or_else(|| {
            let mut bytes = self.context_before.clone();
            let mut starts = Vec::with_capacity(output.len());
            for &token in output {
                starts.push(bytes.len());
                bytes.extend_from_slice(tokens.token_bytes(token));
            }
            PastGeneration { tokens: output.to_vec(), bytes, starts, alignment: Alignment::Diverged }
        });
        if self.generations.len() == MAX_GENERATIONS {
            self.generations.pop_front();
        }
        self.generations.push_back(past);
    }

    /// Forgets all generations; learnt odds and costs stay.
    pub(super) fn clear(&mut self) {
        self.generations.clear();
        self.text.clear();
        self.draft.clear();
        self.source = None;
    }

    /// Drafts the next tokens, starting with `forced`; see [`PromptLookup::draft_worth_verifying`].
    pub(super) fn build_draft(&mut self, tokens: &Tokenizer, forced: &[u8]) {
        self.draft.clear();
        self.source = None;
        let generation = self
            .generations
            .iter()
            .rev()
            .find_map(|past| past.remaining_tokens().filter(|rest| !rest.is_empty()));
        if let Some(rest) = generation {
            self.draft.extend_from_slice(&rest[..rest.len().min(MAX_DRAFT_TOKENS)]);
            self.source = Some(DraftSource::Generation);
        } else if let Some((at, len)) = longest_match(&self.text, |next| {
            !tokens.is_stop_token(next) && is_prefix_compatible(tokens.token_bytes(next), forced)
        }) {
            // After the end of the text comes the draft itself: repetition is assumed to continue.
            for i in at..at + MAX_DRAFT_TOKENS {
                let token = self.text.get(i).copied().unwrap_or_else(|| self.draft[i - self.text.len()]);
                self.draft.push(token);
            }
            self.source = Some(DraftSource::Match(len));
        }
        let end = self.draft.iter().position(|&token| tokens.is_stop_token(token));
        self.draft.truncate(end.unwrap_or(MAX_DRAFT_TOKENS));
    }

    /// The part of the draft that is worth verifying: at most `most` tokens in one batch after `count` others, which
    /// are evaluated in any case. `count` is 1 while decoding, any number at the end of a prompt.
    pub(super) fn draft_worth_verifying(&self, count: usize, most: usize) -> &[TokenId] {
        let most = most.min(self.draft.len());
        #[cfg(test)]
        if let Some(always) = self.fixed_draft_len {
            return &self.draft[..always.min(most)];
        }
        let Some(source) = self.source else { return &[] };
        &self.draft[..best_length(self.odds.acceptance_rate(source), &self.costs, count, most)]
    }

    /// Records that a batch with `drafted` draft tokens chose `chosen`, and then perhaps the end of the text.
    pub(super) fn record_outcome(
        &mut self,
        drafted: usize,
        chosen: impl ExactSizeIterator<Item = TokenId>,
        ended: bool,
    ) {
        let count = chosen.len();
        // The last chosen token comes after the verified ones.
        let right = self.draft.iter().zip(chosen).take_while(|(guess, token)| *guess == token).count();
        let wrong = right < self.draft.len() && (right < count || ended);
        if let Some(source) = self.source {
            self.odds.record_draft(source, right, wrong);
        }
        self.stats.steps += 1;
        self.stats.tokens += count as u64;
        self.stats.drafted += drafted as u64;
        self.stats.accepted += drafted.min(right) as u64;
    }

    /// Records that a batch of `rows` tokens took `time`.
    pub(super) fn record_batch(&mut self, rows: usize, time: Duration) {
        self.costs.record_time(rows, time.as_secs_f32());
    }

    /// The statistics so far.
    pub(super) fn stats(&self) -> SpeculationStats {
        self.stats
    }
}

impl PastGeneration {
    /// Finds the position in this generation of a text that ends in `before`, with `forced` next.
    fn align_to(&mut self, before: &[u8], forced: &[u8]) {
        let own = self.starts.first().copied().unwrap_or(0);
        let mut best: Option<(usize, usize)> = None;
        for at in 0..=self.bytes.len() {
            let same = self.bytes[..at].iter().rev().zip(before.iter().rev());
            let same = same.take_while(|(a, b)| a == b).count();
            let enough = same >= at.min(before.len()).min(MATCH_BYTES);
            let telling = same >= MIN_MATCH_BYTES || at == before.len();
            // On a tie, the position closest to the start of this generation wins.
            let better = best.is_none_or(|(most, place)| {
                same > most || (same == most && at.abs_diff(own) < place.abs_diff(own))
            });
            if enough && telling && better && is_prefix_compatible(&self.bytes[at..], forced) {
                best = Some((same, at));
            }
        }
        self.alignment = best.map_or(Alignment::Diverged, |(_, at)| Alignment::At(at));
    }

    fn advance_alignment(&mut self, bytes: &[u8]) {
        if let Alignment::At(at) = self.alignment {
            let rest = &self.bytes[at..];
            self.alignment = if rest.starts_with(bytes) {
                Alignment::At(at + bytes.len())
            } else if bytes.starts_with(rest) {
                Alignment::Exceeded
            } else {
                Alignment::Diverged
            };
        }
    }

    /// The tokens that follow, if the position is between two tokens.
    fn remaining_tokens(&self) -> Option<&[TokenId]> {
        let Alignment::At(at) = self.alignment else { return None };
        self.starts.binary_search(&at).ok().map(|index| &self.tokens[index..])
    }
}

/// End of the text in the prompt that the output continues. After a middle token that is the end of the prefix, which
/// comes before the suffix or directly before the middle token, depending on the order of the parts.
fn cursor_boundary(fim: FimTokens, prompt: &[TokenId]) -> usize {
    let len = prompt.len();
    if fim.middle.is_none() || prompt.last().copied() != fim.middle {
        return len;
    }
    let opens = |token: &TokenId| Some(*token) == fim.prefix || Some(*token) == fim.suffix;
    match prompt.iter().rposition(opens) {
        Some(at) if Some(prompt[at]) == fim.suffix => at,
        _ => len - 1,
    }
}

/// Whether either one is a prefix of the other.
fn is_prefix_compatible(bytes: &[u8], forced: &[u8]) -> bool {
    let len = bytes.len().min(forced.len());
    bytes[..len] == forced[..len]
}

/// The longest earlier occurrence of the end of `text` that is followed by a token which `fits`, the latest on a tie:
/// the index of that token, and the length of the match.
fn longest_match(text: &[TokenId], fits: impl Fn(TokenId) -> bool) -> Option<(usize, usize)> {
    let (&last, earlier) = text.split_last()?;
    let mut best: Option<(usize, usize)> = None;
    let mut end = earlier.len();
    while let Some(at) = earlier[..end].iter().rposition(|&token| token == last) {
        end = at;
        let same = earlier[..at].iter().rev().zip(earlier.iter().rev());
        let len = 1 + same.take(MAX_MATCH_TOKENS - 1).take_while(|(a, b)| a == b).count();
        if best.is_none_or(|(_, most)| len > most) && fits(text[at + 1]) {
            best = Some((at + 1, len));
            if len == MAX_MATCH_TOKENS {
                break;
            }
        }
    }
    best
}

/// How many of `most` tokens to verify after `count` others.
///
/// While decoding, the length with the highest rate of tokens, including the one that every batch yields. At
/// the end of a prompt, the length that saves most of the time of decoding, minus its cost here.
fn best_length(odds: f32, costs: &BatchCosts, count: usize, most: usize) -> usize {
    // Expected tokens from a draft of each length, starting with no draft.
    let gains = std::iter::successors(Some((0.0, 1.0)), |(sum, chance)| {
        let chance: f32 = chance * odds;
        Some((sum + chance, chance))
    });
    let gains = gains.map(|(sum, _)| sum).enumerate();
    // Tokens per time. The shortest wins a tie.
    let rate = |drafted: usize, gain: f32| (1.0 + gain) / costs.batch_cost(1 + drafted);
    let fastest = |most: usize| {
        gains
            .clone()
            .take(1 + most)
            .map(|(drafted, gain)| (drafted, rate(drafted, gain)))
            .fold((0, 0.0), |best, new| if new.1 > best.1 { new } else { best })
    };
    if count == 1 {
        return fastest(most).0;
    }
    let (_, rate) = fastest(MAX_DRAFT_TOKENS);
    let alone = costs.batch_cost(count);
    let saved = |(drafted, gain)| (drafted, gain / rate - (costs.batch_cost(count + drafted) - alone));
    let lengths = gains.clone().take(1 + most).map(saved);
    lengths.fold((0, 0.0), |best, new| if new.1 > best.1 { new } else { best }).0
}

/// How often a token of a draft is right, by [`DraftSource::odds_index`].
#[derive(Debug)]
struct AcceptanceOdds([f32; INITIAL_ODDS.len()]);

impl Default for AcceptanceOdds {
    fn default() -> Self {
        Self(INITIAL_ODDS)
    }
}

impl AcceptanceOdds {
    fn acceptance_rate(&self, source: DraftSource) -> f32 {
        self.0[source.odds_index()]
    }

    /// Records that `right` tokens of a draft were right, and perhaps the next one was `wrong`.
    fn record_draft(&mut self, source: DraftSource, right: usize, wrong: bool) {
        let odds = &mut self.0[source.odds_index()];
        for _ in 0..right {
            *odds += ODDS_WEIGHT * (1.0 - *odds);
        }
        if wrong {
            *odds -= ODDS_WEIGHT * *odds;
        }
    }
}

/// Time of a batch by its size: seconds for each of [`BATCH_SIZES`], `None` if not measured.
#[derive(Debug, Default)]
struct BatchCosts([Option<f32>; BATCH_SIZES.len()]);

impl BatchCosts {
    fn size_index(rows: usize) -> usize {
        BATCH_SIZES.partition_point(|&size| size < rows)
    }

    /// An estimate from another size's time.
    fn scale_time(time: f32, from: usize, to: usize) -> f32 {
        let rows = |rows: usize| 1.0 + EXTRA_ROW_COST * (rows as f32 - 1.0);
        time * rows(to) / rows(from)
    }

    /// Seconds; if nothing was measured, in units of one row's time.
    fn batch_cost(&self, rows: usize) -> f32 {
        let size = Self::size_index(rows);
        if let Some(time) = self.0.get(size).copied().flatten() {
            return time;
        }
        let known = |size: usize| self.0[size].map(|time| Self::scale_time(time, BATCH_SIZES[size], rows));
        let below = (0..size.min(BATCH_SIZES.len())).rev().find_map(known);
        below
            .or_else(|| (size..BATCH_SIZES.len()).find_map(known))
            .unwrap_or_else(|| Self::scale_time(1.0, 1, rows))
    }

    fn record_time(&mut self, rows: usize, time: f32) {
        let size = Self::size_index(rows);
        let Some(known) = self.0.get_mut(size) else { return };
        let time = match *known {
            None => time,
            Some(known) => known + COST_WEIGHT * (time.min(OUTLIER_FACTOR * known) - known),
        };
        *known = Some(time);
        for (other, known) in self.0.iter_mut().enumerate().filter(|(other, _)| *other != size) {
            if let Some(known) = known {
                let guess = Self::scale_time(time, BATCH_SIZES[size], BATCH_SIZES[other]);
                // Only downwards: sizes that look cheap are tried and measured soon enough.
                *known += COST_DECAY * (guess - *known).min(0.0);
            }
        }
    }
}

#[cfg(test)]
mod tests;

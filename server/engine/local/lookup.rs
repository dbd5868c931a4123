//! Speculation without a second model: guesses the next tokens from what was read and said before.
//! It knows nothing of logits: what it drafts is verified elsewhere, so a wrong guess costs time, never the result.
//!
//! Two sources. First the last generations: a keystroke that follows a suggestion, and a question that was
//! cancelled and asked again, continue what was already said. Then the prompt and the output so far: what stood
//! behind the longest earlier occurrence of the last tokens ("prompt lookup decoding",
//! <https://github.com/apoorvumang/prompt-lookup-decoding>; llama.cpp's `lookup` example does the same).
//!
//! How much of a draft is verified follows from two running averages: how often a draft's tokens were right, by
//! source and length of the match, and what a batch of so many rows takes.

use std::collections::VecDeque;
use std::time::Duration;

use crate::tokens::{FimIds, TokenId, Tokens};

/// Generations that are remembered.
const GENERATIONS: usize = 8;
/// Bytes before the output by which a remembered generation is recognised.
const BEFORE: usize = 128;
/// Bytes of them that must agree, where there are as many.
const AGREE: usize = 64;
/// Fewer than these say nothing, unless they are all that stands before the output.
const AGREE_LEAST: usize = 8;
/// Tokens of a match beyond which a longer one is no better.
const LONGEST: usize = 16;
/// Weight of the newest token in the odds.
const NEWEST_ODDS: f32 = 0.04;
/// Weight of the newest measurement of a batch.
const NEWEST_COST: f32 = 0.2;
/// A measurement beyond this multiple of the average was disturbed, and counts as this much.
const DISTURBED: f32 = 1.5;
/// What a further row is thought to take, as a part of what the first takes, before it was measured. Too
/// little rather than too much: what is chosen is measured, what is never chosen is never corrected.
const FURTHER_ROW: f32 = 0.06;
/// How fast the average of a size that is not used returns to that guess.
const FORGET: f32 = 0.02;

/// Sizes of batches whose time is averaged; others count as the next larger one.
const SIZES: [usize; 10] = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32];
/// Tokens that a draft has at most.
pub(super) const DRAFT: usize = SIZES[SIZES.len() - 1] - 1;

/// Where a draft comes from; the longer the match, the better the odds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// A remembered generation.
    Generation,
    /// An earlier occurrence of as many last tokens.
    Match(usize),
}

/// Odds that a token of a draft is right, before anything was seen: from the sources in [`Source::class`]'s order.
const ODDS: [f32; 6] = [0.9, 0.25, 0.4, 0.55, 0.7, 0.85];

impl Source {
    /// The index into the odds.
    fn class(self) -> usize {
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

/// What speculation did since the model was loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Speculation {
    /// Batches that chose tokens.
    pub steps: u64,
    /// Tokens that they chose.
    pub tokens: u64,
    /// Draft tokens that were verified.
    pub drafted: u64,
    /// Those of them that were right.
    pub accepted: u64,
}

/// The drafts for one sequence.
#[derive(Debug, Default)]
pub(super) struct Lookup {
    /// What is searched: remembered outputs, what the prompt holds behind the cursor, what it holds before it, and
    /// the output so far.
    text: Vec<TokenId>,
    /// Where the output begins in it.
    output: usize,
    /// The bytes before the output, at most [`BEFORE`].
    before: Vec<u8>,
    /// Remembered, the most recent last.
    generations: VecDeque<Past>,
    draft: Vec<TokenId>,
    source: Option<Source>,
    odds: Odds,
    costs: Costs,
    done: Speculation,
    /// Tests verify drafts of any length, whatever they cost.
    #[cfg(test)]
    pub(super) always: Option<usize>,
}

/// A remembered generation.
#[derive(Debug)]
struct Past {
    tokens: Vec<TokenId>,
    /// The bytes before the output, and its own.
    bytes: Vec<u8>,
    /// Where each token begins in them.
    starts: Vec<usize>,
    stand: Stand,
}

/// Where the generation in progress stands in a remembered one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    /// All bytes up to here agree.
    At(usize),
    /// All bytes agree, and the one in progress has gone further.
    Beyond,
    /// It is another text.
    Elsewhere,
}

impl Lookup {
    /// Begins a generation behind `prompt`, with `forced` to be spelt first.
    pub(super) fn begin(&mut self, tokens: &Tokens, prompt: &[TokenId], forced: &[u8]) {
        let seam = seam(tokens.fim(), prompt);
        self.text.clear();
        for past in &self.generations {
            self.text.extend_from_slice(&past.tokens);
        }
        self.text.extend_from_slice(&prompt[seam..]);
        self.text.extend_from_slice(&prompt[..seam]);
        self.output = self.text.len();

        // A special token ends the text before the cursor; it spells nothing anyway.
        let near = prompt[..seam].iter().rev().take_while(|&&token| !tokens.is_special(token));
        let mut parts: Vec<&[u8]> = Vec::new();
        let mut len = 0;
        for &token in near {
            if len >= BEFORE {
                break;
            }
            let bytes = tokens.bytes(token);
            len += bytes.len();
            parts.push(bytes);
        }
        parts.reverse();
        self.before = parts.concat();
        self.before.drain(..len.saturating_sub(BEFORE));
        for past in &mut self.generations {
            past.find(&self.before, forced);
        }
        self.draft.clear();
        self.source = None;
    }

    /// The output has grown by `token`, which spells `bytes`.
    pub(super) fn push(&mut self, token: TokenId, bytes: &[u8]) {
        self.text.push(token);
        for past in &mut self.generations {
            past.advance(bytes);
        }
    }

    /// The generation has ended: remembers what was said.
    pub(super) fn end(&mut self, tokens: &Tokens) {
        let output = &self.text[self.output..];
        if output.is_empty() {
            return;
        }
        // One that this one repeats and continues has nothing to add; one that goes further makes this one superfluous.
        self.generations
            .retain(|past| past.stand != Stand::Beyond && past.stand != Stand::At(past.bytes.len()));
        let longer = self.generations.iter().rposition(|past| matches!(past.stand, Stand::At(_)));
        let past = longer.and_then(|at| self.generations.remove(at)).unwrap_or_else(|| {
            let mut bytes = self.before.clone();
            let mut starts = Vec::with_capacity(output.len());
            for &token in output {
                starts.push(bytes.len());
                bytes.extend_from_slice(tokens.bytes(token));
            }
            Past { tokens: output.to_vec(), bytes, starts, stand: Stand::Elsewhere }
        });
        if self.generations.len() == GENERATIONS {
            self.generations.pop_front();
        }
        self.generations.push_back(past);
    }

    /// Forgets what was said; what was learnt of odds and costs stays.
    pub(super) fn clear(&mut self) {
        self.generations.clear();
        self.text.clear();
        self.draft.clear();
        self.source = None;
    }

    /// Guesses what comes next, `forced` first; see [`Lookup::take`].
    pub(super) fn guess(&mut self, tokens: &Tokens, forced: &[u8]) {
        self.draft.clear();
        self.source = None;
        let generation =
            self.generations.iter().rev().find_map(|past| past.rest().filter(|rest| !rest.is_empty()));
        if let Some(rest) = generation {
            self.draft.extend_from_slice(&rest[..rest.len().min(DRAFT)]);
            self.source = Some(Source::Generation);
        } else if let Some((at, len)) =
            longest_match(&self.text, |next| !tokens.ends(next) && agrees(tokens.bytes(next), forced))
        {
            // Behind the end of the text comes the draft itself: a text that repeats itself goes on to do so.
            for i in at..at + DRAFT {
                let token = self.text.get(i).copied().unwrap_or_else(|| self.draft[i - self.text.len()]);
                self.draft.push(token);
            }
            self.source = Some(Source::Match(len));
        }
        let end = self.draft.iter().position(|&token| tokens.ends(token));
        self.draft.truncate(end.unwrap_or(DRAFT));
    }

    /// What of the guess pays to be verified: at most `most` tokens in one batch behind `count` others, which
    /// are evaluated in any case. `count` is 1 while decoding, any number at the end of a prompt.
    pub(super) fn take(&self, count: usize, most: usize) -> &[TokenId] {
        let most = most.min(self.draft.len());
        #[cfg(test)]
        if let Some(always) = self.always {
            return &self.draft[..always.min(most)];
        }
        let Some(source) = self.source else { return &[] };
        &self.draft[..best_length(self.odds.of(source), &self.costs, count, most)]
    }

    /// A batch with `drafted` tokens of the guess chose `chosen`, and then perhaps the end of the text.
    pub(super) fn judge(
        &mut self,
        drafted: usize,
        chosen: impl ExactSizeIterator<Item = TokenId>,
        ended: bool,
    ) {
        let count = chosen.len();
        // Beyond what was verified there is still the token that was chosen last.
        let right = self.draft.iter().zip(chosen).take_while(|(guess, token)| *guess == token).count();
        let wrong = right < self.draft.len() && (right < count || ended);
        if let Some(source) = self.source {
            self.odds.note(source, right, wrong);
        }
        self.done.steps += 1;
        self.done.tokens += count as u64;
        self.done.drafted += drafted as u64;
        self.done.accepted += drafted.min(right) as u64;
    }

    /// A batch of `rows` tokens took `time`.
    pub(super) fn note_batch(&mut self, rows: usize, time: Duration) {
        self.costs.note(rows, time.as_secs_f32());
    }

    /// What was done so far.
    pub(super) fn done(&self) -> Speculation {
        self.done
    }
}

impl Past {
    /// Finds the place in this generation that a text which ends in `before` stands at, `forced` being next.
    fn find(&mut self, before: &[u8], forced: &[u8]) {
        let own = self.starts.first().copied().unwrap_or(0);
        let mut best: Option<(usize, usize)> = None;
        for at in 0..=self.bytes.len() {
            let same = self.bytes[..at].iter().rev().zip(before.iter().rev());
            let same = same.take_while(|(a, b)| a == b).count();
            let enough = same >= at.min(before.len()).min(AGREE);
            let telling = same >= AGREE_LEAST || at == before.len();
            // Of equals the one next to the place where this generation began.
            let better = best.is_none_or(|(most, place)| {
                same > most || (same == most && at.abs_diff(own) < place.abs_diff(own))
            });
            if enough && telling && better && agrees(&self.bytes[at..], forced) {
                best = Some((same, at));
            }
        }
        self.stand = best.map_or(Stand::Elsewhere, |(_, at)| Stand::At(at));
    }

    fn advance(&mut self, bytes: &[u8]) {
        if let Stand::At(at) = self.stand {
            let rest = &self.bytes[at..];
            self.stand = if rest.starts_with(bytes) {
                Stand::At(at + bytes.len())
            } else if bytes.starts_with(rest) {
                Stand::Beyond
            } else {
                Stand::Elsewhere
            };
        }
    }

    /// The tokens that follow, if the place is between two tokens.
    fn rest(&self) -> Option<&[TokenId]> {
        let Stand::At(at) = self.stand else { return None };
        self.starts.binary_search(&at).ok().map(|index| &self.tokens[index..])
    }
}

/// Where the text that the output continues ends in the prompt. Behind a middle token that is the end of the prefix,
/// which stands before the suffix or directly before the middle token, by the order of the parts.
fn seam(fim: FimIds, prompt: &[TokenId]) -> usize {
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

/// Whether one of the two begins with the other.
fn agrees(bytes: &[u8], forced: &[u8]) -> bool {
    let len = bytes.len().min(forced.len());
    bytes[..len] == forced[..len]
}

/// The longest earlier occurrence of the end of `text` that is followed by a token which `fits`, and of those the
/// latest: where that token stands, and the length of the match.
fn longest_match(text: &[TokenId], fits: impl Fn(TokenId) -> bool) -> Option<(usize, usize)> {
    let (&last, earlier) = text.split_last()?;
    let mut best: Option<(usize, usize)> = None;
    let mut end = earlier.len();
    while let Some(at) = earlier[..end].iter().rposition(|&token| token == last) {
        end = at;
        let same = earlier[..at].iter().rev().zip(earlier.iter().rev());
        let len = 1 + same.take(LONGEST - 1).take_while(|(a, b)| a == b).count();
        if best.is_none_or(|(_, most)| len > most) && fits(text[at + 1]) {
            best = Some((at + 1, len));
            if len == LONGEST {
                break;
            }
        }
    }
    best
}

/// How many of `most` tokens to verify behind `count` others.
///
/// While decoding, the length with the most tokens for the time, counting the one that every batch gives. At
/// the end of a prompt, the length that saves most of the time that decoding would take, less what it adds here.
fn best_length(odds: f32, costs: &Costs, count: usize, most: usize) -> usize {
    // Tokens that a draft of each length gives on the average, those of no draft first.
    let gains = std::iter::successors(Some((0.0, 1.0)), |(sum, chance)| {
        let chance: f32 = chance * odds;
        Some((sum + chance, chance))
    });
    let gains = gains.map(|(sum, _)| sum).enumerate();
    // Tokens for the time. Of equals the shortest.
    let rate = |drafted: usize, gain: f32| (1.0 + gain) / costs.of(1 + drafted);
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
    let (_, rate) = fastest(DRAFT);
    let alone = costs.of(count);
    let saved = |(drafted, gain)| (drafted, gain / rate - (costs.of(count + drafted) - alone));
    let lengths = gains.clone().take(1 + most).map(saved);
    lengths.fold((0, 0.0), |best, new| if new.1 > best.1 { new } else { best }).0
}

/// How often a token of a draft is right, by [`Source::class`].
#[derive(Debug)]
struct Odds([f32; ODDS.len()]);

impl Default for Odds {
    fn default() -> Self {
        Self(ODDS)
    }
}

impl Odds {
    fn of(&self, source: Source) -> f32 {
        self.0[source.class()]
    }

    /// Of a draft `right` tokens were right, and perhaps the next one was `wrong`.
    fn note(&mut self, source: Source, right: usize, wrong: bool) {
        let odds = &mut self.0[source.class()];
        for _ in 0..right {
            *odds += NEWEST_ODDS * (1.0 - *odds);
        }
        if wrong {
            *odds -= NEWEST_ODDS * *odds;
        }
    }
}

/// What a batch takes, by its size: seconds for each of [`SIZES`], none where nothing was measured.
#[derive(Debug, Default)]
struct Costs([Option<f32>; SIZES.len()]);

impl Costs {
    fn size(rows: usize) -> usize {
        SIZES.partition_point(|&size| size < rows)
    }

    /// A guess from another size's time.
    fn scaled(time: f32, from: usize, to: usize) -> f32 {
        let rows = |rows: usize| 1.0 + FURTHER_ROW * (rows as f32 - 1.0);
        time * rows(to) / rows(from)
    }

    /// Seconds; if nothing was measured at all, in units of one row's time.
    fn of(&self, rows: usize) -> f32 {
        let size = Self::size(rows);
        if let Some(time) = self.0.get(size).copied().flatten() {
            return time;
        }
        let known = |size: usize| self.0[size].map(|time| Self::scaled(time, SIZES[size], rows));
        let below = (0..size.min(SIZES.len())).rev().find_map(known);
        below.or_else(|| (size..SIZES.len()).find_map(known)).unwrap_or_else(|| Self::scaled(1.0, 1, rows))
    }

    fn note(&mut self, rows: usize, time: f32) {
        let size = Self::size(rows);
        let Some(known) = self.0.get_mut(size) else { return };
        let time = match *known {
            None => time,
            Some(known) => known + NEWEST_COST * (time.min(DISTURBED * known) - known),
        };
        *known = Some(time);
        for (other, known) in self.0.iter_mut().enumerate().filter(|(other, _)| *other != size) {
            if let Some(known) = known {
                let guess = Self::scaled(time, SIZES[size], SIZES[other]);
                // Only downwards: what looks cheap is tried and measured soon enough.
                *known += FORGET * (guess - *known).min(0.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    /// The drafts of a generation behind `prompt` and `forced` that has said `said` so far.
    fn guess(lookup: &mut Lookup, tokens: &Tokens, prompt: &str, forced: &str, said: &str) -> String {
        lookup.begin(tokens, &tokens.encode(prompt), forced.as_bytes());
        for token in tokens.encode(said) {
            lookup.push(token, tokens.bytes(token));
        }
        let rest = forced.get(said.len()..).unwrap_or_default();
        lookup.guess(tokens, rest.as_bytes());
        spell(tokens, &lookup.draft)
    }

    fn spell(tokens: &Tokens, draft: &[TokenId]) -> String {
        let bytes: Vec<u8> = draft.iter().flat_map(|&token| tokens.bytes(token)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// A generation that says `said`.
    fn say(lookup: &mut Lookup, tokens: &Tokens, prompt: &str, forced: &str, said: &str) {
        guess(lookup, tokens, prompt, forced, said);
        lookup.end(tokens);
    }

    #[test]
    fn the_longest_match_is_what_a_plain_search_finds() {
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..20_000 {
            let text: Vec<TokenId> = (0..random.usize(..40)).map(|_| random.u32(..3)).collect();
            let barred = random.u32(..6);
            let fits = |token: TokenId| token != barred;
            let expected = (1..text.len())
                .filter(|&at| fits(text[at]))
                .map(|at| {
                    let same = text[..at].iter().rev().zip(text.iter().rev()).take_while(|(a, b)| a == b);
                    (same.count().min(LONGEST), at)
                })
                .filter(|&(len, _)| len > 0)
                .max();
            assert_eq!(longest_match(&text, fits), expected.map(|(len, at)| (at, len)), "{text:?}");
        }
    }

    #[test]
    fn what_stood_behind_the_last_tokens_before_is_drafted() {
        let tokens = Tokens::bytes_only();
        let mut lookup = Lookup::default();
        let code = "def bcd(self): return 1\nfor x in y: pass\ndef b";
        assert!(guess(&mut lookup, &tokens, code, "", "").starts_with("cd(self): return 1\nfor x"));
        assert!(guess(&mut lookup, &tokens, code, "", "cd(").starts_with("self): return 1\n"));
        assert_eq!(lookup.source.map(Source::class), Some(Source::Match(5).class()));
        assert!(
            guess(&mut lookup, &tokens, "ab ac ad a", "c", "").starts_with("c ad a"),
            "only what is forced"
        );
        assert_eq!(guess(&mut lookup, &tokens, "xyz", "", ""), "");
        assert!(lookup.take(1, 9).is_empty());
        // What repeats itself is drafted as going on to, beyond its own end.
        let run = guess(&mut lookup, &tokens, "0, 1, 0, 1, 0", "", "");
        assert!(run.starts_with(", 1, 0, 1, 0, 1, 0, 1,") && lookup.draft.len() == DRAFT, "{run}");
    }

    #[test]
    fn no_draft_holds_a_special_token() {
        let tokens = Tokens::bytes_only();
        let fim = tokens.fim();
        let mut prompt = tokens.encode("let a = b");
        prompt.push(fim.suffix.unwrap());
        prompt.extend(tokens.encode("let a = "));
        let mut lookup = Lookup::default();
        lookup.begin(&tokens, &prompt, b"");
        lookup.guess(&tokens, b"");
        assert_eq!(spell(&tokens, &lookup.draft), "b");
        lookup.push(TokenId::from(b'b'), b"b");
        lookup.guess(&tokens, b"");
        assert!(lookup.draft.is_empty(), "{:?}", lookup.draft);
    }

    #[test]
    fn behind_a_middle_token_the_prefix_goes_on() {
        let tokens = Tokens::bytes_only();
        let fim = tokens.fim();
        let (pre, suf, mid) = (fim.prefix.unwrap(), fim.suffix.unwrap(), fim.middle.unwrap());
        let (before, after) = (tokens.encode("let number = 1;\nlet n"), tokens.encode(";\nprint(n)"));
        let join = |parts: &[&[TokenId]]| parts.concat();
        let psm = join(&[&[pre], &before, &[suf], &after, &[mid]]);
        assert_eq!(seam(fim, &psm), 1 + before.len());
        let spm = join(&[&[suf], &after, &[pre], &before, &[mid]]);
        assert_eq!(seam(fim, &spm), spm.len() - 1);
        let anchored = join(&[&[suf], &after, &[mid], &before]);
        assert_eq!(seam(fim, &anchored), anchored.len());
        assert_eq!((seam(fim, &[]), seam(fim, &[mid])), (0, 0));
        for prompt in [psm, spm, anchored] {
            let mut lookup = Lookup::default();
            lookup.begin(&tokens, &prompt, b"");
            lookup.guess(&tokens, b"");
            let draft = spell(&tokens, &lookup.draft);
            assert!(draft.starts_with("umber = 1;\nlet n"), "{draft}");
            assert_eq!(lookup.before, b"let number = 1;\nlet n");
        }
    }

    #[test]
    fn a_suggestion_that_is_typed_through_is_drafted_to_its_end() {
        let tokens = Tokens::bytes_only();
        let code = "class Ledger:\n    def balance(self):\n        ";
        let said = "return self.total() + 1";
        for cut in 0..said.len() {
            for back in 0..=cut.min(3) {
                let mut lookup = Lookup::default();
                say(&mut lookup, &tokens, code, "", said);
                let (typed, forced) = said[..cut].split_at(cut - back);
                let prompt = format!("{code}{typed}");
                // The model repeats itself; at a token's begin the rest of what it said is the draft.
                let mut so_far = String::new();
                let first = guess(&mut lookup, &tokens, &prompt, forced, "");
                let mut whole = first.clone();
                for token in tokens.encode(&said[typed.len()..]) {
                    if lookup.source == Some(Source::Generation) {
                        break;
                    }
                    so_far += &spell(&tokens, &[token]);
                    whole = so_far.clone() + &guess(&mut lookup, &tokens, &prompt, forced, &so_far);
                }
                if lookup.source == Some(Source::Generation) {
                    assert_eq!(whole, said[typed.len()..], "{cut} {back}");
                } else {
                    assert!(said.len() - cut < 4, "{cut} {back}: no draft");
                }
            }
        }
        let mut lookup = Lookup::default();
        say(&mut lookup, &tokens, code, "", said);
        guess(&mut lookup, &tokens, code, "x", "");
        assert_ne!(lookup.source, Some(Source::Generation), "something else is typed");
        guess(&mut lookup, &tokens, "fn main() {\n    let x = ", "", "");
        assert_ne!(lookup.source, Some(Source::Generation), "another place");
        lookup.clear();
        assert_ne!(guess(&mut lookup, &tokens, code, "", ""), said);
    }

    #[test]
    fn the_last_generations_are_remembered_each_once() {
        let tokens = Tokens::bytes_only();
        let mut lookup = Lookup::default();
        let code = "x = some_function(1, 2)\ny = ";
        // Cancelled, asked again, cancelled later; then a short one again.
        for said in ["ot", "other(", "other(3, 4)", "oth"] {
            say(&mut lookup, &tokens, code, "", said);
            assert_eq!(lookup.generations.len(), 1);
        }
        assert_eq!(guess(&mut lookup, &tokens, code, "", "o"), "ther(3, 4)");
        say(&mut lookup, &tokens, code, "", "different");
        assert_eq!(lookup.generations.len(), 2);
        assert_eq!(guess(&mut lookup, &tokens, code, "", ""), "different", "the latest first");
        assert_eq!(guess(&mut lookup, &tokens, code, "ot", ""), "other(3, 4)");
        for i in 0..20 {
            say(&mut lookup, &tokens, &format!("number {i} is written as "), "", "so");
        }
        assert_eq!(lookup.generations.len(), GENERATIONS);
        say(&mut lookup, &tokens, code, "", "");
        assert_eq!(lookup.generations.len(), GENERATIONS);
    }

    #[test]
    fn drafts_are_as_long_as_they_pay() {
        let mut costs = Costs::default();
        for (rows, time) in [(1, 13.0), (2, 14.0), (4, 17.0), (8, 21.0), (12, 40.0), (16, 50.0), (32, 90.0)] {
            costs.note(rows, time);
        }
        assert_eq!(best_length(0.95, &costs, 1, DRAFT), 7);
        assert_eq!(best_length(0.95, &costs, 1, 5), 5);
        assert!((1..=3).contains(&best_length(0.3, &costs, 1, DRAFT)));
        assert_eq!(best_length(0.02, &costs, 1, DRAFT), 0);
        assert_eq!(best_length(0.95, &costs, 1, 0), 0);
        // Behind the last three tokens of a prompt, the batch has room for five.
        assert_eq!(best_length(0.9, &costs, 3, DRAFT), 5);
        assert_eq!(best_length(0.01, &costs, 3, DRAFT), 0);
        assert!(best_length(0.9, &costs, 400, DRAFT) > 3);
        let mut slow = Costs::default();
        for rows in SIZES {
            slow.note(rows, 10.0 * rows as f32);
        }
        assert_eq!(best_length(0.99, &slow, 1, DRAFT), 0, "nothing to gain where each row costs the same");
        assert_eq!(best_length(0.6, &Costs::default(), 1, DRAFT).min(1), 1, "tried before it is measured");
    }

    #[test]
    fn odds_and_costs_follow_what_happens() {
        let mut costs = Costs::default();
        costs.note(1, 10.0);
        assert!(costs.of(8) < 15.0 && costs.of(9) > costs.of(8));
        costs.note(8, 100.0);
        assert!((costs.of(7) - 100.0).abs() < 1e-3);
        assert_eq!(best_length(0.9, &costs, 1, 7), 5, "what lies between is not dear for that");
        for _ in 0..200 {
            costs.note(1, 10.0);
        }
        assert!(costs.of(8) < 20.0, "{costs:?}");
        costs.note(1, 1000.0);
        assert!(costs.of(1) < 12.0, "a pause is no speed: {costs:?}");
        costs.note(100, 1.0);
        for _ in 0..200 {
            costs.note(1, 20.0);
        }
        assert!((costs.of(1) - 20.0).abs() < 0.1);

        let mut odds = Odds::default();
        let source = Source::Match(2);
        for _ in 0..200 {
            odds.note(source, 0, true);
        }
        assert!(odds.of(source) < 0.01);
        assert!((odds.of(Source::Generation) - ODDS[0]).abs() < 1e-6);
        for _ in 0..400 {
            odds.note(source, 3, true);
        }
        assert!((0.65..0.85).contains(&odds.of(source)), "three of four: {odds:?}");
    }

    #[test]
    fn what_was_not_verified_is_judged_by_the_token_that_came() {
        let tokens = Tokens::bytes_only();
        let mut lookup = Lookup::default();
        guess(&mut lookup, &tokens, "abcdXabcd", "", "");
        let source = lookup.source.unwrap();
        let draft = lookup.draft.clone();
        let mut before = lookup.odds.of(source);
        for (drafted, chosen, ended, better) in [
            (0, 1, false, Some(true)),
            (0, 0, true, Some(false)),
            (3, 4, false, Some(true)),
            (draft.len(), draft.len(), true, Some(true)),
        ] {
            lookup.judge(drafted, draft[..chosen].iter().copied(), ended);
            let after = lookup.odds.of(source);
            assert_eq!(Some(after > before), better);
            before = after;
        }
        lookup.judge(2, [draft[0], draft[1] + 1].into_iter(), false);
        let done = lookup.done();
        assert_eq!(done.steps, 5);
        assert_eq!(done.drafted as usize, 3 + draft.len() + 2);
        assert_eq!(done.accepted as usize, 3 + draft.len() + 1);
        assert_eq!(done.tokens as usize, 1 + 4 + draft.len() + 2);
    }
}

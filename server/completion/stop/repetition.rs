//! Detects repetitive output: endless lists, repeated phrases, similar lines.
//!
//! A text is lexed into words, numbers, strings and symbols. A repetition is a run of these tokens. Any two numbers
//! are similar, and so are any two strings, and two names that differ only in their numbers. The limits were chosen
//! so that they hardly ever cut real code (the tasks of `benches/quality`).

use super::super::cursor::{CursorContext, indentation_width};
use super::super::lexer::{CodeToken, CodeTokenKind, is_digit, lex_line, with_folded_numbers};
use super::StopPoint;

/// Maximum tokens of a phrase or an item.
const MAX_PHRASE_TOKENS: usize = 24;
/// How often a phrase may repeat in a row.
const MAX_SAME_PHRASES: usize = 5;
/// Minimum tokens of all its occurrences together, so that a short phrase may repeat more often.
const MIN_SAME_TOKENS: usize = 16;
/// How many items of a list on one line may be similar.
const MAX_ALIKE_ITEMS: usize = 16;
/// How many items with a name or a word may count up on one line: `x1, x2`, `case 1: case 2:`.
const MAX_COUNTING_ITEMS: usize = 8;
/// Maximum lines of a repeated group.
const MAX_GROUP_LINES: usize = 3;
/// How many lines, or groups of lines, may be similar.
const MAX_ALIKE_GROUPS: usize = 5;
/// Repetitions that are kept: enough to show the pattern, and the next request can continue it.
const KEPT_REPETITIONS: usize = 3;

/// The end of output that repeats a phrase, or similar items, too often within a line.
pub(in crate::completion) fn find_run_in_line(place: &CursorContext<'_>, text: &str) -> Option<StopPoint> {
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let mut tokens = lex_line(place, line.trim_end_matches(['\n', '\r']), start);
        start += line.len();
        // The last token may be incomplete.
        if !line.ends_with(['\n', ' ']) {
            tokens.pop();
        }
        if let Some(end) = find_first_run(&tokens) {
            return Some(end);
        }
        if let Some(at) = find_data(place, line) {
            return Some(StopPoint { keep: start - line.len() + at, rule: "data that no model can know" });
        }
    }
    None
}

/// Letters and digits without a blank that are data rather than a name: the minimum length of any kind, of
/// hexadecimal digits, and of one repeated character.
const MIN_DATA_CHARS: (usize, usize, usize) = (72, 48, 32);
/// The file already contains the data if it contains this many of its first characters.
const DATA_PROBE_CHARS: usize = 16;

/// The start of data on a line that no model can know: base64, a key, a hash, a run of digits. Data that occurs
/// elsewhere in the file may be repeated.
fn find_data(place: &CursorContext<'_>, line: &str) -> Option<usize> {
    let is_data = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=');
    let mut at = 0;
    for run in line.split_inclusive(|c| !is_data(c)) {
        let text = run.trim_end_matches(|c| !is_data(c));
        let same = text.as_bytes().windows(2).filter(|pair| pair[0] == pair[1]).count() + 1 == text.len();
        let digits = text.chars().any(is_digit);
        let hex = digits && text.chars().all(|c| c.is_ascii_hexdigit());
        let kind = |byte: u8| (byte.is_ascii_digit(), byte.is_ascii_uppercase());
        let changes = text.as_bytes().windows(2).filter(|pair| kind(pair[0]) != kind(pair[1])).count();
        let mixed = digits && 4 * changes >= text.len();
        let (any, of_hex, of_same) = MIN_DATA_CHARS;
        let too_long = text.len() >= any && mixed || text.len() >= of_hex && hex;
        let is_word = text.chars().any(|c| c.is_ascii_alphanumeric());
        if (too_long || text.len() >= of_same && same && is_word)
            && !(place.before.contains(&text[..DATA_PROBE_CHARS])
                || place.after.contains(&text[..DATA_PROBE_CHARS]))
        {
            return Some(at);
        }
        at += run.len();
    }
    None
}

/// Whether the last items of `length` tokens count up or down, next to a word.
fn is_counting_up(tokens: &[CodeToken<'_>], length: usize) -> bool {
    let item = &tokens[tokens.len() - length..];
    let words = item.iter().any(|token| token.kind == CodeTokenKind::Word);
    let value = |offset: usize, ago: usize| tokens[tokens.len() - length * (ago + 1) + offset].last_number();
    let counts = |offset: usize| {
        let values: Option<Vec<u32>> = (0..MAX_COUNTING_ITEMS).map(|ago| value(offset, ago)).collect();
        values.is_some_and(|values| {
            let steps = values.windows(2).map(|pair| i64::from(pair[0]) - i64::from(pair[1]));
            let mut steps: Vec<i64> = steps.collect();
            steps.dedup();
            steps.len() == 1 && steps[0] != 0
        })
    };
    words && tokens.len() >= length * MAX_COUNTING_ITEMS && (0..length).any(counts)
}

/// The first run that becomes too long, from left to right.
fn find_first_run(tokens: &[CodeToken<'_>]) -> Option<StopPoint> {
    // For each phrase length: how many tokens up to this one equal the token that many positions earlier.
    let mut same = [0_usize; MAX_PHRASE_TOKENS + 1];
    let mut alike = [0_usize; MAX_PHRASE_TOKENS + 1];
    for (at, token) in tokens.iter().enumerate() {
        for length in 1..=MAX_PHRASE_TOKENS.min(at) {
            let before = &tokens[at - length];
            same[length] = if token.is_same(before) { same[length] + 1 } else { 0 };
            alike[length] = if token.is_alike(before) { alike[length] + 1 } else { 0 };
            let phrase = &tokens[at + 1 - length..=at];
            let has = |kind: &[CodeTokenKind]| phrase.iter().any(|token| kind.contains(&token.kind));
            let is_list = alike[length] >= length * (MAX_ALIKE_ITEMS - 1)
                && has(&[CodeTokenKind::Number, CodeTokenKind::String]);
            let counts_up = || {
                alike[length] >= length * (MAX_COUNTING_ITEMS - 1) && is_counting_up(&tokens[..=at], length)
            };
            let often = MAX_SAME_PHRASES.max(MIN_SAME_TOKENS.div_ceil(length));
            let (count, rule) = if same[length] >= length * (often - 1) && has(&[CodeTokenKind::Word]) {
                (same[length], "the same phrase repeats")
            } else if is_list || counts_up() {
                (alike[length], "an endless list")
            } else {
                continue;
            };
            let first = at + 1 - count - length;
            return Some(StopPoint {
                keep: kept_len(&tokens[first..first + KEPT_REPETITIONS * length]),
                rule,
            });
        }
    }
    None
}

/// The end of these tokens, without those that only lead to more.
fn kept_len(run: &[CodeToken<'_>]) -> usize {
    let leads = |token: &&CodeToken<'_>| match token.kind {
        CodeTokenKind::Symbol => !matches!(token.text, ")" | "]" | "}"),
        CodeTokenKind::Word => matches!(token.text, "and" | "or"),
        CodeTokenKind::Number | CodeTokenKind::String => false,
    };
    let last = run.iter().rfind(|token| !leads(token));
    last.map_or(0, |token| token.start + token.text.len())
}

/// The complete non-blank lines of the output, added one by one.
#[derive(Debug, Default)]
pub(super) struct LineHistory<'t> {
    lines: Vec<TokenizedLine<'t>>,
    /// For each group size: how many lines are similar to the line that many lines earlier.
    alike: [usize; MAX_GROUP_LINES + 1],
}

#[derive(Debug)]
struct TokenizedLine<'t> {
    /// Its end in the output, including its line break.
    end: usize,
    indentation: usize,
    tokens: Vec<CodeToken<'t>>,
}

impl<'t> LineHistory<'t> {
    /// Adds a line that ends at `end` in the output. Returns the cut if it is one similar line too many.
    pub(super) fn push(&mut self, place: &CursorContext<'_>, line: &'t str, end: usize) -> Option<StopPoint> {
        let at = self.lines.len();
        self.lines.push(TokenizedLine {
            end,
            indentation: indentation_width(line),
            tokens: lex_line(place, line, 0),
        });
        for length in 1..=MAX_GROUP_LINES.min(at) {
            let (line, before) = (&self.lines[at], &self.lines[at - length]);
            self.alike[length] = if line.is_alike(before) { self.alike[length] + 1 } else { 0 };
            let count = self.alike[length];
            let group = &self.lines[at + 1 - length..=at];
            if count >= length * (MAX_ALIKE_GROUPS - 1) && group.iter().any(TokenizedLine::has_counter) {
                let first = at + 1 - count - length;
                let keep = self.lines[first + KEPT_REPETITIONS * length - 1].end;
                return Some(StopPoint { keep, rule: "similar lines repeat" });
            }
        }
        None
    }
}

impl TokenizedLine<'_> {
    fn is_alike(&self, other: &Self) -> bool {
        self.indentation == other.indentation
            && self.tokens.len() == other.tokens.len()
            && self.tokens.iter().zip(&other.tokens).all(|(a, b)| {
                // Lists of names have one name per line, and each is information.
                a.is_alike(b)
                    && (a.kind != CodeTokenKind::String || a.is_short() == b.is_short())
                    && (a.kind != CodeTokenKind::String
                        || a.is_short()
                        || with_folded_numbers(a.text).eq(with_folded_numbers(b.text)))
            })
    }

    /// Whether it has a token that may count up.
    fn has_counter(&self) -> bool {
        self.tokens.iter().any(|token| {
            token.kind != CodeTokenKind::Symbol && (token.is_short() || token.text.contains(is_digit))
        })
    }
}

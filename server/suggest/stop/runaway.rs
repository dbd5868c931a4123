//! Answers that go on and on: a list that does not end, the same words again and again, one line like the other.
//! It knows nothing of the place but how its language quotes, nor of what the words mean.
//!
//! A text is read as words, numbers, strings and signs. What repeats is a run of them; two numbers are alike, and so
//! are two strings, and two names that differ in their numbers. How often is too often was chosen by real code: of
//! 240,000 lines of packages published in 2026 (the tasks that `benches/quality` draws from) the rules for one line
//! would cut five, and 19 places have so many lines that are alike.

use super::super::place::{Place, indentation, quoted};
use super::End;
use crate::text::lines::is_word;

/// Words, numbers, strings and signs of a phrase or an item at most.
const LONGEST: usize = 24;
/// How often the same phrase may come in a row.
const SAME: usize = 5;
/// Words and signs that all its occurrences must have, so that a short one may come more often.
const SAME_SIZE: usize = 16;
/// How many items of a list may be alike on one line.
const ITEMS: usize = 16;
/// Lines after which a pattern may begin anew.
const LONGEST_LINES: usize = 3;
/// How many lines, or groups of them, may be alike.
const LINES: usize = 5;
/// What is left of a run: enough to say what was meant, and the rest comes when it is asked for.
const KEPT: usize = 3;

/// A piece of a line, and where it stands in the text.
#[derive(Debug, Clone, Copy)]
struct Token<'t> {
    kind: Kind,
    text: &'t str,
    start: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Word,
    Number,
    /// With its quotes.
    String,
    Sign,
}

/// The end of an answer that says the same, or items that are alike, too often within a line.
pub(super) fn within_a_line(place: &Place<'_>, text: &str) -> Option<End> {
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let mut tokens = read(place, line.trim_end_matches(['\n', '\r']), start);
        start += line.len();
        // The last one may go on.
        if !line.ends_with(['\n', ' ']) {
            tokens.pop();
        }
        if let Some(end) = first_run(&tokens) {
            return Some(end);
        }
    }
    None
}

/// The run that is too long first, from left to right.
fn first_run(tokens: &[Token<'_>]) -> Option<End> {
    // For each length of a phrase: how many tokens up to this one are as the one that stands so many before it.
    let mut same = [0_usize; LONGEST + 1];
    let mut alike = [0_usize; LONGEST + 1];
    for (at, token) in tokens.iter().enumerate() {
        for length in 1..=LONGEST.min(at) {
            let before = &tokens[at - length];
            same[length] = if token.is_same(before) { same[length] + 1 } else { 0 };
            alike[length] = if token.is_alike(before) { alike[length] + 1 } else { 0 };
            let phrase = &tokens[at + 1 - length..=at];
            let says = |kind: &[Kind]| phrase.iter().any(|token| kind.contains(&token.kind));
            let often = SAME.max(SAME_SIZE.div_ceil(length));
            let (count, rule) = if same[length] >= length * (often - 1) && says(&[Kind::Word]) {
                (same[length], "the same phrase again and again")
            } else if alike[length] >= length * (ITEMS - 1) && says(&[Kind::Number, Kind::String]) {
                (alike[length], "a list that does not end")
            } else {
                continue;
            };
            let first = at + 1 - count - length;
            return Some(End { keep: kept(&tokens[first..first + KEPT * length]), rule });
        }
    }
    None
}

/// Where these tokens end, without what only leads to more of them.
fn kept(run: &[Token<'_>]) -> usize {
    let leads = |token: &&Token<'_>| match token.kind {
        Kind::Sign => !matches!(token.text, ")" | "]" | "}"),
        Kind::Word => matches!(token.text, "and" | "or"),
        Kind::Number | Kind::String => false,
    };
    let last = run.iter().rfind(|token| !leads(token));
    last.map_or(0, |token| token.start + token.text.len())
}

/// The complete lines of an answer that are not blank, as they come.
#[derive(Debug, Default)]
pub(super) struct Lines<'t> {
    lines: Vec<Line<'t>>,
    /// For each number of lines in a group: how many lines are like the one that stands so many before them.
    alike: [usize; LONGEST_LINES + 1],
}

#[derive(Debug)]
struct Line<'t> {
    /// Where it ends in the answer, its line break included.
    end: usize,
    indentation: usize,
    tokens: Vec<Token<'t>>,
}

impl<'t> Lines<'t> {
    /// Adds a line that ends at `end` in the answer; where to cut if it is one too many of its like.
    pub(super) fn push(&mut self, place: &Place<'_>, line: &'t str, end: usize) -> Option<End> {
        let at = self.lines.len();
        self.lines.push(Line { end, indentation: indentation(line), tokens: read(place, line, 0) });
        for length in 1..=LONGEST_LINES.min(at) {
            let (line, before) = (&self.lines[at], &self.lines[at - length]);
            self.alike[length] = if line.is_alike(before) { self.alike[length] + 1 } else { 0 };
            let count = self.alike[length];
            let group = &self.lines[at + 1 - length..=at];
            if count >= length * (LINES - 1) && group.iter().any(Line::counts) {
                let first = at + 1 - count - length;
                let keep = self.lines[first + KEPT * length - 1].end;
                return Some(End { keep, rule: "lines that are all alike" });
            }
        }
        None
    }
}

impl Line<'_> {
    fn is_alike(&self, other: &Self) -> bool {
        self.indentation == other.indentation
            && self.tokens.len() == other.tokens.len()
            && self.tokens.iter().zip(&other.tokens).all(|(a, b)| {
                // Lists of names are written one a line, and each says something.
                a.is_alike(b)
                    && (a.kind != Kind::String || a.is_short() == b.is_short())
                    && (a.kind != Kind::String
                        || a.is_short()
                        || without_numbers(a.text).eq(without_numbers(b.text)))
            })
    }

    /// Whether it has something that may count up.
    fn counts(&self) -> bool {
        self.tokens
            .iter()
            .any(|token| token.kind != Kind::Sign && (token.is_short() || token.text.contains(is_digit)))
    }
}

impl Token<'_> {
    fn is_same(&self, other: &Self) -> bool {
        self.text == other.text
    }

    fn is_alike(&self, other: &Self) -> bool {
        self.kind == other.kind
            && match self.kind {
                Kind::Word => without_numbers(self.text).eq(without_numbers(other.text)),
                Kind::Number | Kind::String => true,
                Kind::Sign => self.text == other.text,
            }
    }

    /// Whether it is a string of a letter or two.
    fn is_short(&self) -> bool {
        self.kind == Kind::String && self.text.chars().count() <= 4
    }
}

fn is_digit(c: char) -> bool {
    c.is_ascii_digit()
}

/// The text with a `0` for each row of digits.
fn without_numbers(text: &str) -> impl Iterator<Item = char> {
    let mut digit = false;
    text.chars().filter_map(move |c| {
        let again = digit && is_digit(c);
        digit = is_digit(c);
        (!again).then_some(if digit { '0' } else { c })
    })
}

/// Reads a line that begins at `start` in the text. A quote that is not closed yet is a sign.
fn read<'t>(place: &Place<'_>, line: &'t str, start: usize) -> Vec<Token<'t>> {
    let rust = place.is_rust();
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(c) = line[at..].chars().next() {
        let rest = &line[at..];
        let after = &rest[c.len_utf8()..];
        if c.is_whitespace() {
            at += c.len_utf8();
            continue;
        }
        let string = if matches!(c, '"' | '\'' | '`') { quoted(after, c, rust) } else { None };
        let (kind, len) = match string {
            Some(len) => (Kind::String, len + 2),
            None if is_digit(c) => (Kind::Number, number(rest)),
            None if is_word(c) => (Kind::Word, rest.find(|c| !is_word(c)).unwrap_or(rest.len())),
            None => (Kind::Sign, c.len_utf8()),
        };
        tokens.push(Token { kind, text: &rest[..len], start: start + at });
        at += len;
    }
    tokens
}

/// Length of the number at the beginning of a text: `1_000`, `0x1f`, `1.5e3`.
fn number(text: &str) -> usize {
    let end = |from: usize| text[from..].find(|c| !is_word(c)).map_or(text.len(), |at| from + at);
    let whole = end(0);
    match text[whole..].strip_prefix('.') {
        Some(fraction) if fraction.starts_with(is_digit) => end(whole + 1),
        _ => whole,
    }
}

//! Words, numbers, strings and signs of a line of code, in any language.
//! It knows nothing of what they mean.

use super::place::{Place, quoted};
use crate::text::lines::is_word;

/// A piece of a line, and where it stands in the text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Token<'t> {
    pub(super) kind: Kind,
    pub(super) text: &'t str,
    pub(super) start: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Word,
    Number,
    /// With its quotes.
    String,
    Sign,
}

impl Token<'_> {
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.text == other.text
    }

    pub(super) fn is_alike(&self, other: &Self) -> bool {
        self.kind == other.kind
            && match self.kind {
                Kind::Word => without_numbers(self.text).eq(without_numbers(other.text)),
                Kind::Number | Kind::String => true,
                Kind::Sign => self.text == other.text,
            }
    }

    /// Where it ends in the text.
    pub(super) fn end(&self) -> usize {
        self.start + self.text.len()
    }

    /// The last number that it says.
    pub(super) fn value(&self) -> Option<u32> {
        let head = self.text.trim_end_matches(|c| !is_digit(c));
        let digits = &head[head.trim_end_matches(is_digit).len()..];
        digits.parse().ok()
    }

    /// Whether it is a string of a letter or two.
    pub(super) fn is_short(&self) -> bool {
        self.kind == Kind::String && self.text.chars().count() <= 4
    }
}

pub(super) fn is_digit(c: char) -> bool {
    c.is_ascii_digit()
}

/// The text with a `0` for each row of digits.
pub(super) fn without_numbers(text: &str) -> impl Iterator<Item = char> {
    let mut digit = false;
    text.chars().filter_map(move |c| {
        let again = digit && is_digit(c);
        digit = is_digit(c);
        (!again).then_some(if digit { '0' } else { c })
    })
}

/// Reads a line that begins at `start` in the text. A quote that is not closed yet is a sign.
pub(super) fn read<'t>(place: &Place<'_>, line: &'t str, start: usize) -> Vec<Token<'t>> {
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
            None if is_code_point(rest, line, at) => {
                (Kind::Number, rest.find(|c| !is_word(c)).unwrap_or(rest.len()))
            }
            None if is_digit(c) => (Kind::Number, number(rest)),
            None if is_word(c) => (Kind::Word, rest.find(|c| !is_word(c)).unwrap_or(rest.len())),
            None => (Kind::Sign, c.len_utf8()),
        };
        tokens.push(Token { kind, text: &rest[..len], start: start + at });
        at += len;
    }
    tokens
}

/// Whether `rest` begins with the `x0a` or `u00e4` of an escape.
fn is_code_point(rest: &str, line: &str, at: usize) -> bool {
    let hex = rest.strip_prefix(['x', 'u', 'U']).unwrap_or("");
    line[..at].ends_with('\\') && hex.starts_with(|c: char| c.is_ascii_hexdigit())
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

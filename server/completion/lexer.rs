//! Splits a line of code into words, numbers, strings and symbols, in any language.

use super::cursor::{CursorContext, quoted_len};
use crate::text::lines::is_word_char;

/// A token of a line, and its byte offset in the text.
#[derive(Debug, Clone, Copy)]
pub(super) struct CodeToken<'t> {
    pub(super) kind: CodeTokenKind,
    pub(super) text: &'t str,
    pub(super) start: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CodeTokenKind {
    Word,
    Number,
    /// With its quotes.
    String,
    Symbol,
}

impl CodeToken<'_> {
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.text == other.text
    }

    pub(super) fn is_alike(&self, other: &Self) -> bool {
        self.kind == other.kind
            && match self.kind {
                CodeTokenKind::Word => with_folded_numbers(self.text).eq(with_folded_numbers(other.text)),
                CodeTokenKind::Number | CodeTokenKind::String => true,
                CodeTokenKind::Symbol => self.text == other.text,
            }
    }

    /// Its end in the text.
    pub(super) fn end_offset(&self) -> usize {
        self.start + self.text.len()
    }

    /// The last number that it contains.
    pub(super) fn last_number(&self) -> Option<u32> {
        let head = self.text.trim_end_matches(|c| !is_digit(c));
        let digits = &head[head.trim_end_matches(is_digit).len()..];
        digits.parse().ok()
    }

    /// Whether it is a string of one or two characters.
    pub(super) fn is_short(&self) -> bool {
        self.kind == CodeTokenKind::String && self.text.chars().count() <= 4
    }
}

pub(super) fn is_digit(c: char) -> bool {
    c.is_ascii_digit()
}

/// The text with each run of digits replaced by `0`.
pub(super) fn with_folded_numbers(text: &str) -> impl Iterator<Item = char> {
    let mut digit = false;
    text.chars().filter_map(move |c| {
        let again = digit && is_digit(c);
        digit = is_digit(c);
        (!again).then_some(if digit { '0' } else { c })
    })
}

/// Lexes a line that begins at `start` in the text. A quote that is not closed yet is a symbol.
pub(super) fn lex_line<'t>(place: &CursorContext<'_>, line: &'t str, start: usize) -> Vec<CodeToken<'t>> {
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
        let string = if matches!(c, '"' | '\'' | '`') { quoted_len(after, c, rust) } else { None };
        let (kind, len) = match string {
            Some(len) => (CodeTokenKind::String, len + 2),
            None if is_escape_code(rest, line, at) => {
                (CodeTokenKind::Number, rest.find(|c| !is_word_char(c)).unwrap_or(rest.len()))
            }
            None if is_digit(c) => (CodeTokenKind::Number, number_len(rest)),
            None if is_word_char(c) => {
                (CodeTokenKind::Word, rest.find(|c| !is_word_char(c)).unwrap_or(rest.len()))
            }
            None => (CodeTokenKind::Symbol, c.len_utf8()),
        };
        tokens.push(CodeToken { kind, text: &rest[..len], start: start + at });
        at += len;
    }
    tokens
}

/// Whether `rest` begins with the `x0a` or `u00e4` of an escape.
fn is_escape_code(rest: &str, line: &str, at: usize) -> bool {
    let hex = rest.strip_prefix(['x', 'u', 'U']).unwrap_or("");
    line[..at].ends_with('\\') && hex.starts_with(|c: char| c.is_ascii_hexdigit())
}

/// Length of the number at the beginning of a text: `1_000`, `0x1f`, `1.5e3`.
fn number_len(text: &str) -> usize {
    let end = |from: usize| text[from..].find(|c| !is_word_char(c)).map_or(text.len(), |at| from + at);
    let whole = end(0);
    match text[whole..].strip_prefix('.') {
        Some(fraction) if fraction.starts_with(is_digit) => end(whole + 1),
        _ => whole,
    }
}

//! Finds the start of a second definition in the output, where the suggestion should end. Reads the first words of
//! lines, in any language.

use super::super::cursor::{CursorContext, indentation_width};
use super::opens_block_or_bracket;
use crate::text::lines::is_word_char;

/// Words that begin a definition.
const DEFINING_WORDS: &[&str] = &[
    "class",
    "def",
    "defmodule",
    "defp",
    "enum",
    "fn",
    "fun",
    "func",
    "function",
    "impl",
    "interface",
    "module",
    "namespace",
    "proc",
    "procedure",
    "struct",
    "sub",
    "trait",
];

/// Words that may precede these.
const MODIFIER_WORDS: &[&str] = &[
    "abstract",
    "async",
    "const",
    "declare",
    "default",
    "export",
    "extern",
    "final",
    "inline",
    "internal",
    "local",
    "open",
    "override",
    "private",
    "protected",
    "pub",
    "public",
    "sealed",
    "static",
    "unsafe",
    "virtual",
];

/// Words that look like a function's name before a bracket but are not.
const CONTROL_WORDS: &[&str] = &[
    "catch", "do", "elif", "else", "for", "foreach", "if", "match", "return", "switch", "try", "until",
    "using", "when", "while", "with",
];

/// The definitions of the output, fed line by line.
#[derive(Debug, Default)]
pub(super) struct DefinitionTracker {
    /// Indentation of the first one that has a body.
    first: Option<usize>,
    /// The start and the indentation of the comments and attributes that belong to the next definition.
    head: Option<(usize, usize)>,
}

impl DefinitionTracker {
    /// Reads a line, `start` bytes into the output. Returns the bytes to keep if a second definition begins on it.
    /// Not for blank lines.
    pub(super) fn find_second(
        &mut self,
        place: &CursorContext<'_>,
        line: &str,
        start: usize,
        complete: bool,
    ) -> Option<usize> {
        let (here, code) = (indentation_width(line), line.trim());
        if is_definition_lead(place, code) {
            if self.head.is_none_or(|(_, depth)| depth != here) {
                self.head = Some((start, here));
            }
            return None;
        }
        let head = self.head.take().filter(|&(_, depth)| depth == here).map_or(start, |(start, _)| start);
        if !(begins_with_defining_word(code) || complete && looks_like_function_head(code)) {
            return None;
        }
        if self.first.is_some_and(|first| here <= first) {
            return Some(head);
        }
        if complete && self.first.is_none() && opens_block_or_bracket(place, line) {
            self.first = Some(here);
        }
        None
    }
}

/// Whether a line is a comment or an attribute, which belongs to the code below.
fn is_definition_lead(place: &CursorContext<'_>, code: &str) -> bool {
    let comment = place.language.map_or("//", |it| it.line_comment);
    (!comment.is_empty() && code.starts_with(comment))
        || code.starts_with(['@', '*'])
        || code.starts_with("#[")
        || code.starts_with("/*")
}

/// Whether a line begins with a defining word that something follows.
fn begins_with_defining_word(code: &str) -> bool {
    let mut words = code.split_whitespace();
    let word = words.find(|word| !MODIFIER_WORDS.contains(&word.split('(').next().unwrap_or(word)));
    word.is_some_and(|word| DEFINING_WORDS.contains(&word)) && words.next().is_some()
}

/// Whether a line looks like the head of a function without such a word: `int f(int x) {`, `const f = (x) => {`.
fn looks_like_function_head(code: &str) -> bool {
    let Some(head) = code.strip_suffix('{').map(str::trim_end) else { return false };
    if let Some(arrow) = head.strip_suffix("=>") {
        let Some((name, value)) = arrow.split_once(" = ") else { return false };
        let value = value.trim_start_matches("async ").trim();
        let parameters = value.starts_with('(') && value.ends_with(')') || value.chars().all(is_word_char);
        return parameters && !name.contains('(');
    }
    let Some((name, _)) = head.split_once('(') else { return false };
    let first = name.split(|c| !is_word_char(c)).next().unwrap_or("");
    let plain = |c: char| {
        is_word_char(c) || matches!(c, ' ' | '*' | '&' | '<' | '>' | ':' | ',' | '[' | ']' | '~' | '#' | '$')
    };
    !name.trim().is_empty()
        && name.chars().all(plain)
        && name.ends_with(is_word_char)
        && !CONTROL_WORDS.contains(&first)
}

//! The string or comment that contains the cursor, its closer, and whether the closer is already after the cursor.
//! Reads the syntax tree if there is one, otherwise the text.

mod reader;

use std::ops::Range;

use taper_grammars::Language;
use taper_grammars::literals::{EscapeStyle, LiteralKind};

use super::Snapshot;
use super::cursor::{CursorContext, indentation_width};
use crate::syntax::scope::{Scope, TreeLiteral};
use crate::text::lines::{self, is_word_char};
use reader::{LiteralReader, OpenLiteral};

/// Maximum bytes of a literal before the cursor that are read; only the start of a longer one is.
const MAX_LITERAL_BYTES: usize = 16 << 10;
/// Maximum bytes of an opening delimiter.
const MAX_OPENING_BYTES: usize = 64;

/// The lexical context of a position in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LexicalContext {
    /// Neither a string nor a comment.
    Code,
    /// A string.
    Text,
    /// A comment.
    Comment,
}

/// Whether and where the closer of the cursor's literal is present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CloserPosition {
    /// Nowhere.
    Absent,
    /// The last *n* bytes of it, directly after the cursor.
    Partial(usize),
    /// After the cursor, with only blanks in between.
    Adjacent,
    /// Further on.
    Later,
}

/// The literal that contains the cursor, if any.
#[derive(Debug, Clone)]
pub(super) struct EnclosingLiteral {
    reader: LiteralReader,
    closer: CloserPosition,
    /// Whether only blanks are between its opening and the cursor.
    empty: bool,
}

impl EnclosingLiteral {
    /// No literal.
    pub(super) fn outside_literal(language: Option<&'static Language>) -> Self {
        Self { reader: LiteralReader::new(language), closer: CloserPosition::Absent, empty: false }
    }

    /// Reads the text before the cursor from the start of its window.
    pub(super) fn from_text(place: &CursorContext<'_>) -> Self {
        let mut reader = LiteralReader::new(place.language);
        reader.read_text(place.before);
        Self::new(reader, place)
    }

    /// The same, but a syntax tree may give the start of the literal.
    pub(super) fn at_cursor(snapshot: &Snapshot, place: &CursorContext<'_>) -> Self {
        let Some(language) = snapshot.language else { return Self::from_text(place) };
        let scope = Scope::new(&snapshot.text, language, snapshot.syntax.as_ref(), snapshot.cursor);
        let (kind, start) = match scope.enclosing_literal() {
            TreeLiteral::Unknown => return Self::from_text(place),
            TreeLiteral::Code => return Self::outside_literal(place.language),
            TreeLiteral::Text(start) => (LiteralKind::Text, start),
            TreeLiteral::Comment(start) => (LiteralKind::Comment, start),
        };
        let end = if snapshot.cursor - start > MAX_LITERAL_BYTES {
            start + MAX_OPENING_BYTES
        } else {
            snapshot.cursor
        };
        // The line break before a literal may be part of its opening: `\n=begin`.
        let break_before = start > 0 && lines::char_before(&snapshot.text, start) == Some('\n');
        let mut text = if break_before { "\n".to_owned() } else { String::new() };
        text += &lines::slice(&snapshot.text, start..end);
        let mut reader = LiteralReader::new(place.language);
        let began = reader.read_literal(kind, &text);
        let inner = if end < snapshot.cursor { "…" } else { text.get(began..).unwrap_or("") };
        Self { empty: is_blank_literal(inner), ..Self::new(reader, place) }
    }

    fn new(reader: LiteralReader, place: &CursorContext<'_>) -> Self {
        let position = reader
            .open_literal()
            .map_or(CloserPosition::Absent, |open| find_closer_position(open, &reader, place));
        let inner = reader.open_literal().and_then(|open| place.before.get(open.content_start..));
        let empty = inner.is_some_and(is_blank_literal);
        Self { reader, closer: position, empty }
    }

    /// The lexical context of the cursor.
    pub(super) fn lexical_context(&self) -> LexicalContext {
        self.reader.lexical_context()
    }

    /// Whether the closer of the literal directly follows the cursor, on its line.
    pub(super) fn is_closer_adjacent(&self) -> bool {
        self.closer == CloserPosition::Adjacent
    }

    /// Whether more than one line is expected: the editor closed a literal that may span lines and is still empty.
    pub(super) fn expects_lines(&self) -> bool {
        self.is_closer_adjacent()
            && self.empty
            && self.reader.open_literal().is_some_and(|open| open.multiline)
    }

    /// Bytes of the output before text that would close the literal a second time; `None` if there is none.
    /// `finished`: the output is complete.
    pub(super) fn len_before_closer(&self, text: &str, finished: bool) -> Option<usize> {
        if self.closer == CloserPosition::Absent {
            return None;
        }
        let Range { start, end } = self.reader.clone().read_to_closer(text)?;
        // A doubled quote does not close.
        if self.reader.open_literal()?.escape == EscapeStyle::Doubled && end == text.len() && !finished {
            return None;
        }
        Some(match self.closer {
            CloserPosition::Partial(there) => end - there,
            _ => start,
        })
    }

    /// `text` without a partial closer at its end, if the whole closer is already after the cursor.
    pub(super) fn without_partial_closer<'t>(&self, text: &'t str) -> &'t str {
        let Some(close) = self.reader.open_literal().map(|open| open.close.as_str()) else { return text };
        if self.closer != CloserPosition::Adjacent || close.len() < 2 || close.starts_with('\n') {
            return text;
        }
        let halves = (1..close.len()).rev().filter_map(|len| close.get(..len));
        halves.into_iter().find_map(|half| text.strip_suffix(half)).map_or(text, str::trim_end)
    }

    /// The lexical context of the end of `text`, once inserted at the cursor.
    pub(super) fn context_after(&self, text: &str) -> LexicalContext {
        let mut reader = self.reader.clone();
        reader.read_text(text);
        reader.lexical_context()
    }

    /// Whether `text` ends in a literal that may continue on the next line.
    pub(super) fn is_multiline_after(&self, text: &str) -> bool {
        let mut reader = self.reader.clone();
        reader.read_text(text);
        reader.open_literal().is_some_and(|open| open.multiline)
    }

    /// The lexical context at the end of each line of `text` except the last. A documentation string counts as a
    /// comment.
    pub(super) fn line_end_contexts(&self, text: &str) -> Vec<LexicalContext> {
        let mut reader = self.reader.clone();
        let mut all = Vec::new();
        for line in text.split_inclusive('\n') {
            let Some(line) = line.strip_suffix('\n') else { break };
            reader.read_text(line);
            all.push(match reader.lexical_context() {
                LexicalContext::Text if reader.is_documentation() => LexicalContext::Comment,
                inside => inside,
            });
            reader.read_text("\n");
        }
        all
    }
}

/// Whether a literal contains only the rest of its opening: `/**`.
fn is_blank_literal(inner: &str) -> bool {
    inner.trim_start_matches(['*', '!']).trim().is_empty()
}

/// The position of the closer of `open` after the cursor.
fn find_closer_position(
    open: &OpenLiteral,
    reader: &LiteralReader,
    place: &CursorContext<'_>,
) -> CloserPosition {
    let close = open.close.as_str();
    if close.is_empty() {
        return CloserPosition::Absent;
    }
    let rest = place.line_after.trim_start_matches([' ', '\t']);
    if rest.starts_with(close) {
        return CloserPosition::Adjacent;
    }
    if is_closed_later(open, reader, place) {
        return CloserPosition::Later;
    }
    // The longest end of the closer that is already there.
    let parts = (1..close.len()).filter_map(|from| close.get(from..));
    parts
        .into_iter()
        .find(|part| place.line_after.starts_with(part))
        .map_or(CloserPosition::Absent, |it| CloserPosition::Partial(it.len()))
}

/// Whether the literal is closed further on, and not by the opener of the next one.
fn is_closed_later(open: &OpenLiteral, reader: &LiteralReader, place: &CursorContext<'_>) -> bool {
    let mut later = reader.clone();
    let Some(Range { start, end }) = later.read_to_closer(place.after) else { return false };
    let (between, after) = (&place.after[..start], &place.after[end..]);
    if open.kind == LiteralKind::Comment {
        return open.nests || !between.contains(open.opening.as_str());
    }
    if !between.contains('\n') {
        // The rest of the line must read as code: otherwise the quote opens the next string.
        let line = after.split(['\n', '\r']).next().unwrap_or("");
        later.read_text(line);
        return !after.starts_with(is_word_char) && later.lexical_context() != LexicalContext::Text;
    }
    // After a string that is not closed yet comes code that is indented less than its opening line.
    let depth = indentation_width(open.line_before.as_str());
    let inner = between.split('\n').skip(1);
    let shallow = |line: &str| !line.trim().is_empty() && indentation_width(line) < depth;
    let mut inner = inner.collect::<Vec<_>>();
    inner.pop();
    !after.starts_with(is_word_char) && !inner.into_iter().any(shallow)
}

//! The string or comment that the cursor stands in, what closes it, and whether that stands behind the cursor already.
//! It knows nothing of models: it reads text, and a tree where there is one.

mod reader;

use std::ops::Range;

use taper_grammars::Language;
use taper_grammars::literals::{EscapeStyle, LiteralKind};

use super::Snapshot;
use super::cursor::{CursorContext, indentation_width};
use crate::syntax::scope::{Scope, TreeLiteral};
use crate::text::lines::{self, is_word_char};
use reader::{LiteralReader, OpenLiteral};

/// Bytes of a literal before the cursor that are read; of a longer one only the beginning is.
const MAX_LITERAL_BYTES: usize = 16 << 10;
/// Bytes that an opening delimiter may have.
const MAX_OPENING_BYTES: usize = 64;

/// What a place in a text is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LexicalContext {
    /// Neither a string nor a comment.
    Code,
    /// A string.
    Text,
    /// A comment.
    Comment,
}

/// Whether and where what closes the literal at the cursor stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CloserPosition {
    /// Nowhere.
    Absent,
    /// So many bytes of its end, directly behind the cursor.
    Partial(usize),
    /// Behind the cursor, with nothing but blanks between.
    Adjacent,
    /// Further on.
    Later,
}

/// The literal that the cursor stands in, if it stands in one.
#[derive(Debug, Clone)]
pub(super) struct EnclosingLiteral {
    reader: LiteralReader,
    closer: CloserPosition,
    /// Whether nothing but blanks stands between its opening and the cursor.
    empty: bool,
}

impl EnclosingLiteral {
    /// None.
    pub(super) fn outside_literal(language: Option<&'static Language>) -> Self {
        Self { reader: LiteralReader::new(language), closer: CloserPosition::Absent, empty: false }
    }

    /// Reads the text before a place from the beginning of its window.
    pub(super) fn from_text(place: &CursorContext<'_>) -> Self {
        let mut reader = LiteralReader::new(place.language);
        reader.read_text(place.before);
        Self::new(reader, place)
    }

    /// The same, where a tree may tell where the literal begins.
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
        // What begins a line may be part of the opening: `\n=begin`.
        let break_before = start > 0 && lines::char_before(&snapshot.text, start) == Some('\n');
        let mut text = if break_before { "\n".to_owned() } else { String::new() };
        text += &lines::slice(&snapshot.text, start..end);
        let mut reader = LiteralReader::new(place.language);
        let began = reader.read_literal(kind, &text);
        let inner = if end < snapshot.cursor { "…" } else { text.get(began..).unwrap_or("") };
        Self { empty: is_blank_literal(inner), ..Self::new(reader, place) }
    }

    fn new(reader: LiteralReader, place: &CursorContext<'_>) -> Self {
        let behind = reader
            .open_literal()
            .map_or(CloserPosition::Absent, |open| find_closer_position(open, &reader, place));
        let inner = reader.open_literal().and_then(|open| place.before.get(open.content_start..));
        let empty = inner.is_some_and(is_blank_literal);
        Self { reader, closer: behind, empty }
    }

    /// What the cursor stands in.
    pub(super) fn lexical_context(&self) -> LexicalContext {
        self.reader.lexical_context()
    }

    /// Whether what closes the literal stands right behind the cursor, on its line.
    pub(super) fn is_closer_adjacent(&self) -> bool {
        self.closer == CloserPosition::Adjacent
    }

    /// Whether more than one line is asked for: the editor closed a literal that may have several and has no text yet.
    pub(super) fn expects_lines(&self) -> bool {
        self.is_closer_adjacent()
            && self.empty
            && self.reader.open_literal().is_some_and(|open| open.multiline)
    }

    /// How much of an answer stands before what would close the literal a second time; `None` if it does not. `finished`
    /// says that no more comes.
    pub(super) fn len_before_closer(&self, text: &str, finished: bool) -> Option<usize> {
        if self.closer == CloserPosition::Absent {
            return None;
        }
        let Range { start, end } = self.reader.clone().read_to_closer(text)?;
        // A quote that is followed by another one does not close.
        if self.reader.open_literal()?.escape == EscapeStyle::Doubled && end == text.len() && !finished {
            return None;
        }
        Some(match self.closer {
            CloserPosition::Partial(there) => end - there,
            _ => start,
        })
    }

    /// `text` without the beginning of what closes the literal at its end, where the whole stands behind the cursor.
    pub(super) fn without_partial_closer<'t>(&self, text: &'t str) -> &'t str {
        let Some(close) = self.reader.open_literal().map(|open| open.close.as_str()) else { return text };
        if self.closer != CloserPosition::Adjacent || close.len() < 2 || close.starts_with('\n') {
            return text;
        }
        let halves = (1..close.len()).rev().filter_map(|len| close.get(..len));
        halves.into_iter().find_map(|half| text.strip_suffix(half)).map_or(text, str::trim_end)
    }

    /// What the end of `text` is part of, once it stands at the cursor.
    pub(super) fn context_after(&self, text: &str) -> LexicalContext {
        let mut reader = self.reader.clone();
        reader.read_text(text);
        reader.lexical_context()
    }

    /// Whether the end of `text` is part of a literal that may go on in the next line.
    pub(super) fn is_multiline_after(&self, text: &str) -> bool {
        let mut reader = self.reader.clone();
        reader.read_text(text);
        reader.open_literal().is_some_and(|open| open.multiline)
    }

    /// For each line of `text` that another one follows, what its end is part of; a documentation string is a comment.
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

/// Whether a literal has nothing yet but the rest of its opening: `/**`.
fn is_blank_literal(inner: &str) -> bool {
    inner.trim_start_matches(['*', '!']).trim().is_empty()
}

/// Where what closes `open` stands behind a place.
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
    // The longest end of it that stands there.
    let parts = (1..close.len()).filter_map(|from| close.get(from..));
    parts
        .into_iter()
        .find(|part| place.line_after.starts_with(part))
        .map_or(CloserPosition::Absent, |it| CloserPosition::Partial(it.len()))
}

/// Whether the literal is closed further on, and not by what opens the next one.
fn is_closed_later(open: &OpenLiteral, reader: &LiteralReader, place: &CursorContext<'_>) -> bool {
    let mut later = reader.clone();
    let Some(Range { start, end }) = later.read_to_closer(place.after) else { return false };
    let (between, after) = (&place.after[..start], &place.after[end..]);
    if open.kind == LiteralKind::Comment {
        return open.nests || !between.contains(open.opening.as_str());
    }
    if !between.contains('\n') {
        // What follows on the line must be as good as code: else the quote opens the next string.
        let line = after.split(['\n', '\r']).next().unwrap_or("");
        later.read_text(line);
        return !after.starts_with(is_word_char) && later.lexical_context() != LexicalContext::Text;
    }
    // Behind a string that is still to be closed comes code that stands less deep than its opening line.
    let depth = indentation_width(open.line_before.as_str());
    let inner = between.split('\n').skip(1);
    let shallow = |line: &str| !line.trim().is_empty() && indentation_width(line) < depth;
    let mut inner = inner.collect::<Vec<_>>();
    inner.pop();
    !after.starts_with(is_word_char) && !inner.into_iter().any(shallow)
}

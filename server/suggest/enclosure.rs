//! The string or comment that the cursor stands in, what closes it, and whether that stands behind the cursor already.
//! It knows nothing of models: it reads text, and a tree where there is one.

mod reader;

use std::ops::Range;

use taper_grammars::Language;
use taper_grammars::literals::{Escape, Kind};

use super::Snapshot;
use super::place::{Place, indentation};
use crate::syntax::scope::{Scope, Within};
use crate::text::lines::{self, is_word};
use reader::{Open, Reader};

/// Bytes of a literal before the cursor that are read; of a longer one only the beginning is.
const LONGEST: usize = 16 << 10;
/// Bytes that an opening delimiter may have.
const OPENING: usize = 64;

/// What a place in a text is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Inside {
    /// Neither a string nor a comment.
    Code,
    /// A string.
    Text,
    /// A comment.
    Comment,
}

/// Whether and where what closes the literal at the cursor stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Behind {
    /// Nowhere.
    No,
    /// So many bytes of its end, directly behind the cursor.
    Part(usize),
    /// Behind the cursor, with nothing but blanks between.
    Next,
    /// Further on.
    Later,
}

/// The literal that the cursor stands in, if it stands in one.
#[derive(Debug, Clone)]
pub(super) struct Enclosure {
    reader: Reader,
    behind: Behind,
    /// Whether nothing but blanks stands between its opening and the cursor.
    empty: bool,
}

impl Enclosure {
    /// None.
    pub(super) fn none(language: Option<&'static Language>) -> Self {
        Self { reader: Reader::new(language), behind: Behind::No, empty: false }
    }

    /// Reads the text before a place from the beginning of its window.
    pub(super) fn of_text(place: &Place<'_>) -> Self {
        let mut reader = Reader::new(place.language);
        reader.read(place.before);
        Self::new(reader, place)
    }

    /// The same, where a tree may tell where the literal begins.
    pub(super) fn of(snapshot: &Snapshot, place: &Place<'_>) -> Self {
        let Some(language) = snapshot.language else { return Self::of_text(place) };
        let scope = Scope::new(&snapshot.text, language, snapshot.syntax.as_ref(), snapshot.cursor);
        let (kind, start) = match scope.literal() {
            Within::Unknown => return Self::of_text(place),
            Within::Code => return Self::none(place.language),
            Within::Text(start) => (Kind::Text, start),
            Within::Comment(start) => (Kind::Comment, start),
        };
        let end = if snapshot.cursor - start > LONGEST { start + OPENING } else { snapshot.cursor };
        // What begins a line may be part of the opening: `\n=begin`.
        let break_before = start > 0 && lines::char_before(&snapshot.text, start) == Some('\n');
        let mut text = if break_before { "\n".to_owned() } else { String::new() };
        text += &lines::slice(&snapshot.text, start..end);
        let mut reader = Reader::new(place.language);
        let began = reader.read_literal(kind, &text);
        let inner = if end < snapshot.cursor { "…" } else { text.get(began..).unwrap_or("") };
        Self { empty: is_empty(inner), ..Self::new(reader, place) }
    }

    fn new(reader: Reader, place: &Place<'_>) -> Self {
        let behind = reader.open().map_or(Behind::No, |open| behind(open, &reader, place));
        let inner = reader.open().and_then(|open| place.before.get(open.inner..));
        let empty = inner.is_some_and(is_empty);
        Self { reader, behind, empty }
    }

    /// What the cursor stands in.
    pub(super) fn inside(&self) -> Inside {
        self.reader.inside()
    }

    /// Whether what closes the literal stands right behind the cursor, on its line.
    pub(super) fn is_closed_next(&self) -> bool {
        self.behind == Behind::Next
    }

    /// Whether more than one line is asked for: the editor closed a literal that may have several and has no text yet.
    pub(super) fn asks_for_lines(&self) -> bool {
        self.is_closed_next() && self.empty && self.reader.open().is_some_and(|open| open.lines)
    }

    /// How much of an answer stands before what would close the literal a second time; `None` if it does not. `finished`
    /// says that no more comes.
    pub(super) fn keep(&self, text: &str, finished: bool) -> Option<usize> {
        if self.behind == Behind::No {
            return None;
        }
        let Range { start, end } = self.reader.clone().closing(text)?;
        // A quote that is followed by another one does not close.
        if self.reader.open()?.escape == Escape::Doubled && end == text.len() && !finished {
            return None;
        }
        Some(match self.behind {
            Behind::Part(there) => end - there,
            _ => start,
        })
    }

    /// `text` without the beginning of what closes the literal at its end, where the whole stands behind the cursor.
    pub(super) fn without_half_closing<'t>(&self, text: &'t str) -> &'t str {
        let Some(close) = self.reader.open().map(|open| open.close.as_str()) else { return text };
        if self.behind != Behind::Next || close.len() < 2 || close.starts_with('\n') {
            return text;
        }
        let halves = (1..close.len()).rev().filter_map(|len| close.get(..len));
        halves.into_iter().find_map(|half| text.strip_suffix(half)).map_or(text, str::trim_end)
    }

    /// What the end of `text` is part of, once it stands at the cursor.
    pub(super) fn after(&self, text: &str) -> Inside {
        let mut reader = self.reader.clone();
        reader.read(text);
        reader.inside()
    }

    /// Whether the end of `text` is part of a literal that may go on in the next line.
    pub(super) fn is_long_after(&self, text: &str) -> bool {
        let mut reader = self.reader.clone();
        reader.read(text);
        reader.open().is_some_and(|open| open.lines)
    }

    /// For each line of `text` that another one follows, what its end is part of; a documentation string is a comment.
    pub(super) fn line_ends(&self, text: &str) -> Vec<Inside> {
        let mut reader = self.reader.clone();
        let mut all = Vec::new();
        for line in text.split_inclusive('\n') {
            let Some(line) = line.strip_suffix('\n') else { break };
            reader.read(line);
            all.push(match reader.inside() {
                Inside::Text if reader.is_documentation() => Inside::Comment,
                inside => inside,
            });
            reader.read("\n");
        }
        all
    }
}

/// Whether a literal has nothing yet but the rest of its opening: `/**`.
fn is_empty(inner: &str) -> bool {
    inner.trim_start_matches(['*', '!']).trim().is_empty()
}

/// Where what closes `open` stands behind a place.
fn behind(open: &Open, reader: &Reader, place: &Place<'_>) -> Behind {
    let close = open.close.as_str();
    if close.is_empty() {
        return Behind::No;
    }
    let rest = place.line_after.trim_start_matches([' ', '\t']);
    if rest.starts_with(close) {
        return Behind::Next;
    }
    if is_closed_later(open, reader, place) {
        return Behind::Later;
    }
    // The longest end of it that stands there.
    let parts = (1..close.len()).filter_map(|from| close.get(from..));
    parts
        .into_iter()
        .find(|part| place.line_after.starts_with(part))
        .map_or(Behind::No, |it| Behind::Part(it.len()))
}

/// Whether the literal is closed further on, and not by what opens the next one.
fn is_closed_later(open: &Open, reader: &Reader, place: &Place<'_>) -> bool {
    let mut later = reader.clone();
    let Some(Range { start, end }) = later.closing(place.after) else { return false };
    let (between, after) = (&place.after[..start], &place.after[end..]);
    if open.kind == Kind::Comment {
        return open.nests || !between.contains(open.opening.as_str());
    }
    if !between.contains('\n') {
        // What follows on the line must be as good as code: else the quote opens the next string.
        let line = after.split(['\n', '\r']).next().unwrap_or("");
        later.read(line);
        return !after.starts_with(is_word) && later.inside() != Inside::Text;
    }
    // Behind a string that is still to be closed comes code that stands less deep than its opening line.
    let depth = indentation(open.line.as_str());
    let inner = between.split('\n').skip(1);
    let shallow = |line: &str| !line.trim().is_empty() && indentation(line) < depth;
    let mut inner = inner.collect::<Vec<_>>();
    inner.pop();
    !after.starts_with(is_word) && !inner.into_iter().any(shallow)
}

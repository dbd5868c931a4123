//! One open document: its text, its tree, its version, and whether it is still in sync with the editor.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use taper_grammars::Language;
use tracing::debug;

use crate::prompt::BYTES_PER_TOKEN;
use crate::retrieval::excluded_files::ExclusionReason;
use crate::retrieval::{Index, Query, Snippet};
use crate::session::workspace_index::DocumentLocation;
use crate::syntax::{RegionSize, Syntax};
use crate::text::{Edit, Encoding, Position, Rope, position};
use crate::usage::outcome::ShownSuggestion;

/// Time limit of a full parse. In tests no tree depends on how busy the machine is.
const PARSE_LIMIT: Duration = Duration::from_millis(if cfg!(test) { 60_000 } else { 100 });
/// Time limit of reparsing a tree: a small part of a response's budget.
const REPARSE_LIMIT: Duration = Duration::from_millis(if cfg!(test) { 60_000 } else { 20 });
/// The [effort](Syntax::parse_effort) of a reparse beyond which less of the text is parsed from then on: about a
/// millisecond. Most code takes a tenth of it; a list of numbers, one per line, takes more.
const MAX_REPARSE_EFFORT: usize = 30;

/// Snippets are searched again when the cursor has moved by this many lines.
const SNIPPET_REFRESH_LINES: usize = 24;

/// A document as the editor opens it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenedDocument {
    /// The document, as the editor names it.
    pub uri: String,
    /// The path that the model is shown: relative to the workspace, with `/`.
    pub path: String,
    /// The workspace's folder, if the document is a file in one.
    pub root: Option<PathBuf>,
    /// The file on this machine, if the document is one.
    pub file: Option<PathBuf>,
    /// The language, as the editor names it.
    pub language_id: String,
    /// The version, if the client sends one.
    pub version: Option<i64>,
    /// The whole text.
    pub text: String,
}

/// One change of a document. Positions refer to the text that the change before it left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextChange {
    /// The replaced range; `None`: everything.
    pub range: Option<Range<Position>>,
    /// The new text of the range.
    pub text: String,
}

/// The snippets of other files for a document.
#[derive(Debug, Default)]
struct FoundSnippets {
    /// The line, the id of the index and the number of tokens they were found for. The index itself is not kept: it
    /// covers a whole project.
    at: Option<(usize, u64, usize)>,
    snippets: Arc<[Snippet]>,
    /// The snippets found before: prompts with them may still be in the engine's cache.
    before: Arc<[Snippet]>,
}

/// An open document.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) path: String,
    pub(crate) language: Option<&'static Language>,
    /// The language as the editor names it: `disabled-languages` is compared with it and with taper's own name.
    pub(crate) language_id: String,
    pub(crate) text: Rope,
    syntax: Option<Syntax>,
    /// Size of the region that is parsed around the cursor.
    region_size: RegionSize,
    /// A position where even a small region was not parsed in time: not tried again near it.
    parse_failed_at: Option<usize>,
    pub(crate) version: Option<i64>,
    /// Why the text can no longer be trusted; `None` while it can.
    lost: Option<&'static str>,
    pub(crate) root: Option<PathBuf>,
    /// The file on this machine, if the document is one.
    pub(crate) file: Option<PathBuf>,
    /// Why its text is not shared with other documents, and nothing is suggested in it automatically.
    pub(crate) excluded: Option<ExclusionReason>,
    /// The text that is shared with requests in other documents.
    shared_text: Option<Rope>,
    /// The snippets of other files that were found last.
    found: FoundSnippets,
    /// When it was opened or requested last, by the session's counter.
    pub(crate) last_used: u64,
    /// End of the last edit, if it typed something and no request followed.
    pub(crate) last_typed_end: Option<usize>,
}

impl Document {
    pub(crate) fn open(opening: OpenedDocument) -> Self {
        let OpenedDocument { uri: _, path, root, file, language_id, version, text } = opening;
        // The cells of a notebook are not in the language of the notebook's file, which is JSON.
        let is_cell = path.ends_with(".ipynb") && !language_id.is_empty();
        let by_path = || taper_grammars::by_path(std::path::Path::new(&path)).filter(|_| !is_cell);
        let language = taper_grammars::by_id(&language_id).or_else(by_path);
        let text = Rope::from(text);
        let region_size = RegionSize::DEFAULT;
        let mut document = Self {
            path,
            language,
            language_id,
            text,
            syntax: None,
            region_size,
            parse_failed_at: None,
            version,
            lost: None,
            root,
            file,
            excluded: None,
            shared_text: None,
            found: FoundSnippets::default(),
            last_used: 0,
            last_typed_end: None,
        };
        // Where the cursor is in a long text is not known before the first edit.
        if document.text.len_bytes() <= region_size.whole_limit {
            document.parse(0);
        }
        document
    }

    /// The tree around a position, if it is up to date.
    pub(crate) fn syntax(&mut self, place: usize) -> Option<&Syntax> {
        if !self.syntax.as_ref().is_some_and(|syntax| syntax.covers(&self.text, place, self.region_size)) {
            self.parse(place);
        }
        self.syntax.as_ref().filter(|syntax| !syntax.is_stale())
    }

    /// Why nothing is suggested until the full text arrives.
    pub(crate) fn lost_reason(&self) -> Option<&'static str> {
        self.lost
    }

    /// Marks the text as not to be trusted.
    pub(crate) fn mark_lost(&mut self, why: &'static str) {
        self.lost = Some(why);
        self.syntax = None;
    }

    /// Drops what can be rebuilt from the text.
    pub(crate) fn release_tree(&mut self) {
        self.syntax = None;
    }

    /// Applies `changes` in order, and passes each to the `shown` suggestion.
    ///
    /// A version that decreases means that a change was lost or arrived twice: from then on the text is not trusted
    /// until a change replaces it completely. Editors that always send the same version, or none, are trusted.
    pub(crate) fn apply_changes(
        &mut self,
        version: Option<i64>,
        changes: Vec<TextChange>,
        encoding: Encoding,
        mut shown: Option<&mut ShownSuggestion>,
    ) {
        // Changes before a full text need not be applied, in sync or not.
        let whole = changes.iter().rposition(|change| change.range.is_none());
        let backwards = matches!((self.version, version), (Some(before), Some(now)) if now < before);
        if backwards && whole.is_none() {
            self.mark_lost("a version went backwards");
            return;
        }
        self.version = version.or(self.version);
        if self.lost.is_some() && whole.is_none() {
            return;
        }
        let mut place = None;
        for change in changes.into_iter().skip(whole.unwrap_or(0)) {
            let edit = match change.range {
                None => {
                    self.lost = None;
                    Edit::diff(&self.text, &change.text)
                }
                // A range that ends before it begins is repaired rather than refused, as in other servers.
                Some(Range { start, end }) => {
                    Edit { range: position::byte_range(&self.text, start, end, encoding), text: change.text }
                }
            };
            place = Some(edit.new_end());
            self.last_typed_end = Some(edit.new_end()).filter(|_| !edit.text.is_empty());
            let before = shown.is_some().then(|| self.text.clone());
            self.apply_edit(&edit);
            if let (Some(shown), Some(before)) = (&mut shown, before) {
                shown.apply_edit(&before, &edit, &self.text);
            }
        }
        if let Some(place) = place {
            self.update_tree(place);
        }
    }

    /// Its location for the workspace index.
    pub(crate) fn location(&self) -> DocumentLocation {
        DocumentLocation { root: self.root.clone(), path: self.path.clone() }
    }

    /// Moves the document to another location in the workspace; false if it has this one.
    pub(crate) fn relocate(&mut self, location: DocumentLocation) -> bool {
        let is_new = self.location() != location;
        (self.root, self.path) = (location.root, location.path);
        // Its text was not shared for the new location.
        self.shared_text.take_if(|_| is_new);
        is_new
    }

    /// The text, if it was not shared with other documents yet.
    pub(crate) fn take_unshared_text(&mut self) -> Option<Rope> {
        let is_new =
            self.lost.is_none() && self.shared_text.as_ref().is_none_or(|seen| !seen.is_instance(&self.text));
        is_new.then(|| self.shared_text.insert(self.text.clone()).clone())
    }

    /// The snippets of other files for a cursor, and those found before. Both stay the same while the user types
    /// there, because every change makes the model prefill the prompt again.
    pub(crate) fn snippets(
        &mut self,
        cursor: usize,
        index: &Index,
        tokens: usize,
    ) -> (Arc<[Snippet]>, Arc<[Snippet]>) {
        let Some(language) = self.language else { return Default::default() };
        let line = self.text.byte_to_line(cursor);
        let is_current = |(at, known, most): &(usize, u64, usize)| {
            at.abs_diff(line) < SNIPPET_REFRESH_LINES && *known == index.index_id() && *most == tokens
        };
        if !self.found.at.as_ref().is_some_and(is_current) {
            let place = Query { text: &self.text, cursor, path: &self.path, language };
            let now = index.find_snippets(place, tokens * BYTES_PER_TOKEN);
            debug!(
                line,
                snippets = now.len(),
                files = index.files().len(),
                "searched other files for snippets"
            );
            self.found.at = Some((line, index.index_id(), tokens));
            if now[..] != self.found.snippets[..] {
                self.found.before = std::mem::replace(&mut self.found.snippets, now.into());
            }
        }
        (Arc::clone(&self.found.snippets), Arc::clone(&self.found.before))
    }

    fn apply_edit(&mut self, edit: &Edit) {
        if let Some(syntax) = &mut self.syntax {
            syntax.apply_edit(edit);
        }
        if edit.apply(&mut self.text).is_err() {
            self.mark_lost("an edit did not fit the text");
        }
    }

    /// Reparses the text around a position, or leaves that for the next time.
    fn update_tree(&mut self, place: usize) {
        if self.lost.is_some() {
            return;
        }
        match &mut self.syntax {
            Some(syntax) if syntax.covers(&self.text, place, self.region_size) => {
                let done = syntax.reparse(&self.text, &mut deadline_after(REPARSE_LIMIT));
                if !done || syntax.parse_effort() > MAX_REPARSE_EFFORT {
                    self.region_size = self.region_size.halved().unwrap_or(self.region_size);
                }
            }
            _ => self.parse(place),
        }
    }

    /// Parses the text around a position without an old tree.
    fn parse(&mut self, place: usize) {
        self.syntax = None;
        let Some(language) = self.language.filter(|language| language.grammar.is_some()) else { return };
        if self.lost.is_some()
            || self.parse_failed_at.is_some_and(|at| at.abs_diff(place) < RegionSize::DEFAULT.whole_limit)
        {
            return;
        }
        let (mut time_is_up, mut late) = (deadline_after(PARSE_LIMIT), false);
        let mut watch = || {
            late = late || time_is_up();
            late
        };
        self.syntax = Syntax::parse_around(&self.text, language, place, self.region_size, &mut watch);
        self.parse_failed_at = None;
        if self.syntax.is_none() && late {
            match self.region_size.halved() {
                Some(less) => self.region_size = less,
                None => self.parse_failed_at = Some(place),
            }
        }
    }
}

/// Returns a function that reports when `budget` is spent.
pub(super) fn deadline_after(budget: Duration) -> impl FnMut() -> bool {
    let end = Instant::now() + budget;
    move || Instant::now() >= end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(text: &str) -> Document {
        Document::open(OpenedDocument {
            uri: "file:///a.py".into(),
            path: "a.py".into(),
            root: None,
            file: None,
            language_id: "python".into(),
            version: Some(1),
            text: text.into(),
        })
    }

    fn at(line: u32, character: u32) -> Position {
        Position { line, character }
    }

    fn change(start: Position, end: Position, text: &str) -> TextChange {
        TextChange { range: Some(start..end), text: text.into() }
    }

    #[test]
    fn changes_apply_in_order_each_to_the_text_before_it() {
        let mut document = document("ab\n");
        let changes = vec![change(at(0, 1), at(0, 1), "x\n"), change(at(1, 0), at(1, 1), "y")];
        document.apply_changes(Some(2), changes, Encoding::Utf16, None);
        assert_eq!(document.text, "ax\ny\n");
    }

    #[test]
    fn ranges_outside_of_the_text_are_clamped_and_swapped_ones_repaired() {
        let mut document = document("ab\n");
        document.apply_changes(
            Some(2),
            vec![change(at(9, 9), at(u32::MAX, u32::MAX), "c")],
            Encoding::Utf8,
            None,
        );
        assert_eq!(document.text, "ab\nc");
        document.apply_changes(Some(3), vec![change(at(0, 2), at(0, 0), "z")], Encoding::Utf8, None);
        assert_eq!(document.text, "z\nc");
        assert_eq!(document.lost_reason(), None);
    }

    #[test]
    fn a_version_going_backwards_loses_the_text_until_it_arrives_whole() {
        let mut document = document("ab\n");
        document.apply_changes(Some(5), vec![change(at(0, 0), at(0, 0), "1")], Encoding::Utf8, None);
        document.apply_changes(Some(4), vec![change(at(0, 0), at(0, 0), "2")], Encoding::Utf8, None);
        assert!(document.lost_reason().is_some());
        document.apply_changes(Some(6), vec![change(at(0, 0), at(0, 0), "3")], Encoding::Utf8, None);
        assert!(document.lost_reason().is_some());
        let whole = TextChange { range: None, text: "new".into() };
        document.apply_changes(Some(7), vec![whole, change(at(0, 3), at(0, 3), "er")], Encoding::Utf8, None);
        assert_eq!(document.lost_reason(), None);
        assert_eq!(document.text, "newer");
    }

    #[test]
    fn the_same_version_again_and_no_version_at_all_are_accepted() {
        let mut document = document("");
        document.apply_changes(Some(1), vec![change(at(0, 0), at(0, 0), "a")], Encoding::Utf8, None);
        document.apply_changes(None, vec![change(at(0, 0), at(0, 0), "b")], Encoding::Utf8, None);
        assert_eq!(document.text, "ba");
        assert_eq!(document.lost_reason(), None);
    }

    #[test]
    fn long_document_is_parsed_around_edits_and_requests() {
        let function = "def f(x):\n    return x\n\n\n";
        let mut document = document(&function.repeat(20_000));
        let line = |n: u32| at(n * 4 + 1, 4);
        let broken = |document: &mut Document, place: usize| {
            document.syntax(place).map(|syntax| syntax.tree.root_node().has_error())
        };
        for (n, version) in [(10_000, 2), (10_001, 3), (3, 4), (19_999, 5)] {
            document.apply_changes(
                Some(version),
                vec![change(line(n), line(n), "x = 1; ")],
                Encoding::Utf8,
                None,
            );
            let place = position::byte_offset(&document.text, line(n), Encoding::Utf8);
            assert_eq!(broken(&mut document, place), Some(false), "{n}");
        }
        let (middle, len) = (document.text.len_bytes() / 2, document.text.len_bytes());
        for place in [0, middle, len] {
            assert_eq!(broken(&mut document, place), Some(false), "{place}");
        }
        // The whole text is sent again, with an error near the middle.
        let mut text = document.text.to_string();
        text.insert(middle, '(');
        document.apply_changes(
            Some(6),
            vec![TextChange { range: None, text: text.clone() }],
            Encoding::Utf8,
            None,
        );
        assert_eq!(document.text, text);
        assert_eq!(broken(&mut document, middle), Some(true));
        assert_eq!(broken(&mut document, 0), Some(false), "the error is outside of the region");
        // Ten thousand lines are pasted and deleted.
        let paste = function.repeat(2_500);
        document.apply_changes(Some(7), vec![change(at(0, 0), at(0, 0), &paste)], Encoding::Utf8, None);
        assert_eq!(broken(&mut document, paste.len()), Some(false));
        document.apply_changes(Some(8), vec![change(at(0, 0), at(10_000, 0), "")], Encoding::Utf8, None);
        assert_eq!(document.text, text);
        assert_eq!(broken(&mut document, 0), Some(false));
    }
}

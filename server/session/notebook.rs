//! Notebooks: the order of their cells, and the text that precedes a cell as if the notebook were one file.
//!
//! The preceding text has the earlier code cells in the same language. Markdown and other languages are left out. So
//! are later cells: they are often older attempts, and a prompt that ends with the cell does not change when they do.

use std::collections::HashMap;

use crate::completion::Snapshot;
use crate::completion::cache::CompletionCache;
use crate::session::{Document, SessionState};
use crate::text::{Rope, lines};

/// Bytes of preceding text, the nearest; more than fit into a prompt.
const MAX_PRECEDING_BYTES: usize = 512 << 10;

/// A cell of a notebook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotebookCell {
    /// Its document.
    pub uri: String,
    /// Whether it holds code rather than Markdown.
    pub is_code: bool,
}

/// A change to the cells of a notebook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotebookChange {
    /// The notebook was opened with these cells.
    Opened(Vec<NotebookCell>),
    /// Some cells were replaced.
    Spliced {
        /// Index of the first replaced cell.
        at: usize,
        /// Number of removed cells.
        deleted: usize,
        /// Inserted cells.
        cells: Vec<NotebookCell>,
    },
    /// The kinds of cells changed.
    Kinds(Vec<NotebookCell>),
    /// A document is a cell of this notebook. Only its rank among the cells is known.
    Joined {
        /// The document.
        cell: String,
        /// Cells are sorted by rank.
        rank: String,
    },
    /// The notebook was closed, or the order of its cells was lost.
    Closed,
}

/// One notebook.
#[derive(Debug, Default)]
struct NotebookCells {
    cells: Vec<NotebookCell>,
    /// The ranks of the cells, if they joined one by one.
    ranks: Vec<String>,
}

/// All notebooks.
#[derive(Debug, Default)]
pub(super) struct Notebooks {
    all: HashMap<String, NotebookCells>,
    /// The preceding text of the last requested cell.
    joined: Option<(String, Option<Rope>)>,
}

impl Notebooks {
    /// Applies a change; returns the cells whose preceding text may differ.
    fn change(&mut self, uri: &str, change: NotebookChange) -> Vec<String> {
        self.joined = None;
        let mut concerned = match &change {
            NotebookChange::Joined { .. } => Vec::new(),
            _ => self.cells(uri),
        };
        match change {
            NotebookChange::Opened(cells) => {
                // A cell belongs to one notebook.
                cells.iter().for_each(|cell| self.detach_cell(&cell.uri));
                self.all.insert(uri.to_owned(), NotebookCells { cells, ranks: Vec::new() });
            }
            NotebookChange::Spliced { at, deleted, cells: new } => {
                new.iter().for_each(|cell| self.detach_from_others(&cell.uri, uri));
                let notebook = self.all.entry(uri.to_owned()).or_default();
                notebook.ranks.clear();
                let cells = &mut notebook.cells;
                let at = at.min(cells.len());
                let end = at.saturating_add(deleted).min(cells.len());
                cells.splice(at..end, new);
            }
            NotebookChange::Kinds(kinds) => {
                for cell in self.all.get_mut(uri).into_iter().flat_map(|it| &mut it.cells) {
                    if let Some(new) = kinds.iter().find(|kind| kind.uri == cell.uri) {
                        cell.is_code = new.is_code;
                    }
                }
            }
            NotebookChange::Joined { cell, rank } => {
                self.detach_cell(&cell);
                let NotebookCells { cells, ranks } = self.all.entry(uri.to_owned()).or_default();
                let at = ranks.partition_point(|it| *it < rank).min(cells.len());
                ranks.insert(at.min(ranks.len()), rank);
                cells.insert(at, NotebookCell { uri: cell, is_code: true });
                return cells[at..].iter().map(|cell| cell.uri.clone()).collect();
            }
            NotebookChange::Closed => {
                self.all.remove(uri);
            }
        }
        concerned.extend(self.cells(uri));
        concerned
    }

    fn cells(&self, uri: &str) -> Vec<String> {
        self.all.get(uri).into_iter().flat_map(|it| &it.cells).map(|cell| cell.uri.clone()).collect()
    }

    /// Removes a closed document, if it had joined by itself.
    pub(super) fn remove_cell(&mut self, cell: &str) {
        if self.all.values().any(|it| !it.ranks.is_empty() && it.cells.iter().any(|it| it.uri == cell)) {
            self.detach_cell(cell);
        }
    }

    fn detach_cell(&mut self, cell: &str) {
        self.detach_from_others(cell, "");
    }

    /// Removes a cell from all notebooks but `stays`.
    fn detach_from_others(&mut self, cell: &str, stays: &str) {
        for (_, NotebookCells { cells, ranks }) in self.all.iter_mut().filter(|(uri, _)| *uri != stays) {
            if let Some(at) = cells.iter().position(|it| it.uri == cell) {
                cells.remove(at);
                if at < ranks.len() {
                    ranks.remove(at);
                }
            }
        }
        self.all.retain(|uri, it| uri == stays || !it.cells.is_empty());
    }

    /// The cells after a cell; empty for other documents.
    fn cells_after(&self, cell: &str) -> Vec<String> {
        let after = self.all.values().find_map(|it| {
            let at = it.cells.iter().position(|it| it.uri == cell)?;
            Some(&it.cells[at + 1..])
        });
        after.into_iter().flatten().map(|it| it.uri.clone()).collect()
    }

    /// The text that precedes a cell; `None` if there is none.
    pub(super) fn preceding_text(
        &mut self,
        uri: &str,
        documents: &HashMap<String, (Document, CompletionCache)>,
    ) -> Option<Rope> {
        if self.all.is_empty() {
            return None;
        }
        if let Some((_, before)) = self.joined.as_ref().filter(|(cell, _)| cell == uri) {
            return before.clone();
        }
        let before = self.join_cells(uri, documents);
        self.joined = Some((uri.to_owned(), before.clone()));
        before
    }

    fn join_cells(
        &self,
        uri: &str,
        documents: &HashMap<String, (Document, CompletionCache)>,
    ) -> Option<Rope> {
        let is_it = |cell: &NotebookCell| cell.uri == uri;
        let cells = self.all.values().map(|it| &it.cells).find(|cells| cells.iter().any(is_it))?;
        let (requested, _) = documents.get(uri)?;
        let mut left = MAX_PRECEDING_BYTES;
        let mut before = Vec::new();
        for cell in cells[..cells.iter().position(is_it)?].iter().rev().filter(|it| it.is_code) {
            let Some((document, _)) = documents.get(&cell.uri) else { continue };
            let same = match (requested.language, document.language) {
                (None, None) => requested.language_id == document.language_id,
                (a, b) => a.map(|it| it.name) == b.map(|it| it.name),
            };
            let text = &document.text;
            if !same || document.lost_reason().is_some() || text.chars().all(char::is_whitespace) {
                continue;
            }
            let start = text.len_bytes().saturating_sub(left);
            let start = if start == 0 { 0 } else { lines::next_line_start(text, start) };
            before.push(Rope::from(text.byte_slice(start..)));
            left = left.saturating_sub(text.len_bytes());
            if left == 0 {
                break;
            }
        }
        let mut joined = Rope::new();
        for mut text in before.into_iter().rev() {
            if !lines::char_before(&text, text.len_bytes()).is_some_and(|last| matches!(last, '\n' | '\r')) {
                text.insert_char(text.len_chars(), '\n');
            }
            joined.append(text);
        }
        Some(joined).filter(|it| it.len_bytes() > 0)
    }
}

impl SessionState {
    /// Handles a change to a notebook's cells.
    pub(super) fn notebook_changed(&mut self, uri: &str, change: NotebookChange) {
        for cell in self.notebooks.change(uri, change) {
            self.clear_caches_after(&cell);
        }
    }

    /// Invalidates what depends on a document that was opened, changed or closed: it may precede other cells.
    pub(super) fn cell_changed(&mut self, uri: &str) {
        for cell in self.notebooks.cells_after(uri) {
            self.notebooks.joined.take_if(|(joined, _)| *joined == cell);
            self.clear_caches_after(&cell);
        }
    }

    /// Clears the suggestions of a cell, which were made after another text.
    fn clear_caches_after(&mut self, uri: &str) {
        if let Some((_, cache)) = self.documents.get_mut(uri) {
            cache.clear();
        }
        self.pending.drop_stale_work(uri, None);
    }

    /// Whether the text that precedes a document is still that of `snapshot`.
    pub(super) fn is_context_current(&mut self, uri: &str, snapshot: &Snapshot) -> bool {
        match (self.notebooks.preceding_text(uri, &self.documents), &snapshot.preceding) {
            (None, None) => true,
            (Some(now), Some(then)) => now.is_instance(then) || now == *then,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::OpenedDocument;

    fn cell(uri: &str) -> NotebookCell {
        NotebookCell { uri: uri.to_owned(), is_code: true }
    }

    fn documents(texts: &[(&str, &str, &str)]) -> HashMap<String, (Document, CompletionCache)> {
        let open = |&(uri, language, text): &(&str, &str, &str)| {
            let document = Document::open(OpenedDocument {
                uri: uri.to_owned(),
                path: "a.ipynb".to_owned(),
                root: None,
                file: None,
                language_id: language.to_owned(),
                version: None,
                text: text.to_owned(),
            });
            (uri.to_owned(), (document, CompletionCache::default()))
        };
        texts.iter().map(open).collect()
    }

    fn before(
        notebooks: &mut Notebooks,
        uri: &str,
        documents: &HashMap<String, (Document, CompletionCache)>,
    ) -> String {
        notebooks.preceding_text(uri, documents).map(|it| it.to_string()).unwrap_or_default()
    }

    #[test]
    fn the_cells_before_a_cell_of_its_language_are_joined_in_order() {
        let documents = documents(&[
            ("a", "python", "a = 1"),
            ("b", "markdown", "# B"),
            ("c", "python", "c = 3\n"),
            ("d", "r", "d <- 4"),
            ("e", "python", " \n"),
            ("f", "python", "f = 6"),
            ("g", "unknown", "g"),
            ("h", "other", "h"),
            ("i", "unknown", "i"),
        ]);
        let mut notebooks = Notebooks::default();
        assert_eq!(notebooks.preceding_text("a", &documents), None);
        let cells = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "not open"].map(cell);
        notebooks.change("n", NotebookChange::Opened(cells.to_vec()));
        for (uri, expected) in
            [("a", ""), ("b", ""), ("c", "a = 1\n"), ("d", ""), ("f", "a = 1\nc = 3\n"), ("i", "g\n")]
        {
            assert_eq!(before(&mut notebooks, uri, &documents), expected, "{uri}");
            // Again, from the cache.
            assert_eq!(before(&mut notebooks, uri, &documents), expected, "{uri}");
        }
        notebooks.change("n", NotebookChange::Kinds(vec![NotebookCell { is_code: false, ..cell("a") }]));
        assert_eq!(before(&mut notebooks, "f", &documents), "c = 3\n");
        assert_eq!(notebooks.change("n", NotebookChange::Closed).len(), 10);
        assert_eq!(notebooks.preceding_text("f", &documents), None);
    }

    #[test]
    fn splices_move_insert_and_delete_cells_wherever_they_are() {
        let all: Vec<String> = (0..20).map(|n| format!("c{n}")).collect();
        for seed in 0..300 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut plain: Vec<String> = Vec::new();
            let mut notebooks = Notebooks::default();
            notebooks.change("n", NotebookChange::Opened(Vec::new()));
            for _ in 0..30 {
                let at = random.usize(..=plain.len());
                let deleted = random.usize(..=3.min(plain.len() - at));
                let removed: Vec<String> = plain.drain(at..at + deleted).collect();
                let free: Vec<&String> = all.iter().filter(|it| !plain.contains(it)).collect();
                // A removed cell may come back: one that changes its language, or moves.
                let new: Vec<String> =
                    free.iter().filter(|_| random.u8(..8) == 0).map(|&it| it.clone()).collect();
                plain.splice(at..at, new.clone());
                let cells = new.iter().map(|it| cell(it)).collect();
                let concerned = notebooks.change("n", NotebookChange::Spliced { at, deleted, cells });
                assert_eq!(notebooks.cells("n"), plain, "seed {seed}");
                assert!(removed.iter().chain(&plain).all(|it| concerned.contains(it)), "seed {seed}");
            }
        }
        let mut notebooks = Notebooks::default();
        let cells = vec![cell("a")];
        notebooks.change("n", NotebookChange::Spliced { at: 7, deleted: usize::MAX, cells: cells.clone() });
        notebooks.change("m", NotebookChange::Spliced { at: usize::MAX, deleted: 9, cells });
        assert_eq!((notebooks.cells("n").len(), notebooks.cells("m")), (0, vec!["a".to_owned()]));
    }

    #[test]
    fn cells_that_join_one_by_one_stand_in_the_order_of_their_places() {
        let documents = documents(&[("a", "python", "a"), ("b", "python", "b"), ("c", "python", "c")]);
        let mut notebooks = Notebooks::default();
        let join = |notebooks: &mut Notebooks, cell: &str, rank: &str| {
            notebooks.change("n", NotebookChange::Joined { cell: cell.to_owned(), rank: rank.to_owned() })
        };
        for (cell, rank) in [("c", "X10"), ("a", "W0"), ("b", "W1"), ("a", "W0")] {
            join(&mut notebooks, cell, rank);
        }
        assert_eq!(before(&mut notebooks, "c", &documents), "a\nb\n");
        notebooks.joined = None;
        notebooks.remove_cell("a");
        assert_eq!(before(&mut notebooks, "c", &documents), "b\n");
        // An explicit order has precedence.
        notebooks.change("m", NotebookChange::Opened(["c", "b"].map(cell).to_vec()));
        assert_eq!(before(&mut notebooks, "b", &documents), "c\n");
        assert!(notebooks.cells("n").is_empty());
        notebooks.remove_cell("c");
        assert_eq!(notebooks.cells("m").len(), 2, "only the notebook removes its cells");
    }

    #[test]
    fn of_very_much_the_nearest_whole_lines_are_taken() {
        let long = "0123456789\n".repeat(MAX_PRECEDING_BYTES / 11 + 5);
        let documents = documents(&[("a", "python", "far"), ("b", "python", &long), ("c", "python", "x")]);
        let mut notebooks = Notebooks::default();
        notebooks.change("n", NotebookChange::Opened(["a", "b", "c"].map(cell).to_vec()));
        let before = before(&mut notebooks, "c", &documents);
        assert!(
            before.len() <= MAX_PRECEDING_BYTES
                && before.len() > MAX_PRECEDING_BYTES - 20
                && before.starts_with("0123456789\n")
        );
    }
}

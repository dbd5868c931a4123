//! `notebookDocument/…`: converts the messages about notebooks and their cells to session events.
//!
//! A client without these messages opens each cell as a text document. If the cell's URI names its notebook, the
//! session gets that event too.

use serde_json::Value;
use tracing::warn;

use crate::lsp::convert::TextDocumentItem;
use crate::lsp::text_change;
use crate::lsp::uri::{self, OpenDocuments, WorkspaceFolders};
use crate::session::{DocumentLocation, Event, NotebookCell, NotebookChange, OpenedDocument};

/// `NotebookCellKind.Code`.
const CODE_CELL_KIND: i64 = 2;
/// The scheme of cells in VS Code.
const CELL_SCHEME: &str = "vscode-notebook-cell:";

/// The open documents and notebooks.
#[derive(Debug, Default)]
pub(crate) struct OpenFiles {
    /// Text documents, including cells.
    pub(crate) documents: OpenDocuments,
    notebooks: OpenDocuments,
}

impl OpenFiles {
    /// The events for an opened text document.
    pub(crate) fn open_document(
        &mut self,
        document: TextDocumentItem,
        folders: &WorkspaceFolders,
    ) -> Vec<Event> {
        let cell = document.uri.get(..CELL_SCHEME.len()).filter(|it| it.eq_ignore_ascii_case(CELL_SCHEME));
        let cell = cell.and_then(|_| document.uri.split_once('#'));
        let cell = cell.map(|(notebook, rank)| (uri::normalize_uri(notebook), rank.to_owned()));
        let opened = self.open_event(document, folders);
        let mut events = Vec::new();
        if let (Some((uri, rank)), Event::Opened(OpenedDocument { uri: cell, .. })) = (cell, &opened) {
            events.push(Event::Notebook { uri, change: NotebookChange::Joined { cell: cell.clone(), rank } });
        }
        events.insert(0, opened);
        events
    }

    fn open_event(&mut self, document: TextDocumentItem, folders: &WorkspaceFolders) -> Event {
        let TextDocumentItem { uri, language_id, version, text } = document;
        let (root, path) = folders.locate_document(&uri);
        let file = uri::file_path(&uri);
        let uri = self.documents.open(uri);
        Event::Opened(OpenedDocument { uri, path, root, file, language_id, version, text })
    }

    /// The events with each document's location after the workspace's folders have changed.
    pub(crate) fn relocation_events(&self, folders: &WorkspaceFolders) -> Vec<Event> {
        let event = |uri: &str| {
            let (root, path) = folders.locate_document(uri);
            Event::Relocated { uri: uri.to_owned(), location: DocumentLocation { root, path } }
        };
        self.documents.names().map(event).collect()
    }

    /// The events for a notification about a notebook; `None` for any other notification. An invalid part costs
    /// only the order of the cells, or the text of one cell.
    pub(crate) fn notebook_events(
        &mut self,
        method: &str,
        params: &mut Value,
        folders: &WorkspaceFolders,
    ) -> Option<Vec<Event>> {
        let name = method.strip_prefix("notebookDocument/")?;
        let mut events = Vec::new();
        let Some(uri) = params.pointer("/notebookDocument/uri").and_then(Value::as_str).map(str::to_owned)
        else {
            warn!("ignored `{method}` without a notebook's URI");
            return Some(events);
        };
        match name {
            "didOpen" => {
                self.open_cells(params.get_mut("cellTextDocuments"), folders, &mut events);
                let cells = self.parse_cells(params.pointer("/notebookDocument/cells")).unwrap_or_default();
                let uri = self.notebooks.open(uri);
                events.push(Event::Notebook { uri, change: NotebookChange::Opened(cells) });
            }
            "didChange" => {
                let uri = self.notebooks.canonical_name(uri);
                if let Some(cells) = params.pointer_mut("/change/cells") {
                    self.change_notebook(&uri, cells, folders, &mut events);
                }
            }
            "didClose" => {
                let uri = self.notebooks.close(uri);
                events.push(Event::Notebook { uri, change: NotebookChange::Closed });
                self.close_cells(params.get("cellTextDocuments"), &mut events);
            }
            _ => {}
        }
        Some(events)
    }

    fn change_notebook(
        &mut self,
        uri: &str,
        cells: &mut Value,
        folders: &WorkspaceFolders,
        events: &mut Vec<Event>,
    ) {
        if let Some(structure) = cells.get_mut("structure").filter(|it| !it.is_null()) {
            // When the language of a cell changes, one message closes and opens it.
            self.close_cells(structure.get("didClose"), events);
            self.open_cells(structure.get_mut("didOpen"), folders, events);
            let change = self.splice_cells(structure.get("array")).unwrap_or_else(|| {
                warn!(uri, "invalid notebook change; its cells are now treated as separate files");
                NotebookChange::Closed
            });
            events.push(Event::Notebook { uri: uri.to_owned(), change });
        }
        if let Some(cells) = cells.get("data").and_then(|data| self.parse_cells(Some(data))) {
            events.push(Event::Notebook { uri: uri.to_owned(), change: NotebookChange::Kinds(cells) });
        }
        for change in cells.get_mut("textContent").and_then(Value::as_array_mut).into_iter().flatten() {
            let uri = change.pointer("/document/uri").and_then(Value::as_str).map(str::to_owned);
            let Some(uri) = uri.map(|uri| self.documents.canonical_name(uri)) else {
                warn!("ignored a change of a notebook cell without a URI");
                continue;
            };
            let version = change.pointer("/document/version").and_then(Value::as_i64);
            let changes = change.get_mut("changes").map(Value::take);
            events.push(match changes.and_then(text_change::parse_changes) {
                Some(changes) => Event::Edited { uri, version, changes },
                None => Event::DocumentLost { uri },
            });
        }
    }

    fn splice_cells(&self, array: Option<&Value>) -> Option<NotebookChange> {
        let array = array?;
        let number = |name: &str| usize::try_from(array.get(name)?.as_u64()?).ok();
        let cells = match array.get("cells") {
            None | Some(Value::Null) => Vec::new(),
            cells => self.parse_cells(cells)?,
        };
        Some(NotebookChange::Spliced { at: number("start")?, deleted: number("deleteCount")?, cells })
    }

    /// `None` if any cell is invalid.
    fn parse_cells(&self, cells: Option<&Value>) -> Option<Vec<NotebookCell>> {
        let read = |cell: &Value| {
            let uri = cell.get("document")?.as_str()?.to_owned();
            let is_code = cell.get("kind").and_then(Value::as_i64).is_none_or(|kind| kind == CODE_CELL_KIND);
            Some(NotebookCell { uri: self.documents.canonical_name(uri), is_code })
        };
        cells?.as_array()?.iter().map(read).collect()
    }

    fn open_cells(
        &mut self,
        documents: Option<&mut Value>,
        folders: &WorkspaceFolders,
        events: &mut Vec<Event>,
    ) {
        for document in documents.and_then(Value::as_array_mut).into_iter().flatten() {
            match TextDocumentItem::take_from(document) {
                Some(document) => events.push(self.open_event(document, folders)),
                None => warn!("ignored a notebook cell without a URI or a text"),
            }
        }
    }

    fn close_cells(&mut self, documents: Option<&Value>, events: &mut Vec<Event>) {
        for document in documents.and_then(Value::as_array).into_iter().flatten() {
            if let Some(uri) = document.get("uri").and_then(Value::as_str) {
                events.push(Event::Closed { uri: self.documents.close(uri.to_owned()) });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event_texts(open_files: &mut OpenFiles, method: &str, params: Value) -> Vec<String> {
        let events =
            open_files.notebook_events(method, &mut params.clone(), &WorkspaceFolders::default()).unwrap();
        let texts = events.into_iter().map(|event| match event {
            Event::Opened(OpenedDocument { uri, language_id, .. }) => format!("open {uri} {language_id}"),
            Event::Closed { uri } => format!("close {uri}"),
            Event::Edited { uri, changes, .. } => format!("edit {uri} {}", changes[0].text),
            Event::DocumentLost { uri } => format!("lose {uri}"),
            Event::Notebook { change, .. } => format!("{change:?}"),
            other => panic!("{other:?}"),
        });
        texts.collect()
    }

    #[test]
    fn messages_about_notebooks_are_read_in_order_and_leniently() {
        let mut open = OpenFiles::default();
        let cell = |uri: &str, kind: i64| json!({ "kind": kind, "document": uri });
        let text = |uri: &str| json!({ "uri": uri, "languageId": "python", "version": 1, "text": "x" });
        let opened = event_texts(
            &mut open,
            "notebookDocument/didOpen",
            json!({
                "notebookDocument": { "uri": "file:///a b.ipynb", "cells": [cell("a:1", 2), cell("a:2", 1)] },
                "cellTextDocuments": [text("a:1"), text("a:2"), { "uri": "a:3" }],
            }),
        );
        assert_eq!(
            opened,
            [
                "open a:1 python",
                "open a:2 python",
                "Opened([NotebookCell { uri: \"a:1\", is_code: true }, NotebookCell { uri: \"a:2\", is_code: false }])",
            ]
        );
        let change = |cells: Value| json!({ "notebookDocument": { "uri": "file:///a%20b.ipynb" }, "change": { "cells": cells } });
        let language = change(json!({
            "structure": {
                "array": { "start": 0, "deleteCount": 1, "cells": [cell("a:1", 2)] },
                "didOpen": [text("a:1")],
                "didClose": [{ "uri": "A:1" }],
            },
            "textContent": [
                { "document": { "uri": "a:2", "version": 2 }, "changes": [{ "text": "y" }] },
                { "document": { "uri": "a:2", "version": 3 }, "changes": [{}] },
                { "changes": [] },
            ],
        }));
        assert_eq!(
            event_texts(&mut open, "notebookDocument/didChange", language),
            [
                "close a:1",
                "open a:1 python",
                "Spliced { at: 0, deleted: 1, cells: [NotebookCell { uri: \"a:1\", is_code: true }] }",
                "edit a:2 y",
                "lose a:2",
            ]
        );
        let kinds = change(json!({ "data": [cell("a:2", 2)] }));
        assert_eq!(
            event_texts(&mut open, "notebookDocument/didChange", kinds),
            ["Kinds([NotebookCell { uri: \"a:2\", is_code: true }])"]
        );
        for wrong in [json!({}), json!({ "array": { "start": -1, "deleteCount": 0 } }), json!(7)] {
            let wrong = change(json!({ "structure": wrong }));
            assert_eq!(event_texts(&mut open, "notebookDocument/didChange", wrong), ["Closed"]);
        }
        for nothing in [json!({}), json!(null), json!({ "notebookDocument": { "uri": "x" } })] {
            assert_eq!(event_texts(&mut open, "notebookDocument/didChange", nothing.clone()).len(), 0);
            assert_eq!(event_texts(&mut open, "notebookDocument/didSave", nothing).len(), 0);
        }
        let closed = json!({ "notebookDocument": { "uri": "file:/a b.ipynb" }, "cellTextDocuments": [{ "uri": "a:1" }] });
        assert_eq!(event_texts(&mut open, "notebookDocument/didClose", closed), ["Closed", "close a:1"]);
        assert!(
            open.notebook_events("textDocument/didOpen", &mut Value::Null, &WorkspaceFolders::default())
                .is_none()
        );
    }

    #[test]
    fn cell_opened_as_document_names_its_notebook() {
        let mut open = OpenFiles::default();
        let mut events = |uri: &str| {
            let document = TextDocumentItem {
                uri: uri.to_owned(),
                language_id: String::new(),
                version: None,
                text: String::new(),
            };
            open.open_document(document, &WorkspaceFolders::default())
        };
        assert_eq!(events("file:///a.ipynb#W0s").len(), 1);
        let cell = events("vscode-notebook-cell:/a.ipynb#W0s%3D");
        let Event::Notebook { uri, change: NotebookChange::Joined { cell, rank } } = &cell[1] else {
            panic!()
        };
        assert_eq!(
            [uri, cell, rank],
            [
                &uri::normalize_uri("VSCODE-notebook-cell:/%61.ipynb"),
                "vscode-notebook-cell:/a.ipynb#W0s%3D",
                "W0s%3D"
            ]
        );
    }
}

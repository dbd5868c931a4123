//! The editor's changes to its documents: opened, edited, moved, closed.

use std::cmp::Reverse;

use tracing::{info, warn};

use super::{
    CompletionCache, Document, DocumentLocation, Notice, OpenedDocument, SessionState, TextChange, TraceEvent,
};
use crate::completion::IdleSetting;

/// Maximum number of documents whose trees and caches are kept: those used last.
const KEPT_DOCUMENTS: usize = 24;

impl SessionState {
    pub(super) fn open_document(&mut self, opened: OpenedDocument) {
        let uri = opened.uri.clone();
        self.pending.abandon(&uri);
        self.usage.close(&uri);
        self.use_counter += 1;
        let mut document = Document::open(opened);
        document.last_used = self.use_counter;
        self.documents.insert(uri.clone(), (document, CompletionCache::default()));
        self.update_exclusion(&uri);
        self.reload_exclusions(&uri);
        self.release_unused_documents();
        self.cell_changed(&uri);
        self.index_workspace_of(&uri);
    }

    pub(super) fn close_document(&mut self, uri: &str) {
        self.pending.abandon(uri);
        self.usage.close(uri);
        if let Some((document, _)) = self.documents.remove(uri) {
            let at = document.location();
            let is_last = !self.documents.values().any(|(other, _)| other.root == at.root);
            self.workspace.close_document(at, is_last);
        }
        self.cell_changed(uri);
        self.notebooks.remove_cell(uri);
        self.reload_exclusions(uri);
    }

    /// Handles a change that could not be understood: the text cannot be trusted from now on.
    pub(super) fn lose_document(&mut self, uri: &str) {
        if let Some((document, _)) = self.documents.get_mut(uri) {
            let reason = "a change could not be understood";
            document.mark_lost(reason);
            self.report_lost_document(uri, reason);
        }
        self.cell_changed(uri);
        self.usage.close(uri);
    }

    pub(super) fn apply_edit(&mut self, uri: &str, version: Option<i64>, changes: Vec<TextChange>) {
        let shown = self.usage.begin_edit(uri);
        let Some((document, _)) = self.documents.get_mut(uri) else {
            self.report_unknown_document(uri, "a change");
            return;
        };
        let was_lost = document.lost_reason();
        document.apply_changes(version, changes, self.encoding, shown);
        let (is_lost, text) = (document.lost_reason(), document.text.clone());
        match (was_lost, is_lost) {
            (None, Some(reason)) => self.report_lost_document(uri, reason),
            (Some(_), None) => info!(uri, "document resynchronised"),
            _ => {}
        }
        let text = is_lost.is_none().then_some(text);
        self.cell_changed(uri);
        if text.is_none() {
            self.usage.close(uri);
        } else {
            self.usage.update(uri);
        }
        // A response now would be placed by the text before the change, and editors that show whatever arrives
        // would show it in the wrong place. The work continues if it may still be the next response, typed through.
        // Popups filter by what is typed meanwhile, and Helix does not send the next request until this one is
        // answered. So a popup request is rebased onto the new cursor while the typed text may still be a prefix of
        // the result.
        for request in self.pending.follow_edit(uri, text.as_ref()) {
            self.rebase_request(&request);
        }
    }

    /// Handles a document that moved to another workspace folder, or out of all of them.
    pub(super) fn relocate_document(&mut self, uri: &str, location: DocumentLocation) {
        let Some((document, cache)) = self.documents.get_mut(uri) else { return };
        let before = document.location();
        if !document.relocate(location) {
            return;
        }
        // The suggestions were made with other files.
        cache.clear();
        let is_last = !self.documents.values().any(|(other, _)| other.root == before.root);
        self.workspace.close_document(before, is_last);
        self.update_exclusion(uri);
        self.index_workspace_of(uri);
    }

    /// Reports that a document is out of sync.
    fn report_lost_document(&mut self, uri: &str, reason: &'static str) {
        warn!(uri, reason, "document out of sync; no suggestions until its full text arrives");
        (self.notices)(Notice::Trace(TraceEvent::DocumentLost { uri: uri.to_owned(), reason }));
    }

    /// Reports that a message was about a document that is not open.
    pub(super) fn report_unknown_document(&mut self, uri: &str, message: &str) {
        warn!(uri, "{message} for a document that is not open");
        (self.notices)(Notice::Trace(TraceEvent::UnknownDocument { uri: uri.to_owned() }));
    }

    /// Called when the user works in a document: the text of the previous one is shared with it.
    pub(super) fn activate_document(&mut self, uri: &str) {
        if self.active_document.as_deref() == Some(uri) {
            return;
        }
        if let Some(before) = self.active_document.replace(uri.to_owned()) {
            self.share_text(&before);
        }
        self.release_unused_documents();
    }

    /// Releases what can be rebuilt for documents that were not used recently: editors open thousands.
    fn release_unused_documents(&mut self) {
        let mut all: Vec<(u64, &String)> =
            self.documents.iter().map(|(uri, (document, _))| (document.last_used, uri)).collect();
        if all.len() <= KEPT_DOCUMENTS {
            return;
        }
        all.sort_unstable_by_key(|&(used, _)| Reverse(used));
        let unused: Vec<String> = all.into_iter().skip(KEPT_DOCUMENTS).map(|(_, uri)| uri.clone()).collect();
        for uri in unused {
            self.usage.close(&uri);
            if let Some((document, cache)) = self.documents.get_mut(&uri) {
                document.release_tree();
                cache.clear();
            }
        }
    }

    /// Shares a document's text with requests in other documents.
    fn share_text(&mut self, uri: &str) {
        if self.snippet_tokens() == 0 {
            return;
        }
        let Some((document, _)) = self.documents.get_mut(uri) else { return };
        if document.excluded.is_some() {
            return;
        }
        if let (Some(language), Some(text)) = (document.language, document.take_unshared_text()) {
            self.workspace.update_text(document.location(), language, text);
        }
    }

    /// Indexes the code around a document that was opened.
    pub(super) fn index_workspace_of(&mut self, uri: &str) {
        self.share_text(uri);
        let reads = self.snippet_tokens() > 0
            && self.settings.suggest.idle != IdleSetting::Off
            && !self.is_excluded(uri);
        let Some((document, _)) = self.documents.get(uri).filter(|_| reads) else { return };
        let DocumentLocation { root, path } = document.location();
        if let Some(root) = root {
            self.workspace.open_document(root, path);
        }
    }

    /// Indexes the code around all documents, for which there may have been no use before.
    pub(super) fn index_all_workspaces(&mut self) {
        let open: Vec<String> = self.documents.keys().cloned().collect();
        for uri in open {
            self.index_workspace_of(&uri);
        }
    }
}

//! Excluded open documents: nothing is suggested in them automatically, and their text is not shared with other
//! documents.

use std::path::Path;

use tracing::info;

use super::explain::Explanation;
use super::{Document, SessionState};
use crate::retrieval::excluded_files::{ExclusionReason, PROJECT_IGNORE_FILE};

impl SessionState {
    /// Updates whether a document is excluded, and stops sharing it if it is.
    pub(super) fn update_exclusion(&mut self, uri: &str) {
        let Some((document, cache)) = self.documents.get_mut(uri) else { return };
        let lists = &self.settings.excluded_files;
        let on_disk = match &document.root {
            Some(root) => Some(root.join(&document.path)),
            None => document.file.clone(),
        };
        let excluded = match on_disk {
            Some(path) => lists.exclusion_reason_on_disk(document.root.as_deref(), &path),
            None => lists.exclusion_reason(Path::new(&document.path)),
        };
        if excluded == document.excluded {
            return;
        }
        document.excluded = excluded;
        if let Some(excluded) = excluded {
            info!(uri, reason = excluded.user_message(), "a document is excluded");
            cache.clear();
            let at = document.location();
            self.usage.close(uri);
            self.workspace.close_document(at, false);
        }
    }

    /// Updates all documents: the lists may have changed.
    pub(super) fn update_all_exclusions(&mut self) {
        let open: Vec<String> = self.documents.keys().cloned().collect();
        for uri in open {
            self.update_exclusion(&uri);
        }
    }

    /// Called when a document was opened, saved or closed: if it is one of a project's lists, its rules may have
    /// changed.
    pub(super) fn reload_exclusions(&mut self, uri: &str) {
        if uri.ends_with(PROJECT_IGNORE_FILE) {
            self.update_all_exclusions();
            self.workspace.set_excluded(self.settings.excluded_files.clone());
        }
    }

    /// Whether a document is excluded.
    pub(super) fn is_excluded(&self, uri: &str) -> bool {
        self.documents.get(uri).is_some_and(|(document, _)| document.excluded.is_some())
    }

    /// Explains why nothing is suggested in a document automatically; returns whether it is excluded.
    pub(super) fn explain_exclusion(&mut self, uri: &str) -> bool {
        let Some((document, excluded)) =
            self.documents.get(uri).and_then(|(document, _)| Some((document, document.excluded?)))
        else {
            return false;
        };
        self.explanations.record(explanation(document, excluded));
        true
    }
}

fn explanation(document: &Document, excluded: ExclusionReason) -> Explanation {
    let language = document.language.map_or("", |language| language.name);
    Explanation::nothing(document.path.clone(), language, excluded.user_message())
}

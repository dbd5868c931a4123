//! The first steps of a request: the cache, the generation in flight, the worker's mailbox.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Instant;

use tracing::debug;

use crate::completion::next_actions::PriorResponse;
use crate::completion::{IdleSetting, SelectedItem, Snapshot, Suggestion, Trigger};
use crate::session::document::Document;
use crate::session::explain::Explanation;
use crate::session::job::Job;
use crate::session::response::{CompletionRequest, Deadlines};
use crate::session::workspace_index::DocumentLocation;
use crate::session::{ArrivedRequest, LOAD_RETRY_DELAY, ModelState, SessionState};
use crate::text::{Position, position};

/// Maximum number of documents whose trees and caches are kept: those used last.
const KEPT_DOCUMENTS: usize = 24;

impl SessionState {
    /// A snapshot at this cursor; `None` if nothing is to be suggested there.
    fn take_snapshot(&mut self, uri: &str, cursor: Position, trigger: Trigger) -> Option<Snapshot> {
        self.use_counter += 1;
        self.activate_document(uri);
        let wanted = self.snippet_tokens();
        // Automatic requests get no snippets to be ranked.
        let Some((document, _)) = self.documents.get_mut(uri) else {
            self.report_unknown_document(uri, "a request");
            return None;
        };
        document.last_used = self.use_counter;
        let Document { language_id, language, .. } = document;
        if !self.settings.enable
            || self.settings.is_disabled(language_id, *language)
            || self.pauses.is_paused(uri, language_id, *language)
        {
            return None;
        }
        if trigger == Trigger::Automatic && document.excluded.is_some() {
            return None;
        }
        if let Some(why) = document.lost_reason() {
            debug!(uri, why, "no suggestion: document out of sync");
            return None;
        }
        let cursor = position::byte_offset(&document.text, cursor, self.encoding);
        let preceding = self.notebooks.preceding_text(uri, &self.documents);
        let (document, _) = self.documents.get_mut(uri)?;
        let index = self.indexes.get(&document.root).filter(|_| wanted > 0 && document.excluded.is_none());
        let (snippets, snippets_before) =
            index.map_or_else(Default::default, |index| document.snippets(cursor, index, wanted));
        Some(Snapshot {
            cursor,
            syntax: document.syntax(cursor).cloned(),
            text: document.text.clone(),
            language: document.language,
            path: document.path.clone(),
            preceding,
            selected: None,
            trigger,
            options: self.settings.suggest.clone(),
            snippets,
            previous_snippets: snippets_before,
        })
    }

    /// Number of tokens of other files that prompts may contain.
    fn snippet_tokens(&self) -> usize {
        if !self.settings.other_files {
            return 0;
        }
        let asked = self.settings.suggest.snippet_tokens;
        self.best_snippets.map_or(0, |best| asked.unwrap_or(best))
    }

    /// Called when the user works in a document: the text of the previous one is shared with it.
    fn activate_document(&mut self, uri: &str) {
        if self.active_document.as_deref() == Some(uri) {
            return;
        }
        if let Some(before) = self.active_document.replace(uri.to_owned()) {
            self.share_text(&before);
        }
        self.release_unused_documents();
    }

    /// Releases what can be rebuilt for documents that were not used recently: editors open thousands.
    pub(super) fn release_unused_documents(&mut self) {
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
    pub(super) fn share_text(&mut self, uri: &str) {
        if self.snippet_tokens() == 0 {
            return;
        }
        let Some((document, _)) = self.documents.get_mut(uri) else { return };
        if document.excluded.is_some() {
            return;
        }
        if let (Some(language), Some(text)) = (document.language, document.take_unshared_text()) {
            self.workspace.text(document.location(), language, text);
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
            self.workspace.near(root, path);
        }
    }

    /// Indexes the code around all documents, for which there may have been no use before.
    pub(super) fn index_all_workspaces(&mut self) {
        let open: Vec<String> = self.documents.keys().cloned().collect();
        for uri in open {
            self.index_workspace_of(&uri);
        }
    }

    /// Whether this is the first request at the end of the last typed edit.
    fn is_first_after_typing(&mut self, uri: &str, cursor: Position) -> bool {
        let Some((document, _)) = self.documents.get_mut(uri) else { return false };
        let cursor = position::byte_offset(&document.text, cursor, self.encoding);
        document.last_typed_end.take() == Some(cursor)
    }

    /// Prefills the prompt of a request at this cursor while idle.
    pub(super) fn cursor_rested(&mut self, uri: String, cursor: Position) {
        if let Some((document, _)) = self.documents.get(&uri) {
            self.usage.move_cursor(&uri, position::byte_offset(&document.text, cursor, self.encoding));
        }
        if self.generating.is_some()
            || self.model != ModelState::Ready
            || self.settings.suggest.idle == IdleSetting::Off
        {
            return;
        }
        let Some(snapshot) = self.take_snapshot(&uri, cursor, Trigger::Automatic) else { return };
        let request = Arc::new(CompletionRequest::without_client(uri, snapshot, self.encoding));
        self.send_job(Arc::clone(&request), Job::Prefetch(request, PriorResponse::Unrequested));
    }

    pub(super) fn handle_request(&mut self, asked: ArrivedRequest) {
        self.end_pending(&asked.uri, CompletionRequest::supersede);
        self.usage.update(&asked.uri);
        let ArrivedRequest { uri, position: cursor, selected, mut trigger, popup, arrived, reply } = asked;
        if self.is_first_after_typing(&uri, cursor) && popup {
            trigger = Trigger::Automatic;
        }
        if trigger == Trigger::Automatic && self.explain_exclusion(&uri) {
            return;
        }
        let Some(mut snapshot) = self.take_snapshot(&uri, cursor, trigger) else { return };
        snapshot.selected = selected.map(|(range, text)| {
            let range = position::byte_range(&snapshot.text, range.start, range.end, self.encoding);
            SelectedItem { range, text }
        });
        let Some((document, cache)) = self.documents.get_mut(&uri) else { return };
        if self.settings.statistics {
            let language = document.language.map_or(document.language_id.as_str(), |it| it.name);
            self.usage.record_request(&uri, snapshot.cursor, language);
        }
        let mut reused = match snapshot.selected {
            None => cache.get(&snapshot.text, snapshot.cursor),
            Some(_) => None,
        };
        // An explicit request wants alternatives: those that were not searched yet are searched now, if possible.
        let mut known = None;
        let mut others = Vec::new();
        if trigger == Trigger::Invoked
            && let Some(first) = &reused
        {
            match cache.alternatives(&snapshot.text, snapshot.cursor, first) {
                Some(looked_for) => others = looked_for,
                None if self.model == ModelState::Ready => known = reused.take(),
                None => {}
            }
        }
        // An explicit request is worth another try.
        let is_known_empty = reused.is_none()
            && known.is_none()
            && snapshot.selected.is_none()
            && trigger == Trigger::Automatic
            && cache.is_known_empty(&snapshot.text, snapshot.cursor);
        let early = self.refreshes && known.is_none();
        let early = early.then(|| arrived + self.settings.early_answer);
        let usual = arrived + self.settings.latency_budget;
        // If the first suggestion is known, only the alternatives are missing.
        let patient = trigger == Trigger::Invoked && known.is_none();
        let latest = if patient { usual.max(arrived + self.settings.explicit_budget) } else { usual };
        let due = Deadlines { arrived, early, usual, latest };
        // Editors repeat requests at the same cursor: work in flight is not restarted.
        if reused.is_none()
            && let Some(working) =
                self.generating.as_ref().filter(|working| working.is_same_request(&uri, &snapshot))
        {
            let working = Arc::clone(working);
            working.reopen(due, reply);
            self.usage.track_response(&working.uri, &working.response);
            self.pending.push(working);
            return;
        }
        let mut request = CompletionRequest::new(uri, snapshot, self.encoding, due, reply);
        if let Some(known) = known {
            request = request.with_known(known);
        }
        if popup {
            request = request.for_popup();
        }
        request.set_alternatives(&others);
        let request = Arc::new(request);
        self.usage.track_response(&request.uri, &request.response);
        if reused.is_some() || is_known_empty {
            self.respond_from_cache(request, reused);
            return;
        }
        match self.model {
            ModelState::Ready => {}
            ModelState::Loading => return,
            ModelState::Failed(at) => {
                if at.elapsed() >= LOAD_RETRY_DELAY {
                    self.load_model(true);
                }
                return;
            }
        }
        self.enqueue(request);
    }

    /// Responds with the cached suggestion, or with none.
    fn respond_from_cache(&mut self, request: Arc<CompletionRequest>, known: Option<Suggestion>) {
        self.explanations.record(Explanation::new(&request.snapshot, known.as_ref(), None));
        request.set_draft(known.clone());
        request.respond(known.clone());
        self.start_prefetch(request, known);
    }

    /// Passes a request to the worker, at once or after a pause in typing.
    fn enqueue(&mut self, request: Arc<CompletionRequest>) {
        self.pending.push(Arc::clone(&request));
        if self.settings.debounce.is_zero() || request.snapshot.trigger == Trigger::Invoked {
            if let Some((_, older)) = self.debouncing.take() {
                older.supersede();
            }
            self.start_generation(request);
        } else {
            let until = Instant::now() + self.settings.debounce;
            if let Some((_, older)) = self.debouncing.replace((until, request)) {
                older.supersede();
            }
        }
    }

    /// Rebases a popup request, which must fit the current text, onto the new cursor after typing.
    pub(super) fn rebase_request(&mut self, older: &CompletionRequest) {
        let uri = &older.uri;
        let document = self.documents.get(uri).map(|(document, _)| document);
        let place = document.and_then(|document| {
            let typed = older.typed_since(&document.text)?;
            let cursor =
                position::position_at(&document.text, older.snapshot.cursor + typed.len(), self.encoding);
            Some((typed, cursor))
        });
        let snapshot = place.and_then(|(typed, cursor)| {
            Some((typed, self.take_snapshot(uri, cursor, older.snapshot.trigger)?))
        });
        let Some((typed, snapshot)) = snapshot else {
            older.supersede();
            return;
        };
        let request = Arc::new(older.rebased(snapshot, &typed));
        self.usage.track_response(&request.uri, &request.response);
        let cache = self.documents.get_mut(uri).map(|(_, cache)| cache);
        let Snapshot { text, cursor, .. } = &request.snapshot;
        match cache.and_then(|cache| cache.get(text, *cursor)) {
            None => self.enqueue(request),
            known => self.respond_from_cache(request, known),
        }
    }

    /// Passes a request to the worker; the one that it displaces is superseded.
    pub(super) fn start_generation(&mut self, request: Arc<CompletionRequest>) {
        if self.model != ModelState::Ready {
            request.respond(None);
            return;
        }
        self.generating = Some(Arc::clone(&request));
        self.send_job(Arc::clone(&request), Job::Complete(request));
    }

    /// Lets the worker prefetch what follows a request that was answered from the cache.
    fn start_prefetch(&mut self, request: Arc<CompletionRequest>, shown: Option<Suggestion>) {
        let is_idle_work =
            request.snapshot.options.idle != IdleSetting::Off && !self.is_excluded(&request.uri);
        if is_idle_work && self.model == ModelState::Ready {
            self.send_job(Arc::clone(&request), Job::Prefetch(request, shown.into()));
        }
    }

    fn send_job(&mut self, request: Arc<CompletionRequest>, job: Job) {
        self.newest_work = Some(request);
        if let Some(Job::Complete(older)) = self.mailbox.put(job) {
            older.supersede();
            if self.generating.as_ref().is_some_and(|working| Arc::ptr_eq(working, &older)) {
                self.generating = None;
            }
        }
    }
}

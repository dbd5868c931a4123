//! The first steps of a request: its snapshot, the cache, its deadlines, the way to the worker.

use std::sync::Arc;
use std::time::Instant;

use tracing::debug;

use crate::completion::next_actions::PriorResponse;
use crate::completion::{IdleSetting, SelectedItem, Snapshot, Suggestion, Trigger};
use crate::session::document::Document;
use crate::session::explain::Explanation;
use crate::session::response::{CompletionRequest, Deadlines};
use crate::session::{ArrivedRequest, LOAD_RETRY_DELAY, ModelState, SessionState};
use crate::text::{Position, position};

/// What a document's cache knows of a request.
enum CacheLookup {
    /// Its whole response; for an explicit request with alternatives.
    Found { suggestion: Suggestion, alternatives: Vec<Suggestion> },
    /// The first suggestion of an explicit request: alternatives to it were not searched yet, and can be now.
    FirstOnly(Suggestion),
    /// That it has no suggestion.
    Empty,
    /// Nothing.
    Unknown,
}

impl SessionState {
    /// A snapshot at this cursor; `None` if nothing is to be suggested there.
    fn take_snapshot(&mut self, uri: &str, cursor: Position, trigger: Trigger) -> Option<Snapshot> {
        self.use_counter += 1;
        self.activate_document(uri);
        let tokens = self.snippet_tokens();
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
        let index = self.indexes.get(&document.root).filter(|_| tokens > 0 && document.excluded.is_none());
        let (snippets, snippets_before) =
            index.map_or_else(Default::default, |index| document.snippets(cursor, index, tokens));
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
    pub(super) fn snippet_tokens(&self) -> usize {
        if !self.settings.other_files {
            return 0;
        }
        let configured = self.settings.suggest.snippet_tokens;
        self.best_snippets.map_or(0, |best| configured.unwrap_or(best))
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
        if self.pending.is_generating()
            || self.model != ModelState::Ready
            || self.settings.suggest.idle == IdleSetting::Off
        {
            return;
        }
        let Some(snapshot) = self.take_snapshot(&uri, cursor, Trigger::Automatic) else { return };
        let request = Arc::new(CompletionRequest::without_client(uri, snapshot, self.encoding));
        self.pending.start_prefetch(request, PriorResponse::Unrequested);
    }

    /// Handles a request of the editor: responds from the cache, or passes it to the worker.
    pub(super) fn handle_request(&mut self, request: ArrivedRequest) {
        let ArrivedRequest { uri, position: cursor, selected, mut trigger, popup, arrived, responder } =
            request;
        self.pending.supersede(&uri);
        self.usage.update(&uri);
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
        self.count_request(&uri, snapshot.cursor);
        let cached = self.look_up_cache(&uri, &snapshot);
        let deadlines = self.deadlines(arrived, trigger, matches!(cached, CacheLookup::FirstOnly(_)));
        // Editors repeat requests at the same cursor: work in flight is not restarted.
        if !matches!(cached, CacheLookup::Found { .. })
            && let Some(generating) = self.pending.find_generating(&uri, &snapshot)
        {
            generating.reopen(deadlines, responder);
            self.usage.track_response(&generating.uri, &generating.response);
            return;
        }
        let mut request = CompletionRequest::new(uri, snapshot, self.encoding, deadlines, responder);
        if popup {
            request = request.for_popup();
        }
        if let CacheLookup::FirstOnly(first) = &cached {
            request = request.with_known(first.clone());
        }
        let request = Arc::new(request);
        self.usage.track_response(&request.uri, &request.response);
        match cached {
            CacheLookup::Found { suggestion, alternatives } => {
                request.set_alternatives(&alternatives);
                self.respond_from_cache(request, Some(suggestion));
            }
            CacheLookup::Empty => self.respond_from_cache(request, None),
            CacheLookup::FirstOnly(_) | CacheLookup::Unknown => match self.model {
                ModelState::Ready => self.enqueue(request),
                ModelState::Failed(at) if at.elapsed() >= LOAD_RETRY_DELAY => self.load_model(true),
                ModelState::Loading | ModelState::Failed(_) => {}
            },
        }
    }

    /// Counts a request in the usage statistics.
    fn count_request(&mut self, uri: &str, cursor: usize) {
        let Some((document, _)) = self.documents.get(uri).filter(|_| self.settings.statistics) else {
            return;
        };
        let language = document.language.map_or(document.language_id.as_str(), |language| language.name);
        self.usage.record_request(uri, cursor, language);
    }

    /// Looks a request up in the document's cache.
    fn look_up_cache(&mut self, uri: &str, snapshot: &Snapshot) -> CacheLookup {
        let Snapshot { text, cursor, trigger, selected, .. } = snapshot;
        let Some((_, cache)) = self.documents.get_mut(uri).filter(|_| selected.is_none()) else {
            return CacheLookup::Unknown;
        };
        let is_explicit = *trigger == Trigger::Invoked;
        match cache.get(text, *cursor) {
            Some(suggestion) if is_explicit => match cache.alternatives(text, *cursor, &suggestion) {
                Some(alternatives) => CacheLookup::Found { suggestion, alternatives },
                None if self.model == ModelState::Ready => CacheLookup::FirstOnly(suggestion),
                None => CacheLookup::Found { suggestion, alternatives: Vec::new() },
            },
            Some(suggestion) => CacheLookup::Found { suggestion, alternatives: Vec::new() },
            // An explicit request is worth another try.
            None if !is_explicit && cache.is_known_empty(text, *cursor) => CacheLookup::Empty,
            None => CacheLookup::Unknown,
        }
    }

    /// When to respond to a request. If its first suggestion is known, only alternatives are missing, and they are
    /// not worth a longer wait.
    fn deadlines(&self, arrived: Instant, trigger: Trigger, is_first_known: bool) -> Deadlines {
        let usual = arrived + self.settings.latency_budget;
        let may_take_longer = trigger == Trigger::Invoked && !is_first_known;
        Deadlines {
            arrived,
            early: (self.refreshes && !is_first_known).then(|| arrived + self.settings.early_answer),
            usual,
            latest: if may_take_longer { usual.max(arrived + self.settings.explicit_budget) } else { usual },
        }
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
        if self.settings.debounce.is_zero() || request.snapshot.trigger == Trigger::Invoked {
            self.start_generation(request);
        } else {
            self.pending.debounce(request, Instant::now() + self.settings.debounce);
        }
    }

    /// Rebases a popup request, which must fit the current text, onto the new cursor after typing.
    pub(super) fn rebase_request(&mut self, older: &CompletionRequest) {
        let Some((snapshot, typed)) = self.take_rebased_snapshot(older) else {
            older.supersede();
            return;
        };
        let request = Arc::new(older.rebased(snapshot, &typed));
        self.usage.track_response(&request.uri, &request.response);
        let cache = self.documents.get_mut(&request.uri).map(|(_, cache)| cache);
        let Snapshot { text, cursor, .. } = &request.snapshot;
        match cache.and_then(|cache| cache.get(text, *cursor)) {
            None => self.enqueue(request),
            known => self.respond_from_cache(request, known),
        }
    }

    /// A snapshot of the current text for a request, and the text typed at its cursor since.
    fn take_rebased_snapshot(&mut self, older: &CompletionRequest) -> Option<(Snapshot, String)> {
        let (document, _) = self.documents.get(&older.uri)?;
        let typed = older.typed_since(&document.text)?;
        let cursor = older.snapshot.cursor + typed.len();
        let cursor = position::position_at(&document.text, cursor, self.encoding);
        Some((self.take_snapshot(&older.uri, cursor, older.snapshot.trigger)?, typed))
    }

    /// Passes a request to the worker.
    pub(super) fn start_generation(&mut self, request: Arc<CompletionRequest>) {
        if self.model == ModelState::Ready {
            self.pending.start_generation(request);
        } else {
            request.respond(None);
        }
    }

    /// Lets the worker prefetch what follows a request that was answered from the cache.
    fn start_prefetch(&mut self, request: Arc<CompletionRequest>, shown: Option<Suggestion>) {
        let is_idle_work =
            request.snapshot.options.idle != IdleSetting::Off && !self.is_excluded(&request.uri);
        if is_idle_work && self.model == ModelState::Ready {
            self.pending.start_prefetch(request, shown.into());
        }
    }
}

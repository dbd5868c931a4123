//! The session: one thread owns the documents, one owns the engine, and a mailbox of one slot connects them.
//!
//! Everything that happens is one [`Event`]. Events are handled one at a time, in the order of arrival, so that no
//! lock is held across work. Every request gets exactly one response: from the worker when generation finishes, or
//! from this thread when the deadline passes, a newer request supersedes it, or the document changes. Dropping a
//! [`Responder`] sends an empty response, so none can be forgotten.

mod alternatives;
pub mod crawler;
mod document;
mod event;
mod exclusions;
mod explain;
mod idle_work;
mod in_flight;
mod job;
mod mailbox;
mod notebook;
mod pauses;
mod prefetch;
mod requests;
mod response;
mod supervisor;
mod trace;
mod worker;
mod workspace_index;

use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver as Events, RecvTimeoutError, Sender};
use taper_engine::EngineInfo;
use tracing::{debug, error, info, warn};

use crate::completion::cache::CompletionCache;
use crate::completion::{Snapshot, Suggestion};
use crate::config::{EngineSettings, Settings};
use crate::retrieval::Index;
use crate::text::{Encoding, Rope, position};
use crate::usage::tracker::{UsageRecorder, UsageTracker};

pub use document::{OpenedDocument, TextChange};
pub use event::{ArrivedRequest, Event, Improvement, Notice};
pub use explain::{Explanation, Explanations};
pub use notebook::{NotebookCell, NotebookChange};
pub use pauses::{PauseScope, Pauses};
pub use response::{CompletionItem, CompletionRequest, CompletionResponse, Responder, ResponseReceiver};
pub use supervisor::{ThreadSupervisor, thread_error};
pub use trace::{TraceEvent, WorkSummary};
pub use worker::{EngineSource, LoadAttempt, LoadProgress};
pub use workspace_index::DocumentLocation;

use crawler::CrawlMode;
use document::Document;
use job::Job;
use mailbox::Mailbox;
use notebook::Notebooks;
use worker::InferenceWorker;
use workspace_index::WorkspaceIndex;

/// Events that may wait for the session before `send` blocks: enough for any burst of typing.
const EVENT_QUEUE_LEN: usize = 1024;

/// Time after a failed load until the next request may try again.
const LOAD_RETRY_DELAY: Duration = Duration::from_secs(3);

/// What a session needs to start.
pub struct SessionStart {
    /// How the editor counts columns.
    pub encoding: Encoding,
    /// Whether the editor sends a request again after [`Notice::Refresh`].
    pub refreshes: bool,
    /// The settings.
    pub settings: Settings,
    /// Where the engine comes from.
    pub source: EngineSource,
    /// Where the project's files are crawled.
    pub crawling: CrawlMode,
    /// Reports to the user. Must not block.
    pub notices: Box<dyn FnMut(Notice) + Send>,
    /// Records the usage statistics. Dropped when the session ends.
    pub usage_recorder: UsageRecorder,
    /// Reports a failed thread: without its threads nothing works.
    pub supervisor: ThreadSupervisor,
}

/// A running session. Dropping it ends it without waiting for a running generation.
#[derive(Debug)]
pub struct Session {
    events: Sender<Event>,
}

impl Session {
    /// Starts the two threads and the loading of the engine.
    ///
    /// # Errors
    /// The system cannot start another thread.
    pub fn start(start: SessionStart) -> io::Result<Self> {
        let SessionStart {
            encoding,
            refreshes,
            settings,
            source,
            crawling,
            notices,
            usage_recorder,
            supervisor,
        } = start;
        let (events, receiver) = crossbeam_channel::bounded(EVENT_QUEUE_LEN);
        let mailbox = Arc::new(Mailbox::default());
        let worker = InferenceWorker::new(Arc::clone(&mailbox), source, events.clone());
        let workspace = WorkspaceIndex::start(events.clone(), crawling, &supervisor)?;
        workspace.exclude(settings.excluded_files.clone());
        supervisor.spawn("inference", || worker.run())?;
        mailbox.put(Job::Load { settings: settings.engine.clone(), again: false });
        let state = SessionState {
            encoding,
            refreshes,
            settings,
            documents: HashMap::new(),
            use_counter: 0,
            pending: Vec::new(),
            debouncing: None,
            generating: None,
            newest_work: None,
            model: ModelState::Loading,
            mailbox,
            notices,
            last_reported_problem: None,
            pauses: Pauses::default(),
            explanations: Explanations::default(),
            usage: UsageTracker::new(usage_recorder),
            best_snippets: None,
            workspace,
            indexes: HashMap::new(),
            active_document: None,
            notebooks: Notebooks::default(),
        };
        supervisor.spawn("session", move || state.run_events(&receiver))?;
        Ok(Self { events })
    }

    /// Queues an event. Blocks only if the queue is full.
    pub fn send(&self, event: Event) {
        // An error means that the session has ended; dropping the event sends an empty response to its request.
        let _ = self.events.send(event);
    }

    /// Ends the session soon, without waiting for it.
    pub fn stop(&self) {
        // If the queue is full, the session ends with the process.
        let _ = self.events.try_send(Event::Stop);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Whether a model is loaded.
#[derive(Debug, PartialEq, Eq)]
enum ModelState {
    /// The worker is loading; requests get an empty response at once.
    Loading,
    /// Requests go to the worker.
    Ready,
    /// The last attempt failed at this time.
    Failed(Instant),
}

/// State owned by the session thread.
struct SessionState {
    encoding: Encoding,
    /// Whether the editor repeats a request when there is an improvement.
    refreshes: bool,
    settings: Settings,
    documents: HashMap<String, (Document, CompletionCache)>,
    /// Counts requests and openings, to find the document used last.
    use_counter: u64,
    /// Requests without a response.
    pending: Vec<Arc<CompletionRequest>>,
    /// A request that waits for a pause in typing, and until when.
    debouncing: Option<(Instant, Arc<CompletionRequest>)>,
    /// The request that the worker has, or that is in its mailbox.
    generating: Option<Arc<CompletionRequest>>,
    /// The last request that the worker got: its idle work is about this one.
    newest_work: Option<Arc<CompletionRequest>>,
    model: ModelState,
    mailbox: Arc<Mailbox<Job>>,
    notices: Box<dyn FnMut(Notice) + Send>,
    /// The last loading problem that was reported to the user, so that it is reported once.
    last_reported_problem: Option<String>,
    pauses: Pauses,
    /// How the last responses came about.
    explanations: Explanations,
    /// What is shown, and what happens to it.
    usage: UsageTracker,
    /// Number of tokens of other files that is best for the model, if its prompt has room for any.
    best_snippets: Option<usize>,
    /// Indexes the code around the documents; the last index of each workspace follows.
    workspace: WorkspaceIndex,
    indexes: HashMap<Option<PathBuf>, Arc<Index>>,
    /// The document of the last request: its text is shared with others once another one becomes active.
    active_document: Option<String>,
    /// Which documents are cells of which notebook.
    notebooks: Notebooks,
}

impl SessionState {
    fn run_events(mut self, events: &Events<Event>) {
        loop {
            let event = match self.next_wakeup() {
                Some(at) => events.recv_deadline(at),
                None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match event {
                Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(event) => self.handle_guarded(event),
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.expire_due(Instant::now());
        }
        self.mailbox.close();
        self.usage.close_all();
    }

    /// When something is due without an event.
    fn next_wakeup(&self) -> Option<Instant> {
        let deadlines = self.pending.iter().map(|request| request.deadline());
        deadlines.chain(self.debouncing.iter().map(|(at, _)| *at)).min()
    }

    /// Handles what is due.
    fn expire_due(&mut self, now: Instant) {
        self.pending.retain(|request| {
            if request.is_open() && request.deadline() <= now {
                request.respond_with_draft();
            }
            request.is_open()
        });
        if self.debouncing.as_ref().is_some_and(|(at, _)| *at <= now)
            && let Some((_, request)) = self.debouncing.take()
        {
            self.start_generation(request);
        }
    }

    /// Handles an event; a panic costs only the document that it is about.
    fn handle_guarded(&mut self, event: Event) {
        let uri = match &event {
            Event::Opened(OpenedDocument { uri, .. })
            | Event::Edited { uri, .. }
            | Event::Requested(ArrivedRequest { uri, .. })
            | Event::CursorRested { uri, .. }
            | Event::DocumentLost { uri }
            | Event::Saved { uri }
            | Event::Closed { uri }
            | Event::Relocated { uri, .. }
            | Event::Prefetched { uri, .. } => Some(uri.clone()),
            Event::WorkEnded { request, .. }
            | Event::Completed { request, .. }
            | Event::AlternativesFound { request, .. } => Some(request.uri.clone()),
            Event::Configured(_)
            | Event::Accepted
            | Event::FlushUsage(_)
            | Event::Paused { .. }
            | Event::Explain(_)
            | Event::Loaded(_)
            | Event::Indexed { .. }
            | Event::Notebook { .. }
            | Event::Notify(_)
            | Event::Stop => None,
        };
        if catch_unwind(AssertUnwindSafe(|| self.handle_event(event))).is_err() {
            error!(?uri, "panic while handling an event");
            if let Some((document, cache)) = uri.and_then(|uri| self.documents.get_mut(&uri)) {
                document.mark_lost("an error inside taper");
                cache.clear();
            }
        }
    }

    fn handle_event(&mut self, event: Event) {
        match event {
            Event::Opened(opening) => {
                self.end_pending(&opening.uri, CompletionRequest::abandon);
                self.drop_stale_work(&opening.uri, None);
                self.usage.close(&opening.uri);
                let uri = opening.uri.clone();
                self.use_counter += 1;
                let mut document = Document::open(opening);
                document.last_used = self.use_counter;
                self.documents.insert(uri.clone(), (document, CompletionCache::default()));
                self.update_exclusion(&uri);
                self.reload_exclusions(&uri);
                self.release_unused_documents();
                self.cell_changed(&uri);
                self.index_workspace_of(&uri);
            }
            Event::Edited { uri, version, changes } => self.apply_edit(&uri, version, changes),
            Event::DocumentLost { uri } => {
                if let Some((document, _)) = self.documents.get_mut(&uri) {
                    let reason = "a change could not be understood";
                    document.mark_lost(reason);
                    self.report_lost_document(&uri, reason);
                }
                self.cell_changed(&uri);
                self.usage.close(&uri);
            }
            Event::Notebook { uri, change } => self.notebook_changed(&uri, change),
            Event::Saved { uri } => {
                debug!(uri, "saved");
                self.reload_exclusions(&uri);
            }
            Event::Closed { uri } => {
                self.end_pending(&uri, CompletionRequest::abandon);
                self.drop_stale_work(&uri, None);
                self.usage.close(&uri);
                if let Some((document, _)) = self.documents.remove(&uri) {
                    let at = document.location();
                    let is_last = !self.documents.values().any(|(other, _)| other.root == at.root);
                    self.workspace.gone(at, is_last);
                }
                self.cell_changed(&uri);
                self.notebooks.remove_cell(&uri);
                self.reload_exclusions(&uri);
            }
            Event::Relocated { uri, location } => self.relocate_document(&uri, location),
            Event::Configured(settings) => self.apply_settings(*settings),
            Event::Accepted => self.usage.confirm_acceptance(),
            Event::FlushUsage(reply) => {
                self.usage.update_all();
                // An error means that the caller has gone.
                let _ = reply.send(());
            }
            Event::Paused { scope, paused } => {
                self.pauses.set_paused(scope, paused);
                (self.notices)(Notice::Paused(self.pauses.clone()));
            }
            // An error means that the caller has gone.
            Event::Explain(reply) => drop(reply.send(self.explanations.without_secrets())),
            Event::Requested(asked) => self.handle_request(asked),
            Event::CursorRested { uri, position } => self.cursor_rested(uri, position),
            Event::Completed { request, suggestion, work } => {
                self.explanations.record(Explanation::new(
                    &request.snapshot,
                    suggestion.as_ref(),
                    Some(work),
                ));
            }
            Event::Loaded(outcome) => self.model_loaded(outcome),
            Event::WorkEnded { request, suggestion, is_known_empty } => {
                if self.generating.as_ref().is_some_and(|working| Arc::ptr_eq(working, &request)) {
                    self.generating = None;
                }
                // If the request was repeated just when the worker had finished it, it has a new responder.
                request.set_draft(suggestion.clone());
                request.respond_with_draft();
                if (suggestion.is_some() || is_known_empty) && request.snapshot.selected.is_none() {
                    self.remember_suggestion(&request.uri, &request.snapshot, suggestion.as_ref());
                }
                self.notify_improvement(&request);
            }
            Event::Prefetched { uri, snapshot, suggestion } => {
                self.remember_suggestion(&uri, &snapshot, suggestion.as_ref());
            }
            Event::AlternativesFound { request, first, others } => {
                // The first is in the cache already: it was prefetched.
                let CompletionRequest { uri, snapshot, .. } = &*request;
                if snapshot.options == self.settings.suggest
                    && let Some((_, cache)) = self.documents.get_mut(uri)
                {
                    cache.set_alternatives(&snapshot.text, snapshot.cursor, &first, &others);
                }
            }
            Event::Indexed { root, index } if index.files().is_empty() => drop(self.indexes.remove(&root)),
            Event::Indexed { root, index } => drop(self.indexes.insert(root, index)),
            Event::Notify(notice) => (self.notices)(notice),
            Event::Stop => {}
        }
    }

    /// Reports that a document is out of sync.
    fn report_lost_document(&mut self, uri: &str, reason: &'static str) {
        warn!(uri, reason, "document out of sync; no suggestions until its full text arrives");
        (self.notices)(Notice::Trace(TraceEvent::DocumentLost { uri: uri.to_owned(), reason }));
    }

    /// Reports that a message was about a document that is not open.
    fn report_unknown_document(&mut self, uri: &str, message: &str) {
        warn!(uri, "{message} for a document that is not open");
        (self.notices)(Notice::Trace(TraceEvent::UnknownDocument { uri: uri.to_owned() }));
    }

    /// Caches the suggestion for a cursor, or that there is none.
    fn remember_suggestion(&mut self, uri: &str, snapshot: &Snapshot, suggestion: Option<&Suggestion>) {
        // It was made before the settings changed: they may forbid it now.
        if snapshot.options != self.settings.suggest || !self.is_context_current(uri, snapshot) {
            return;
        }
        let Some((_, cache)) = self.documents.get_mut(uri) else { return };
        match suggestion {
            Some(suggestion) => cache.insert(&snapshot.text, snapshot.cursor, suggestion),
            None => cache.insert_empty(&snapshot.text, snapshot.cursor),
        }
    }

    /// Makes the editor repeat a request whose response was sent before the work ended, if there is an improvement.
    fn notify_improvement(&mut self, request: &CompletionRequest) {
        let Some(improved) = request.take_improvement().filter(|_| self.refreshes) else { return };
        let CompletionRequest { uri, snapshot, .. } = request;
        let Some((document, cache)) = self.documents.get_mut(uri) else { return };
        // Only what is in the cache: a repeated request that started new work would lead to another one.
        if document.text.is_instance(&snapshot.text)
            && cache.get(&snapshot.text, snapshot.cursor) == Some(improved)
        {
            let position = position::position_at(&snapshot.text, snapshot.cursor, self.encoding);
            let (uri, version) = (uri.clone(), document.version);
            (self.notices)(Notice::Refresh(Improvement { uri, position, version }));
        }
    }

    /// Ends every pending request for a document.
    fn end_pending(&mut self, uri: &str, end: impl Fn(&CompletionRequest)) {
        self.debouncing.take_if(|(_, request)| request.uri == uri);
        self.pending.retain(|request| {
            let concerned = request.uri == uri;
            if concerned {
                end(request);
            }
            !concerned
        });
    }

    fn apply_edit(&mut self, uri: &str, version: Option<i64>, changes: Vec<TextChange>) {
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
        self.drop_stale_work(uri, text.clone());
        // A response now would be placed by the text before the change, and editors that show whatever arrives
        // would show it in the wrong place. The work continues if it may still be the next response, typed through.
        // Popups filter by what is typed meanwhile, and Helix does not send the next request until this one is
        // answered. So a popup request is rebased onto the new cursor while the typed text may still be a prefix of
        // the result.
        let fits =
            |it: &CompletionRequest| it.is_in_popup() && text.as_ref().is_some_and(|text| it.may_serve(text));
        let kept = |it: &CompletionRequest| it.uri == uri && it.is_open() && fits(it);
        let moving: Vec<_> = self.pending.extract_if(.., |it| kept(it)).collect();
        self.end_pending(uri, CompletionRequest::supersede);
        for request in moving {
            self.rebase_request(&request);
        }
    }

    /// Handles a document that moved to another workspace folder, or out of all of them.
    fn relocate_document(&mut self, uri: &str, location: DocumentLocation) {
        let Some((document, cache)) = self.documents.get_mut(uri) else { return };
        let before = document.location();
        if !document.relocate(location) {
            return;
        }
        // The suggestions were made with other files.
        cache.clear();
        let is_last = !self.documents.values().any(|(other, _)| other.root == before.root);
        self.workspace.gone(before, is_last);
        self.update_exclusion(uri);
        self.index_workspace_of(uri);
    }

    /// Drops the work on a document that was closed, or whose new text does not fit it.
    fn drop_stale_work(&mut self, uri: &str, text: Option<Rope>) {
        let may_serve =
            |it: &CompletionRequest| it.uri != uri || text.as_ref().is_some_and(|text| it.may_serve(text));
        if let Some(latest) = self.newest_work.take_if(|latest| !may_serve(latest)) {
            latest.drop_work();
        }
    }

    fn apply_settings(&mut self, settings: Settings) {
        let reload = settings.engine != self.settings.engine;
        if settings.suggest != self.settings.suggest || reload {
            self.documents.values_mut().for_each(|(_, cache)| cache.clear());
        }
        let lists_changed = settings.excluded_files != self.settings.excluded_files;
        self.settings = settings;
        if lists_changed {
            self.update_all_exclusions();
            self.workspace.exclude(self.settings.excluded_files.clone());
        }
        self.index_all_workspaces();
        if !self.settings.statistics {
            self.usage.clear();
        }
        if reload {
            self.last_reported_problem = None;
            self.load_model(false);
        }
    }

    fn load_model(&mut self, again: bool) {
        self.model = ModelState::Loading;
        let settings: EngineSettings = self.settings.engine.clone();
        if let Some(Job::Complete(request)) = self.mailbox.put(Job::Load { settings, again }) {
            request.respond(None);
        }
    }

    fn model_loaded(&mut self, outcome: Result<(Box<EngineInfo>, Option<usize>), String>) {
        match outcome {
            Ok((about, snippets)) => {
                self.model = ModelState::Ready;
                self.best_snippets = snippets;
                self.index_all_workspaces();
                self.usage.set_model(&about.model);
                self.last_reported_problem = None;
                let model = about.model.clone();
                (self.notices)(Notice::Loaded(about));
                (self.notices)(Notice::Trace(TraceEvent::ModelLoaded { model }));
            }
            Err(problem) => {
                self.model = ModelState::Failed(Instant::now());
                (self.notices)(Notice::Failed(problem.clone()));
                if self.last_reported_problem.as_ref() != Some(&problem) {
                    error!(problem, "the model could not be loaded");
                    (self.notices)(Notice::Problem(format!("taper cannot suggest yet: {problem}")));
                    self.last_reported_problem = Some(problem);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;

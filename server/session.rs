//! The session: one thread owns the documents, one owns the engine, and a mailbox of one slot connects them.
//!
//! Everything that happens is one [`Event`]. Events are handled one at a time, in the order of arrival, so that no
//! lock is held across work. Every request gets exactly one response: from the worker when generation finishes, or
//! from this thread when the deadline passes, a newer request supersedes it, or the document changes. Dropping a
//! [`Responder`] sends an empty response, so none can be forgotten.

mod alternatives;
pub mod crawler;
mod document;
mod document_events;
mod event;
mod exclusions;
mod explain;
mod idle_work;
mod in_flight;
mod job;
mod mailbox;
mod notebook;
mod pauses;
mod pending_requests;
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
use tracing::{debug, error};

use crate::completion::cache::CompletionCache;
use crate::completion::{Snapshot, Suggestion};
use crate::config::Settings;
use crate::retrieval::Index;
use crate::text::{Encoding, position};
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
use mailbox::Mailbox;
use notebook::Notebooks;
use pending_requests::PendingRequests;
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
        let mut pending = PendingRequests::new(mailbox);
        let workspace = WorkspaceIndex::start(events.clone(), crawling, &supervisor)?;
        workspace.set_excluded(settings.excluded_files.clone());
        supervisor.spawn("inference", || worker.run())?;
        pending.load_engine(settings.engine.clone(), false);
        let state = SessionState {
            encoding,
            refreshes,
            settings,
            documents: HashMap::new(),
            use_counter: 0,
            pending,
            model: ModelState::Loading,
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
    /// Requests without a response, and those that the worker works on.
    pending: PendingRequests,
    model: ModelState,
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
            let event = match self.pending.next_deadline() {
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
        self.pending.close();
        self.usage.close_all();
    }

    /// Handles what is due.
    fn expire_due(&mut self, now: Instant) {
        self.pending.expire(now);
        if let Some(request) = self.pending.take_due(now) {
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
            Event::Opened(opened) => self.open_document(opened),
            Event::Edited { uri, version, changes } => self.apply_edit(&uri, version, changes),
            Event::DocumentLost { uri } => self.lose_document(&uri),
            Event::Notebook { uri, change } => self.notebook_changed(&uri, change),
            Event::Saved { uri } => {
                debug!(uri, "saved");
                self.reload_exclusions(&uri);
            }
            Event::Closed { uri } => self.close_document(&uri),
            Event::Relocated { uri, location } => self.relocate_document(&uri, location),
            Event::Configured(settings) => self.apply_settings(*settings),
            Event::Accepted => self.usage.confirm_acceptance(),
            Event::FlushUsage(responder) => {
                self.usage.update_all();
                // An error means that the caller has gone.
                let _ = responder.send(());
            }
            Event::Paused { scope, paused } => {
                self.pauses.set_paused(scope, paused);
                (self.notices)(Notice::Paused(self.pauses.clone()));
            }
            // An error means that the caller has gone.
            Event::Explain(responder) => drop(responder.send(self.explanations.without_secrets())),
            Event::Requested(arrived) => self.handle_request(arrived),
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
                self.end_work(&request, suggestion, is_known_empty);
            }
            Event::Prefetched { uri, snapshot, suggestion } => {
                self.remember_suggestion(&uri, &snapshot, suggestion.as_ref());
            }
            Event::AlternativesFound { request, first, alternatives } => {
                // The first is in the cache already: it was prefetched.
                let CompletionRequest { uri, snapshot, .. } = &*request;
                if snapshot.options == self.settings.suggest
                    && let Some((_, cache)) = self.documents.get_mut(uri)
                {
                    cache.set_alternatives(&snapshot.text, snapshot.cursor, &first, &alternatives);
                }
            }
            Event::Indexed { root, index } if index.files().is_empty() => drop(self.indexes.remove(&root)),
            Event::Indexed { root, index } => drop(self.indexes.insert(root, index)),
            Event::Notify(notice) => (self.notices)(notice),
            Event::Stop => {}
        }
    }

    /// Handles the end of the worker's work on a request.
    fn end_work(
        &mut self,
        request: &Arc<CompletionRequest>,
        suggestion: Option<Suggestion>,
        is_known_empty: bool,
    ) {
        self.pending.end_work(request);
        // If the request was repeated just when the worker had finished it, it has a new responder.
        request.set_draft(suggestion.clone());
        request.respond_with_draft();
        if (suggestion.is_some() || is_known_empty) && request.snapshot.selected.is_none() {
            self.remember_suggestion(&request.uri, &request.snapshot, suggestion.as_ref());
        }
        self.notify_improvement(request);
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

    fn apply_settings(&mut self, settings: Settings) {
        let reload = settings.engine != self.settings.engine;
        if settings.suggest != self.settings.suggest || reload {
            self.documents.values_mut().for_each(|(_, cache)| cache.clear());
        }
        let lists_changed = settings.excluded_files != self.settings.excluded_files;
        self.settings = settings;
        if lists_changed {
            self.update_all_exclusions();
            self.workspace.set_excluded(self.settings.excluded_files.clone());
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
        self.pending.load_engine(self.settings.engine.clone(), again);
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

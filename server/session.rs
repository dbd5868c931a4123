//! The session: one thread owns the documents, one owns the engine, a mailbox of one slot between them.
//! It knows nothing of LSP, JSON or tensors.
//!
//! Everything that happens is one [`Event`], handled one at a time and in the order of arrival, so that no lock is
//! held across work. A question is answered exactly once: by the completer when it is finished, by this thread
//! when its time is up, when a newer one takes its place, or when its document changes, and by nobody's
//! forgetting, because a [`Reply`] that is dropped answers "nothing".

mod asking;
mod candidates;
mod completer;
pub mod crawler;
mod document;
mod event;
mod excluded;
mod explain;
mod follow;
mod mailbox;
mod notebook;
mod pause;
mod reply;
mod supervised;
mod trace;
mod workspace;

use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver as Events, RecvTimeoutError, Sender};
use taper_engine::About;
use tracing::{debug, error, info, warn};

use crate::config::{EngineSettings, Settings};
use crate::context::Index;
use crate::suggest::reuse::Cache;
use crate::suggest::{Snapshot, Suggestion};
use crate::text::{Encoding, Rope, position};
use crate::usage::tracker::{UsageRecorder, UsageTracker};

pub use completer::{Attempt, Loading, Source};
pub use document::{Change, Opening};
pub use event::{Asked, Event, Grown, Notice};
pub use explain::{Explanation, Explanations};
pub use notebook::{Cell, NotebookChange};
pub use pause::{Pauses, Scope};
pub use reply::{Answer, Question, Receiver, Reply, Shown};
pub use supervised::{Supervisor, no_thread};
pub use trace::{TraceEvent, WorkSummary};
pub use workspace::Location;

use completer::{Completer, Job};
use crawler::Crawling;
use document::Document;
use mailbox::Mailbox;
use notebook::Notebooks;
use workspace::Workspace;

/// Events that may wait for the session before the sender has to: enough for any burst of typing.
const EVENTS: usize = 1024;

/// How long after a failure to load the next question may try again.
const RETRY: Duration = Duration::from_secs(3);

/// What a session needs to begin.
pub struct Start {
    /// How the editor counts columns.
    pub encoding: Encoding,
    /// Whether the editor asks again when told [`Notice::Grown`].
    pub refreshes: bool,
    /// How to behave.
    pub settings: Settings,
    /// Where the engine comes from.
    pub source: Source,
    /// Where the project's files are looked through.
    pub crawling: Crawling,
    /// Who tells the user. Must not block.
    pub notices: Box<dyn FnMut(Notice) + Send>,
    /// Takes what is to be counted. Dropped when the session ends.
    pub usage_recorder: UsageRecorder,
    /// Who is told when one of the threads fails: nothing works without it.
    pub supervisor: Supervisor,
}

/// A running session. Dropped, it ends; a generation that runs is not waited for.
#[derive(Debug)]
pub struct Session {
    events: Sender<Event>,
}

impl Session {
    /// Starts the two threads and the loading of the engine.
    ///
    /// # Errors
    /// The system gives no more threads.
    pub fn start(start: Start) -> io::Result<Self> {
        let Start { encoding, refreshes, settings, source, crawling, notices, usage_recorder, supervisor } =
            start;
        let (events, receiver) = crossbeam_channel::bounded(EVENTS);
        let mailbox = Arc::new(Mailbox::default());
        let completer = Completer::new(Arc::clone(&mailbox), source, events.clone());
        let workspace = Workspace::start(events.clone(), crawling, &supervisor)?;
        workspace.exclude(settings.excluded_files.clone());
        supervisor.spawn("completer", || completer.run())?;
        mailbox.put(Job::Load { settings: settings.engine.clone(), again: false });
        let state = State {
            encoding,
            refreshes,
            settings,
            documents: HashMap::new(),
            moment: 0,
            open: Vec::new(),
            resting: None,
            working: None,
            latest: None,
            model: Model::Loading,
            mailbox,
            notices,
            told: None,
            pauses: Pauses::default(),
            explained: Explanations::default(),
            usage: UsageTracker::new(usage_recorder),
            best_snippets: None,
            workspace,
            indexes: HashMap::new(),
            attended: None,
            notebooks: Notebooks::default(),
        };
        supervisor.spawn("session", move || state.run(&receiver))?;
        Ok(Self { events })
    }

    /// Hands an event over. Waits only if more than a thousand are waiting already.
    pub fn send(&self, event: Event) {
        // An error means that the session has ended; a question in the event answers itself when dropped.
        let _ = self.events.send(event);
    }

    /// Ends it soon; does not wait for that.
    pub fn stop(&self) {
        // With so much to do that there is no room, it ends with the process.
        let _ = self.events.try_send(Event::Stop);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Whether there is an engine to ask.
#[derive(Debug, PartialEq, Eq)]
enum Model {
    /// The completer is busy loading; questions are answered at once, with nothing.
    Loading,
    /// Questions go to the completer.
    Ready,
    /// The last attempt failed at this time.
    Failed(Instant),
}

/// What the session's thread owns.
struct State {
    encoding: Encoding,
    /// Whether the editor asks again when more is known.
    refreshes: bool,
    settings: Settings,
    documents: HashMap<String, (Document, Cache)>,
    /// Counts questions and openings, to tell which document was used last.
    moment: u64,
    /// Questions whose answer is still to be given.
    open: Vec<Arc<Question>>,
    /// A question that waits for a pause in typing, and until when.
    resting: Option<(Instant, Arc<Question>)>,
    /// The question that the completer has, or has in its mailbox.
    working: Option<Arc<Question>>,
    /// The last question that the completer was told of: what it does while nobody waits is about this one.
    latest: Option<Arc<Question>>,
    model: Model,
    mailbox: Arc<Mailbox<Job>>,
    notices: Box<dyn FnMut(Notice) + Send>,
    /// The last problem with loading that the user was told of: the same one is not told twice.
    told: Option<String>,
    pauses: Pauses,
    /// How the last answers came about.
    explained: Explanations,
    /// What is shown, and what happens to it.
    usage: UsageTracker,
    /// Tokens of other files that are best for the model, if it has a place for any.
    best_snippets: Option<usize>,
    /// Who looks through the code around the documents, and what was made of each workspace last.
    workspace: Workspace,
    indexes: HashMap<Option<PathBuf>, Arc<Index>>,
    /// The document that was asked about last: its text is of use to others once another one is.
    attended: Option<String>,
    /// Which documents are cells of which notebook.
    notebooks: Notebooks,
}

impl State {
    fn run(mut self, events: &Events<Event>) {
        loop {
            let event = match self.wakes_at() {
                Some(at) => events.recv_deadline(at),
                None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match event {
                Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(event) => self.guard(event),
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.keep_time(Instant::now());
        }
        self.mailbox.close();
        self.usage.close_all();
    }

    /// When something is due though nothing happens.
    fn wakes_at(&self) -> Option<Instant> {
        let deadlines = self.open.iter().map(|question| question.deadline());
        deadlines.chain(self.resting.iter().map(|(at, _)| *at)).min()
    }

    /// Does what is due.
    fn keep_time(&mut self, now: Instant) {
        self.open.retain(|question| {
            if question.is_open() && question.deadline() <= now {
                question.expire();
            }
            question.is_open()
        });
        if self.resting.as_ref().is_some_and(|(at, _)| *at <= now)
            && let Some((_, question)) = self.resting.take()
        {
            self.give(question);
        }
    }

    /// Handles an event; a panic costs the document that it is about, and nothing else.
    fn guard(&mut self, event: Event) {
        let uri = match &event {
            Event::Opened(Opening { uri, .. })
            | Event::Edited { uri, .. }
            | Event::Asked(Asked { uri, .. })
            | Event::Looked { uri, .. }
            | Event::Lost { uri }
            | Event::Saved { uri }
            | Event::Closed { uri }
            | Event::Relocated { uri, .. }
            | Event::Foreseen { uri, .. } => Some(uri.clone()),
            Event::Finished { question, .. }
            | Event::Worked { question, .. }
            | Event::Widened { question, .. } => Some(question.uri.clone()),
            Event::Configured(_)
            | Event::Accepted
            | Event::UpdateUsage(_)
            | Event::Paused { .. }
            | Event::Explain(_)
            | Event::Loaded(_)
            | Event::Indexed { .. }
            | Event::Notebook { .. }
            | Event::Noticed(_)
            | Event::Stop => None,
        };
        if catch_unwind(AssertUnwindSafe(|| self.handle(event))).is_err() {
            error!(?uri, "the session panicked");
            if let Some((document, cache)) = uri.and_then(|uri| self.documents.get_mut(&uri)) {
                document.lose("an error inside taper");
                cache.clear();
            }
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Opened(opening) => {
                self.let_go(&opening.uri, Question::abandon);
                self.outdate(&opening.uri, None);
                self.usage.close(&opening.uri);
                let uri = opening.uri.clone();
                self.moment += 1;
                let mut document = Document::open(opening);
                document.used = self.moment;
                self.documents.insert(uri.clone(), (document, Cache::default()));
                self.find_excluded(&uri);
                self.note_list(&uri);
                self.forget_unused();
                self.cell_changed(&uri);
                self.look_around(&uri);
            }
            Event::Edited { uri, version, changes } => self.edited(&uri, version, changes),
            Event::Lost { uri } => {
                if let Some((document, _)) = self.documents.get_mut(&uri) {
                    let reason = "a change could not be understood";
                    document.lose(reason);
                    self.lost(&uri, reason);
                }
                self.cell_changed(&uri);
                self.usage.close(&uri);
            }
            Event::Notebook { uri, change } => self.notebook_changed(&uri, change),
            Event::Saved { uri } => {
                debug!(uri, "saved");
                self.note_list(&uri);
            }
            Event::Closed { uri } => {
                self.let_go(&uri, Question::abandon);
                self.outdate(&uri, None);
                self.usage.close(&uri);
                if let Some((document, _)) = self.documents.remove(&uri) {
                    let at = document.location();
                    let is_last = !self.documents.values().any(|(other, _)| other.root == at.root);
                    self.workspace.gone(at, is_last);
                }
                self.cell_changed(&uri);
                self.notebooks.closed(&uri);
                self.note_list(&uri);
            }
            Event::Relocated { uri, location } => self.relocated(&uri, location),
            Event::Configured(settings) => self.configured(*settings),
            Event::Accepted => self.usage.confirm_acceptance(),
            Event::UpdateUsage(reply) => {
                self.usage.update_all();
                // An error means that whoever asked has gone.
                let _ = reply.send(());
            }
            Event::Paused { scope, paused } => {
                self.pauses.set(scope, paused);
                (self.notices)(Notice::Paused(self.pauses.clone()));
            }
            // An error means that whoever asked has gone.
            Event::Explain(reply) => drop(reply.send(self.explained.without_secrets())),
            Event::Asked(asked) => self.asked(asked),
            Event::Looked { uri, position } => self.looked(uri, position),
            Event::Worked { question, suggestion, work } => {
                self.explained.note(Explanation::new(&question.snapshot, suggestion.as_ref(), Some(work)));
            }
            Event::Loaded(outcome) => self.loaded(outcome),
            Event::Finished { question, suggestion, barren } => {
                if self.working.as_ref().is_some_and(|working| Arc::ptr_eq(working, &question)) {
                    self.working = None;
                }
                // Asked again just when the completer had finished it, it has a new place to be answered at.
                question.sketch(suggestion.clone());
                question.expire();
                if (suggestion.is_some() || barren) && question.snapshot.selected.is_none() {
                    self.remember(&question.uri, &question.snapshot, suggestion.as_ref());
                }
                self.tell_growth(&question);
            }
            Event::Foreseen { uri, snapshot, suggestion } => {
                self.remember(&uri, &snapshot, suggestion.as_ref());
            }
            Event::Widened { question, first, others } => {
                // The first is kept already: it was foreseen.
                let Question { uri, snapshot, .. } = &*question;
                if snapshot.options == self.settings.suggest
                    && let Some((_, cache)) = self.documents.get_mut(uri)
                {
                    cache.widen(&snapshot.text, snapshot.cursor, &first, &others);
                }
            }
            Event::Indexed { root, index } if index.files().is_empty() => drop(self.indexes.remove(&root)),
            Event::Indexed { root, index } => drop(self.indexes.insert(root, index)),
            Event::Noticed(notice) => (self.notices)(notice),
            Event::Stop => {}
        }
    }

    /// Says that a document is out of step.
    fn lost(&mut self, uri: &str, reason: &'static str) {
        warn!(uri, reason, "out of step; no suggestions until the text arrives whole");
        (self.notices)(Notice::Trace(TraceEvent::DocumentLost { uri: uri.to_owned(), reason }));
    }

    /// Says that a message was about no open document.
    fn unknown(&mut self, uri: &str, message: &str) {
        warn!(uri, "{message} of a document that is not open");
        (self.notices)(Notice::Trace(TraceEvent::UnknownDocument { uri: uri.to_owned() }));
    }

    /// Keeps what came out for a place, be it nothing.
    fn remember(&mut self, uri: &str, snapshot: &Snapshot, suggestion: Option<&Suggestion>) {
        // Made before the settings changed, it may be what they now forbid.
        if snapshot.options != self.settings.suggest || !self.comes_after(uri, snapshot) {
            return;
        }
        let Some((_, cache)) = self.documents.get_mut(uri) else { return };
        match suggestion {
            Some(suggestion) => cache.put(&snapshot.text, snapshot.cursor, suggestion),
            None => cache.put_barren(&snapshot.text, snapshot.cursor),
        }
    }

    /// Has the editor ask again where it was answered before the end of the work, and more came out.
    fn tell_growth(&mut self, question: &Question) {
        let Some(grown) = question.outgrown().filter(|_| self.refreshes) else { return };
        let Question { uri, snapshot, .. } = question;
        let Some((document, cache)) = self.documents.get_mut(uri) else { return };
        // Only what is at hand: a question that led to new work would lead to the next one.
        if document.text.is_instance(&snapshot.text)
            && cache.get(&snapshot.text, snapshot.cursor) == Some(grown)
        {
            let position = position::position(&snapshot.text, snapshot.cursor, self.encoding);
            let (uri, version) = (uri.clone(), document.version);
            (self.notices)(Notice::Grown(Grown { uri, position, version }));
        }
    }

    /// Ends, for the editor, every question about a document.
    fn let_go(&mut self, uri: &str, end: impl Fn(&Question)) {
        self.resting.take_if(|(_, question)| question.uri == uri);
        self.open.retain(|question| {
            let concerned = question.uri == uri;
            if concerned {
                end(question);
            }
            !concerned
        });
    }

    fn edited(&mut self, uri: &str, version: Option<i64>, changes: Vec<Change>) {
        let shown = self.usage.begin_edit(uri);
        let Some((document, _)) = self.documents.get_mut(uri) else {
            self.unknown(uri, "a change");
            return;
        };
        let was_lost = document.lost();
        document.change(version, changes, self.encoding, shown);
        let (is_lost, text) = (document.lost(), document.text.clone());
        match (was_lost, is_lost) {
            (None, Some(reason)) => self.lost(uri, reason),
            (Some(_), None) => info!(uri, "in step again"),
            _ => {}
        }
        let text = is_lost.is_none().then_some(text);
        self.cell_changed(uri);
        if text.is_none() {
            self.usage.close(uri);
        } else {
            self.usage.update(uri);
        }
        self.outdate(uri, text.clone());
        // An answer now would be placed by the text before the change, and editors that show whatever comes
        // would show it in the wrong place. The work goes on where it may be the next answer, typed through.
        // A popup is filtered by what is typed meanwhile, and who waits for one (Helix) does not ask for the next
        // before this one is there: its question moves on as long as what is typed may be the answer's beginning.
        let fits = |it: &Question| it.is_in_popup() && text.as_ref().is_some_and(|text| it.foresaw(text));
        let kept = |it: &Question| it.uri == uri && it.is_open() && fits(it);
        let moving: Vec<_> = self.open.extract_if(.., |it| kept(it)).collect();
        self.let_go(uri, Question::supersede);
        for question in moving {
            self.move_on(&question);
        }
    }

    /// A document is in another folder of the workspace, or in none any more.
    fn relocated(&mut self, uri: &str, location: Location) {
        let Some((document, cache)) = self.documents.get_mut(uri) else { return };
        let before = document.location();
        if !document.relocate(location) {
            return;
        }
        // What was suggested knew other files.
        cache.clear();
        let is_last = !self.documents.values().any(|(other, _)| other.root == before.root);
        self.workspace.gone(before, is_last);
        self.find_excluded(uri);
        self.look_around(uri);
    }

    /// Ends the work on a document that was closed, or whose text has become one that nobody foresaw.
    fn outdate(&mut self, uri: &str, text: Option<Rope>) {
        let foreseen = |it: &Question| it.uri != uri || text.as_ref().is_some_and(|text| it.foresaw(text));
        if let Some(latest) = self.latest.take_if(|latest| !foreseen(latest)) {
            latest.outdate();
        }
    }

    fn configured(&mut self, settings: Settings) {
        let reload = settings.engine != self.settings.engine;
        if settings.suggest != self.settings.suggest || reload {
            self.documents.values_mut().for_each(|(_, cache)| cache.clear());
        }
        let lists_changed = settings.excluded_files != self.settings.excluded_files;
        self.settings = settings;
        if lists_changed {
            self.find_all_excluded();
            self.workspace.exclude(self.settings.excluded_files.clone());
        }
        self.look_around_all();
        if !self.settings.statistics {
            self.usage.clear();
        }
        if reload {
            self.told = None;
            self.load(false);
        }
    }

    fn load(&mut self, again: bool) {
        self.model = Model::Loading;
        let settings: EngineSettings = self.settings.engine.clone();
        if let Some(Job::Ask(question)) = self.mailbox.put(Job::Load { settings, again }) {
            question.answer(None);
        }
    }

    fn loaded(&mut self, outcome: Result<(Box<About>, Option<usize>), String>) {
        match outcome {
            Ok((about, snippets)) => {
                self.model = Model::Ready;
                self.best_snippets = snippets;
                self.look_around_all();
                self.usage.set_model(&about.model);
                self.told = None;
                let model = about.model.clone();
                (self.notices)(Notice::Loaded(about));
                (self.notices)(Notice::Trace(TraceEvent::ModelLoaded { model }));
            }
            Err(problem) => {
                self.model = Model::Failed(Instant::now());
                (self.notices)(Notice::Failed(problem.clone()));
                if self.told.as_ref() != Some(&problem) {
                    error!(problem, "no model");
                    (self.notices)(Notice::Problem(format!("taper cannot suggest yet: {problem}")));
                    self.told = Some(problem);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;

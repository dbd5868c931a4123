//! The completer: the thread that owns the engine, loads it, and works on the newest question.
//! It knows nothing of documents, of deadlines kept, or of who asks.

use std::mem::Discriminant;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crossbeam_channel::Sender;
use taper_engine::{Engine, EngineError};
use tracing::{debug, error, info, trace, warn};

use crate::config::EngineSettings;
use crate::prompt::template::Profile;
use crate::session::mailbox::Mailbox;
use crate::session::reply::Question;
use crate::session::{Event, Notice};
use crate::suggest::{Suggestion, suggest};

/// How far the loading of a model is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loading {
    /// What goes on, for a person.
    pub message: String,
    /// How much of it is done, 0 to 100, if that is known.
    pub percent: Option<u32>,
}

/// One attempt to load an engine.
pub struct Attempt<'a> {
    /// What is asked for.
    pub settings: &'a EngineSettings,
    /// Whether an attempt with the same settings failed before: then look again what is there, but do not
    /// try once more to fetch it.
    pub again: bool,
    /// To be told how far it is.
    pub report: &'a mut dyn FnMut(Loading),
}

/// Where the engine comes from: called on the completer's thread, again after a failure and when the
/// settings of the engine change.
pub type Source = Box<dyn FnMut(Attempt<'_>) -> anyhow::Result<Box<dyn Engine>> + Send>;

/// What the completer is asked to do.
#[derive(Debug)]
pub(crate) enum Job {
    /// Load an engine in place of the present one.
    Load { settings: EngineSettings, again: bool },
    /// Work on a question.
    Ask(Arc<Question>),
}

/// A loaded engine.
struct Resident {
    engine: Box<dyn Engine>,
    profile: Profile,
}

/// The completer's thread, until the mailbox is closed.
pub(crate) struct Completer {
    pub(crate) mailbox: Arc<Mailbox<Job>>,
    pub(crate) source: Source,
    pub(crate) events: Sender<Event>,
    /// Kinds of errors that the user has been told of.
    told: Vec<Discriminant<EngineError>>,
    told_of_panic: bool,
}

impl Completer {
    pub(crate) fn new(mailbox: Arc<Mailbox<Job>>, source: Source, events: Sender<Event>) -> Self {
        Self { mailbox, source, events, told: Vec::new(), told_of_panic: false }
    }

    pub(crate) fn run(mut self) {
        let mut resident = None;
        while let Some(job) = self.mailbox.take() {
            match job {
                Job::Load { settings, again } => {
                    // First let go of the old one: two models may not fit into memory.
                    drop(resident.take());
                    resident = self.load(&settings, again);
                }
                Job::Ask(question) => match &mut resident {
                    Some(resident) => self.complete(resident, &question),
                    None => {
                        question.answer(None);
                        self.finished(&question, None);
                    }
                },
            }
        }
    }

    fn load(&mut self, settings: &EngineSettings, again: bool) -> Option<Resident> {
        let events = self.events.clone();
        let mut report = |loading| {
            let _ = events.send(Event::Noticed(Notice::Loading(loading)));
        };
        let source = &mut self.source;
        let loaded = catch_unwind(AssertUnwindSafe(|| {
            let engine = source(Attempt { settings, again, report: &mut report })?;
            let profile = Profile::of(engine.about(), engine.tokens());
            anyhow::Ok(Resident { engine, profile })
        }));
        let loaded = loaded.unwrap_or_else(|_| {
            Err(anyhow::anyhow!("loading the model failed inside taper; `taper doctor` may say more"))
        });
        let (resident, outcome) = match loaded {
            Ok(resident) => {
                let about = resident.engine.about();
                info!(
                    model = about.model,
                    device = about.device,
                    kernel = about.kernel,
                    "the model is loaded"
                );
                let outcome = Ok(about.model.clone());
                (Some(resident), outcome)
            }
            Err(problem) => (None, Err(format!("{problem:#}"))),
        };
        let _ = self.events.send(Event::Loaded(outcome));
        resident
    }

    fn complete(&mut self, resident: &mut Resident, question: &Arc<Question>) {
        if question.is_idle_work() {
            self.finished(question, None);
            return;
        }
        let mailbox = Arc::clone(&self.mailbox);
        let mut ended_early = false;
        let mut watch = |draft: Option<Suggestion>| {
            question.sketch(draft);
            // The deadline is no reason to end: what is finished after it serves the next keystroke.
            ended_early = mailbox.is_waiting() || question.is_idle_work();
            if ended_early { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let Resident { engine, profile } = resident;
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            suggest(&question.snapshot, profile, engine.as_mut(), &mut watch)
        }));
        match outcome {
            Ok(Ok((suggestion, work))) => {
                if ended_early {
                    question.sketch(suggestion);
                    question.expire();
                    self.finished(question, None);
                } else {
                    question.answer(suggestion.clone());
                    self.finished(question, suggestion);
                }
                debug!(
                    prompt_tokens = work.prompt_tokens,
                    evaluated = work.evaluated,
                    decoded = work.decoded,
                    prefill_seconds = work.prefill_seconds,
                    decode_seconds = work.decode_seconds,
                    reason = work.reason,
                    ended_early,
                    "worked on a question"
                );
                trace!(raw = work.raw, "the model's text");
            }
            Ok(Err(problem)) => {
                question.answer(None);
                self.finished(question, None);
                self.tell(&problem);
            }
            Err(_) => {
                question.answer(None);
                if catch_unwind(AssertUnwindSafe(|| engine.clear())).is_err() {
                    error!("the engine panicked while it was cleared");
                }
                self.finished(question, None);
                error!("the engine panicked; its cache is cleared, the answer was empty");
                if !std::mem::replace(&mut self.told_of_panic, true) {
                    self.notice(
                        "taper failed inside while suggesting and goes on; its log says where.".to_owned(),
                    );
                }
            }
        }
    }

    /// Says that a question is not worked on any more.
    fn finished(&self, question: &Arc<Question>, suggestion: Option<Suggestion>) {
        let _ = self.events.send(Event::Finished { question: Arc::clone(question), suggestion });
    }

    /// Logs an error, and shows the first of its kind to the user.
    fn tell(&mut self, problem: &EngineError) {
        let kind = std::mem::discriminant(problem);
        if self.told.contains(&kind) {
            debug!(%problem, "the engine failed again");
            return;
        }
        self.told.push(kind);
        warn!(%problem, "the engine failed");
        self.notice(format!(
            "taper cannot suggest: {problem}. `taper doctor` says what this machine can do."
        ));
    }

    fn notice(&self, message: String) {
        let _ = self.events.send(Event::Noticed(Notice::Problem(message)));
    }
}

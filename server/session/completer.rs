//! The completer: the thread that owns the engine, loads it, and works on the newest question.
//! It knows nothing of documents, of deadlines kept, or of who asks.

use std::mem::Discriminant;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use taper_engine::{Engine, EngineError};
use tracing::{debug, error, info, trace, warn};

use crate::config::EngineSettings;
use crate::prompt::template::Profile;
use crate::session::mailbox::Mailbox;
use crate::session::reply::Question;
use crate::session::{Event, Notice};
use crate::suggest::{Idle, Snapshot, Suggestion, Work, ahead, suggest_within};
use crate::text::lines;

/// Time that an answer needs from the model to the editor.
const MARGIN: Duration = Duration::from_millis(10);
/// Nobody accepts a suggestion sooner: until then the next keystroke is likelier.
const REST: Duration = Duration::from_millis(150);
/// Who was interrupted while reading the whole window waits so long before beginning again, and each time longer:
/// what is read of it costs the short window its place in the cache.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(2));

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
    /// How long to wait before a whole window is read.
    patience: Duration,
    /// The place that was last answered ahead.
    ahead: Option<Box<Snapshot>>,
}

impl Completer {
    pub(crate) fn new(mailbox: Arc<Mailbox<Job>>, source: Source, events: Sender<Event>) -> Self {
        let (told, told_of_panic) = (Vec::new(), false);
        Self { mailbox, source, events, told, told_of_panic, patience: Duration::ZERO, ahead: None }
    }

    pub(crate) fn run(mut self) {
        let mut resident = None;
        while let Some(job) = self.mailbox.take() {
            match job {
                Job::Load { settings, again } => {
                    // First let go of the old one: two models may not fit into memory.
                    drop(resident.take());
                    self.ahead = None;
                    resident = self.load(&settings, again);
                }
                Job::Ask(question) => match &mut resident {
                    Some(resident) => self.complete(resident, &question),
                    None => {
                        question.answer(None);
                        self.finished(&question, None, false);
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
                let outcome = Ok(Box::new(about.clone()));
                (Some(resident), outcome)
            }
            Err(problem) => (None, Err(format!("{problem:#}"))),
        };
        let _ = self.events.send(Event::Loaded(outcome));
        resident
    }

    fn complete(&mut self, resident: &mut Resident, question: &Arc<Question>) {
        if question.is_idle_work() {
            self.finished(question, None, false);
            return;
        }
        let time_left = question.deadline().saturating_duration_since(Instant::now()).saturating_sub(MARGIN);
        let frugal = question.snapshot.options.idle == Idle::Off;
        let mailbox = Arc::clone(&self.mailbox);
        let mut ended_early = false;
        let mut watch = |draft: Option<Suggestion>| {
            question.sketch(draft);
            // The deadline alone is no reason to end: what is finished after it serves the next keystroke.
            ended_early = mailbox.is_waiting()
                || question.is_idle_work()
                || (frugal && Instant::now() >= question.deadline());
            if ended_early { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let Resident { engine, profile } = resident;
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            suggest_within(Some(time_left), &question.snapshot, profile, engine.as_mut(), &mut watch)
        }));
        match outcome {
            Ok(Ok((suggestion, work))) => {
                // Before the answer leaves: who asks how it came about has seen it.
                self.worked(question, suggestion.as_ref(), &work);
                if ended_early {
                    question.sketch(suggestion.clone());
                    question.expire();
                    self.finished(question, None, false);
                } else {
                    question.answer(suggestion.clone());
                    // The whole window may yield something where a short one did not.
                    let barren = suggestion.is_none() && work.prompt_tokens > 0 && !work.short;
                    self.finished(question, suggestion.clone(), barren);
                }
                debug!(
                    prompt_tokens = work.prompt_tokens,
                    short = work.short,
                    evaluated = work.evaluated,
                    decoded = work.decoded,
                    prefill_seconds = work.prefill_seconds,
                    decode_seconds = work.decode_seconds,
                    reason = work.reason,
                    ended_early,
                    "worked on a question"
                );
                trace!(raw = work.raw, "the model's text");
                if !work.short {
                    self.patience = Duration::ZERO;
                }
                if !ended_early && !frugal {
                    self.idle(resident, question, suggestion, work.short);
                }
            }
            Ok(Err(problem)) => {
                question.answer(None);
                self.finished(question, None, false);
                self.tell(&problem);
            }
            Err(_) => {
                question.answer(None);
                if catch_unwind(AssertUnwindSafe(|| engine.clear())).is_err() {
                    error!("the engine panicked while it was cleared");
                }
                self.finished(question, None, false);
                error!("the engine panicked; its cache is cleared, the answer was empty");
                if !std::mem::replace(&mut self.told_of_panic, true) {
                    self.notice(
                        "taper failed inside while suggesting and goes on; its log says where.".to_owned(),
                    );
                }
            }
        }
    }

    /// Works for the questions that will come, until one does or nothing is left to do.
    fn idle(
        &mut self,
        resident: &mut Resident,
        question: &Arc<Question>,
        shown: Option<Suggestion>,
        short: bool,
    ) {
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            if short && !self.read_whole(resident, question)? {
                return Ok(());
            }
            match shown {
                Some(shown) => self.answer_ahead(resident, question, &shown),
                None => Ok(()),
            }
        }));
        match outcome {
            Ok(Ok(())) => {}
            // Nobody waits for this work: the next question tells, if it fails as well.
            Ok(Err(problem)) => debug!(%problem, "the engine failed while nobody waited"),
            Err(_) => {
                error!("the engine panicked while nobody waited; its cache is cleared");
                if catch_unwind(AssertUnwindSafe(|| resident.engine.clear())).is_err() {
                    error!("the engine panicked while it was cleared");
                }
            }
        }
    }

    /// Reads what a short window left out; says whether it came to the end of it.
    fn read_whole(&mut self, resident: &mut Resident, question: &Question) -> Result<bool, EngineError> {
        if self.mailbox.wait(self.patience) {
            return Ok(false);
        }
        let Resident { engine, profile } = resident;
        let mut watch = || self.watch(question);
        let done = ahead::read(&question.snapshot, profile, engine.as_mut(), &mut watch)?;
        let (first, longest) = PATIENCE;
        self.patience = if done { Duration::ZERO } else { (self.patience * 2).clamp(first, longest) };
        debug!(done, "read the whole window");
        Ok(done)
    }

    /// Answers what will be asked once `shown` is accepted.
    fn answer_ahead(
        &mut self,
        resident: &mut Resident,
        question: &Question,
        shown: &Suggestion,
    ) -> Result<(), EngineError> {
        let snapshot = &question.snapshot;
        // Behind a new line the model chooses the indentation: what an editor puts there is the beginning of it.
        let new_line = lines::line_break(&snapshot.text);
        let typed = if snapshot.options.idle == Idle::Full { vec!["", new_line] } else { vec![""] };
        if snapshot.selected.is_some() || self.mailbox.wait(REST) {
            return Ok(());
        }
        let Resident { engine, profile } = resident;
        for typed in typed {
            let mut watch = || self.watch(question);
            let Some(place) = ahead::accepted(snapshot, shown, typed, &mut || watch().is_break()) else {
                return Ok(());
            };
            let known = self.ahead.as_ref().is_some_and(|it| {
                it.cursor == place.cursor && it.options == place.options && it.text == place.text
            });
            if known {
                continue;
            }
            debug!("answers ahead");
            let Some((suggestion, work)) = ahead::answer(&place, profile, engine.as_mut(), &mut watch)?
            else {
                return Ok(());
            };
            debug!(evaluated = work.evaluated, decoded = work.decoded, "answered ahead");
            let place = Box::new(place);
            self.ahead = Some(place.clone());
            if work.prompt_tokens > 0 {
                let uri = question.uri.clone();
                let _ = self.events.send(Event::Foreseen { uri, snapshot: place, suggestion });
            }
        }
        Ok(())
    }

    /// Ends work that nobody waits for when somebody does.
    fn watch(&self, question: &Question) -> ControlFlow<()> {
        if self.mailbox.is_waiting() || question.is_idle_work() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    /// Says that a question is not worked on any more.
    fn finished(&self, question: &Arc<Question>, suggestion: Option<Suggestion>, barren: bool) {
        let _ = self.events.send(Event::Finished { question: Arc::clone(question), suggestion, barren });
    }

    /// Says what the work on a question was.
    fn worked(&self, question: &Arc<Question>, suggestion: Option<&Suggestion>, work: &Work) {
        let (question, suggestion, work) =
            (Arc::clone(question), suggestion.cloned(), Box::new(work.clone()));
        let _ = self.events.send(Event::Worked { question, suggestion, work });
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

//! The completer: the thread that owns the engine, loads it, and works on the newest question.
//! It knows nothing of documents, of deadlines kept, or of who asks.

use std::mem::Discriminant;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use taper_engine::{Engine, EngineError};
use tracing::{debug, error, info, trace, warn};

use crate::config::EngineSettings;
use crate::prompt::template::Profile;
use crate::session::follow::{Following, Idling, Newest, flow};
use crate::session::mailbox::Mailbox;
use crate::session::reply::Question;
use crate::session::trace::{TraceEvent, WorkSummary};
use crate::session::{Event, Notice};
use crate::suggest::ahead::{Answered, Depth, Read};
use crate::suggest::{Idle, Snapshot, Suggestion, Work, ahead, reuse, suggest_within};

/// Time that an answer needs from the model to the editor.
const MARGIN: Duration = Duration::from_millis(10);
/// Nobody accepts a suggestion sooner: until then the next keystroke is likelier.
const REST: Duration = Duration::from_millis(150);
/// Places that were answered ahead and are not answered ahead again: as many as follow one place.
const FORESEEN: usize = 2;

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
    /// Work for what comes behind a question that was answered so.
    Ahead(Arc<Question>, Answered),
}

/// A loaded engine.
pub(super) struct Resident {
    pub(super) engine: Box<dyn Engine>,
    pub(super) profile: Profile,
}

/// The completer's thread, until the mailbox is closed.
pub(crate) struct Completer {
    pub(crate) mailbox: Arc<Mailbox<Job>>,
    pub(crate) source: Source,
    pub(crate) events: Sender<Event>,
    /// Kinds of errors that the user has been told of.
    told: Vec<Discriminant<EngineError>>,
    told_of_panic: bool,
    /// The places that were last answered ahead, the oldest first, and from how much.
    foreseen: Vec<(Snapshot, Depth)>,
}

impl Completer {
    pub(crate) fn new(mailbox: Arc<Mailbox<Job>>, source: Source, events: Sender<Event>) -> Self {
        let (told, told_of_panic) = (Vec::new(), false);
        Self { mailbox, source, events, told, told_of_panic, foreseen: Vec::new() }
    }

    pub(crate) fn run(mut self) {
        let mut resident = None;
        let mut next = None;
        while let Some(job) = self.newest(next.take()) {
            next = match job {
                Job::Load { settings, again } => {
                    // First let go of the old one: two models may not fit into memory.
                    drop(resident.take());
                    self.foreseen.clear();
                    resident = self.load(&settings, again);
                    None
                }
                Job::Ask(question) => match &mut resident {
                    Some(resident) => self.complete(resident, question),
                    None => {
                        question.answer(None);
                        self.finished(&question, None, false);
                        None
                    }
                },
                Job::Ahead(question, answered) => {
                    resident.as_mut().and_then(|resident| self.idle(resident, question, &answered))
                }
            };
        }
    }

    /// The next job: what waits comes before what one's own work led to. `None` once the mailbox is closed.
    fn newest(&self, own: Option<Job>) -> Option<Job> {
        if !self.mailbox.is_waiting()
            && let Some(job) = own
        {
            return Some(job);
        }
        if let Some(Job::Ask(older)) = own {
            older.supersede();
            self.finished(&older, None, false);
        }
        self.mailbox.take()
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
                let outcome = Ok((Box::new(about.clone()), resident.profile.snippets()));
                (Some(resident), outcome)
            }
            Err(problem) => (None, Err(with_causes(&problem))),
        };
        let _ = self.events.send(Event::Loaded(outcome));
        resident
    }

    fn complete(&mut self, resident: &mut Resident, question: Arc<Question>) -> Option<Job> {
        let (now, deadline) = (Instant::now(), question.deadline());
        let frugal = question.snapshot.options.idle == Idle::Off;
        if question.is_cancelled() || question.is_unwanted(now) || (frugal && now >= deadline) {
            self.finished(&question, None, false);
            return None;
        }
        let time_to_read = question.time_to_read(now, MARGIN);
        let mailbox = Arc::clone(&self.mailbox);
        let mut following = Following::asked(&mailbox, &question);
        let outcome = generate(resident, time_to_read, &question.snapshot, &mut following);
        let ended_early = following.is_broken();
        let newest = following.ended();
        let follower = Some(&newest.question).filter(|newest| !Arc::ptr_eq(newest, &question)).cloned();
        match outcome {
            Ok((suggestion, work)) => {
                // Before the answer leaves: who asks how it came about has seen it.
                self.worked(&question, suggestion.as_ref(), &work);
                let summary = WorkSummary::new(&work, ended_early);
                log(&work, ended_early, follower.is_some(), "worked on a question");
                if ended_early {
                    question.sketch(suggestion);
                    question.expire();
                    self.finished(&question, None, false);
                    self.trace(TraceEvent::Completed(summary));
                    return follower.map(Job::Ask);
                }
                let suggestion = self.look_further(resident, &newest, suggestion, &work);
                // A longer window may yield something where a short one did not.
                let is_final = || {
                    let Resident { engine, profile } = &*resident;
                    ahead::is_longest(work.prompt_tokens, &question.snapshot, profile, engine.as_ref())
                };
                let looked = work.prompt_tokens > 0 && !work.search_ended;
                let barren = suggestion.is_none() && looked && (!work.short || is_final());
                // Kept before the answer leaves, so that the next keystroke finds it.
                self.finished(&question, suggestion.clone(), barren);
                question.answer(suggestion.clone());
                self.trace(TraceEvent::Completed(summary));
                if Arc::ptr_eq(&newest.question, &question) {
                    return behind(question, suggestion);
                }
                self.answered(newest, suggestion)
            }
            Err(failure) => {
                for question in [Some(question), follower].into_iter().flatten() {
                    question.answer(None);
                    self.finished(&question, None, false);
                }
                self.tell(failure);
                None
            }
        }
    }

    /// Answers the newest question that a generation was for with what is left of its result. What is to be done next:
    /// work on the question itself if nothing is left, or what comes behind it.
    fn answered(&mut self, newest: Newest, suggestion: Option<Suggestion>) -> Option<Job> {
        let Newest { question, typed, .. } = newest;
        let rest = suggestion.as_ref().and_then(|it| reuse::rest(it, &typed));
        if rest.is_none() && !typed.is_empty() {
            return Some(Job::Ask(question));
        }
        question.sketch(rest.clone());
        question.answer(rest.clone());
        self.finished(&question, None, false);
        behind(question, rest)
    }

    /// Works for the questions that will come, until one does or nothing is left to do. What is to be done next, if
    /// it came to answer one.
    fn idle(&mut self, resident: &mut Resident, question: Arc<Question>, answered: &Answered) -> Option<Job> {
        let mailbox = Arc::clone(&self.mailbox);
        let mut idling = Idling::new(&mailbox, Arc::clone(&question), answered);
        // Where all takes long to read, what is made of less is there meanwhile.
        for depth in [Depth::Soon, Depth::Whole] {
            let snapshot = &question.snapshot;
            let read = self.unasked(resident, |resident| {
                let Resident { engine, profile } = resident;
                ahead::read(depth, snapshot, profile, engine.as_mut(), &mut || flow(idling.is_over()))
            });
            match read {
                Some(Read::Already | Read::Part) => {}
                Some(Read::Whole) => self.trace(TraceEvent::WindowPrefilled),
                Some(Read::Interrupted) | None => return None,
            }
            if snapshot.selected.is_none() {
                if idling.pause(REST) {
                    return None;
                }
                match self.foresee_next(resident, &mut idling, snapshot, answered, depth) {
                    Foresight::Done => {}
                    Foresight::Over => return None,
                    Foresight::Asked(job) => return job,
                }
            }
            if read != Some(Read::Part) {
                return None;
            }
        }
        None
    }

    /// Answers what may be asked next behind `snapshot`, which was answered so.
    fn foresee_next(
        &mut self,
        resident: &mut Resident,
        idling: &mut Idling<'_>,
        snapshot: &Snapshot,
        answered: &Answered,
        depth: Depth,
    ) -> Foresight {
        for next in ahead::next(snapshot, answered) {
            let Some(place) = ahead::accepted(snapshot, next, &mut || idling.is_over()) else {
                return Foresight::Over;
            };
            let known = |(it, from): &(Snapshot, Depth)| {
                *from >= depth
                    && it.cursor == place.cursor
                    && it.options == place.options
                    && it.text == place.text
            };
            if self.foreseen.iter().any(known) {
                continue;
            }
            self.trace(TraceEvent::PrefetchStarted);
            let foresight = self.foresee(resident, idling, place, depth);
            if !matches!(foresight, Foresight::Done) {
                return foresight;
            }
        }
        Foresight::Done
    }

    /// Answers for a place where nobody asks yet; or somebody, meanwhile.
    fn foresee(
        &mut self,
        resident: &mut Resident,
        idling: &mut Idling<'_>,
        place: Snapshot,
        depth: Depth,
    ) -> Foresight {
        let read = self.unasked(resident, |resident| {
            let Resident { engine, profile } = resident;
            ahead::read(depth, &place, profile, engine.as_mut(), &mut || flow(idling.is_over()))
        });
        if matches!(read, Some(Read::Interrupted) | None) {
            return Foresight::Over;
        }
        let mailbox = Arc::clone(&self.mailbox);
        let uri = idling.question.uri.clone();
        let mut following = Following::ahead(&mailbox, idling, &uri, &place);
        let outcome = generate(resident, ahead::MEANWHILE, &place, &mut following);
        let ended_early = following.is_broken();
        let newest = following.ended();
        let asked = newest.asked;
        let (suggestion, work) = match outcome {
            Ok(it) => it,
            Err(failure) if asked => {
                newest.question.answer(None);
                self.finished(&newest.question, None, false);
                self.tell(failure);
                return Foresight::Over;
            }
            // Nobody waits for this work: the next question tells, if it fails as well.
            Err(failure) => {
                debug!(?failure, "the engine failed while nobody waited");
                return Foresight::Over;
            }
        };
        if ended_early {
            log(&work, ended_early, asked, "stopped answering ahead");
            return if asked { Foresight::Asked(Some(Job::Ask(newest.question))) } else { Foresight::Over };
        }
        if self.foreseen.len() == FORESEEN {
            self.foreseen.remove(0);
        }
        let from = if read == Some(Read::Part) { depth } else { Depth::Whole };
        self.foreseen.push((place.clone(), from));
        // More of the file may yield something where a part did not.
        if work.prompt_tokens > 0 && (from == Depth::Whole || suggestion.is_some()) {
            let (snapshot, suggestion) = (Box::new(place), suggestion.clone());
            let _ = self.events.send(Event::Foreseen { uri, snapshot, suggestion });
        }
        log(&work, ended_early, asked, "answered ahead");
        self.trace(TraceEvent::Prefetched(WorkSummary::new(&work, ended_early)));
        if asked {
            return Foresight::Asked(self.answered(newest, suggestion));
        }
        idling.question = newest.question;
        Foresight::Done
    }

    /// Work of the engine that nobody waits for; `None` if it failed.
    fn unasked<T>(
        &self,
        resident: &mut Resident,
        work: impl FnOnce(&mut Resident) -> Result<T, EngineError>,
    ) -> Option<T> {
        let done = guarded(resident, work);
        // The next question tells, if it fails as well.
        done.inspect_err(|failure| debug!(?failure, "the engine failed while nobody waited")).ok()
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

    /// Logs a failure, and shows the first of its kind to the user.
    fn tell(&mut self, failure: Failure) {
        let problem = match failure {
            Failure::Told(problem) => problem,
            Failure::Panicked => {
                if !std::mem::replace(&mut self.told_of_panic, true) {
                    self.notice(
                        "taper failed inside while suggesting and goes on; its log says where.".to_owned(),
                    );
                }
                return;
            }
        };
        let kind = std::mem::discriminant(&problem);
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

    pub(super) fn trace(&self, event: TraceEvent) {
        let _ = self.events.send(Event::Noticed(Notice::Trace(event)));
    }

    fn notice(&self, message: String) {
        let _ = self.events.send(Event::Noticed(Notice::Problem(message)));
    }
}

/// What is to be done behind a question that was answered so.
fn behind(question: Arc<Question>, suggestion: Option<Suggestion>) -> Option<Job> {
    let goes_on = question.snapshot.options.idle != Idle::Off && !question.is_cancelled();
    goes_on.then(|| Job::Ahead(question, suggestion.into()))
}

/// What became of work ahead.
enum Foresight {
    /// It is done.
    Done,
    /// It was interrupted, or failed.
    Over,
    /// Somebody asked meanwhile; what is to be done next.
    Asked(Option<Job>),
}

/// Why the engine gave nothing.
#[derive(Debug)]
pub(super) enum Failure {
    /// It says why.
    Told(EngineError),
    /// It panicked; its cache is cleared.
    Panicked,
}

/// Lets the engine work. A panic costs its cache and nothing else.
pub(super) fn guarded<T>(
    resident: &mut Resident,
    work: impl FnOnce(&mut Resident) -> Result<T, EngineError>,
) -> Result<T, Failure> {
    match catch_unwind(AssertUnwindSafe(|| work(resident))) {
        Ok(done) => done.map_err(Failure::Told),
        Err(_) => {
            error!("the engine panicked; its cache is cleared, the answer was empty");
            if catch_unwind(AssertUnwindSafe(|| resident.engine.clear())).is_err() {
                error!("the engine panicked while it was cleared");
            }
            Err(Failure::Panicked)
        }
    }
}

/// An error with its causes, each told once: many tell theirs themselves.
fn with_causes(problem: &anyhow::Error) -> String {
    let mut told = String::new();
    for cause in problem.chain().map(ToString::to_string) {
        if !told.contains(&cause) {
            told.push_str(if told.is_empty() { "" } else { ": " });
            told.push_str(&cause);
        }
    }
    told
}

/// Asks the model about a place.
fn generate(
    resident: &mut Resident,
    time_to_read: Duration,
    place: &Snapshot,
    following: &mut Following<'_>,
) -> Result<(Option<Suggestion>, Work), Failure> {
    guarded(resident, |Resident { engine, profile }| {
        suggest_within(Some(time_to_read), place, profile, engine.as_mut(), &mut |progress| {
            following.watch(progress)
        })
    })
}

fn log(work: &Work, ended_early: bool, followed: bool, what: &str) {
    debug!(
        prompt_tokens = work.prompt_tokens,
        short = work.short,
        older = work.older,
        evaluated = work.evaluated,
        decoded = work.decoded,
        searched = work.searched,
        prefill_seconds = work.prefill_seconds,
        decode_seconds = work.decode_seconds,
        reason = work.reason,
        ended_early,
        followed,
        "{what}"
    );
    trace!(raw = work.raw, "the model's text");
}

//! The inference worker: the thread that owns the engine, loads it, and works on the newest request.

use std::mem::Discriminant;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use taper_engine::{Engine, EngineError};
use tracing::{debug, error, info, trace, warn};

use crate::completion::next_actions::PrefillDepth;
use crate::completion::{
    CompletionWork, IdleSetting, Snapshot, Suggestion, cache, next_actions, suggest_within,
};
use crate::config::EngineSettings;
use crate::prompt::template::Profile;
use crate::session::in_flight::{InFlight, InFlightTarget};
use crate::session::job::Job;
use crate::session::mailbox::Mailbox;
use crate::session::response::CompletionRequest;
use crate::session::trace::{TraceEvent, WorkSummary};
use crate::session::{Event, Notice};

/// Time that a response needs from the model to the editor.
const RESPONSE_MARGIN: Duration = Duration::from_millis(10);

/// Progress of loading a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadProgress {
    /// The current step, for a person.
    pub message: String,
    /// The completed part, 0 to 100, if known.
    pub percent: Option<u32>,
}

/// One attempt to load an engine.
pub struct LoadAttempt<'a> {
    /// The requested settings.
    pub settings: &'a EngineSettings,
    /// Whether an attempt with the same settings failed before: then check again what is present, but do not fetch
    /// it again.
    pub again: bool,
    /// Receives the progress.
    pub report: &'a mut dyn FnMut(LoadProgress),
}

/// Where the engine comes from: called on the worker's thread, again after a failure and when the settings of the
/// engine change.
pub type EngineSource = Box<dyn FnMut(LoadAttempt<'_>) -> anyhow::Result<Box<dyn Engine>> + Send>;

/// A loaded engine.
pub(super) struct LoadedModel {
    pub(super) engine: Box<dyn Engine>,
    pub(super) profile: Profile,
}

/// The inference worker, which runs until the mailbox is closed.
pub(crate) struct InferenceWorker {
    pub(crate) mailbox: Arc<Mailbox<Job>>,
    pub(crate) source: EngineSource,
    pub(crate) events: Sender<Event>,
    /// Kinds of errors that were reported to the user.
    reported_errors: Vec<Discriminant<EngineError>>,
    panic_reported: bool,
    /// The last prefetched snapshots, the oldest first, and the depth of their prompts.
    pub(super) prefetched: Vec<(Snapshot, PrefillDepth)>,
}

impl InferenceWorker {
    pub(crate) fn new(mailbox: Arc<Mailbox<Job>>, source: EngineSource, events: Sender<Event>) -> Self {
        let (reported_errors, panic_reported) = (Vec::new(), false);
        Self { mailbox, source, events, reported_errors, panic_reported, prefetched: Vec::new() }
    }

    pub(crate) fn run(mut self) {
        let mut model = None;
        let mut next = None;
        while let Some(job) = self.next_job(next.take()) {
            next = match job {
                Job::Load { settings, again } => {
                    // First drop the old one: two models may not fit into memory.
                    drop(model.take());
                    self.prefetched.clear();
                    model = self.load_engine(&settings, again);
                    None
                }
                Job::Complete(request) => match &mut model {
                    Some(model) => self.complete(model, request),
                    None => {
                        request.respond(None);
                        self.end_work(&request, None, false);
                        None
                    }
                },
                Job::Prefetch(request, response) => {
                    model.as_mut().and_then(|model| self.work_while_idle(model, request, &response))
                }
            };
        }
    }

    /// The next job: a queued one comes before the worker's own. `None` once the mailbox is closed.
    fn next_job(&self, own: Option<Job>) -> Option<Job> {
        if !self.mailbox.is_waiting()
            && let Some(job) = own
        {
            return Some(job);
        }
        if let Some(Job::Complete(older)) = own {
            older.supersede();
            self.end_work(&older, None, false);
        }
        self.mailbox.take()
    }

    fn load_engine(&mut self, settings: &EngineSettings, again: bool) -> Option<LoadedModel> {
        let events = self.events.clone();
        let mut report = |loading| {
            let _ = events.send(Event::Notify(Notice::Loading(loading)));
        };
        let source = &mut self.source;
        let loaded = catch_unwind(AssertUnwindSafe(|| {
            let engine = source(LoadAttempt { settings, again, report: &mut report })?;
            let profile = Profile::for_model(engine.engine_info(), engine.tokenizer());
            anyhow::Ok(LoadedModel { engine, profile })
        }));
        let loaded = loaded.unwrap_or_else(|_| {
            Err(anyhow::anyhow!("loading the model failed inside taper; `taper doctor` may show why"))
        });
        let (model, outcome) = match loaded {
            Ok(model) => {
                let about = model.engine.engine_info();
                info!(
                    model = about.model,
                    device = about.device,
                    kernel = about.kernel,
                    "the model is loaded"
                );
                let outcome = Ok((Box::new(about.clone()), model.profile.snippet_tokens()));
                (Some(model), outcome)
            }
            Err(problem) => (None, Err(format_causes(&problem))),
        };
        let _ = self.events.send(Event::Loaded(outcome));
        model
    }

    fn complete(&mut self, model: &mut LoadedModel, request: Arc<CompletionRequest>) -> Option<Job> {
        let now = Instant::now();
        let is_late = request.snapshot.options.idle == IdleSetting::Off && now >= request.deadline();
        if request.is_cancelled() || request.is_unwanted(now) || is_late {
            self.end_work(&request, None, false);
            return None;
        }
        let time_to_read = request.time_to_read(now, RESPONSE_MARGIN);
        let mailbox = Arc::clone(&self.mailbox);
        let mut in_flight = InFlight::for_request(&mailbox, &request);
        let outcome = generate(model, time_to_read, &request.snapshot, &mut in_flight);
        let ended_early = in_flight.is_interrupted();
        let target = in_flight.into_target();
        let newer = Some(&target.request).filter(|newest| !Arc::ptr_eq(newest, &request)).cloned();
        match outcome {
            Ok((suggestion, work)) => {
                // Before the response is sent: a client that asks for an explanation has seen it.
                self.report_work(&request, suggestion.as_ref(), &work);
                let summary = WorkSummary::new(&work, ended_early);
                log_work(&work, ended_early, newer.is_some(), "completion finished");
                if ended_early {
                    request.set_draft(suggestion);
                    request.respond_with_draft();
                    self.end_work(&request, None, false);
                    self.trace(TraceEvent::Completed(summary));
                    return newer.map(Job::Complete);
                }
                let suggestion = self.find_alternatives(model, &target, suggestion, &work);
                // A longer window may yield something where a short one did not.
                let is_final = || {
                    let LoadedModel { engine, profile } = &*model;
                    next_actions::is_longest_prompt(
                        work.prompt_tokens,
                        &request.snapshot,
                        profile,
                        engine.as_ref(),
                    )
                };
                let looked = work.prompt_tokens > 0 && !work.search_ended;
                let is_known_empty = suggestion.is_none() && looked && (!work.short || is_final());
                // Cached before the response is sent, so that the next keystroke finds it.
                self.end_work(&request, suggestion.clone(), is_known_empty);
                request.respond(suggestion.clone());
                self.trace(TraceEvent::Completed(summary));
                if newer.is_none() {
                    return prefetch_after(request, suggestion);
                }
                self.respond_newest(target, suggestion)
            }
            Err(failure) => {
                for request in [Some(request), newer].into_iter().flatten() {
                    request.respond(None);
                    self.end_work(&request, None, false);
                }
                self.report_failure(failure);
                None
            }
        }
    }

    /// Responds to the newest request of a generation with the remainder of its result. Returns the next job: the
    /// request itself if nothing remains, or a prefetch after it.
    pub(super) fn respond_newest(
        &mut self,
        target: InFlightTarget,
        suggestion: Option<Suggestion>,
    ) -> Option<Job> {
        let InFlightTarget { request, typed, .. } = target;
        let rest = suggestion.as_ref().and_then(|it| cache::remainder(it, &typed));
        if rest.is_none() && !typed.is_empty() {
            return Some(Job::Complete(request));
        }
        request.set_draft(rest.clone());
        request.respond(rest.clone());
        self.end_work(&request, None, false);
        prefetch_after(request, rest)
    }

    /// Reports that the work on a request has ended.
    pub(super) fn end_work(
        &self,
        request: &Arc<CompletionRequest>,
        suggestion: Option<Suggestion>,
        is_known_empty: bool,
    ) {
        let _ =
            self.events.send(Event::WorkEnded { request: Arc::clone(request), suggestion, is_known_empty });
    }

    /// Reports the work on a request.
    fn report_work(
        &self,
        request: &Arc<CompletionRequest>,
        suggestion: Option<&Suggestion>,
        work: &CompletionWork,
    ) {
        let (request, suggestion, work) = (Arc::clone(request), suggestion.cloned(), Box::new(work.clone()));
        let _ = self.events.send(Event::Completed { request, suggestion, work });
    }

    /// Logs a failure, and reports the first of its kind to the user.
    pub(super) fn report_failure(&mut self, failure: EngineFailure) {
        let problem = match failure {
            EngineFailure::Error(problem) => problem,
            EngineFailure::Panicked => {
                if !std::mem::replace(&mut self.panic_reported, true) {
                    self.notify_user(
                        "taper failed internally while suggesting and continues; see its log.".to_owned(),
                    );
                }
                return;
            }
        };
        let kind = std::mem::discriminant(&problem);
        if self.reported_errors.contains(&kind) {
            debug!(%problem, "the engine failed again");
            return;
        }
        self.reported_errors.push(kind);
        warn!(%problem, "the engine failed");
        self.notify_user(format!(
            "taper cannot suggest: {problem}. Run `taper doctor` to check this machine."
        ));
    }

    pub(super) fn trace(&self, event: TraceEvent) {
        let _ = self.events.send(Event::Notify(Notice::Trace(event)));
    }

    fn notify_user(&self, message: String) {
        let _ = self.events.send(Event::Notify(Notice::Problem(message)));
    }
}

/// The job that follows a request that was answered with `suggestion`.
fn prefetch_after(request: Arc<CompletionRequest>, suggestion: Option<Suggestion>) -> Option<Job> {
    let continues = request.snapshot.options.idle != IdleSetting::Off && !request.is_cancelled();
    continues.then(|| Job::Prefetch(request, suggestion.into()))
}

/// Why the engine returned nothing.
#[derive(Debug)]
pub(super) enum EngineFailure {
    /// It returned an error.
    Error(EngineError),
    /// It panicked; its cache is cleared.
    Panicked,
}

/// Runs the engine. A panic costs only its cache.
pub(super) fn run_guarded<T>(
    model: &mut LoadedModel,
    work: impl FnOnce(&mut LoadedModel) -> Result<T, EngineError>,
) -> Result<T, EngineFailure> {
    match catch_unwind(AssertUnwindSafe(|| work(model))) {
        Ok(done) => done.map_err(EngineFailure::Error),
        Err(_) => {
            error!("the engine panicked; its cache is cleared, the response was empty");
            if catch_unwind(AssertUnwindSafe(|| model.engine.clear())).is_err() {
                error!("the engine panicked while it was cleared");
            }
            Err(EngineFailure::Panicked)
        }
    }
}

/// An error with its causes, each once: many repeat theirs themselves.
fn format_causes(problem: &anyhow::Error) -> String {
    let mut message = String::new();
    for cause in problem.chain().map(ToString::to_string) {
        if !message.contains(&cause) {
            message.push_str(if message.is_empty() { "" } else { ": " });
            message.push_str(&cause);
        }
    }
    message
}

/// Runs the model at a cursor.
pub(super) fn generate(
    model: &mut LoadedModel,
    time_to_read: Duration,
    snapshot: &Snapshot,
    in_flight: &mut InFlight<'_>,
) -> Result<(Option<Suggestion>, CompletionWork), EngineFailure> {
    run_guarded(model, |LoadedModel { engine, profile }| {
        suggest_within(Some(time_to_read), snapshot, profile, engine.as_mut(), &mut |progress| {
            in_flight.poll(progress)
        })
    })
}

pub(super) fn log_work(work: &CompletionWork, ended_early: bool, served_newer: bool, what: &str) {
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
        served_newer,
        "{what}"
    );
    trace!(raw = work.raw, "the model's text");
}

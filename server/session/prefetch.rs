//! What the worker does while idle: prefilling the prompt window, and prefetching the likely next requests.

use std::sync::Arc;
use std::time::Duration;

use tracing::debug;

use crate::completion::next_actions::{self, PrefillDepth, PrefillState, PriorResponse};
use crate::completion::{CompletionWork, Snapshot, Suggestion};
use crate::session::Event;
use crate::session::idle_work::IdleWork;
use crate::session::in_flight::InFlight;
use crate::session::job::{Job, break_if};
use crate::session::response::CompletionRequest;
use crate::session::trace::{TraceEvent, WorkSummary};
use crate::session::worker::{InferenceWorker, LoadedModel, generate, log_work, run_guarded};

/// No suggestion is accepted sooner: until then the next keystroke is more likely.
const PREFETCH_DELAY: Duration = Duration::from_millis(150);
/// Number of prefetched snapshots that are not prefetched again: as many as follow one cursor.
const PREFETCHED_SNAPSHOTS: usize = 2;

/// The result of a prefetch.
enum PrefetchOutcome {
    /// It is done.
    Done,
    /// It was interrupted, or failed.
    Interrupted,
    /// A request arrived meanwhile; the next job.
    Requested(Option<Job>),
}

impl InferenceWorker {
    /// Prefetches for future requests until one arrives or nothing is left to do. Returns the next job if a request
    /// was answered meanwhile.
    pub(super) fn work_while_idle(
        &mut self,
        model: &mut LoadedModel,
        request: Arc<CompletionRequest>,
        response: &PriorResponse,
    ) -> Option<Job> {
        let mailbox = Arc::clone(&self.mailbox);
        let mut idle_work = IdleWork::new(&mailbox, Arc::clone(&request), response);
        let snapshot = &request.snapshot;
        // If the full prompt takes long to prefill, the result of a partial one is available meanwhile.
        for depth in [PrefillDepth::Partial, PrefillDepth::Full] {
            let prefilled = prefill_while_idle(model, &mut idle_work, snapshot, depth);
            match prefilled {
                PrefillState::Cached | PrefillState::Partial => {}
                PrefillState::Full => self.trace(TraceEvent::WindowPrefilled),
                PrefillState::Interrupted => return None,
            }
            if snapshot.selected.is_none() {
                if idle_work.wait_quiet(PREFETCH_DELAY) {
                    return None;
                }
                match self.prefetch_next(model, &mut idle_work, snapshot, response, depth) {
                    PrefetchOutcome::Done => {}
                    PrefetchOutcome::Interrupted => return None,
                    PrefetchOutcome::Requested(job) => return job,
                }
            }
            if prefilled != PrefillState::Partial {
                return None;
            }
        }
        None
    }

    /// Prefetches the likely requests after `snapshot`, which was answered with `response`.
    fn prefetch_next(
        &mut self,
        model: &mut LoadedModel,
        idle_work: &mut IdleWork<'_>,
        snapshot: &Snapshot,
        response: &PriorResponse,
        depth: PrefillDepth,
    ) -> PrefetchOutcome {
        for action in next_actions::likely_actions(snapshot, response) {
            let Some(next) = next_actions::apply_action(snapshot, action, &mut || idle_work.is_over()) else {
                return PrefetchOutcome::Interrupted;
            };
            let is_prefetched = |(known, from): &(Snapshot, PrefillDepth)| {
                *from >= depth
                    && known.cursor == next.cursor
                    && known.options == next.options
                    && known.text == next.text
            };
            if self.prefetched.iter().any(is_prefetched) {
                continue;
            }
            self.trace(TraceEvent::PrefetchStarted);
            let outcome = self.prefetch(model, idle_work, next, depth);
            if !matches!(outcome, PrefetchOutcome::Done) {
                return outcome;
            }
        }
        PrefetchOutcome::Done
    }

    /// Completes at a cursor that was not requested yet; a request may arrive meanwhile.
    fn prefetch(
        &mut self,
        model: &mut LoadedModel,
        idle_work: &mut IdleWork<'_>,
        snapshot: Snapshot,
        depth: PrefillDepth,
    ) -> PrefetchOutcome {
        let depth = match prefill_while_idle(model, idle_work, &snapshot, depth) {
            PrefillState::Interrupted => return PrefetchOutcome::Interrupted,
            PrefillState::Partial => depth,
            PrefillState::Cached | PrefillState::Full => PrefillDepth::Full,
        };
        let mailbox = Arc::clone(&self.mailbox);
        let uri = idle_work.request.uri.clone();
        let mut in_flight = InFlight::for_prefetch(&mailbox, idle_work, &uri, &snapshot);
        let outcome = generate(model, next_actions::QUICK_PREFILL_TIME, &snapshot, &mut in_flight);
        let ended_early = in_flight.is_interrupted();
        let target = in_flight.into_target();
        let is_requested = target.is_requested;
        let (suggestion, work) = match outcome {
            Ok(finished) => finished,
            Err(failure) if is_requested => {
                target.request.respond(None);
                self.end_work(&target.request, None, false);
                self.report_failure(failure);
                return PrefetchOutcome::Interrupted;
            }
            // No request waits for this work: if the next one fails as well, that is reported.
            Err(failure) => {
                debug!(?failure, "the engine failed during idle work");
                return PrefetchOutcome::Interrupted;
            }
        };
        if ended_early {
            log_work(&work, ended_early, is_requested, "prefetch interrupted");
            return if is_requested {
                PrefetchOutcome::Requested(Some(Job::Complete(target.request)))
            } else {
                PrefetchOutcome::Interrupted
            };
        }
        self.publish_prefetched(uri, snapshot, depth, suggestion.clone(), &work);
        log_work(&work, ended_early, is_requested, "prefetch finished");
        self.trace(TraceEvent::Prefetched(WorkSummary::new(&work, ended_early)));
        if is_requested {
            return PrefetchOutcome::Requested(self.respond_newest(target, suggestion));
        }
        idle_work.request = target.request;
        PrefetchOutcome::Done
    }

    /// Remembers that the suggestion at `snapshot` is prefetched, and sends it to the session.
    fn publish_prefetched(
        &mut self,
        uri: String,
        snapshot: Snapshot,
        depth: PrefillDepth,
        suggestion: Option<Suggestion>,
        work: &CompletionWork,
    ) {
        if self.prefetched.len() == PREFETCHED_SNAPSHOTS {
            self.prefetched.remove(0);
        }
        self.prefetched.push((snapshot.clone(), depth));
        // More of the file may yield something where a part did not.
        if work.prompt_tokens > 0 && (depth == PrefillDepth::Full || suggestion.is_some()) {
            let snapshot = Box::new(snapshot);
            let _ = self.events.send(Event::Prefetched { uri, snapshot, suggestion });
        }
    }
}

/// Prefills the prompt at a cursor until a request arrives. A failure counts as an interruption: if the next request
/// fails as well, that is reported.
fn prefill_while_idle(
    model: &mut LoadedModel,
    idle_work: &mut IdleWork<'_>,
    snapshot: &Snapshot,
    depth: PrefillDepth,
) -> PrefillState {
    let prefilled = run_guarded(model, |LoadedModel { engine, profile }| {
        next_actions::prefill_ahead(depth, snapshot, profile, engine.as_mut(), &mut || {
            break_if(idle_work.is_over())
        })
    });
    prefilled.unwrap_or_else(|failure| {
        debug!(?failure, "the engine failed during idle work");
        PrefillState::Interrupted
    })
}

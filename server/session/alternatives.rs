//! For a person who asks: what else may be suggested, looked for while there is time and nobody asks anew.
//! It knows nothing of how candidates are made, or of how they are shown.

use std::slice;
use std::time::Instant;

use taper_engine::Engine;
use tracing::debug;

use crate::completion::{CompletionWork, IdleSetting, Suggestion, Trigger, alternatives};
use crate::session::Event;
use crate::session::in_flight::{InFlightTarget, control_flow};
use crate::session::trace::TraceEvent;
use crate::session::worker::{InferenceWorker, LoadedModel, run_guarded};

impl InferenceWorker {
    /// Looks for candidates beside what the model just said for a question, if that is a person's, and keeps them for
    /// the answer and for the next question. Returns what is to be shown first.
    ///
    /// The first is complete. It is shown with the others that are complete after `latency-budget-ms` at the latest. A newer
    /// question ends this.
    pub(super) fn find_alternatives(
        &self,
        resident: &mut LoadedModel,
        newest: &InFlightTarget,
        said: Option<Suggestion>,
        work: &CompletionWork,
    ) -> Option<Suggestion> {
        // What was typed meanwhile makes it another place.
        if !newest.typed.is_empty() {
            return said;
        }
        let question = &newest.question;
        let snapshot = &question.snapshot;
        let first = question.first_suggestion(said.clone());
        let asked = snapshot.trigger == Trigger::Invoked && snapshot.selected.is_none() && question.is_open();
        let Some(model) = said.as_ref().filter(|_| asked) else { return first };
        let others = |found: &[Suggestion]| -> Vec<Suggestion> {
            // What the model says now, if something else was known before.
            let all = slice::from_ref(model).iter().chain(found).filter(|&it| Some(it) != first.as_ref());
            all.take(alternatives::MAX_SUGGESTIONS - 1).cloned().collect()
        };
        question.set_draft(first.clone());
        question.set_alternatives(&others(&[]));
        question.stop_waiting_for_alternatives();
        // The next key finds the first, whatever becomes of the others.
        let _ = self.events.send(Event::Prefetched {
            uri: question.uri.clone(),
            snapshot: Box::new(snapshot.clone()),
            suggestion: first.clone(),
        });
        self.trace(TraceEvent::AlternativesStarted);
        let frugal = snapshot.options.idle == IdleSetting::Off;
        let mut broken = false;
        let found = run_guarded(resident, |LoadedModel { engine, profile }| {
            let engine: &mut dyn Engine = engine.as_mut();
            alternatives::find_alternatives(
                alternatives::MAX_SUGGESTIONS - 1,
                snapshot,
                profile,
                engine,
                (model, work),
                &mut |found| {
                    question.set_alternatives(&others(found));
                    let now = Instant::now();
                    broken = self.mailbox.is_waiting()
                        || question.is_unwanted(now)
                        || (frugal && now >= question.deadline());
                    control_flow(broken)
                },
            )
        });
        match found {
            Ok(found) => {
                let count = found.len();
                question.set_alternatives(&others(&found));
                // What was broken off is looked for again.
                if !broken && let Some(first) = &first {
                    let (question, first, others) = (question.clone(), first.clone(), others(&found));
                    let _ = self.events.send(Event::AlternativesFound { question, first, others });
                }
                self.trace(TraceEvent::AlternativesFinished { count, interrupted: broken });
            }
            // The first is an answer; the next question tells, if it fails as well.
            Err(failure) => debug!(?failure, "the engine failed while it looked for other candidates"),
        }
        first
    }
}

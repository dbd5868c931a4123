//! Searches for alternatives for an explicit request, while there is time and no newer request.

use std::slice;
use std::time::Instant;

use taper_engine::Engine;
use tracing::debug;

use crate::completion::alternatives::{self, AlternativesRequest};
use crate::completion::{CompletionWork, IdleSetting, Suggestion, Trigger};
use crate::session::Event;
use crate::session::in_flight::InFlightTarget;
use crate::session::job::break_if;
use crate::session::trace::TraceEvent;
use crate::session::worker::{InferenceWorker, LoadedModel, run_guarded};

impl InferenceWorker {
    /// Searches for alternatives to the model's suggestion for an explicit request, and keeps them for its response
    /// and for the next request. Returns the first suggestion.
    ///
    /// The first suggestion is complete. It is shown with the alternatives that are complete within
    /// `latency-budget-ms`. A newer request ends the search.
    pub(super) fn find_alternatives(
        &self,
        loaded: &mut LoadedModel,
        target: &InFlightTarget,
        suggestion: Option<Suggestion>,
        work: &CompletionWork,
    ) -> Option<Suggestion> {
        // After typing, the cursor is another one.
        if !target.typed.is_empty() {
            return suggestion;
        }
        let request = &target.request;
        let snapshot = &request.snapshot;
        let first = request.first_suggestion(suggestion.clone());
        let are_wanted =
            snapshot.trigger == Trigger::Invoked && snapshot.selected.is_none() && request.is_open();
        let Some(model) = suggestion.as_ref().filter(|_| are_wanted) else { return first };
        let ranked = |found: &[Suggestion]| -> Vec<Suggestion> {
            // The model's suggestion comes first, if another one was known before.
            let all = slice::from_ref(model).iter().chain(found).filter(|&it| Some(it) != first.as_ref());
            all.take(alternatives::MAX_SUGGESTIONS - 1).cloned().collect()
        };
        request.set_draft(first.clone());
        request.set_alternatives(&ranked(&[]));
        request.stop_waiting_for_alternatives();
        // The next key finds the first suggestion, whatever happens to the alternatives.
        let _ = self.events.send(Event::Prefetched {
            uri: request.uri.clone(),
            snapshot: Box::new(snapshot.clone()),
            suggestion: first.clone(),
        });
        self.trace(TraceEvent::AlternativesStarted);
        let ends_at_deadline = snapshot.options.idle == IdleSetting::Off;
        let mut interrupted = false;
        let found = run_guarded(loaded, |LoadedModel { engine, profile }| {
            let engine: &mut dyn Engine = engine.as_mut();
            let most = alternatives::MAX_SUGGESTIONS - 1;
            let search = AlternativesRequest { snapshot, first: model, work, most };
            alternatives::find_alternatives(search, profile, engine, &mut |found| {
                request.set_alternatives(&ranked(found));
                let now = Instant::now();
                interrupted = self.mailbox.is_waiting()
                    || request.is_unwanted(now)
                    || (ends_at_deadline && now >= request.deadline());
                break_if(interrupted)
            })
        });
        match found {
            Ok(found) => {
                let count = found.len();
                request.set_alternatives(&ranked(&found));
                // An interrupted search is repeated.
                if !interrupted && let Some(first) = &first {
                    let (request, first, alternatives) = (request.clone(), first.clone(), ranked(&found));
                    let _ = self.events.send(Event::AlternativesFound { request, first, alternatives });
                }
                self.trace(TraceEvent::AlternativesFinished { count, interrupted });
            }
            // The first suggestion is the response; if the next request fails as well, that is reported.
            Err(failure) => debug!(?failure, "the engine failed while searching alternatives"),
        }
        first
    }
}

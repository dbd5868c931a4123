//! A generation that continues after a newer request arrives, if it may still serve that one.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use crate::completion::{CompletionProgress, IdleSetting, Snapshot, cache};
use crate::session::idle_work::{AcceptedDocument, IdleWork};
use crate::session::job::{Job, break_if};
use crate::session::mailbox::Mailbox;
use crate::session::response::CompletionRequest;

/// A remainder this small is always prefilled: these prompt tokens hardly take longer than one.
const FEW_TOKENS: usize = 8;

/// A generation, and the newest request that it may serve: the one it was started for, or a later one whose typed
/// text agrees with the output.
///
/// A newer request is taken from the mailbox only if it is compatible with the output; otherwise the generation
/// stops and the request stays queued. A request that was taken and later diverges is returned by
/// [`InFlight::into_target`].
pub(crate) struct InFlight<'a> {
    mailbox: &'a Mailbox<Job>,
    uri: &'a str,
    /// The snapshot that the model completes.
    snapshot: &'a Snapshot,
    /// The newest request, and the text typed between `snapshot` and it.
    target: InFlightTarget,
    /// For a prefetch: the text and the cursor once the shown suggestion is accepted.
    accepted: Option<&'a AcceptedDocument>,
    started: Instant,
    is_interrupted: bool,
}

/// The newest request that a generation may serve.
pub(crate) struct InFlightTarget {
    /// The newest request. If it was answered from the cache, the generation is a prefetch for its successor.
    pub(crate) request: Arc<CompletionRequest>,
    /// The text typed since the snapshot that the model completes.
    pub(crate) typed: String,
    /// Whether the request waits for the generation's result.
    pub(crate) is_requested: bool,
}

impl<'a> InFlight<'a> {
    /// A generation for `request`.
    pub(crate) fn for_request(mailbox: &'a Mailbox<Job>, request: &'a Arc<CompletionRequest>) -> Self {
        let target =
            InFlightTarget { request: Arc::clone(request), typed: String::new(), is_requested: true };
        Self {
            mailbox,
            uri: &request.uri,
            snapshot: &request.snapshot,
            target,
            accepted: None,
            started: Instant::now(),
            is_interrupted: false,
        }
    }

    /// A generation at `snapshot`, which will be requested once the suggestion before it is accepted.
    pub(crate) fn for_prefetch(
        mailbox: &'a Mailbox<Job>,
        idle_work: &'a IdleWork<'_>,
        uri: &'a str,
        snapshot: &'a Snapshot,
    ) -> Self {
        let request = Arc::clone(&idle_work.request);
        Self {
            mailbox,
            uri,
            snapshot,
            target: InFlightTarget { request, typed: String::new(), is_requested: false },
            accepted: idle_work.accepted.as_ref(),
            started: Instant::now(),
            is_interrupted: false,
        }
    }

    /// Called after every step: checks the mailbox, and returns whether to continue.
    pub(crate) fn poll(&mut self, progress: &CompletionProgress<'_>) -> ControlFlow<()> {
        let now = Instant::now();
        let serves_newest = (!self.mailbox.is_waiting() || self.retarget(progress, now))
            && cache::is_compatible(progress.text, &self.target.typed.replace("\r\n", "\n"));
        let InFlightTarget { request, typed, is_requested } = &self.target;
        if serves_newest && *is_requested {
            request.set_draft(progress.draft.and_then(|draft| cache::remainder(draft, typed)));
            request.respond_early(now);
        }
        // The deadline alone does not end the work: a result that is finished later serves the next keystroke.
        let ends_at_deadline = self.snapshot.options.idle == IdleSetting::Off;
        let ends =
            !serves_newest || request.is_unwanted(now) || (ends_at_deadline && now >= request.deadline());
        if progress.seeking_fallback {
            // If a suggestion is shown, or the user has typed into it, a different one must not replace it.
            let is_shown = progress.draft.is_some() && !request.is_open();
            return break_if(ends || (*is_requested && (is_shown || !typed.is_empty())));
        }
        self.is_interrupted = ends;
        break_if(ends)
    }

    /// Takes the newer job if this generation can serve it.
    fn retarget(&mut self, progress: &CompletionProgress<'_>, now: Instant) -> bool {
        let is_worth_finishing = !progress.text.is_empty() || self.is_prefill_almost_done(progress, now);
        let (uri, snapshot) = (self.uri, self.snapshot);
        let mut typed = None;
        let job = self.mailbox.take_if(|job| match job {
            Job::Complete(newer) if is_worth_finishing && newer.uri == uri => {
                typed = cache::typed_between(snapshot, &newer.snapshot)
                    .filter(|typed| cache::is_compatible(progress.text, &typed.replace("\r\n", "\n")));
                typed.is_some()
            }
            _ => false,
        });
        if let (Some(Job::Complete(request)), Some(typed)) = (job, typed) {
            self.target = InFlightTarget { request, typed, is_requested: true };
            return true;
        }
        let accepted = self.accepted.filter(|_| !self.target.is_requested);
        let newer = accepted.and_then(|it| it.take_confirmation(self.mailbox, &self.target.request.uri));
        newer.map(|newer| self.target.request = newer).is_some()
    }

    /// Whether the rest of the prompt does not exceed what the newer request would have to prefill again: that shares
    /// the prefilled text before the cursor, and nothing after it.
    fn is_prefill_almost_done(&self, progress: &CompletionProgress<'_>, now: Instant) -> bool {
        let prefill = progress.prefill;
        let read = (now - self.started).as_secs_f32() * prefill.rate;
        prefill.unread as f32 - read <= prefill.unshared.max(FEW_TOKENS) as f32
    }

    /// Whether this was stopped before its end.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.is_interrupted
    }

    /// The request that the generation served in the end.
    pub(crate) fn into_target(self) -> InFlightTarget {
        self.target
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::completion::next_actions::PriorResponse;
    use crate::completion::{PrefillEstimate, Suggestion};
    use crate::session::response::CompletionResponse;
    use crate::session::response::tests::request_after;

    const LONG: Duration = Duration::from_secs(600);

    fn progress<'a>(text: &'a str, draft: Option<&'a Suggestion>) -> CompletionProgress<'a> {
        CompletionProgress { text, draft, prefill: PrefillEstimate::default(), seeking_fallback: false }
    }

    #[test]
    fn newer_request_gets_its_own_draft_at_deadline() {
        let now = Instant::now();
        let mailbox = Mailbox::default();
        let (older, _) = request_after("x = ", now + LONG);
        let (newer, mut receiver) = request_after("x = fo", now + LONG);
        let draft = Suggestion { range: 4..4, text: "foo(a)".to_owned() };
        let mut in_flight = InFlight::for_request(&mailbox, &older);
        mailbox.put(Job::Complete(Arc::clone(&newer)));
        assert!(in_flight.poll(&progress("foo(a) + b", Some(&draft))).is_continue());
        assert!(!mailbox.is_waiting());
        // As the session does at the deadline.
        newer.respond_with_draft();
        let Some(CompletionResponse::Shown(shown)) = receiver.try_recv().unwrap() else {
            panic!("nothing is shown")
        };
        assert_eq!((shown.text.as_str(), shown.range.start.character), ("o(a)", 6));
        let newest = in_flight.into_target();
        assert!(newest.is_requested && newest.typed == "fo" && Arc::ptr_eq(&newest.request, &newer));
    }

    #[test]
    fn in_flight_request_accepts_carriage_return() {
        let mailbox = Mailbox::default();
        let (older, _) = request_after("x {", Instant::now() + LONG);
        let (newer, _receiver) = request_after("x {\r\n", Instant::now() + LONG);
        let mut in_flight = InFlight::for_request(&mailbox, &older);
        mailbox.put(Job::Complete(newer));
        assert!(in_flight.poll(&progress("\n    y", None)).is_continue());
    }

    #[test]
    fn remaining_prefill_decides_whether_it_is_finished() {
        let reading = |unread, own, rate| PrefillEstimate { unread, unshared: own, rate };
        for (reading, continues) in [
            // Nearly nothing, however slow it is.
            (reading(FEW_TOKENS, 1, 0.0), true),
            // Much that a newer prompt shares: it is prefilled for that.
            (reading(500, 1, 1.0), false),
            (reading(500, 1, 0.0), false),
            // All of it is after the typed text: if interrupted, it is lost.
            (reading(120, 130, 1.0), true),
            // Fast enough to finish.
            (reading(500, 1, f32::INFINITY), true),
        ] {
            let mailbox = Mailbox::default();
            let (older, _older) = request_after("x = ", Instant::now() + LONG);
            let (newer, _newer) = request_after("x = f", Instant::now() + LONG);
            let mut in_flight = InFlight::for_request(&mailbox, &older);
            mailbox.put(Job::Complete(newer));
            let flow = in_flight.poll(&CompletionProgress {
                text: "",
                draft: None,
                prefill: reading,
                seeking_fallback: false,
            });
            assert_eq!(flow.is_continue(), continues, "{reading:?}");
            assert_eq!(mailbox.is_waiting(), !continues, "an incompatible request stays queued");
        }
    }

    #[test]
    fn without_idle_work_generation_stops_at_deadline() {
        for (idle, continues) in [(IdleSetting::Off, false), (IdleSetting::Modest, true)] {
            let mailbox = Mailbox::default();
            let (mut older, _older) = request_after("x = ", Instant::now());
            Arc::get_mut(&mut older).unwrap().snapshot.options.idle = idle;
            let mut in_flight = InFlight::for_request(&mailbox, &older);
            assert_eq!(in_flight.poll(&progress("foo", None)).is_continue(), continues);
            assert_eq!(in_flight.is_interrupted(), !continues);
        }
    }

    #[test]
    fn fallback_search_ends_on_response_or_typing() {
        let seeking = |draft| CompletionProgress { seeking_fallback: true, ..progress("foo(a)", draft) };
        let draft = Suggestion { range: 4..4, text: "foo(a)".to_owned() };
        let mailbox = Mailbox::default();
        let (older, mut receiver) = request_after("x = ", Instant::now() + LONG);
        let (newer, _newer) = request_after("x = fo", Instant::now() + LONG);
        let (other, _other) = request_after("x = b", Instant::now() + LONG);
        let mut in_flight = InFlight::for_request(&mailbox, &older);
        assert!(in_flight.poll(&seeking(Some(&draft))).is_continue());
        mailbox.put(Job::Complete(newer));
        assert!(in_flight.poll(&seeking(Some(&draft))).is_break());
        assert!(!in_flight.is_interrupted(), "the output serves the newer request");
        assert_eq!(in_flight.into_target().typed, "fo");

        let mut in_flight = InFlight::for_request(&mailbox, &older);
        mailbox.put(Job::Complete(other));
        assert!(in_flight.poll(&seeking(Some(&draft))).is_break());
        assert!(!in_flight.is_interrupted() && mailbox.take().is_some(), "the other one stays queued");

        let mut in_flight = InFlight::for_request(&mailbox, &older);
        assert!(in_flight.poll(&seeking(Some(&draft))).is_continue());
        older.respond_with_draft();
        assert!(in_flight.poll(&seeking(Some(&draft))).is_break());
        assert!(!in_flight.is_interrupted());
        let Some(CompletionResponse::Shown(shown)) = receiver.try_recv().unwrap() else {
            panic!("nothing is shown")
        };
        assert_eq!(shown.text, "foo(a)");
        // If nothing is shown, a later find serves the next key.
        let mut in_flight = InFlight::for_request(&mailbox, &older);
        assert!(in_flight.poll(&seeking(None)).is_continue());
        // No request waits for a prefetch.
        let idle_work = IdleWork::new(&mailbox, Arc::clone(&older), &PriorResponse::Shown(draft.clone()));
        let mut in_flight = InFlight::for_prefetch(&mailbox, &idle_work, "a", &older.snapshot);
        assert!(in_flight.poll(&seeking(Some(&draft))).is_continue());
    }
}

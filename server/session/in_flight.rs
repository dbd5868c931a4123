//! Work that continues after a newer request arrives: a generation that may still serve it, or idle work that it
//! confirms.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::completion::next_actions::PriorResponse;
use crate::completion::{CompletionProgress, IdleSetting, Snapshot, Suggestion, cache};
use crate::session::mailbox::Mailbox;
use crate::session::response::CompletionRequest;
use crate::session::worker::Job;
use crate::text::{Edit, Rope};

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
    place: &'a Snapshot,
    /// The newest request. If it was answered from the cache, the generation is a prefetch for its successor.
    newest: Arc<CompletionRequest>,
    /// Whether the newest request waits for this generation.
    asked: bool,
    /// For a prefetch: the text and the cursor once the shown suggestion is accepted.
    accepted: Option<&'a AcceptedDocument>,
    /// The text typed between `place` and the newest request.
    typed: String,
    began: Instant,
    broken: bool,
}

/// A document after a suggestion is accepted.
#[derive(Debug)]
pub(crate) struct AcceptedDocument {
    text: Rope,
    cursor: usize,
}

impl AcceptedDocument {
    /// `None` if the suggestion does not fit the document.
    pub(crate) fn new(snapshot: &Snapshot, shown: &Suggestion) -> Option<Self> {
        let edit = Edit { range: shown.range.clone(), text: shown.text.clone() };
        let mut text = snapshot.text.clone();
        edit.apply(&mut text).ok()?;
        Some(Self { text, cursor: edit.new_end() })
    }

    /// Whether accepting another suggestion leads to the same text and cursor.
    fn is_same(&self, snapshot: &Snapshot, shown: &Suggestion) -> bool {
        let Some(other) = Self::new(snapshot, shown) else { return false };
        let here = Snapshot { text: self.text.clone(), cursor: self.cursor, ..snapshot.clone() };
        other.cursor == self.cursor && cache::typed_since(&here, &other.text).is_some_and(|it| it.is_empty())
    }
}

/// Takes the job that confirms a prefetch for `request`: the user typed on into the shown suggestion, and now sees
/// the rest of it. `request` is then the newer request.
fn confirm_prefetch(
    mailbox: &Mailbox<Job>,
    accepted: &AcceptedDocument,
    request: &mut Arc<CompletionRequest>,
) -> bool {
    let confirmed = mailbox.take_if(|job| match job {
        Job::Prefetch(newer, PriorResponse::Shown(shown)) => {
            newer.uri == request.uri && accepted.is_same(&newer.snapshot, shown)
        }
        _ => false,
    });
    if let Some(Job::Prefetch(newer, _)) = confirmed {
        *request = newer;
        return true;
    }
    false
}

impl<'a> InFlight<'a> {
    /// A generation for `request`.
    pub(crate) fn for_request(mailbox: &'a Mailbox<Job>, request: &'a Arc<CompletionRequest>) -> Self {
        Self::new(mailbox, &request.uri, &request.snapshot, request, true, None)
    }

    /// A generation for `place`, which will be requested once `accepted` is the document.
    pub(crate) fn for_prefetch(
        mailbox: &'a Mailbox<Job>,
        idle_work: &'a IdleWork<'_>,
        uri: &'a str,
        place: &'a Snapshot,
    ) -> Self {
        Self::new(mailbox, uri, place, &idle_work.request, false, idle_work.accepted.as_ref())
    }

    fn new(
        mailbox: &'a Mailbox<Job>,
        uri: &'a str,
        place: &'a Snapshot,
        newest: &Arc<CompletionRequest>,
        asked: bool,
        accepted: Option<&'a AcceptedDocument>,
    ) -> Self {
        let (newest, typed, began) = (Arc::clone(newest), String::new(), Instant::now());
        Self { mailbox, uri, place, newest, asked, accepted, typed, began, broken: false }
    }

    /// Called after every step: checks the mailbox, and returns whether to continue.
    pub(crate) fn poll(&mut self, progress: &CompletionProgress<'_>) -> ControlFlow<()> {
        let now = Instant::now();
        let continues = (!self.mailbox.is_waiting() || self.retarget(progress, now))
            && cache::is_compatible(progress.text, &self.typed.replace("\r\n", "\n"));
        if continues && self.asked {
            self.newest.set_draft(progress.draft.and_then(|draft| cache::remainder(draft, &self.typed)));
            self.newest.respond_early(now);
        }
        // The deadline alone does not end the work: a result that is finished later serves the next keystroke.
        let frugal = self.place.options.idle == IdleSetting::Off && now >= self.newest.deadline();
        let ends = !continues || self.newest.is_unwanted(now) || frugal;
        if progress.seeking_fallback {
            // If a suggestion is shown, or the user has typed into it, a different one must not replace it.
            let shown = progress.draft.is_some() && !self.newest.is_open();
            return control_flow(ends || self.asked && (shown || !self.typed.is_empty()));
        }
        self.broken = ends;
        control_flow(ends)
    }

    /// Takes the newer job if this generation can serve it.
    fn retarget(&mut self, progress: &CompletionProgress<'_>, now: Instant) -> bool {
        let worth = !progress.text.is_empty() || self.is_nearly_read(progress, now);
        let (uri, place) = (self.uri, self.place);
        let mut typed = None;
        let job = self.mailbox.take_if(|job| match job {
            Job::Complete(newer) if worth && newer.uri == uri => {
                typed = cache::typed_between(place, &newer.snapshot)
                    .filter(|typed| cache::is_compatible(progress.text, &typed.replace("\r\n", "\n")));
                typed.is_some()
            }
            _ => false,
        });
        match (job, typed, self.accepted) {
            (Some(Job::Complete(newer)), Some(typed), _) => {
                self.newest = newer;
                self.typed = typed;
                self.asked = true;
                true
            }
            (_, _, Some(accepted)) if !self.asked => {
                confirm_prefetch(self.mailbox, accepted, &mut self.newest)
            }
            _ => false,
        }
    }

    /// Whether the rest of the prompt does not exceed what the newer request would have to prefill again: that shares
    /// the prefilled text before the cursor, and nothing after it.
    fn is_nearly_read(&self, progress: &CompletionProgress<'_>, now: Instant) -> bool {
        let reading = progress.prefill;
        let read = (now - self.began).as_secs_f32() * reading.rate;
        reading.unread as f32 - read <= reading.unshared.max(FEW_TOKENS) as f32
    }

    /// Whether this was stopped before its end.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.broken
    }

    /// The newest request and the text typed up to it, once the generation has ended; with `asked`, the request
    /// waits for a response.
    pub(crate) fn into_target(self) -> InFlightTarget {
        InFlightTarget { request: self.newest, typed: self.typed, asked: self.asked }
    }
}

/// The result of a `watch` callback.
pub(super) fn control_flow(is_over: bool) -> ControlFlow<()> {
    if is_over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// The request that a generation served in the end.
pub(crate) struct InFlightTarget {
    /// The newest request.
    pub(crate) request: Arc<CompletionRequest>,
    /// The text typed since the snapshot that the model completed.
    pub(crate) typed: String,
    /// Whether the request waits for the generation's result.
    pub(crate) asked: bool,
}

/// Work for the requests that will follow one that was answered.
pub(crate) struct IdleWork<'a> {
    mailbox: &'a Mailbox<Job>,
    /// The newest request whose response leads to `accepted`.
    pub(crate) request: Arc<CompletionRequest>,
    accepted: Option<AcceptedDocument>,
}

impl<'a> IdleWork<'a> {
    /// Idle work after `request`, which was answered with `answered`.
    pub(crate) fn new(
        mailbox: &'a Mailbox<Job>,
        request: Arc<CompletionRequest>,
        answered: &PriorResponse,
    ) -> Self {
        let accepted = match answered {
            PriorResponse::Shown(shown) => AcceptedDocument::new(&request.snapshot, shown),
            PriorResponse::Empty | PriorResponse::Unrequested => None,
        };
        Self { mailbox, request, accepted }
    }

    /// Whether a request waits, or the text has changed.
    pub(crate) fn is_over(&mut self) -> bool {
        let has_job = self.mailbox.is_waiting()
            && !self
                .accepted
                .as_ref()
                .is_some_and(|accepted| confirm_prefetch(self.mailbox, accepted, &mut self.request));
        has_job || self.request.is_unwanted(Instant::now())
    }

    /// Waits until nothing has arrived for `pause`; returns whether the idle work is over instead.
    pub(crate) fn wait_quiet(&mut self, pause: Duration) -> bool {
        loop {
            if !self.mailbox.wait(pause) {
                return self.is_over();
            }
            if self.is_over() {
                return true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::completion::{Options, PrefillEstimate};
    use crate::session::response::{CompletionResponse, Responder, ResponseReceiver};
    use crate::text::Encoding;

    const LONG: Duration = Duration::from_secs(600);

    fn request(before: &str, deadline: Instant) -> (Arc<CompletionRequest>, ResponseReceiver) {
        let text = Rope::from(format!("{before}\n"));
        let snapshot = Snapshot::new(text, before.len(), Options::default());
        let (reply, receiver) = Responder::new();
        let request =
            CompletionRequest::new("a".to_owned(), snapshot, Encoding::Utf8, deadline.into(), reply);
        (Arc::new(request), receiver)
    }

    fn said<'a>(text: &'a str, draft: Option<&'a Suggestion>) -> CompletionProgress<'a> {
        CompletionProgress { text, draft, prefill: PrefillEstimate::default(), seeking_fallback: false }
    }

    #[test]
    fn newer_request_gets_its_own_draft_at_deadline() {
        let now = Instant::now();
        let mailbox = Mailbox::default();
        let (older, _) = request("x = ", now + LONG);
        let (newer, mut receiver) = request("x = fo", now + LONG);
        let draft = Suggestion { range: 4..4, text: "foo(a)".to_owned() };
        let mut following = InFlight::for_request(&mailbox, &older);
        mailbox.put(Job::Complete(Arc::clone(&newer)));
        assert!(following.poll(&said("foo(a) + b", Some(&draft))).is_continue());
        assert!(!mailbox.is_waiting());
        // As the session does at the deadline.
        newer.respond_with_draft();
        let Some(CompletionResponse::Shown(shown)) = receiver.try_recv().unwrap() else {
            panic!("nothing is shown")
        };
        assert_eq!((shown.text.as_str(), shown.range.start.character), ("o(a)", 6));
        let newest = following.into_target();
        assert!(newest.asked && newest.typed == "fo" && Arc::ptr_eq(&newest.request, &newer));
    }

    #[test]
    fn in_flight_request_accepts_carriage_return() {
        let mailbox = Mailbox::default();
        let (older, _) = request("x {", Instant::now() + LONG);
        let (newer, _receiver) = request("x {\r\n", Instant::now() + LONG);
        let mut following = InFlight::for_request(&mailbox, &older);
        mailbox.put(Job::Complete(newer));
        assert!(following.poll(&said("\n    y", None)).is_continue());
    }

    #[test]
    fn remaining_prefill_decides_whether_it_is_finished() {
        let reading = |unread, own, rate| PrefillEstimate { unread, unshared: own, rate };
        for (reading, goes_on) in [
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
            let (older, _older) = request("x = ", Instant::now() + LONG);
            let (newer, _newer) = request("x = f", Instant::now() + LONG);
            let mut following = InFlight::for_request(&mailbox, &older);
            mailbox.put(Job::Complete(newer));
            let flow = following.poll(&CompletionProgress {
                text: "",
                draft: None,
                prefill: reading,
                seeking_fallback: false,
            });
            assert_eq!(flow.is_continue(), goes_on, "{reading:?}");
            assert_eq!(mailbox.is_waiting(), !goes_on, "an incompatible request stays queued");
        }
    }

    #[test]
    fn without_idle_work_generation_stops_at_deadline() {
        for (idle, goes_on) in [(IdleSetting::Off, false), (IdleSetting::Modest, true)] {
            let mailbox = Mailbox::default();
            let (mut older, _older) = request("x = ", Instant::now());
            Arc::get_mut(&mut older).unwrap().snapshot.options.idle = idle;
            let mut following = InFlight::for_request(&mailbox, &older);
            assert_eq!(following.poll(&said("foo", None)).is_continue(), goes_on);
            assert_eq!(following.is_interrupted(), !goes_on);
        }
    }

    #[test]
    fn fallback_search_ends_on_response_or_typing() {
        let settled = |draft| CompletionProgress { seeking_fallback: true, ..said("foo(a)", draft) };
        let draft = Suggestion { range: 4..4, text: "foo(a)".to_owned() };
        let mailbox = Mailbox::default();
        let (older, mut receiver) = request("x = ", Instant::now() + LONG);
        let (newer, _newer) = request("x = fo", Instant::now() + LONG);
        let (other, _other) = request("x = b", Instant::now() + LONG);
        let mut following = InFlight::for_request(&mailbox, &older);
        assert!(following.poll(&settled(Some(&draft))).is_continue());
        mailbox.put(Job::Complete(newer));
        assert!(following.poll(&settled(Some(&draft))).is_break());
        assert!(!following.is_interrupted(), "the output serves the newer request");
        assert_eq!(following.into_target().typed, "fo");

        let mut following = InFlight::for_request(&mailbox, &older);
        mailbox.put(Job::Complete(other));
        assert!(following.poll(&settled(Some(&draft))).is_break());
        assert!(!following.is_interrupted() && mailbox.take().is_some(), "the other one stays queued");

        let mut following = InFlight::for_request(&mailbox, &older);
        assert!(following.poll(&settled(Some(&draft))).is_continue());
        older.respond_with_draft();
        assert!(following.poll(&settled(Some(&draft))).is_break());
        assert!(!following.is_interrupted());
        let Some(CompletionResponse::Shown(shown)) = receiver.try_recv().unwrap() else {
            panic!("nothing is shown")
        };
        assert_eq!(shown.text, "foo(a)");
        // If nothing is shown, a later find serves the next key.
        let mut following = InFlight::for_request(&mailbox, &older);
        assert!(following.poll(&settled(None)).is_continue());
        // No request waits for a prefetch.
        let idling = IdleWork::new(&mailbox, Arc::clone(&older), &PriorResponse::Shown(draft.clone()));
        let mut following = InFlight::for_prefetch(&mailbox, &idling, "a", &older.snapshot);
        assert!(following.poll(&settled(Some(&draft))).is_continue());
    }

    #[test]
    fn prefetch_is_confirmed_only_by_same_document() {
        let shown = |at: usize, text: &str| Suggestion { range: at..at, text: text.to_owned() };
        for (before, rest, confirmed) in
            [("x = f", "oo", true), ("x = f", "o", false), ("y = f", "oo", false)]
        {
            let mailbox = Mailbox::default();
            let (older, _older) = request("x = ", Instant::now());
            let (newer, _newer) = request(before, Instant::now());
            let mut idling = IdleWork::new(&mailbox, older, &PriorResponse::Shown(shown(4, "foo")));
            assert!(!idling.is_over());
            mailbox.put(Job::Prefetch(Arc::clone(&newer), PriorResponse::Shown(shown(5, rest))));
            assert_eq!(idling.is_over(), !confirmed, "{before}{rest}");
            assert_eq!(Arc::ptr_eq(&idling.request, &newer), confirmed);
            newer.drop_work();
            assert!(idling.is_over());
        }
    }
}

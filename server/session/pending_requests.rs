//! The requests that wait for a response or that the worker works on, each in one phase, and the worker's mailbox.

use std::sync::Arc;
use std::time::Instant;

use crate::completion::Snapshot;
use crate::completion::next_actions::PriorResponse;
use crate::config::EngineSettings;
use crate::session::job::Job;
use crate::session::mailbox::Mailbox;
use crate::session::response::CompletionRequest;
use crate::text::Rope;

/// How far a request has come. Whether its response was sent is known to its slot, which the worker fills as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It waits for a pause in typing, until this time. At most one request does.
    Debouncing { until: Instant },
    /// The worker's newest job is this request. The job may still be in the mailbox: the session does not learn when
    /// the worker takes it, or retargets a generation to it.
    Generating,
    /// The worker's newest job is idle work after this request. Its work has ended, or the cache had its response.
    Prefetching,
    /// A newer job interrupts the work. Until then it may still get a response.
    Interrupted,
}

#[derive(Debug)]
struct PendingRequest {
    request: Arc<CompletionRequest>,
    phase: Phase,
}

/// All pending requests, the oldest first. At most one is `Generating` or `Prefetching`: that of the newest job.
#[derive(Debug)]
pub(super) struct PendingRequests {
    all: Vec<PendingRequest>,
    mailbox: Arc<Mailbox<Job>>,
}

impl PendingRequests {
    /// No requests yet, for the worker with this mailbox.
    pub(super) fn new(mailbox: Arc<Mailbox<Job>>) -> Self {
        Self { all: Vec::new(), mailbox }
    }

    /// When something is due without an event.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let due = |PendingRequest { request, phase }: &PendingRequest| {
            let debounced = if let Phase::Debouncing { until } = phase { Some(*until) } else { None };
            [debounced, request.is_open().then(|| request.deadline())]
        };
        self.all.iter().flat_map(due).flatten().min()
    }

    /// Responds with the draft to the requests whose deadline has passed. The work on them continues.
    pub(super) fn expire(&mut self, now: Instant) {
        for PendingRequest { request, .. } in &self.all {
            if request.is_open() && request.deadline() <= now {
                request.respond_with_draft();
            }
        }
        self.all.retain(|pending| pending.phase != Phase::Interrupted || pending.request.is_open());
    }

    /// Takes the request whose pause in typing is over.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Arc<CompletionRequest>> {
        let is_due = |phase| matches!(phase, Phase::Debouncing { until } if until <= now);
        let at = self.all.iter().position(|pending| is_due(pending.phase))?;
        Some(self.all.remove(at).request)
    }

    /// Lets a request wait for a pause in typing. It supersedes the one that waits already.
    pub(super) fn debounce(&mut self, request: Arc<CompletionRequest>, until: Instant) {
        self.supersede_debouncing();
        self.all.push(PendingRequest { request, phase: Phase::Debouncing { until } });
    }

    /// Passes a request to the worker. It supersedes those that the worker has not begun.
    pub(super) fn start_generation(&mut self, request: Arc<CompletionRequest>) {
        self.supersede_debouncing();
        self.send_job(Phase::Generating, Arc::clone(&request), Job::Complete(request));
    }

    /// Lets the worker prefetch what follows `request`, which was answered with `response`.
    pub(super) fn start_prefetch(&mut self, request: Arc<CompletionRequest>, response: PriorResponse) {
        self.send_job(Phase::Prefetching, Arc::clone(&request), Job::Prefetch(request, response));
    }

    fn send_job(&mut self, phase: Phase, request: Arc<CompletionRequest>, job: Job) {
        self.interrupt_work();
        self.all.push(PendingRequest { request, phase });
        if let Some(Job::Complete(displaced)) = self.mailbox.put(job) {
            displaced.supersede();
        }
    }

    /// Lets the worker load an engine. The request that it has not begun gets an empty response.
    pub(super) fn load_engine(&mut self, settings: EngineSettings, again: bool) {
        self.interrupt_work();
        if let Some(Job::Complete(displaced)) = self.mailbox.put(Job::Load { settings, again }) {
            displaced.respond(None);
        }
    }

    /// Ends the worker.
    pub(super) fn close(&self) {
        self.mailbox.close();
    }

    /// The worker has ended its work on a request; what follows is idle work.
    pub(super) fn end_work(&mut self, request: &Arc<CompletionRequest>) {
        for pending in &mut self.all {
            if pending.phase == Phase::Generating && Arc::ptr_eq(&pending.request, request) {
                pending.phase = Phase::Prefetching;
            }
        }
    }

    /// Supersedes the requests of a document. The work on them continues.
    pub(super) fn supersede(&mut self, uri: &str) {
        self.supersede_except(uri, |_| false);
    }

    /// Supersedes the requests of a document whose text is now `text`; `None`: it is out of sync. Drops the work that
    /// does not fit it. Returns the open popup requests that fit it, to be rebased.
    pub(super) fn follow_edit(&mut self, uri: &str, text: Option<&Rope>) -> Vec<Arc<CompletionRequest>> {
        self.drop_stale_work(uri, text);
        self.supersede_except(uri, |request| {
            request.is_in_popup() && request.is_open() && text.is_some_and(|text| request.may_serve(text))
        })
    }

    /// Supersedes the requests of a document, and returns those that are `kept`. None of them is debounced any more.
    fn supersede_except(
        &mut self,
        uri: &str,
        kept: impl Fn(&CompletionRequest) -> bool,
    ) -> Vec<Arc<CompletionRequest>> {
        let of_document = self.all.iter().map(|pending| &pending.request).filter(|it| it.uri == uri);
        let (kept, superseded): (Vec<_>, Vec<_>) = of_document.cloned().partition(|it| kept(it));
        superseded.iter().for_each(|request| request.supersede());
        self.all.retain(|PendingRequest { request, phase }| {
            request.uri != uri || !matches!(phase, Phase::Debouncing { .. })
        });
        kept
    }

    /// Ends the requests of a document that was closed, and the work on them.
    pub(super) fn abandon(&mut self, uri: &str) {
        for abandoned in self.all.extract_if(.., |pending| pending.request.uri == uri) {
            abandoned.request.abandon();
        }
    }

    /// Drops the work on a document if it does not fit `text`; `None`: no text fits.
    pub(super) fn drop_stale_work(&mut self, uri: &str, text: Option<&Rope>) {
        let newest = self.newest_work().filter(|it| it.uri == uri);
        if let Some(stale) = newest.filter(|it| !text.is_some_and(|text| it.may_serve(text))) {
            stale.drop_work();
            self.interrupt_work();
        }
    }

    /// The request in generation if `snapshot` repeats it.
    pub(super) fn find_generating(&self, uri: &str, snapshot: &Snapshot) -> Option<Arc<CompletionRequest>> {
        let mut generating = self.all.iter().filter(|pending| pending.phase == Phase::Generating);
        generating.find(|it| it.request.is_same_request(uri, snapshot)).map(|it| Arc::clone(&it.request))
    }

    /// Whether the worker's newest job is a request.
    pub(super) fn is_generating(&self) -> bool {
        self.all.iter().any(|pending| pending.phase == Phase::Generating)
    }

    /// The request that the worker's newest job is about.
    fn newest_work(&self) -> Option<&CompletionRequest> {
        let newest =
            |pending: &&PendingRequest| matches!(pending.phase, Phase::Generating | Phase::Prefetching);
        self.all.iter().find(newest).map(|pending| &*pending.request)
    }

    /// The worker gets something else to do, or its work is of no use.
    fn interrupt_work(&mut self) {
        self.all.retain(|pending| pending.phase != Phase::Prefetching);
        for pending in &mut self.all {
            if pending.phase == Phase::Generating {
                pending.phase = Phase::Interrupted;
            }
        }
    }

    fn supersede_debouncing(&mut self) {
        let is_debouncing = |pending: &mut PendingRequest| matches!(pending.phase, Phase::Debouncing { .. });
        self.all.extract_if(.., is_debouncing).for_each(|pending| pending.request.supersede());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Settings;
    use crate::session::response::tests::request_after;
    use crate::session::response::{CompletionResponse, ResponseReceiver};

    const LONG: Duration = Duration::from_secs(600);

    /// Pending requests without a worker, and now.
    fn pending() -> (PendingRequests, Instant) {
        (PendingRequests::new(Arc::default()), Instant::now())
    }

    #[track_caller]
    fn assert_response(receiver: &mut ResponseReceiver, expected: Option<CompletionResponse>) {
        assert_eq!(receiver.try_recv().unwrap(), expected);
    }

    #[test]
    fn debounced_request_is_due_once_and_superseded_by_newer_one() {
        let (mut pending, now) = pending();
        let (older, mut superseded) = request_after("a", now + LONG);
        let (newer, mut open) = request_after("b", now + LONG);
        pending.debounce(older, now + LONG / 3);
        pending.debounce(Arc::clone(&newer), now + LONG / 2);
        assert_response(&mut superseded, Some(CompletionResponse::Superseded));
        assert_eq!(pending.next_deadline(), Some(now + LONG / 2));
        assert!(pending.take_due(now + LONG / 3).is_none());
        assert!(pending.take_due(now + LONG / 2).is_some_and(|due| Arc::ptr_eq(&due, &newer)));
        assert!(pending.take_due(now + LONG).is_none() && pending.next_deadline().is_none());
        assert_response(&mut open, None);
        // Typing in the document ends the wait, too.
        pending.debounce(newer, now);
        pending.supersede("a");
        assert!(pending.take_due(now).is_none());
        assert_response(&mut open, Some(CompletionResponse::Superseded));
    }

    #[test]
    fn answered_generation_has_no_deadline_and_is_still_found() {
        let (mut pending, now) = pending();
        let (request, mut receiver) = request_after("a", now);
        pending.start_generation(Arc::clone(&request));
        assert_eq!(pending.next_deadline(), Some(now));
        pending.expire(now);
        assert_response(&mut receiver, Some(CompletionResponse::Empty));
        assert_eq!(pending.next_deadline(), None);
        assert!(pending.is_generating() && pending.find_generating("a", &request.snapshot).is_some());
        pending.end_work(&request);
        assert!(!pending.is_generating() && pending.find_generating("a", &request.snapshot).is_none());
        // An edit that does not fit ends the idle work after it.
        pending.follow_edit("a", Some(&Rope::from("b\n")));
        assert!(request.is_unwanted(now) && pending.all.is_empty());
    }

    #[test]
    fn interrupted_request_is_open_until_deadline() {
        let (mut pending, now) = pending();
        let (older, mut receiver) = request_after("a", now + LONG);
        let (newer, _receiver) = request_after("b", now + LONG * 2);
        pending.start_generation(Arc::clone(&older));
        assert!(pending.mailbox.take().is_some());
        pending.start_generation(newer);
        assert!(pending.find_generating("a", &older.snapshot).is_none());
        assert_eq!(pending.next_deadline(), Some(now + LONG));
        pending.expire(now + LONG);
        assert_response(&mut receiver, Some(CompletionResponse::Empty));
        assert_eq!(pending.all.len(), 1);
    }

    #[test]
    fn displaced_request_is_not_taken_for_generating() {
        let (mut pending, now) = pending();
        let (older, mut superseded) = request_after("a", now + LONG);
        let (newer, mut unloaded) = request_after("b", now + LONG);
        pending.start_generation(older);
        pending.start_generation(Arc::clone(&newer));
        assert_response(&mut superseded, Some(CompletionResponse::Superseded));
        pending.load_engine(Settings::default().engine, false);
        assert_response(&mut unloaded, Some(CompletionResponse::Empty));
        assert!(!pending.is_generating() && pending.find_generating("a", &newer.snapshot).is_none());
    }

    #[test]
    fn edit_keeps_fitting_popup_and_drops_stale_work() {
        let (mut pending, now) = pending();
        let (request, mut receiver) = request_after("a", now + LONG);
        let popup = Arc::new(Arc::into_inner(request).unwrap().for_popup());
        pending.start_generation(Arc::clone(&popup));
        assert_eq!(pending.follow_edit("a", Some(&Rope::from("ab\n"))).len(), 1);
        assert!(pending.is_generating() && !popup.is_unwanted(now));
        assert_response(&mut receiver, None);
        assert!(pending.follow_edit("a", Some(&Rope::from("xy\n"))).is_empty());
        assert!(!pending.is_generating() && popup.is_unwanted(now));
        assert_response(&mut receiver, Some(CompletionResponse::Superseded));
    }
}

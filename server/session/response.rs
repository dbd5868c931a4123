//! A completion request and the slot for its response: the first response is sent, and dropping an open request
//! sends an empty one.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::channel::oneshot;

use crate::completion::{Snapshot, Suggestion, cache};
use crate::text::{Encoding, Position, Rope, lines, position};
use crate::usage::tracker::{ResponseCell, TrackedResponse};

/// The response to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CompletionResponse {
    /// There is nothing to show.
    Empty,
    /// A newer request superseded this one, or the text has changed since.
    Superseded,
    /// This is to be shown.
    Shown(Box<CompletionItem>),
}

/// A suggestion in the editor's coordinates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompletionItem {
    /// The replaced range: usually empty, at the cursor.
    pub range: Range<Position>,
    /// The new text of the range.
    pub text: String,
    /// Alternatives to the text, the best first: for an explicit request.
    pub alternatives: Vec<String>,
    /// The word that ends at the cursor, for editors that filter by it; empty if there is none.
    pub word: String,
    /// Where that word begins.
    pub word_start: Position,
    /// The language's name, or an empty string.
    pub language: &'static str,
}

/// The right to send the one response to a request. Dropped unused, it sends [`CompletionResponse::Empty`].
#[derive(Debug)]
pub struct Responder(Option<oneshot::Sender<CompletionResponse>>);

/// Where the response arrives.
pub type ResponseReceiver = oneshot::Receiver<CompletionResponse>;

impl Responder {
    /// A responder and the receiver of its response. Dropping the receiver cancels the request.
    pub fn new() -> (Self, ResponseReceiver) {
        let (sender, receiver) = oneshot::channel();
        (Self(Some(sender)), receiver)
    }

    /// Sends the response; false if the request was cancelled.
    pub fn send(mut self, response: CompletionResponse) -> bool {
        self.0.take().is_some_and(|sender| sender.send(response).is_ok())
    }

    /// Whether the request was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.0.as_ref().is_some_and(oneshot::Sender::is_canceled)
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if let Some(sender) = self.0.take() {
            // An error means that the request was cancelled; the receiver's owner has answered it.
            let _ = sender.send(CompletionResponse::Empty);
        }
    }
}

/// A completion request, which does not change, with the slot for its response. The session, which enforces its
/// deadline, and the inference worker share it; either may respond.
#[derive(Debug)]
pub struct CompletionRequest {
    /// The document, as the editor names it.
    pub(crate) uri: String,
    /// The document and the cursor, at the moment of the request.
    pub(crate) snapshot: Snapshot,
    /// How the editor counts columns.
    pub(crate) encoding: Encoding,
    /// The suggestion that was known before: it stays the first one, whatever the model generates.
    known: Option<Suggestion>,
    /// See [`CompletionRequest::is_in_popup`].
    popup: bool,
    /// The editor's own snapshot, and what was typed since: see [`CompletionRequest::rebased`].
    origin: Option<(Snapshot, String)>,
    /// The sent response, until it is recorded.
    pub(crate) response: ResponseCell,
    slot: ResponseSlot,
}

/// The mutable state of a request, protected by one lock.
#[derive(Debug)]
struct ResponseSlot(Mutex<SlotState>);

#[derive(Debug)]
struct SlotState {
    response: ResponseState,
    deadlines: Deadlines,
    /// The best complete part so far; it may improve after the response.
    draft: Option<Suggestion>,
    /// The alternatives to the draft, the best first.
    alternatives: Vec<Suggestion>,
    /// The suggestion of a response that was sent before the work ended.
    sent_early: Option<Option<Suggestion>>,
    /// The text has changed: the work is of no use.
    is_dropped: bool,
}

#[derive(Debug)]
enum ResponseState {
    /// The response is still to be sent.
    Open(Responder),
    /// It was sent, or a [later request](CompletionRequest::rebased) has its responder.
    Answered,
}

impl ResponseSlot {
    fn new(deadlines: Deadlines, response: ResponseState) -> Self {
        Self(Mutex::new(SlotState {
            response,
            deadlines,
            draft: None,
            alternatives: Vec::new(),
            sent_early: None,
            is_dropped: false,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, SlotState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SlotState {
    /// Sends the response unless one was sent; returns whether it reached the editor.
    fn send(&mut self, response: CompletionResponse) -> bool {
        match std::mem::replace(&mut self.response, ResponseState::Answered) {
            ResponseState::Open(responder) => responder.send(response),
            ResponseState::Answered => false,
        }
    }

    fn is_answered(&self) -> bool {
        matches!(self.response, ResponseState::Answered)
    }

    fn is_cancelled(&self) -> bool {
        matches!(&self.response, ResponseState::Open(responder) if responder.is_cancelled())
    }
}

/// When the response is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deadlines {
    /// When the request arrived.
    pub(crate) arrived: Instant,
    /// From then on any complete part is sent at once, if the editor repeats the request for the rest.
    pub(crate) early: Option<Instant>,
    /// The latest time once there is a complete suggestion: the response does not wait longer for alternatives.
    pub(crate) usual: Instant,
    /// The latest time for the best complete part. Later for an explicit request than for an automatic one.
    pub(crate) latest: Instant,
}

impl Deadlines {
    /// For a request that is rebased after typing: from now on it waits no longer than an automatic one.
    fn after_typing(self, now: Instant) -> Self {
        let usual = now + self.usual.saturating_duration_since(self.arrived);
        Self { latest: self.latest.min(usual.max(self.usual)), ..self }
    }
}

impl From<Instant> for Deadlines {
    fn from(latest: Instant) -> Self {
        Self { arrived: latest, early: None, usual: latest, latest }
    }
}

impl CompletionRequest {
    /// A request without a response yet.
    pub(crate) fn new(
        uri: String,
        snapshot: Snapshot,
        encoding: Encoding,
        deadlines: Deadlines,
        responder: Responder,
    ) -> Self {
        Self::with_response(uri, snapshot, encoding, deadlines, ResponseState::Open(responder))
    }

    /// A request that no client sent, for work at a cursor where none was made yet.
    pub(crate) fn without_client(uri: String, snapshot: Snapshot, encoding: Encoding) -> Self {
        Self::with_response(uri, snapshot, encoding, Instant::now().into(), ResponseState::Answered)
    }

    fn with_response(
        uri: String,
        snapshot: Snapshot,
        encoding: Encoding,
        deadlines: Deadlines,
        response: ResponseState,
    ) -> Self {
        let slot = ResponseSlot::new(deadlines, response);
        let response = Arc::default();
        Self { uri, snapshot, encoding, known: None, popup: false, origin: None, response, slot }
    }

    /// Rebases this popup request onto `snapshot`, after `typed` was typed at its cursor. The new request takes
    /// over the responder; its response is placed at the editor's original cursor, with `typed` in front.
    pub(crate) fn rebased(&self, snapshot: Snapshot, typed: &str) -> Self {
        let mut state = self.slot.lock();
        state.deadlines = state.deadlines.after_typing(Instant::now());
        let (deadlines, response) =
            (state.deadlines, std::mem::replace(&mut state.response, ResponseState::Answered));
        drop(state);
        let origin = match &self.origin {
            Some((original, before)) => (original.clone(), before.clone() + typed),
            None => (self.snapshot.clone(), typed.to_owned()),
        };
        let moved = Self::with_response(self.uri.clone(), snapshot, self.encoding, deadlines, response);
        Self { popup: true, origin: Some(origin), ..moved }
    }

    /// The text typed at its cursor, if nothing else was changed on the way to `text`.
    pub(crate) fn typed_since(&self, text: &Rope) -> Option<String> {
        cache::typed_since(&self.snapshot, text)
    }

    /// This request, with its first suggestion known: only alternatives are missing.
    pub(crate) fn with_known(mut self, known: Suggestion) -> Self {
        self.known = Some(known);
        self
    }

    /// This request, for a popup.
    pub(crate) fn for_popup(mut self) -> Self {
        self.popup = true;
        self
    }

    /// Whether the response goes to a popup, which is filtered by what is typed before it arrives.
    pub(crate) fn is_in_popup(&self) -> bool {
        self.popup
    }

    /// The first suggestion, if the model's is `generated`.
    pub(crate) fn first_suggestion(&self, generated: Option<Suggestion>) -> Option<Suggestion> {
        self.known.clone().or(generated)
    }

    /// Stores the alternatives to the first suggestion.
    pub(crate) fn set_alternatives(&self, alternatives: &[Suggestion]) {
        self.slot.lock().alternatives = alternatives.to_vec();
    }

    /// The latest time of the response.
    pub(crate) fn deadline(&self) -> Instant {
        self.slot.lock().deadlines.latest
    }

    /// How long prefilling a prompt may take.
    ///
    /// An explicit request may take longer than an automatic one. If the first part can be shown at once, the time
    /// is for the rest of the suggestion. If there is only one response, half of the time is for prefilling more of
    /// the file, by the measured speed, so that there is a response even if the machine is slower now.
    pub(crate) fn time_to_read(&self, now: Instant, margin: Duration) -> Duration {
        let left = |until: Instant| until.saturating_duration_since(now).saturating_sub(margin);
        let Deadlines { early, usual, latest, .. } = self.slot.lock().deadlines;
        let usual = left(usual.min(latest));
        if early.is_some() { usual } else { usual.max(left(latest) / 2) }
    }

    /// Called once there is a complete suggestion: from now on only alternatives are waited for.
    pub(crate) fn stop_waiting_for_alternatives(&self) {
        let deadlines = &mut self.slot.lock().deadlines;
        deadlines.latest = deadlines.latest.min(deadlines.usual);
    }

    /// Reopens this request when the client repeats it during the work: the response goes to the new one.
    pub(crate) fn reopen(&self, deadlines: Deadlines, responder: Responder) {
        let mut state = self.slot.lock();
        (state.deadlines, state.response) = (deadlines, ResponseState::Open(responder));
    }

    /// Whether `other` is the same request: nothing that its response depends on has changed.
    pub(crate) fn is_same_request(&self, uri: &str, other: &Snapshot) -> bool {
        let Snapshot { text, cursor, selected, trigger, options, .. } = &self.snapshot;
        self.uri == uri
            && text.is_instance(&other.text)
            && self.snapshot.has_same_preceding(other)
            && (cursor, selected, trigger, options)
                == (&other.cursor, &other.selected, &other.trigger, &other.options)
            && !self.is_unwanted(Instant::now())
    }

    /// Whether work on it may be of use for `text`: since then, text was only typed at its cursor, and it agrees
    /// with the draft.
    pub(crate) fn may_serve(&self, text: &Rope) -> bool {
        let Some(typed) = self.typed_since(text) else { return false };
        self.slot.lock().draft.as_ref().is_none_or(|draft| cache::is_compatible(&draft.text, &typed))
    }

    /// Stores what could be shown now; a later `None` does not remove it.
    pub(crate) fn set_draft(&self, suggestion: Option<Suggestion>) {
        if suggestion.is_some() {
            self.slot.lock().draft = self.first_suggestion(suggestion);
        }
    }

    /// Responds with `suggestion`, unless there was a response; returns whether it reached the editor.
    pub(crate) fn respond(&self, suggestion: Option<Suggestion>) -> bool {
        self.respond_locked(&mut self.slot.lock(), suggestion)
    }

    fn respond_locked(&self, state: &mut SlotState, suggestion: Option<Suggestion>) -> bool {
        if state.is_answered() {
            return false;
        }
        let first = self.first_suggestion(suggestion);
        let mut shown = first.clone().and_then(|suggestion| self.show(suggestion));
        let mut alternatives = Vec::new();
        if let (Some(shown), Some(first)) = (&mut shown, &first) {
            let all = state.alternatives.iter();
            alternatives = all.map(|it| it.text.clone()).filter(|it| *it != first.text).collect();
            let typed = self.origin.as_ref().map_or("", |(_, typed)| typed);
            shown.alternatives = alternatives.iter().map(|it| format!("{typed}{it}")).collect();
        }
        let first = first.filter(|_| shown.is_some());
        let content =
            shown.map_or(CompletionResponse::Empty, |shown| CompletionResponse::Shown(Box::new(shown)));
        // Held until the response is written: the edit that accepts the suggestion may arrive at once.
        let mut response = self.response.lock().unwrap_or_else(PoisonError::into_inner);
        let was_sent = state.send(content);
        if was_sent {
            let Snapshot { text, cursor, .. } = &self.snapshot;
            *response = Some(TrackedResponse {
                text: text.clone(),
                cursor: *cursor,
                shown: first,
                alternatives,
                latency: state.deadlines.arrived.elapsed(),
            });
        }
        was_sent
    }

    /// A suggestion in the editor's coordinates, relative to the original cursor.
    fn show(&self, suggestion: Suggestion) -> Option<CompletionItem> {
        let Some((original, typed)) = &self.origin else {
            return show(&self.snapshot, self.encoding, suggestion);
        };
        let Suggestion { range, text } = suggestion;
        if range.start != self.snapshot.cursor {
            return None;
        }
        let range = original.cursor..original.cursor + range.len();
        show(original, self.encoding, Suggestion { range, text: format!("{typed}{text}") })
    }

    /// The deadline has passed: responds with the draft, unless there was a response. The work may continue.
    pub(crate) fn respond_with_draft(&self) -> bool {
        self.draft_response_locked(&mut self.slot.lock())
    }

    fn draft_response_locked(&self, state: &mut SlotState) -> bool {
        let draft = state.draft.clone();
        let was_sent = self.respond_locked(state, draft.clone());
        if was_sent {
            state.sent_early = Some(draft);
        }
        was_sent
    }

    /// Responds with the draft if there is one and the editor accepts a partial suggestion.
    pub(crate) fn respond_early(&self, now: Instant) {
        let mut state = self.slot.lock();
        if state.deadlines.early.is_some_and(|early| early <= now) && state.draft.is_some() {
            self.draft_response_locked(&mut state);
        }
    }

    /// The draft, if only a part of it or nothing was sent before. Returned once.
    pub(crate) fn take_improvement(&self) -> Option<Suggestion> {
        let SlotState { draft, sent_early, .. } = &mut *self.slot.lock();
        let has_improved = draft.is_some() && sent_early.as_ref().is_some_and(|sent| sent != draft);
        if has_improved {
            *sent_early = Some(draft.clone());
        }
        draft.clone().filter(|_| has_improved)
    }

    /// Responds that a newer request superseded it, unless there was a response. The work may continue.
    pub(crate) fn supersede(&self) {
        self.slot.lock().send(CompletionResponse::Superseded);
    }

    /// Ends the work: the text has changed.
    pub(crate) fn drop_work(&self) {
        self.slot.lock().is_dropped = true;
    }

    /// Responds with nothing, unless there was a response, and ends the work.
    pub(crate) fn abandon(&self) {
        let mut state = self.slot.lock();
        state.is_dropped = true;
        state.send(CompletionResponse::Empty);
    }

    /// Whether the editor waits for a response.
    pub(crate) fn is_open(&self) -> bool {
        let state = self.slot.lock();
        !state.is_answered() && !state.is_cancelled()
    }

    /// Whether the editor cancelled it.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.slot.lock().is_cancelled()
    }

    /// Whether work on it is of no use.
    ///
    /// Editors cancel on the next key and ask again immediately, so cancelled work continues until its deadline: it
    /// may serve the next request.
    pub(crate) fn is_unwanted(&self, now: Instant) -> bool {
        let state = self.slot.lock();
        state.is_dropped || (state.is_cancelled() && now >= state.deadlines.latest)
    }
}

/// A suggestion in the editor's coordinates; `None` if its range is outside the text.
fn show(snapshot: &Snapshot, encoding: Encoding, suggestion: Suggestion) -> Option<CompletionItem> {
    let text = &snapshot.text;
    let Suggestion { range, text: new } = suggestion;
    if new.is_empty() || range.start > range.end || range.end > text.len_bytes() {
        return None;
    }
    let at = |offset| position::position_at(text, offset, encoding);
    let word = word_before(text, snapshot.cursor);
    Some(CompletionItem {
        range: at(range.start)..at(range.end),
        text: new,
        alternatives: Vec::new(),
        word_start: at(snapshot.cursor - word.len()),
        word,
        language: snapshot.language.map_or("", |language| language.name),
    })
}

/// Word characters that end at `cursor`, at most 256 of them.
fn word_before(text: &Rope, cursor: usize) -> String {
    let before = lines::text_before(text, cursor, 256);
    let rest = before.trim_end_matches(|character: char| character.is_alphanumeric() || character == '_');
    before[rest.len()..].to_owned()
}

#[cfg(test)]
pub(super) mod tests;

//! Tracks the suggestion that is shown in each document, and records outcomes, never text or position.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::completion::Suggestion;
use crate::text::Rope;
use crate::usage::outcome::ShownSuggestion;
use crate::usage::stats::{UsageEvent, UsageRecord};

/// Maximum characters of an editor's language name that is counted.
const LANGUAGE_LENGTH: usize = 32;

/// Receives the records to count. Must not block.
pub type UsageRecorder = Box<dyn FnMut(UsageRecord) + Send>;

/// The response that the editor received.
#[derive(Debug)]
pub struct TrackedResponse {
    /// The text for which the request was made.
    pub text: Rope,
    /// The cursor in it, in bytes.
    pub cursor: usize,
    /// The suggestion, if there is one.
    pub shown: Option<Suggestion>,
    /// The alternatives to it.
    pub alternatives: Vec<String>,
    /// From the request to its response.
    pub latency: Duration,
}

/// The response to a request, which may come from another thread, until it is recorded.
pub type ResponseCell = Arc<Mutex<Option<TrackedResponse>>>;

struct TrackedDocument {
    language: Arc<str>,
    /// The response to the last request. It is checked when the next event in the document occurs.
    response: ResponseCell,
    /// The shown suggestion and its model.
    shown: Option<(ShownSuggestion, Arc<str>)>,
}

/// Tracks the shown suggestions of all documents.
pub struct UsageTracker {
    documents: HashMap<String, TrackedDocument>,
    /// The name of the model in use.
    model: Option<Arc<str>>,
    last_edited: String,
    recorder: UsageRecorder,
}

impl UsageTracker {
    /// A tracker without documents.
    pub fn new(recorder: UsageRecorder) -> Self {
        Self { documents: HashMap::new(), model: None, last_edited: String::new(), recorder }
    }

    /// Counts requests under this model from now on.
    pub fn set_model(&mut self, name: &str) {
        // Of a path only the file name is stored.
        let name = name.rsplit(['/', '\\']).next().unwrap_or_default();
        self.model = Some(name.into());
    }

    /// Records a request at `cursor`. Without a model, nothing is counted.
    pub fn record_request(&mut self, uri: &str, cursor: usize, language: &str) {
        let Some(model) = self.model.clone() else { return };
        self.move_cursor(uri, cursor);
        let new = || TrackedDocument {
            language: language_name(language).into(),
            response: Arc::default(),
            shown: None,
        };
        let document = self.documents.entry(uri.to_owned()).or_insert_with(new);
        document.response = Arc::default();
        let language = Arc::clone(&document.language);
        (self.recorder)(UsageRecord { language, model, event: UsageEvent::Requested });
    }

    /// Tracks the suggestion that `response` will contain.
    pub fn track_response(&mut self, uri: &str, response: &ResponseCell) {
        if let Some(document) = self.documents.get_mut(uri) {
            document.response = Arc::clone(response);
        }
    }

    /// Records the response to the last request, and the outcome if it is known.
    pub fn update(&mut self, uri: &str) {
        let (Some(model), Some(document)) = (&self.model, self.documents.get_mut(uri)) else { return };
        let TrackedDocument { language, response, shown } = document;
        let mut record = |model: &Arc<str>, event| {
            let (language, model) = (Arc::clone(language), Arc::clone(model));
            (self.recorder)(UsageRecord { language, model, event });
        };
        if let Some(response) = response.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let TrackedResponse { text, cursor, shown: new, alternatives, latency } = response;
            record(model, UsageEvent::Responded { latency, empty: new.is_none() });
            let continues = |new, old: &mut ShownSuggestion| old.refresh(&text, cursor, new, &alternatives);
            if let Some(new) = new
                && !shown.as_mut().is_some_and(|(old, _)| continues(&new, old))
            {
                if let Some((old, _)) = shown {
                    old.finish();
                }
                record_outcome(shown, &mut record);
                record(model, UsageEvent::Shown);
                *shown = Some((ShownSuggestion::new(&text, cursor, &new, &alternatives), Arc::clone(model)));
            }
        }
        record_outcome(shown, &mut record);
    }

    /// The same for every document.
    pub fn update_all(&mut self) {
        self.uris().iter().for_each(|uri| self.update(uri));
    }

    /// The suggestion that is shown in a document, to apply its edits. They invalidate a pending response.
    pub fn begin_edit(&mut self, uri: &str) -> Option<&mut ShownSuggestion> {
        self.update(uri);
        uri.clone_into(&mut self.last_edited);
        let document = self.documents.get_mut(uri)?;
        document.response = Arc::default();
        document.shown.as_mut().map(|(shown, _)| shown)
    }

    /// The cursor is at `position` in a document, in bytes.
    pub fn move_cursor(&mut self, uri: &str, position: usize) {
        self.update(uri);
        let shown = self.documents.get(uri).and_then(|it| it.shown.as_ref());
        if shown.is_some_and(|(shown, _)| shown.position() != position) {
            self.finish(uri);
        }
    }

    /// The editor reports that the user accepted what was shown last.
    pub fn confirm_acceptance(&mut self) {
        let document = self.documents.get_mut(&self.last_edited);
        // Before a response is recorded: some editors send the next request first.
        if let Some((shown, _)) = document.and_then(|it| it.shown.as_mut()) {
            shown.confirm_acceptance();
            self.update(&self.last_edited.clone());
        }
    }

    fn finish(&mut self, uri: &str) {
        self.update(uri);
        if let Some(document) = self.documents.get_mut(uri) {
            document.response = Arc::default();
            if let Some((shown, _)) = &mut document.shown {
                shown.finish();
            }
        }
        self.update(uri);
    }

    /// Nothing is shown in a document any more.
    pub fn close(&mut self, uri: &str) {
        self.finish(uri);
        self.documents.remove(uri);
    }

    /// Nothing is shown any more.
    pub fn close_all(&mut self) {
        self.uris().iter().for_each(|uri| self.close(uri));
    }

    /// Forgets everything without recording it.
    pub fn clear(&mut self) {
        self.documents.clear();
    }

    fn uris(&self) -> Vec<String> {
        self.documents.keys().cloned().collect()
    }
}

fn record_outcome(
    shown: &mut Option<(ShownSuggestion, Arc<str>)>,
    record: &mut impl FnMut(&Arc<str>, UsageEvent),
) {
    if let Some((outcome, characters)) = shown.as_ref().and_then(|(shown, _)| shown.outcome())
        && let Some((_, model)) = shown.take()
    {
        record(&model, UsageEvent::Finished { outcome, characters });
    }
}

/// The language's name, or `other` if it does not look like a language name.
fn language_name(name: &str) -> &str {
    let plain = |it: char| it.is_ascii_alphanumeric() || matches!(it, '-' | '_' | '+' | '#');
    if name.is_empty() || name.len() > LANGUAGE_LENGTH || !name.chars().all(plain) { "other" } else { name }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::text::Edit;
    use crate::usage::outcome::Outcome;

    /// A response at the end of a text.
    fn response(text: &str) -> ResponseCell {
        let cursor = text.len();
        let shown = Some(Suggestion { range: cursor..cursor, text: ")".to_owned() });
        let (text, latency) = (Rope::from(text), Duration::ZERO);
        Arc::new(Mutex::new(Some(TrackedResponse { text, cursor, shown, alternatives: Vec::new(), latency })))
    }

    #[test]
    fn acceptance_is_confirmed_although_the_next_request_came_first() {
        let (sender, recorded) = channel();
        let mut tracker = UsageTracker::new(Box::new(move |record| drop(sender.send(record))));
        tracker.record_request("a", 2, "no name");
        tracker.set_model("folder/m.gguf");
        tracker.record_request("a", 2, "no name");
        tracker.track_response("a", &response("f("));
        let edit = Edit { range: 2..2, text: ")".to_owned() };
        if let Some(shown) = tracker.begin_edit("a") {
            shown.apply_edit(&Rope::from("f("), &edit, &Rope::from("f()"));
        }
        tracker.record_request("a", 3, "no name");
        tracker.track_response("a", &response("f()"));
        tracker.confirm_acceptance();
        tracker.close_all();
        drop(tracker);
        let finished = |outcome, characters| UsageEvent::Finished { outcome, characters };
        let responded = UsageEvent::Responded { latency: Duration::ZERO, empty: false };
        let expected = [
            UsageEvent::Requested,
            responded,
            UsageEvent::Shown,
            UsageEvent::Requested,
            responded,
            finished(Outcome::Accepted, 1),
            UsageEvent::Shown,
            finished(Outcome::Dismissed, 0),
        ];
        let recorded: Vec<_> = recorded.iter().collect();
        assert!(recorded.iter().all(|it| (&*it.language, &*it.model) == ("other", "m.gguf")), "{recorded:?}");
        assert_eq!(recorded.iter().map(|it| it.event).collect::<Vec<_>>(), expected);
    }
}

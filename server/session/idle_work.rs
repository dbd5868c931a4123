//! Idle work, which ends when a request arrives, and continues if that only confirms it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::completion::next_actions::PriorResponse;
use crate::completion::{Snapshot, Suggestion, cache};
use crate::session::job::Job;
use crate::session::mailbox::Mailbox;
use crate::session::response::CompletionRequest;
use crate::text::{Edit, Rope};

/// A document after a suggestion is accepted.
#[derive(Debug)]
pub(crate) struct AcceptedDocument {
    text: Rope,
    cursor: usize,
}

impl AcceptedDocument {
    /// `None` if the suggestion does not fit the document.
    fn new(snapshot: &Snapshot, shown: &Suggestion) -> Option<Self> {
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

    /// Takes the job that confirms a prefetch for this document, and returns its request: the user typed on into the
    /// shown suggestion, and now sees the rest of it.
    pub(crate) fn take_confirmation(
        &self,
        mailbox: &Mailbox<Job>,
        uri: &str,
    ) -> Option<Arc<CompletionRequest>> {
        let confirmation = mailbox.take_if(|job| match job {
            Job::Prefetch(newer, PriorResponse::Shown(shown)) => {
                newer.uri == uri && self.is_same(&newer.snapshot, shown)
            }
            _ => false,
        });
        match confirmation {
            Some(Job::Prefetch(newer, _)) => Some(newer),
            _ => None,
        }
    }
}

/// Work for the requests that will follow one that was answered.
pub(crate) struct IdleWork<'a> {
    mailbox: &'a Mailbox<Job>,
    /// The newest request whose response leads to `accepted`.
    pub(crate) request: Arc<CompletionRequest>,
    /// The document once the shown suggestion is accepted.
    pub(crate) accepted: Option<AcceptedDocument>,
}

impl<'a> IdleWork<'a> {
    /// Idle work after `request`, which was answered with `response`.
    pub(crate) fn new(
        mailbox: &'a Mailbox<Job>,
        request: Arc<CompletionRequest>,
        response: &PriorResponse,
    ) -> Self {
        let accepted = match response {
            PriorResponse::Shown(shown) => AcceptedDocument::new(&request.snapshot, shown),
            PriorResponse::Empty | PriorResponse::Unrequested => None,
        };
        Self { mailbox, request, accepted }
    }

    /// Whether a request waits, or the text has changed.
    pub(crate) fn is_over(&mut self) -> bool {
        (self.mailbox.is_waiting() && !self.take_confirmation()) || self.request.is_unwanted(Instant::now())
    }

    /// Takes the waiting job if it confirms this work.
    fn take_confirmation(&mut self) -> bool {
        let accepted = self.accepted.as_ref();
        let newer = accepted.and_then(|it| it.take_confirmation(self.mailbox, &self.request.uri));
        newer.map(|newer| self.request = newer).is_some()
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
    use crate::session::response::tests::request_after;

    #[test]
    fn prefetch_is_confirmed_only_by_same_document() {
        let shown = |at: usize, text: &str| Suggestion { range: at..at, text: text.to_owned() };
        for (before, rest, confirmed) in
            [("x = f", "oo", true), ("x = f", "o", false), ("y = f", "oo", false)]
        {
            let mailbox = Mailbox::default();
            let (older, _older) = request_after("x = ", Instant::now());
            let (newer, _newer) = request_after(before, Instant::now());
            let mut idle_work = IdleWork::new(&mailbox, older, &PriorResponse::Shown(shown(4, "foo")));
            assert!(!idle_work.is_over());
            mailbox.put(Job::Prefetch(Arc::clone(&newer), PriorResponse::Shown(shown(5, rest))));
            assert_eq!(idle_work.is_over(), !confirmed, "{before}{rest}");
            assert_eq!(Arc::ptr_eq(&idle_work.request, &newer), confirmed);
            newer.drop_work();
            assert!(idle_work.is_over());
        }
    }
}

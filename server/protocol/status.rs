//! The state that an editor's status line shows: `taper/status`, sent to editors that announce they show it.
//! It knows nothing of why things happen; it is told, and says what that amounts to.
//!
//! An editor announces `capabilities.experimental.taper.status: true`. The params: `state` (`loading`, `ready`,
//! `thinking`, `paused` or `error`), `message`, `percent` while it is known, `model`, `device` and `kernel` once there
//! is a model, and `paused`: `everywhere`, `languages`, `documents`.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use taper_engine::About;
use tower_lsp::ls_types::notification::Notification;

use crate::session::{Loading, Notice, Pauses};

/// A question is worth a word once it has been open for so long: most are answered before anyone could read it.
const THINKING: Duration = Duration::from_millis(100);

/// The notification.
pub(crate) enum TaperStatus {}

impl Notification for TaperStatus {
    type Params = Value;
    const METHOD: &'static str = "taper/status";
}

/// What happened, for those who tell the editor.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// The session says so.
    Session(Notice),
    /// The settings allow suggestions, or forbid them.
    Enabled(bool),
    /// A question arrived.
    Asked,
    /// A question was answered, or given up.
    Answered,
}

impl From<Notice> for News {
    fn from(notice: Notice) -> Self {
        Self::Session(notice)
    }
}

#[derive(Debug)]
enum Phase {
    Loading(Loading),
    Ready(Box<About>),
    Failed(String),
}

/// What the editor's status line is to say.
#[derive(Debug)]
pub(crate) struct Status {
    phase: Phase,
    enabled: bool,
    pauses: Pauses,
    /// Questions without an answer.
    open: usize,
    /// Since when there are any.
    since: Option<Instant>,
    /// What was sent last.
    sent: Value,
}

impl Default for Status {
    fn default() -> Self {
        let loading = Loading { message: "loading the model".to_owned(), percent: None };
        let (enabled, pauses, open, since, sent) = (true, Pauses::default(), 0, None, Value::Null);
        Self { phase: Phase::Loading(loading), enabled, pauses, open, since, sent }
    }
}

impl Status {
    /// Takes note of what happened at `now`.
    pub(crate) fn note(&mut self, news: &News, now: Instant) {
        match news {
            News::Session(Notice::Loading(loading)) => self.phase = Phase::Loading(loading.clone()),
            News::Session(Notice::Loaded(about)) => self.phase = Phase::Ready(about.clone()),
            News::Session(Notice::Failed(problem)) => self.phase = Phase::Failed(problem.clone()),
            News::Session(Notice::Paused(pauses)) => self.pauses = pauses.clone(),
            News::Session(Notice::Problem(_) | Notice::Grown(_) | Notice::Trace(_)) => {}
            News::Enabled(enabled) => self.enabled = *enabled,
            News::Asked => {
                self.open += 1;
                self.since = self.since.or(Some(now));
            }
            News::Answered => {
                self.open = self.open.saturating_sub(1);
                if self.open == 0 {
                    self.since = None;
                }
            }
        }
    }

    /// When the state changes though nothing happens.
    pub(crate) fn wakes_at(&self) -> Option<Instant> {
        let thinking = self.sent.get("state").is_some_and(|state| state == "thinking");
        self.since
            .filter(|_| !thinking && matches!(self.phase, Phase::Ready(_)))
            .map(|since| since + THINKING)
    }

    /// What to send at `now`: `None` if the editor knows it.
    pub(crate) fn due(&mut self, now: Instant) -> Option<Value> {
        let written = self.written(now);
        if written == self.sent {
            return None;
        }
        self.sent = written.clone();
        Some(written)
    }

    fn written(&self, now: Instant) -> Value {
        let Pauses { everywhere, languages, documents } = &self.pauses;
        let mut written =
            json!({ "paused": { "everywhere": everywhere, "languages": languages, "documents": documents } });
        let (state, message) = match &self.phase {
            Phase::Loading(Loading { message, percent }) => {
                if let Some(percent) = percent {
                    written["percent"] = (*percent).min(100).into();
                }
                ("loading", message.as_str())
            }
            Phase::Failed(problem) => ("error", problem.as_str()),
            Phase::Ready(about) => {
                written["model"] = about.model.as_str().into();
                written["device"] = about.device.as_str().into();
                written["kernel"] = about.kernel.as_str().into();
                let thinking =
                    self.since.is_some_and(|since| now.saturating_duration_since(since) >= THINKING);
                match () {
                    () if !self.enabled => ("paused", "the option `enable` is false"),
                    () if *everywhere => ("paused", "everywhere"),
                    () if thinking => ("thinking", ""),
                    () => ("ready", ""),
                }
            }
        };
        written["state"] = state.into();
        if !message.is_empty() {
            written["message"] = message.into();
        }
        written
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_due_once_and_thinking_only_after_a_while() {
        let (mut status, start) = (Status::default(), Instant::now());
        assert_eq!(status.due(start).unwrap()["state"], "loading");
        assert_eq!(status.due(start), None);
        let loading = Loading { message: "m: downloading".to_owned(), percent: Some(140) };
        status.note(&Notice::Loading(loading).into(), start);
        let due = status.due(start).unwrap();
        assert_eq!((&due["message"], &due["percent"]), (&json!("m: downloading"), &json!(100)));
        let about = About { model: "m".to_owned(), device: "CPU".to_owned(), ..About::default() };
        status.note(&Notice::Loaded(Box::new(about)).into(), start);
        let ready = status.due(start).unwrap();
        assert_eq!(
            (&ready["state"], &ready["model"], &ready["device"]),
            (&json!("ready"), &json!("m"), &json!("CPU"))
        );

        status.note(&News::Asked, start);
        status.note(&News::Answered, start);
        assert_eq!((status.due(start), status.wakes_at()), (None, None));
        status.note(&News::Asked, start);
        status.note(&News::Asked, start + THINKING / 2);
        assert_eq!((status.due(start), status.wakes_at()), (None, Some(start + THINKING)));
        let late = start + THINKING;
        assert_eq!(status.due(late).unwrap()["state"], "thinking");
        assert_eq!(status.wakes_at(), None, "it is known");
        status.note(&News::Answered, late);
        assert_eq!(status.due(late), None, "one is still open");
        status.note(&News::Answered, late);
        assert_eq!(status.due(late), Some(ready));
    }

    #[test]
    fn what_is_wrong_goes_before_what_is_paused() {
        let (mut status, now) = (Status::default(), Instant::now());
        status.note(&Notice::Loaded(Box::default()).into(), now);
        status.note(&News::Enabled(false), now);
        assert_eq!(status.due(now).unwrap()["message"], "the option `enable` is false");
        status.note(&News::Enabled(true), now);
        let pauses = Pauses { everywhere: true, ..Pauses::default() };
        status.note(&Notice::Paused(pauses).into(), now);
        let due = status.due(now).unwrap();
        assert_eq!((&due["state"], &due["paused"]["everywhere"]), (&json!("paused"), &json!(true)));
        status.note(&Notice::Failed("no file".to_owned()).into(), now);
        let due = status.due(now).unwrap();
        assert_eq!((&due["state"], &due["message"]), (&json!("error"), &json!("no file")));
    }
}

//! The state that an editor's status line shows: `taper/status`, sent to editors that announce that they show it.
//!
//! An editor announces `capabilities.experimental.taper.status: true`. The params: `state` (`loading`, `ready`,
//! `thinking`, `paused` or `error`), `message`, `percent` while it is known, `model`, `device` and `kernel` once there
//! is a model, and `paused`: `everywhere`, `languages`, `documents`.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use taper_engine::EngineInfo;
use tower_lsp::ls_types::notification::Notification;

use crate::session::{LoadProgress, Notice, Pauses};

/// A request counts as `thinking` once it has been open for this time: most get a response before it would be noticed.
const THINKING_DELAY: Duration = Duration::from_millis(100);

/// The notification.
pub(crate) enum TaperStatus {}

impl Notification for TaperStatus {
    type Params = Value;
    const METHOD: &'static str = "taper/status";
}

/// An event for the status line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum StatusEvent {
    /// A notice of the session.
    Session(Notice),
    /// The settings allow suggestions, or forbid them.
    Enabled(bool),
    /// A request arrived.
    Requested,
    /// A request was answered or cancelled.
    Responded,
}

impl From<Notice> for StatusEvent {
    fn from(notice: Notice) -> Self {
        Self::Session(notice)
    }
}

#[derive(Debug)]
enum ModelPhase {
    Loading(LoadProgress),
    Ready(Box<EngineInfo>),
    Failed(String),
}

/// The state of the editor's status line.
#[derive(Debug)]
pub(crate) struct StatusLine {
    phase: ModelPhase,
    enabled: bool,
    pauses: Pauses,
    /// Number of open requests.
    open: usize,
    /// Since when there are open requests.
    since: Option<Instant>,
    /// The params that were sent last.
    sent: Value,
}

impl Default for StatusLine {
    fn default() -> Self {
        let loading = LoadProgress { message: "loading the model".to_owned(), percent: None };
        let (enabled, pauses, open, since, sent) = (true, Pauses::default(), 0, None, Value::Null);
        Self { phase: ModelPhase::Loading(loading), enabled, pauses, open, since, sent }
    }
}

impl StatusLine {
    /// Records an event at `now`.
    pub(crate) fn record_event(&mut self, event: &StatusEvent, now: Instant) {
        match event {
            StatusEvent::Session(Notice::Loading(loading)) => {
                self.phase = ModelPhase::Loading(loading.clone());
            }
            StatusEvent::Session(Notice::Loaded(about)) => self.phase = ModelPhase::Ready(about.clone()),
            StatusEvent::Session(Notice::Failed(problem)) => self.phase = ModelPhase::Failed(problem.clone()),
            StatusEvent::Session(Notice::Paused(pauses)) => self.pauses = pauses.clone(),
            StatusEvent::Session(Notice::Problem(_) | Notice::Refresh(_) | Notice::Trace(_)) => {}
            StatusEvent::Enabled(enabled) => self.enabled = *enabled,
            StatusEvent::Requested => {
                self.open += 1;
                self.since = self.since.or(Some(now));
            }
            StatusEvent::Responded => {
                self.open = self.open.saturating_sub(1);
                if self.open == 0 {
                    self.since = None;
                }
            }
        }
    }

    /// When the state changes without an event.
    pub(crate) fn next_change(&self) -> Option<Instant> {
        let thinking = self.sent.get("state").is_some_and(|state| state == "thinking");
        self.since
            .filter(|_| !thinking && matches!(self.phase, ModelPhase::Ready(_)))
            .map(|since| since + THINKING_DELAY)
    }

    /// The params to send at `now`; `None` if they were sent already.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<Value> {
        let params = self.params_json(now);
        if params == self.sent {
            return None;
        }
        self.sent = params.clone();
        Some(params)
    }

    fn params_json(&self, now: Instant) -> Value {
        let Pauses { everywhere, languages, documents } = &self.pauses;
        let mut params =
            json!({ "paused": { "everywhere": everywhere, "languages": languages, "documents": documents } });
        let (state, message) = match &self.phase {
            ModelPhase::Loading(LoadProgress { message, percent }) => {
                if let Some(percent) = percent {
                    params["percent"] = (*percent).min(100).into();
                }
                ("loading", message.as_str())
            }
            ModelPhase::Failed(problem) => ("error", problem.as_str()),
            ModelPhase::Ready(about) => {
                params["model"] = about.model.as_str().into();
                params["device"] = about.device.as_str().into();
                params["kernel"] = about.kernel.as_str().into();
                let thinking =
                    self.since.is_some_and(|since| now.saturating_duration_since(since) >= THINKING_DELAY);
                match () {
                    () if !self.enabled => ("paused", "the option `enable` is false"),
                    () if *everywhere => ("paused", "everywhere"),
                    () if thinking => ("thinking", ""),
                    () => ("ready", ""),
                }
            }
        };
        params["state"] = state.into();
        if !message.is_empty() {
            params["message"] = message.into();
        }
        params
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_changes_are_sent_once_thinking_after_delay() {
        let (mut status, start) = (StatusLine::default(), Instant::now());
        assert_eq!(status.take_due(start).unwrap()["state"], "loading");
        assert_eq!(status.take_due(start), None);
        let loading = LoadProgress { message: "m: downloading".to_owned(), percent: Some(140) };
        status.record_event(&Notice::Loading(loading).into(), start);
        let due = status.take_due(start).unwrap();
        assert_eq!((&due["message"], &due["percent"]), (&json!("m: downloading"), &json!(100)));
        let about = EngineInfo { model: "m".to_owned(), device: "CPU".to_owned(), ..EngineInfo::default() };
        status.record_event(&Notice::Loaded(Box::new(about)).into(), start);
        let ready = status.take_due(start).unwrap();
        assert_eq!(
            (&ready["state"], &ready["model"], &ready["device"]),
            (&json!("ready"), &json!("m"), &json!("CPU"))
        );

        status.record_event(&StatusEvent::Requested, start);
        status.record_event(&StatusEvent::Responded, start);
        assert_eq!((status.take_due(start), status.next_change()), (None, None));
        status.record_event(&StatusEvent::Requested, start);
        status.record_event(&StatusEvent::Requested, start + THINKING_DELAY / 2);
        assert_eq!((status.take_due(start), status.next_change()), (None, Some(start + THINKING_DELAY)));
        let late = start + THINKING_DELAY;
        assert_eq!(status.take_due(late).unwrap()["state"], "thinking");
        assert_eq!(status.next_change(), None, "it was sent");
        status.record_event(&StatusEvent::Responded, late);
        assert_eq!(status.take_due(late), None, "one is still open");
        status.record_event(&StatusEvent::Responded, late);
        assert_eq!(status.take_due(late), Some(ready));
    }

    #[test]
    fn error_status_precedes_paused_status() {
        let (mut status, now) = (StatusLine::default(), Instant::now());
        status.record_event(&Notice::Loaded(Box::default()).into(), now);
        status.record_event(&StatusEvent::Enabled(false), now);
        assert_eq!(status.take_due(now).unwrap()["message"], "the option `enable` is false");
        status.record_event(&StatusEvent::Enabled(true), now);
        let pauses = Pauses { everywhere: true, ..Pauses::default() };
        status.record_event(&Notice::Paused(pauses).into(), now);
        let due = status.take_due(now).unwrap();
        assert_eq!((&due["state"], &due["paused"]["everywhere"]), (&json!("paused"), &json!(true)));
        status.record_event(&Notice::Failed("no file".to_owned()).into(), now);
        let due = status.take_due(now).unwrap();
        assert_eq!((&due["state"], &due["message"]), (&json!("error"), &json!("no file")));
    }
}

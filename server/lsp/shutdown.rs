//! How the process ends: why, with which exit code, and what the user is told.
//! It knows nothing of who finds the reason.
//!
//! The first reason counts. Whatever it is, the counts are saved and the process ends, by [`LIMIT`] at the latest: an
//! editor starts a server again that has ended, and not one that answers nothing.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::Notify;
use tracing::{error, info, warn};

use crate::lsp::writer::MessageOutput;

/// How long what is still to be answered and written may take after `exit` or the end of the input.
const DRAIN_GRACE: Duration = Duration::from_millis(800);
/// How long after the reason the process may still run.
pub(crate) const EXIT_LIMIT: Duration = Duration::from_secs(6);

/// How serving ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitOutcome {
    /// By `exit` after `shutdown`, or because the input ended.
    Orderly,
    /// By `exit` without `shutdown`, without an editor, or by a fault: the process is to report a failure.
    Abrupt,
    /// By this signal: the process is to report that.
    Signal(u8),
}

/// Why the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndReason {
    /// The editor says so.
    Exit,
    /// The editor closed the pipe.
    InputEnded,
    /// There is no editor any more, as this shows.
    EditorGone(&'static str),
    /// Somebody wants it to end, by this signal.
    Signal(u8),
    /// This part of the server has failed, and nothing works without it.
    Failed(&'static str),
    /// Something could not be started; the editor has been told what.
    NotStarted,
}

/// How the process is to end, shared by all who may find out.
#[derive(Debug)]
pub(crate) struct Shutdown {
    /// `shutdown` was asked for.
    shut_down: AtomicBool,
    reason: OnceLock<(EndReason, Instant)>,
    over: Notify,
    output: MessageOutput,
}

impl Shutdown {
    pub(crate) fn new(output: MessageOutput) -> Self {
        Self { shut_down: AtomicBool::new(false), reason: OnceLock::new(), over: Notify::new(), output }
    }

    /// The editor has asked for `shutdown`: ending will be in order.
    pub(crate) fn request_shutdown(&self) {
        self.shut_down.store(true, Ordering::Release);
    }

    /// Begins the end, unless it has begun.
    pub(crate) fn begin_exit(&self, reason: EndReason) {
        if self.reason.set((reason, Instant::now())).is_err() {
            return;
        }
        match reason {
            EndReason::Exit | EndReason::InputEnded | EndReason::NotStarted => {}
            EndReason::EditorGone(how) => warn!(how, "there is no editor any more; the server ends"),
            EndReason::Signal(signal) => info!(signal, "the server ends by a signal"),
            EndReason::Failed(part) => {
                error!(
                    part,
                    "a part of the server has failed; the server ends, so that the editor starts it again"
                );
                let message = format!(
                    "taper: its {part} failed inside; the server ends, and the editor can start it again. The log says where."
                );
                // 1 is an error.
                self.output.try_notify("window/showMessage", json!({ "type": 1, "message": message }));
            }
        }
        self.over.notify_one();
    }

    /// For how long the end has been due.
    pub(crate) fn overdue_for(&self) -> Option<Duration> {
        self.reason.get().map(|(_, since)| since.elapsed())
    }

    /// Waits until nothing is to be answered any more.
    pub(crate) async fn over(&self) {
        self.over.notified().await;
        // Whoever sends a signal does not wait for answers.
        if !matches!(self.reason.get(), Some((EndReason::Signal(_), _))) {
            tokio::time::sleep(DRAIN_GRACE).await;
        }
    }

    /// What to report.
    pub(crate) fn exit_outcome(&self) -> ExitOutcome {
        match self.reason.get() {
            None | Some((EndReason::InputEnded, _)) => ExitOutcome::Orderly,
            Some((EndReason::Signal(signal), _)) => ExitOutcome::Signal(*signal),
            Some((EndReason::Failed(_) | EndReason::NotStarted, _)) => ExitOutcome::Abrupt,
            Some((EndReason::Exit | EndReason::EditorGone(_), _)) => {
                if self.shut_down.load(Ordering::Acquire) {
                    ExitOutcome::Orderly
                } else {
                    ExitOutcome::Abrupt
                }
            }
        }
    }
}

impl ExitOutcome {
    /// The exit code that says so.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Orderly => 0,
            Self::Abrupt => 1,
            // As shells have it.
            Self::Signal(signal) => 128 | signal,
        }
    }
}

//! How the process ends: the reason, the exit code, and the message to the user.
//!
//! The first reason counts. In any case the counts are saved and the process ends, within [`EXIT_LIMIT`]: an editor
//! restarts a server that has ended, but not one that hangs.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::Notify;
use tracing::{error, info, warn};

use crate::lsp::writer::MessageOutput;

/// Time after `exit` or the end of the input for the remaining responses.
const DRAIN_GRACE: Duration = Duration::from_millis(800);
/// Time limit of the process after the reason.
pub(crate) const EXIT_LIMIT: Duration = Duration::from_secs(6);

/// How serving ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitOutcome {
    /// By `exit` after `shutdown`, or because the input ended.
    Orderly,
    /// By `exit` without `shutdown`, without an editor, or by an internal error: the process must report a failure.
    Abrupt,
    /// By this signal, which the process must report.
    Signal(u8),
}

/// Why the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndReason {
    /// The editor sent `exit`.
    Exit,
    /// The editor closed the pipe.
    InputEnded,
    /// The editor has gone, with the evidence.
    EditorGone(&'static str),
    /// The process received this signal.
    Signal(u8),
    /// This essential part of the server has failed.
    Failed(&'static str),
    /// Something could not be started; the editor has the error.
    NotStarted,
}

/// The state of the shutdown, shared by everything that may start it.
#[derive(Debug)]
pub(crate) struct Shutdown {
    /// `shutdown` was requested.
    shut_down: AtomicBool,
    reason: OnceLock<(EndReason, Instant)>,
    exit_begun: Notify,
    output: MessageOutput,
}

impl Shutdown {
    pub(crate) fn new(output: MessageOutput) -> Self {
        Self { shut_down: AtomicBool::new(false), reason: OnceLock::new(), exit_begun: Notify::new(), output }
    }

    /// The editor requested `shutdown`: the end will be orderly.
    pub(crate) fn request_shutdown(&self) {
        self.shut_down.store(true, Ordering::Release);
    }

    /// Starts the exit, unless it was started before.
    pub(crate) fn begin_exit(&self, reason: EndReason) {
        if self.reason.set((reason, Instant::now())).is_err() {
            return;
        }
        match reason {
            EndReason::Exit | EndReason::InputEnded | EndReason::NotStarted => {}
            EndReason::EditorGone(evidence) => warn!(evidence, "the editor has gone; the server exits"),
            EndReason::Signal(signal) => info!(signal, "the server exits on a signal"),
            EndReason::Failed(part) => {
                error!(
                    part,
                    "a part of the server has failed; the server exits, so that the editor restarts it"
                );
                let message = format!(
                    "taper: internal error in the {part} thread; the server exits, and the editor can restart \
                     it. See the log."
                );
                // Type 1 is an error.
                self.output.try_notify("window/showMessage", json!({ "type": 1, "message": message }));
            }
        }
        self.exit_begun.notify_one();
    }

    /// Time since the exit was started.
    pub(crate) fn overdue_for(&self) -> Option<Duration> {
        self.reason.get().map(|(_, since)| since.elapsed())
    }

    /// Waits until the exit was started and the remaining responses had time.
    pub(crate) async fn wait_for_exit(&self) {
        self.exit_begun.notified().await;
        // The sender of a signal does not wait for responses.
        if !matches!(self.reason.get(), Some((EndReason::Signal(_), _))) {
            tokio::time::sleep(DRAIN_GRACE).await;
        }
    }

    /// How the process must report its end.
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
    /// The exit code of the outcome.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Orderly => 0,
            Self::Abrupt => 1,
            // By the convention of shells.
            Self::Signal(signal) => 128 | signal,
        }
    }
}

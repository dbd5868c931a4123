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

use crate::protocol::output::Output;

/// How long what is still to be answered and written may take after `exit` or the end of the input.
const GRACE: Duration = Duration::from_millis(800);
/// How long after the reason the process may still run.
pub(crate) const LIMIT: Duration = Duration::from_secs(6);

/// How serving ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By `exit` after `shutdown`, or because the input ended.
    Orderly,
    /// By `exit` without `shutdown`, without an editor, or by a fault: the process is to report a failure.
    Abrupt,
    /// By this signal: the process is to report that.
    Signal(u8),
}

/// Why the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
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
pub(crate) struct Ending {
    /// `shutdown` was asked for.
    shut_down: AtomicBool,
    reason: OnceLock<(Reason, Instant)>,
    over: Notify,
    output: Output,
}

impl Ending {
    pub(crate) fn new(output: Output) -> Self {
        Self { shut_down: AtomicBool::new(false), reason: OnceLock::new(), over: Notify::new(), output }
    }

    /// The editor has asked for `shutdown`: ending will be in order.
    pub(crate) fn shut_down(&self) {
        self.shut_down.store(true, Ordering::Release);
    }

    /// Begins the end, unless it has begun.
    pub(crate) fn begin(&self, reason: Reason) {
        if self.reason.set((reason, Instant::now())).is_err() {
            return;
        }
        match reason {
            Reason::Exit | Reason::InputEnded | Reason::NotStarted => {}
            Reason::EditorGone(how) => warn!(how, "there is no editor any more; the server ends"),
            Reason::Signal(signal) => info!(signal, "the server ends by a signal"),
            Reason::Failed(part) => {
                error!(
                    part,
                    "a part of the server has failed; the server ends, so that the editor starts it again"
                );
                let message = format!(
                    "taper: its {part} failed inside; the server ends, and the editor can start it again. The log says where."
                );
                // 1 is an error.
                self.output.notify("window/showMessage", json!({ "type": 1, "message": message }));
            }
        }
        self.over.notify_one();
    }

    /// For how long the end has been due.
    pub(crate) fn due_for(&self) -> Option<Duration> {
        self.reason.get().map(|(_, since)| since.elapsed())
    }

    /// Waits until nothing is to be answered any more.
    pub(crate) async fn over(&self) {
        self.over.notified().await;
        // Whoever sends a signal does not wait for answers.
        if !matches!(self.reason.get(), Some((Reason::Signal(_), _))) {
            tokio::time::sleep(GRACE).await;
        }
    }

    /// What to report.
    pub(crate) fn end(&self) -> End {
        match self.reason.get() {
            None | Some((Reason::InputEnded, _)) => End::Orderly,
            Some((Reason::Signal(signal), _)) => End::Signal(*signal),
            Some((Reason::Failed(_) | Reason::NotStarted, _)) => End::Abrupt,
            Some((Reason::Exit | Reason::EditorGone(_), _)) => {
                if self.shut_down.load(Ordering::Acquire) {
                    End::Orderly
                } else {
                    End::Abrupt
                }
            }
        }
    }
}

impl End {
    /// The exit code that says so.
    pub fn code(self) -> u8 {
        match self {
            Self::Orderly => 0,
            Self::Abrupt => 1,
            // As shells have it.
            Self::Signal(signal) => 128 | signal,
        }
    }
}

//! The inference worker's jobs.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::completion::next_actions::PriorResponse;
use crate::config::EngineSettings;
use crate::session::response::CompletionRequest;

/// A job for the worker.
#[derive(Debug)]
pub(crate) enum Job {
    /// Load an engine in place of the present one.
    Load { settings: EngineSettings, again: bool },
    /// Work on a request.
    Complete(Arc<CompletionRequest>),
    /// Prefetch what follows a request that was answered this way.
    Prefetch(Arc<CompletionRequest>, PriorResponse),
}

/// The result of a `watch` callback.
pub(super) fn break_if(is_over: bool) -> ControlFlow<()> {
    if is_over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

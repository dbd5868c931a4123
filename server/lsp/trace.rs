//! `taper/trace`: the steps of the server's work, for programs that follow it. A client requests it with
//! `capabilities.experimental.taper.trace: true`.

use serde_json::{Value, json};
use tower_lsp::ls_types::notification::Notification;

use crate::session::{TraceEvent, WorkSummary};

/// The notification. Its params: `event`, and the fields of that event.
pub(crate) enum TaperTrace {}

impl Notification for TaperTrace {
    type Params = Value;
    const METHOD: &'static str = "taper/trace";
}

/// The params for an event.
pub(crate) fn trace_params(event: &TraceEvent) -> Value {
    match event {
        TraceEvent::ModelLoaded { model } => json!({ "event": "modelLoaded", "model": model }),
        TraceEvent::Completed(work) => summary_params("completed", work),
        TraceEvent::WindowPrefilled => json!({ "event": "windowPrefilled" }),
        TraceEvent::PrefetchStarted => json!({ "event": "prefetchStarted" }),
        TraceEvent::Prefetched(work) => summary_params("prefetched", work),
        TraceEvent::AlternativesStarted => json!({ "event": "alternativesStarted" }),
        TraceEvent::AlternativesFinished { count, interrupted } => {
            json!({ "event": "alternativesFinished", "count": count, "interrupted": interrupted })
        }
        TraceEvent::WorkspaceWalked { files } => json!({ "event": "workspaceWalked", "files": files }),
        TraceEvent::WorkspaceIndexed { files, waiting } => {
            json!({ "event": "workspaceIndexed", "files": files, "waiting": waiting })
        }
        TraceEvent::DocumentNotIndexed { path } => json!({ "event": "documentNotIndexed", "path": path }),
        TraceEvent::MemoryReleased => json!({ "event": "memoryReleased" }),
        TraceEvent::DocumentLost { uri, reason } => {
            json!({ "event": "documentLost", "uri": uri, "reason": reason })
        }
        TraceEvent::UnknownDocument { uri } => json!({ "event": "unknownDocument", "uri": uri }),
    }
}

fn summary_params(event: &str, work: &WorkSummary) -> Value {
    let WorkSummary { prompt_tokens, short, evaluated, decoded, interrupted } = work;
    json!({
        "event": event,
        "promptTokens": prompt_tokens,
        "short": short,
        "evaluated": evaluated,
        "decoded": decoded,
        "interrupted": interrupted,
    })
}

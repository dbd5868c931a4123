//! Events that the session handles, and notices that it sends.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use futures::channel::oneshot;
use taper_engine::EngineInfo;

use super::{
    CompletionRequest, DocumentLocation, Explanations, LoadProgress, NotebookChange, OpenedDocument,
    PauseScope, Pauses, Responder, TextChange, TraceEvent,
};
use crate::completion::{CompletionWork, Snapshot, Suggestion, Trigger};
use crate::config::Settings;
use crate::retrieval::Index;
use crate::text::Position;

/// An event for the session. The list is closed on purpose.
#[derive(Debug)]
pub enum Event {
    /// The editor opened a document, or sent it again.
    Opened(OpenedDocument),
    /// The editor changed a document.
    Edited {
        /// The document.
        uri: String,
        /// Its version after the changes.
        version: Option<i64>,
        /// The changes, in order.
        changes: Vec<TextChange>,
    },
    /// A change of this document was invalid: its text cannot be trusted.
    DocumentLost {
        /// The document.
        uri: String,
    },
    /// The editor saved a document.
    Saved {
        /// The document.
        uri: String,
    },
    /// The editor closed a document.
    Closed {
        /// The document.
        uri: String,
    },
    /// The workspace's folders changed, and a document may be in another one.
    Relocated {
        /// The document.
        uri: String,
        /// Where it is now.
        location: DocumentLocation,
    },
    /// The cells of a notebook changed.
    Notebook {
        /// The notebook.
        uri: String,
        /// How they changed.
        change: NotebookChange,
    },
    /// The settings changed.
    Configured(Box<Settings>),
    /// The editor requests a suggestion.
    Requested(ArrivedRequest),
    /// The cursor rests somewhere without a keystroke: the user may begin to type there.
    CursorRested {
        /// The document.
        uri: String,
        /// The cursor.
        position: Position,
    },
    /// The editor reports that the user accepted the shown suggestion.
    Accepted,
    /// The counts are requested. Answered once all responses and outcomes until now are recorded.
    FlushUsage(oneshot::Sender<()>),
    /// Suggestions are paused somewhere, or resumed.
    Paused {
        /// Where.
        scope: PauseScope,
        /// Whether they are from now on.
        paused: bool,
    },
    /// The explanations of the last responses are requested.
    Explain(oneshot::Sender<Explanations>),
    /// The engine is loaded, with the number of tokens of other files that is best for it, if its prompt has room
    /// for any; or the reason why it could not be loaded.
    Loaded(Result<(Box<EngineInfo>, Option<usize>), String>),
    /// The worker finished its work on a request.
    Completed {
        /// The request.
        request: Arc<CompletionRequest>,
        /// The result.
        suggestion: Option<Suggestion>,
        /// The work.
        work: Box<CompletionWork>,
    },
    /// The worker no longer works on a request.
    WorkEnded {
        /// The request.
        request: Arc<CompletionRequest>,
        /// The result, if it was finished.
        suggestion: Option<Suggestion>,
        /// Whether it was finished and would yield nothing again.
        is_known_empty: bool,
    },
    /// The worker prefetched the suggestion for a cursor that was not requested yet.
    Prefetched {
        /// The document.
        uri: String,
        /// The text and the cursor.
        snapshot: Box<Snapshot>,
        /// The result.
        suggestion: Option<Suggestion>,
    },
    /// The worker found alternatives to a suggestion.
    AlternativesFound {
        /// The request.
        request: Arc<CompletionRequest>,
        /// The first suggestion.
        first: Suggestion,
        /// The alternatives to it, the best first.
        alternatives: Vec<Suggestion>,
    },
    /// A workspace was indexed, or the documents outside of workspaces.
    Indexed {
        /// The workspace's folder.
        root: Option<PathBuf>,
        /// The whole index.
        index: Arc<Index>,
    },
    /// A notice to pass on.
    Notify(Notice),
    /// The session ends.
    Stop,
}

/// A request as it arrives.
#[derive(Debug)]
pub struct ArrivedRequest {
    /// The document.
    pub uri: String,
    /// The cursor.
    pub position: Position,
    /// The item that is selected in the editor's popup.
    pub selected: Option<(Range<Position>, String)>,
    /// What triggered it.
    pub trigger: Trigger,
    /// Whether the response goes into a popup. Editors report an explicit request when typing opens a popup (as LSP
    /// prescribes): so the first request after typing counts as automatic, whatever its trigger.
    pub popup: bool,
    /// When the message arrived: its deadline counts from here.
    pub arrived: Instant,
    /// Where the response goes.
    pub responder: Responder,
}

/// Something to report to the user or the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The model is loading.
    Loading(LoadProgress),
    /// The model is loaded: loading progress can end.
    Loaded(Box<EngineInfo>),
    /// The model could not be loaded, and why: loading progress can end.
    Failed(String),
    /// The current pauses.
    Paused(Pauses),
    /// A better suggestion is available than the one that was sent.
    Refresh(Improvement),
    /// A step of the work, for programs that follow it.
    Trace(TraceEvent),
    /// Something went wrong; the message names it and the remedy. Shown once.
    Problem(String),
}

/// A cursor for which the request should be repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Improvement {
    /// The document.
    pub uri: String,
    /// The cursor.
    pub position: Position,
    /// The document's version, if the client sends one.
    pub version: Option<i64>,
}

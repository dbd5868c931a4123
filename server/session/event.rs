//! What happens to a session, and what it says of itself.
//! It knows nothing of what is done about it.

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

/// What happens to a session: closed on purpose.
#[derive(Debug)]
pub enum Event {
    /// The editor opened a document, or sent it anew.
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
    /// A change of this document could not be understood: its text is not to be trusted.
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
    /// The editor asks for a suggestion.
    Requested(ArrivedRequest),
    /// The cursor rests somewhere without a key: somebody may begin to type there.
    CursorRested {
        /// The document.
        uri: String,
        /// The cursor.
        position: Position,
    },
    /// The editor says that the user took what it showed last.
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
    /// Somebody wants to know how the last answers came about.
    Explain(oneshot::Sender<Explanations>),
    /// The engine is loaded, and how many tokens of other files are best for it, if it has a place for any; or it could not be
    /// (why).
    Loaded(Result<(Box<EngineInfo>, Option<usize>), String>),
    /// The completer came to the end of its work on a question.
    Completed {
        /// The question.
        question: Arc<CompletionRequest>,
        /// What came out.
        suggestion: Option<Suggestion>,
        /// The work.
        work: Box<CompletionWork>,
    },
    /// The completer does not work on a question any more.
    WorkEnded {
        /// The question.
        question: Arc<CompletionRequest>,
        /// What came out, if it came to the end.
        suggestion: Option<Suggestion>,
        /// Whether it came to the end and would yield nothing again.
        is_known_empty: bool,
    },
    /// The completer found out what is to be suggested at a place where nobody has asked yet.
    Prefetched {
        /// The document.
        uri: String,
        /// The place.
        snapshot: Box<Snapshot>,
        /// What came out.
        suggestion: Option<Suggestion>,
    },
    /// The completer found out what else may be suggested at a place.
    AlternativesFound {
        /// The question.
        question: Arc<CompletionRequest>,
        /// What is suggested first.
        first: Suggestion,
        /// The others, the best first.
        others: Vec<Suggestion>,
    },
    /// The code of a workspace was looked through, or that of the documents without one.
    Indexed {
        /// The workspace's folder.
        root: Option<PathBuf>,
        /// All of it.
        index: Arc<Index>,
    },
    /// Something that the user is to know.
    Notify(Notice),
    /// The session ends.
    Stop,
}

/// A question as it arrives.
#[derive(Debug)]
pub struct ArrivedRequest {
    /// The document.
    pub uri: String,
    /// The cursor.
    pub position: Position,
    /// The item that is selected in the editor's popup.
    pub selected: Option<(Range<Position>, String)>,
    /// Who asks.
    pub trigger: Trigger,
    /// Whether the answer goes into a popup. Editors say that a person asked when it is typing that opens one (as LSP
    /// would have it): the first question behind what was typed counts as typing, whoever is said to ask.
    pub popup: bool,
    /// When the message arrived: its deadline counts from here.
    pub arrived: Instant,
    /// Where the answer goes.
    pub reply: Responder,
}

/// Something that the user is to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The model is on its way.
    Loading(LoadProgress),
    /// The model is there: whatever showed the loading can end.
    Loaded(Box<EngineInfo>),
    /// The model will not be there, and why: whatever showed the loading can end.
    Failed(String),
    /// What is paused now.
    Paused(Pauses),
    /// More is known of what was asked here than was answered.
    Refresh(Improvement),
    /// A step of the work, for programs that follow it.
    Trace(TraceEvent),
    /// Something went wrong; the message names it and the remedy. Shown once.
    Problem(String),
}

/// A place that is to be asked about again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Improvement {
    /// The document.
    pub uri: String,
    /// The cursor.
    pub position: Position,
    /// The document's version, if the editor counts.
    pub version: Option<i64>,
}

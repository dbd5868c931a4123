//! Steps of a session's work, for programs that follow it: tests, and tools that replay typing. The log is for
//! people only.

use crate::completion::CompletionWork;

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TraceEvent {
    /// The model is loaded.
    ModelLoaded {
        /// Its name.
        model: String,
    },
    /// The model's work for a request came to an end.
    Completed(WorkSummary),
    /// The model has read the whole prompt window around the cursor, while idle.
    WindowPrefilled,
    /// While idle, work began on a request that is likely to come.
    PrefetchStarted,
    /// That work is done.
    Prefetched(WorkSummary),
    /// Alternatives to the first suggestion of an explicit request are searched.
    AlternativesStarted,
    /// That search is over.
    AlternativesFinished {
        /// How many there are.
        count: usize,
        /// Whether a newer request ended it.
        interrupted: bool,
    },
    /// A workspace folder was walked through.
    WorkspaceWalked {
        /// The files that may be read.
        files: usize,
    },
    /// A new index of other files is in use.
    WorkspaceIndexed {
        /// Files in it.
        files: usize,
        /// Files that were found and are not read yet, of all folders.
        waiting: usize,
    },
    /// A document could not be cut into chunks, and is in no index.
    DocumentNotIndexed {
        /// Its path.
        path: String,
    },
    /// Freed memory was given back to the system.
    MemoryReleased,
    /// The text of a document cannot be trusted any more.
    DocumentLost {
        /// The document.
        uri: String,
        /// Why.
        reason: &'static str,
    },
    /// A message was about a document that is not open.
    UnknownDocument {
        /// The document.
        uri: String,
    },
}

/// What the model did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkSummary {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Whether the prompt was cut down to be read in time.
    pub short: bool,
    /// Tokens that were read: the rest was in the cache.
    pub evaluated: usize,
    /// Tokens that were generated.
    pub decoded: usize,
    /// Whether a newer request or an edit ended the work.
    pub interrupted: bool,
}

impl WorkSummary {
    pub(crate) fn new(work: &CompletionWork, interrupted: bool) -> Self {
        let CompletionWork { prompt_tokens, short, evaluated, decoded, .. } = *work;
        Self { prompt_tokens, short, evaluated, decoded, interrupted }
    }
}

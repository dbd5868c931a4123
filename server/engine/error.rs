//! What can go wrong with a model: each message names the file, field or device, and the remedy.
//! It knows nothing of how the message reaches a user.

use std::io;
use std::path::PathBuf;

use crate::fetch::ByteSize;

/// An error of the engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The model file cannot be opened or read.
    #[error("cannot read the model {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said. The message says it already, so it is no source to be said once more.
        r#source: io::Error,
    },
    /// The model file is not what it should be.
    #[error("{path} is not a usable model: {field}: {problem}; {remedy}", path = path.display())]
    Model {
        /// The file.
        path: PathBuf,
        /// The field or tensor that is wrong.
        field: String,
        /// What is wrong with it.
        problem: String,
        /// What the user can do.
        remedy: String,
    },
    /// Memory is too short for the model.
    #[error(
        "{path} needs about {needed} of memory, and {available} are free {place}: {remedy}",
        path = path.display(), needed = ByteSize(*needed), available = ByteSize(*available)
    )]
    Memory {
        /// The model file.
        path: PathBuf,
        /// Bytes that it takes.
        needed: u64,
        /// Bytes that may still be used.
        available: u64,
        /// What says so.
        place: String,
        /// What the user can do.
        remedy: String,
    },
    /// The prompt does not fit.
    #[error("the prompt has {tokens} tokens, the context holds {context}")]
    PromptTooLong {
        /// Tokens in the prompt.
        tokens: usize,
        /// Tokens the context holds.
        context: usize,
    },
    /// The device failed.
    #[error("{device}: {source}")]
    Device {
        /// The device.
        device: String,
        /// What it said; the message says it already.
        r#source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A model could not be found or fetched.
    #[error(transparent)]
    Fetch(#[from] crate::fetch::FetchError),
}

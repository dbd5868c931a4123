//! Errors of the engine: each message names the file, field or device, and the remedy.

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
        /// The system's error. The message includes it, so it is not also an error source.
        r#source: io::Error,
    },
    /// The model file is invalid or not supported.
    #[error("{path} is not a usable model: {field}: {problem}; {remedy}", path = path.display())]
    Model {
        /// The file.
        path: PathBuf,
        /// The invalid field or tensor.
        field: String,
        /// What is wrong with it.
        problem: String,
        /// What the user can do.
        remedy: String,
    },
    /// There is not enough memory for the model.
    #[error(
        "{path} needs about {needed} of memory, but {available} are free {place}: {remedy}",
        path = path.display(), needed = ByteSize(*needed), available = ByteSize(*available)
    )]
    Memory {
        /// The model file.
        path: PathBuf,
        /// Bytes that the model needs.
        needed: u64,
        /// Bytes that are available.
        available: u64,
        /// What limits them.
        place: String,
        /// What the user can do.
        remedy: String,
    },
    /// The prompt does not fit into the context.
    #[error("the prompt has {tokens} tokens, the context holds {context}")]
    PromptTooLong {
        /// Tokens in the prompt.
        tokens: usize,
        /// Context length in tokens.
        context: usize,
    },
    /// The device failed.
    #[error("{device}: {source}")]
    Device {
        /// The device.
        device: String,
        /// The device's error; the message includes it.
        r#source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A model could not be found or fetched.
    #[error(transparent)]
    Fetch(#[from] crate::fetch::FetchError),
}

//! Errors of finding or fetching a model: each message names the file or source, and the remedy.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::ByteSize;

/// A model could not be found or fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The name is neither a known model nor a path to a file.
    #[error(
        "unknown model `{name}`{}; choose one that `taper models` lists, or give the path of a GGUF file",
        nearest.map(|n| format!(" (did you mean `{n}`?)")).unwrap_or_default()
    )]
    UnknownModel {
        /// The requested name.
        name: String,
        /// The known name nearest to it.
        nearest: Option<&'static str>,
    },
    /// The model is not on this machine and may not be fetched. The remedy comes first: some editors truncate a
    /// message to one line.
    #[error(
        "run `taper pull {name}` once with a connection, or name a GGUF file with --model: \
         the model is not in {folder}, and fetching is forbidden (offline)",
        folder = folder.display()
    )]
    Offline {
        /// The model.
        name: &'static str,
        /// The folder that was searched.
        folder: PathBuf,
    },
    /// Every source failed.
    #[error(
        "the model {name} could not be fetched:{}\nrun `taper pull {name}` again to resume, \
         or put the file into {folder} as {file}",
        failures.iter().map(|f| format!("\n  {f}")).collect::<String>(),
        folder = folder.display()
    )]
    NoSource {
        /// The model.
        name: &'static str,
        /// The file's name.
        file: &'static str,
        /// The folder that the file belongs in.
        folder: PathBuf,
        /// The failure of each source, in the order tried.
        failures: Vec<SourceFailure>,
    },
    /// The disk is full, or would be.
    #[error(
        "not enough space in {folder}: {needed} needed, {free} free; make room, or set TAPER_HOME to a folder on a larger disk",
        folder = folder.display(),
        needed = ByteSize(*needed),
        free = ByteSize(*free)
    )]
    NoSpace {
        /// The folder that the file belongs in.
        folder: PathBuf,
        /// Bytes that are still needed.
        needed: u64,
        /// Bytes that are free in the folder.
        free: u64,
    },
    /// The folder for models is unknown.
    #[error("there is no home folder to keep models in; set TAPER_HOME to a folder")]
    NoHome,
    /// The file on this machine is damaged, and may not be fetched again.
    #[error("{path} is damaged: {damage}; `taper pull {name}` fetches it again", path = path.display())]
    Damaged {
        /// The model.
        name: &'static str,
        /// The file.
        path: PathBuf,
        /// The detected damage.
        damage: FileDamage,
    },
    /// The text given as a model is not a path to one.
    #[error("`{text}` cannot be used as a model: {problem}")]
    InvalidModelPath {
        /// The text as given, or the path it resolves to.
        text: String,
        /// The problem and the remedy.
        problem: String,
    },
    /// A file or folder on this machine cannot be used.
    #[error("cannot {what} {path}: {source}", path = path.display())]
    Io {
        /// The attempted operation, e.g. `write`.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's error. The message includes it, so it is not also an error source.
        r#source: io::Error,
    },
}

/// How a model's file differs from the expected one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileDamage {
    /// Its size differs.
    Size {
        /// The expected size.
        expected: u64,
        /// Whether the expected size is exact, or rounded by the hub.
        exact: bool,
        /// The actual size.
        found: u64,
    },
    /// Its content differs.
    Hash {
        /// The expected sha256.
        expected: String,
        /// The actual sha256.
        found: String,
    },
}

impl fmt::Display for FileDamage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FileDamage::Size { expected, exact: true, found } => {
                write!(f, "it has {found} bytes instead of {expected}")
            }
            FileDamage::Size { expected, exact: false, found } => {
                write!(f, "it has {} instead of about {}", ByteSize(*found), ByteSize(*expected))
            }
            FileDamage::Hash { expected, found } => write!(f, "its sha256 is {found}, not {expected}"),
        }
    }
}

/// One source and the cause of its failure.
#[derive(Debug)]
pub struct SourceFailure {
    /// The source, e.g. `Hugging Face hub, owner/name`.
    pub source: String,
    /// The cause.
    pub cause: SourceError,
}

impl fmt::Display for SourceFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.source, self.cause)
    }
}

/// The cause of a source's failure.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The source does not respond, or the transfer was interrupted.
    #[error("{0}")]
    Unreachable(String),
    /// The source responds, but does not have the file.
    #[error("{0}")]
    Missing(String),
    /// The source is disabled.
    #[error("{0}")]
    Disabled(String),
    /// The source's file is not the expected one.
    #[error("its file has the sha256 {found} instead of {expected} and was discarded")]
    Hash {
        /// The pinned or announced hash.
        expected: String,
        /// The hash of the received file.
        found: String,
    },
    /// The source sends data that cannot be the requested file.
    #[error("{0}")]
    InvalidData(String),
}

/// Why an attempt with one source failed.
#[derive(Debug)]
pub(super) enum AttemptError {
    /// The cause is the source; the next one may succeed.
    Source(SourceError),
    /// The cause is this machine; no other source would help.
    Local(FetchError),
}

impl From<FetchError> for AttemptError {
    fn from(error: FetchError) -> Self {
        AttemptError::Local(error)
    }
}

impl From<SourceError> for AttemptError {
    fn from(cause: SourceError) -> Self {
        AttemptError::Source(cause)
    }
}

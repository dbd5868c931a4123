//! What can go wrong while a model is found or fetched: each message names the file or source, and the remedy.
//! It knows nothing of how the message reaches a user.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::ByteSize;

/// A model could not be found or fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No row has this name, and it is no path to a file either.
    #[error(
        "no model is called `{name}`{}; `taper models` lists the known ones, and a path to a GGUF file will do too",
        nearest.map(|n| format!(" (did you mean `{n}`?)")).unwrap_or_default()
    )]
    UnknownModel {
        /// What was asked for.
        name: String,
        /// The known name nearest to it.
        nearest: Option<&'static str>,
    },
    /// It is not here and may not be fetched. The remedy comes first: some editors cut a message to one line.
    #[error(
        "run `taper pull {name}` once with a connection, or name a GGUF file with --model: \
         the model is not in {folder}, and fetching is forbidden (offline)",
        folder = folder.display()
    )]
    Offline {
        /// The model.
        name: &'static str,
        /// Where it was looked for.
        folder: PathBuf,
    },
    /// Every source failed.
    #[error(
        "the model {name} could not be fetched:{}\nrun `taper pull {name}` again to go on where this ended, \
         or put the file into {folder} as {file}",
        failures.iter().map(|f| format!("\n  {f}")).collect::<String>(),
        folder = folder.display()
    )]
    NoSource {
        /// The model.
        name: &'static str,
        /// The file's name.
        file: &'static str,
        /// Where it belongs.
        folder: PathBuf,
        /// What went wrong at each source, in the order tried.
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
        /// The folder that the file belongs into.
        folder: PathBuf,
        /// Bytes that are still missing.
        needed: u64,
        /// Bytes that are free there.
        free: u64,
    },
    /// There is no folder to keep models in.
    #[error("there is no home folder to keep models in; set TAPER_HOME to a folder")]
    NoHome,
    /// The file that is here is not what it should be, and may not be fetched again.
    #[error("{path} is damaged: {damage}; `taper pull {name}` fetches it again", path = path.display())]
    Damaged {
        /// The model.
        name: &'static str,
        /// The file.
        path: PathBuf,
        /// How that is known.
        damage: FileDamage,
    },
    /// What was written in place of a model is no path that leads to one.
    #[error("`{text}` cannot be used as a model: {problem}")]
    InvalidModelPath {
        /// As it was written, or the path that it leads to.
        text: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// A file or folder on this machine cannot be used.
    #[error("cannot {what} {path}: {source}", path = path.display())]
    Io {
        /// What was tried, e.g. `write`.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said. The message says it already, so it is no source to be said once more.
        r#source: io::Error,
    },
}

/// How a model's file differs from what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileDamage {
    /// Its size is another one.
    Size {
        /// What it should be.
        expected: u64,
        /// Whether that is exact, or as the hub rounds it.
        exact: bool,
        /// What it is.
        found: u64,
    },
    /// Its content is another one.
    Hash {
        /// The sha256 that it should have.
        expected: String,
        /// The sha256 that it has.
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

/// One source, and what was wrong with it.
#[derive(Debug)]
pub struct SourceFailure {
    /// The source, e.g. `Hugging Face hub, owner/name`.
    pub source: String,
    /// What was wrong.
    pub cause: SourceError,
}

impl fmt::Display for SourceFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.source, self.cause)
    }
}

/// What can be wrong with a source.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It does not answer, or ended in the middle.
    #[error("{0}")]
    Unreachable(String),
    /// It answers, but has not got the file.
    #[error("{0}")]
    Missing(String),
    /// It is switched off.
    #[error("{0}")]
    Disabled(String),
    /// What it has is not what the table says.
    #[error("its file has the sha256 {found} instead of {expected} and was thrown away")]
    Hash {
        /// The pinned or announced hash.
        expected: String,
        /// The hash of what came.
        found: String,
    },
    /// It sends something that cannot be what was asked for.
    #[error("{0}")]
    InvalidData(String),
}

/// How an attempt at one source ends without a file.
#[derive(Debug)]
pub(super) enum AttemptError {
    /// The source is to blame; the next one may do better.
    Source(SourceError),
    /// This machine is; no other source would help.
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

//! Which other code of the project helps at a place: pieces of its other files, found by the words that they share with it.
//! It cannot fail, and knows nothing of prompts, tokens, threads or clocks.
//!
//! A project's files are [cut into pieces](pieces) and kept in an [`Index`] that is never changed, only made anew, so that
//! whoever asks holds no lock. [`Index::find`] ranks the pieces for a [`Place`]; what it returns is stable text for many
//! keystrokes, and it is the session's business to ask seldom.

pub mod chunks;
pub mod crawl;
pub mod excluded_files;
pub mod index;
pub mod redact;

mod terms;

pub use index::{Index, Query};

/// A piece of another file, as the model is shown it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snippet {
    /// The file's path, relative to the workspace, with `/`.
    pub path: String,
    /// Whole lines of it, or the heads of what it defines.
    pub text: String,
}

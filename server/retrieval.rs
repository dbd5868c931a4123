//! Retrieval: finds chunks of the project's other files that share terms with the code at the cursor. It cannot fail.
//!
//! A project's files are [cut into chunks](chunks) and kept in an immutable [`Index`]. A change makes a new index, so a
//! reader holds no lock. [`Index::find_snippets`] ranks the chunks for a [`Query`]. The text it returns stays the same
//! for many keystrokes, and the session queries it seldom.

pub mod chunks;
pub mod crawl;
pub mod excluded_files;
pub mod index;
pub mod redact;

mod terms;

pub use index::{Index, Query};

/// A chunk of another file, as the model sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snippet {
    /// The file's path, relative to the workspace, with `/`.
    pub path: String,
    /// Whole lines of the file, or the heads of its definitions.
    pub text: String,
}

//! Incremental parsing from rope chunks, within a budget of time.
//! It knows nothing of what the tree is asked.

use taper_grammars::Language;

/// The tree of one document. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Syntax {
    /// The language the tree is in.
    pub language: &'static Language,
    /// The tree; points in it are not kept up, only bytes.
    pub tree: tree_sitter::Tree,
}

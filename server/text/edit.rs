//! An edit: bytes that go and text that comes. The one way to change a document.
//! It knows nothing of positions or trees.

use std::ops::Range;

/// Replaces the bytes of `range` by `text`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// Byte offsets into the text before the edit.
    pub range: Range<usize>,
    /// What stands there afterwards.
    pub text: String,
}

//! The text of a document: the rope, positions in three encodings, and edits, the only way to change it. Also safe
//! reading of files that may be hostile.

pub mod edit;
pub mod lines;
pub mod plain_file;
pub mod position;

pub use edit::{Edit, TextError};
pub use position::{Encoding, Position};
pub use ropey::Rope;

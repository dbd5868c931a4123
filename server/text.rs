//! The text of a document: rope, positions in three encodings, and the one way to change it; and the one way to read a
//! file that somebody else may have prepared.
//! It knows nothing of languages, trees or the protocol.

pub mod edit;
pub mod lines;
pub mod plain_file;
pub mod position;

pub use edit::{Edit, TextError};
pub use position::{Encoding, Position};
pub use ropey::Rope;

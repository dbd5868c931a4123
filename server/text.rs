//! The text of a document: rope, positions in three encodings, and the one way to change it.
//! It knows nothing of languages, trees or the protocol.

pub mod edit;
pub mod lines;
pub mod position;

pub use edit::{Edit, TextError};
pub use position::{Encoding, Position};
pub use ropey::Rope;

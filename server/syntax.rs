//! The tree of a document: incremental parsing and questions about a place, all in bytes.
//! It knows nothing of lines and columns, of editors, or of prompts.

pub mod parse;
mod region;
pub mod scope;
#[cfg(test)]
mod tests;

pub use parse::Syntax;
pub use region::RegionSize;
pub use scope::Scope;

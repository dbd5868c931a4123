//! The syntax tree of a document: incremental parsing, and queries about a position, all in bytes.

pub mod parse;
mod region;
pub mod scope;
#[cfg(test)]
mod tests;

pub use parse::Syntax;
pub use region::RegionSize;
pub use scope::Scope;

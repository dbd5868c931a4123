//! The languages that taper knows: one table.
//! It knows nothing of documents.

/// One language.
#[derive(Debug)]
pub struct Language {
    /// The name, as LSP's language identifier where there is one.
    pub name: &'static str,
    /// Other identifiers that editors send for it.
    pub aliases: &'static [&'static str],
    /// File extensions without the dot.
    pub extensions: &'static [&'static str],
    /// Whole file names, e.g. `Makefile`.
    pub file_names: &'static [&'static str],
    /// What begins a line comment; empty if the language has none.
    pub line_comment: &'static str,
    /// How blocks are marked.
    pub blocks: Blocks,
    /// The tree-sitter grammar, if taper ships one.
    pub grammar: Option<fn() -> tree_sitter::Language>,
}

/// How a language marks the extent of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blocks {
    /// By indentation, after a colon: Python.
    Indentation,
    /// Between `{` and `}`.
    Braces,
    /// From a keyword to `end` (or `fi`, `done`): Ruby, Lua, shells.
    Keywords,
    /// Between tags: HTML.
    Tags,
    /// Nothing is known.
    None,
}

//! Line and column to byte offset and back, in UTF-8, UTF-16 and UTF-32.
//! It knows nothing of who counts in which encoding.

/// The unit in which a column is counted, ordered by preference: negotiation is `max()`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Encoding {
    /// 16-bit code units, the protocol's default.
    Utf16,
    /// Unicode scalar values.
    Utf32,
    /// Bytes.
    Utf8,
}

/// A place as an editor names it: both numbers from 0, the column in the negotiated [`Encoding`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line, ended by `\n`, `\r\n` or `\r`.
    pub line: u32,
    /// Column in code units.
    pub character: u32,
}

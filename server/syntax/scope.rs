//! Queries about a position in the tree: whether it is in a string, a comment or an empty block, and how broken the
//! code is.
//!
//! Code is often broken while it is typed. A query that a broken tree cannot answer falls back on the text of the line,
//! and [`Scope`] also works without a tree. Offsets are bytes, clamped into the text.

mod empty_block;
mod faults;

use taper_grammars::{BlockStyle, Language};
use tree_sitter::Node;

pub use faults::{fault_count, fault_count_in};

use super::Syntax;
use crate::text::{Rope, lines};

/// How far back and ahead the text is scanned, in bytes.
const MAX_SCAN_BYTES: usize = 8 << 10;
/// How much of a line is scanned, in bytes: minified files have lines of a megabyte.
const MAX_LINE_BYTES: usize = 2 << 10;

/// The string or comment in the tree that text typed at a position becomes part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TreeLiteral {
    /// The tree is missing or broken here.
    Unknown,
    /// Neither: it is code.
    Code,
    /// The string that begins at this byte.
    Text(usize),
    /// The comment that begins at this byte.
    Comment(usize),
}

/// A position in a document, for queries.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// The text.
    pub text: &'a Rope,
    /// Its language.
    pub language: &'static Language,
    /// Its tree, if there is one.
    pub syntax: Option<&'a Syntax>,
    /// The byte offset of the queries.
    pub offset: usize,
}

impl<'a> Scope<'a> {
    /// Creates a scope; `offset` is clamped into the text.
    #[must_use]
    pub fn new(
        text: &'a Rope,
        language: &'static Language,
        syntax: Option<&'a Syntax>,
        offset: usize,
    ) -> Self {
        Self { text, language, syntax, offset: lines::floor_char_boundary(text, offset) }
    }

    /// Whether text typed here would become part of a string. Code within a string, `${…}`, does not count.
    #[must_use]
    pub fn is_in_string(&self) -> bool {
        for node in self.nodes_around(self.offset) {
            let inside = node.start_byte() < self.offset && self.offset < node.end_byte();
            if is_kind(node, self.language.kinds.interpolations) && inside {
                return false;
            }
            if is_kind(node, self.language.kinds.comments) && inside {
                return false;
            }
            if is_kind(node, self.language.kinds.strings)
                && (inside
                    || node.start_byte() < self.offset
                        && self.offset == node.end_byte()
                        && has_missing_end(node))
            {
                return true;
            }
        }
        self.is_broken_here() && self.line_state() == LineState::String
    }

    /// Whether text typed here would become part of a comment.
    #[must_use]
    pub fn is_in_comment(&self) -> bool {
        for node in self.nodes_around(self.offset) {
            if is_kind(node, self.language.kinds.comments) {
                return self.is_inside_comment(node);
            }
        }
        self.is_broken_here() && self.line_state() == LineState::Comment
    }

    /// The string or comment that text typed here would become part of, as far as the tree knows.
    #[must_use]
    pub fn enclosing_literal(&self) -> TreeLiteral {
        let kinds = &self.language.kinds;
        for node in self.nodes_around(self.offset) {
            let inside = node.start_byte() < self.offset && self.offset < node.end_byte();
            let open =
                node.start_byte() < self.offset && self.offset == node.end_byte() && has_missing_end(node);
            if is_kind(node, kinds.comments) && self.is_inside_comment(node) {
                return TreeLiteral::Comment(node.start_byte());
            }
            if is_kind(node, kinds.strings) && (inside || open) {
                return TreeLiteral::Text(node.start_byte());
            }
            if is_kind(node, kinds.interpolations) && inside {
                return TreeLiteral::Code;
            }
            // A script in a page, which the page's grammar does not parse.
            if node.kind() == "raw_text" {
                return TreeLiteral::Unknown;
            }
        }
        if self.is_broken_here() { TreeLiteral::Unknown } else { TreeLiteral::Code }
    }

    /// The nodes around the byte before `offset`, from the smallest to the root.
    fn nodes_around(&self, offset: usize) -> impl Iterator<Item = Node<'a>> + use<'a> {
        // From the root down once: looking up each node's parent starts at the root every time.
        let mut path = Vec::new();
        if let Some(syntax) = self.syntax {
            let byte = offset.saturating_sub(1);
            let mut cursor = syntax.tree.walk();
            path.push(cursor.node());
            while cursor.goto_first_child_for_byte(byte).is_some() && cursor.node().start_byte() <= byte {
                path.push(cursor.node());
            }
        }
        path.into_iter().rev()
    }

    /// Whether the tree is unreliable here: there is none, or it is broken on this line.
    fn is_broken_here(&self) -> bool {
        self.syntax.is_none_or(|syntax| {
            let line = lines::line_start(self.text, self.offset)..lines::line_end(self.text, self.offset);
            syntax.is_stale() || fault_count_in(&syntax.tree, line) > 0
        })
    }

    fn is_inside_comment(&self, node: Node) -> bool {
        let (start, end) = (node.start_byte(), node.end_byte());
        if self.offset <= start || self.offset > end {
            return false;
        }
        // Some grammars give the line break to the comment.
        if self.offset < end {
            return true;
        }
        let text = lines::text_before(self.text, end, 8);
        let closed = self.language.block_comment.is_some_and(|(open, close)| {
            text.ends_with(close) && lines::text_after(self.text, start, open.len()) == open
        });
        !closed && !text.ends_with(['\n', '\r'])
    }

    /// The state at the position according to the text of its line, for broken code. Multi-line strings are not
    /// recognised.
    fn line_state(&self) -> LineState {
        let line = self.line_before(self.offset);
        let comment = self.language.line_comment;
        let (mut open, mut at) = (None, 0);
        while let Some(c) = line[at..].chars().next() {
            match open {
                Some(_) if c == '\\' => at += line[at + 1..].chars().next().map_or(0, char::len_utf8),
                Some(quote) if c == quote => open = None,
                Some(_) => {}
                None if !comment.is_empty()
                    && line[at..].starts_with(comment)
                    && begins_comment(comment, &line[..at]) =>
                {
                    return LineState::Comment;
                }
                None if self.language.quotes.contains(&c) => open = Some(c),
                None => {}
            }
            at += c.len_utf8();
        }
        if open.is_some() { LineState::String } else { LineState::Code }
    }

    /// The line of `offset` up to it, or its last bytes if the line is long.
    fn line_before(&self, offset: usize) -> String {
        let start = lines::line_start(self.text, offset);
        lines::slice(self.text, start.max(offset.saturating_sub(MAX_LINE_BYTES))..offset)
    }

    fn rest_of_line(&self) -> String {
        let end = lines::line_end(self.text, self.offset);
        lines::slice(self.text, self.offset..end.min(self.offset + MAX_LINE_BYTES))
    }

    /// The indentation of the line of `offset`, and whether the line has other text.
    fn line_indentation(&self, offset: usize) -> (usize, bool) {
        let start = lines::line_start(self.text, offset);
        let line =
            lines::slice(self.text, start..lines::line_end(self.text, offset).min(start + MAX_LINE_BYTES));
        let blank = |c: &char| *c == ' ' || *c == '\t';
        let width = line.chars().take_while(blank).map(|c| if c == '\t' { 8 } else { 1 }).sum();
        (width, line.trim().is_empty())
    }

    /// The end of the code before the position, with its last character. Skips white space, comments and a docstring,
    /// within [`MAX_SCAN_BYTES`].
    fn last_code_before(&self) -> Option<(usize, Option<char>)> {
        let mut end = self.offset;
        let least = end.saturating_sub(MAX_SCAN_BYTES);
        let mut docstring = self.language.blocks == BlockStyle::Indentation;
        loop {
            loop {
                let text = lines::text_before(self.text, end, 256);
                let code = text.trim_end().len();
                end -= text.len() - code;
                if end <= least && least > 0 || end == 0 {
                    return None;
                }
                if code > 0 {
                    break;
                }
            }
            let mut next = self.nodes_around(end).find_map(|node| {
                let comment = is_kind(node, self.language.kinds.comments);
                (comment && node.end_byte() >= end).then(|| node.start_byte())
            });
            if next.is_none() && docstring {
                next = self.nodes_around(end).find_map(|node| {
                    let string = is_kind(node, self.language.kinds.strings) && node.end_byte() == end;
                    (string && self.line_before(node.start_byte()).trim().is_empty())
                        .then(|| node.start_byte())
                });
                docstring = next.is_none();
            }
            if next.is_none() && self.syntax.is_none() && !self.language.line_comment.is_empty() {
                let line = self.line_before(end);
                let is_comment = line.trim_start().starts_with(self.language.line_comment);
                next = is_comment.then(|| end - line.trim_start().len());
            }
            match next {
                Some(start) if start < end => end = start,
                _ => return Some((end, lines::char_before(self.text, end))),
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LineState {
    Code,
    String,
    Comment,
}

fn is_kind(node: Node, kinds: &[&str]) -> bool {
    node.is_named() && kinds.contains(&node.kind())
}

/// Whether tree-sitter had to invent the end of a node.
fn has_missing_end(node: Node) -> bool {
    let last = node.child_count().checked_sub(1).and_then(|last| node.child(last));
    last.is_some_and(|last| last.is_missing())
}

/// In a shell, `#` begins a comment only at the start of a word.
fn begins_comment(comment: &str, before: &str) -> bool {
    comment != "#" || before.is_empty() || before.ends_with(char::is_whitespace)
}

fn starts_with_word(text: &str, word: &str) -> bool {
    text.strip_prefix(word)
        .is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':'))
}

fn ends_with_word(text: &str, word: &str) -> bool {
    let wordlike = word.starts_with(char::is_alphabetic);
    text.strip_suffix(word).is_some_and(|head| {
        !wordlike || !head.ends_with(|c: char| c.is_alphanumeric() || "_.@$:".contains(c))
    })
}

#[cfg(test)]
mod tests;

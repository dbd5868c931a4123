//! Reads code for its strings and comments only, incrementally.

use std::ops::Range;
use std::rc::Rc;

use taper_grammars::literals::{self, DelimiterTag, EscapeStyle, LiteralKind, LiteralSyntax};
use taper_grammars::{BlockStyle, Language};

use super::LexicalContext;
use crate::text::lines::is_word_char;

/// A literal that is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OpenLiteral {
    pub(super) kind: LiteralKind,
    /// Its opening delimiter.
    pub(super) opening: String,
    /// Its closing delimiter; empty if the end of the line closes it.
    pub(super) close: String,
    pub(super) multiline: bool,
    pub(super) escape: EscapeStyle,
    pub(super) nests: bool,
    /// The start of its content, in the text read so far.
    pub(super) content_start: usize,
    /// The text before it on its line.
    pub(super) line_before: String,
    /// Nested literals of its kind inside it.
    depth: usize,
}

/// The state within markup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MarkupState {
    /// The language has no markup.
    No,
    /// Between tags.
    Content,
    /// In a tag; `true` if the tag begins a script or a style.
    Tag(bool),
    /// In a script or a style.
    Script,
}

/// A reader in the middle of a text.
#[derive(Debug, Clone)]
pub(super) struct LiteralReader {
    literals: Rc<[LiteralSyntax]>,
    comment: &'static str,
    is_rust: bool,
    /// A quote without a partner on its line is not a string.
    needs_closing_quote: bool,
    markup: MarkupState,
    open: Option<OpenLiteral>,
    /// The line so far, for delimiters that are valid only at some positions of a line.
    line: String,
    /// Bytes that were read.
    bytes_read: usize,
    /// Whether the last step closed the literal by its closer, not by the end of its line.
    closed: bool,
}

impl LiteralReader {
    pub(super) fn new(language: Option<&'static Language>) -> Self {
        let is_markup = language.is_some_and(|it| it.blocks == BlockStyle::Tags);
        Self {
            literals: language.map_or_else(literals::unknown_language_literals, Language::literals).into(),
            comment: language.map_or("", |it| it.line_comment),
            is_rust: language.is_some_and(|it| it.name == "rust"),
            needs_closing_quote: language.is_none_or(|it| it.grammar.is_some()),
            markup: if is_markup { MarkupState::Content } else { MarkupState::No },
            open: None,
            line: String::new(),
            bytes_read: 0,
            closed: false,
        }
    }

    pub(super) fn open_literal(&self) -> Option<&OpenLiteral> {
        self.open.as_ref()
    }

    pub(super) fn lexical_context(&self) -> LexicalContext {
        match self.open.as_ref().map(|open| open.kind) {
            None => LexicalContext::Code,
            Some(LiteralKind::Text) => LexicalContext::Text,
            Some(LiteralKind::Comment) => LexicalContext::Comment,
        }
    }

    /// Whether the open string is documentation: a multi-line one that begins its line.
    pub(super) fn is_documentation(&self) -> bool {
        self.open.as_ref().is_some_and(|open| {
            let prefix =
                open.line_before.trim_start().trim_start_matches("@doc").trim_start_matches("@moduledoc");
            open.opening.len() == 3 && open.multiline && prefix.trim().len() <= 1
        })
    }

    /// Continues reading.
    pub(super) fn read_text(&mut self, text: &str) {
        let mut at = 0;
        while at < text.len() {
            at = self.read_step(text, at);
        }
    }

    /// Reads a text that begins with a literal and ends inside it. Returns the offset of the literal's content.
    pub(super) fn read_literal(&mut self, kind: LiteralKind, text: &str) -> usize {
        self.needs_closing_quote = false;
        let start = text.trim_start();
        if self.markup == MarkupState::Content
            && !["<!", "<%", "{"].iter().any(|comment| start.starts_with(comment))
        {
            self.markup = MarkupState::Tag(false);
        }
        let mut at = 0;
        let mut begun = None;
        let prefix =
            |c: char| c.is_ascii_alphabetic() || c.is_whitespace() || matches!(c, '@' | '$' | '#' | '%');
        while at < text.len() {
            let open = self.read_step(text, at);
            if begun.is_none()
                && let Some(literal) = self.open.clone().filter(|_| text[..at].chars().all(prefix))
            {
                begun = Some((literal, open));
            }
            at = open;
        }
        match begun {
            Some((open, at)) => {
                // The tree knows better where the literal ends.
                self.open.get_or_insert(open);
                at
            }
            None => {
                // A literal that is in no table: a regular expression, a here document.
                let close = match start.chars().next() {
                    Some('<') => ">",
                    Some('/') => "/",
                    _ => "",
                };
                self.open = None;
                self.begin_literal(kind, String::new(), close.to_owned(), None);
                text.len().min(close.len())
            }
        }
    }

    /// Continues up to the end of the open literal and returns the range of its closer.
    pub(super) fn read_to_closer(&mut self, text: &str) -> Option<Range<usize>> {
        let mut at = 0;
        while at < text.len() {
            self.open.as_ref()?;
            let next = self.read_step(text, at);
            if self.open.is_none() {
                return self.closed.then_some(at..next);
            }
            at = next;
        }
        None
    }

    /// Reads one step at `at` and returns where to continue.
    fn read_step(&mut self, text: &str, at: usize) -> usize {
        let rest = &text[at..];
        self.closed = false;
        let len = if self.open.is_some() { self.read_in_literal(rest) } else { self.read_code(rest) };
        match text[at..at + len].rfind('\n') {
            Some(end) => {
                self.line.clear();
                self.line.push_str(&text[at + end + 1..at + len]);
            }
            None => self.line.push_str(&text[at..at + len]),
        }
        self.bytes_read += len;
        at + len
    }

    /// Length of the next step at the start of `rest`, inside the open literal.
    fn read_in_literal(&mut self, rest: &str) -> usize {
        let first = rest.chars().next().map_or(1, char::len_utf8);
        let Some(open) = &mut self.open else { return first };
        if open.escape == EscapeStyle::Backslash && rest.starts_with('\\') {
            let next = rest[1..].chars().next();
            // A line continued by a backslash is one line.
            return 1 + next.map_or(0, char::len_utf8);
        }
        if !open.close.is_empty() && rest.starts_with(open.close.as_str()) {
            let len = open.close.len();
            if open.escape == EscapeStyle::Doubled && rest[len..].starts_with(open.close.as_str()) {
                return 2 * len;
            }
            if open.depth > 0 {
                open.depth -= 1;
            } else {
                (self.open, self.closed) = (None, true);
            }
            return len;
        }
        if open.nests && rest.starts_with(open.opening.as_str()) {
            open.depth += 1;
            return open.opening.len();
        }
        if !open.multiline && rest.starts_with('\n') {
            self.open = None;
        }
        first
    }

    /// The same in code: opens a literal that begins there.
    fn read_code(&mut self, rest: &str) -> usize {
        let first = rest.chars().next().unwrap_or('\0');
        if self.is_rust && first == '\'' {
            return char_literal_len(rest);
        }
        let in_markup = matches!(self.markup, MarkupState::Content | MarkupState::Tag(_));
        if !in_markup
            && !self.comment.is_empty()
            && rest.starts_with(self.comment)
            && self.may_begin_comment()
        {
            return self.begin_literal(LiteralKind::Comment, self.comment.to_owned(), String::new(), None);
        }
        let literals = Rc::clone(&self.literals);
        for literal in literals.iter() {
            let allowed = match self.markup {
                MarkupState::Content => {
                    literal.kind == LiteralKind::Comment && literal.open != "/*" || literal.open.len() > 3
                }
                MarkupState::Tag(_) => literal.kind == LiteralKind::Text && literal.open.len() == 1,
                MarkupState::No | MarkupState::Script => true,
            };
            let after_word = literal.open.starts_with(is_word_char)
                && self.line.ends_with(|c| is_word_char(c) && c != 'b');
            if !allowed || after_word {
                continue;
            }
            let Some((opening, close)) = match_delimiters(literal, rest) else { continue };
            let quote = literal.open.len() == 1 && literal.multiline && literal.open != "`";
            let lines =
                literal.multiline && !(quote && self.needs_closing_quote && self.markup == MarkupState::No);
            let literal = LiteralSyntax { multiline: lines, ..*literal };
            return self.begin_literal(literal.kind, opening, close, Some(&literal));
        }
        self.track_markup(rest, first);
        first.len_utf8()
    }

    fn begin_literal(
        &mut self,
        kind: LiteralKind,
        opening: String,
        close: String,
        literal: Option<&LiteralSyntax>,
    ) -> usize {
        let len = opening.len();
        self.open = Some(OpenLiteral {
            kind,
            opening,
            close,
            multiline: literal.is_some_and(|it| it.multiline),
            escape: literal.map_or(EscapeStyle::None, |it| it.escape),
            nests: literal.is_some_and(|it| it.nests),
            content_start: self.bytes_read + len,
            line_before: self.line.clone(),
            depth: 0,
        });
        len
    }

    /// A `#` begins a comment only at the start of a word, and a `%` not after a backslash.
    fn may_begin_comment(&self) -> bool {
        match self.comment {
            "#" | ";" | "\"" | "!" => self.line.is_empty() || self.line.ends_with(char::is_whitespace),
            "%" => !self.line.ends_with('\\'),
            // `https://`
            "//" => !self.line.ends_with(':'),
            "'" => self.line.trim().is_empty() || self.line.ends_with(char::is_whitespace),
            _ => true,
        }
    }

    /// Tracks the tags of markup.
    fn track_markup(&mut self, rest: &str, first: char) {
        self.markup = match (self.markup, first) {
            (MarkupState::Content, '<') if rest[1..].starts_with(|c: char| c.is_alphabetic() || c == '/') => {
                MarkupState::Tag(["<script", "<style"].iter().any(|tag| rest.starts_with(tag)))
            }
            (MarkupState::Tag(script), '>') => {
                if script {
                    MarkupState::Script
                } else {
                    MarkupState::Content
                }
            }
            (MarkupState::Script, '<') if rest.starts_with("</script") || rest.starts_with("</style") => {
                MarkupState::Tag(false)
            }
            (markup, _) => markup,
        };
    }
}

/// The opening and closing delimiter of a literal at the start of `rest`.
fn match_delimiters(literal: &LiteralSyntax, rest: &str) -> Option<(String, String)> {
    let after = rest.strip_prefix(literal.open)?;
    let tag = match literal.tag {
        DelimiterTag::None => "",
        DelimiterTag::Run(sign) => &after[..after.len() - after.trim_start_matches(sign).len()],
        DelimiterTag::Word => &after[..after.len() - after.trim_start_matches(is_word_char).len()],
    };
    after[tag.len()..].starts_with(literal.open_end).then(|| {
        let opening = [literal.open, tag, literal.open_end].concat();
        (opening, [literal.close, tag, literal.close_end].concat())
    })
}

/// Length of a character literal, or of the quote of a lifetime.
fn char_literal_len(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => {
            let end = rest.char_indices().skip(3).take(10).find(|&(_, c)| c == '\'');
            end.map_or(1, |(at, _)| at + 1)
        }
        Some(_) => chars.next().filter(|&(_, c)| c == '\'').map_or(1, |(at, _)| at + 1),
        None => 1,
    }
}

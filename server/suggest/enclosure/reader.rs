//! Reads code for its strings and comments alone, a piece at a time.
//! It knows nothing of where the text comes from, and of languages what their literals look like.

use std::ops::Range;
use std::rc::Rc;

use taper_grammars::literals::{self, Escape, Kind, Literal, Tag};
use taper_grammars::{Blocks, Language};

use super::Inside;
use crate::text::lines::is_word;

/// A literal that is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Open {
    pub(super) kind: Kind,
    /// What opened it.
    pub(super) opening: String,
    /// What closes it; empty where the end of the line does.
    pub(super) close: String,
    pub(super) lines: bool,
    pub(super) escape: Escape,
    pub(super) nests: bool,
    /// Where what it holds begins, in the text that was read.
    pub(super) inner: usize,
    /// What stood before it on its line.
    pub(super) line: String,
    /// Literals of its kind inside of it.
    depth: usize,
}

/// Where markup is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Markup {
    /// The language has none.
    No,
    /// Between tags.
    Content,
    /// In a tag; whether the tag begins a script or a style.
    Tag(bool),
    /// In a script or a style.
    Script,
}

/// A reader in the middle of a text.
#[derive(Debug, Clone)]
pub(super) struct Reader {
    literals: Rc<[Literal]>,
    comment: &'static str,
    is_rust: bool,
    /// A quote without a partner on its line is taken for no string.
    careful: bool,
    markup: Markup,
    open: Option<Open>,
    /// The line so far, for what may begin a comment or a string only there.
    line: String,
    /// Bytes that were read.
    read: usize,
    /// Whether the last step closed the literal, and not the end of its line.
    closed: bool,
}

impl Reader {
    pub(super) fn new(language: Option<&'static Language>) -> Self {
        let is_markup = language.is_some_and(|it| it.blocks == Blocks::Tags);
        Self {
            literals: language.map_or_else(literals::unknown, Language::literals).into(),
            comment: language.map_or("", |it| it.line_comment),
            is_rust: language.is_some_and(|it| it.name == "rust"),
            careful: language.is_none_or(|it| it.grammar.is_some()),
            markup: if is_markup { Markup::Content } else { Markup::No },
            open: None,
            line: String::new(),
            read: 0,
            closed: false,
        }
    }

    pub(super) fn open(&self) -> Option<&Open> {
        self.open.as_ref()
    }

    pub(super) fn inside(&self) -> Inside {
        match self.open.as_ref().map(|open| open.kind) {
            None => Inside::Code,
            Some(Kind::Text) => Inside::Text,
            Some(Kind::Comment) => Inside::Comment,
        }
    }

    /// Whether the open string documents what stands around it: a long one that begins its line.
    pub(super) fn is_documentation(&self) -> bool {
        self.open.as_ref().is_some_and(|open| {
            let prefix = open.line.trim_start().trim_start_matches("@doc").trim_start_matches("@moduledoc");
            open.opening.len() == 3 && open.lines && prefix.trim().len() <= 1
        })
    }

    /// Reads on.
    pub(super) fn read(&mut self, text: &str) {
        let mut at = 0;
        while at < text.len() {
            at = self.step(text, at);
        }
    }

    /// Reads a text that begins with a literal and ends in it; where in it the literal's own text begins.
    pub(super) fn read_literal(&mut self, kind: Kind, text: &str) -> usize {
        self.careful = false;
        let start = text.trim_start();
        if self.markup == Markup::Content
            && !["<!", "<%", "{"].iter().any(|comment| start.starts_with(comment))
        {
            self.markup = Markup::Tag(false);
        }
        let mut at = 0;
        let mut begun = None;
        let prefix =
            |c: char| c.is_ascii_alphabetic() || c.is_whitespace() || matches!(c, '@' | '$' | '#' | '%');
        while at < text.len() {
            let open = self.step(text, at);
            if begun.is_none()
                && let Some(literal) = self.open.clone().filter(|_| text[..at].chars().all(prefix))
            {
                begun = Some((literal, open));
            }
            at = open;
        }
        match begun {
            Some((open, at)) => {
                // The tree knows better where it ends.
                self.open.get_or_insert(open);
                at
            }
            None => {
                // One that is in no table: a regular expression, a here document.
                let close = match start.chars().next() {
                    Some('<') => ">",
                    Some('/') => "/",
                    _ => "",
                };
                self.open = None;
                self.begin(kind, String::new(), close.to_owned(), None);
                text.len().min(close.len())
            }
        }
    }

    /// Reads on up to the end of the open literal; where what closes it stands.
    pub(super) fn closing(&mut self, text: &str) -> Option<Range<usize>> {
        let mut at = 0;
        while at < text.len() {
            self.open.as_ref()?;
            let next = self.step(text, at);
            if self.open.is_none() {
                return self.closed.then_some(at..next);
            }
            at = next;
        }
        None
    }

    /// Reads what stands at `at`; where to go on.
    fn step(&mut self, text: &str, at: usize) -> usize {
        let rest = &text[at..];
        self.closed = false;
        let len = if self.open.is_some() { self.within(rest) } else { self.code(rest) };
        match text[at..at + len].rfind('\n') {
            Some(end) => {
                self.line.clear();
                self.line.push_str(&text[at + end + 1..at + len]);
            }
            None => self.line.push_str(&text[at..at + len]),
        }
        self.read += len;
        at + len
    }

    /// Length of what stands at the beginning of `rest`, in the open literal.
    fn within(&mut self, rest: &str) -> usize {
        let first = rest.chars().next().map_or(1, char::len_utf8);
        let Some(open) = &mut self.open else { return first };
        if open.escape == Escape::Backslash && rest.starts_with('\\') {
            let next = rest[1..].chars().next();
            // A line that goes on behind a backslash is one line.
            return 1 + next.map_or(0, char::len_utf8);
        }
        if !open.close.is_empty() && rest.starts_with(open.close.as_str()) {
            let len = open.close.len();
            if open.escape == Escape::Doubled && rest[len..].starts_with(open.close.as_str()) {
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
        if !open.lines && rest.starts_with('\n') {
            self.open = None;
        }
        first
    }

    /// The same in code: opens what begins there.
    fn code(&mut self, rest: &str) -> usize {
        let first = rest.chars().next().unwrap_or('\0');
        if self.is_rust && first == '\'' {
            return character(rest);
        }
        let in_markup = matches!(self.markup, Markup::Content | Markup::Tag(_));
        if !in_markup
            && !self.comment.is_empty()
            && rest.starts_with(self.comment)
            && self.may_begin_comment()
        {
            return self.begin(Kind::Comment, self.comment.to_owned(), String::new(), None);
        }
        let literals = Rc::clone(&self.literals);
        for literal in literals.iter() {
            let allowed = match self.markup {
                Markup::Content => {
                    literal.kind == Kind::Comment && literal.open != "/*" || literal.open.len() > 3
                }
                Markup::Tag(_) => literal.kind == Kind::Text && literal.open.len() == 1,
                Markup::No | Markup::Script => true,
            };
            let behind_word =
                literal.open.starts_with(is_word) && self.line.ends_with(|c| is_word(c) && c != 'b');
            if !allowed || behind_word {
                continue;
            }
            let Some((opening, close)) = delimiters(literal, rest) else { continue };
            let quote = literal.open.len() == 1 && literal.lines && literal.open != "`";
            let lines = literal.lines && !(quote && self.careful && self.markup == Markup::No);
            let literal = Literal { lines, ..*literal };
            return self.begin(literal.kind, opening, close, Some(&literal));
        }
        self.mark(rest, first);
        first.len_utf8()
    }

    fn begin(&mut self, kind: Kind, opening: String, close: String, literal: Option<&Literal>) -> usize {
        let len = opening.len();
        self.open = Some(Open {
            kind,
            opening,
            close,
            lines: literal.is_some_and(|it| it.lines),
            escape: literal.map_or(Escape::None, |it| it.escape),
            nests: literal.is_some_and(|it| it.nests),
            inner: self.read + len,
            line: self.line.clone(),
            depth: 0,
        });
        len
    }

    /// A `#` begins a comment at the start of a word only, and a `%` not behind a backslash.
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

    /// Follows the tags of markup.
    fn mark(&mut self, rest: &str, first: char) {
        self.markup = match (self.markup, first) {
            (Markup::Content, '<') if rest[1..].starts_with(|c: char| c.is_alphabetic() || c == '/') => {
                Markup::Tag(["<script", "<style"].iter().any(|tag| rest.starts_with(tag)))
            }
            (Markup::Tag(script), '>') => {
                if script {
                    Markup::Script
                } else {
                    Markup::Content
                }
            }
            (Markup::Script, '<') if rest.starts_with("</script") || rest.starts_with("</style") => {
                Markup::Tag(false)
            }
            (markup, _) => markup,
        };
    }
}

/// What opens and what closes a literal that begins at the beginning of `rest`.
fn delimiters(literal: &Literal, rest: &str) -> Option<(String, String)> {
    let behind = rest.strip_prefix(literal.open)?;
    let tag = match literal.tag {
        Tag::None => "",
        Tag::Run(sign) => &behind[..behind.len() - behind.trim_start_matches(sign).len()],
        Tag::Word => &behind[..behind.len() - behind.trim_start_matches(is_word).len()],
    };
    behind[tag.len()..].starts_with(literal.open_end).then(|| {
        let opening = [literal.open, tag, literal.open_end].concat();
        (opening, [literal.close, tag, literal.close_end].concat())
    })
}

/// Length of a character's literal, or of the quote of a lifetime.
fn character(rest: &str) -> usize {
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

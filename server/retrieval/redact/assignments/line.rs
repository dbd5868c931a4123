//! The context of a position on its line: whether a string is open there, whether it is in a comment, which operator
//! follows.

use std::ops::Range;

use super::super::{line_end, line_start};

/// The link between a name and its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NameValueLink {
    /// `=`, `:`, `=>`, `:=`, `==`, `||`, and other assignments and comparisons.
    Operator,
    /// `: ` without quotes.
    Colon,
    /// `name(`, `("name", `.
    Call,
    /// Only blanks.
    Blank,
    /// `--name value`.
    Flag,
    /// `<name>`.
    Element,
}

/// How a string is quoted, and so what closes it.
#[derive(Debug, Clone, Copy)]
pub(super) struct StringQuote {
    /// The quotation mark; `]` for `[[…]]`.
    mark: u8,
    /// How often it is repeated.
    count: usize,
    /// The number of `\` before it, in a string inside a string.
    pub(super) escapes: usize,
    /// The number of `#` after it, in Rust.
    hashes: usize,
}

impl StringQuote {
    /// The quote at the start of `rest`, which may have the prefix letters of some languages, and its length.
    pub(super) fn parse(rest: &[u8]) -> Option<(Self, usize)> {
        if rest.starts_with(b"[[") {
            return Some((Self { mark: b']', count: 2, escapes: 0, hashes: 0 }, 2));
        }
        let letters = rest.iter().take(3).take_while(|it| b"rRbBuUfFlLcC$@".contains(it)).count();
        let hashes = rest[letters..].iter().take(4).take_while(|&&it| it == b'#').count();
        let escapes = rest[letters + hashes..].iter().take(8).take_while(|&&it| it == b'\\').count();
        let start = letters + hashes + escapes;
        let mark = *rest.get(start).filter(|it| matches!(it, b'"' | b'\'' | b'`'))?;
        let count = if rest[start..].starts_with(&[mark; 3]) { 3 } else { 1 };
        Some((Self { mark, count, escapes, hashes }, start + count))
    }

    /// The length of what closes the string, if that is at the start of `rest`.
    pub(super) fn closing_len(self, rest: &[u8]) -> Option<usize> {
        if rest.first() != Some(&self.first_closing_byte()) {
            return None;
        }
        let (escapes, marks) = (self.escapes, self.escapes + self.count);
        let len = marks + self.hashes;
        let all = |bytes: &[u8], byte: u8| bytes.iter().all(|&it| it == byte);
        let closing = rest.get(..len)?;
        (all(&closing[..escapes], b'\\')
            && all(&closing[escapes..marks], self.mark)
            && all(&closing[marks..], b'#'))
        .then_some(len)
    }

    pub(super) fn first_closing_byte(self) -> u8 {
        if self.escapes > 0 { b'\\' } else { self.mark }
    }

    /// Whether the string may contain line breaks.
    pub(super) fn spans_lines(self) -> bool {
        self.escapes + self.count + self.hashes > 2 || matches!(self.mark, b']' | b'`') && self.escapes == 0
    }
}

/// The context that all names on a line share.
pub(super) struct LineContext {
    pub(super) range: Range<usize>,
    pub(super) has_quote: bool,
    pub(super) is_comment: bool,
}

impl LineContext {
    pub(super) fn at_offset(bytes: &[u8], at: usize) -> Self {
        let (start, end) = (line_start(bytes, at), line_end(bytes, at));
        let line = &bytes[start..end];
        let has_quote = memchr::memchr3(b'"', b'\'', b'`', line).is_some()
            || memchr::memchr_iter(b'[', line).any(|at| line.get(at + 1) == Some(&b'['));
        Self { range: start..end, has_quote, is_comment: is_comment_line(line) }
    }
}

pub(super) fn blank_len(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|&&it| it == b' ' || it == b'\t').count()
}

/// An operator of assignment or comparison at the start of `rest`, which is at `at`.
pub(super) fn parse_operator(rest: &[u8], at: usize) -> Option<(NameValueLink, usize)> {
    const OPERATORS: [&[u8]; 24] = [
        b"===", b"!==", b"||=", b"??=", b"//=", b"==", b"!=", b"=>", b":=", b":-", b"||", b"??", b"?:",
        b"?=", b"+=", b"~=", b".=", b"<-", b"<<", b"or ", b"eq ", b"!:", b"=", b":",
    ];
    // A pattern match, and `token::Kind`.
    if rest.starts_with(b"=~") || rest.starts_with(b"::") {
        return None;
    }
    let operator = OPERATORS.iter().find(|it| rest.starts_with(it))?;
    let link = if operator.ends_with(b":") && operator.len() < 3 {
        NameValueLink::Colon
    } else {
        NameValueLink::Operator
    };
    Some((link, at + operator.len()))
}

/// The quote of the string that is open at the end of `before`.
pub(super) fn open_quote(before: &[u8]) -> Option<u8> {
    let mut open = None;
    let mut at = 0;
    while at < before.len() {
        let byte = before[at];
        match (open, byte) {
            (_, b'\\') => at += 1,
            (Some(quote), _) if byte == quote => open = None,
            (None, b'"' | b'`') => open = Some(byte),
            (None, b'\'') if at == 0 || !before[at - 1].is_ascii_alphanumeric() => open = Some(byte),
            _ => {}
        }
        at += 1;
    }
    open
}

pub(super) fn is_comment_line(before: &[u8]) -> bool {
    const STARTS: [&[u8]; 11] =
        [b"#", b"//", b"*", b"/*", b"--", b";", b"<!--", b"%", b"REM ", b"\"\"\"", b"'''"];
    const MARKS: [&[u8]; 3] = [b" # ", b" // ", b" -- "];
    let line = before.trim_ascii_start();
    // Code begins with a letter, and then the list need not be searched.
    let starts = line.first().is_some_and(|it| !it.is_ascii_alphanumeric() || *it == b'R')
        && STARTS.iter().any(|it| line.starts_with(it));
    starts || memchr::memchr_iter(b' ', before).any(|at| MARKS.iter().any(|it| before[at..].starts_with(it)))
}

/// Whether a line sets an environment variable.
pub(super) fn sets_variable(before: &[u8], name: &[u8]) -> bool {
    let before = before.trim_ascii();
    let sets =
        [&b"export"[..], b"set", b"ENV", b"ARG", b"setx", b"env", b"-e", b"--env", b"--build-arg", b"RUN"];
    let capital = !name.iter().any(u8::is_ascii_lowercase);
    sets.iter().any(|it| before.ends_with(it)) || before.is_empty() && capital
}

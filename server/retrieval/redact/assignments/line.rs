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
        let has_quote =
            line.iter().any(|it| matches!(it, b'"' | b'\'' | b'`')) || line.windows(2).any(|it| it == b"[[");
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
    let line = before.trim_ascii_start();
    [&b"#"[..], b"//", b"*", b"/*", b"--", b";", b"<!--", b"%", b"REM ", b"\"\"\"", b"'''"]
        .iter()
        .any(|it| line.starts_with(it))
        || [&b" # "[..], b" // ", b" -- "].iter().any(|mark| before.windows(mark.len()).any(|it| it == *mark))
}

/// Whether a line sets an environment variable.
pub(super) fn sets_variable(before: &[u8], name: &[u8]) -> bool {
    let before = before.trim_ascii();
    let sets =
        [&b"export"[..], b"set", b"ENV", b"ARG", b"setx", b"env", b"-e", b"--env", b"--build-arg", b"RUN"];
    let capital = !name.iter().any(u8::is_ascii_lowercase);
    sets.iter().any(|it| before.ends_with(it)) || before.is_empty() && capital
}

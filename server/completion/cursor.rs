//! The text around a cursor, scanned once: its line, its indentation, its brackets.

use taper_grammars::{BlockStyle, Language};

use super::enclosing_literal::{EnclosingLiteral, LexicalContext};
use crate::text::lines::is_word_char;

/// Languages with blocks in which a blank after a dot is as good as none, or better.
const SPACED_DOT_LANGUAGES: &[&str] = &["shellscript", "fish", "php", "perl", "erlang"];

/// The text around the cursor.
#[derive(Debug, Clone)]
pub struct CursorContext<'a> {
    /// Text before the cursor, within the window.
    pub before: &'a str,
    /// Text after the cursor, within the window.
    pub after: &'a str,
    /// The cursor's line up to the cursor.
    pub line_before: &'a str,
    /// The rest of the cursor's line, without its line break.
    pub line_after: &'a str,
    /// The language, if taper knows it.
    pub language: Option<&'static Language>,
    /// The string or comment that contains the cursor, if any.
    pub(super) literal: EnclosingLiteral,
}

impl<'a> CursorContext<'a> {
    /// Reads the context between `before` and `after` from the start of `before`, without a syntax tree.
    pub fn new(before: &'a str, after: &'a str, language: Option<&'static Language>) -> Self {
        let mut place = Self::in_code(before, after, language);
        place.literal = EnclosingLiteral::from_text(&place);
        place
    }

    /// The same, assuming that the cursor is in code.
    pub(super) fn in_code(before: &'a str, after: &'a str, language: Option<&'static Language>) -> Self {
        let line_start = before.rfind(['\n', '\r']).map_or(0, |at| at + 1);
        let line_end = after.find(['\n', '\r']).unwrap_or(after.len());
        let (line_before, line_after) = (&before[line_start..], &after[..line_end]);
        Self {
            before,
            after,
            line_before,
            line_after,
            language,
            literal: EnclosingLiteral::outside_literal(language),
        }
    }

    /// Whether only blanks precede the cursor on its line.
    pub fn is_in_indentation(&self) -> bool {
        self.line_before.trim().is_empty()
    }

    /// The last line before the cursor's that is not blank.
    pub fn line_above(&self) -> Option<&'a str> {
        let above = &self.before[..self.before.len() - self.line_before.len()];
        above.lines().rev().find(|line| !line.trim().is_empty())
    }

    /// The first line after the cursor's that is not blank.
    pub fn line_below(&self) -> Option<&'a str> {
        self.after[self.line_after.len()..].lines().find(|line| !line.trim().is_empty())
    }

    /// Whether the lines below the cursor are indented deeper than `opener`, as the body of its block would be.
    pub fn has_body_below(&self, opener: &str) -> bool {
        self.line_below().is_some_and(|below| indentation_width(below) > indentation_width(opener))
    }

    /// The first character after the cursor that is not white space.
    pub fn next_visible_char(&self) -> Option<char> {
        self.after.chars().find(|c| !c.is_whitespace())
    }

    /// How the language marks its blocks.
    pub fn block_style(&self) -> BlockStyle {
        self.language.map_or(BlockStyle::None, |it| it.blocks)
    }

    /// Whether the cursor is directly after a dot that is followed by a member.
    pub fn expects_member(&self) -> bool {
        let Some(owner) = self.line_before.strip_suffix('.') else { return false };
        let word = &owner[owner.trim_end_matches(is_word_char).len()..];
        // Not after the dot of a number or a range, nor where a dot ends a sentence or composes functions.
        let owns = owner.ends_with([')', ']', '}', '?', '!', '"', '\''])
            || word.starts_with(|c: char| !c.is_ascii_digit());
        let code =
            matches!(self.block_style(), BlockStyle::Braces | BlockStyle::Indentation | BlockStyle::Keywords);
        let other = self.language.is_none_or(|it| SPACED_DOT_LANGUAGES.contains(&it.name));
        owns && code && !other && self.literal.lexical_context() == LexicalContext::Code
    }

    /// Whether the end of `line` opens a block.
    pub fn opens_block(&self, line: &str) -> bool {
        let code = self.without_comment(line).trim_end();
        if code.ends_with(['{', '(', '[']) {
            return true;
        }
        match self.block_style() {
            BlockStyle::Indentation => code.ends_with(':'),
            BlockStyle::Keywords => self.language.is_some_and(|it| opens_by_keyword(it, code)),
            BlockStyle::Braces | BlockStyle::Tags | BlockStyle::None => false,
        }
    }

    /// `line` without a comment at its end. A comment sign after a quote counts as part of a string.
    pub(super) fn without_comment<'t>(&self, line: &'t str) -> &'t str {
        let sign = self.language.map_or("", |it| it.line_comment);
        match line.find(sign) {
            Some(at) if !sign.is_empty() && !line[..at].contains(['"', '\'']) => &line[..at],
            _ => line,
        }
    }

    /// The brackets of `text`, read as if it were at the cursor.
    pub fn bracket_balance(&self, text: &str) -> BracketBalance {
        BracketBalance::scan_brackets(text, self.is_rust())
    }

    /// Whether a single quote is more often a lifetime than the start of a string.
    pub(super) fn is_rust(&self) -> bool {
        self.language.is_some_and(|it| it.name == "rust")
    }
}

/// Blocks that run to an `end` (Ruby, Lua, shells).
fn opens_by_keyword(language: &Language, code: &str) -> bool {
    let mut words = code.split_whitespace();
    let first = words.next().unwrap_or("");
    let first = if first == "local" { words.next().unwrap_or("") } else { first };
    let last = code.split_whitespace().next_back().unwrap_or("");
    let closed = matches!(last, "end" | "fi" | "done" | "esac");
    let function = code.contains("function") && code.ends_with(')');
    let parameters = code.ends_with('|') && language.opening_ends.iter().any(|word| code.contains(word));
    let opens = language.opening_ends.contains(&last) || language.opening_words.contains(&first);
    !closed && (opens || function || parameters)
}

/// How the brackets of a text add up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BracketBalance {
    /// Openers that are not closed in the text, with their byte offsets, in order.
    pub open: Vec<(usize, char)>,
    /// Byte offsets of closers whose openers are not in the text, in order.
    pub unopened: Vec<usize>,
}

impl BracketBalance {
    /// Reads code approximately: quoted strings on one line are skipped; in Rust a single quote is more often a
    /// lifetime.
    fn scan_brackets(text: &str, rust: bool) -> Self {
        let mut out = Self::default();
        let mut chars = text.char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            match c {
                '(' | '[' | '{' => out.open.push((at, c)),
                ')' | ']' | '}' => {
                    if out.open.last().is_some_and(|&(_, open)| open == opening_bracket(c)) {
                        out.open.pop();
                    } else {
                        out.unopened.push(at);
                    }
                }
                '"' | '`' | '\'' => {
                    let rest = &text[at + 1..];
                    if let Some(len) = quoted_len(rest, c, rust) {
                        while chars.peek().is_some_and(|&(next, _)| next <= at + 1 + len) {
                            chars.next();
                        }
                    }
                }
                _ => {}
            }
        }
        out
    }
}

/// The bracket that `closer` closes.
pub fn opening_bracket(closer: char) -> char {
    match closer {
        ')' => '(',
        ']' => '[',
        _ => '{',
    }
}

/// Length of the string after an opening quote, without its closing one; `None` if it does not end on the line.
pub(super) fn quoted_len(rest: &str, quote: char, rust: bool) -> Option<usize> {
    let mut escaped = false;
    for (count, (at, c)) in rest.char_indices().enumerate() {
        if c == '\n' && quote != '`' {
            return None;
        }
        if c == quote && !escaped {
            return Some(at);
        }
        if rust && quote == '\'' && count > 0 && !rest.starts_with('\\') {
            return None;
        }
        escaped = c == '\\' && !escaped;
    }
    None
}

/// Width of a line's indentation in columns, a tab counted as four.
pub fn indentation_width(line: &str) -> usize {
    line.chars().take_while(|c| matches!(c, ' ' | '\t')).map(|c| if c == '\t' { 4 } else { 1 }).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context_at(text: &str) -> CursorContext<'_> {
        let (before, after) = text.split_once('▮').unwrap_or((text, ""));
        CursorContext::new(before, after, taper_grammars::by_path("x.rs".as_ref()))
    }

    #[test]
    fn lines_around_the_cursor() {
        let it = context_at("one\r\ntwo\n\n  th▮ree)\n\nfour\n");
        assert_eq!((it.line_before, it.line_after), ("  th", "ree)"));
        assert_eq!((it.line_above(), it.line_below()), (Some("two"), Some("four")));
        assert_eq!(it.next_visible_char(), Some('r'));
        assert!(context_at("a\n  ▮").is_in_indentation());
    }

    #[test]
    fn member_is_expected_after_dot_in_code() {
        let wants = |path: &str, line: &str| {
            CursorContext::new(line, "", taper_grammars::by_path(path.as_ref())).expects_member()
        };
        for line in ["self.", "f(x).", "a[0].", "x?.", "x = \"a\".", "foo1."] {
            assert!(wants("x.py", line), "{line}");
        }
        for line in ["x = 1.", "0..", "...", "", "x", "x. ", "1_000."] {
            assert!(!wants("x.rs", line), "{line}");
        }
        assert!(!wants("x.php", "$a.") && !wants("x.sh", "foo.") && !wants("README", "The end."));
        assert!(!context_at("// The end.▮").expects_member());
    }

    #[test]
    fn bracket_balance_skips_strings_and_lifetimes() {
        let it = context_at("");
        assert_eq!(it.bracket_balance("a(b[c]"), BracketBalance { open: vec![(1, '(')], unopened: vec![] });
        assert_eq!(it.bracket_balance("a)b]"), BracketBalance { open: vec![], unopened: vec![1, 3] });
        assert_eq!(it.bracket_balance(r#"f(")\")")"#), BracketBalance::default());
        assert_eq!(it.bracket_balance("fn f<'a>(x: &'a str) { '}' }"), BracketBalance::default());
    }

    #[test]
    fn block_openers_by_language() {
        let open = |path: &str, line: &str| {
            CursorContext::new("", "", taper_grammars::by_path(path.as_ref())).opens_block(line)
        };
        assert!(open("x.py", "def f(x):") && open("x.py", "if x:  # why") && !open("x.py", "x = {1: 2}"));
        assert!(open("x.rs", "fn f() {") && open("x.rs", "    foo(") && !open("x.rs", "let x = 1;"));
        assert!(open("x.rb", "def f") && open("x.rb", "list.each do |x|") && !open("x.rb", "x = 1"));
        assert!(open("x.lua", "local function f(x)") && open("x.lua", "if x then"));
        assert!(!open("x.rb", "def f; 1; end"));
    }
}

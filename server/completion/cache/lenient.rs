//! Matches typed text that differs slightly from a suggestion: other blanks, other quotes, brackets that the editor
//! closed.
//! The only language knowledge is that strings have quotes.

use std::iter::Peekable;
use std::str::Chars;

use crate::completion::cursor::opening_bracket;
use crate::text::lines::is_word_char;

/// Maximum differences between the suggestion and the typed text.
const MAX_DIFFERENCES: usize = 3;
/// Maximum bytes that an editor inserts after the cursor: closers, and a line of its own for one of them.
const MAX_CLOSED_BYTES: usize = 64;

/// The remainder of `text` after `typed`, if the two differ only in a few blanks and the style of quotes. It has the
/// style of the typed text. `None` also if nothing remains.
pub(crate) fn lenient_match(text: &str, typed: &str) -> Option<String> {
    let mut reader = LenientReader::new(text, typed);
    while let Some(&their) = reader.theirs.peek() {
        let &our = reader.ours.peek()?;
        if reader.are_equivalent(our, their) {
            reader.read_both(our, their)?;
        } else {
            reader.skip_blank(our, their)?;
        }
    }
    let few = reader.differences <= MAX_DIFFERENCES;
    let remainder = reader.into_remainder(typed.ends_with(' '))?;
    (few && !remainder.trim().is_empty()).then_some(remainder)
}

/// Reads a suggestion along with the typed text, and counts the differences. Its methods return `None` where the two
/// differ in more than style.
struct LenientReader<'t> {
    /// The unread rest of the suggestion.
    ours: Peekable<Chars<'t>>,
    /// The unread rest of the typed text.
    theirs: Peekable<Chars<'t>>,
    differences: usize,
    /// The last character that both have.
    before: Option<char>,
    /// Whether only blanks were read since a line break.
    in_indentation: bool,
    /// The quotes of the open string.
    quotes: Option<QuotePair>,
    /// Whether the typed text lacks a blank of the suggestion, and no word followed.
    tight: bool,
}

/// The quotes of one string in both texts.
#[derive(Clone, Copy, PartialEq, Eq)]
struct QuotePair {
    our: char,
    their: char,
}

impl<'t> LenientReader<'t> {
    fn new(text: &'t str, typed: &'t str) -> Self {
        Self {
            ours: text.chars().peekable(),
            theirs: typed.chars().peekable(),
            differences: 0,
            before: None,
            in_indentation: false,
            quotes: None,
            tight: false,
        }
    }

    /// Whether two characters are equal, or quotes of different style.
    fn are_equivalent(&self, our: char, their: char) -> bool {
        let is_pair = self.quotes.is_none_or(|quotes| quotes == QuotePair { our, their });
        our == their || is_quote(our) && is_quote(their) && is_pair
    }

    /// Reads equivalent characters.
    fn read_both(&mut self, our: char, their: char) -> Option<()> {
        match self.quotes {
            // A quote that the string cannot contain in the other style.
            Some(quotes)
                if quotes.our != quotes.their
                    && our == their
                    && (our == quotes.our || our == quotes.their || our == '\\') =>
            {
                return None;
            }
            Some(quotes) if our == quotes.our && self.before != Some('\\') => self.quotes = None,
            None if is_quote(our) => {
                self.differences += usize::from(our != their);
                self.quotes = Some(QuotePair { our, their });
            }
            _ => {}
        }
        self.tight &= !is_word_char(our);
        self.in_indentation = our == '\n' || (self.in_indentation && matches!(our, ' ' | '\t'));
        self.before = Some(our);
        self.ours.next();
        self.theirs.next();
        Some(())
    }

    /// Skips a blank that only one of the texts has, where it is not significant: neither in a string nor in
    /// indentation nor between two words.
    fn skip_blank(&mut self, our: char, their: char) -> Option<()> {
        self.differences += 1;
        if self.quotes.is_some() || self.in_indentation {
            return None;
        }
        let after_word = self.before.is_some_and(is_word_char);
        if our == ' ' {
            self.ours.next();
            self.tight = true;
            let splits_words = after_word && self.ours.peek().copied().is_some_and(is_word_char);
            (!splits_words).then_some(())
        } else {
            let is_optional = their == ' ' && !(after_word && is_word_char(our));
            self.theirs.next();
            is_optional.then_some(())
        }
    }

    /// The rest of the suggestion in the style of the typed text.
    fn into_remainder(self, after_blank: bool) -> Option<String> {
        let mut rest: String = self.ours.collect();
        // A user who leaves no blank before an operator leaves none after it.
        if self.tight && rest.starts_with(' ') {
            rest.remove(0);
        }
        // The remainder does not begin with a second blank either.
        if after_blank && self.before != Some(' ') && rest.starts_with(' ') {
            rest.remove(0);
        }
        if let Some(QuotePair { our, their }) = self.quotes.filter(|quotes| quotes.our != quotes.their) {
            let end = rest.find(our)?;
            if rest[..end].contains([their, '\\', '\n']) {
                return None;
            }
            rest.replace_range(end..=end, their.encode_utf8(&mut [0; 4]));
        }
        Some(rest)
    }
}

/// The text between the cursor and the text that used to follow it, if it is only closers and blanks. `is_former`
/// recognises the former text.
pub(super) fn editor_closed_text(after: &str, is_former: impl Fn(&str) -> bool) -> Option<&str> {
    let mut end = 0;
    loop {
        if is_former(&after[end..]) {
            return Some(&after[..end]);
        }
        let next = after[end..].chars().next()?;
        if !(next.is_whitespace() || is_closer(next) || is_quote(next)) || end >= MAX_CLOSED_BYTES {
            return None;
        }
        end += next.len_utf8();
    }
}

/// The part of `rest`, which follows `typed`, up to the closer that the editor has already inserted after the cursor;
/// `None` if `rest` would not close the same bracket or quote there, or if nothing remains.
pub(super) fn remainder_inside(typed: &str, rest: &str, closed: &str) -> Option<String> {
    let first = closed.trim_start();
    let end = find_closer(typed, rest, first.chars().next()?)?;
    // All the other closers must follow as well.
    let (mut typed, mut left) = (typed.to_owned(), rest);
    for closer in first.chars().filter(|c| !c.is_whitespace()) {
        let (closed_part, tail) = left.split_at(find_closer(&typed, left, closer)? + 1);
        typed += closed_part;
        left = tail;
    }
    let inner = &rest[..end];
    // The closer is already on a line of its own.
    let inner = if first.len() < closed.len() { inner.trim_end() } else { inner };
    (!inner.trim().is_empty()).then(|| inner.to_owned())
}

/// The position at which `rest` closes what is open at the end of `typed`, if `closer` closes it.
fn find_closer(typed: &str, rest: &str, closer: char) -> Option<usize> {
    let before = Delimiters::of_text(typed);
    if is_quote(closer) {
        let escaped = |at: usize| rest[..at].ends_with('\\');
        let mut quotes = rest.match_indices(closer).map(|(at, _)| at);
        return quotes.find(|&at| !escaped(at)).filter(|_| before.quote == Some(closer));
    }
    if before.quote.is_some() || before.open.last() != Some(&opening_bracket(closer)) {
        return None;
    }
    let mut deeper = Delimiters::default();
    for (at, c) in rest.char_indices() {
        if deeper.quote.is_none() && is_closer(c) {
            match deeper.open.pop() {
                None => return (c == closer).then_some(at),
                Some(open) if open == opening_bracket(c) => {}
                Some(_) => return None,
            }
        }
        deeper.read_char(c);
    }
    None
}

/// The delimiters that a text leaves open.
#[derive(Default)]
struct Delimiters {
    /// The open brackets.
    open: Vec<char>,
    /// The quote of the string in which the text ends.
    quote: Option<char>,
    escaped: bool,
}

impl Delimiters {
    fn of_text(text: &str) -> Self {
        let mut delimiters = Self::default();
        for c in text.chars() {
            let opener = is_closer(c).then(|| opening_bracket(c));
            if delimiters.quote.is_none() && opener.is_some() && delimiters.open.last() == opener.as_ref() {
                delimiters.open.pop();
            }
            delimiters.read_char(c);
        }
        delimiters
    }

    /// Records the brackets that a character opens, and where strings begin and end.
    fn read_char(&mut self, c: char) {
        match self.quote {
            Some(_) if self.escaped => self.escaped = false,
            Some(_) if c == '\\' => self.escaped = true,
            Some(quote) if c == quote || (c == '\n' && quote != '`') => self.quote = None,
            Some(_) => {}
            None if is_quote(c) => self.quote = Some(c),
            None if matches!(c, '(' | '[' | '{') => self.open.push(c),
            None => {}
        }
    }
}

fn is_quote(c: char) -> bool {
    matches!(c, '"' | '\'' | '`')
}

fn is_closer(c: char) -> bool {
    matches!(c, ')' | ']' | '}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lenient_match_allows_other_quotes_and_blanks() {
        for (text, typed, left) in [
            ("print(\"hello\", x)", "print('", Some("hello', x)")),
            ("print(\"hello\", x)", "print('hel", Some("lo', x)")),
            ("print(\"hello\", x)", "print('hello', ", Some("x)")),
            ("print(\"it's\")", "print('", None),
            ("print(\"it's\")", "print('it", None),
            ("f('a', \"b\")", "f(\"a", Some("\", \"b\")")),
            ("f(a, b)", "f( ", Some("a, b)")),
            ("f(a, b)", "f(a,", Some(" b)")),
            ("f(a, b)", "f(a,b", Some(")")),
            (" = 1 + x", "=", Some("1 + x")),
            ("x = 1", "x=", Some("1")),
            ("x=1", "x = ", Some("1")),
            ("x=1", "x ", Some("=1")),
            ("x = 1", "x  ", Some("= 1")),
            ("return x", "returnx", None),
            ("format(x)", "for ", None),
            ("f('a b')", "f('ab", None),
            ("f('ab')", "f('a ", None),
            ("\n    y()", "\n  y", None),
            ("\n    y()", "y", None),
            ("f(a)", "f(b", None),
            ("f(a)", "f(a) ", None),
            ("a, b, c, d, e, f", "a,b,c,d,e", None),
        ] {
            assert_eq!(lenient_match(text, typed).as_deref(), left, "{text} {typed}");
        }
    }

    #[test]
    fn editor_closed_delimiters_are_not_repeated() {
        for (text, typed, after, left) in [
            ("foo(a, b)", "foo(", ")", Some("a, b")),
            ("foo(a, b) + 1", "foo(a", ")", Some(", b")),
            ("foo(g(a), b)", "foo(g(", "))", Some("a")),
            ("foo(g(a), b)", "foo(g(a)", ")", Some(", b")),
            ("foo([a])", "foo([", "])", Some("a")),
            ("foo(\")\", b)", "foo(", ")", Some("\")\", b")),
            ("print(\"a\")", "print(\"", "\")", Some("a")),
            ("print(\"a\")", "print(", ")", Some("\"a\"")),
            ("print(\"a\")", "print(\"", "\"", Some("a")),
            (" {\n    y();\n}", " {", "}", Some("\n    y();\n")),
            (" {\n    y();\n}", " {\n    ", "\n}", Some("y();")),
            // Nothing remains, the bracket is another one, or it closes nothing.
            ("foo()", "foo(", ")", None),
            ("foo[a]", "foo[", ")", None),
            ("foo(a", "foo(", ")", None),
            ("foo(a)", "fo", ")", None),
            ("foo(a)", "foo(", "))", None),
            ("foo(a)", "foo(", "\"", None),
        ] {
            assert_eq!(
                remainder_inside(typed, &text[typed.len()..], after).as_deref(),
                left,
                "{text} {typed}▮{after}"
            );
        }
    }

    #[test]
    fn editor_closed_text_ends_at_former_text() {
        let former = |after: &str| after == ";\n)";
        assert_eq!(editor_closed_text(");\n)", former), Some(")"));
        assert_eq!(editor_closed_text("\n}\"];\n)", former), Some("\n}\"]"));
        assert_eq!(editor_closed_text(";\n)", former), Some(""));
        for other in ["x;\n)", "", ")", &")".repeat(200)] {
            assert_eq!(editor_closed_text(other, former), None, "{other}");
        }
    }
}

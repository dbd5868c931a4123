//! Matches typed text that differs slightly from a suggestion: other blanks, other quotes, brackets that the editor
//! closed.
//! The only language knowledge is that strings have quotes.

use crate::completion::cursor::opening_bracket;
use crate::text::lines::is_word_char;

/// Maximum differences between the suggestion and the typed text.
const MAX_DIFFERENCES: usize = 3;
/// Maximum bytes that an editor inserts after the cursor: closers, and a line of its own for one of them.
const MAX_CLOSED_BYTES: usize = 64;

/// The remainder of `text` after `typed`, if the two differ only in a few blanks and the style of quotes. It has the
/// style of the typed text. `None` also if nothing remains.
pub(crate) fn lenient_match(text: &str, typed: &str) -> Option<String> {
    let (mut ours, mut theirs) = (text.chars().peekable(), typed.chars().peekable());
    let mut differences = 0;
    let mut before = None;
    let mut on_start = false;
    // The quotes of the open string, in the suggestion and in the typed text.
    let mut open: Option<(char, char)> = None;
    let mut tight = false;
    while let Some(&their) = theirs.peek() {
        let &our = ours.peek()?;
        let in_string = open.is_some();
        let next_to = |c: Option<char>| c.is_some_and(is_word_char);
        if our == their || (is_quote(our) && is_quote(their) && open.is_none_or(|open| open == (our, their)))
        {
            if our != their && open.is_none() {
                differences += 1;
            }
            match open {
                // A quote that the string cannot contain in the other style.
                Some((ours, theirs))
                    if ours != theirs && our == their && (our == ours || our == theirs || our == '\\') =>
                {
                    return None;
                }
                Some((quote, _)) if our == quote && before != Some('\\') => open = None,
                None if is_quote(our) => open = Some((our, their)),
                _ => {}
            }
            tight &= !is_word_char(our);
            on_start = our == '\n' || (on_start && matches!(our, ' ' | '\t'));
            before = Some(our);
            ours.next();
            theirs.next();
            continue;
        }
        differences += 1;
        // A blank is significant in a string, in indentation, and between two words.
        if in_string || on_start {
            return None;
        }
        if our == ' ' {
            ours.next();
            if next_to(before) && next_to(ours.peek().copied()) {
                return None;
            }
            tight = true;
        } else if their == ' ' && !(next_to(before) && is_word_char(our)) {
            theirs.next();
        } else {
            return None;
        }
        if differences > MAX_DIFFERENCES {
            return None;
        }
    }
    let mut rest: String = ours.collect();
    // A user who leaves no blank before an operator leaves none after it.
    if tight && rest.starts_with(' ') {
        rest.remove(0);
    }
    // The remainder does not begin with a second blank either.
    if typed.ends_with(' ') && before != Some(' ') && rest.starts_with(' ') {
        rest.remove(0);
    }
    if let Some((ours, theirs)) = open.filter(|(ours, theirs)| ours != theirs) {
        let end = rest.find(ours)?;
        if rest[..end].contains([theirs, '\\', '\n']) {
            return None;
        }
        rest.replace_range(end..=end, theirs.encode_utf8(&mut [0; 4]));
    }
    (!rest.trim().is_empty() && differences <= MAX_DIFFERENCES).then_some(rest)
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
    let (open, quote) = open_delimiters(typed);
    if is_quote(closer) {
        let escaped = |at: usize| rest[..at].ends_with('\\');
        let mut quotes = rest.match_indices(closer).map(|(at, _)| at);
        return quotes.find(|&at| !escaped(at)).filter(|_| quote == Some(closer));
    }
    if quote.is_some() || open.last() != Some(&opening_bracket(closer)) {
        return None;
    }
    let mut deeper = Vec::new();
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in rest.char_indices() {
        if quote.is_none() && is_closer(c) {
            match deeper.pop() {
                None => return (c == closer).then_some(at),
                Some(open) if open == opening_bracket(c) => {}
                Some(_) => return None,
            }
        }
        track_delimiters(c, &mut deeper, &mut quote, &mut escaped);
    }
    None
}

/// The brackets that a text leaves open, and the quote of the string in which it ends.
fn open_delimiters(text: &str) -> (Vec<char>, Option<char>) {
    let (mut open, mut quote, mut escaped) = (Vec::new(), None, false);
    for c in text.chars() {
        if quote.is_none() && is_closer(c) && open.last() == Some(&opening_bracket(c)) {
            open.pop();
        }
        track_delimiters(c, &mut open, &mut quote, &mut escaped);
    }
    (open, quote)
}

/// Records the brackets that a character opens, and where strings begin and end.
fn track_delimiters(c: char, open: &mut Vec<char>, quote: &mut Option<char>, escaped: &mut bool) {
    match *quote {
        Some(_) if *escaped => *escaped = false,
        Some(_) if c == '\\' => *escaped = true,
        Some(it) if c == it || (c == '\n' && it != '`') => *quote = None,
        Some(_) => {}
        None if is_quote(c) => *quote = Some(c),
        None if matches!(c, '(' | '[' | '{') => open.push(c),
        None => {}
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

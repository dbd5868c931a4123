//! Decides whether to suggest at a position at all, and how much.

use taper_grammars::BlockStyle;

use super::cursor::{CursorContext, indentation_width, opening_bracket};
use super::enclosing_literal::LexicalContext;
use super::{ExtentSetting, Snapshot, Trigger};
use crate::syntax::scope;
use crate::text::lines::is_word_char;

/// How much to suggest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// The rest of the line. It grows to a block if the line opens one.
    Line,
    /// Lines up to the end of the block.
    Block,
}

/// A longer line is data or minified code rather than handwritten.
const MAX_LINE_BYTES: usize = 1500;

/// Decides the extent of the suggestion.
///
/// # Errors
/// The reason to suggest nothing, as a short sentence.
pub fn decide_extent(snapshot: &Snapshot, place: &CursorContext<'_>) -> Result<Extent, &'static str> {
    if place.line_before.len() + place.line_after.len() > MAX_LINE_BYTES {
        return Err("the line is too long to be written by hand");
    }
    let next = place.line_after.chars().next();
    let last = place.line_before.chars().next_back();
    if next.is_some_and(is_word_char) && last.is_some_and(is_word_char) {
        return Err("the cursor is inside a word");
    }
    if is_in_number(place) {
        return Err("the cursor is inside a number");
    }
    let automatic = snapshot.trigger == Trigger::Automatic;
    if automatic && next.is_some_and(is_word_char) {
        return Err("a word begins after the cursor");
    }
    if automatic
        && last.is_some_and(is_word_char)
        && place.without_comment(place.line_after).contains(is_word_char)
    {
        return Err("a word is being typed in the middle of a line");
    }
    if place.before.trim().is_empty() && place.after.trim().is_empty() && snapshot.path.is_empty() {
        return Err("the file is empty and has no name");
    }
    let plan = match snapshot.options.extent {
        ExtentSetting::Line => Extent::Line,
        ExtentSetting::Block => Extent::Block,
        ExtentSetting::Auto => automatic_extent(snapshot, place),
    };
    if automatic && plan == Extent::Line && is_statement_complete(place) {
        return Err("the statement is complete");
    }
    Ok(plan)
}

/// Whether digits are on both sides of the cursor, separated at most by a decimal point.
fn is_in_number(place: &CursorContext<'_>) -> bool {
    let (before, after) = (place.line_before, place.line_after);
    let digit = |c: char| c.is_ascii_digit();
    let number = |text: &str| {
        let word = &text[text.trim_end_matches(is_word_char).len()..];
        word.starts_with(digit) && word.ends_with(digit)
    };
    let pointed = before.strip_suffix('.').is_some_and(number) && after.starts_with(digit);
    pointed || number(before) && after.strip_prefix('.').is_some_and(|it| it.starts_with(digit))
}

/// Whether the cursor is at the end of a line that is very unlikely to continue.
///
/// Not after a closing bracket or a quote, though the statement may be complete there: such a line often continues.
/// There the model decides whether the line ends.
pub(super) fn is_statement_complete(place: &CursorContext<'_>) -> bool {
    if !place.line_after.trim().is_empty() {
        return false;
    }
    match place.block_style() {
        BlockStyle::Braces => {
            // Not in the head of a `for` loop.
            place.line_before.trim_end().ends_with(';')
                && place.bracket_balance(place.line_before).open.is_empty()
        }
        BlockStyle::Indentation => matches!(place.line_before.trim_start(), "pass" | "break" | "continue"),
        BlockStyle::Keywords | BlockStyle::Tags | BlockStyle::None => false,
    }
}

/// A block if one was opened and is still empty, otherwise a line.
fn automatic_extent(snapshot: &Snapshot, place: &CursorContext<'_>) -> Extent {
    if place.literal.lexical_context() != LexicalContext::Code {
        return Extent::Line;
    }
    let rest = |c: char| c.is_whitespace() || matches!(c, ')' | ']' | '}' | ';' | ',');
    if !place.line_after.chars().all(rest) {
        return Extent::Line;
    }
    let empty = match snapshot.language {
        Some(language) => {
            scope::Scope::new(&snapshot.text, language, snapshot.syntax.as_ref(), snapshot.cursor)
                .is_in_empty_block()
        }
        // In an unknown language, a bracket at the end of a line still opens a block.
        None => {
            let opener = if place.is_in_indentation() { place.line_above() } else { Some(place.line_before) };
            opener.is_some_and(|line| place.opens_block(line) && !place.has_body_below(line))
        }
    };
    if empty || is_in_empty_brackets(place) { Extent::Block } else { Extent::Line }
}

/// Whether the cursor is alone between the lines of an opening and a closing bracket: a list of parameters, of a
/// type's members, of items, which a grammar does not treat as a block.
fn is_in_empty_brackets(place: &CursorContext<'_>) -> bool {
    let (Some(above), Some(below)) = (place.line_above(), place.line_below()) else { return false };
    let open = place.without_comment(above).trim_end().chars().next_back();
    let closes = |c: char| matches!(c, ')' | ']' | '}') && open == Some(opening_bracket(c));
    place.is_in_indentation()
        && place.line_after.trim().is_empty()
        && below.trim_start().starts_with(closes)
        && indentation_width(above) == indentation_width(below)
        && indentation_width(place.line_before) >= indentation_width(above)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent_at(path: &str, marked: &str) -> Result<Extent, &'static str> {
        let (before, after) = marked.split_once('▮').unwrap_or((marked, ""));
        let snapshot = crate::completion::fixture::snapshot(path, marked);
        decide_extent(&snapshot, &CursorContext::new(before, after, snapshot.language))
    }

    #[test]
    fn empty_block_gets_block_extent() {
        assert_eq!(extent_at("x.py", "def f(x):▮\n"), Ok(Extent::Block));
        assert_eq!(extent_at("x.py", "def f(x):\n    ▮\n\ndef g():\n    pass\n"), Ok(Extent::Block));
        assert_eq!(extent_at("x.py", "def f(x):\n    ▮\n    return x\n"), Ok(Extent::Line));
        assert_eq!(extent_at("x.rs", "fn f() {▮}\n"), Ok(Extent::Block));
        assert_eq!(extent_at("x.rs", "fn f() {\n    ▮\n}\n"), Ok(Extent::Block));
        assert_eq!(extent_at("x.rs", "fn f() {\n    let x = ▮\n}\n"), Ok(Extent::Line));
        assert_eq!(extent_at("x.js", "call(▮)"), Ok(Extent::Line));
        assert_eq!(extent_at("x.rs", "let x = S {▮}"), Ok(Extent::Line), "a value, not a block");
        assert_eq!(extent_at("x.ts", "function f({\n  ▮\n}: {\n  a: number;\n}) {}\n"), Ok(Extent::Block));
        assert_eq!(extent_at("x.ts", "function f(a: {\n  ▮\n}) {}\n"), Ok(Extent::Block));
        assert_eq!(extent_at("x.py", "x = f(\n    ▮\n)\n"), Ok(Extent::Block));
        assert_eq!(extent_at("x.py", "x = f(\n    ▮\n    b,\n)\n"), Ok(Extent::Line));
        assert_eq!(extent_at("unknown", "begin {\n  ▮\n}\n"), Ok(Extent::Block));
    }

    #[test]
    fn no_suggestion_where_none_can_fit() {
        assert!(extent_at("x.py", "fo▮o = 1\n").is_err());
        assert!(extent_at("x.py", "x = ▮foo\n").is_err());
        assert!(extent_at("x.js", &format!("{}▮", "a=1;".repeat(1000))).is_err());
        assert!(extent_at("", "▮").is_err());
        assert!(extent_at("x.py", "▮").is_ok());
    }

    fn extent_for_trigger(path: &str, marked: &str, trigger: Trigger) -> Result<Extent, &'static str> {
        let (before, after) = marked.split_once('▮').unwrap_or((marked, ""));
        let snapshot = Snapshot { trigger, ..crate::completion::fixture::snapshot(path, marked) };
        decide_extent(&snapshot, &CursorContext::new(before, after, snapshot.language))
    }

    #[test]
    fn automatic_trigger_is_silent_after_complete_statement() {
        let silent = [
            ("x.py", "foo(ba▮, other)\n"),
            ("x.py", "    pass▮\n"),
            ("x.py", "    continue▮"),
            ("x.rs", "    foo();▮\n}\n"),
            ("x.ts", "const x = 1; ▮\r\n"),
        ];
        for (path, marked) in silent {
            assert!(extent_for_trigger(path, marked, Trigger::Automatic).is_err(), "{marked}");
            assert!(
                extent_for_trigger(path, marked, Trigger::Invoked).is_ok(),
                "{marked}: an explicit request"
            );
        }
        let open = [
            ("x.py", "foo(ba▮) # of all\n"),
            ("x.py", "foo(▮, other)\n"),
            ("x.py", "x.pass▮\n"),
            ("x.py", "x = f(1)▮\n"),
            ("x.js", "for (let i = 0;▮\n"),
            ("x.js", "for (let i = 0; ▮) {}\n"),
            ("x.rb", "x = 1;▮\n"),
        ];
        for (path, marked) in open {
            assert!(extent_for_trigger(path, marked, Trigger::Automatic).is_ok(), "{marked}");
        }
    }
}

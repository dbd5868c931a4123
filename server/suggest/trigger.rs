//! Whether to suggest at a place at all, and how much.
//! It knows nothing of the model or its answer.

use taper_grammars::Blocks;

use super::enclosure::Inside;
use super::place::{Place, indentation, opener};
use super::{Extent, Snapshot, Trigger};
use crate::syntax::scope;
use crate::text::lines::is_word;

/// How much to suggest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// The rest of the line; it grows to a block where the line opens one.
    Line,
    /// Lines up to the end of the block.
    Block,
}

/// Bytes of a line from which on it is data or minified code rather than something a person writes.
const LONGEST_LINE: usize = 1500;

/// Decides, or says why there is nothing to suggest.
///
/// # Errors
/// The reason for silence, as a short sentence.
pub fn plan(snapshot: &Snapshot, place: &Place<'_>) -> Result<Plan, &'static str> {
    if place.line_before.len() + place.line_after.len() > LONGEST_LINE {
        return Err("the line is too long to be written by hand");
    }
    let next = place.line_after.chars().next();
    let last = place.line_before.chars().next_back();
    if next.is_some_and(is_word) && last.is_some_and(is_word) {
        return Err("the cursor stands inside a word");
    }
    if is_in_number(place) {
        return Err("the cursor stands inside a number");
    }
    let unasked = snapshot.trigger == Trigger::Automatic;
    if unasked && next.is_some_and(is_word) {
        return Err("a word begins behind the cursor");
    }
    if unasked && last.is_some_and(is_word) && place.without_comment(place.line_after).contains(is_word) {
        return Err("a word is being typed in the middle of a line");
    }
    if place.before.trim().is_empty() && place.after.trim().is_empty() && snapshot.path.is_empty() {
        return Err("there is nothing to go by");
    }
    let plan = match snapshot.options.extent {
        Extent::Line => Plan::Line,
        Extent::Block => Plan::Block,
        Extent::Auto => auto(snapshot, place),
    };
    if unasked && plan == Plan::Line && is_statement_complete(place) {
        return Err("the statement is complete");
    }
    Ok(plan)
}

/// Whether digits stand on both sides of the cursor, with no more than a number's own sign between them.
fn is_in_number(place: &Place<'_>) -> bool {
    let (before, after) = (place.line_before, place.line_after);
    let digit = |c: char| c.is_ascii_digit();
    let number = |text: &str| {
        let word = &text[text.trim_end_matches(is_word).len()..];
        word.starts_with(digit) && word.ends_with(digit)
    };
    let pointed = before.strip_suffix('.').is_some_and(number) && after.starts_with(digit);
    pointed || number(before) && after.strip_prefix('.').is_some_and(|it| it.starts_with(digit))
}

/// Whether the cursor stands at the end of a line that can hardly go on.
///
/// Not behind a closing bracket or a quote, though a statement may be complete there: of 5,395 places behind a `)` in
/// Python code where the line so far parses alone, 994 were followed by more of it. There the model may say that the
/// line ends.
pub(super) fn is_statement_complete(place: &Place<'_>) -> bool {
    if !place.line_after.trim().is_empty() {
        return false;
    }
    match place.blocks() {
        Blocks::Braces => {
            // Not in the head of a `for` loop.
            place.line_before.trim_end().ends_with(';') && place.brackets(place.line_before).open.is_empty()
        }
        Blocks::Indentation => matches!(place.line_before.trim_start(), "pass" | "break" | "continue"),
        Blocks::Keywords | Blocks::Tags | Blocks::None => false,
    }
}

/// A block where one was opened and is still empty, else a line.
fn auto(snapshot: &Snapshot, place: &Place<'_>) -> Plan {
    if place.literal.inside() != Inside::Code {
        return Plan::Line;
    }
    let rest = |c: char| c.is_whitespace() || matches!(c, ')' | ']' | '}' | ';' | ',');
    if !place.line_after.chars().all(rest) {
        return Plan::Line;
    }
    let empty = match snapshot.language {
        Some(language) => {
            scope::Scope::new(&snapshot.text, language, snapshot.syntax.as_ref(), snapshot.cursor)
                .in_empty_block()
        }
        // Of a language that nobody knows, brackets at the end of a line are still to be seen.
        None => {
            let opener =
                if place.on_blank_line_start() { place.line_above() } else { Some(place.line_before) };
            opener.is_some_and(|line| place.opens_block(line) && !place.has_body_below(line))
        }
    };
    if empty || in_empty_brackets(place) { Plan::Block } else { Plan::Line }
}

/// Whether the cursor stands alone between the lines of a bracket and of what closes it: a list of parameters, of a
/// type's members, of items, which is no block to a grammar.
fn in_empty_brackets(place: &Place<'_>) -> bool {
    let (Some(above), Some(below)) = (place.line_above(), place.line_below()) else { return false };
    let open = place.without_comment(above).trim_end().chars().next_back();
    let closes = |c: char| matches!(c, ')' | ']' | '}') && open == Some(opener(c));
    place.on_blank_line_start()
        && place.line_after.trim().is_empty()
        && below.trim_start().starts_with(closes)
        && indentation(above) == indentation(below)
        && indentation(place.line_before) >= indentation(above)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(path: &str, marked: &str) -> Result<Plan, &'static str> {
        let (before, after) = marked.split_once('▮').unwrap_or((marked, ""));
        let snapshot = crate::suggest::fixture::snapshot(path, marked);
        plan(&snapshot, &Place::new(before, after, snapshot.language))
    }

    #[test]
    fn a_block_where_an_empty_one_was_opened() {
        assert_eq!(planned("x.py", "def f(x):▮\n"), Ok(Plan::Block));
        assert_eq!(planned("x.py", "def f(x):\n    ▮\n\ndef g():\n    pass\n"), Ok(Plan::Block));
        assert_eq!(planned("x.py", "def f(x):\n    ▮\n    return x\n"), Ok(Plan::Line));
        assert_eq!(planned("x.rs", "fn f() {▮}\n"), Ok(Plan::Block));
        assert_eq!(planned("x.rs", "fn f() {\n    ▮\n}\n"), Ok(Plan::Block));
        assert_eq!(planned("x.rs", "fn f() {\n    let x = ▮\n}\n"), Ok(Plan::Line));
        assert_eq!(planned("x.js", "call(▮)"), Ok(Plan::Line));
        assert_eq!(planned("x.rs", "let x = S {▮}"), Ok(Plan::Line), "a value, not a block");
        assert_eq!(planned("x.ts", "function f({\n  ▮\n}: {\n  a: number;\n}) {}\n"), Ok(Plan::Block));
        assert_eq!(planned("x.ts", "function f(a: {\n  ▮\n}) {}\n"), Ok(Plan::Block));
        assert_eq!(planned("x.py", "x = f(\n    ▮\n)\n"), Ok(Plan::Block));
        assert_eq!(planned("x.py", "x = f(\n    ▮\n    b,\n)\n"), Ok(Plan::Line));
        assert_eq!(planned("unknown", "begin {\n  ▮\n}\n"), Ok(Plan::Block));
    }

    #[test]
    fn silent_where_a_suggestion_cannot_fit() {
        assert!(planned("x.py", "fo▮o = 1\n").is_err());
        assert!(planned("x.py", "x = ▮foo\n").is_err());
        assert!(planned("x.js", &format!("{}▮", "a=1;".repeat(1000))).is_err());
        assert!(planned("", "▮").is_err());
        assert!(planned("x.py", "▮").is_ok());
    }

    fn asked(path: &str, marked: &str, trigger: Trigger) -> Result<Plan, &'static str> {
        let (before, after) = marked.split_once('▮').unwrap_or((marked, ""));
        let snapshot = Snapshot { trigger, ..crate::suggest::fixture::snapshot(path, marked) };
        plan(&snapshot, &Place::new(before, after, snapshot.language))
    }

    #[test]
    fn unasked_silent_where_hardly_anything_can_be_right() {
        let silent = [
            ("x.py", "foo(ba▮, other)\n"),
            ("x.py", "    pass▮\n"),
            ("x.py", "    continue▮"),
            ("x.rs", "    foo();▮\n}\n"),
            ("x.ts", "const x = 1; ▮\r\n"),
        ];
        for (path, marked) in silent {
            assert!(asked(path, marked, Trigger::Automatic).is_err(), "{marked}");
            assert!(asked(path, marked, Trigger::Invoked).is_ok(), "{marked}: a person asked");
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
            assert!(asked(path, marked, Trigger::Automatic).is_ok(), "{marked}");
        }
    }
}

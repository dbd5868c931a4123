//! Whether to suggest at a place at all, and how much.
//! It knows nothing of the model or its answer.

use super::place::{Place, indentation, is_word};
use super::{Extent, Snapshot, Trigger};
use crate::syntax::scope;

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
    if snapshot.trigger == Trigger::Automatic && next.is_some_and(is_word) {
        return Err("a word begins behind the cursor");
    }
    if place.before.trim().is_empty() && place.after.trim().is_empty() && snapshot.path.is_empty() {
        return Err("there is nothing to go by");
    }
    Ok(match snapshot.options.extent {
        Extent::Line => Plan::Line,
        Extent::Block => Plan::Block,
        Extent::Auto => auto(snapshot, place),
    })
}

/// A block where one was opened and is still empty, else a line.
fn auto(snapshot: &Snapshot, place: &Place<'_>) -> Plan {
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
            opener.is_some_and(|line| place.opens_block(line) && !has_body(place, line))
        }
    };
    if empty { Plan::Block } else { Plan::Line }
}

/// Whether the block that `opener` opens has lines below the cursor already.
fn has_body(place: &Place<'_>, opener: &str) -> bool {
    place.line_below().is_some_and(|below| indentation(below) > indentation(opener))
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
}

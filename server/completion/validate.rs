//! The last checks before a suggestion is shown: the file must not parse worse with it than without.

use taper_grammars::BlockStyle;

use super::Snapshot;
use super::cursor::CursorContext;
use crate::syntax::scope;
use crate::text::{Edit, lines};

/// `text` with the line breaks of the file.
pub(super) fn with_file_line_breaks(snapshot: &Snapshot, text: &str) -> String {
    match lines::dominant_line_break(&snapshot.text) {
        "\n" => text.to_owned(),
        other => text.replace('\n', other),
    }
}

/// Whether the last of several lines opens a bracket that is empty: its content was cut away. In a file that parses,
/// the parser would detect that; in a broken file nothing shows to which opener the closers after the cursor belong.
pub(super) fn ends_with_open_bracket(place: &CursorContext<'_>, text: &str) -> bool {
    let Some((_, last)) = text.trim_end().rsplit_once('\n') else { return false };
    let opens = place.without_comment(last).trim_end().ends_with(['(', '[', '{']);
    opens && place.line_after.trim().is_empty() && !place.has_body_below(last)
}

/// Whether the document, or the parsed region of a long one, has no more faults with `text` at the cursor than
/// without.
///
/// A line that opens a block is checked with a body, because it can never parse alone and the user continues with the
/// body. Deeper lines below count as its body.
pub(super) fn parses_no_worse(snapshot: &Snapshot, place: &CursorContext<'_>, text: &str) -> bool {
    let Some(syntax) = snapshot.syntax.as_ref().filter(|it| !it.is_stale()) else { return true };
    let text = &with_file_line_breaks(snapshot, text);
    let before = scope::fault_count(&syntax.tree);
    let faults_with = |text: &str| {
        let edit = Edit::insert(snapshot.cursor, text);
        let mut after = snapshot.text.clone();
        edit.apply(&mut after).ok()?;
        let parsed = syntax.with_edit(&edit, &after, &mut || false)?;
        Some(scope::fault_count(&parsed.tree))
    };
    if faults_with(text).is_some_and(|after| after <= before) {
        return true;
    }
    let last = text.rsplit('\n').next().unwrap_or(text);
    let first_line = !text.contains('\n');
    let line = if first_line { format!("{}{last}", place.line_before) } else { last.to_owned() };
    if place.block_style() == BlockStyle::Indentation
        && place.line_after.trim().is_empty()
        && place.opens_block(&line)
        && !place.has_body_below(&line)
    {
        let indent: String = line.chars().take_while(|c| matches!(c, ' ' | '\t')).collect();
        let body = format!("{text}\n{indent}    pass");
        return faults_with(&body).is_some_and(|after| after <= before);
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::completion::pipeline::fit_to_document;

    fn fit_text(path: &str, marked: &str, text: &str) -> Option<String> {
        let (before, after) = marked.split_once('▮').unwrap_or((marked, ""));
        let snapshot = crate::completion::fixture::snapshot(path, marked);
        assert!(snapshot.syntax.is_some());
        fit_to_document(
            &snapshot,
            &CursorContext::new(before, after, snapshot.language),
            text,
            &mut |_, _| {},
        )
        .map(|it| it.text)
    }

    #[test]
    fn suggestion_that_parses_is_shown() {
        assert_eq!(fit_text("x.py", "x = ▮\ny = 2\n", "foo(1)").as_deref(), Some("foo(1)"));
        assert_eq!(fit_text("x.rs", "fn f() {\n    ▮\n}\n", "g(1);").as_deref(), Some("g(1);"));
        assert_eq!(fit_text("x.py", "▮\n", "def f(x):").as_deref(), Some("def f(x):"), "judged with a body");
        assert_eq!(fit_text("x.py", "if x▮\n", " > 1:").as_deref(), Some(" > 1:"));
    }

    #[test]
    fn suggestion_that_breaks_the_parse_is_cut() {
        assert_eq!(fit_text("x.py", "x = 1▮\ny = 2\n", " + (2"), None);
        assert_eq!(fit_text("x.rs", "fn f() {\n    ▮\n}\n", "g(1);\n    if x {").as_deref(), Some("g(1);"));
        assert_eq!(fit_text("x.js", "f(1)▮;\n", "} else {"), None);
    }

    #[test]
    fn broken_file_may_stay_broken() {
        assert_eq!(fit_text("x.py", "def f(:\nx = ▮\n", "1").as_deref(), Some("1"));
    }

    #[test]
    fn dangling_opener_is_dropped_in_broken_file() {
        let broken = "def f(x):\n    return g(\n        a.▮\n        x,\n    )\n)\n";
        let it = fit_text("x.py", broken, "call(\n        x,\n        b.call(");
        assert_eq!(it.as_deref(), Some("call(\n        x,"));
        // The lines below are its body.
        let body = "def f(x):\n    return g(\n        a.▮\n            x,\n        ))\n    )\n";
        let it = fit_text("x.py", body, "call(\n        b.call(");
        assert_eq!(it.as_deref(), Some("call(\n        b.call("));
        assert_eq!(fit_text("x.js", "f(▮\n", "{").as_deref(), Some("{"), "the request is for one line");
    }

    #[test]
    fn suggestion_uses_line_breaks_of_file() {
        assert_eq!(fit_text("x.py", "a = 1\r\n▮\r\n", "b = 2\nc = 3").as_deref(), Some("b = 2\r\nc = 3"));
    }
}

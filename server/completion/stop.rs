//! Rules that end the output while it is decoded, so that no token is decoded in vain.

mod definition;
pub(super) mod repetition;

use taper_engine::PartialOutput;

use super::confidence_filter::ConfidenceFilter;
use super::cursor::{CursorContext, indentation_width, opening_bracket};
use super::trigger::Extent;
use crate::text::lines::is_word_char;
use definition::DefinitionTracker;
use repetition::LineHistory;

/// The end of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StopPoint {
    /// Bytes of the output to keep.
    pub(super) keep: usize,
    /// The rule, for `--explain` and logs.
    pub(super) rule: &'static str,
}

/// The output so far, and what the rules need to know to end it.
#[derive(Debug, Clone, Copy)]
pub(super) struct StopInput<'a> {
    pub(super) place: &'a CursorContext<'a>,
    pub(super) extent: Extent,
    pub(super) max_lines: usize,
    /// The required confidence; `None`: no requirement.
    pub(super) confidence_filter: Option<ConfidenceFilter>,
    pub(super) output: PartialOutput<'a>,
    /// No more will come, so the last line counts as whole.
    pub(super) finished: bool,
}

/// The end of the line, of the text or of the block that is to be suggested.
pub(super) fn find_extent_end(input: &StopInput<'_>) -> Option<StopPoint> {
    let StopInput { place, max_lines, .. } = *input;
    if input.extent == Extent::Block {
        return find_block_end(input);
    }
    let text = input.output.text;
    let end = text.find(['\n', '\r'])?;
    let first = &text[..end];
    if first.trim().is_empty() && place.literal.expects_lines() && max_lines > 1 {
        return find_prose_end(max_lines, text, input.finished);
    }
    if first.trim().is_empty() {
        return Some(StopPoint { keep: 0, rule: "the line is complete" });
    }
    let line = format!("{}{first}", place.line_before);
    if max_lines == 1 || !place.line_after.trim().is_empty() || !opens_block_or_bracket(place, &line) {
        return Some(StopPoint { keep: end, rule: "end of the line" });
    }
    find_block_end(input)
}

fn opens_block_or_bracket(place: &CursorContext<'_>, line: &str) -> bool {
    place.opens_block(line) || !place.bracket_balance(line).open.is_empty()
}

/// The end of a text that is not code: by its paragraphs, by repetition, by length.
fn find_prose_end(max_lines: usize, text: &str, finished: bool) -> Option<StopPoint> {
    let (mut start, mut blanks) = (0, 0);
    let mut seen: Vec<&str> = Vec::new();
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let complete = line.ends_with('\n') || finished;
        // The first is the rest of the cursor's line.
        if number > max_lines {
            return Some(StopPoint { keep: start, rule: "the maximum number of lines" });
        }
        let body = line.trim();
        blanks = if body.is_empty() { blanks + usize::from(complete) } else { 0 };
        if blanks > 1 && number > 1 && complete {
            return Some(StopPoint { keep: start, rule: "two blank lines" });
        }
        if complete && !body.is_empty() && seen.iter().filter(|it| **it == body).count() > 1 && body.len() > 3
        {
            return Some(StopPoint { keep: start, rule: "the same line repeats" });
        }
        seen.push(body);
        start += line.len();
    }
    None
}

/// Bytes of the output before a bracket that it did not open and that is already closed after the cursor.
pub(super) fn len_before_suffix_closer(place: &CursorContext<'_>, text: &str) -> Option<usize> {
    let next = place.next_visible_char().filter(|c| matches!(c, ')' | ']' | '}'))?;
    let at = *place.bracket_balance(text).unopened.first()?;
    let closer = text[at..].chars().next()?;
    (closer == next && is_closed_after(place, closer)).then_some(at)
}

/// Whether the next closer after the cursor, which is a `closer`, closes the innermost bracket before it.
fn is_closed_after(place: &CursorContext<'_>, closer: char) -> bool {
    let fits = |open: &&(usize, char)| open.1 == opening_bracket(closer);
    let rest = place.bracket_balance(place.line_after);
    let there = rest.unopened.iter().filter(|&&at| place.line_after[at..].starts_with(closer)).count();
    if there > 0 {
        // On the cursor's line they can be counted: `f(g(▮)` needs one more.
        let needed = place.bracket_balance(place.line_before).open.iter().filter(fits).count();
        return there >= needed;
    }
    // On a later line it belongs to the line with the same indentation.
    let Some(&(open, _)) = place.bracket_balance(place.before).open.iter().rfind(fits) else { return true };
    let start = place.before[..open].rfind('\n').map_or(0, |at| at + 1);
    let later = place.after[place.line_after.len()..].lines().find(|line| !line.trim().is_empty());
    later.is_none_or(|later| indentation_width(later) == indentation_width(&place.before[start..]))
}

/// The end of a block: by indentation, by the suffix, by a second definition, by repetition, by length.
fn find_block_end(input: &StopInput<'_>) -> Option<StopPoint> {
    let StopInput { place, output: PartialOutput { text, .. }, finished, .. } = *input;
    let block = BlockExtent::new(place, input.extent, text);
    let below = place.line_below().map(str::trim_end).filter(|_| place.line_after.trim().is_empty());
    let first = format!("{}{}", place.line_before, text.lines().next().unwrap_or("").trim_end());
    let mut start = 0;
    let mut seen: Vec<&str> = Vec::new();
    let mut alike = LineHistory::default();
    let mut definitions = DefinitionTracker::default();
    let mut blanks = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let complete = line.ends_with('\n') || finished;
        let body = line.trim_end();
        let cut = |rule| Some(StopPoint { keep: start, rule });
        if number >= input.max_lines {
            return cut("the maximum number of lines");
        }
        if body.is_empty() {
            blanks += 1;
            if blanks > 1 && complete {
                return cut("two blank lines");
            }
            start += line.len();
            continue;
        }
        blanks = 0;
        // The first line continues the cursor's line; only the others have their own indentation.
        if number > 0 {
            match block.judge_line(place, &text[..start], body, complete) {
                LineVerdict::Inside => {}
                LineVerdict::Undecided => return None,
                LineVerdict::Outside => return cut("the next line is outside the block"),
                LineVerdict::Closes => {
                    return Some(StopPoint { keep: start + body.len(), rule: "the block is closed" });
                }
            }
        }
        let whole = if number == 0 { &first } else { body };
        if let Some(keep) = definitions.find_second(place, whole, start, complete) {
            return Some(StopPoint { keep, rule: "a second definition begins" });
        }
        if complete && below.is_some_and(|below| repeats_below(below, whole, number == 0)) {
            return cut("the next line is already below the cursor");
        }
        if complete && seen.iter().rev().take(2).filter(|it| **it == body).count() == 2 {
            return cut("the same line repeats");
        }
        seen.push(body);
        start += line.len();
        if complete && let Some(end) = alike.push(place, whole, start) {
            return Some(end);
        }
    }
    None
}

/// Letters and digits of a line that is hardly ever written twice.
const MIN_DISTINCTIVE_CHARS: usize = 8;
/// Statements that often end a body and that the code after it repeats.
const FINAL_STATEMENTS: &[&str] = &["return", "break", "continue", "raise", "throw", "pass", "yield", "goto"];

/// Whether a line of the output equals the line below the cursor, perhaps at another depth: a model that opens its
/// own block often continues in it with the code that follows.
fn repeats_below(below: &str, line: &str, first: bool) -> bool {
    if below == line {
        return !first || line.trim().len() > 3;
    }
    let line = line.trim();
    let word = line.split(|c: char| !is_word_char(c)).next().unwrap_or("");
    without_whitespace(below).eq(without_whitespace(line))
        && line.chars().filter(|c| is_word_char(*c)).count() >= MIN_DISTINCTIVE_CHARS
        && !FINAL_STATEMENTS.contains(&word)
}

/// A line without its blanks.
pub(super) fn without_whitespace(line: &str) -> impl Iterator<Item = char> {
    line.chars().filter(|c| !c.is_whitespace())
}

/// Decides which lines of the output belong to its block.
struct BlockExtent {
    /// Indentation of the line that the block depends on.
    base: usize,
    /// Whether that line opens the block, so that the block's lines are deeper; otherwise they have the same depth.
    opened: bool,
    /// Whether the opener is part of the output or of the cursor's line, so that its closer is, too.
    own: bool,
}

enum LineVerdict {
    Inside,
    /// The last line of the block.
    Closes,
    Outside,
    /// More of the line is needed.
    Undecided,
}

impl BlockExtent {
    fn new(place: &CursorContext<'_>, extent: Extent, text: &str) -> Self {
        if extent == Extent::Block
            && place.is_in_indentation()
            && let Some(above) = place.line_above()
            && place.opens_block(above)
            && indentation_width(place.line_before) >= indentation_width(above)
        {
            return Self { base: indentation_width(above), opened: true, own: false };
        }
        let first = format!("{}{}", place.line_before, text.lines().next().unwrap_or(""));
        let base = indentation_width(if place.is_in_indentation() { &first } else { place.line_before });
        // The output's first line may close what the cursor's line opened: `fn f() {▮ 1 }`.
        let opened = opens_block_or_bracket(place, &first)
            || (extent == Extent::Block && opens_block_or_bracket(place, place.line_before));
        Self { base, opened, own: true }
    }

    fn judge_line(&self, place: &CursorContext<'_>, so_far: &str, line: &str, complete: bool) -> LineVerdict {
        let here = indentation_width(line);
        if here > self.base {
            return LineVerdict::Inside;
        }
        if here < self.base {
            return LineVerdict::Outside;
        }
        let word = line.trim();
        if !complete && may_become_closer(word) {
            return LineVerdict::Undecided;
        }
        let text = if self.own { format!("{}{so_far}", place.line_before) } else { so_far.to_owned() };
        let open = !place.bracket_balance(&text).open.is_empty();
        if is_closer(word) {
            if !(self.own && open) && is_closer_below(place, line) {
                return LineVerdict::Outside;
            }
            let after = place.bracket_balance(&format!("{text}{line}"));
            // `} else {` closes one block and opens the next.
            if !after.open.is_empty() {
                return LineVerdict::Inside;
            }
            return if is_stray_closer(place, line) { LineVerdict::Outside } else { LineVerdict::Closes };
        }
        let continues = word
            .split(|c: char| !c.is_alphanumeric())
            .next()
            .is_some_and(|it| CONTINUATION_WORDS.contains(&it));
        if open || !self.opened || (self.own && continues) {
            LineVerdict::Inside
        } else {
            LineVerdict::Outside
        }
    }
}

/// Words that continue the statement whose block just ended.
const CONTINUATION_WORDS: &[&str] =
    &["else", "elif", "elsif", "elseif", "except", "finally", "catch", "rescue", "ensure", "when"];

/// Words that close a block where brackets do not.
const CLOSING_WORDS: &[&str] = &["end", "end;", "end)", "end,", "fi", "done", "esac"];

fn is_closer(line: &str) -> bool {
    line.starts_with(['}', ')', ']']) || line.starts_with("</") || CLOSING_WORDS.contains(&line)
}

/// Whether an incomplete line may become a closer, or may open another block after one.
fn may_become_closer(start: &str) -> bool {
    start.starts_with(['}', ')', ']', '<'])
        || CLOSING_WORDS
            .iter()
            .chain(CONTINUATION_WORDS)
            .any(|word| word.starts_with(start) || start.starts_with(word))
}

/// Whether `line`, which closes a block of the output, already exists below the cursor and closes nothing there: the
/// user deleted its opener, or is rewriting it.
fn is_stray_closer(place: &CursorContext<'_>, line: &str) -> bool {
    let same = place.line_below().is_some_and(|below| below.trim() == line.trim());
    let closer = line.trim().chars().next().filter(|c| matches!(c, ')' | ']' | '}'));
    same && is_closer_below(place, line) && closer.is_some_and(|closer| !is_closed_after(place, closer))
}

fn is_closer_below(place: &CursorContext<'_>, line: &str) -> bool {
    let Some(below) = place.line_below() else { return false };
    indentation_width(below) == indentation_width(line)
        && is_closer(below.trim())
        && below.trim().chars().next() == line.trim().chars().next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::completion::pipeline::find_stop;

    /// The output as it is cut, fed one character at a time, like a stream.
    fn cut_answer(path: &str, marked: &str, extent: Extent, answer: &str) -> (String, &'static str) {
        let (before, after) = marked.split_once('▮').unwrap_or((marked, ""));
        let place = CursorContext::new(before, after, taper_grammars::by_path(path.as_ref()));
        let find = |text, finished| {
            let output = PartialOutput { text, tokens: &[] };
            let place = &place;
            find_stop(&StopInput { place, extent, max_lines: 12, confidence_filter: None, output, finished })
        };
        for (at, c) in answer.char_indices() {
            let text = &answer[..at + c.len_utf8()];
            if let Some(end) = find(text, false) {
                return (text[..end.keep].to_owned(), end.rule);
            }
        }
        match find(answer, true) {
            Some(end) => (answer[..end.keep].to_owned(), end.rule),
            None => (answer.to_owned(), ""),
        }
    }

    #[test]
    fn single_line_output_stops_at_line_break() {
        assert_eq!(cut_answer("x.py", "x = ▮\n", Extent::Line, "foo(1)\ny = 2\n").0, "foo(1)");
        assert_eq!(
            cut_answer("x.py", "x = 1▮\n", Extent::Line, "\ny = 2\n"),
            (String::new(), "the line is complete")
        );
        assert_eq!(
            cut_answer("x.py", "f(▮)\n", Extent::Line, "a, b)\nc"),
            ("a, b".into(), "the closing bracket is already after the cursor")
        );
        assert_eq!(cut_answer("x.py", "f(▮\n", Extent::Line, "a, b)\nc").0, "a, b)");
        assert_eq!(cut_answer("x.py", "f(g(▮)\n", Extent::Line, "a))\nc").0, "a))");
        let inner = "fn new(x: f64) -> Self {\n        Self {▮\n    }\n}\n";
        assert_eq!(
            cut_answer("x.rs", inner, Extent::Line, " x }\n").0,
            " x }",
            "the closer below is the function's"
        );
    }

    #[test]
    fn line_opening_block_continues_to_block_end() {
        let python = "for x in xs:\n    print(x)\n    y += x\nreturn y\n";
        assert_eq!(
            cut_answer("x.py", "▮\n", Extent::Line, python).0,
            "for x in xs:\n    print(x)\n    y += x\n"
        );
        let rust = "if x {\n        y();\n    }\n    z();\n";
        assert_eq!(
            cut_answer("x.rs", "fn f() {\n    ▮\n}\n", Extent::Line, rust).0,
            "if x {\n        y();\n    }"
        );
    }

    #[test]
    fn block_stops_at_its_closer() {
        let it =
            cut_answer("x.rs", "fn f() {▮\n}\n", Extent::Block, "\n    a();\n    b();\n}\n\nfn g() {}\n");
        assert_eq!(it.0.trim_end(), "\n    a();\n    b();");
        let it = cut_answer("x.rs", "fn f() {\n    ▮\n}\n", Extent::Block, "a();\n    b();\n}\n");
        assert_eq!(it.0.trim_end(), "a();\n    b();");
        let it =
            cut_answer("x.py", "def f():▮\n", Extent::Block, "\n    a()\n\n    b()\n\ndef g():\n    pass\n");
        assert_eq!(it.0.trim_end(), "\n    a()\n\n    b()");
        let it = cut_answer(
            "x.py",
            "class A:\n    def f(self):\n        ▮\n",
            Extent::Block,
            "x = 1\n        return x\n\n    def g(self):\n",
        );
        assert_eq!(it.0.trim_end(), "x = 1\n        return x");
        let it = cut_answer("x.rs", "fn f() {▮", Extent::Block, "\n    a();\n}\n\nfn g() {}\n");
        assert_eq!(it.0, "\n    a();\n}", "no closer after the cursor: the output's own is kept");
        let it = cut_answer("x.rb", "def f▮\n", Extent::Block, "\n  1\nend\n\ndef g\n");
        assert_eq!(it.0, "\n  1\nend");
        // The closer below is left over from a block whose head was deleted.
        let left = "class A {\n    f(x) {\n        ▮\n        }\n        g();\n    }\n}\n";
        let answer = "if (x) {\n            y();\n        }\n        z();\n";
        let it = cut_answer("x.ts", left, Extent::Line, answer);
        assert_eq!(
            (it.0.trim_end(), it.1),
            ("if (x) {\n            y();", "the next line is outside the block")
        );
        // There it belongs to a block whose lines are not indented.
        let flat = "namespace a {\n▮\n}\n";
        let it = cut_answer("x.cpp", flat, Extent::Line, "int f() {\n    return 1;\n}\nint g();\n");
        assert_eq!((it.0.as_str(), it.1), ("int f() {\n    return 1;\n}", "the block is closed"));
    }

    #[test]
    fn block_stops_at_suffix_or_repetition() {
        let it = cut_answer(
            "x.py",
            "def f():\n    ▮\n    return total\n",
            Extent::Block,
            "a = 1\n    return total\n    b\n",
        );
        assert_eq!((it.0.trim_end(), it.1), ("a = 1", "the next line is already below the cursor"));
        let marked =
            "def f(n):\n    if n == 0:\n        return [1]\n▮\n    for i in range(2, n):\n        g(i)\n";
        let answer = "    else:\n        a = [1, 3]\n        for i in range(2, n):\n            g(i)\n";
        let it = cut_answer("x.py", marked, Extent::Block, answer);
        let expected = ("    else:\n        a = [1, 3]", "the next line is already below the cursor");
        assert_eq!((it.0.trim_end(), it.1), expected, "at another depth, too");
        let answer = "    if n == 0:\n        return result\n    g(n)\n";
        let it = cut_answer("x.py", "def f(n, result):\n▮\n    return result\n", Extent::Block, answer);
        assert_eq!(it.0, answer, "left early as at the end");
        let it = cut_answer(
            "x.py",
            "def f():\n    ▮\n",
            Extent::Block,
            "a()\n    a()\n    a()\n    a()\n    a()\n",
        );
        assert_eq!(it.1, "the same line repeats");
    }

    #[test]
    fn endless_list_is_cut_to_its_beginning() {
        let counted: String = (1..40).map(|it| format!("{it}, ")).collect();
        let letters: String = ('a'..='z').map(|it| format!("\"{it}\", ")).collect();
        let pairs: String = (1..40).map(|it| format!("({it}, x{it}), ")).collect();
        for (answer, kept) in [
            (counted.as_str(), "1, 2, 3"),
            (&letters, r#""a", "b", "c""#),
            (&pairs, "(1, x1), (2, x2), (3, x3)"),
            (&"0x00, ".repeat(40), "0x00, 0x00, 0x00"),
            (&"0.5 + ".repeat(40), "0.5 + 0.5 + 0.5"),
        ] {
            for marked in ["x = [▮]\n", "x = [▮\n"] {
                assert_eq!(
                    cut_answer("x.py", marked, Extent::Line, answer),
                    (kept.into(), "an endless list"),
                    "{marked}"
                );
            }
        }
        // Finite lists, from real code.
        let identity = "1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 1]";
        for answer in [identity, "\"get\", \"put\", \"post\", \"patch\", \"head\", \"delete\"]", "b - a]"] {
            assert_eq!(cut_answer("x.py", "x = [▮\n", Extent::Line, answer).0, answer);
        }
    }

    #[test]
    fn repeated_phrase_on_one_line_is_cut() {
        for (answer, kept) in [
            ("a and a and a and a and a and a and a and a and a and", "a and a and a"),
            (
                "s.replace(x, y).replace(x, y).replace(x, y).replace(x, y).replace(x, y).",
                "s.replace(x, y).replace(x, y).replace(x, y)",
            ),
            ("very, very, very, very, very, very, very, very, very", "very, very, very"),
        ] {
            let it = cut_answer("x.py", "x = ▮\n", Extent::Line, answer);
            assert_eq!(it, (kept.into(), "the same phrase repeats"));
        }
        for answer in
            ["[[0, 0], [0, 0], [0, 0], [0, 0]]", "int | None, int | None, int | None, int | None", "'='"]
        {
            assert_eq!(cut_answer("x.py", "x = ▮\n", Extent::Line, answer).0, answer);
        }
        assert_eq!(cut_answer("x.py", "# ▮\n", Extent::Line, &"-".repeat(60)).0.len(), 60);
    }

    #[test]
    fn similar_lines_are_cut() {
        let lines = |form: fn(u32) -> String| (1..12).map(form).collect::<String>();
        let alike = "similar lines repeat";
        let it = cut_answer(
            "x.py",
            "def f():\n    ▮\n",
            Extent::Block,
            &lines(|it| format!("x{it} = y[{it}]\n    ")),
        );
        assert_eq!((it.0.trim_end(), it.1), ("x1 = y[1]\n    x2 = y[2]\n    x3 = y[3]", alike));
        let it = cut_answer(
            "x.c",
            "switch (x) {▮\n",
            Extent::Block,
            &lines(|it| format!("\n  case {it}: return \"{it}\";")),
        );
        assert_eq!((it.0.lines().count(), it.1), (4, alike));
        let two = lines(|it| format!("\n  case {it}:\n    return {it};"));
        let it = cut_answer("x.c", "switch (x) {▮\n", Extent::Block, &two);
        assert_eq!((it.0.lines().count(), it.1), (7, alike), "two lines each, after the cursor's");
        let it = cut_answer("x.py", "x = [▮\n]\n", Extent::Block, &lines(|it| format!("\n    {it},")));
        assert_eq!((it.0.as_str(), it.1), ("\n    1,\n    2,\n    3,\n", alike));
        // Names are not numbers, and closers do not count.
        let names =
            "\n    \"get\",\n    \"put\",\n    \"head\",\n    \"post\",\n    \"patch\",\n    \"trace\",\n";
        assert_eq!(cut_answer("x.py", "x = [▮\n]\n", Extent::Block, names).0, names);
        let assigned =
            "self.a = a\n        self.b = b\n        self.c = c\n        self.d = d\n        self.e = e";
        assert_eq!(cut_answer("x.py", "    def f(self):\n        ▮\n", Extent::Block, assigned).0, assigned);
    }

    #[test]
    fn second_definition_stops_the_output() {
        let python = "def f():\n    return 1\n\n@cache\ndef g():\n    return 2\n";
        for (path, marked, extent, answer, kept) in [
            // A body on the line that opens it.
            ("x.rs", "fn f() {▮", Extent::Block, " 1 }\nfn g() { 2 }\n", " 1 }"),
            ("x.py", "def f():▮\n", Extent::Block, " return 1\ndef g():\n    return 2\n", " return 1"),
            // At top level, where the block depends on no line above.
            ("x.py", "x = 1\n▮", Extent::Block, python, "def f():\n    return 1"),
            ("x.py", "▮", Extent::Block, &format!("# One.\n{python}"), "# One.\ndef f():\n    return 1"),
            (
                "x.rs",
                "▮",
                Extent::Block,
                "#[test]\nfn f() {\n    a();\n}\n\n#[test]\nfn g() {\n}\n",
                "#[test]\nfn f() {\n    a();\n}",
            ),
            // In a body of definitions.
            (
                "x.py",
                "class A:\n    ▮\n",
                Extent::Block,
                "x: int\n\n    def f(self):\n        pass\n\n    def g(self):\n",
                "x: int\n\n    def f(self):\n        pass",
            ),
            // Languages without a grammar, and an unknown one.
            (
                "x.zig",
                "▮",
                Extent::Block,
                "// One.\nfn f() void {\n}\n\npub fn g() void {\n}\n",
                "// One.\nfn f() void {\n}",
            ),
            (
                "x",
                "▮",
                Extent::Block,
                "// One.\nint f(int x) {\n}\n\nint g(int x) {\n}\n",
                "// One.\nint f(int x) {\n}",
            ),
            (
                "x.js",
                "▮",
                Extent::Block,
                "// One.\nconst f = (x) => {\n}\n\nconst g = async (x) => {\n}\n",
                "// One.\nconst f = (x) => {\n}",
            ),
        ] {
            let it = cut_answer(path, marked, extent, answer);
            assert_eq!(it.0.trim_end(), kept, "{path} {marked}");
        }
        // Heads without bodies are a list, and a nested definition is part of the outer one.
        for (path, marked, answer) in [
            ("x.rs", "trait A {▮\n", "\n    fn f();\n    fn g();\n}"),
            ("x.py", "def f():▮\n", "\n    def g():\n        pass\n    return g"),
            ("x.py", "▮", "class A:\n    def f(self):\n        pass"),
            ("x.js", "f(() => {▮\n", "\n  if (x) {\n    y()\n  }\n  while (x) {\n  }\n})"),
            (
                "x.js",
                "describe(() => {▮\n",
                "\n  it(\"a\", () => {\n    y()\n  })\n  it(\"b\", () => {\n    y()\n  })\n})",
            ),
        ] {
            assert_eq!(cut_answer(path, marked, Extent::Block, answer).0, answer);
        }
    }
}

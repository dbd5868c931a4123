//! The rules that trim output to the part that is shown: cut at a valid end, without text that already exists around
//! the cursor.

pub(super) mod incomplete;
pub(super) mod whitespace;

use std::borrow::Cow;

use super::cursor::{CursorContext, indentation_width};
use super::enclosing_literal::LexicalContext;
use super::stop::without_whitespace;
use super::suffix_overlap;
use crate::text::lines::is_word_char;

/// Letters and digits of a line that is hardly ever written twice with other blanks.
const MIN_DISTINCTIVE_CHARS: usize = 8;

/// What the rules need to know.
#[derive(Debug, Clone, Copy)]
pub(super) struct TrimInput<'a> {
    pub(super) place: &'a CursorContext<'a>,
    /// The output ended by itself. Otherwise its last word or line may be incomplete.
    pub(super) whole: bool,
}

/// The output so far as it would be typed: not cut yet, but with the line breaks and blanks of the shown text.
pub(super) fn as_typed(place: &CursorContext<'_>, text: &str) -> String {
    let text = without_doubled_blanks(place, &with_unix_line_breaks(text));
    whitespace::without_trailing_blanks(place, &text)
}

/// `text` with `\n` as its line breaks.
pub(super) fn with_unix_line_breaks(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\r', "\n")
}

/// The text before a character that no editor can display, or the mark of a broken token.
pub(super) fn before_unprintable(text: &str) -> &str {
    let unprintable = |c: char| c == '\u{fffd}' || (c.is_control() && !matches!(c, '\n' | '\t'));
    text.split(unprintable).next().unwrap_or(text)
}

/// Whole lines if there are several, otherwise whole words and operators.
pub(super) fn without_partial_word<'t>(input: &TrimInput<'_>, text: &'t str) -> &'t str {
    if input.whole {
        return text;
    }
    let lines = text.trim_start_matches('\n');
    let lead_len = text.len() - lines.len();
    match lines.rfind('\n') {
        Some(at) if !lines[..at].trim().is_empty() => &text[..lead_len + at],
        _ => {
            let words = text.trim_end_matches(is_word_char);
            let kept = if words.len() == text.len() {
                text.trim_end_matches(incomplete::is_operator)
            } else {
                words
            };
            kept.trim_end()
        }
    }
}

/// `text` up to the closer of the cursor's literal, or up to a part of the closer at its end.
pub(super) fn without_literal_closer<'t>(place: &CursorContext<'_>, text: &'t str) -> &'t str {
    // The closer may be on its own line in the output; the one after the cursor then is, too.
    let keep = place.literal.len_before_closer(text, true).unwrap_or(text.len());
    place.literal.without_partial_closer(&text[..keep])
}

/// `text` up to the other half of a pair that is closed after the cursor.
pub(super) fn without_closing_half<'t>(place: &CursorContext<'_>, text: &'t str) -> &'t str {
    &text[..suffix_overlap::len_before_closing_half(place, text, true).unwrap_or(text.len())]
}

/// `text` without blanks and line breaks at its end, unless the closer of a literal is to be on its own line.
pub(super) fn without_trailing_space<'t>(place: &CursorContext<'_>, text: &'t str) -> Cow<'t, str> {
    with_own_closing_line(place, text).map_or_else(|| text.trim_end().into(), Cow::Owned)
}

/// A text of several lines whose last line is to be that of the literal's closer, which directly follows the cursor.
fn with_own_closing_line(place: &CursorContext<'_>, text: &str) -> Option<String> {
    let kept = text.trim_end();
    let blanks = text[kept.len()..].rsplit_once('\n')?.1;
    if !place.literal.is_closer_adjacent() || !kept.trim_start().contains('\n') && !kept.starts_with('\n') {
        return None;
    }
    let there = place.line_after.len() - place.line_after.trim_start().len();
    let blanks = &blanks[..blanks.len().saturating_sub(there)];
    let last = kept.rsplit('\n').next().unwrap_or("");
    // The end of a string aligns with its start. If nothing gives that indentation, the closer stays on the line.
    let unknown = blanks.is_empty()
        && place.literal.lexical_context() == LexicalContext::Text
        && indentation_width(last) > 0;
    (!unknown).then(|| format!("{kept}\n{blanks}"))
}

/// Removes a comma at the end if the closer of the list follows, or, in a query, the next clause.
pub(super) fn without_trailing_comma<'t>(place: &CursorContext<'_>, text: &'t str) -> &'t str {
    let Some(kept) = text.trim_end().strip_suffix(',').map(str::trim_end).filter(|it| !it.is_empty()) else {
        return text;
    };
    if place.literal.context_after(text) != LexicalContext::Code {
        return text;
    }
    let language = place.language.map_or("", |it| it.name);
    let rest = place.line_after.trim_start();
    let closer = |c: Option<char>| c.is_some_and(|c| matches!(c, ')' | ']' | '}'));
    let clause =
        place.after.trim_start().get(..5).is_some_and(|it| it.trim_end().eq_ignore_ascii_case("from"));
    let ends = closer(rest.chars().next())
        || language == "json" && closer(place.next_visible_char())
        || language == "sql" && clause;
    if ends { kept } else { text }
}

/// Models that do not see how the indentation was split into tokens write it twice, or begin too deep: then all lines
/// of the output are shifted back by the same amount.
pub(super) fn without_doubled_blanks(place: &CursorContext<'_>, text: &str) -> String {
    let stripped = text.trim_start_matches([' ', '\t']);
    if place.expects_member() && stripped.starts_with(is_word_char) {
        return stripped.to_owned();
    }
    if !place.line_before.ends_with([' ', '\t']) || stripped.starts_with('\n') {
        return text.to_owned();
    }
    let extra = &text[..text.len() - stripped.len()];
    let deeper = format!("{}{extra}", place.line_before);
    if extra.is_empty() || !place.is_in_indentation() {
        return stripped.to_owned();
    }
    let mut lines = stripped.split('\n');
    let mut out = lines.next().unwrap_or("").to_owned();
    for line in lines {
        out.push('\n');
        // A line with less indentation than the first one closes something and is already correct.
        match line.strip_prefix(&deeper) {
            Some(rest) => {
                out.push_str(place.line_before);
                out.push_str(rest);
            }
            None => out.push_str(line),
        }
    }
    out
}

/// `text` without an end that repeats the rest of the cursor's line.
pub(super) fn without_suffix_overlap<'t>(place: &CursorContext<'_>, text: &'t str) -> &'t str {
    suffix_overlap::without_repeated_suffix(place, without_repeated_rest(place, text))
}

/// `text` without an end that equals the rest of the line, or a part of it that balances the brackets.
fn without_repeated_rest<'t>(place: &CursorContext<'_>, text: &'t str) -> &'t str {
    let rest = place.line_after.trim();
    if rest.is_empty() {
        return text;
    }
    // The whole rest of the line, or a part from its start that balances the brackets again.
    if let Some(kept) = text.trim_end().strip_suffix(rest) {
        let alone = place.bracket_balance(text).unopened.is_empty();
        if !(alone && (is_punctuation(rest) || suffix_overlap::is_closing_word(place, rest))) {
            return kept;
        }
    }
    let unopened = place.bracket_balance(text).unopened;
    let repeated = unopened.iter().find(|&&at| rest.starts_with(text[at..].trim_end()));
    let kept = repeated.map_or(text, |&at| &text[..at]);
    // A quote that is already there.
    if kept.len() == text.len()
        && rest.starts_with(['"', '\'', '`'])
        && place.literal.lexical_context() == LexicalContext::Code
    {
        let sign = &rest[..1];
        let odd = text.matches(sign).count() % 2 == 1;
        if odd && let Some(shorter) = text.trim_end().strip_suffix(sign) {
            return shorter;
        }
    }
    kept
}

fn is_punctuation(text: &str) -> bool {
    !text.chars().any(is_word_char)
}

/// Whether the text would continue in the word after the cursor.
pub(super) fn joins_next_word(place: &CursorContext<'_>, text: &str) -> bool {
    place.line_after.starts_with(is_word_char) && text.ends_with(is_word_char)
}

/// Whether the output only repeats the lines around the cursor.
pub(super) fn repeats_neighbour(place: &CursorContext<'_>, text: &str) -> bool {
    if !place.line_after.trim().is_empty() {
        return false;
    }
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let Some(first) = lines.next() else { return true };
    let line = if text.starts_with('\n') {
        first.trim().to_owned()
    } else {
        format!("{}{first}", place.line_before).trim().to_owned()
    };
    if line.len() < 4 {
        return false;
    }
    let same = |other: &str| {
        let other = other.trim();
        let distinctive = line.chars().filter(|c| is_word_char(*c)).count() >= MIN_DISTINCTIVE_CHARS;
        other == line || distinctive && without_whitespace(other).eq(without_whitespace(&line))
    };
    let below = place.line_below().is_some_and(same);
    let rest: Vec<&str> = lines.collect();
    let above = rest.is_empty() && place.line_above().is_some_and(same);
    below || above || !rest.is_empty() && repeats_lines_above(place, &line, &rest)
}

/// Whether several lines repeat those directly above.
fn repeats_lines_above(place: &CursorContext<'_>, first: &str, rest: &[&str]) -> bool {
    let before = &place.before[..place.before.len() - place.line_before.len()];
    let mut above = before.lines().rev().map(str::trim).filter(|line| !line.is_empty());
    let lines = [first].into_iter().chain(rest.iter().map(|line| line.trim()));
    let lines: Vec<&str> = lines.collect();
    lines.iter().rev().all(|line| above.next() == Some(*line))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::completion::pipeline::trim_output;

    fn trimmed(marked: &str, text: &str, whole: bool) -> Option<String> {
        let (before, after) = marked.split_once('▮').unwrap_or((marked, ""));
        let place = CursorContext::new(before, after, taper_grammars::by_path("x.py".as_ref()));
        trim_output(&place, text, whole, &mut |_, _| {})
    }

    #[test]
    fn trimmed_output_never_ends_inside_word() {
        assert_eq!(trimmed("x = ▮\n", "foo.bar + ba", false).as_deref(), Some("foo.bar +"));
        assert_eq!(trimmed("x = ▮\n", "foo", false), None);
        assert_eq!(trimmed("x = ▮\n", "foo", true).as_deref(), Some("foo"));
        assert_eq!(trimmed("def f():▮\n", "\n    a()\n    b", false).as_deref(), Some("\n    a()"));
        assert_eq!(trimmed("▮bar\n", "foo", true), None);
    }

    #[test]
    fn existing_text_is_not_repeated() {
        assert_eq!(trimmed("f(▮)\n", "a, b)", true).as_deref(), Some("a, b"));
        assert_eq!(trimmed("f(▮)\n", "g(a)", true).as_deref(), Some("g(a)"));
        assert_eq!(trimmed("f(▮);\n", "a);", true).as_deref(), Some("a"));
        assert_eq!(trimmed("x = \"▮\"\n", "hello\"", true).as_deref(), Some("hello"));
        assert_eq!(trimmed("def f(▮: int) -> None:\n", "x: int) -> None:", true).as_deref(), Some("x"));
        assert_eq!(trimmed("▮\nreturn total\n", "return total", true), None);
        assert_eq!(trimmed("total += 1\n▮\n", "total += 1", true), None);
    }

    #[test]
    fn blanks_are_not_doubled_and_do_not_trail() {
        assert_eq!(trimmed("    ▮\n", "    return x  ", true).as_deref(), Some("return x"));
        let deep = "  if x:\n          y()\n      z()\n    w()";
        assert_eq!(trimmed("    ▮\n", deep, true).as_deref(), Some("if x:\n        y()\n    z()\n    w()"));
        assert_eq!(trimmed("x = ▮\n", " 1", true).as_deref(), Some("1"));
        assert_eq!(trimmed("x =▮\n", " 1\r\n", true).as_deref(), Some(" 1"));
        assert_eq!(trimmed("x = ▮\n", "  \n", true), None);
    }

    #[test]
    fn no_blank_between_a_dot_and_a_member() {
        assert_eq!(trimmed("self.▮\n", " name = name", true).as_deref(), Some("name = name"));
        assert_eq!(trimmed("x = y.▮\n", "\tz", true).as_deref(), Some("z"));
        assert_eq!(trimmed("x = 1.▮\n", " + y", true).as_deref(), Some(" + y"));
        assert_eq!(trimmed("x = 1.▮\n", " if y else 2", true).as_deref(), Some(" if y else 2"));
        assert_eq!(
            as_typed(&CursorContext::new("self.", "", taper_grammars::by_path("x.py".as_ref())), " a"),
            "a"
        );
    }

    #[test]
    fn unprintable_character_ends_the_output() {
        assert_eq!(trimmed("x = ▮\n", "foo(1) \u{fffd}bar", true).as_deref(), Some("foo(1)"));
        assert_eq!(trimmed("x = ▮\n", "\u{0}", true), None);
    }
}

//! What of an answer is shown: cut at a place where it can stand, without what stands there already.
//! It knows nothing of why the answer ended.

use super::place::Place;
use crate::text::lines::is_word;

/// An answer so far as it would be typed: nothing cut yet, but as to line breaks and the first blanks what is shown.
pub fn as_typed(place: &Place<'_>, text: &str) -> String {
    without_doubled_blanks(place, &text.replace("\r\n", "\n").replace('\r', "\n"))
}

/// Cuts `text` to what can be shown, or `None` if nothing of it can.
///
/// `whole` says that the answer ended by itself; otherwise its last word may be half and goes.
pub fn trim(place: &Place<'_>, text: &str, whole: bool) -> Option<String> {
    noted(place, text, whole, &mut |_, _| {})
}

/// [`trim`], which tells `note` of each rule that takes something away, and what it leaves.
pub fn noted(
    place: &Place<'_>,
    text: &str,
    whole: bool,
    note: &mut dyn FnMut(&'static str, &str),
) -> Option<String> {
    let mut text = text.replace("\r\n", "\n").replace('\r', "\n");
    // A character that no editor can show, or the sign of a broken token: the answer ends before it.
    if let Some(at) = text.find(|c: char| c == '\u{fffd}' || (c.is_control() && !matches!(c, '\n' | '\t'))) {
        text.truncate(at);
        note("a character that cannot be shown", &text);
        return noted(place, &text, false, note);
    }
    if !whole {
        let before = text.len();
        cut_to_complete_part(&mut text);
        if text.len() < before {
            note("the last word or line may be half", &text);
        }
    }
    let unblanked = without_doubled_blanks(place, &text);
    if unblanked != text {
        note("blanks that stand before the cursor already", &unblanked);
    }
    let alone = without_overlap(place, &unblanked);
    if alone.len() < unblanked.len() {
        note("what stands behind the cursor already", alone);
    }
    let text = alone.trim_end();
    let next = place.line_after.chars().next();
    if next.is_some_and(is_word) && text.ends_with(is_word) {
        note("it would run into the word behind the cursor", "");
        return None;
    }
    if text.trim().is_empty() {
        return None;
    }
    if repeats_neighbour(place, text) {
        note("it says what the line above or below says", "");
        return None;
    }
    Some(text.to_owned())
}

/// Whole lines if there are several, else whole words: never half of either.
fn cut_to_complete_part(text: &mut String) {
    let lines = text.trim_start_matches('\n');
    let lead = text.len() - lines.len();
    match lines.rfind('\n') {
        Some(at) if !lines[..at].trim().is_empty() => text.truncate(lead + at),
        _ => {
            let kept = text.trim_end_matches(is_word).trim_end().len();
            text.truncate(kept);
        }
    }
}

/// Models that do not see how the indentation was split into tokens write it twice, or begin too deep: then all
/// of the answer's lines move back by as much.
fn without_doubled_blanks(place: &Place<'_>, text: &str) -> String {
    let stripped = text.trim_start_matches([' ', '\t']);
    if place.wants_member() && stripped.starts_with(is_word) {
        return stripped.to_owned();
    }
    if !place.line_before.ends_with([' ', '\t']) || stripped.starts_with('\n') {
        return text.to_owned();
    }
    let extra = &text[..text.len() - stripped.len()];
    let deeper = format!("{}{extra}", place.line_before);
    if extra.is_empty() || !place.on_blank_line_start() {
        return stripped.to_owned();
    }
    let mut lines = stripped.split('\n');
    let mut out = lines.next().unwrap_or("").to_owned();
    for line in lines {
        out.push('\n');
        // A line that is not indented as deep as the first one closes something, and stands where it should.
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

/// Removes the end of the text where it repeats the rest of the cursor's line.
fn without_overlap<'t>(place: &Place<'_>, text: &'t str) -> &'t str {
    let rest = place.line_after.trim();
    if rest.is_empty() {
        return text;
    }
    // The whole rest of the line, or a part from its start that makes the brackets add up again.
    if let Some(kept) = text.trim_end().strip_suffix(rest) {
        let alone = place.brackets(text).unopened.is_empty();
        if !(alone && is_punctuation(rest)) {
            return kept;
        }
    }
    let mut kept = text;
    while let Some(&at) = place.brackets(kept).unopened.last() {
        let tail = kept[at..].trim_end();
        if !rest.starts_with(tail) {
            break;
        }
        kept = &kept[..at];
    }
    // A quote, a semicolon or a comma that stands there already.
    if kept.len() == text.len() && rest.starts_with([';', ',', '"', '\'', '`', ':']) {
        let sign = &rest[..1];
        let odd = text.matches(sign).count() % 2 == 1;
        if odd && let Some(shorter) = text.trim_end().strip_suffix(sign) {
            return shorter;
        }
    }
    kept
}

fn is_punctuation(text: &str) -> bool {
    !text.chars().any(is_word)
}

/// Whether the answer only says again what the lines around the cursor say.
fn repeats_neighbour(place: &Place<'_>, text: &str) -> bool {
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
    let below = place.line_below().is_some_and(|below| below.trim() == line);
    let above = lines.next().is_none() && place.line_above().is_some_and(|above| above.trim() == line);
    below || above
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trimmed(marked: &str, text: &str, whole: bool) -> Option<String> {
        let (before, after) = marked.split_once('▮').unwrap_or((marked, ""));
        trim(&Place::new(before, after, taper_grammars::by_path("x.py".as_ref())), text, whole)
    }

    #[test]
    fn never_half_a_word() {
        assert_eq!(trimmed("x = ▮\n", "foo.bar + ba", false).as_deref(), Some("foo.bar +"));
        assert_eq!(trimmed("x = ▮\n", "foo", false), None);
        assert_eq!(trimmed("x = ▮\n", "foo", true).as_deref(), Some("foo"));
        assert_eq!(trimmed("def f():▮\n", "\n    a()\n    b", false).as_deref(), Some("\n    a()"));
        assert_eq!(trimmed("▮bar\n", "foo", true), None);
    }

    #[test]
    fn what_stands_there_is_not_said_again() {
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
        assert_eq!(as_typed(&Place::new("self.", "", taper_grammars::by_path("x.py".as_ref())), " a"), "a");
    }

    #[test]
    fn nothing_unprintable() {
        assert_eq!(trimmed("x = ▮\n", "foo(1) \u{fffd}bar", true).as_deref(), Some("foo(1)"));
        assert_eq!(trimmed("x = ▮\n", "\u{0}", true), None);
    }
}

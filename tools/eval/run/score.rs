//! Scores an answer to a task, in the field's metrics and in a user's.

use std::path::Path;

use rapidfuzz::fuzz;

use crate::answers::Answer;
use crate::tasks::Task;
use taper::completion::confidence;
use taper::completion::cursor::CursorContext;
use taper::syntax::{Syntax, scope};
use taper::text::lines::is_word_char;
use taper::text::{Edit, Rope};

/// The scores of one answer; `None` if not applicable.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Score {
    /// The stripped text is the expected one; of one-line kinds, its first line.
    pub(super) exact: bool,
    /// The suggestion or an alternative is exact, if alternatives were requested.
    pub(super) exact_any: Option<bool>,
    /// The first line of the stripped text is the expected one.
    pub(super) exact_first: bool,
    /// Indel ratio of the stripped texts, 0 to 100; 0 if nothing is shown.
    pub(super) similarity: f64,
    /// The tests passed.
    pub(super) passed: Option<bool>,
    /// Characters that the user need not type, see [`saved`].
    pub(super) saved: usize,
    /// Expected characters.
    pub(super) expected: usize,
    /// Something was shown.
    pub(super) shown: bool,
    /// Of shown suggestions: the file parses no worse with it.
    pub(super) parses: Option<bool>,
    /// Of shown suggestions: it repeats the text after the cursor.
    pub(super) repeats: Option<bool>,
    /// Of shown suggestions: it ends inside a word.
    pub(super) half_word: Option<bool>,
}

impl Score {
    pub(super) fn of(task: &Task, answer: &Answer) -> Self {
        let text = inserted(task, answer);
        let (got, wanted) = (stripped(task, text), stripped(task, &task.expected));
        let shown = answer.shown.is_some();
        let right = shown && got == wanted;
        Self {
            exact: right,
            exact_any: answer
                .others
                .as_ref()
                .map(|others| right || others.iter().any(|it| stripped(task, it) == wanted)),
            exact_first: shown && first_line(got) == first_line(wanted),
            similarity: if shown { 100.0 * similarity(got, wanted) } else { 0.0 },
            passed: answer.passed,
            saved: if shown { saved(text, &task.expected) } else { 0 },
            expected: task.expected.chars().count(),
            shown,
            parses: if shown { parses(task, answer) } else { None },
            repeats: shown.then(|| !right && repeats(task, text)),
            half_word: shown.then(|| half_word(task, answer, text)),
        }
    }
}

/// The text that an answer inserts at the cursor, without the replaced text that it restores.
pub(super) fn inserted<'a>(task: &Task, answer: &'a Answer) -> &'a str {
    let text = answer.shown.as_deref().unwrap_or("");
    let (before, after) = replaced(task, answer);
    let text = text.strip_prefix(before).unwrap_or(text);
    text.strip_suffix(after).unwrap_or(text)
}

/// The texts before and after the cursor that it replaces.
fn replaced<'t>(task: &'t Task, answer: &Answer) -> (&'t str, &'t str) {
    let (before, after) = answer.replaces;
    let start = task.prefix.len().saturating_sub(before);
    (task.prefix.get(start..).unwrap_or(""), task.suffix.get(..after).unwrap_or(""))
}

fn stripped<'a>(task: &Task, text: &'a str) -> &'a str {
    if task.one_line() { first_line(text) } else { text.trim() }
}

fn first_line(text: &str) -> &str {
    text.trim().lines().next().unwrap_or("").trim()
}

/// 1 less the share of characters to insert and delete: `1 - indel / (length + length)`.
fn similarity(a: &str, b: &str) -> f64 {
    fuzz::ratio(a.chars(), b.chars())
}

/// Characters of `expected` that a user gets by accepting the suggestion word by word as long as it is right, minus the
/// key for that.
fn saved(text: &str, expected: &str) -> usize {
    let mut same = 0;
    let mut whole_words = 0;
    let mut theirs = expected.chars().peekable();
    let mut ours = text.chars().peekable();
    while let (Some(a), Some(b)) = (ours.peek().copied(), theirs.peek().copied())
        && a == b
    {
        ours.next();
        theirs.next();
        same += 1;
        let goes_on = |next: Option<&char>| is_word_char(a) && next.copied().is_some_and(is_word_char);
        if !goes_on(ours.peek()) && !goes_on(theirs.peek()) {
            whole_words = same;
        }
    }
    whole_words.max(1) - 1
}

/// Whether the file has no more ERROR and MISSING nodes with the suggestion than without it, or than with the expected
/// text; parsed from scratch each time. `None` without a grammar.
fn parses(task: &Task, answer: &Answer) -> Option<bool> {
    let language =
        taper_grammars::by_path(Path::new(&task.path)).or_else(|| taper_grammars::by_id(&task.language))?;
    let faults = |text: &Rope| Some(scope::fault_count(&Syntax::parse(text, language, &mut || false)?.tree));
    let hole = Rope::from_str(&format!("{}{}", task.prefix, task.suffix));
    let (before, after) = replaced(task, answer);
    let cursor = task.prefix.len();
    let mut accepted = hole.clone();
    let text = answer.shown.clone().unwrap_or_default();
    let edit = Edit { range: cursor - before.len()..cursor + after.len(), text };
    edit.apply(&mut accepted).ok()?;
    let now = faults(&accepted)?;
    if now <= faults(&hole)? {
        return Some(true);
    }
    let truth = Rope::from_str(&format!("{}{}{}", task.prefix, task.expected, task.suffix));
    Some(now <= faults(&truth)?)
}

/// Whether the text repeats what is after the cursor: the rest of its line at the end, or the next line.
fn repeats(task: &Task, text: &str) -> bool {
    let language = taper_grammars::by_path(Path::new(&task.path));
    let place = CursorContext::new(&task.prefix, &task.suffix, language);
    let rest = place.line_after.trim();
    if rest.chars().any(is_word_char) {
        if text.trim_end().ends_with(rest) {
            return true;
        }
    } else if let Some(&closer) = place.bracket_balance(text).unopened.last()
        && !rest.is_empty()
        && rest.starts_with(text[closer..].trim_end())
        && place.bracket_balance(&task.expected).unopened.is_empty()
    {
        return true;
    }
    if !rest.is_empty() {
        return false;
    }
    // A line of brackets alone, or one that the expected text has as well, is no evidence.
    let significant = |line: &&str| line.chars().filter(|c| is_word_char(*c)).count() >= 3;
    let Some(below) = place.line_below().map(str::trim).filter(significant) else { return false };
    let has = |text: &str| {
        let first = text.lines().next().unwrap_or("");
        let first = format!("{}{first}", place.line_before);
        first.trim() == below || text.lines().skip(1).any(|line| line.trim() == below)
    };
    has(text) && !has(&task.expected)
}

/// Whether the last word is incomplete: the raw output or the text after the cursor continues it.
fn half_word(task: &Task, answer: &Answer, text: &str) -> bool {
    let shown = text.trim_end();
    if !shown.ends_with(is_word_char) {
        return false;
    }
    if shown.len() == text.len() && task.suffix.starts_with(is_word_char) {
        return true;
    }
    let end = confidence::shown_byte_len(&answer.raw, shown);
    match answer.raw[end..].chars().next() {
        Some(next) => is_word_char(next),
        // Out of tokens in the middle of a word.
        None => answer.reason == "limit",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(kind: &str, marked: &str, expected: &str) -> Task {
        let (prefix, suffix) = marked.split_once('▮').unwrap_or((marked, ""));
        Task {
            path: "x.py".into(),
            kind: kind.into(),
            prefix: prefix.into(),
            suffix: suffix.into(),
            expected: expected.into(),
            ..Task::default()
        }
    }

    fn answer(text: &str) -> Answer {
        Answer { shown: Some(text.to_owned()), raw: text.to_owned(), ..Answer::default() }
    }

    fn scored(kind: &str, marked: &str, expected: &str, text: &str) -> Score {
        Score::of(&task(kind, marked, expected), &answer(text))
    }

    #[test]
    fn indel_ratio_matches_rapidfuzz() {
        // Values of Python's rapidfuzz.fuzz.ratio (and fuzzywuzzy's), over 100.
        for (a, b, value) in [
            ("this is a test", "this is a test!", 0.965_517),
            ("fuzzy wuzzy was a bear", "wuzzy fuzzy was a bear", 0.909_090),
            ("lewenstein", "levenshtein", 0.857_142),
            ("abc", "", 0.0),
            ("abc", "xyz", 0.0),
            ("größe", "größe", 1.0),
        ] {
            assert!((similarity(a, b) - value).abs() < 1e-5, "{a} {b} {}", similarity(a, b));
        }
    }

    #[test]
    fn one_line_kinds_are_judged_by_their_first_line() {
        let it = scored("line", "▮\n", "x = 1", "  x = 1\ny = 2");
        assert!(it.exact && it.exact_first && it.similarity == 100.0);
        let it = scored("block", "▮\n", "x = 1\ny = 2", "x = 1\ny = 3");
        assert!(!it.exact && it.exact_first && it.similarity > 80.0);
        let silent = Score::of(&task("line", "▮\n", "x = 1"), &Answer::default());
        assert!(!silent.exact && !silent.shown && silent.parses.is_none() && silent.similarity == 0.0);
    }

    #[test]
    fn saved_counts_whole_right_words() {
        assert_eq!(saved("foo(bar)", "foo(bar)"), 7);
        assert_eq!(saved("foo(baz)", "foo(bar)"), 3);
        assert_eq!(saved("foo", "foobar"), 0);
        assert_eq!(saved("foobar", "foo"), 0);
        assert_eq!(saved("x", "y"), 0);
        assert_eq!(saved("", "y"), 0);
    }

    #[test]
    fn broken_syntax_is_detected() {
        assert_eq!(scored("line", "x = ▮\n", "1", "2").parses, Some(true));
        assert_eq!(scored("line", "x = 1▮\n", " + 1", " + (2").parses, Some(false));
        assert_eq!(scored("line", "▮\n    y()\n", "if x:", "while x:").parses, Some(true));
    }

    #[test]
    fn repeated_text_is_detected() {
        let repeats = |marked: &str, expected: &str, text: &str| {
            scored("line", marked, expected, text).repeats == Some(true)
        };
        assert!(repeats("f(▮, key=1)\n", "a", "a, b, key=1)"));
        assert!(repeats("f(▮)\n", "a", "b)"));
        assert!(!repeats("f(▮)\n", "a", "g(b)"));
        assert!(!repeats("f(g(▮)\n", "a)", "b)"), "the expected text closes one as well");
        assert!(repeats("▮\n\nreturn total\n", "x = 1", "y = 1\nreturn total"));
        assert!(repeats("re▮\nreturn total\n", "x = 1", "turn total"));
        assert!(!repeats("▮\n}\n", "x", "y\n}"));
    }

    #[test]
    fn half_words_are_detected() {
        let mut it = answer("foo");
        it.raw = "foobar".into();
        assert_eq!(Score::of(&task("line", "▮\n", "x"), &it).half_word, Some(true));
        assert_eq!(scored("line", "▮\n", "x", "foo").half_word, Some(false));
        assert_eq!(scored("line", "▮bar\n", "x", "foo").half_word, Some(true));
        it = answer("foo");
        it.reason = "limit".into();
        assert_eq!(Score::of(&task("line", "▮\n", "x"), &it).half_word, Some(true));
    }

    #[test]
    fn restored_closers_are_not_counted_as_inserted() {
        let task = task("line", "f(▮)\n", "a");
        let it = Answer { replaces: (0, 1), ..answer("a)") };
        assert_eq!(inserted(&task, &it), "a");
        let score = Score::of(&task, &it);
        assert!(score.exact && score.parses == Some(true));
    }

    #[test]
    fn exact_any_counts_alternatives() {
        let task = task("line", "x = ▮\n", "f(1)");
        let any = |others: Option<&[&str]>, shown: &str| {
            let others = others.map(|others| others.iter().map(|it| (*it).to_owned()).collect());
            Score::of(&task, &Answer { others, ..answer(shown) }).exact_any
        };
        assert_eq!(any(None, "f(1)"), None, "no alternatives requested");
        assert_eq!(any(Some(&[]), "f(1)"), Some(true));
        assert_eq!(any(Some(&["f(2)", "f(1) "]), "g(1)"), Some(true));
        assert_eq!(any(Some(&["f(2)"]), "g(1)"), Some(false));
    }
}

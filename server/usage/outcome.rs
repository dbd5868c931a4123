//! The outcome of a shown suggestion, derived from the edits, so that it is known in every editor.

use std::ops::Range;

use crate::completion::Suggestion;
use crate::completion::cache::{self, lenient};
use crate::text::lines::is_word_char;
use crate::text::{Edit, Rope};

/// Bytes from the suggestion beyond which an edit is unrelated to it.
const REACH: usize = 65_536;

/// What happened to a shown suggestion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Its whole remainder was inserted at once.
    Accepted,
    /// A part was inserted at once, by word or by line, and the rest was not.
    PartiallyAccepted,
    /// At least its first word was typed, exactly or leniently (see `cache::lenient`), and no part was inserted at once.
    TypedThrough,
    /// None of these: something else was typed, the cursor moved, the document was closed.
    Dismissed,
}

/// A shown text or an alternative to it.
#[derive(Debug)]
struct OfferedText {
    /// All of it, from where it was first shown.
    whole: String,
    /// The part that is not in the document yet.
    rest: String,
}

/// A suggestion from when it is shown until its outcome is known. It stays the same one while it is refined, extended,
/// or shown again during typing.
#[derive(Debug)]
pub struct ShownSuggestion {
    /// What the rest replaces: usually nothing, at the cursor.
    range: Range<usize>,
    /// The part that is in the document already.
    consumed: String,
    /// Ranges of `consumed` that were inserted at once, not key by key.
    accepted: Vec<Range<usize>>,
    /// The shown text, then its alternatives. Never empty.
    offered: Vec<OfferedText>,
    /// Whether the text is as it was when the suggestion was last shown.
    unedited: bool,
    outcome: Option<Outcome>,
}

impl ShownSuggestion {
    /// A suggestion that is shown from now on, at `cursor` in `text`.
    pub fn new(text: &Rope, cursor: usize, shown: &Suggestion, alternatives: &[String]) -> Self {
        let (range, rests) = relative_to_cursor(text, cursor, shown, alternatives);
        let offered = offered_texts("", rests);
        Self { range, consumed: String::new(), accepted: Vec::new(), offered, unedited: true, outcome: None }
    }

    /// Replaces the shown text if `shown` continues this suggestion: same place, and the same beginning unless nothing
    /// was edited in between. Returns whether it does.
    pub fn refresh(
        &mut self,
        text: &Rope,
        cursor: usize,
        shown: &Suggestion,
        alternatives: &[String],
    ) -> bool {
        let (range, rests) = relative_to_cursor(text, cursor, shown, alternatives);
        let continues = self.outcome.is_none()
            && !self.is_complete()
            && self.range.start == range.start
            && (self.unedited || cache::is_compatible(&rests[0], &self.offered[0].rest));
        if continues {
            (self.range, self.offered, self.unedited) = (range, offered_texts(&self.consumed, rests), true);
        }
        continues
    }

    /// Follows an edit that turned `before` into `after`.
    pub fn apply_edit(&mut self, before: &Rope, edit: &Edit, after: &Rope) {
        let at = self.range.start;
        let equals = |range: Range<usize>, text: &str| edit_equals(before, edit, after, range, text);
        if self.outcome.is_some() || equals(at..at, "") {
            return;
        }
        self.unedited = false;
        let is_inserted = |rest: &&String| rest.chars().nth(1).is_some() && equals(self.range.clone(), rest);
        if let Some(rest) = self.offered.iter().map(|it| &it.rest).find(is_inserted) {
            let start = self.consumed.len();
            self.consumed += rest;
            self.accepted.push(start..self.consumed.len());
            self.outcome = Some(Outcome::Accepted);
            return;
        }
        let (old, new) = (before.len_bytes(), after.len_bytes());
        let belongs = if new >= old {
            let inserted = after.get_byte_slice(at..at + new - old).map(|it| it.to_string());
            inserted.is_some_and(|it| equals(at..at, &it) && self.consume_insertion(&it))
        } else {
            let start = at.checked_sub(old - new);
            start.is_some_and(|start| equals(start..at, "")) && self.undo(old - new)
        };
        if !belongs {
            self.finish();
        }
    }

    /// Consumes text that was inserted before the rest; false if it does not belong to the suggestion.
    fn consume_insertion(&mut self, text: &str) -> bool {
        let at_once = text.chars().nth(1).is_some() && !text.trim().is_empty();
        if self.consume(text, at_once) {
            return true;
        }
        // Editors close brackets and quotes themselves, with the key or right after it.
        let mut characters = text.chars();
        match (characters.next(), characters.next(), characters.next()) {
            (Some(opener), Some(closer), None) if closes(opener, closer) => {
                self.consume(&text[..opener.len_utf8()], false)
            }
            (Some(closer), None, _) => {
                self.consumed.chars().next_back().is_some_and(|opener| closes(opener, closer))
            }
            _ => false,
        }
    }

    /// Consumes `text` if the rest begins with it, or if it was typed and matches leniently.
    fn consume(&mut self, text: &str, at_once: bool) -> bool {
        if self.is_complete() {
            return false;
        }
        let start = self.consumed.len();
        let consumed = self.consumed.clone() + text;
        let exact = |it: &OfferedText| it.rest.strip_prefix(text).map(str::to_owned);
        let near = |it: &OfferedText| lenient::lenient_match(&it.whole, &consumed).filter(|_| !at_once);
        let mut rests: Vec<_> = self.offered.iter().map(exact).collect();
        if rests.iter().all(Option::is_none) {
            rests = self.offered.iter().map(near).collect();
        }
        if rests.iter().all(Option::is_none) {
            return false;
        }
        let offered = std::mem::take(&mut self.offered).into_iter().zip(rests);
        self.offered = offered.filter_map(|(it, rest)| Some(OfferedText { rest: rest?, ..it })).collect();
        self.range = self.range.start + text.len()..self.range.end + text.len();
        self.consumed = consumed;
        if at_once {
            self.accepted.push(start..self.consumed.len());
        }
        true
    }

    /// Gives back the last `length` consumed bytes; false if fewer were consumed.
    fn undo(&mut self, length: usize) -> bool {
        let kept = self.consumed.len().checked_sub(length);
        let Some(kept) = kept.filter(|&kept| self.consumed.is_char_boundary(kept)) else { return false };
        let undone = self.consumed.split_off(kept);
        self.offered.iter_mut().for_each(|it| it.rest.insert_str(0, &undone));
        self.range = self.range.start - length..self.range.end - length;
        self.accepted.iter_mut().for_each(|it| it.end = it.end.min(kept));
        self.accepted.retain(|it| !it.is_empty());
        true
    }

    fn is_complete(&self) -> bool {
        self.offered[0].rest.is_empty()
    }

    /// Decides the outcome: the cursor has moved, the document was closed, or another suggestion is shown.
    pub fn finish(&mut self) {
        let first_word = || first_word(&(self.consumed.clone() + &self.offered[0].rest));
        let outcome = match (self.is_complete(), self.accepted.is_empty()) {
            // Accepted word by word, and the last word is a single character.
            (true, false) => Outcome::Accepted,
            (false, false) => Outcome::PartiallyAccepted,
            (true, true) => Outcome::TypedThrough,
            (false, true) if self.consumed.len() >= first_word() => Outcome::TypedThrough,
            (false, true) => Outcome::Dismissed,
        };
        self.outcome.get_or_insert(outcome);
    }

    /// The editor reports that a suggestion was accepted: it was this one if its last character is in the text.
    pub fn confirm_acceptance(&mut self) {
        if self.outcome.is_some() || !self.is_complete() {
            return;
        }
        let end = self.consumed.len();
        if self.accepted.last().is_none_or(|it| it.end < end) {
            let last = self.consumed.chars().next_back().map_or(0, char::len_utf8);
            self.accepted.push(end - last..end);
        }
        self.outcome = Some(Outcome::Accepted);
    }

    /// Where the rest begins, in bytes.
    pub fn position(&self) -> usize {
        self.range.start
    }

    /// The outcome, once it is known, and how many characters were accepted.
    pub fn outcome(&self) -> Option<(Outcome, usize)> {
        let accepted = self.accepted.iter().filter_map(|range| self.consumed.get(range.clone()));
        Some((self.outcome?, accepted.map(|it| it.chars().count()).sum()))
    }
}

fn offered_texts(consumed: &str, rests: Vec<String>) -> Vec<OfferedText> {
    rests.into_iter().map(|rest| OfferedText { whole: format!("{consumed}{rest}"), rest }).collect()
}

/// The replaced range and the offered texts, relative to the cursor. Text before the cursor that a popup's suggestion
/// repeats is stripped.
fn relative_to_cursor(
    text: &Rope,
    cursor: usize,
    shown: &Suggestion,
    alternatives: &[String],
) -> (Range<usize>, Vec<String>) {
    let Range { start, end } = shown.range;
    let repeated = text.get_byte_slice(start..cursor).map(|it| it.to_string()).unwrap_or_default();
    let rest = shown.text.strip_prefix(&repeated).filter(|rest| end >= cursor && !rest.is_empty());
    let (start, repeated) = if rest.is_some() { (cursor, repeated.as_str()) } else { (start, "") };
    let alternatives = alternatives.iter().filter_map(|it| it.strip_prefix(repeated));
    let texts = [rest.unwrap_or(&shown.text)].into_iter().chain(alternatives);
    (start..end, texts.map(str::to_owned).collect())
}

/// Whether `edit`, which turned `before` into `after`, has the effect of replacing `range` by `text`. Editors express
/// the same replacement in different ways.
fn edit_equals(before: &Rope, edit: &Edit, after: &Rope, range: Range<usize>, text: &str) -> bool {
    let low = range.start.min(edit.range.start);
    let high = range.end.max(edit.range.end);
    if high - low > REACH || after.len_bytes() + range.len() != before.len_bytes() + text.len() {
        return false;
    }
    let same = |old: Range<usize>, new: Range<usize>| {
        let (old, new) = (before.get_byte_slice(old), after.get_byte_slice(new));
        old.is_some() && old == new
    };
    let inserted = range.start..range.start + text.len();
    same(low..range.start, low..range.start)
        && after.get_byte_slice(inserted.clone()).is_some_and(|it| it == text)
        && same(range.end..high, inserted.end..high + text.len() - range.len())
}

fn closes(opener: char, closer: char) -> bool {
    matches!((opener, closer), ('(', ')') | ('[', ']') | ('{', '}') | ('"', '"') | ('\'', '\'') | ('`', '`'))
}

/// The end of the first word in bytes: white space, then a run of word characters or one other character.
fn first_word(text: &str) -> usize {
    let word = text.trim_start();
    let end = word.find(|character| !is_word_char(character)).unwrap_or(word.len());
    let end = if end == 0 { word.chars().next().map_or(0, char::len_utf8) } else { end };
    text.len() - word.len() + end
}

#[cfg(test)]
mod tests {
    use super::Outcome::{Accepted, Dismissed, PartiallyAccepted, TypedThrough};
    use super::*;

    struct Fixture {
        text: Rope,
        shown: ShownSuggestion,
    }

    impl Fixture {
        /// The suggestion replaces `replaced` bytes before and after the cursor.
        fn new(fixture: &str, replaced: [usize; 2], shown: &str, alternatives: &[&str]) -> Self {
            let (before, after) = fixture.split_once('▮').unwrap();
            let (text, cursor) = (Rope::from(format!("{before}{after}")), before.len());
            let alternatives: Vec<String> = alternatives.iter().map(|&it| it.to_owned()).collect();
            let range = cursor - replaced[0]..cursor + replaced[1];
            let shown = Suggestion { range, text: shown.to_owned() };
            Self { shown: ShownSuggestion::new(&text, cursor, &shown, &alternatives), text }
        }

        fn edit(&mut self, range: Range<usize>, text: &str) {
            let before = self.text.clone();
            let edit = Edit { range, text: text.to_owned() };
            edit.apply(&mut self.text).unwrap();
            self.shown.apply_edit(&before, &edit, &self.text);
        }

        /// `+text` is inserted at once, `-n` deletes n bytes before the rest, everything else is typed key by key.
        fn play(mut self, steps: &[&str]) -> Self {
            for step in steps {
                let at = self.shown.position();
                if let Some(text) = step.strip_prefix('+') {
                    self.edit(at..at, text);
                } else if let Some(length) = step.strip_prefix('-') {
                    self.edit(at - length.parse::<usize>().unwrap()..at, "");
                } else {
                    for key in step.chars() {
                        let at = self.shown.position();
                        self.edit(at..at, key.encode_utf8(&mut [0; 4]));
                    }
                }
            }
            self
        }

        fn refresh(&mut self, shown: &str) -> bool {
            let at = self.shown.position();
            let shown = Suggestion { range: at..at, text: shown.to_owned() };
            self.shown.refresh(&self.text, at, &shown, &[])
        }
    }

    #[test]
    fn insertion_of_the_whole_rest_is_accepted_in_every_edit_form() {
        let accepted = |characters| Some((Accepted, characters));
        for (fixture, replaced, shown, alternatives, range, text, outcome) in [
            ("x = ▮\n", [0, 0], "foo(a)", &[][..], 4..4, "foo(a)", accepted(6)),
            ("x = ▮\n", [0, 0], "foo(a)", &[], 2..4, "= foo(a)", accepted(6)),
            ("x = ▮\n", [0, 0], "foo(a)", &[], 0..5, "x = foo(a)\n", accepted(6)),
            // A line comparison that puts the new text one character early.
            ("xa▮\n", [0, 0], "ba", &[], 1..1, "ab", accepted(2)),
            ("f(▮)\n", [0, 1], "a, b);", &[], 2..3, "a, b);", accepted(6)),
            ("x.pr▮\n", [0, 0], "int()", &["oxy()"], 4..4, "oxy()", accepted(5)),
            // Text before the cursor that a popup's suggestion repeats is not counted.
            ("x.pri▮\n", [3, 0], "print(a)", &[], 2..5, "print(a)", accepted(5)),
            ("x.pri▮\n", [3, 0], "PRINT(a)", &[], 2..5, "PRINT(a)", accepted(8)),
            ("x.pri▮\n", [3, 0], "print(a)", &[], 2..5, "print", None),
            ("aa▮\n", [0, 0], "ab", &[], 1..1, "aa", Some((Dismissed, 0))),
            ("x = ▮\nend", [0, 0], "foo", &[], 5..6, "E", Some((Dismissed, 0))),
            ("x = ▮\nend", [0, 0], "foo", &[], 2..2, "foo", Some((Dismissed, 0))),
            ("x = ▮\nend", [0, 0], "foo", &[], 0..3, "x =", None),
        ] {
            let mut fixture = Fixture::new(fixture, replaced, shown, alternatives);
            fixture.edit(range.clone(), text);
            assert_eq!(fixture.shown.outcome(), outcome, "{shown:?}: {range:?} {text:?}");
        }
    }

    #[test]
    fn outcome_follows_typing_words_and_backspace() {
        // Whether the last step decides the outcome, or only the end.
        const LAST_STEP: bool = true;
        const END: bool = false;
        for (shown, steps, decides, outcome) in [
            ("foo(ä)", &["fo", "+o(ä)"][..], LAST_STEP, (Accepted, 4)),
            ("foo(a, b)", &["+foo(", "+a,", "+ b)"], LAST_STEP, (Accepted, 9)),
            ("foo(a, b)", &["+foo(", "+a,"], END, (PartiallyAccepted, 6)),
            ("foo(a, b)", &["+foo(", "+a,", "!"], LAST_STEP, (PartiallyAccepted, 6)),
            ("foo(a, b)", &["+foo(", "+a,", "+ b", "+)"], END, (Accepted, 8)),
            ("foo(a)", &["foo"], END, (TypedThrough, 0)),
            ("foo(a)", &["foo(a)"], END, (TypedThrough, 0)),
            ("foo(a)", &["foob"], LAST_STEP, (TypedThrough, 0)),
            ("foo(a)", &["fob"], LAST_STEP, (Dismissed, 0)),
            ("foo(a)", &["b"], LAST_STEP, (Dismissed, 0)),
            // A new line with its indentation is one key.
            ("\n    go()\n", &["+\n    "], END, (Dismissed, 0)),
            // In another style.
            ("f(\"a\", b + 1)", &["f('a',b+"], END, (TypedThrough, 0)),
            ("f(\"a\", b + 1)", &["f('a',b+", "+1)"], LAST_STEP, (Accepted, 2)),
            // The editor closes the bracket or quote.
            ("f(\"a\")", &["f(", "+''", "a"], END, (TypedThrough, 0)),
            ("f(a)", &["f", "+()"], END, (TypedThrough, 0)),
            ("f(a)", &["f(", "+)", "a"], END, (TypedThrough, 0)),
            ("foo(ä)", &["fo", "+o(ä", "-2"], END, (PartiallyAccepted, 2)),
            ("foo(ä)", &["fo", "+o(ä", "-2", "-3"], END, (Dismissed, 0)),
            ("foo(ä)", &["fo", "+o(ä", "-2", "-4", "+foo(ä)"], LAST_STEP, (Accepted, 6)),
            ("foo(ä)", &["fo", "+o(ä", "-2", "-5"], LAST_STEP, (PartiallyAccepted, 2)),
            ("foo", &["-1"], LAST_STEP, (Dismissed, 0)),
            (")", &[")"], END, (TypedThrough, 0)),
        ] {
            let mut shown_text = Fixture::new("x = ▮\n", [0, 0], shown, &[]).play(steps).shown;
            assert_eq!(shown_text.outcome().is_some(), decides, "{shown:?} {steps:?}");
            shown_text.finish();
            assert_eq!(shown_text.outcome(), Some(outcome), "{shown:?} {steps:?}");
        }
    }

    #[test]
    fn refreshed_text_continues_the_suggestion_and_another_text_does_not() {
        let mut fixture = Fixture::new("x = ▮\n", [0, 0], "foo", &[]);
        assert!(fixture.refresh("foo(a)"), "extended");
        assert!(fixture.refresh("bar(a)"), "refined, and nothing was edited");
        let mut fixture = fixture.play(&["b"]);
        assert!(fixture.refresh("ar") && fixture.refresh("ar(a, b)"), "typed through");
        let mut fixture = fixture.play(&["ar"]);
        assert!(!fixture.refresh("rier"), "something else");
        let elsewhere = Suggestion { range: 0..0, text: "(a, b)".to_owned() };
        assert!(!fixture.shown.refresh(&fixture.text, 0, &elsewhere, &[]));
        assert_eq!(fixture.play(&["+(a, b)"]).shown.outcome(), Some((Accepted, 6)));
        let mut styled = Fixture::new("x = ▮\n", [0, 0], "f(\"a\", b + 1)", &[]).play(&["f('a',b+"]);
        assert!(styled.refresh("1)"), "typed in another style");
    }
}

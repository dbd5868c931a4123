//! How sure the model must be of what is shown, and where a doubtful suggestion is cut.
//! It knows nothing of why a text ends elsewhere: it makes shorter what trimming left.

use taper_engine::Said;

use super::place::Place;
use super::{Snapshot, Suggestion, Trigger, check, confidence};
use crate::prompt::{calibration::Calibration, template::Profile};
use crate::text::lines::is_word;

/// How readily a suggestion is shown that nobody asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Eagerness {
    /// Only what is probably right.
    Low,
    /// Not what is hardly ever right.
    Medium,
    /// All that the rules leave.
    High,
}

/// What a suggestion must reach, by calibrated probabilities to be exactly right.
#[derive(Debug, Clone, Copy)]
struct Thresholds {
    /// Least probability of a line that is shown to its end.
    line: f32,
    /// Or so many characters of it that are right by the model's own account, though its end is doubtful: who takes
    /// it word by word is served.
    worth: f32,
    /// Least probability of the beginning of a line whose rest is doubtful, or not known yet. It is higher: so what
    /// was shown of a growing line is not taken back when the line is complete.
    head: f32,
}

impl Eagerness {
    /// From the coverage curve in `benches/quality`.
    fn thresholds(self) -> Option<Thresholds> {
        match self {
            Self::Low => Some(Thresholds { line: 0.30, worth: 20.0, head: 0.50 }),
            Self::Medium => Some(Thresholds { line: 0.06, worth: 10.0, head: 0.25 }),
            Self::High => None,
        }
    }
}

/// Visible characters that the beginning of a line must have to be worth showing where its rest is known to be
/// doubtful. While a line grows, less is shown.
const WORTH_SHOWING: usize = 5;
/// Beginnings that are parsed, the longest first, before nothing is shown.
const TRIES: usize = 4;

/// The rule under which a text is cut or left away.
pub(super) const UNSURE: &str = "the model is unsure";

/// What a suggestion must reach.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bar {
    calibration: Calibration,
    thresholds: Thresholds,
}

impl Bar {
    /// `None` where everything is shown: a person asked, or wants it so.
    pub(super) fn of(snapshot: &Snapshot, profile: &Profile) -> Option<Self> {
        let thresholds = snapshot.options.eagerness.thresholds()?;
        let calibration = profile.calibration;
        (snapshot.trigger == Trigger::Automatic).then_some(Self { calibration, thresholds })
    }

    /// [`check::fitting`] for as much of `text` as is sure enough: all of it, or fewer lines, or the beginning of the
    /// first. `said` is where the text was cut from; `whole` says that it ended by itself.
    pub(super) fn fitting(
        self,
        snapshot: &Snapshot,
        place: &Place<'_>,
        said: Said<'_>,
        (text, whole): (&str, bool),
        note: &mut dyn FnMut(&'static str, &str),
    ) -> Option<Suggestion> {
        if said.pieces.is_empty() {
            // An engine that tells no probabilities is believed.
            return check::fitting(snapshot, place, text, note);
        }
        let first = first_line(text);
        let line_whole = whole || is_line_whole(said, &text[..first]);
        if line_whole && self.is_worth(said, &text[..first]) {
            let sure = self.sure_lines(said, text, first);
            if sure < text.len() {
                // Without its end a block may be worse than with a doubtful one.
                if let Some(fits) = check::fitting(snapshot, place, &text[..sure], &mut |_, _| {}) {
                    note(UNSURE, &fits.text);
                    return Some(fits);
                }
            }
            return check::fitting(snapshot, place, text, note);
        }
        let head = self
            .heads(place, said, &text[..first], if line_whole { WORTH_SHOWING } else { 1 })
            .take(TRIES)
            .find_map(|head| check::fitting(snapshot, place, head, &mut |_, _| {}));
        note(UNSURE, head.as_ref().map_or("", |it| &it.text));
        head
    }

    /// Whether the first line is complete and too doubtful to be shown to its end: then no more is needed.
    pub(super) fn ends(self, said: Said<'_>) -> Option<usize> {
        let first = first_line(said.text);
        let complete = first < said.text.len();
        (complete && !self.is_worth(said, &said.text[..first])).then_some(first)
    }

    /// Whether a first line is shown to its end.
    fn is_worth(self, said: Said<'_>, line: &str) -> bool {
        let extent = confidence::extent(said.text, line);
        self.is_sure(said, 0, line, self.thresholds.line)
            || confidence::right_characters(said, extent) >= self.thresholds.worth
    }

    /// Bytes of `text` up to the end of the last line before a doubtful one; the first line ends at `first`.
    fn sure_lines(self, said: Said<'_>, text: &str, first: usize) -> usize {
        let mut sure = first;
        for (at, _) in text.match_indices('\n').skip_while(|&(at, _)| at <= first).chain([(text.len(), "")]) {
            if text[sure..at].trim().is_empty() {
                continue;
            }
            if !self.is_sure(said, sure, &text[..at], self.thresholds.line) {
                break;
            }
            sure = at;
        }
        sure
    }

    /// Beginnings of a line that are sure enough, the longest first: each ends where a token of the language does,
    /// outside of brackets that it opens itself, and has `least` visible characters.
    fn heads<'t>(
        self,
        place: &Place<'_>,
        said: Said<'_>,
        line: &'t str,
        least: usize,
    ) -> impl Iterator<Item = &'t str> {
        boundaries(line).into_iter().rev().map(|at| &line[..at]).filter(move |head| {
            head.chars().filter(|c| !c.is_whitespace()).count() >= least
                && place.brackets(head).open.is_empty()
                && self.is_sure(said, 0, head, self.thresholds.head)
        })
    }

    /// Whether what `text` has behind its first `from` bytes is as probable as `least`.
    fn is_sure(self, said: Said<'_>, from: usize, text: &str, least: f32) -> bool {
        let range = confidence::extent(said.text, &text[..from])..confidence::extent(said.text, text);
        confidence::of_range(said.pieces, range)
            .is_none_or(|it| self.calibration.probability(it.mean, it.min, it.all) >= least)
    }
}

/// Where the first line of `text` with something on it ends, in bytes.
pub fn first_line(text: &str) -> usize {
    let begins = text.len() - text.trim_start().len();
    text[begins..].find('\n').map_or(text.len(), |at| begins + at)
}

/// Whether a line break follows what `line` was cut from.
fn is_line_whole(said: Said<'_>, line: &str) -> bool {
    let rest = &said.text[confidence::extent(said.text, line)..];
    rest.trim_start_matches([' ', '\t']).starts_with(['\n', '\r'])
}

/// Where a line can be cut: behind words, closing brackets, commas and semicolons. It never ends in half a word.
fn boundaries(line: &str) -> Vec<usize> {
    let mut out = Vec::new();
    let mut chars = line.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let next = chars.peek().map(|&(_, next)| next);
        let ends_word = is_word(c) && next.is_none_or(|next| !is_word(next));
        if ends_word || matches!(c, ')' | ']' | '}' | ',' | ';') {
            out.push(at + c.len_utf8());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use taper_engine::scripted::Scripted;
    use taper_engine::{Engine, Piece};

    use super::*;
    use crate::suggest::{Options, fixture, suggest};

    /// The probability is that of all tokens.
    const BELIEVED: Calibration = Calibration { bias: -4.0, mean: 0.0, min: 0.0, all: 8.0 };

    /// What is shown of an answer, given as tokens with their probabilities, where a line must be half sure and a
    /// beginning three quarters.
    fn shown(path: &str, marked: &str, tokens: &[(&str, f32)], whole: bool) -> Option<String> {
        let (before, after) = marked.split_once('▮').unwrap_or((marked, ""));
        let snapshot = fixture::snapshot(path, marked);
        let place = Place::new(before, after, snapshot.language);
        let mut text = String::new();
        let mut pieces = Vec::new();
        for (token, probability) in tokens {
            text += token;
            pieces.push(Piece { end: text.len(), probability: *probability });
        }
        let thresholds = Thresholds { line: 0.5, worth: 100.0, head: 0.75 };
        let bar = Bar { calibration: BELIEVED, thresholds };
        let said = Said { text: &text, pieces: &pieces };
        let trimmed = crate::suggest::trim::trim(&place, &text, whole)?;
        bar.fitting(&snapshot, &place, said, (&trimmed, whole), &mut |_, _| {}).map(|it| it.text)
    }

    #[test]
    fn a_sure_line_is_shown_and_a_doubtful_one_is_not() {
        assert_eq!(shown("x.py", "x = ▮\n", &[("foo", 0.9), ("(a)", 0.9)], true).as_deref(), Some("foo(a)"));
        assert_eq!(shown("x.py", "x = ▮\n", &[("foo", 0.6), ("(a)", 0.6)], true), None);
    }

    #[test]
    fn a_doubtful_end_is_left_away_at_a_boundary() {
        let it = |tokens: &[(&str, f32)]| shown("x.py", "x = ▮\n", tokens, true);
        assert_eq!(it(&[("total", 0.9), (" + foo", 0.2)]).as_deref(), Some("total"));
        let long = format!("{}(a)", "long".repeat(30));
        assert_eq!(it(&[(&long, 0.9), (" + foo", 0.2)]), Some(format!("{long} + foo")), "worth it anyway");
        assert_eq!(
            it(&[("foo(a)", 0.9), (".ba", 0.9), ("r", 0.1)]).as_deref(),
            Some("foo(a)"),
            "no half word"
        );
        assert_eq!(it(&[("foo(a,", 0.9), (" b)", 0.2)]), None, "the bracket would stay open");
        assert_eq!(it(&[("x", 0.9), (" + foo", 0.2)]), None, "too short to be worth it");
        // Behind the cursor the bracket is closed already.
        let closed = shown("x.py", "f(▮)\n", &[("first,", 0.9), (" b", 0.2)], true);
        assert_eq!(closed.as_deref(), Some("first,"));
    }

    #[test]
    fn a_line_that_grows_must_be_surer_so_that_nothing_shown_is_taken_back() {
        let tokens = [("total", 0.8), (" + foo", 0.8)];
        assert_eq!(shown("x.py", "x = ▮\n", &tokens[..1], true).as_deref(), Some("total"));
        for many in 1..=2 {
            let part = shown("x.py", "x = ▮\n", &tokens[..many], false);
            let all = shown("x.py", "x = ▮\n", &tokens, true).unwrap_or_default();
            assert!(all.starts_with(&part.unwrap_or_default()), "{many}");
        }
        assert_eq!(shown("x.py", "x = ▮\n", &[("total ", 0.6)], false), None);
    }

    #[test]
    fn lines_below_a_doubtful_one_are_left_away() {
        let python = [("x = 1", 0.9), ("\n    y = 2", 0.9), ("\n    z = 3", 0.3), ("\n    w = 4", 0.9)];
        let it = shown("x.py", "def f():\n    ▮\n", &python, true);
        assert_eq!(it.as_deref(), Some("x = 1\n    y = 2"));
        // A block that could not stand without its end is shown with it.
        let rust = [("if x {", 0.9), ("\n        y();", 0.3), ("\n    }", 0.9)];
        let it = shown("x.rs", "fn f() {\n    ▮\n}\n", &rust, true);
        assert_eq!(it.as_deref(), Some("if x {\n        y();\n    }"));
    }

    #[test]
    fn who_asks_is_told_and_so_is_who_wants_everything() {
        let ask = |probability: f32, trigger: Trigger, eagerness: Eagerness| {
            let engine = Scripted::new().answering(|_| "call(this)\n".to_owned());
            let mut engine: Box<dyn Engine> = Box::new(engine.probability(probability));
            let profile = Profile::of(engine.about(), engine.tokens());
            let options = Options { eagerness, ..Options::default() };
            let place = Snapshot { trigger, options, ..fixture::snapshot("x.py", "x = ▮\n") };
            let mut drafts = 0;
            let (shown, work) = suggest(&place, &profile, engine.as_mut(), &mut |progress| {
                drafts += usize::from(progress.draft.is_some());
                ControlFlow::Continue(())
            })
            .unwrap_or_default();
            (shown.is_some(), drafts > 0, work.reason)
        };
        assert_eq!(ask(1.0, Trigger::Automatic, Eagerness::Medium), (true, true, "end of the line"));
        assert_eq!(ask(0.2, Trigger::Automatic, Eagerness::Medium), (false, false, UNSURE));
        assert!(ask(0.2, Trigger::Automatic, Eagerness::High).0);
        assert!(ask(0.2, Trigger::Invoked, Eagerness::Low).0);
    }

    #[test]
    fn without_probabilities_everything_is_shown() {
        let snapshot = fixture::snapshot("x.py", "x = ▮\n");
        let place = Place::new("x = ", "\n", snapshot.language);
        let bar =
            Bar { calibration: BELIEVED, thresholds: Thresholds { line: 0.9, worth: 100.0, head: 0.9 } };
        let said = Said { text: "foo", pieces: &[] };
        let it = bar.fitting(&snapshot, &place, said, ("foo", true), &mut |_, _| {});
        assert_eq!(it.map(|it| it.text).as_deref(), Some("foo"));
    }

    #[test]
    fn more_eager_is_less_strict() {
        let [low, medium] = [Eagerness::Low, Eagerness::Medium]
            .map(|it| it.thresholds().map_or((0.0, 0.0), |it| (it.line, it.head)));
        assert!(low.0 > medium.0 && low.1 > medium.1 && Eagerness::High.thresholds().is_none());
        // Otherwise a growing line would be taken back.
        assert!(low.1 >= low.0 && medium.1 >= medium.0);
    }

    #[test]
    fn lines_are_cut_behind_words_closers_and_commas() {
        let line = "foo.bar(a, b) + größe";
        let cut: Vec<&str> = boundaries(line).into_iter().map(|at| &line[..at]).collect();
        assert_eq!(cut, ["foo", "foo.bar", "foo.bar(a", "foo.bar(a,", "foo.bar(a, b", "foo.bar(a, b)", line]);
    }
}

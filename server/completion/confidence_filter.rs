//! The confidence required of a suggestion, and where a doubtful one is cut.

use taper_engine::PartialOutput;

use super::cursor::CursorContext;
use super::pipeline::fit_to_document;
use super::{Snapshot, Suggestion, Trigger, confidence};
use crate::prompt::{calibration::Calibration, template::Profile};
use crate::text::lines::is_word_char;

/// How readily suggestions are shown on automatic requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Eagerness {
    /// Only suggestions that are probably right.
    Low,
    /// All but suggestions that are hardly ever right.
    Medium,
    /// Every suggestion that passes the rules.
    High,
}

/// What a suggestion must reach: calibrated probabilities of being exactly right.
#[derive(Debug, Clone, Copy)]
struct ConfidenceThresholds {
    /// Minimum probability of a line that is shown to its end.
    line: f32,
    /// Or the minimum expected number of correct characters in it, even if its end is doubtful: this serves
    /// word-by-word acceptance.
    expected_chars: f32,
    /// Minimum probability of the start of a line whose rest is doubtful or not known yet. It is higher, so that the
    /// shown start of a growing line is not taken back when the line is complete.
    line_start: f32,
}

impl Eagerness {
    /// From the coverage curve in `benches/quality`.
    fn thresholds(self) -> Option<ConfidenceThresholds> {
        match self {
            Self::Low => Some(ConfidenceThresholds { line: 0.30, expected_chars: 20.0, line_start: 0.50 }),
            Self::Medium => Some(ConfidenceThresholds { line: 0.06, expected_chars: 10.0, line_start: 0.25 }),
            Self::High => None,
        }
    }
}

/// Minimum visible characters of a line's start if its rest is known to be doubtful. While a line grows, fewer
/// suffice.
const MIN_LINE_START_CHARS: usize = 5;
/// Maximum line starts that are parsed, the longest first, before nothing is shown.
const MAX_FIT_ATTEMPTS: usize = 4;

/// The rule that cuts or drops a text.
pub(super) const UNSURE_RULE: &str = "the model is unsure";

/// A part of the output that may be shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct TrimmedOutput<'a> {
    pub(super) output: PartialOutput<'a>,
    /// The part, cut from `output`.
    pub(super) text: &'a str,
    /// The output ended by itself.
    pub(super) whole: bool,
}

/// The thresholds for one request.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConfidenceFilter {
    calibration: Calibration,
    thresholds: ConfidenceThresholds,
}

impl ConfidenceFilter {
    /// `None` if everything is shown: an explicit request, or the user's setting.
    pub(super) fn for_snapshot(snapshot: &Snapshot, profile: &Profile) -> Option<Self> {
        let thresholds = snapshot.options.eagerness.thresholds()?;
        let calibration = profile.calibration;
        (snapshot.trigger == Trigger::Automatic).then_some(Self { calibration, thresholds })
    }

    /// [`fit_to_document`] for the confident part of `trimmed`: all of it, fewer lines, or the start of the first line.
    pub(super) fn fit_confident_part(
        self,
        snapshot: &Snapshot,
        place: &CursorContext<'_>,
        trimmed: TrimmedOutput<'_>,
        note: &mut dyn FnMut(&'static str, &str),
    ) -> Option<Suggestion> {
        let TrimmedOutput { output, text, whole } = trimmed;
        if output.tokens.is_empty() {
            // Output without probabilities passes.
            return fit_to_document(snapshot, place, text, note);
        }
        let first = first_line_end(text);
        let line_whole = whole || is_line_complete(output, &text[..first]);
        if line_whole && self.is_line_confident(output, &text[..first]) {
            let sure = self.confident_len(output, text, first);
            if sure < text.len() {
                // A block without its end may parse worse than one with a doubtful end.
                if let Some(fits) = fit_to_document(snapshot, place, &text[..sure], &mut |_, _| {}) {
                    note(UNSURE_RULE, &fits.text);
                    return Some(fits);
                }
            }
            return fit_to_document(snapshot, place, text, note);
        }
        let head = self
            .confident_line_starts(
                place,
                output,
                &text[..first],
                if line_whole { MIN_LINE_START_CHARS } else { 1 },
            )
            .take(MAX_FIT_ATTEMPTS)
            .find_map(|head| fit_to_document(snapshot, place, head, &mut |_, _| {}));
        note(UNSURE_RULE, head.as_ref().map_or("", |it| &it.text));
        head
    }

    /// The end of the first line if it is complete and too doubtful to be shown to its end: no more output is needed
    /// then.
    pub(super) fn doubtful_line_end(self, output: PartialOutput<'_>) -> Option<usize> {
        let first = first_line_end(output.text);
        let complete = first < output.text.len();
        (complete && !self.is_line_confident(output, &output.text[..first])).then_some(first)
    }

    /// Whether a first line is shown to its end.
    fn is_line_confident(self, output: PartialOutput<'_>, line: &str) -> bool {
        let extent = confidence::shown_byte_len(output.text, line);
        self.is_confident(output, 0, line, self.thresholds.line)
            || confidence::expected_correct_chars(output, extent) >= self.thresholds.expected_chars
    }

    /// Bytes of `text` up to the end of the last line before a doubtful one. The first line ends at `first`.
    fn confident_len(self, output: PartialOutput<'_>, text: &str, first: usize) -> usize {
        let mut sure = first;
        for (at, _) in text.match_indices('\n').skip_while(|&(at, _)| at <= first).chain([(text.len(), "")]) {
            if text[sure..at].trim().is_empty() {
                continue;
            }
            if !self.is_confident(output, sure, &text[..at], self.thresholds.line) {
                break;
            }
            sure = at;
        }
        sure
    }

    /// The confident starts of a line, the longest first. Each ends at a token boundary of the language, outside of
    /// brackets that it opens itself, and has at least `least` visible characters.
    fn confident_line_starts<'t>(
        self,
        place: &CursorContext<'_>,
        output: PartialOutput<'_>,
        line: &'t str,
        least: usize,
    ) -> impl Iterator<Item = &'t str> {
        cut_positions(line).into_iter().rev().map(|at| &line[..at]).filter(move |head| {
            head.chars().filter(|c| !c.is_whitespace()).count() >= least
                && place.bracket_balance(head).open.is_empty()
                && self.is_confident(output, 0, head, self.thresholds.line_start)
        })
    }

    /// Whether the part of `text` after its first `from` bytes has at least probability `least`.
    fn is_confident(self, output: PartialOutput<'_>, from: usize, text: &str, least: f32) -> bool {
        let range = confidence::shown_byte_len(output.text, &text[..from])
            ..confidence::shown_byte_len(output.text, text);
        confidence::range_confidence(output.tokens, range)
            .is_none_or(|it| self.calibration.probability(it.mean, it.min, it.product) >= least)
    }
}

/// The end of the first non-blank line of `text`, in bytes.
pub fn first_line_end(text: &str) -> usize {
    let begins = text.len() - text.trim_start().len();
    text[begins..].find('\n').map_or(text.len(), |at| begins + at)
}

/// Whether a line break follows `line` in the output that it was cut from.
fn is_line_complete(output: PartialOutput<'_>, line: &str) -> bool {
    let rest = &output.text[confidence::shown_byte_len(output.text, line)..];
    rest.trim_start_matches([' ', '\t']).starts_with(['\n', '\r'])
}

/// The positions at which a line can be cut: after words, closing brackets, commas and semicolons, never inside a
/// word.
fn cut_positions(line: &str) -> Vec<usize> {
    let mut out = Vec::new();
    let mut chars = line.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let next = chars.peek().map(|&(_, next)| next);
        let ends_word = is_word_char(c) && next.is_none_or(|next| !is_word_char(next));
        if ends_word || matches!(c, ')' | ']' | '}' | ',' | ';') {
            out.push(at + c.len_utf8());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use taper_engine::scripted::ScriptedEngine;
    use taper_engine::{Engine, ScoredToken};

    use super::*;
    use crate::completion::pipeline::trim_output;
    use crate::completion::{Options, fixture, suggest};

    /// The probability is that of all tokens.
    const PRODUCT_CALIBRATION: Calibration = Calibration { bias: -4.0, mean: 0.0, min: 0.0, all: 8.0 };

    /// The shown part of an output, given as tokens with probabilities. The thresholds are 0.5 for a line and 0.75
    /// for a line start.
    fn filter_tokens(path: &str, marked: &str, tokens: &[(&str, f32)], whole: bool) -> Option<String> {
        let (before, after) = marked.split_once('▮').unwrap_or((marked, ""));
        let snapshot = fixture::snapshot(path, marked);
        let place = CursorContext::new(before, after, snapshot.language);
        let mut text = String::new();
        let mut pieces = Vec::new();
        for (token, probability) in tokens {
            text += token;
            pieces.push(ScoredToken { end: text.len(), probability: *probability });
        }
        let thresholds = ConfidenceThresholds { line: 0.5, expected_chars: 100.0, line_start: 0.75 };
        let filter = ConfidenceFilter { calibration: PRODUCT_CALIBRATION, thresholds };
        let output = PartialOutput { text: &text, tokens: &pieces };
        let trimmed = trim_output(&place, &text, whole, &mut |_, _| {})?;
        let trimmed = TrimmedOutput { output, text: &trimmed, whole };
        filter.fit_confident_part(&snapshot, &place, trimmed, &mut |_, _| {}).map(|it| it.text)
    }

    #[test]
    fn confident_line_is_shown_and_doubtful_one_dropped() {
        assert_eq!(
            filter_tokens("x.py", "x = ▮\n", &[("foo", 0.9), ("(a)", 0.9)], true).as_deref(),
            Some("foo(a)")
        );
        assert_eq!(filter_tokens("x.py", "x = ▮\n", &[("foo", 0.6), ("(a)", 0.6)], true), None);
    }

    #[test]
    fn doubtful_line_end_is_cut_at_boundary() {
        let it = |tokens: &[(&str, f32)]| filter_tokens("x.py", "x = ▮\n", tokens, true);
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
        // After the cursor the bracket is already closed.
        let closed = filter_tokens("x.py", "f(▮)\n", &[("first,", 0.9), (" b", 0.2)], true);
        assert_eq!(closed.as_deref(), Some("first,"));
    }

    #[test]
    fn growing_line_is_never_taken_back() {
        let tokens = [("total", 0.8), (" + foo", 0.8)];
        assert_eq!(filter_tokens("x.py", "x = ▮\n", &tokens[..1], true).as_deref(), Some("total"));
        for many in 1..=2 {
            let part = filter_tokens("x.py", "x = ▮\n", &tokens[..many], false);
            let all = filter_tokens("x.py", "x = ▮\n", &tokens, true).unwrap_or_default();
            assert!(all.starts_with(&part.unwrap_or_default()), "{many}");
        }
        assert_eq!(filter_tokens("x.py", "x = ▮\n", &[("total ", 0.6)], false), None);
    }

    #[test]
    fn lines_after_a_doubtful_line_are_dropped() {
        let python = [("x = 1", 0.9), ("\n    y = 2", 0.9), ("\n    z = 3", 0.3), ("\n    w = 4", 0.9)];
        let it = filter_tokens("x.py", "def f():\n    ▮\n", &python, true);
        assert_eq!(it.as_deref(), Some("x = 1\n    y = 2"));
        // A block that does not parse without its end is shown with it.
        let rust = [("if x {", 0.9), ("\n        y();", 0.3), ("\n    }", 0.9)];
        let it = filter_tokens("x.rs", "fn f() {\n    ▮\n}\n", &rust, true);
        assert_eq!(it.as_deref(), Some("if x {\n        y();\n    }"));
    }

    #[test]
    fn thresholds_skip_invoked_requests_and_high_eagerness() {
        let ask = |probability: f32, trigger: Trigger, eagerness: Eagerness| {
            let engine = ScriptedEngine::new().answer_with(|_| "call(this)\n".to_owned());
            let mut engine: Box<dyn Engine> = Box::new(engine.with_probability(probability));
            let profile = Profile::for_model(engine.engine_info(), engine.tokenizer());
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
        assert_eq!(ask(0.2, Trigger::Automatic, Eagerness::Medium), (false, false, UNSURE_RULE));
        assert!(ask(0.2, Trigger::Automatic, Eagerness::High).0);
        assert!(ask(0.2, Trigger::Invoked, Eagerness::Low).0);
    }

    #[test]
    fn without_probabilities_everything_is_shown() {
        let snapshot = fixture::snapshot("x.py", "x = ▮\n");
        let place = CursorContext::new("x = ", "\n", snapshot.language);
        let filter = ConfidenceFilter {
            calibration: PRODUCT_CALIBRATION,
            thresholds: ConfidenceThresholds { line: 0.9, expected_chars: 100.0, line_start: 0.9 },
        };
        let output = PartialOutput { text: "foo", tokens: &[] };
        let trimmed = TrimmedOutput { output, text: "foo", whole: true };
        let it = filter.fit_confident_part(&snapshot, &place, trimmed, &mut |_, _| {});
        assert_eq!(it.map(|it| it.text).as_deref(), Some("foo"));
    }

    #[test]
    fn higher_eagerness_lowers_thresholds() {
        let [low, medium] = [Eagerness::Low, Eagerness::Medium]
            .map(|it| it.thresholds().map_or((0.0, 0.0), |it| (it.line, it.line_start)));
        assert!(low.0 > medium.0 && low.1 > medium.1 && Eagerness::High.thresholds().is_none());
        // Otherwise a growing line would be taken back.
        assert!(low.1 >= low.0 && medium.1 >= medium.0);
    }

    #[test]
    fn cut_positions_follow_words_closers_and_commas() {
        let line = "foo.bar(a, b) + größe";
        let cut: Vec<&str> = cut_positions(line).into_iter().map(|at| &line[..at]).collect();
        assert_eq!(cut, ["foo", "foo.bar", "foo.bar(a", "foo.bar(a,", "foo.bar(a, b", "foo.bar(a, b)", line]);
    }
}

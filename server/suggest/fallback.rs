//! A suggestion where nothing of the greedy answer can be shown, most often because it repeats the text below.
//! It knows nothing of clocks or of who asks: the caller's `watch` ends it.
//!
//! Where the model was unsure, its runners-up are decoded too. Of those that can be shown, the one with the most characters
//! that are right by the model's own account is taken: each character counts with the probability that all tokens up to it are
//! right.

use std::mem;
use std::ops::ControlFlow;

use taper_engine::{Branch, Branching, Engine, EngineError, Generation, Growth, Stop};

use super::rules::{Ended, Rules};
use super::{Cut, Suggestion, confidence, eagerness};

/// Runners-up that are decoded at most.
const MOST: usize = 2;
/// Characters that may still come in a line: what these could be worth at most keeps a branch alive.
const MORE: f32 = 30.0;

/// An alternative that can be shown.
#[derive(Debug)]
pub(super) struct Alternative {
    pub(super) ended: Ended,
    pub(super) shown: Suggestion,
    /// What was taken away from it.
    pub(super) cuts: Vec<Cut>,
    worth: f32,
}

/// What came of the search.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// The best alternative, if one can be shown.
    pub(super) best: Option<Alternative>,
    /// Tokens that were decoded.
    pub(super) decoded: usize,
    /// Whether `watch` ended it.
    pub(super) interrupted: bool,
}

/// Looks for an alternative to the engine's last generation, `greedy`, of which nothing can be shown. A text has `max_tokens` at
/// most. `watch` is asked all the while, with the best one so far.
///
/// # Errors
/// The engine failed; see [`Engine::branch`].
pub(super) fn search(
    rules: &Rules<'_>,
    engine: &mut dyn Engine,
    greedy: &Ended,
    max_tokens: usize,
    watch: &mut dyn FnMut(Option<&Alternative>) -> ControlFlow<()>,
) -> Result<Outcome, EngineError> {
    if greedy.generation.pieces.is_empty() {
        return Ok(Outcome::default());
    }
    if watch(None).is_break() {
        return Ok(Outcome { interrupted: true, ..Outcome::default() });
    }
    // Where the line ends it may go on instead.
    let within = eagerness::first_line(&greedy.generation.text) + 1;
    let branching = Branching { most: MOST, within, max_tokens };
    let mut search = Search { rules, seen: [0; MOST], outcome: Outcome::default() };
    engine.branch(&branching, &mut |branch| {
        search.outcome.interrupted = watch(search.outcome.best.as_ref()).is_break();
        if search.outcome.interrupted { Growth::Stop } else { search.look(branch) }
    })?;
    Ok(search.outcome)
}

struct Search<'a> {
    rules: &'a Rules<'a>,
    /// Of each branch, the tokens that were there at the last look.
    seen: [usize; MOST],
    outcome: Outcome,
}

impl Search<'_> {
    /// Takes what has come of a branch, and says whether more of it is wanted.
    fn look(&mut self, branch: &Branch<'_>) -> Growth {
        let generation = branch.generation;
        let count = generation.pieces.len();
        let before = self.seen.get_mut(branch.number).map_or(0, |it| mem::replace(it, count));
        if before == count && !branch.ended {
            // A look in the middle of a token's work.
            return Growth::On;
        }
        if before > 0 {
            self.outcome.decoded += count - before;
        }
        let best = self.outcome.best.as_ref().map_or(0.0, |it| it.worth);
        let whole = branch.ended && generation.stop == Stop::EndOfText;
        let Line { worth, all, end } = Line::of(generation);
        let at_most = if whole || end < generation.text.len() { worth } else { worth + all * MORE };
        if at_most <= best {
            return Growth::Enough;
        }
        let rule = self.rules.end(generation.said(), whole);
        let whole = whole || rule.is_some();
        if !whole {
            return Growth::On;
        }
        let ended = Ended { generation: generation.clone(), end: rule, whole };
        let (shown, cuts) = self.rules.finish(&ended);
        if let Some(shown) = shown.filter(|shown| worth > best && !self.repeats_line_below(shown)) {
            self.outcome.best = Some(Alternative { ended, shown, cuts, worth });
        }
        Growth::Enough
    }

    /// Whether the cursor's line would begin with half of the line below or more.
    fn repeats_line_below(&self, shown: &Suggestion) -> bool {
        let place = self.rules.place;
        let Some(below) = place.line_below().map(str::trim) else { return false };
        let first = shown.text.lines().next().unwrap_or("");
        let line = format!("{}{first}", place.line_before);
        let same = line.trim().chars().zip(below.chars()).take_while(|(a, b)| a == b).count();
        2 * same >= below.chars().count()
    }
}

/// The first line of a text that has something on it, as far as it is there.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Line {
    /// Characters that are right by the model's own account.
    worth: f32,
    /// Probability that all of its tokens are.
    all: f32,
    /// Where it ends, in bytes of the text.
    end: usize,
}

impl Line {
    fn of(generation: &Generation) -> Self {
        let Generation { text, pieces, .. } = generation;
        let end = eagerness::first_line(text);
        let mut line = Self { worth: 0.0, all: 1.0, end };
        for (bytes, all) in confidence::up_to(pieces, end) {
            line.all = all;
            line.worth += all * confidence::characters(text, bytes.start..bytes.end.min(end)) as f32;
        }
        line
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use taper_engine::Piece;
    use taper_engine::scripted::Scripted;

    use super::*;
    use crate::prompt::template::Profile;
    use crate::suggest::eagerness::Eagerness;
    use crate::suggest::{Options, Snapshot, Work, fixture, suggest_within};

    /// What is shown, and the work; `watch` is told what is there while alternatives are decoded.
    fn watched(
        (path, marked): (&str, &str),
        engine: Scripted,
        eagerness: Eagerness,
        watch: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> (Option<String>, Work) {
        let mut engine: Box<dyn Engine> = Box::new(engine);
        let profile = Profile::of(engine.about(), engine.tokens());
        let options = Options { eagerness, ..Options::default() };
        let place = Snapshot { options, ..fixture::snapshot(path, marked) };
        let (shown, work) = suggest_within(None, &place, &profile, engine.as_mut(), &mut |progress| {
            let draft = progress.draft.map_or("", |it| &it.text);
            if progress.settled { watch(draft) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
        (shown.map(|it| it.text), work)
    }

    fn shown(path: &str, marked: &str, engine: Scripted, eagerness: Eagerness) -> (Option<String>, Work) {
        watched((path, marked), engine, eagerness, &mut |_| ControlFlow::Continue(()))
    }

    const BELOW: &str = "run({\n    a: 1,\n    ▮\n    code: 2,\n});\n";

    /// Repeats the line below; has two alternatives.
    fn repeating() -> Scripted {
        let script = Scripted::new().probability(0.99).when("a: 1,", "code: 2,\n");
        script.or_with("clean: true,\n", 0.6).or_with("b: 1,\n", 0.7)
    }

    #[test]
    fn the_greedy_answer_is_shown_where_it_can_be_however_good_the_alternatives_are() {
        let engine = Scripted::new().probability(0.8).when("x = ", "foo(a)\n").or_with("bar(a)\n", 0.99);
        let (text, work) = shown("x.py", "x = ▮\n", engine, Eagerness::High);
        assert_eq!((text.as_deref(), work.searched, work.passed_over), (Some("foo(a)"), 0, None));
    }

    #[test]
    fn where_the_greedy_line_cannot_be_shown_the_best_alternative_is() {
        let (text, work) = shown("x.js", BELOW, repeating(), Eagerness::High);
        assert_eq!(text.as_deref(), Some("clean: true,"), "the one with the most characters to expect");
        assert_eq!(work.passed_over.unwrap().raw, "code: 2,\n");
        let again = Scripted::new().probability(0.99).when("a: 1,", "code: 2,\n").or_with("code: 3,\n", 0.9);
        assert_eq!(shown("x.js", BELOW, again, Eagerness::High).0, None, "the line below with another value");
        // What is hardly ever right is still not suggested by itself.
        let (text, work) = shown("x.js", BELOW, repeating(), Eagerness::Low);
        assert_eq!((text, work.passed_over), (None, None));
        // The line might have gone on where it ended.
        let engine = Scripted::new().probability(0.9).when("x ", "=\n").or_with("= b\n", 0.5);
        let (text, _) = shown("x.js", "const x ▮\n", engine, Eagerness::High);
        assert_eq!(text.as_deref(), Some("= b"));
    }

    #[test]
    fn a_watcher_ends_the_search_and_keeps_what_was_found() {
        let mut seen = Vec::new();
        for calls in 0.. {
            let (mut left, mut broken) = (calls, false);
            let mut last = String::new();
            let (text, work) = watched(("x.js", BELOW), repeating(), Eagerness::High, &mut |draft| {
                draft.clone_into(&mut last);
                if left == 0 {
                    broken = true;
                    return ControlFlow::Break(());
                }
                left -= 1;
                ControlFlow::Continue(())
            });
            let text = text.unwrap_or_default();
            assert!(!broken || text == last, "{calls} {last:?} {text:?}");
            assert_eq!(work.search_ended, broken);
            if seen.last() != Some(&text) {
                seen.push(text);
            }
            if !broken {
                break;
            }
        }
        assert_eq!(seen.first().map(String::as_str), Some(""));
        assert_eq!(seen.last().map(String::as_str), Some("clean: true,"));
    }

    #[test]
    fn an_answer_that_is_too_unsure_is_not_replaced() {
        let engine = Scripted::new().probability(0.8).when("x = ", "foo(a)\n").or_with("b\n", 0.05);
        let (text, work) = shown("x.py", "x = ▮\n", engine, Eagerness::Low);
        assert_eq!((text, work.searched, work.reason), (None, 0, eagerness::UNSURE));
    }

    #[test]
    fn the_characters_of_a_line_count_with_all_tokens_up_to_them() {
        let check = |tokens: &[(&str, f32)], worth: f32, all: f32, end| {
            let mut generation = Generation::nothing(Stop::Limit);
            for (token, probability) in tokens {
                generation.text += token;
                generation.pieces.push(Piece { end: generation.text.len(), probability: *probability });
            }
            assert_eq!(Line::of(&generation), Line { worth, all, end }, "{tokens:?}");
        };
        let line = [("a", 0.5), (" b", 0.5), (")\n", 0.5), ("c", 0.1)];
        check(&line[..0], 0.0, 1.0, 0);
        check(&line[..1], 0.5, 0.5, 1);
        check(&line[..2], 1.0, 0.25, 3);
        // Of the token with the line break what stands before it.
        check(&line[..3], 1.125, 0.125, 4);
        check(&line, 1.125, 0.125, 4);
        check(&[("", 0.1), ("ö", 0.5), ("\n", 0.1)], 0.5, 0.5, 2);
        // A line without anything on it is not the first.
        check(&[("\n", 0.5), ("  a", 0.5), ("\n", 0.5)], 1.25, 0.25, 4);
    }
}

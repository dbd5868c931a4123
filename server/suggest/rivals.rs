//! A line that is worth more than the one that greedy decoding says.
//! It knows nothing of clocks or of who asks: the caller says how long it may take, and its `watch` when to end.
//!
//! The likeliest tokens, one after the other, do not make the best line: where the model hesitates between `int` and `None`,
//! all that begins with `None` may be one line, and what begins with `int` a dozen. A line is worth the characters of it
//! that are right by the model's own account: each counts with the probability that all tokens up to it are. That is the
//! choice of the least expected loss in place of the most probable token ("Minimum Bayes-Risk Decoding", Kumar and Byrne 2004,
//! <https://aclanthology.org/N04-1022/>), where what a user need not type is what is gained. So where the model was unsure
//! its runners-up are followed too, together, and as long as they may still be worth more. Where nothing of the greedy line
//! can be shown, for the most part because it says again what stands below, the best of the others is looked for.
//! What this gains is in `benches/quality`.

use std::mem;
use std::ops::ControlFlow;
use std::time::Duration;

use taper_engine::{Branch, Branching, Engine, EngineError, Generation, Growth, Stop};

use super::rules::{Ended, Rules};
use super::{Cut, Suggestion, confidence, eagerness};

/// Runners-up that are followed at most.
const MOST: usize = 2;
/// A rival is shown if it is worth so many times the greedy line: for less, what is shown should not depend on how much
/// time there was.
const WORTH: f32 = 1.1;
/// Characters that may still come in a line: what they could be worth at the most keeps a rival alive. With twice as many
/// the same rivals won on 336 tasks.
const MORE: f32 = 30.0;

/// A text that is worth more, and what is shown of it.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) ended: Ended,
    pub(super) shown: Suggestion,
    /// What was taken away from it.
    pub(super) cuts: Vec<Cut>,
    worth: f32,
}

/// What came of a search.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// The best one, if there is one.
    pub(super) found: Option<Found>,
    /// Tokens that were decoded.
    pub(super) decoded: usize,
    /// Whether `watch` ended it.
    pub(super) ended: bool,
}

/// What is searched for, and for how long.
pub(super) struct Search<'a> {
    pub(super) rules: &'a Rules<'a>,
    /// Whether there is nothing to beat: any text that can be shown will do.
    pub(super) any: bool,
    /// Tokens of a text at most.
    pub(super) max_tokens: usize,
    /// Time that there is to be through with it; `None`: any.
    pub(super) time: Option<Duration>,
}

impl Search<'_> {
    /// Looks for a text whose first line is worth more than that of the one which the engine has just said (or
    /// [any](Self::any)), and of which something else is shown than of that. `watch` is asked all the while, with what is
    /// there.
    ///
    /// # Errors
    /// The engine failed; see [`Engine::branch`].
    pub(super) fn run(
        &self,
        engine: &mut dyn Engine,
        (first, shown_now): (&Ended, Option<&Suggestion>),
        watch: &mut dyn FnMut(Option<&Found>) -> ControlFlow<()>,
    ) -> Result<Outcome, EngineError> {
        let line = Line::of(&first.generation);
        let said = &first.generation;
        let complete = first.whole || line.end < said.text.len();
        if said.pieces.is_empty() || !(self.any || complete) {
            return Ok(Outcome::default());
        }
        if watch(None).is_break() {
            return Ok(Outcome { ended: true, ..Outcome::default() });
        }
        // Where the line that ends cannot be shown, one that goes on may be.
        let within = line.end + usize::from(self.any);
        let branching = Branching { most: MOST, within, max_tokens: self.max_tokens };
        let mut race = Race {
            search: self,
            greedy: line,
            // What only goes on behind it is worth more by that, and wrong where the line ends.
            same: if self.any { "" } else { said.text[..line.end].trim() },
            shown_now,
            affordable: self.time.map_or(f32::INFINITY, |time| time.as_secs_f32() * engine.rates().decode),
            seen: [0; MOST],
            outcome: Outcome::default(),
        };
        engine.branch(&branching, &mut |branch| {
            race.outcome.ended = watch(race.outcome.found.as_ref()).is_break();
            if race.outcome.ended { Growth::Stop } else { race.look(branch) }
        })?;
        Ok(race.outcome)
    }

    /// Whether the cursor's line would begin with half of the line below or more: the greedy answer, which says that line,
    /// in other words.
    fn is_below(&self, shown: &Suggestion) -> bool {
        let place = self.rules.place;
        let Some(below) = place.line_below().map(str::trim) else { return false };
        let first = shown.text.lines().next().unwrap_or("");
        let line = format!("{}{first}", place.line_before);
        let same = line.trim().chars().zip(below.chars()).take_while(|(a, b)| a == b).count();
        2 * same >= below.chars().count()
    }
}

/// A search under way.
struct Race<'a> {
    search: &'a Search<'a>,
    greedy: Line,
    /// What no rival begins with.
    same: &'a str,
    /// What is shown of the greedy text.
    shown_now: Option<&'a Suggestion>,
    /// Tokens that there is time for.
    affordable: f32,
    /// Of each branch, the tokens that were there at the last look.
    seen: [usize; MOST],
    outcome: Outcome,
}

impl Race<'_> {
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
        } else if self.greedy.tokens.saturating_sub(count) as f32 > self.affordable {
            return Growth::Enough;
        }
        if !self.same.is_empty() && generation.text.trim_start().starts_with(self.same) {
            return Growth::Enough;
        }
        let bound = if self.search.any { 0.0 } else { WORTH * self.greedy.worth };
        let best = self.outcome.found.as_ref().map_or(bound, |found| found.worth);
        let whole = branch.ended && generation.stop == Stop::EndOfText;
        let Line { worth, all, end, .. } = Line::of(generation);
        let at_most = if whole || end < generation.text.len() { worth } else { worth + all * MORE };
        if at_most <= best {
            return Growth::Enough;
        }
        let rules = self.search.rules;
        let rule = rules.end(generation.said(), whole);
        let whole = whole || rule.is_some();
        if !whole {
            return Growth::On;
        }
        let ended = Ended { generation: generation.clone(), end: rule, whole };
        let (shown, cuts) = rules.finish(&ended);
        if let Some(shown) = shown.filter(|shown| worth > best && self.is_new(shown)) {
            self.outcome.found = Some(Found { ended, shown, cuts, worth });
        }
        Growth::Enough
    }

    fn is_new(&self, shown: &Suggestion) -> bool {
        Some(shown) != self.shown_now && !(self.search.any && self.search.is_below(shown))
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
    /// Its tokens.
    tokens: usize,
}

impl Line {
    fn of(generation: &Generation) -> Self {
        let Generation { text, pieces, .. } = generation;
        let end = eagerness::first_line(text);
        let mut line = Self { worth: 0.0, all: 1.0, end, tokens: 0 };
        for (bytes, all) in confidence::up_to(pieces, end) {
            line.tokens += 1;
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
    use crate::suggest::{Options, Snapshot, Time, Work, fixture, suggest_within};

    const FREE: Time = Time { to_read: None, to_answer: None };

    /// What is shown, and the work; `watch` is told what is there while it is searched.
    fn watched(
        time: Time,
        (path, marked): (&str, &str),
        engine: Scripted,
        eagerness: Eagerness,
        watch: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> (Option<String>, Work) {
        let mut engine: Box<dyn Engine> = Box::new(engine);
        let profile = Profile::of(engine.about(), engine.tokens());
        let options = Options { eagerness, ..Options::default() };
        let place = Snapshot { options, ..fixture::snapshot(path, marked) };
        let (shown, work) = suggest_within(time, &place, &profile, engine.as_mut(), &mut |progress| {
            let draft = progress.draft.map_or("", |it| &it.text);
            if progress.settled { watch(draft) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
        (shown.map(|it| it.text), work)
    }

    fn said(path: &str, marked: &str, engine: Scripted, eagerness: Eagerness) -> (Option<String>, Work) {
        watched(FREE, (path, marked), engine, eagerness, &mut |_| ControlFlow::Continue(()))
    }

    /// Behind `x = `; a token is a byte.
    fn shown(
        time: Time,
        engine: Scripted,
        watch: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> (Option<String>, Work) {
        watched(time, ("x.py", "x = ▮\n"), engine, Eagerness::High, watch)
    }

    fn free(engine: Scripted) -> (Option<String>, Work) {
        shown(FREE, engine, &mut |_| ControlFlow::Continue(()))
    }

    /// Says `foo(a)` and a line break: 2.95 characters of it are right.
    fn foo() -> Scripted {
        Scripted::new().probability(0.8).when("x = ", "foo(a)\n")
    }

    #[test]
    fn a_line_that_is_worth_more_is_shown_in_place_of_the_greedy_one() {
        let (shown, work) = free(foo().or_with("bar(a)\n", 0.9));
        assert_eq!((shown.as_deref(), work.raw.as_str()), (Some("bar(a)"), "bar(a)\n"), "4.2");
        assert_eq!(work.pieces.iter().map(|it| it.probability).collect::<Vec<_>>(), [0.9; 7]);
        assert_eq!((work.decoded, work.searched), (7, 6));
        let greedy = work.passed_over.unwrap();
        assert_eq!((greedy.suggestion.unwrap().text.as_str(), greedy.raw.as_str()), ("foo(a)", "foo(a)\n"));
        assert_eq!(free(foo().or_with("bar(a)\n", 0.82)).0.as_deref(), Some("foo(a)"), "not by a tenth");
        // Of several the best, whichever is there first.
        let (shown, _) = free(foo().or_with("bar(a)\n", 0.9).or_with("baz(a)\n", 0.95));
        assert_eq!(shown.as_deref(), Some("baz(a)"));
        let (shown, _) = free(foo().or_with("baz(a)\n", 0.95).or_with("bar(a)\n", 0.9));
        assert_eq!(shown.as_deref(), Some("baz(a)"));
        let (shown, _) = free(foo().or_with("fob(abc)\n", 0.99));
        assert_eq!(shown.as_deref(), Some("fob(abc)"), "it may begin alike");
        let (shown, _) = free(foo().or_with("foo(a).bar(abc)\n", 0.99));
        assert_eq!(shown.as_deref(), Some("foo(a)"), "but not with all of it");
    }

    #[test]
    fn what_cannot_become_worth_more_is_left() {
        for (other, probability, searched) in
            [("much longer than it is likely\n", 0.3, 1), ("b\n", 0.2, 1), ("b\n", 0.05, 0)]
        {
            let (shown, work) = free(foo().or_with(other, probability));
            assert_eq!((shown.as_deref(), work.searched), (Some("foo(a)"), searched), "{other:?}");
        }
    }

    #[test]
    fn a_line_that_is_not_shown_is_no_better_one() {
        for other in ["\n", "  foo(a)\n"] {
            let (shown, work) = free(foo().or_with(other, 0.99));
            assert_eq!((shown.as_deref(), work.passed_over), (Some("foo(a)"), None), "{other:?}");
        }
    }

    #[test]
    fn whoever_watches_ends_the_search_and_keeps_what_there_is() {
        let engine = || foo().or_with("bar(a)\n", 0.9).or_with("baz(a) + b\n", 0.95);
        let mut seen = Vec::new();
        for calls in 0.. {
            let (mut left, mut broken) = (calls, false);
            let mut last = String::new();
            let (shown, work) = shown(FREE, engine(), &mut |draft| {
                draft.clone_into(&mut last);
                if left == 0 {
                    broken = true;
                    return ControlFlow::Break(());
                }
                left -= 1;
                ControlFlow::Continue(())
            });
            assert!(!broken || shown.as_deref() == Some(&last), "{calls} {last:?} {shown:?}");
            assert_eq!(work.search_ended, broken);
            let shown = shown.unwrap();
            if seen.last() != Some(&shown) {
                seen.push(shown);
            }
            if !broken {
                break;
            }
        }
        assert_eq!(seen, ["foo(a)", "bar(a)", "baz(a) + b"]);
    }

    #[test]
    fn where_the_greedy_line_is_not_shown_another_one_is_likely_or_not() {
        let below = "run({\n    a: 1,\n    ▮\n    code: 2,\n});\n";
        let engine = || {
            let script = Scripted::new().probability(0.99).when("a: 1,", "code: 2,\n");
            script.or_with("clean: true,\n", 0.6).or_with("b: 1,\n", 0.7)
        };
        let (shown, work) = said("x.js", below, engine(), Eagerness::High);
        assert_eq!(shown.as_deref(), Some("clean: true,"), "the best of them");
        let greedy = work.passed_over.unwrap();
        assert_eq!((greedy.suggestion, greedy.raw.as_str()), (None, "code: 2,\n"));
        let again = Scripted::new().probability(0.99).when("a: 1,", "code: 2,\n").or_with("code: 3,\n", 0.9);
        assert_eq!(said("x.js", below, again, Eagerness::High).0, None, "what stands below in other words");
        // What is hardly ever right is still not said unasked.
        let (shown, work) = said("x.js", below, engine(), Eagerness::Low);
        assert_eq!((shown, work.passed_over), (None, None));
        // The line might have gone on where it ended.
        let engine = Scripted::new().probability(0.9).when("x ", "=\n").or_with("= b\n", 0.5);
        let (shown, _) = said("x.js", "const x ▮\n", engine, Eagerness::High);
        assert_eq!(shown.as_deref(), Some("= b"));
    }

    #[test]
    fn what_the_model_is_unsure_of_is_no_reason_to_look_for_anything() {
        let (shown, work) = said("x.py", "x = ▮\n", foo().or_with("b\n", 0.05), Eagerness::Low);
        assert_eq!((shown, work.searched, work.reason), (None, 0, eagerness::UNSURE));
    }

    #[test]
    fn nothing_is_begun_that_cannot_be_ended_in_time() {
        let engine = || foo().decode_delay(Duration::from_millis(1)).or_with("bar(a)\n", 0.9);
        for (millis, searched) in [(0, 0), (60_000, 6)] {
            let time = Time { to_read: None, to_answer: Some(Duration::from_millis(millis)) };
            let (_, work) = shown(time, engine(), &mut |_| ControlFlow::Continue(()));
            assert_eq!(work.searched, searched, "{millis}");
        }
    }

    #[test]
    fn the_characters_of_a_line_count_with_all_tokens_up_to_them() {
        let check = |tokens: &[(&str, f32)], worth: f32, all: f32, end, count| {
            let mut generation = Generation::nothing(Stop::Limit);
            for (token, probability) in tokens {
                generation.text += token;
                generation.pieces.push(Piece { end: generation.text.len(), probability: *probability });
            }
            assert_eq!(Line::of(&generation), Line { worth, all, end, tokens: count }, "{tokens:?}");
        };
        let line = [("a", 0.5), (" b", 0.5), (")\n", 0.5), ("c", 0.1)];
        check(&line[..0], 0.0, 1.0, 0, 0);
        check(&line[..1], 0.5, 0.5, 1, 1);
        check(&line[..2], 1.0, 0.25, 3, 2);
        // Of the token with the line break what stands before it.
        check(&line[..3], 1.125, 0.125, 4, 3);
        check(&line, 1.125, 0.125, 4, 3);
        check(&[("", 0.1), ("ö", 0.5), ("\n", 0.1)], 0.5, 0.5, 2, 2);
        // A line without anything on it is not the first.
        check(&[("\n", 0.5), ("  a", 0.5), ("\n", 0.5)], 1.25, 0.25, 4, 2);
    }
}

//! Finds a suggestion if none of the greedy output can be shown, most often because it repeats the text below.
//!
//! Where the model was uncertain, its runners-up are decoded too. Of those that can be shown, the one with the most
//! expected correct characters wins: each character counts with the probability that all tokens up to it are right.
//! The caller's `watch` ends the search.

use std::mem;
use std::ops::ControlFlow;

use taper_engine::{BranchControl, BranchLimits, BranchOutput, Engine, EngineError, Generation, StopReason};

use super::pipeline::{FinishedOutput, PostProcessor};
use super::{Suggestion, TrimStep, confidence, confidence_filter};

/// Maximum decoded runners-up.
const MAX_BRANCHES: usize = 2;
/// Characters that may still follow on a line: their maximum worth keeps a branch alive.
const MAX_REMAINING_CHARS: f32 = 30.0;

/// An alternative that can be shown.
#[derive(Debug)]
pub(super) struct FallbackSuggestion {
    pub(super) output: FinishedOutput,
    pub(super) shown: Suggestion,
    /// The steps that trimmed it.
    pub(super) trim_steps: Vec<TrimStep>,
    expected_chars: f32,
}

/// The result of the search.
#[derive(Debug, Default)]
pub(super) struct FallbackResult {
    /// The best alternative, if one can be shown.
    pub(super) best: Option<FallbackSuggestion>,
    /// Decoded tokens.
    pub(super) decoded: usize,
    /// Whether `watch` ended the search.
    pub(super) interrupted: bool,
}

/// Searches for an alternative to the engine's last generation, `greedy`, none of which can be shown. A branch has at
/// most `max_tokens`. `watch` is called throughout, with the best alternative so far.
///
/// # Errors
/// The engine failed; see [`Engine::branch`].
pub(super) fn search_fallback(
    rules: &PostProcessor<'_>,
    engine: &mut dyn Engine,
    greedy: &FinishedOutput,
    max_tokens: usize,
    watch: &mut dyn FnMut(Option<&FallbackSuggestion>) -> ControlFlow<()>,
) -> Result<FallbackResult, EngineError> {
    if greedy.generation.tokens.is_empty() {
        return Ok(FallbackResult::default());
    }
    if watch(None).is_break() {
        return Ok(FallbackResult { interrupted: true, ..FallbackResult::default() });
    }
    // The position of the line break counts too: the line may continue there instead.
    let within = confidence_filter::first_line_end(&greedy.generation.text) + 1;
    let branching = BranchLimits { max_branches: MAX_BRANCHES, within_bytes: within, max_tokens };
    let mut search = FallbackSearch { rules, seen: [0; MAX_BRANCHES], outcome: FallbackResult::default() };
    engine.branch(&branching, &mut |branch| {
        search.outcome.interrupted = watch(search.outcome.best.as_ref()).is_break();
        if search.outcome.interrupted { BranchControl::Abort } else { search.inspect_branch(branch) }
    })?;
    Ok(search.outcome)
}

struct FallbackSearch<'a> {
    rules: &'a PostProcessor<'a>,
    /// Token count of each branch at the last call.
    seen: [usize; MAX_BRANCHES],
    outcome: FallbackResult,
}

impl FallbackSearch<'_> {
    /// Processes a branch's new tokens and returns whether to continue it.
    fn inspect_branch(&mut self, branch: &BranchOutput<'_>) -> BranchControl {
        let generation = branch.generation;
        let count = generation.tokens.len();
        let before = self.seen.get_mut(branch.number).map_or(0, |it| mem::replace(it, count));
        if before == count && !branch.finished {
            // The engine polls in the middle of a token.
            return BranchControl::Continue;
        }
        if before > 0 {
            self.outcome.decoded += count - before;
        }
        let best = self.outcome.best.as_ref().map_or(0.0, |it| it.expected_chars);
        let whole = branch.finished && generation.stop == StopReason::EndOfText;
        let LineWorth { expected_chars: worth, probability: all, end } = LineWorth::of_generation(generation);
        let at_most =
            if whole || end < generation.text.len() { worth } else { worth + all * MAX_REMAINING_CHARS };
        if at_most <= best {
            return BranchControl::Finish;
        }
        let rule = self.rules.find_end(generation.partial_output(), whole);
        let whole = whole || rule.is_some();
        if !whole {
            return BranchControl::Continue;
        }
        let ended = FinishedOutput { generation: generation.clone(), end: rule, whole };
        let (shown, cuts) = self.rules.finish_suggestion(&ended);
        if let Some(shown) = shown.filter(|shown| worth > best && !self.repeats_line_below(shown)) {
            self.outcome.best =
                Some(FallbackSuggestion { output: ended, shown, trim_steps: cuts, expected_chars: worth });
        }
        BranchControl::Finish
    }

    /// Whether the cursor's line would begin with at least half of the line below.
    fn repeats_line_below(&self, shown: &Suggestion) -> bool {
        let place = self.rules.place;
        let Some(below) = place.line_below().map(str::trim) else { return false };
        let first = shown.text.lines().next().unwrap_or("");
        let line = format!("{}{first}", place.line_before);
        let same = line.trim().chars().zip(below.chars()).take_while(|(a, b)| a == b).count();
        2 * same >= below.chars().count()
    }
}

/// The value of a text's first non-blank line, as far as it is generated.
#[derive(Debug, Clone, Copy, PartialEq)]
struct LineWorth {
    /// Expected number of correct characters.
    expected_chars: f32,
    /// Probability that all of its tokens are right.
    probability: f32,
    /// The end of the line, in bytes of the text.
    end: usize,
}

impl LineWorth {
    fn of_generation(generation: &Generation) -> Self {
        let Generation { text, tokens: pieces, .. } = generation;
        let end = confidence_filter::first_line_end(text);
        let mut line = Self { expected_chars: 0.0, probability: 1.0, end };
        for (bytes, all) in confidence::cumulative_probabilities(pieces, end) {
            line.probability = all;
            line.expected_chars += all * confidence::char_count(text, bytes.start..bytes.end.min(end)) as f32;
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use taper_engine::ScoredToken;
    use taper_engine::scripted::ScriptedEngine;

    use super::*;
    use crate::completion::confidence_filter::Eagerness;
    use crate::completion::{CompletionWork, Options, Snapshot, fixture, suggest_within};
    use crate::prompt::template::Profile;

    /// The shown text, and the work. `watch` receives the draft while alternatives are decoded.
    fn suggest_watched(
        snapshot: Snapshot,
        engine: ScriptedEngine,
        eagerness: Eagerness,
        watch: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> (Option<String>, CompletionWork) {
        let mut engine: Box<dyn Engine> = Box::new(engine);
        let profile = Profile::for_model(engine.engine_info(), engine.tokenizer());
        let options = Options { eagerness, ..Options::default() };
        let snapshot = Snapshot { options, ..snapshot };
        let (shown, work) = suggest_within(None, &snapshot, &profile, engine.as_mut(), &mut |progress| {
            let draft = progress.draft.map_or("", |it| &it.text);
            if progress.seeking_fallback { watch(draft) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
        (shown.map(|it| it.text), work)
    }

    fn suggest_text(
        path: &str,
        marked: &str,
        engine: ScriptedEngine,
        eagerness: Eagerness,
    ) -> (Option<String>, CompletionWork) {
        suggest_watched(
            fixture::snapshot(path, marked),
            engine,
            eagerness,
            &mut |_| ControlFlow::Continue(()),
        )
    }

    const MARKED_CALL: &str = "run({\n    a: 1,\n    ▮\n    code: 2,\n});\n";

    /// Repeats the line below; has two alternatives.
    fn repeating_engine() -> ScriptedEngine {
        let script = ScriptedEngine::new().with_probability(0.99).answer_when("a: 1,", "code: 2,\n");
        script.or_answer_with("clean: true,\n", 0.6).or_answer_with("b: 1,\n", 0.7)
    }

    #[test]
    fn showable_greedy_output_beats_better_alternatives() {
        let engine = ScriptedEngine::new()
            .with_probability(0.8)
            .answer_when("x = ", "foo(a)\n")
            .or_answer_with("bar(a)\n", 0.99);
        let (text, work) = suggest_text("x.py", "x = ▮\n", engine, Eagerness::High);
        assert_eq!((text.as_deref(), work.searched, work.rejected_greedy), (Some("foo(a)"), 0, None));
    }

    #[test]
    fn best_alternative_replaces_unshowable_greedy_line() {
        let (text, work) = suggest_text("x.js", MARKED_CALL, repeating_engine(), Eagerness::High);
        assert_eq!(text.as_deref(), Some("clean: true,"), "the one with the most characters to expect");
        assert_eq!(work.rejected_greedy.unwrap().raw, "code: 2,\n");
        let again = ScriptedEngine::new()
            .with_probability(0.99)
            .answer_when("a: 1,", "code: 2,\n")
            .or_answer_with("code: 3,\n", 0.9);
        assert_eq!(
            suggest_text("x.js", MARKED_CALL, again, Eagerness::High).0,
            None,
            "the line below with another value"
        );
        // A text that is hardly ever right is still not suggested automatically.
        let (text, work) = suggest_text("x.js", MARKED_CALL, repeating_engine(), Eagerness::Low);
        assert_eq!((text, work.rejected_greedy), (None, None));
        // The line might have continued where it ended.
        let engine =
            ScriptedEngine::new().with_probability(0.9).answer_when("x ", "=\n").or_answer_with("= b\n", 0.5);
        let (text, _) = suggest_text("x.js", "const x ▮\n", engine, Eagerness::High);
        assert_eq!(text.as_deref(), Some("= b"));
    }

    #[test]
    fn interrupted_fallback_search_keeps_best_result() {
        let snapshot = fixture::snapshot("x.js", MARKED_CALL);
        let mut seen = Vec::new();
        for calls in 0.. {
            let (mut left, mut broken) = (calls, false);
            let mut last = String::new();
            let (text, work) =
                suggest_watched(snapshot.clone(), repeating_engine(), Eagerness::High, &mut |draft| {
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
    fn unsure_output_gets_no_fallback() {
        let engine = ScriptedEngine::new()
            .with_probability(0.8)
            .answer_when("x = ", "foo(a)\n")
            .or_answer_with("b\n", 0.05);
        let (text, work) = suggest_text("x.py", "x = ▮\n", engine, Eagerness::Low);
        assert_eq!((text, work.searched, work.reason), (None, 0, confidence_filter::UNSURE_RULE));
    }

    #[test]
    fn line_worth_uses_cumulative_probability() {
        let check = |tokens: &[(&str, f32)], worth: f32, all: f32, end| {
            let mut generation = Generation::empty(StopReason::Limit);
            for (token, probability) in tokens {
                generation.text += token;
                generation.tokens.push(ScoredToken { end: generation.text.len(), probability: *probability });
            }
            assert_eq!(
                LineWorth::of_generation(&generation),
                LineWorth { expected_chars: worth, probability: all, end },
                "{tokens:?}"
            );
        };
        let line = [("a", 0.5), (" b", 0.5), (")\n", 0.5), ("c", 0.1)];
        check(&line[..0], 0.0, 1.0, 0);
        check(&line[..1], 0.5, 0.5, 1);
        check(&line[..2], 1.0, 0.25, 3);
        // Of the token with the line break, only the text before the break counts.
        check(&line[..3], 1.125, 0.125, 4);
        check(&line, 1.125, 0.125, 4);
        check(&[("", 0.1), ("ö", 0.5), ("\n", 0.1)], 0.5, 0.5, 2);
        // A blank line is not the first line.
        check(&[("\n", 0.5), ("  a", 0.5), ("\n", 0.5)], 1.25, 0.25, 4);
    }
}

//! Other suggestions for a place beside the first: what the model nearly said, trimmed and checked alike.
//! It knows nothing of who asks, of threads or of clocks: the caller's `watch` says when to end.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use taper_engine::{BranchControl, BranchLimits, Engine, EngineError, ScoredToken, StopReason};

use super::post_processor::{FinishedOutput, PostProcessor};
use super::{
    CompletionWork, RejectedOutput, Snapshot, Suggestion, confidence, cursor_context, prompt_budget,
    rule_window, trigger,
};
use crate::prompt::{self, template::Profile};

/// Suggestions for one place at most, the first included.
pub const MAX_SUGGESTIONS: usize = 3;

/// A candidate and how well it stands.
struct RankedAlternative {
    suggestion: Suggestion,
    /// 0 for what the engine says by itself, then the branches: the likeliest begins first, whichever is complete first.
    number: usize,
    /// Mean logarithm of the shown tokens' probabilities.
    mean: f32,
}

/// Up to `most` candidates beside `first`, which [`suggest`](super::suggest) just gave for the same snapshot with
/// this `work`: the best first, no two alike.
///
/// The engine goes on with what it has in its cache; the first is not made again. `watch` is called after every token
/// with what is complete so far, in the order in which it would be shown; `Break` ends the search.
///
/// # Errors
/// The engine failed; see [`Engine::branch`].
pub fn find_alternatives(
    most: usize,
    snapshot: &Snapshot,
    profile: &Profile,
    engine: &mut dyn Engine,
    (first, work): (&Suggestion, &CompletionWork),
    watch: &mut dyn FnMut(&[Suggestion]) -> ControlFlow<()>,
) -> Result<Vec<Suggestion>, EngineError> {
    // What extends a popup's item was asked about another text.
    if most == 0 || snapshot.selected.is_some() {
        return Ok(Vec::new());
    }
    let options = &snapshot.options;
    let around = rule_window(snapshot);
    let place = cursor_context(&around, snapshot);
    let Ok(extent) = trigger::decide_extent(snapshot, &place) else { return Ok(Vec::new()) };
    // Who asks for more than one need not be told only what is sure.
    let rules = PostProcessor { snapshot, place: &place, extent, confidence_filter: None };
    let (prompt, _) = prompt::build_prompt(
        profile,
        engine.tokenizer(),
        snapshot.joined_document().prompt_file(),
        prompt_budget(options, profile),
    );
    // The engine branches off what it says by itself.
    let within = match &work.rejected_greedy {
        Some(RejectedOutput { raw, .. }) => raw.len(),
        None => confidence::shown_byte_len(&work.raw, &first.text),
    };
    let branching = BranchLimits {
        max_branches: most,
        within_bytes: within,
        max_tokens: options.max_tokens + prompt.healing_bytes.len(),
    };

    let new = |number, suggestion: Suggestion, raw: &str, pieces: &[ScoredToken]| {
        let mean = mean_log_probability(pieces, confidence::shown_byte_len(raw, &suggestion.text));
        RankedAlternative { suggestion, number, mean }
    };
    let mut found: Vec<RankedAlternative> = Vec::new();
    let mut shown: Vec<Suggestion> = Vec::new();
    let mut looked = [None; MAX_SUGGESTIONS];
    engine.branch(&branching, &mut |branch| {
        let text = branch.generation.text.as_str();
        // The same again is a look in the middle of a token's work.
        let seen = looked.get_mut(branch.number).is_some_and(|it| it.replace(text.len()) == Some(text.len()));
        let whole = branch.finished && branch.generation.stop == StopReason::EndOfText;
        let end = if seen && !branch.finished {
            None
        } else {
            rules.find_end(branch.generation.partial_output(), whole)
        };
        let complete = end.is_some() || branch.finished;
        if complete {
            let ended =
                FinishedOutput { generation: branch.generation.clone(), end, whole: end.is_some() || whole };
            let fits = rules
                .finish_suggestion(&ended)
                .0
                .filter(|it| it != first && found.iter().all(|old| old.suggestion != *it));
            if let Some(suggestion) = fits {
                found.push(new(branch.number, suggestion, text, &branch.generation.tokens));
                found.sort_by(RankedAlternative::rank_order);
                shown = found.iter().take(most).map(|it| it.suggestion.clone()).collect();
            }
        }
        match watch(&shown) {
            ControlFlow::Break(()) => BranchControl::Abort,
            ControlFlow::Continue(()) if complete => BranchControl::Finish,
            ControlFlow::Continue(()) => BranchControl::Continue,
        }
    })?;
    Ok(shown)
}

impl RankedAlternative {
    fn rank_order(&self, other: &Self) -> Ordering {
        let mean = other.mean.partial_cmp(&self.mean).unwrap_or(Ordering::Equal);
        mean.then(self.number.cmp(&other.number))
    }
}

/// The mean logarithm of the probabilities of the tokens in the first `extent` bytes, but for those that only spell
/// what was forced.
fn mean_log_probability(pieces: &[ScoredToken], extent: usize) -> f32 {
    let inside = confidence::tokens_in_range(pieces, 0..extent);
    // So exact that of texts which are equally sure, whatever their length, none is surer.
    let logs: Vec<f64> =
        inside.map(|piece| f64::from(piece.probability.max(f32::MIN_POSITIVE)).ln()).collect();
    (logs.iter().sum::<f64>() / logs.len().max(1) as f64) as f32
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use taper_engine::scripted::ScriptedEngine;

    use super::*;
    use crate::completion::fixture::snapshot;
    use crate::completion::suggest;

    /// The first suggestion, and the others after so many calls of `watch` at most.
    fn suggest_all(
        engine: ScriptedEngine,
        path: &str,
        marked: &str,
        most: usize,
        calls: usize,
    ) -> (String, Vec<String>) {
        let mut engine: Box<dyn Engine> = Box::new(engine);
        let profile = Profile::for_model(engine.engine_info(), engine.tokenizer());
        let snapshot = snapshot(path, marked);
        let (first, work) =
            suggest(&snapshot, &profile, engine.as_mut(), &mut |_| ControlFlow::Continue(())).unwrap();
        let first = first.unwrap();
        let mut left = calls;
        let mut told = Vec::new();
        let others =
            find_alternatives(most, &snapshot, &profile, engine.as_mut(), (&first, &work), &mut |complete| {
                told = complete.to_vec();
                left -= 1;
                if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
            .unwrap();
        assert_eq!(told, others, "who watches knows all");
        (first.text, others.into_iter().map(|it| it.text).collect())
    }

    fn suggest_with_alternatives(engine: ScriptedEngine, path: &str, marked: &str) -> (String, Vec<String>) {
        suggest_all(engine, path, marked, MAX_SUGGESTIONS - 1, usize::MAX)
    }

    #[test]
    fn alternatives_are_trimmed_and_validated() {
        let engine = ScriptedEngine::new()
            .answer_when("total = ", "sum(xs)\nprint(total)")
            .or_answer("len(xs)  \nprint(total)")
            .or_answer("max(xs)\n\nprint(total)");
        let (first, others) = suggest_with_alternatives(engine, "x.py", "total = ▮\n");
        assert_eq!(
            (first.as_str(), &others[..]),
            ("sum(xs)", &["len(xs)".to_owned(), "max(xs)".to_owned()][..])
        );
        let engine = ScriptedEngine::new().answer_when("f(a", ", b").or_answer(", (b").or_answer(", c");
        assert_eq!(
            suggest_with_alternatives(engine, "x.py", "f(a▮)\n").1,
            [", c"],
            "the other one would break the file"
        );
    }

    #[test]
    fn alternatives_are_distinct_after_trimming() {
        let engine =
            ScriptedEngine::new().answer_when("f(", "a, b)\nx").or_answer("a, c").or_answer("a, c)\ny");
        assert_eq!(suggest_with_alternatives(engine, "x.py", "f(▮)\n"), ("a, b".into(), vec!["a, c".into()]));
        let engine = ScriptedEngine::new().answer_when("f(", "a)").or_answer("a)\nb").or_answer("c)");
        assert_eq!(suggest_with_alternatives(engine, "x.py", "f(▮)\n"), ("a".into(), vec!["c".into()]));
    }

    #[test]
    fn alternative_differing_only_in_trimmed_text_is_dropped() {
        let engine = ScriptedEngine::new()
            .answer_when("total = ", "sum(xs)\nprint(total)")
            .or_answer("sum(xs)\nreturn total");
        assert_eq!(suggest_with_alternatives(engine, "x.py", "total = ▮\n").1, [""; 0]);
    }

    #[test]
    fn more_probable_alternative_ranks_first() {
        let piece = |end, probability| ScoredToken { end, probability };
        let sure = mean_log_probability(&[piece(0, 0.01), piece(3, 0.5), piece(6, 0.9), piece(9, 0.01)], 5);
        assert!((sure - (0.5_f32.ln() + 0.9_f32.ln()) / 2.0).abs() < 1e-6, "{sure}");
        assert!(mean_log_probability(&[piece(1, 0.0)], 1).is_finite());
        let suggestion = Suggestion { range: 0..0, text: String::new() };
        let found = |mean| RankedAlternative { suggestion: suggestion.clone(), number: 0, mean };
        assert_eq!(found(-1.0).rank_order(&found(-2.0)), Ordering::Less);
    }

    #[test]
    fn interrupted_search_returns_only_complete_alternatives() {
        // A token is a byte: the short one is complete after its line end, the long one is not yet.
        let engine =
            || ScriptedEngine::new().answer_when("x = ", "a\n").or_answer("b\n").or_answer("c + d + e + f\n");
        let counts: Vec<usize> = (1..30)
            .map(|calls| suggest_all(engine(), "x.py", "x = ▮\n", MAX_SUGGESTIONS - 1, calls).1.len())
            .collect();
        assert!(counts.is_sorted() && counts[0] == 0 && counts[10] == 1 && counts[28] == 2, "{counts:?}");
        assert_eq!(suggest_all(engine(), "x.py", "x = ▮\n", 1, usize::MAX).1, ["b"]);
        assert_eq!(suggest_all(engine(), "x.py", "x = ▮\n", 0, usize::MAX).1, [""; 0]);
    }
}

//! Alternatives to the first suggestion: other branches of the same prompt, trimmed and checked like the first.
//! The caller's `watch` decides when to stop.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use taper_engine::{BranchControl, BranchLimits, Engine, EngineError, ScoredToken, StopReason};

use super::post_processor::{FinishedOutput, PostProcessor};
use super::{
    CompletionWork, RejectedOutput, Snapshot, Suggestion, confidence, cursor_context, prompt_budget,
    rule_window, trigger,
};
use crate::prompt::{self, template::Profile};

/// Maximum suggestions for one cursor, including the first.
pub const MAX_SUGGESTIONS: usize = 3;

/// An alternative and its rank.
struct RankedAlternative {
    suggestion: Suggestion,
    /// 0 for the greedy output, then the branches in order of their first token's probability, whichever finishes
    /// first.
    number: usize,
    /// Mean log probability of the shown tokens.
    mean: f32,
}

/// Up to `most` alternatives to `first`, which [`suggest`](super::suggest) just returned with `work` for the same
/// snapshot: the best first, without duplicates.
///
/// The engine continues from its KV cache and does not decode the first again. `watch` is called after every token
/// with the complete alternatives so far, in display order; `Break` ends the search.
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
    // A suggestion that extends a popup's item was generated for another text.
    if most == 0 || snapshot.selected.is_some() {
        return Ok(Vec::new());
    }
    let options = &snapshot.options;
    let around = rule_window(snapshot);
    let place = cursor_context(&around, snapshot);
    let Ok(extent) = trigger::decide_extent(snapshot, &place) else { return Ok(Vec::new()) };
    // A request for several suggestions needs no confidence threshold.
    let rules = PostProcessor { snapshot, place: &place, extent, confidence_filter: None };
    let (prompt, _) = prompt::build_prompt(
        profile,
        engine.tokenizer(),
        snapshot.joined_document().prompt_file(),
        prompt_budget(options, profile),
    );
    // The engine branches off its greedy output.
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
    let mut seen_lens = [None; MAX_SUGGESTIONS];
    engine.branch(&branching, &mut |branch| {
        let text = branch.generation.text.as_str();
        // An unchanged length means that the engine polls in the middle of a token.
        let seen =
            seen_lens.get_mut(branch.number).is_some_and(|it| it.replace(text.len()) == Some(text.len()));
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

/// The mean log probability of the tokens in the first `extent` bytes, without those that only spell the forced text.
fn mean_log_probability(pieces: &[ScoredToken], extent: usize) -> f32 {
    let inside = confidence::tokens_in_range(pieces, 0..extent);
    // Summed in f64, so that equally confident texts of different lengths get equal means.
    let logs: Vec<f64> =
        inside.map(|piece| f64::from(piece.probability.max(f32::MIN_POSITIVE)).ln()).collect();
    (logs.iter().sum::<f64>() / logs.len().max(1) as f64) as f32
}

#[cfg(test)]
mod tests {
    use taper_engine::scripted::ScriptedEngine;

    use super::*;
    use crate::completion::fixture::snapshot;
    use crate::completion::suggest;

    /// The first suggestion, and the alternatives after at most `calls` calls of `watch`.
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
        let mut reported = Vec::new();
        let others =
            find_alternatives(most, &snapshot, &profile, engine.as_mut(), (&first, &work), &mut |complete| {
                reported = complete.to_vec();
                left -= 1;
                if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
            .unwrap();
        assert_eq!(reported, others, "watch reports every alternative");
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
        // A token is one byte: the short one is complete after its line break, the long one is not yet.
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

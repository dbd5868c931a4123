//! Alternatives to the first suggestion: other branches of the same prompt, trimmed and checked like the first.
//! The caller's `watch` decides when to stop.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use taper_engine::{
    BranchControl, BranchLimits, BranchOutput, Engine, EngineError, Generation, ScoredToken, StopReason,
};

use super::pipeline::{FinishedOutput, PostProcessor};
use super::{
    CompletionWork, RejectedOutput, Snapshot, Suggestion, best_prompt, confidence, cursor_context,
    rule_window, trigger,
};
use crate::prompt::template::Profile;

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

/// A search for alternatives to what [`suggest`](super::suggest) just returned.
#[derive(Debug, Clone, Copy)]
pub struct AlternativesRequest<'a> {
    /// The snapshot of both.
    pub snapshot: &'a Snapshot,
    /// The suggestion.
    pub first: &'a Suggestion,
    /// The work done for it.
    pub work: &'a CompletionWork,
    /// Maximum alternatives.
    pub most: usize,
}

/// The alternatives to the first suggestion: the best first, without duplicates.
///
/// The engine continues from its KV cache and does not decode the first again. `watch` is called after every token
/// with the complete alternatives so far, in display order; `Break` ends the search.
///
/// # Errors
/// The engine failed; see [`Engine::branch`].
pub fn find_alternatives(
    request: AlternativesRequest<'_>,
    profile: &Profile,
    engine: &mut dyn Engine,
    watch: &mut dyn FnMut(&[Suggestion]) -> ControlFlow<()>,
) -> Result<Vec<Suggestion>, EngineError> {
    let AlternativesRequest { snapshot, first, work, most } = request;
    // A suggestion that extends a popup's item was generated for another text.
    if most == 0 || snapshot.selected.is_some() {
        return Ok(Vec::new());
    }
    let around = rule_window(snapshot);
    let place = cursor_context(&around, snapshot);
    let Ok(extent) = trigger::decide_extent(snapshot, &place) else { return Ok(Vec::new()) };
    let healing_bytes = best_prompt(snapshot, profile, engine.tokenizer()).healing_bytes;
    let limits = BranchLimits {
        max_branches: most,
        // The engine branches off its greedy output.
        within_bytes: match &work.rejected_greedy {
            Some(RejectedOutput { raw, .. }) => raw.len(),
            None => confidence::shown_byte_len(&work.raw, &first.text),
        },
        max_tokens: snapshot.options.max_tokens + healing_bytes.len(),
    };
    let mut search = AlternativeSearch {
        most,
        first,
        // A request for several suggestions needs no confidence threshold.
        rules: PostProcessor { snapshot, place: &place, extent, confidence_filter: None },
        seen_lens: [None; MAX_SUGGESTIONS],
        found: Vec::new(),
        shown: Vec::new(),
    };
    engine.branch(&limits, &mut |branch| {
        let control = search.inspect_branch(branch);
        if watch(&search.shown).is_break() { BranchControl::Abort } else { control }
    })?;
    Ok(search.shown)
}

struct AlternativeSearch<'a> {
    most: usize,
    first: &'a Suggestion,
    rules: PostProcessor<'a>,
    /// Bytes of each branch at the last call.
    seen_lens: [Option<usize>; MAX_SUGGESTIONS],
    /// The complete alternatives, the best first.
    found: Vec<RankedAlternative>,
    /// The `most` best of them.
    shown: Vec<Suggestion>,
}

impl AlternativeSearch<'_> {
    /// Processes a branch's new text and returns whether to continue it.
    fn inspect_branch(&mut self, branch: &BranchOutput<'_>) -> BranchControl {
        let BranchOutput { number, generation, finished } = *branch;
        let len = generation.text.len();
        // An unchanged length means that the engine polls in the middle of a token.
        let seen = self.seen_lens.get_mut(number).is_some_and(|it| it.replace(len) == Some(len));
        if seen && !finished {
            return BranchControl::Continue;
        }
        let whole = finished && generation.stop == StopReason::EndOfText;
        let end = self.rules.find_end(generation.partial_output(), whole);
        if end.is_none() && !finished {
            return BranchControl::Continue;
        }
        let output = FinishedOutput { generation: generation.clone(), end, whole: end.is_some() || whole };
        if let Some(suggestion) = self.rules.finish_suggestion(&output).0 {
            self.add_alternative(number, suggestion, generation);
        }
        BranchControl::Finish
    }

    /// Adds a complete alternative, unless it is known already.
    fn add_alternative(&mut self, number: usize, suggestion: Suggestion, generation: &Generation) {
        if suggestion == *self.first || self.found.iter().any(|old| old.suggestion == suggestion) {
            return;
        }
        let extent = confidence::shown_byte_len(&generation.text, &suggestion.text);
        let mean = mean_log_probability(&generation.tokens, extent);
        self.found.push(RankedAlternative { suggestion, number, mean });
        self.found.sort_by(RankedAlternative::rank_order);
        self.shown = self.found.iter().take(self.most).map(|it| it.suggestion.clone()).collect();
    }
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
        let request = AlternativesRequest { snapshot: &snapshot, first: &first, work: &work, most };
        let others = find_alternatives(request, &profile, engine.as_mut(), &mut |complete| {
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

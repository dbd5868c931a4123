//! Other suggestions for a place beside the first: what the model nearly said, trimmed and checked alike.
//! It knows nothing of who asks, of threads or of clocks: the caller's `watch` says when to end.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use taper_engine::{Branching, Engine, EngineError, Growth, Piece, Stop};

use super::rules::{Ended, Rules};
use super::{PassedOver, Snapshot, Suggestion, Work, around, budget, confidence, placed, trigger};
use crate::prompt::{self, template::Profile};

/// Suggestions for one place at most, the first included.
pub const MOST: usize = 3;

/// A candidate and how well it stands.
struct Found {
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
pub fn others(
    most: usize,
    snapshot: &Snapshot,
    profile: &Profile,
    engine: &mut dyn Engine,
    (first, work): (&Suggestion, &Work),
    watch: &mut dyn FnMut(&[Suggestion]) -> ControlFlow<()>,
) -> Result<Vec<Suggestion>, EngineError> {
    // What extends a popup's item was asked about another text.
    if most == 0 || snapshot.selected.is_some() {
        return Ok(Vec::new());
    }
    let options = &snapshot.options;
    let around = around(snapshot);
    let place = placed(&around, snapshot);
    let Ok(extent) = trigger::plan(snapshot, &place) else { return Ok(Vec::new()) };
    // Who asks for more than one need not be told only what is sure.
    let rules = Rules { snapshot, place: &place, extent, bar: None };
    let (prompt, _) =
        prompt::build(profile, engine.tokens(), snapshot.whole().file(), budget(options, profile));
    // The engine branches off what it says by itself.
    let within = match &work.passed_over {
        Some(PassedOver { raw, .. }) => raw.len(),
        None => confidence::extent(&work.raw, &first.text),
    };
    let branching = Branching { most, within, max_tokens: options.max_tokens + prompt.forced.len() };

    let new = |number, suggestion: Suggestion, raw: &str, pieces: &[Piece]| {
        let mean = mean_log(pieces, confidence::extent(raw, &suggestion.text));
        Found { suggestion, number, mean }
    };
    let mut found: Vec<Found> = Vec::new();
    let mut shown: Vec<Suggestion> = Vec::new();
    let mut looked = [None; MOST];
    engine.branch(&branching, &mut |branch| {
        let text = branch.generation.text.as_str();
        // The same again is a look in the middle of a token's work.
        let seen = looked.get_mut(branch.number).is_some_and(|it| it.replace(text.len()) == Some(text.len()));
        let whole = branch.ended && branch.generation.stop == Stop::EndOfText;
        let end = if seen && !branch.ended { None } else { rules.end(branch.generation.said(), whole) };
        let complete = end.is_some() || branch.ended;
        if complete {
            let ended = Ended { generation: branch.generation.clone(), end, whole: end.is_some() || whole };
            let fits = rules
                .finish(&ended)
                .0
                .filter(|it| it != first && found.iter().all(|old| old.suggestion != *it));
            if let Some(suggestion) = fits {
                found.push(new(branch.number, suggestion, text, &branch.generation.pieces));
                found.sort_by(Found::order);
                shown = found.iter().take(most).map(|it| it.suggestion.clone()).collect();
            }
        }
        match watch(&shown) {
            ControlFlow::Break(()) => Growth::Stop,
            ControlFlow::Continue(()) if complete => Growth::Enough,
            ControlFlow::Continue(()) => Growth::On,
        }
    })?;
    Ok(shown)
}

impl Found {
    fn order(&self, other: &Self) -> Ordering {
        let mean = other.mean.partial_cmp(&self.mean).unwrap_or(Ordering::Equal);
        mean.then(self.number.cmp(&other.number))
    }
}

/// The mean logarithm of the probabilities of the tokens in the first `extent` bytes, but for those that only spell
/// what was forced.
fn mean_log(pieces: &[Piece], extent: usize) -> f32 {
    let inside = confidence::inside(pieces, 0..extent);
    // So exact that of texts which are equally sure, whatever their length, none is surer.
    let logs: Vec<f64> =
        inside.map(|piece| f64::from(piece.probability.max(f32::MIN_POSITIVE)).ln()).collect();
    (logs.iter().sum::<f64>() / logs.len().max(1) as f64) as f32
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use taper_engine::scripted::Scripted;

    use super::*;
    use crate::suggest::fixture::snapshot;
    use crate::suggest::suggest;

    /// The first suggestion, and the others after so many calls of `watch` at most.
    fn all(engine: Scripted, path: &str, marked: &str, most: usize, calls: usize) -> (String, Vec<String>) {
        let mut engine: Box<dyn Engine> = Box::new(engine);
        let profile = Profile::of(engine.about(), engine.tokens());
        let snapshot = snapshot(path, marked);
        let (first, work) =
            suggest(&snapshot, &profile, engine.as_mut(), &mut |_| ControlFlow::Continue(())).unwrap();
        let first = first.unwrap();
        let mut left = calls;
        let mut told = Vec::new();
        let others = others(most, &snapshot, &profile, engine.as_mut(), (&first, &work), &mut |complete| {
            told = complete.to_vec();
            left -= 1;
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
        assert_eq!(told, others, "who watches knows all");
        (first.text, others.into_iter().map(|it| it.text).collect())
    }

    fn found(engine: Scripted, path: &str, marked: &str) -> (String, Vec<String>) {
        all(engine, path, marked, MOST - 1, usize::MAX)
    }

    #[test]
    fn candidates_are_cut_and_checked_as_the_first_is() {
        let engine = Scripted::new()
            .when("total = ", "sum(xs)\nprint(total)")
            .or("len(xs)  \nprint(total)")
            .or("max(xs)\n\nprint(total)");
        let (first, others) = found(engine, "x.py", "total = ▮\n");
        assert_eq!(
            (first.as_str(), &others[..]),
            ("sum(xs)", &["len(xs)".to_owned(), "max(xs)".to_owned()][..])
        );
        let engine = Scripted::new().when("f(a", ", b").or(", (b").or(", c");
        assert_eq!(found(engine, "x.py", "f(a▮)\n").1, [", c"], "the other one would break the file");
    }

    #[test]
    fn no_two_are_alike_once_they_are_trimmed() {
        let engine = Scripted::new().when("f(", "a, b)\nx").or("a, c").or("a, c)\ny");
        assert_eq!(found(engine, "x.py", "f(▮)\n"), ("a, b".into(), vec!["a, c".into()]));
        let engine = Scripted::new().when("f(", "a)").or("a)\nb").or("c)");
        assert_eq!(found(engine, "x.py", "f(▮)\n"), ("a".into(), vec!["c".into()]));
    }

    #[test]
    fn what_was_cut_off_the_first_is_no_reason_for_another() {
        let engine = Scripted::new().when("total = ", "sum(xs)\nprint(total)").or("sum(xs)\nreturn total");
        assert_eq!(found(engine, "x.py", "total = ▮\n").1, [""; 0]);
    }

    #[test]
    fn the_more_probable_one_comes_first() {
        let piece = |end, probability| Piece { end, probability };
        let sure = mean_log(&[piece(0, 0.01), piece(3, 0.5), piece(6, 0.9), piece(9, 0.01)], 5);
        assert!((sure - (0.5_f32.ln() + 0.9_f32.ln()) / 2.0).abs() < 1e-6, "{sure}");
        assert!(mean_log(&[piece(1, 0.0)], 1).is_finite());
        let suggestion = Suggestion { range: 0..0, text: String::new() };
        let found = |mean| Found { suggestion: suggestion.clone(), number: 0, mean };
        assert_eq!(found(-1.0).order(&found(-2.0)), Ordering::Less);
    }

    #[test]
    fn only_what_is_complete_counts_when_time_is_up() {
        // A token is a byte: the short one is complete after its line end, the long one is not yet.
        let engine = || Scripted::new().when("x = ", "a\n").or("b\n").or("c + d + e + f\n");
        let counts: Vec<usize> =
            (1..30).map(|calls| all(engine(), "x.py", "x = ▮\n", MOST - 1, calls).1.len()).collect();
        assert!(counts.is_sorted() && counts[0] == 0 && counts[10] == 1 && counts[28] == 2, "{counts:?}");
        assert_eq!(all(engine(), "x.py", "x = ▮\n", 1, usize::MAX).1, ["b"]);
        assert_eq!(all(engine(), "x.py", "x = ▮\n", 0, usize::MAX).1, [""; 0]);
    }
}

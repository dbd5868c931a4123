//! How much the model reads for an answer: the whole window, or a shorter one where time is short.
//! It knows nothing of clocks: it is told the time that is left.

use std::time::Duration;

use taper_engine::{Engine, Limits, Prompt};

use super::{Snapshot, budget, file};
use crate::prompt::{self, Budget, template::Profile};

/// The shortest window, tokens before and after the cursor: less gives answers that are not worth having. The window
/// keeps at least half of it, because its start moves in steps.
const SHORTEST: (usize, usize) = (160, 40);
/// Decoded tokens that make a short answer.
const ANSWER: f32 = 12.0;
/// A prompt of which at most one in so many tokens is new is warm.
const WARM: usize = 4;
/// So few new tokens are a keystroke's, however short the prompt.
const KEYSTROKE: usize = 32;

/// A prompt with a shorter window, if `full` cannot be read and answered within `left`; the nearest code stays.
///
/// What is in the cache decides first: a prompt that is warm is gone on with, the longest such, so that one
/// keystroke does not throw away what the last one read. Where none is, it is the longest that fits the time,
/// or else the one with the least to read.
pub(super) fn shorter(
    left: Duration,
    snapshot: &Snapshot,
    profile: &Profile,
    engine: &dyn Engine,
    full: &Prompt,
) -> Option<Prompt> {
    let new = |prompt: &Prompt| engine.unread(prompt, &Limits::default());
    let warm = |prompt: &Prompt| new(prompt) <= KEYSTROKE.max(prompt.tokens.len() / WARM);
    if warm(full) {
        return None;
    }
    let whole = budget(&snapshot.options);
    let shorter: Vec<Prompt> = budgets(whole)
        .map(|budget| prompt::build(profile, engine.tokens(), file(snapshot), budget).0)
        // A file that is short anyway.
        .filter(|prompt| prompt.tokens.len() < full.tokens.len())
        .collect();
    if let Some(at) = shorter.iter().position(warm) {
        return shorter.into_iter().nth(at);
    }
    let rates = engine.rates();
    // A decoder too slow for a short answer is no reason to read nothing: then half of the time is for reading.
    let answer = (ANSWER / rates.decode).min(left.as_secs_f32() / 2.0);
    let fits = |prompt: &Prompt| new(prompt) as f32 / rates.prefill + answer <= left.as_secs_f32();
    if fits(full) {
        return None;
    }
    let at = shorter.iter().position(fits);
    let least = || (0..shorter.len()).min_by_key(|&at| new(&shorter[at]));
    let at = at.or_else(least).filter(|&at| new(&shorter[at]) < new(full))?;
    shorter.into_iter().nth(at)
}

/// The budgets below `whole`, in big steps, largest first.
fn budgets(whole: Budget) -> impl Iterator<Item = Budget> {
    let (prefix, suffix) = SHORTEST;
    let halves = std::iter::successors(Some(whole), |it| {
        Some(Budget { prefix: it.prefix / 2, suffix: it.suffix / 2, ..*it })
    });
    let halves = halves.skip(1).take_while(move |it| it.prefix > prefix * 3 / 2);
    let shortest = Budget { prefix, suffix: suffix.min(whole.suffix), ..whole };
    halves.chain(Some(shortest).filter(|_| whole.prefix > prefix))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::ops::ControlFlow;

    use taper_engine::scripted::Scripted;

    use super::super::{Options, Suggestion, Trigger, Work, ahead, suggest_within};
    use super::*;
    use crate::prompt::template::{Form, Layout};
    use crate::text::{Edit, Rope};

    const LEFT: Duration = Duration::from_millis(200);

    /// 5,000 prompt tokens and 1,000 decoded ones a second, a token a byte.
    fn engine() -> (Box<dyn Engine>, Profile) {
        let engine = Scripted::new()
            .answering(|_| "call()".to_owned())
            .prefill_delay(Duration::from_micros(200))
            .decode_delay(Duration::from_millis(1));
        let engine: Box<dyn Engine> = Box::new(engine);
        let mut profile = Profile::of(engine.about(), engine.tokens());
        profile.form = Form { layout: Layout::Anchored { lines: 10 }, heal: true, header: true };
        (engine, profile)
    }

    fn snapshot() -> Snapshot {
        let lines = |range: std::ops::Range<usize>| -> String {
            range.map(|n| format!("value_{n:03} = {n}\n")).collect()
        };
        let before = format!("{}total = ", lines(0..200));
        Snapshot {
            text: Rope::from(format!("{before}\n{}", lines(300..400))),
            syntax: None,
            language: None,
            path: "a".to_owned(),
            cursor: before.len(),
            selected: None,
            trigger: Trigger::Automatic,
            // Of a vocabulary of bytes these are many windows' worth.
            options: Options { prefix_tokens: 1600, suffix_tokens: 400, ..Options::default() },
        }
    }

    fn typed(snapshot: &Snapshot, text: &str) -> Snapshot {
        let mut after = snapshot.clone();
        Edit::insert(snapshot.cursor, text).apply(&mut after.text).unwrap();
        after.cursor += text.len();
        after
    }

    fn ask(
        left: Option<Duration>,
        snapshot: &Snapshot,
        (engine, profile): &mut (Box<dyn Engine>, Profile),
    ) -> (Option<Suggestion>, Work) {
        suggest_within(left, snapshot, profile, engine.as_mut(), &mut |_| ControlFlow::Continue(())).unwrap()
    }

    #[test]
    fn a_cold_place_is_answered_from_a_window_that_fits_and_the_whole_one_is_read_afterwards() {
        let mut it = engine();
        let place = snapshot();
        let (suggestion, work) = ask(Some(LEFT), &place, &mut it);
        assert_eq!(suggestion.unwrap().text, "call()");
        // 200 ms are 1,000 tokens of the prompt, less twelve decoded ones'.
        assert!(work.short && (400..=940).contains(&work.prompt_tokens), "{work:?}");

        // Typed on at once: the same short window, and hardly anything to read.
        let place = typed(&place, "s");
        let (_, work) = ask(Some(LEFT), &place, &mut it);
        assert!(work.short && work.evaluated <= 4, "{work:?}");

        assert!(ahead::read(&place, &it.1, it.0.as_mut(), &mut || ControlFlow::Continue(())).unwrap());
        let place = typed(&place, "u");
        let (_, work) = ask(Some(LEFT), &place, &mut it);
        assert!(!work.short && work.evaluated <= 4 && work.prompt_tokens > 1000, "{work:?}");
    }

    #[test]
    fn the_less_time_the_shorter_the_window_but_never_shorter_than_is_of_use() {
        let mut lengths = Vec::new();
        for milliseconds in [1000, 300, 150, 100, 10, 0] {
            let (_, work) = ask(Some(Duration::from_millis(milliseconds)), &snapshot(), &mut engine());
            lengths.push(work.prompt_tokens);
        }
        let (_, whole) = ask(None, &snapshot(), &mut engine());
        assert_eq!(lengths[0], whole.prompt_tokens);
        assert!(lengths.is_sorted_by(|a, b| a >= b), "{lengths:?}");
        assert!(lengths[1] > lengths[3], "{lengths:?}");
        assert!(lengths[5] == lengths[4] && lengths[5] >= 96, "{lengths:?}");
    }

    #[test]
    fn an_interrupted_reading_is_gone_on_with_where_most_is_done() {
        for (tenths, gone_on_with) in [(1, false), (3, false), (8, true)] {
            let mut it = engine();
            let place = snapshot();
            let (_, work) = ask(Some(LEFT), &place, &mut it);
            assert!(work.short);
            // Interrupted there.
            let budget = budget(&place.options);
            let (mut prompt, _) = prompt::build(&it.1, it.0.tokens(), file(&place), budget);
            let whole = prompt.tokens.len();
            prompt.tokens.truncate(whole * tenths / 10);
            let read = Limits { max_tokens: 0, ..Limits::default() };
            it.0.generate(&prompt, &read, &mut |_| ControlFlow::Continue(())).unwrap();

            let (_, work) = ask(Some(LEFT), &typed(&place, "s"), &mut it);
            assert_eq!(work.short, !gone_on_with, "{work:?}");
            assert!(!gone_on_with || work.evaluated <= whole / WARM, "{work:?}");
        }
    }

    #[test]
    fn a_reading_ends_when_somebody_waits_and_keeps_what_it_has() {
        let (mut engine, profile) = engine();
        let place = snapshot();
        let mut calls = 0;
        let done = ahead::read(&place, &profile, engine.as_mut(), &mut || {
            calls += 1;
            if calls > 8 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert!(!done.unwrap());
        let (prompt, _) = prompt::build(&profile, engine.tokens(), file(&place), budget(&place.options));
        let read = prompt.tokens.len() - engine.unread(&prompt, &Limits::default());
        // Two looks or more a step of 50 tokens.
        assert!((50..=200).contains(&read), "{read}");
    }

    #[test]
    fn a_file_that_is_short_anyway_is_read_whole() {
        let (text, cursor) = (Rope::from("x = \n"), 4);
        let place = Snapshot { text, cursor, ..snapshot() };
        let (_, work) = ask(Some(Duration::ZERO), &place, &mut engine());
        assert!(!work.short);
    }
}

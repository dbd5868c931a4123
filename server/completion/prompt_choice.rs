//! Chooses the prompt for a request: the best one if there is time to prefill it, otherwise a cached one.
//! The caller passes the remaining time.

use std::rc::Rc;
use std::time::Duration;

use taper_engine::{Engine, GenerationLimits, Prompt};

use super::{JoinedDocument, Snapshot, prompt_budget};
use crate::prompt::{self, BYTES_PER_TOKEN, Budget, EncodeCache, PromptFile, template::Profile};

/// The shortest window, in tokens before and after the cursor: a shorter one gives useless suggestions. The window
/// keeps at least half of it, because its start moves in steps.
const MIN_WINDOW_TOKENS: (usize, usize) = (160, 40);
/// Decoded tokens of a short suggestion.
const SHORT_ANSWER_TOKENS: f32 = 12.0;
/// A prompt is warm if at most one token in this many is new.
const WARM_DIVISOR: usize = 4;
/// At most this many new tokens are a keystroke's, however short the prompt.
pub(super) const KEYSTROKE_TOKENS: usize = 32;
/// A suffix is still used if at most this many tokens were typed before it since its prefill. More cost accuracy
/// (`benches/split_cache.rs`).
const SUFFIX_STALENESS: usize = 32;
/// The limit if prefilling the suffix again would make a keystroke wait. It is prefilled again while idle.
const MAX_SUFFIX_STALENESS: usize = 128;
/// Lines above the cursor's at which a prompt may have been built whose prefix is continued. One step of the anchor
/// is eight lines.
const ANCHOR_LINES_BACK: [usize; 6] = [0, 1, 2, 4, 8, 16];

/// A prompt, and how it differs from the best one.
#[derive(Debug, Default)]
pub(super) struct PromptChoice {
    pub(super) prompt: Prompt,
    /// It has less of the file.
    pub(super) short: bool,
    /// Its window or anchor is that of some lines ago.
    pub(super) older: bool,
    /// For [`GenerationLimits::max_stale_tokens`].
    pub(super) stale: usize,
}

/// Chooses the prompt for a response within `left`: `best`, or a cheaper one.
///
/// The best prompt moves with the cursor: every few lines its window or its anchor moves, or its suffix should see
/// the typed text. No keystroke may wait for that. Candidates, in order of preference: (1) cached except for a
/// keystroke's tokens (the best prompt, one anchored a few lines up, or a shorter window); (2) the same with a staler
/// suffix; (3) mostly cached and finishable in time; (4) the longest that can be prefilled in time; (5) the one with
/// the fewest tokens left.
///
/// The rest is prefilled while idle ([`super::next_actions::prefill_ahead`]).
pub(super) fn choose_prompt(
    left: Duration,
    snapshot: &Snapshot,
    profile: &Profile,
    engine: &dyn Engine,
    best: Prompt,
) -> PromptChoice {
    let new = |prompt: &Prompt, stale| {
        engine.uncached_token_count(
            prompt,
            &GenerationLimits { max_stale_tokens: stale, ..GenerationLimits::default() },
        )
    };
    let best = PromptChoice { prompt: best, stale: SUFFIX_STALENESS, ..PromptChoice::default() };
    if new(&best.prompt, SUFFIX_STALENESS) <= KEYSTROKE_TOKENS {
        return best;
    }
    let mut all = vec![best];
    let whole = snapshot.joined_document();
    for other in cheaper_prompts(&whole, profile, engine) {
        if all.iter().any(|it| it.prompt == other.prompt) {
            continue;
        }
        if new(&other.prompt, SUFFIX_STALENESS) <= KEYSTROKE_TOKENS {
            return other;
        }
        all.push(other);
    }

    let rates = engine.throughput();
    // Even if the decoder is too slow for a short suggestion, half of the time is for the prefill.
    let answer = (SHORT_ANSWER_TOKENS / rates.decode).min(left.as_secs_f32() / 2.0);
    let in_time = |tokens: usize| tokens as f32 / rates.prefill + answer <= left.as_secs_f32();
    let fresh: Vec<usize> = all.iter().map(|it| new(&it.prompt, SUFFIX_STALENESS)).collect();
    let overdue: Vec<usize> = all.iter().map(|it| new(&it.prompt, MAX_SUFFIX_STALENESS)).collect();
    let warm = |new: &[usize]| {
        let mut at = (0..all.len()).zip(new);
        at.find(|&(at, &new)| new <= all[at].prompt.tokens.len() / WARM_DIVISOR && in_time(new))
            .map(|(at, _)| at)
    };
    let keystroke = |new: &[usize]| new.iter().position(|&new| new <= KEYSTROKE_TOKENS);
    let reads = |new: &[usize]| new.iter().position(|&new| in_time(new));
    let least = || (0..overdue.len()).min_by_key(|&at| overdue[at]);
    let of = |at: Option<usize>, stale| at.map(|at| (at, stale));
    let chosen = of(keystroke(&overdue), MAX_SUFFIX_STALENESS)
        .or_else(|| of(warm(&fresh), SUFFIX_STALENESS))
        .or_else(|| of(reads(&fresh), SUFFIX_STALENESS))
        .or_else(|| of(least(), MAX_SUFFIX_STALENESS));
    let (at, stale) = chosen.unwrap_or((0, SUFFIX_STALENESS));
    PromptChoice { stale, ..all.swap_remove(at) }
}

/// The longest prompt that can be prefilled entirely in `time` at the engine's recent speed: `best`, or one with a
/// shorter window; the shortest if none can, or without a measurement.
pub(super) fn longest_prompt(
    time: Duration,
    snapshot: &Snapshot,
    profile: &Profile,
    engine: &dyn Engine,
    best: Prompt,
) -> Prompt {
    let most = engine.throughput().prefill * time.as_secs_f32();
    let mut longest = best;
    let (memo, whole) = (EncodeCache::default(), snapshot.joined_document());
    let file = whole.prompt_file();
    for budget in smaller_budgets(prompt_budget(&snapshot.options, profile)) {
        if longest.tokens.len() as f32 <= most {
            break;
        }
        longest = prompt::build_anchored_at(file.cursor, profile, engine.tokenizer(), file, budget, &memo).0;
    }
    longest
}

/// All candidates except the best one, in order of preference: the whole window as it was some lines ago, then with
/// the previous snippets, then shorter windows, now and as they were. Some may be equal.
fn cheaper_prompts<'a>(
    file: &'a JoinedDocument<'_>,
    profile: &'a Profile,
    engine: &'a dyn Engine,
) -> impl Iterator<Item = PromptChoice> + 'a {
    let (snapshot, now) = (file.snapshot, file.prompt_file());
    let (text, cursor, whole) = (now.text, now.cursor, prompt_budget(&snapshot.options, profile));
    // The previous snippets, if they differ.
    let before = Some(PromptFile { snippets: &snapshot.previous_snippets, ..now });
    let before = before.filter(|it| !it.snippets.is_empty() && it.snippets != now.snippets);
    let files = [Some(now), before].into_iter().flatten();
    let line = text.byte_to_line(cursor);
    // The prompt also contains the text between the two cursors: at most another window, even on a line of megabytes.
    let farthest = cursor.saturating_sub(whole.prefix * BYTES_PER_TOKEN);
    let ago =
        ANCHOR_LINES_BACK.iter().filter_map(move |ago| Some(text.line_to_byte(line.checked_sub(*ago)?)));
    let ago = ago.filter(move |&place| place >= farthest);
    let earlier = [cursor].into_iter().chain(ago);
    let memo = Rc::new(EncodeCache::default());
    [whole].into_iter().chain(smaller_budgets(whole)).flat_map(move |budget| {
        let (memo, earlier) = (Rc::clone(&memo), earlier.clone());
        files.clone().flat_map(move |file| {
            let memo = Rc::clone(&memo);
            earlier.clone().map(move |earlier| {
                let prompt =
                    prompt::build_anchored_at(earlier, profile, engine.tokenizer(), file, budget, &memo).0;
                let (short, older) = (budget != whole, earlier != cursor);
                PromptChoice { prompt, short, older, stale: SUFFIX_STALENESS }
            })
        })
    })
}

/// The budgets below `whole`, in big steps, the best first: other files are dropped before text of the own file.
fn smaller_budgets(whole: Budget) -> impl Iterator<Item = Budget> {
    let (prefix, suffix) = MIN_WINDOW_TOKENS;
    let halves = std::iter::successors(Some(whole), |it| {
        Some(Budget { prefix: it.prefix / 2, suffix: it.suffix / 2, snippets: it.snippets / 2, ..*it })
    });
    let halves = halves.skip(1).take_while(move |it| it.prefix > prefix * 3 / 2);
    let alone = |it: Budget| Some(Budget { snippets: 0, ..it }).filter(|_| it.snippets > 0);
    let all = [whole].into_iter().chain(halves).flat_map(move |it| [Some(it), alone(it)]).flatten();
    let shortest = Budget { prefix, suffix: suffix.min(whole.suffix), snippets: 0, ..whole };
    all.skip(1).chain(Some(shortest).filter(|_| whole.prefix > prefix))
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use taper_engine::Tokenizer;
    use taper_engine::scripted::ScriptedEngine;

    use super::super::next_actions::{self, PrefillDepth, PrefillLimits, PrefillState};
    use super::super::{CompletionWork, IdleSetting, Options, Suggestion, best_prompt, suggest_within};
    use super::*;
    use crate::prompt::chat::ChatFormat;
    use crate::prompt::template::{PromptForm, PromptLayout, SegmentOrder, TEMPLATES, Template};
    use crate::retrieval::Snippet;
    use crate::text::{Edit, Rope};

    const TIME_LEFT: Duration = Duration::from_millis(200);

    /// 5,000 prompt tokens and 1,000 decoded tokens per second; one token per byte.
    fn engine() -> (Box<dyn Engine>, Profile) {
        let (prefill, decode) = (Duration::from_micros(200), Duration::from_millis(1));
        profiled_engine(ScriptedEngine::new().prefill_delay(prefill).decode_delay(decode))
    }

    /// Every prompt is prefilled in time.
    fn fast_engine() -> (Box<dyn Engine>, Profile) {
        profiled_engine(ScriptedEngine::new())
    }

    fn profiled_engine(engine: ScriptedEngine) -> (Box<dyn Engine>, Profile) {
        let engine: Box<dyn Engine> = Box::new(engine.answer_with(|_| "call()".to_owned()));
        let mut profile = Profile::for_model(engine.engine_info(), engine.tokenizer());
        profile.form = PromptForm {
            layout: PromptLayout::Anchored { lines: 10 },
            heal: true,
            header: true,
            suffix: 128,
            snippets: 0,
        };
        (engine, profile)
    }

    fn snapshot() -> Snapshot {
        let lines = |range: std::ops::Range<usize>| -> String {
            range.map(|n| format!("value_{n:03} = {n}\n")).collect()
        };
        let before = format!("{}total = ", lines(0..200));
        let text = Rope::from(format!("{before}\n{}", lines(300..400)));
        // With a vocabulary of bytes these are many windows' worth.
        let options = Options { prefix_tokens: 1600, suffix_tokens: Some(400), ..Options::default() };
        Snapshot { path: "a".to_owned(), ..Snapshot::new(text, before.len(), options) }
    }

    fn type_text(snapshot: &Snapshot, text: &str) -> Snapshot {
        let mut after = snapshot.clone();
        Edit::insert(snapshot.cursor, text).apply(&mut after.text).unwrap();
        after.cursor += text.len();
        after
    }

    fn suggest_at(
        left: Option<Duration>,
        snapshot: &Snapshot,
        (engine, profile): &mut (Box<dyn Engine>, Profile),
    ) -> (Option<Suggestion>, CompletionWork) {
        suggest_within(left, snapshot, profile, engine.as_mut(), &mut |_| ControlFlow::Continue(())).unwrap()
    }

    fn prefill_at(place: &Snapshot, (engine, profile): &mut (Box<dyn Engine>, Profile)) -> PrefillState {
        next_actions::prefill_ahead(PrefillDepth::Full, place, profile, engine.as_mut(), &mut || {
            ControlFlow::Continue(())
        })
        .unwrap()
    }

    #[test]
    fn cold_place_uses_short_window_before_full_prefill() {
        let mut it = engine();
        let place = snapshot();
        let (suggestion, work) = suggest_at(Some(TIME_LEFT), &place, &mut it);
        assert_eq!(suggestion.unwrap().text, "call()");
        // In 200 ms, 1,000 tokens of the prompt less the time of twelve decoded tokens.
        assert!(work.short && (400..=940).contains(&work.prompt_tokens), "{work:?}");

        // Typing continues at once: the same short window, and hardly anything to prefill.
        let place = type_text(&place, "s");
        let (_, work) = suggest_at(Some(TIME_LEFT), &place, &mut it);
        assert!(work.short && work.evaluated <= 4, "{work:?}");

        assert_eq!(prefill_at(&place, &mut it), PrefillState::Full);
        assert_eq!(prefill_at(&place, &mut it), PrefillState::Cached);
        let place = type_text(&place, "u");
        let (_, work) = suggest_at(Some(TIME_LEFT), &place, &mut it);
        assert!(!work.short && work.evaluated <= 4 && work.prompt_tokens > 1000, "{work:?}");
    }

    #[test]
    fn slow_engine_prefills_and_reuses_shorter_window() {
        let mut it = engine();
        let place = snapshot();
        // 1,000 tokens of about 2,000, once the speed is measured.
        let limits = PrefillLimits { depth: PrefillDepth::Full, time: Duration::from_millis(200) };
        let on = &mut || ControlFlow::Continue(());
        assert_eq!(
            next_actions::prefill_ahead_within(limits, &place, &it.1, it.0.as_mut(), on).unwrap(),
            PrefillState::Full
        );
        assert_eq!(
            next_actions::prefill_ahead_within(limits, &place, &it.1, it.0.as_mut(), on).unwrap(),
            PrefillState::Cached
        );
        let (_, work) = suggest_at(Some(TIME_LEFT), &place, &mut it);
        assert!(work.short && work.evaluated <= 4 && work.prompt_tokens >= 400, "{work:?}");
        assert!(!next_actions::is_longest_prompt(work.prompt_tokens, &place, &it.1, it.0.as_ref()));
        assert_eq!(prefill_at(&place, &mut it), PrefillState::Full, "eight seconds are enough");
        let (_, work) = suggest_at(Some(TIME_LEFT), &place, &mut it);
        assert!(!work.short && work.evaluated <= 4, "{work:?}");
        assert!(next_actions::is_longest_prompt(work.prompt_tokens, &place, &it.1, it.0.as_ref()));

        // At a hundred tokens a second the whole window is never prefilled; without idle work, no more ever is.
        let (slow, profile) = profiled_engine(ScriptedEngine::new().prefill_delay(Duration::from_millis(10)));
        let is_longest = |tokens, place: &Snapshot| {
            next_actions::is_longest_prompt(tokens, place, &profile, slow.as_ref())
        };
        assert!(is_longest(800, &place) && !is_longest(400, &place));
        let options = Options { idle: IdleSetting::Off, ..place.options.clone() };
        assert!(is_longest(100, &Snapshot { options, ..place }));
    }

    #[test]
    fn partial_prefill_takes_a_second_or_two() {
        let mut it = profiled_engine(ScriptedEngine::new().prefill_delay(Duration::from_millis(1)));
        let place = snapshot();
        let read =
            |depth, it: &mut (Box<dyn Engine>, Profile)| {
                next_actions::prefill_ahead(depth, &place, &it.1, it.0.as_mut(), &mut || {
                    ControlFlow::Continue(())
                })
                .unwrap()
            };
        assert_eq!(read(PrefillDepth::Partial, &mut it), PrefillState::Partial);
        let (_, work) = suggest_at(Some(TIME_LEFT), &place, &mut it);
        assert!(work.short && work.evaluated <= 4 && work.prompt_tokens >= 600, "{work:?}");
        assert_eq!(
            read(PrefillDepth::Partial, &mut it),
            PrefillState::Partial,
            "though nothing was left to read soon"
        );
        assert_eq!(read(PrefillDepth::Full, &mut it), PrefillState::Full);
        assert_eq!(read(PrefillDepth::Partial, &mut it), PrefillState::Cached);
    }

    #[test]
    fn prompt_on_huge_line_stays_within_two_windows() {
        let (engine, profile) = fast_engine();
        let data = "12, ".repeat(750_000);
        for (text, cursor) in [(format!("x = [{data}"), 3_000_000), (format!("{data}\n\n  x ="), 3_000_006)] {
            let place = Snapshot { text: Rope::from(text), cursor, ..snapshot() };
            let longest = cheaper_prompts(&place.joined_document(), &profile, engine.as_ref())
                .map(|it| it.prompt.tokens.len())
                .max();
            // One token per byte.
            let window = place.options.prefix_tokens * BYTES_PER_TOKEN;
            assert!(longest.is_some_and(|it| it > 0 && it <= 2 * window), "{longest:?}");
        }
    }

    #[test]
    fn window_shrinks_with_time_down_to_minimum() {
        let mut lengths = Vec::new();
        for milliseconds in [1000, 300, 150, 100, 10, 0] {
            let (_, work) = suggest_at(Some(Duration::from_millis(milliseconds)), &snapshot(), &mut engine());
            lengths.push(work.prompt_tokens);
        }
        let (_, whole) = suggest_at(None, &snapshot(), &mut engine());
        assert_eq!(lengths[0], whole.prompt_tokens);
        assert!(lengths.is_sorted_by(|a, b| a >= b), "{lengths:?}");
        assert!(lengths[1] > lengths[3], "{lengths:?}");
        assert!(lengths[5] == lengths[4] && lengths[5] >= 96, "{lengths:?}");
    }

    #[test]
    fn interrupted_prefill_resumes_and_keeps_short_window() {
        let mut it = engine();
        let place = snapshot();
        let (_, work) = suggest_at(Some(TIME_LEFT), &place, &mut it);
        assert!(work.short);
        let mut steps = 0;
        let mut some = || {
            steps += 1;
            if steps > 24 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        assert_eq!(
            next_actions::prefill_ahead(PrefillDepth::Full, &place, &it.1, it.0.as_mut(), &mut some).unwrap(),
            PrefillState::Interrupted
        );
        let prompt = best_prompt(&place, &it.1, it.0.tokenizer());
        let left = it.0.uncached_token_count(&prompt, &GenerationLimits::default());
        assert!(left + 300 < prompt.tokens.len(), "{left} of {}", prompt.tokens.len());

        let place = type_text(&place, "s");
        let (_, work) = suggest_at(Some(TIME_LEFT), &place, &mut it);
        assert!(work.short && work.evaluated <= 4, "{work:?}");
        assert!(it.0.uncached_token_count(&prompt, &GenerationLimits::default()) <= left);
        assert_eq!(prefill_at(&place, &mut it), PrefillState::Full);
    }

    /// Types `text` with a request per character, and prefills while idle before every `pause`-th; returns the cost
    /// of each.
    fn type_keys(
        mut place: Snapshot,
        text: &str,
        pause: usize,
        it: &mut (Box<dyn Engine>, Profile),
    ) -> Vec<CompletionWork> {
        let mut all = Vec::new();
        for (at, key) in text.char_indices() {
            if at % pause == 0 {
                prefill_at(&place, it);
            }
            place = type_text(&place, key.encode_utf8(&mut [0; 4]));
            all.push(suggest_at(Some(TIME_LEFT), &place, it).1);
        }
        all
    }

    #[test]
    fn keystroke_never_waits_for_window_anchor_or_suffix() {
        let text: String = (0..40).map(|n| format!("name_{n} = {n}\n")).collect();
        let pauses: &[usize] = &[1, 100];
        let cases = [
            (PromptLayout::Anchored { lines: 10 }, SegmentOrder::PrefixFirst, pauses),
            (PromptLayout::Plain, SegmentOrder::PrefixFirst, pauses),
            (PromptLayout::Plain, SegmentOrder::SuffixFirst, &pauses[1..]),
            (PromptLayout::Chat { lines: 10 }, SegmentOrder::PrefixFirst, &pauses[1..]),
        ];
        for (layout, order, pauses) in cases {
            for &pause in pauses {
                let mut it = fast_engine();
                it.1.form.layout = layout;
                it.1.chat = ChatFormat::from_vocabulary(
                    &Tokenizer::bytes_only().with_chat_template("{{ messages[0].content }}\n"),
                );
                let template = Template { order, ..TEMPLATES[0] };
                it.1.template.as_mut().unwrap().template = Box::leak(Box::new(template));
                let place = snapshot();
                suggest_at(None, &place, &mut it);
                let all = type_keys(place, &text, pause, &mut it);
                let mut evaluated: Vec<usize> = all.iter().map(|work| work.evaluated).collect();
                evaluated.sort_unstable();
                let at = |share: usize| evaluated[evaluated.len() * share / 100];
                let case = format!("{layout:?} {order:?} {pause}: {evaluated:?}");
                assert!(
                    at(50) <= 4 && at(95) <= KEYSTROKE_TOKENS && evaluated.last() <= Some(&KEYSTROKE_TOKENS),
                    "{case}"
                );
                assert!(all.iter().all(|work| !work.short), "{case}");
                let anchored = matches!(layout, PromptLayout::Anchored { .. } | PromptLayout::Chat { .. });
                assert!(pause == 1 || !anchored || all.iter().any(|work| work.older), "{case}");
            }
        }
    }

    #[test]
    fn snippets_are_dropped_before_own_window_shrinks() {
        let of = |snippets| {
            let whole = Budget { prefix: 2048, suffix: 400, snippets, output: 96 };
            let all = smaller_budgets(whole).map(|it| (it.prefix, it.suffix, it.snippets));
            all.collect::<Vec<_>>()
        };
        assert_eq!(of(0), [(1024, 200, 0), (512, 100, 0), (256, 50, 0), (160, 40, 0)]);
        let with: Vec<_> = of(512);
        assert_eq!(with[..3], [(2048, 400, 0), (1024, 200, 256), (1024, 200, 0)]);
        let alone: Vec<_> = with[1..].iter().filter(|it| it.2 == 0).copied().collect();
        assert_eq!(alone, of(0));
    }

    #[test]
    fn keystroke_never_waits_for_changed_snippets() {
        let mut it = fast_engine();
        it.1.form.snippets = 200;
        let snippets = |text: &str| -> std::sync::Arc<[Snippet]> {
            [Snippet { path: "b".to_owned(), text: text.to_owned() }].into()
        };
        let place = Snapshot { snippets: snippets("def f(): pass"), ..snapshot() };
        assert!(suggest_at(None, &place, &mut it).1.evaluated > 1000);
        let place = Snapshot {
            snippets: snippets("def g(): return"),
            previous_snippets: place.snippets.clone(),
            ..type_text(&place, "s")
        };
        let (_, work) = suggest_at(Some(TIME_LEFT), &place, &mut it);
        assert!(work.evaluated <= KEYSTROKE_TOKENS && !work.short, "{work:?}");
        assert_eq!(prefill_at(&place, &mut it), PrefillState::Full);
        let (_, work) = suggest_at(Some(TIME_LEFT), &type_text(&place, "u"), &mut it);
        assert!(work.evaluated <= KEYSTROKE_TOKENS && work.prompt_tokens > 1000, "{work:?}");
        assert_eq!(prefill_at(&type_text(&place, "u"), &mut it), PrefillState::Cached);
    }

    #[test]
    fn suffix_is_refreshed_only_beyond_max_staleness() {
        let mut it = fast_engine();
        it.1.form.layout = PromptLayout::Plain;
        let place = snapshot();
        suggest_at(None, &place, &mut it);
        let text = "+".repeat(MAX_SUFFIX_STALENESS + 40);
        let all = type_keys(place.clone(), &text, usize::MAX, &mut it);
        let again: Vec<usize> = (0..all.len()).filter(|&at| all[at].evaluated > KEYSTROKE_TOKENS).collect();
        // The first key changed more than it added.
        assert!(
            matches!(again[..], [at] if (MAX_SUFFIX_STALENESS - 4..=MAX_SUFFIX_STALENESS).contains(&at)),
            "{again:?}"
        );
        // In a pause, sooner.
        let place = type_text(&place, &format!("{text}-"));
        suggest_at(Some(TIME_LEFT), &place, &mut it);
        assert_eq!(prefill_at(&place, &mut it), PrefillState::Full);
        assert_eq!(prefill_at(&place, &mut it), PrefillState::Cached);
    }

    #[test]
    fn interrupted_prefill_keeps_cached_tokens() {
        let mut it = engine();
        let place = snapshot();
        let mut calls = 0;
        let done = next_actions::prefill_ahead(PrefillDepth::Full, &place, &it.1, it.0.as_mut(), &mut || {
            calls += 1;
            if calls > 8 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert_eq!(done.unwrap(), PrefillState::Interrupted);
        let (_, work) = suggest_at(Some(TIME_LEFT), &place, &mut it);
        // At least two polls per step of 50 tokens.
        assert!((50..=200).contains(&(work.prompt_tokens - work.evaluated)), "{work:?}");
    }

    #[test]
    fn cold_prefill_starts_with_short_window() {
        let mut it = engine();
        let place = snapshot();
        let whole = best_prompt(&place, &it.1, it.0.tokenizer());
        let short = choose_prompt(TIME_LEFT, &place, &it.1, it.0.as_ref(), whole.clone()).prompt;
        assert_ne!(short, whole);
        assert_eq!(prefill_at(&place, &mut it), PrefillState::Full);
        for prompt in [short, whole] {
            assert!(it.0.uncached_token_count(&prompt, &GenerationLimits::default()) <= KEYSTROKE_TOKENS);
        }
    }

    #[test]
    fn short_file_needs_no_shorter_window() {
        let (text, cursor) = (Rope::from("x = \n"), 4);
        let place = Snapshot { text, cursor, ..snapshot() };
        let (_, work) = suggest_at(Some(Duration::ZERO), &place, &mut engine());
        assert!(!work.short);
    }
}

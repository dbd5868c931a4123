//! Which prompt an answer comes from: the best one where there is time to read it, else one that is read already.
//! It knows nothing of clocks: it is told the time that is left.

use std::rc::Rc;
use std::time::Duration;

use taper_engine::{Engine, Limits, Prompt};

use super::{Snapshot, Whole, budget};
use crate::prompt::{self, BYTES_PER_TOKEN, Budget, File, Memo, template::Profile};

/// The shortest window, tokens before and after the cursor: less gives answers that are not worth having. The window
/// keeps at least half of it, because its start moves in steps.
const SHORTEST: (usize, usize) = (160, 40);
/// Decoded tokens that make a short answer.
const ANSWER: f32 = 12.0;
/// A prompt of which at most one in so many tokens is new is warm.
const WARM: usize = 4;
/// So few new tokens are a keystroke's, however short the prompt.
pub(super) const KEYSTROKE: usize = 32;
/// A suffix that has not seen so many tokens typed before it is used nevertheless. With the 1.5B, 325 of 400 tasks were
/// answered as by a fresh run after 32 tokens, 104 exactly against 110; after 64, 267 and 100 (`benches/split_cache.rs`).
const STALE: usize = 32;
/// So many where reading the suffix again would make a keystroke wait. It is read again while nobody does.
const STALEST: usize = 128;
/// How many lines above the cursor's a prompt may have been read whose beginning is gone on with. One step of the
/// anchor is eight lines.
const LINES_AGO: [usize; 6] = [0, 1, 2, 4, 8, 16];

/// A prompt, and how it compares with the best one.
#[derive(Debug, Default)]
pub(super) struct Chosen {
    pub(super) prompt: Prompt,
    /// It has less of the file.
    pub(super) short: bool,
    /// It begins, or is split, where it was some lines ago.
    pub(super) older: bool,
    /// For [`Limits::stale`].
    pub(super) stale: usize,
}

/// Chooses the prompt for an answer within `left`: `best`, or one that makes do with less to read.
///
/// The best prompt moves with the cursor: every few lines its window begins elsewhere, its anchor stands elsewhere, or
/// its suffix should see what was typed. No keystroke is to wait for that. So first of all a prompt of which all but a
/// keystroke's few tokens is in the cache is gone on with: the best, or as it was some lines ago, or with a shorter
/// window; then the same with a suffix that is overdue. Where nothing is as warm, one that is mostly read, and where
/// nothing is, the longest that can be read in time, or else what has the least to read.
///
/// What was left out is read while nobody waits ([`super::ahead::read`]).
pub(super) fn choose(
    left: Duration,
    snapshot: &Snapshot,
    profile: &Profile,
    engine: &dyn Engine,
    best: Prompt,
) -> Chosen {
    let new = |prompt: &Prompt, stale| engine.unread(prompt, &Limits { stale, ..Limits::default() });
    let best = Chosen { prompt: best, stale: STALE, ..Chosen::default() };
    if new(&best.prompt, STALE) <= KEYSTROKE {
        return best;
    }
    let mut all = vec![best];
    let whole = snapshot.whole();
    for other in others(&whole, profile, engine) {
        if all.iter().any(|it| it.prompt == other.prompt) {
            continue;
        }
        if new(&other.prompt, STALE) <= KEYSTROKE {
            return other;
        }
        all.push(other);
    }

    let rates = engine.rates();
    // A decoder too slow for a short answer is no reason to read nothing: then half of the time is for reading.
    let answer = (ANSWER / rates.decode).min(left.as_secs_f32() / 2.0);
    let in_time = |tokens: usize| tokens as f32 / rates.prefill + answer <= left.as_secs_f32();
    let fresh: Vec<usize> = all.iter().map(|it| new(&it.prompt, STALE)).collect();
    let overdue: Vec<usize> = all.iter().map(|it| new(&it.prompt, STALEST)).collect();
    let warm = |new: &[usize]| {
        let mut at = (0..all.len()).zip(new);
        at.find(|&(at, &new)| new <= all[at].prompt.tokens.len() / WARM && in_time(new)).map(|(at, _)| at)
    };
    let keystroke = |new: &[usize]| new.iter().position(|&new| new <= KEYSTROKE);
    let reads = |new: &[usize]| new.iter().position(|&new| in_time(new));
    let least = || (0..overdue.len()).min_by_key(|&at| overdue[at]);
    let of = |at: Option<usize>, stale| at.map(|at| (at, stale));
    let chosen = of(keystroke(&overdue), STALEST)
        .or_else(|| of(warm(&fresh), STALE))
        .or_else(|| of(reads(&fresh), STALE))
        .or_else(|| of(least(), STALEST));
    let (at, stale) = chosen.unwrap_or((0, STALE));
    Chosen { stale, ..all.swap_remove(at) }
}

/// The longest prompt that is read in `time` from its first token to its last, at the speed that the engine lately had:
/// `best`, or one of a shorter window; the shortest where none is, or nothing was measured.
pub(super) fn longest(
    time: Duration,
    snapshot: &Snapshot,
    profile: &Profile,
    engine: &dyn Engine,
    best: Prompt,
) -> Prompt {
    let most = engine.rates().prefill * time.as_secs_f32();
    let mut longest = best;
    let (memo, whole) = (Memo::default(), snapshot.whole());
    let file = whole.file();
    for budget in budgets(budget(&snapshot.options, profile)) {
        if longest.tokens.len() as f32 <= most {
            break;
        }
        longest = prompt::build_as_at(file.cursor, profile, engine.tokens(), file, budget, &memo).0;
    }
    longest
}

/// All prompts but the best one, the best first: the whole window as it was some lines ago, then with what other files said
/// before, then shorter ones, as they are and as they were. Some may be alike.
fn others<'a>(
    file: &'a Whole<'_>,
    profile: &'a Profile,
    engine: &'a dyn Engine,
) -> impl Iterator<Item = Chosen> + 'a {
    let (snapshot, now) = (file.snapshot, file.file());
    let (text, cursor, whole) = (now.text, now.cursor, budget(&snapshot.options, profile));
    // With what other files said before, where that has changed.
    let before = Some(File { snippets: &snapshot.snippets_before, ..now });
    let before = before.filter(|it| !it.snippets.is_empty() && it.snippets != now.snippets);
    let files = [Some(now), before].into_iter().flatten();
    let line = text.byte_to_line(cursor);
    // The prompt also has the text between the two places: at most another window, even on a line of megabytes.
    let farthest = cursor.saturating_sub(whole.prefix * BYTES_PER_TOKEN);
    let ago = LINES_AGO.iter().filter_map(move |ago| Some(text.line_to_byte(line.checked_sub(*ago)?)));
    let ago = ago.filter(move |&place| place >= farthest);
    let earlier = [cursor].into_iter().chain(ago);
    let memo = Rc::new(Memo::default());
    [whole].into_iter().chain(budgets(whole)).flat_map(move |budget| {
        let (memo, earlier) = (Rc::clone(&memo), earlier.clone());
        files.clone().flat_map(move |file| {
            let memo = Rc::clone(&memo);
            earlier.clone().map(move |earlier| {
                let prompt = prompt::build_as_at(earlier, profile, engine.tokens(), file, budget, &memo).0;
                let (short, older) = (budget != whole, earlier != cursor);
                Chosen { prompt, short, older, stale: STALE }
            })
        })
    })
}

/// The budgets below `whole`, in big steps, the best first: rather nothing of other files than less of its own.
fn budgets(whole: Budget) -> impl Iterator<Item = Budget> {
    let (prefix, suffix) = SHORTEST;
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
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::ops::ControlFlow;

    use taper_engine::scripted::Scripted;

    use super::super::ahead::{self, Depth, Read};
    use super::super::{Idle, Options, Suggestion, Trigger, Work, suggest_within};
    use super::*;
    use crate::context::Snippet;
    use crate::prompt::template::{Form, Layout};
    use crate::text::{Edit, Rope};

    const LEFT: Duration = Duration::from_millis(200);

    /// 5,000 prompt tokens and 1,000 decoded ones a second, a token a byte.
    fn engine() -> (Box<dyn Engine>, Profile) {
        let (prefill, decode) = (Duration::from_micros(200), Duration::from_millis(1));
        asked_well(Scripted::new().prefill_delay(prefill).decode_delay(decode))
    }

    /// Every prompt is read in time.
    fn fast_engine() -> (Box<dyn Engine>, Profile) {
        asked_well(Scripted::new())
    }

    fn asked_well(engine: Scripted) -> (Box<dyn Engine>, Profile) {
        let engine: Box<dyn Engine> = Box::new(engine.answering(|_| "call()".to_owned()));
        let mut profile = Profile::of(engine.about(), engine.tokens());
        profile.form = Form {
            layout: Layout::Anchored { lines: 10 },
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
        Snapshot {
            text: Rope::from(format!("{before}\n{}", lines(300..400))),
            syntax: None,
            language: None,
            path: "a".to_owned(),
            cursor: before.len(),
            preceding: None,
            selected: None,
            trigger: Trigger::Automatic,
            // Of a vocabulary of bytes these are many windows' worth.
            options: Options { prefix_tokens: 1600, suffix_tokens: Some(400), ..Options::default() },
            snippets: Default::default(),
            snippets_before: Default::default(),
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

    fn read(place: &Snapshot, (engine, profile): &mut (Box<dyn Engine>, Profile)) -> Read {
        ahead::read(Depth::Whole, place, profile, engine.as_mut(), &mut || ControlFlow::Continue(())).unwrap()
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

        assert_eq!(read(&place, &mut it), Read::Whole);
        assert_eq!(read(&place, &mut it), Read::Already);
        let place = typed(&place, "u");
        let (_, work) = ask(Some(LEFT), &place, &mut it);
        assert!(!work.short && work.evaluated <= 4 && work.prompt_tokens > 1000, "{work:?}");
    }

    #[test]
    fn where_the_whole_window_takes_too_long_a_shorter_one_is_read_and_gone_on_with() {
        let mut it = engine();
        let place = snapshot();
        // 1,000 tokens of about 2,000, once it is known how fast they are read.
        let time = Duration::from_millis(200);
        let on = &mut || ControlFlow::Continue(());
        assert_eq!(
            ahead::read_within((Depth::Whole, time), &place, &it.1, it.0.as_mut(), on).unwrap(),
            Read::Whole
        );
        assert_eq!(
            ahead::read_within((Depth::Whole, time), &place, &it.1, it.0.as_mut(), on).unwrap(),
            Read::Already
        );
        let (_, work) = ask(Some(LEFT), &place, &mut it);
        assert!(work.short && work.evaluated <= 4 && work.prompt_tokens >= 400, "{work:?}");
        assert!(!ahead::is_longest(work.prompt_tokens, &place, &it.1, it.0.as_ref()));
        assert_eq!(read(&place, &mut it), Read::Whole, "eight seconds are enough");
        let (_, work) = ask(Some(LEFT), &place, &mut it);
        assert!(!work.short && work.evaluated <= 4, "{work:?}");
        assert!(ahead::is_longest(work.prompt_tokens, &place, &it.1, it.0.as_ref()));

        // At a hundred tokens a second the whole window is never read; where nothing is read ahead, no more ever is.
        let (slow, profile) = asked_well(Scripted::new().prefill_delay(Duration::from_millis(10)));
        let is_longest = |tokens, place: &Snapshot| ahead::is_longest(tokens, place, &profile, slow.as_ref());
        assert!(is_longest(800, &place) && !is_longest(400, &place));
        let options = Options { idle: Idle::Off, ..place.options.clone() };
        assert!(is_longest(100, &Snapshot { options, ..place }));
    }

    #[test]
    fn soon_is_what_is_read_in_a_second_or_two() {
        let mut it = asked_well(Scripted::new().prefill_delay(Duration::from_millis(1)));
        let place = snapshot();
        let read = |depth, it: &mut (Box<dyn Engine>, Profile)| {
            ahead::read(depth, &place, &it.1, it.0.as_mut(), &mut || ControlFlow::Continue(())).unwrap()
        };
        assert_eq!(read(Depth::Soon, &mut it), Read::Part);
        let (_, work) = ask(Some(LEFT), &place, &mut it);
        assert!(work.short && work.evaluated <= 4 && work.prompt_tokens >= 600, "{work:?}");
        assert_eq!(read(Depth::Soon, &mut it), Read::Part, "though nothing was left to read soon");
        assert_eq!(read(Depth::Whole, &mut it), Read::Whole);
        assert_eq!(read(Depth::Soon, &mut it), Read::Already);
    }

    #[test]
    fn on_a_line_of_megabytes_no_prompt_has_more_than_two_windows() {
        let (engine, profile) = fast_engine();
        let data = "12, ".repeat(750_000);
        for (text, cursor) in [(format!("x = [{data}"), 3_000_000), (format!("{data}\n\n  x ="), 3_000_006)] {
            let place = Snapshot { text: Rope::from(text), cursor, ..snapshot() };
            let longest =
                others(&place.whole(), &profile, engine.as_ref()).map(|it| it.prompt.tokens.len()).max();
            // A token a byte.
            let window = place.options.prefix_tokens * BYTES_PER_TOKEN;
            assert!(longest.is_some_and(|it| it > 0 && it <= 2 * window), "{longest:?}");
        }
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
    fn an_interrupted_reading_costs_the_short_window_nothing_and_is_gone_on_with() {
        let mut it = engine();
        let place = snapshot();
        let (_, work) = ask(Some(LEFT), &place, &mut it);
        assert!(work.short);
        let mut steps = 0;
        let mut some = || {
            steps += 1;
            if steps > 24 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        assert_eq!(
            ahead::read(Depth::Whole, &place, &it.1, it.0.as_mut(), &mut some).unwrap(),
            Read::Interrupted
        );
        let (prompt, _) =
            prompt::build(&it.1, it.0.tokens(), place.whole().file(), budget(&place.options, &it.1));
        let left = it.0.unread(&prompt, &Limits::default());
        assert!(left + 300 < prompt.tokens.len(), "{left} of {}", prompt.tokens.len());

        let place = typed(&place, "s");
        let (_, work) = ask(Some(LEFT), &place, &mut it);
        assert!(work.short && work.evaluated <= 4, "{work:?}");
        assert!(it.0.unread(&prompt, &Limits::default()) <= left);
        assert_eq!(read(&place, &mut it), Read::Whole);
    }

    /// Types `text`, a question a character, and reads while nobody waits before every so manyth; what each cost.
    fn type_on(
        mut place: Snapshot,
        text: &str,
        pause: usize,
        it: &mut (Box<dyn Engine>, Profile),
    ) -> Vec<Work> {
        let mut all = Vec::new();
        for (at, key) in text.char_indices() {
            if at % pause == 0 {
                read(&place, it);
            }
            place = typed(&place, key.encode_utf8(&mut [0; 4]));
            all.push(ask(Some(LEFT), &place, it).1);
        }
        all
    }

    #[test]
    fn no_keystroke_waits_for_a_move_of_the_window_or_the_anchor_or_a_stale_suffix() {
        let text: String = (0..40).map(|n| format!("name_{n} = {n}\n")).collect();
        for layout in [Layout::Anchored { lines: 10 }, Layout::Plain] {
            for pause in [1, 100] {
                let mut it = fast_engine();
                it.1.form.layout = layout;
                let place = snapshot();
                ask(None, &place, &mut it);
                let all = type_on(place, &text, pause, &mut it);
                let mut evaluated: Vec<usize> = all.iter().map(|work| work.evaluated).collect();
                evaluated.sort_unstable();
                let at = |share: usize| evaluated[evaluated.len() * share / 100];
                let told = format!("{layout:?} {pause}: {evaluated:?}");
                assert!(at(50) <= 4 && at(95) <= KEYSTROKE && evaluated.last() <= Some(&KEYSTROKE), "{told}");
                assert!(all.iter().all(|work| !work.short), "{told}");
                assert!(pause == 1 || layout == Layout::Plain || all.iter().any(|work| work.older), "{told}");
            }
        }
    }

    #[test]
    fn nothing_of_other_files_comes_before_less_of_its_own() {
        let of = |snippets| {
            let whole = Budget { prefix: 2048, suffix: 400, snippets, answer: 96 };
            let all = budgets(whole).map(|it| (it.prefix, it.suffix, it.snippets));
            all.collect::<Vec<_>>()
        };
        assert_eq!(of(0), [(1024, 200, 0), (512, 100, 0), (256, 50, 0), (160, 40, 0)]);
        let with: Vec<_> = of(512);
        assert_eq!(with[..3], [(2048, 400, 0), (1024, 200, 256), (1024, 200, 0)]);
        let alone: Vec<_> = with[1..].iter().filter(|it| it.2 == 0).copied().collect();
        assert_eq!(alone, of(0));
    }

    #[test]
    fn no_keystroke_waits_for_what_other_files_say_anew() {
        let mut it = fast_engine();
        it.1.form.snippets = 200;
        let snippets = |text: &str| -> std::sync::Arc<[Snippet]> {
            [Snippet { path: "b".to_owned(), text: text.to_owned() }].into()
        };
        let place = Snapshot { snippets: snippets("def f(): pass"), ..snapshot() };
        assert!(ask(None, &place, &mut it).1.evaluated > 1000);
        let place = Snapshot {
            snippets: snippets("def g(): return"),
            snippets_before: place.snippets.clone(),
            ..typed(&place, "s")
        };
        let (_, work) = ask(Some(LEFT), &place, &mut it);
        assert!(work.evaluated <= KEYSTROKE && !work.short, "{work:?}");
        assert_eq!(read(&place, &mut it), Read::Whole);
        let (_, work) = ask(Some(LEFT), &typed(&place, "u"), &mut it);
        assert!(work.evaluated <= KEYSTROKE && work.prompt_tokens > 1000, "{work:?}");
        assert_eq!(read(&typed(&place, "u"), &mut it), Read::Already);
    }

    #[test]
    fn without_a_pause_the_suffix_is_read_again_only_when_it_has_missed_too_much() {
        let mut it = fast_engine();
        it.1.form.layout = Layout::Plain;
        let place = snapshot();
        ask(None, &place, &mut it);
        let text = "+".repeat(STALEST + 40);
        let all = type_on(place.clone(), &text, usize::MAX, &mut it);
        let again: Vec<usize> = (0..all.len()).filter(|&at| all[at].evaluated > KEYSTROKE).collect();
        // The first key changed more than it added.
        assert!(matches!(again[..], [at] if (STALEST - 4..=STALEST).contains(&at)), "{again:?}");
        // In a pause, sooner.
        let place = typed(&place, &format!("{text}-"));
        ask(Some(LEFT), &place, &mut it);
        assert_eq!(read(&place, &mut it), Read::Whole);
        assert_eq!(read(&place, &mut it), Read::Already);
    }

    #[test]
    fn a_reading_ends_when_somebody_waits_and_keeps_what_it_has() {
        let mut it = engine();
        let place = snapshot();
        let mut calls = 0;
        let done = ahead::read(Depth::Whole, &place, &it.1, it.0.as_mut(), &mut || {
            calls += 1;
            if calls > 8 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert_eq!(done.unwrap(), Read::Interrupted);
        let (_, work) = ask(Some(LEFT), &place, &mut it);
        // Two looks or more a step of 50 tokens.
        assert!((50..=200).contains(&(work.prompt_tokens - work.evaluated)), "{work:?}");
    }

    #[test]
    fn a_cold_place_is_read_for_a_quick_answer_first() {
        let mut it = engine();
        let place = snapshot();
        let (whole, _) =
            prompt::build(&it.1, it.0.tokens(), place.whole().file(), budget(&place.options, &it.1));
        let short = choose(LEFT, &place, &it.1, it.0.as_ref(), whole.clone()).prompt;
        assert_ne!(short, whole);
        assert_eq!(read(&place, &mut it), Read::Whole);
        for prompt in [short, whole] {
            assert!(it.0.unread(&prompt, &Limits::default()) <= KEYSTROKE);
        }
    }

    #[test]
    fn a_file_that_is_short_anyway_is_read_whole() {
        let (text, cursor) = (Rope::from("x = \n"), 4);
        let place = Snapshot { text, cursor, ..snapshot() };
        let (_, work) = ask(Some(Duration::ZERO), &place, &mut engine());
        assert!(!work.short);
    }
}

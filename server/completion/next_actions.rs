//! Work for the time when nobody waits: reading what a short window left out, and answering before being asked.
//! It knows nothing of threads or clocks: the caller's `watch` says when somebody waits again.

use std::ops::ControlFlow;
use std::time::Duration;

use taper_engine::{Engine, EngineError, GenerationLimits, Prompt, StopReason};
use taper_grammars::BlockStyle;

use super::cursor::{CursorContext, indentation_width};
use super::prompt_choice::{self, KEYSTROKE_TOKENS};
use super::trigger::is_statement_complete;
use super::{IdleSetting, Snapshot, Suggestion, Trigger, cursor_context, prompt_budget, rule_window};
use crate::prompt::{self, template::Profile};
use crate::text::{Edit, lines};

/// Tokens that may have been typed in front of a suffix before it is read again: that it has not seen so few makes no
/// difference to speak of.
const FRESH_SUFFIX_TOKENS: usize = 8;

/// A window that can be read in this time comes first: a question should not wait for longer.
pub const QUICK_PREFILL_TIME: Duration = Duration::from_millis(200);

/// What became of a reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrefillState {
    /// There was nothing to read, or so little that a question can.
    Cached,
    /// What is read soon is in the cache; more is to be read.
    Partial,
    /// All that is to be read is in the cache now.
    Full,
    /// `watch` ended it; what was read is in the cache.
    Interrupted,
}

/// A window that can be read in this time comes next, where the whole one takes longer: until that one is read, answers
/// come from this one.
const PARTIAL_PREFILL_TIME: Duration = Duration::from_millis(1500);

/// What the whole window may take to be read. A machine that needs longer reads a shorter one at each new place: else its
/// fans would run for longer than somebody stays there.
fn full_window_time(idle: IdleSetting) -> Duration {
    Duration::from_secs(if idle == IdleSetting::Full { 30 } else { 8 })
}

/// How much is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PrefillDepth {
    /// What is read in a second or two.
    Partial,
    /// All that is to be read.
    Full,
}

/// Reads the prompt that is best for `snapshot` into the engine's cache: the whole window, or the longest that this
/// engine reads in reasonable time, and a suffix that has seen what stands before it. Where that takes long, first shorter
/// ones that a question meanwhile can be answered from; no more than these with [`Depth::Soon`].
///
/// # Errors
/// The engine failed; see [`Engine::generate`].
pub fn prefill_ahead(
    depth: PrefillDepth,
    snapshot: &Snapshot,
    profile: &Profile,
    engine: &mut dyn Engine,
    watch: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<PrefillState, EngineError> {
    prefill_ahead_within((depth, full_window_time(snapshot.options.idle)), snapshot, profile, engine, watch)
}

/// [`read`], with what the whole window may take.
pub(super) fn prefill_ahead_within(
    (depth, time): (PrefillDepth, Duration),
    snapshot: &Snapshot,
    profile: &Profile,
    engine: &mut dyn Engine,
    watch: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<PrefillState, EngineError> {
    let (best, _) = prompt::build_prompt(
        profile,
        engine.tokenizer(),
        snapshot.joined_document().prompt_file(),
        prompt_budget(&snapshot.options, profile),
    );
    let stale = |stale| GenerationLimits { max_tokens: 0, max_stale_tokens: stale, background: true };
    if engine.uncached_token_count(&best, &stale(FRESH_SUFFIX_TOKENS)) <= KEYSTROKE_TOKENS {
        return Ok(PrefillState::Cached);
    }
    let mut done = PrefillState::Cached;
    let mut read = |engine: &mut dyn Engine, prompt: &Prompt, old: usize| {
        done = PrefillState::Full;
        engine
            .generate(prompt, &stale(old), &mut |_| watch())
            .map(|read| read.stop == StopReason::Interrupted)
    };
    let first = prompt_choice::choose_prompt(QUICK_PREFILL_TIME, snapshot, profile, engine, best.clone());
    // However little it is: until something was read, nobody knows how much can be.
    let unmeasured = engine.throughput().prefill <= 0.0;
    if first.short
        && (unmeasured || engine.uncached_token_count(&first.prompt, &stale(first.stale)) > KEYSTROKE_TOKENS)
        && read(engine, &first.prompt, first.stale)?
    {
        return Ok(PrefillState::Interrupted);
    }
    // Only now, for what was read first may be the first that tells how fast this goes.
    let longest = prompt_choice::longest_prompt(time, snapshot, profile, engine, best.clone());
    if engine.uncached_token_count(&longest, &stale(0)) as f32
        > engine.throughput().prefill * PARTIAL_PREFILL_TIME.as_secs_f32()
    {
        let better = prompt_choice::longest_prompt(PARTIAL_PREFILL_TIME, snapshot, profile, engine, best);
        if engine.uncached_token_count(&better, &stale(first.stale)) > KEYSTROKE_TOKENS
            && read(engine, &better, first.stale)?
        {
            return Ok(PrefillState::Interrupted);
        }
        if depth == PrefillDepth::Partial {
            return Ok(PrefillState::Partial);
        }
    }
    if engine.uncached_token_count(&longest, &stale(FRESH_SUFFIX_TOKENS)) > KEYSTROKE_TOKENS
        && read(engine, &longest, 0)?
    {
        return Ok(PrefillState::Interrupted);
    }
    Ok(done)
}

/// Whether no more of the file than a prompt of so many tokens has is ever read here by [`read`].
pub fn is_longest_prompt(tokens: usize, snapshot: &Snapshot, profile: &Profile, engine: &dyn Engine) -> bool {
    if snapshot.options.idle == IdleSetting::Off {
        return true;
    }
    let (best, _) = prompt::build_prompt(
        profile,
        engine.tokenizer(),
        snapshot.joined_document().prompt_file(),
        prompt_budget(&snapshot.options, profile),
    );
    let time = full_window_time(snapshot.options.idle);
    prompt_choice::longest_prompt(time, snapshot, profile, engine, best).tokens.len() <= tokens
}

/// What a place was answered with, behind which work goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PriorResponse {
    /// This is shown.
    Shown(Suggestion),
    /// Nothing is shown.
    Empty,
    /// Nobody has asked there: the cursor came, and rests.
    Unrequested,
}

impl From<Option<Suggestion>> for PriorResponse {
    fn from(shown: Option<Suggestion>) -> Self {
        shown.map_or(Self::Empty, Self::Shown)
    }
}

/// What may be done next at `snapshot`, as what it puts there, the likeliest first: taking what is shown, which is worth
/// the most; Enter at the end of a line that may be complete; and, where nobody has asked yet, nothing: the next
/// question is about this very place, or a letter of its answer further.
pub fn likely_actions(snapshot: &Snapshot, answered: &PriorResponse) -> Vec<Suggestion> {
    let unasked = match answered {
        PriorResponse::Shown(shown) => {
            let mut next = vec![shown.clone()];
            if snapshot.options.idle == IdleSetting::Full {
                // The model chooses the indentation: what an editor puts there is the beginning of it.
                let text = format!("{}{}", shown.text, lines::dominant_line_break(&snapshot.text));
                next.push(Suggestion { range: shown.range.clone(), text });
            }
            return next;
        }
        PriorResponse::Empty => false,
        PriorResponse::Unrequested => true,
    };
    let around = rule_window(snapshot);
    let place = cursor_context(&around, snapshot);
    let mut next = Vec::new();
    if may_be_complete(&place, unasked) {
        next.push(indented_line_break(snapshot, &place));
    }
    if unasked {
        next.push(String::new());
    }
    let cursor = snapshot.cursor;
    next.into_iter().map(|text| Suggestion { range: cursor..cursor, text }).collect()
}

/// Whether the cursor stands at the end of a line that may end there. One that was `found` does, but for a blank behind
/// which more is to come; while a line is typed, most words become longer, or another follows.
fn may_be_complete(place: &CursorContext<'_>, found: bool) -> bool {
    if !place.line_after.trim().is_empty() || place.is_in_indentation() {
        return false;
    }
    let last = [')', ']', '}', ';', ':', '{', '(', '[', ',', '"', '\'', '`', '>'];
    place.line_before.trim_end().ends_with(last)
        || found && !place.line_before.ends_with([' ', '\t'])
        || is_statement_complete(place)
}

/// What Enter puts at the end of a line: a line break, and the indentation that editors give the next line. That is the
/// line's own; behind one that opens a block that of what stands in it, or a step more; and, where blocks are told by
/// indentation, behind a statement that leaves its block that of the block's head.
fn indented_line_break(snapshot: &Snapshot, place: &CursorContext<'_>) -> String {
    let blanks = |line: &str| line[..line.len() - line.trim_start_matches([' ', '\t']).len()].to_owned();
    let line = place.line_before;
    let above = || place.before.lines().rev().filter(|line| !line.trim().is_empty());
    let indentation = if place.opens_block(line) {
        let below = place.line_below().filter(|_| place.has_body_below(line));
        below.map_or_else(|| format!("{}{}", blanks(line), last_indent_step(above(), blanks)), blanks)
    } else if leaves_block(place) {
        let head = above().find(|it| indentation_width(it) < indentation_width(line));
        blanks(head.unwrap_or(line))
    } else {
        blanks(line)
    };
    format!("{}{indentation}", lines::dominant_line_break(&snapshot.text))
}

/// By how much the text last became deeper; `above` is its lines, the last first.
fn last_indent_step<'t>(above: impl Iterator<Item = &'t str>, blanks: impl Fn(&str) -> String) -> String {
    let above: Vec<&str> = above.collect();
    let mut steps = above.windows(2).filter(|pair| indentation_width(pair[0]) > indentation_width(pair[1]));
    let step = steps.find_map(|pair| blanks(pair[0]).strip_prefix(&blanks(pair[1])).map(str::to_owned));
    step.unwrap_or_else(|| "    ".to_owned())
}

/// Whether nothing can follow the statement on the cursor's line in its block.
fn leaves_block(place: &CursorContext<'_>) -> bool {
    let first = place.line_before.split_whitespace().next().unwrap_or_default();
    place.block_style() == BlockStyle::Indentation
        && matches!(first, "return" | "raise" | "pass" | "break" | "continue")
}

/// The document once `done` is done; `None` if that does not fit it, or if time was up before the tree was brought up to it.
pub fn apply_action(
    snapshot: &Snapshot,
    done: Suggestion,
    time_is_up: &mut dyn FnMut() -> bool,
) -> Option<Snapshot> {
    let edit = Edit { range: done.range, text: done.text };
    // Nobody asks there, so nothing doubtful is kept for who comes there.
    let trigger = Trigger::Automatic;
    let mut after = Snapshot { selected: None, syntax: None, trigger, ..snapshot.clone() };
    edit.apply(&mut after.text).ok()?;
    after.cursor = edit.new_end();
    if let Some(syntax) = &snapshot.syntax {
        after.syntax = Some(syntax.with_edit(&edit, &after.text, time_is_up)?);
    }
    Some(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actions_at(path: &str, marked: &str, answered: &PriorResponse) -> Vec<String> {
        let next = likely_actions(&crate::completion::fixture::snapshot(path, marked), answered);
        next.into_iter().map(|it| it.text).collect()
    }

    #[test]
    fn enter_is_likely_after_a_possibly_complete_line() {
        let complete = [
            ("x.py", "def f(x):▮\n", "\n    "),
            ("x.py", "if a:\n  b()\n  if c:▮\n", "\n    "),
            ("x.py", "if a:▮\n   b()\n", "\n   "),
            ("x.py", "for a in b:\n    continue▮\n", "\n"),
            ("x.py", "  if a:\n\n    return f(b)▮\n", "\n  "),
            ("x.rs", "  if a {\n    return b;▮\n", "\n    "),
            ("x.py", "  x = [▮\n  ]\n", "\n      "),
            ("x.rs", "fn f() {\n\tlet x = 1; ▮ \n}\n", "\n\t"),
            ("x.ts", "{\r\n  f({▮\r\n", "\r\n    "),
        ];
        for (path, marked, typed) in complete {
            assert_eq!(actions_at(path, marked, &PriorResponse::Empty), [typed], "{marked}");
            assert_eq!(actions_at(path, marked, &PriorResponse::Unrequested), [typed, ""], "{marked}");
        }
        for marked in ["x = f▮oo\n", "x = f(▮)\n", "  ▮\n", "▮", "x = ▮\n"] {
            assert!(actions_at("x.py", marked, &PriorResponse::Empty).is_empty(), "{marked}");
            assert_eq!(actions_at("x.py", marked, &PriorResponse::Unrequested), [""], "{marked}");
        }
    }

    #[test]
    fn untyped_line_counts_as_complete() {
        for marked in ["x = foo▮\n", "# of all.▮\n", "x = 1 +▮\n"] {
            assert!(actions_at("x.py", marked, &PriorResponse::Empty).is_empty());
            assert_eq!(actions_at("x.py", marked, &PriorResponse::Unrequested), ["\n", ""]);
        }
    }

    #[test]
    fn accepting_the_shown_suggestion_is_likely() {
        let shown = Suggestion { range: 4..4, text: "1".to_owned() };
        assert_eq!(actions_at("x.py", "x = ▮\n", &PriorResponse::Shown(shown)), ["1"]);
    }
}

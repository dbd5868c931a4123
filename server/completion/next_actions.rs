//! Work while idle: prefilling the context that a short window left out, and the user's likely next actions.
//! The caller's `watch` reports when a request arrives.

use std::ops::ControlFlow;
use std::time::Duration;

use taper_engine::{Engine, EngineError, GenerationLimits, Prompt, StopReason};
use taper_grammars::BlockStyle;

use super::cursor::{CursorContext, indentation_width};
use super::prompt_choice::{self, KEYSTROKE_TOKENS};
use super::trigger::is_statement_complete;
use super::{IdleSetting, Snapshot, Suggestion, Trigger, best_prompt, cursor_context, rule_window};
use crate::prompt::template::Profile;
use crate::text::{Edit, lines};

/// Tokens that may be typed before a suffix without prefilling the suffix again: missing so few makes no notable
/// difference.
const FRESH_SUFFIX_TOKENS: usize = 8;

/// A window that can be prefilled in this time comes first, so that a request does not wait for longer.
pub const QUICK_PREFILL_TIME: Duration = Duration::from_millis(200);

/// The result of a prefill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrefillState {
    /// Nothing to prefill, or so little that a request can do it.
    Cached,
    /// The part that prefills quickly is in the cache; more remains.
    Partial,
    /// Everything is in the cache.
    Full,
    /// `watch` ended the prefill; the prefilled part is in the cache.
    Interrupted,
}

/// A window that can be prefilled in this time comes next if the whole one takes longer. Requests use it until the
/// whole one is ready.
const PARTIAL_PREFILL_TIME: Duration = Duration::from_millis(1500);

/// Maximum time to prefill the whole window. A slower machine uses a shorter window at each new position: otherwise
/// it would compute for longer than the user stays there.
fn full_window_time(idle: IdleSetting) -> Duration {
    Duration::from_secs(if idle == IdleSetting::Full { 30 } else { 8 })
}

/// How much to prefill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PrefillDepth {
    /// As much as takes a second or two.
    Partial,
    /// Everything.
    Full,
}

/// Prefills the best prompt for `snapshot` into the engine's cache: the whole window, or the longest that this engine
/// prefills in reasonable time, with a suffix that has seen the text before it. If that takes long, shorter windows
/// come first, so that a request in the meantime can be answered from them. [`PrefillDepth::Partial`] stops after
/// those.
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
    let limits = PrefillLimits { depth, time: full_window_time(snapshot.options.idle) };
    prefill_ahead_within(limits, snapshot, profile, engine, watch)
}

/// How much to prefill, and the maximum time for the whole window.
#[derive(Debug, Clone, Copy)]
pub(super) struct PrefillLimits {
    pub(super) depth: PrefillDepth,
    pub(super) time: Duration,
}

/// [`prefill_ahead`] with a maximum time for the whole window.
pub(super) fn prefill_ahead_within(
    limits: PrefillLimits,
    snapshot: &Snapshot,
    profile: &Profile,
    engine: &mut dyn Engine,
    watch: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<PrefillState, EngineError> {
    let best = best_prompt(snapshot, profile, engine.tokenizer());
    let stale = |stale| GenerationLimits { max_tokens: 0, max_stale_tokens: stale, background: true };
    if engine.uncached_token_count(&best, &stale(FRESH_SUFFIX_TOKENS)) <= KEYSTROKE_TOKENS {
        return Ok(PrefillState::Cached);
    }
    let mut state = PrefillState::Cached;
    let mut read = |engine: &mut dyn Engine, prompt: &Prompt, old: usize| {
        state = PrefillState::Full;
        engine
            .generate(prompt, &stale(old), &mut |_| watch())
            .map(|read| read.stop == StopReason::Interrupted)
    };
    let first = prompt_choice::choose_prompt(QUICK_PREFILL_TIME, snapshot, profile, engine, best.clone());
    // Prefill even a little: the speed is unknown until something was measured.
    let unmeasured = engine.throughput().prefill <= 0.0;
    if first.short
        && (unmeasured || engine.uncached_token_count(&first.prompt, &stale(first.stale)) > KEYSTROKE_TOKENS)
        && read(engine, &first.prompt, first.stale)?
    {
        return Ok(PrefillState::Interrupted);
    }
    // Computed only now, because the first prefill may be the first speed measurement.
    let longest = prompt_choice::longest_prompt(limits.time, snapshot, profile, engine, best.clone());
    if engine.uncached_token_count(&longest, &stale(0)) as f32
        > engine.throughput().prefill * PARTIAL_PREFILL_TIME.as_secs_f32()
    {
        let better = prompt_choice::longest_prompt(PARTIAL_PREFILL_TIME, snapshot, profile, engine, best);
        if engine.uncached_token_count(&better, &stale(first.stale)) > KEYSTROKE_TOKENS
            && read(engine, &better, first.stale)?
        {
            return Ok(PrefillState::Interrupted);
        }
        if limits.depth == PrefillDepth::Partial {
            return Ok(PrefillState::Partial);
        }
    }
    if engine.uncached_token_count(&longest, &stale(FRESH_SUFFIX_TOKENS)) > KEYSTROKE_TOKENS
        && read(engine, &longest, 0)?
    {
        return Ok(PrefillState::Interrupted);
    }
    Ok(state)
}

/// Whether [`prefill_ahead`] never prefills a prompt longer than `tokens` here.
pub fn is_longest_prompt(tokens: usize, snapshot: &Snapshot, profile: &Profile, engine: &dyn Engine) -> bool {
    if snapshot.options.idle == IdleSetting::Off {
        return true;
    }
    let best = best_prompt(snapshot, profile, engine.tokenizer());
    let time = full_window_time(snapshot.options.idle);
    prompt_choice::longest_prompt(time, snapshot, profile, engine, best).tokens.len() <= tokens
}

/// The response after which idle work continues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PriorResponse {
    /// This suggestion is shown.
    Shown(Suggestion),
    /// Nothing is shown.
    Empty,
    /// No request was made there: the cursor moved there and rests.
    Unrequested,
}

impl From<Option<Suggestion>> for PriorResponse {
    fn from(shown: Option<Suggestion>) -> Self {
        shown.map_or(Self::Empty, Self::Shown)
    }
}

/// The user's likely next actions at `snapshot`, as the text each would insert, most likely first: accept the shown
/// suggestion; press Enter after a line that may be complete; or, if nothing was requested here yet, insert nothing
/// (the next request will be here or one character further).
pub fn likely_actions(snapshot: &Snapshot, answered: &PriorResponse) -> Vec<Suggestion> {
    let unrequested = match answered {
        PriorResponse::Shown(shown) => {
            let mut next = vec![shown.clone()];
            if snapshot.options.idle == IdleSetting::Full {
                // The model chooses the indentation: the text that an editor inserts there is a prefix of it.
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
    if may_be_complete(&place, unrequested) {
        next.push(indented_line_break(snapshot, &place));
    }
    if unrequested {
        next.push(String::new());
    }
    let cursor = snapshot.cursor;
    next.into_iter().map(|text| Suggestion { range: cursor..cursor, text }).collect()
}

/// Whether the cursor is at the end of a line that may be complete. An `untyped` line is, unless it ends with a blank
/// that more text will follow. While a line is typed, most words become longer or another word follows.
fn may_be_complete(place: &CursorContext<'_>, untyped: bool) -> bool {
    if !place.line_after.trim().is_empty() || place.is_in_indentation() {
        return false;
    }
    let last = [')', ']', '}', ';', ':', '{', '(', '[', ',', '"', '\'', '`', '>'];
    place.line_before.trim_end().ends_with(last)
        || untyped && !place.line_before.ends_with([' ', '\t'])
        || is_statement_complete(place)
}

/// The text that Enter inserts at the end of a line: a line break, and the indentation that editors give the next
/// line. That is the line's own indentation; after a line that opens a block, the existing body's, or one level more;
/// and in indentation-based languages, after `return`, `raise`, `pass`, `break` or `continue`, the block header's.
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

/// The text's last increase in indentation; `above` is its lines, the last first.
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

/// The document after `action`; `None` if the action does not fit it, or if time was up before the syntax tree was
/// updated.
pub fn apply_action(
    snapshot: &Snapshot,
    action: Suggestion,
    time_is_up: &mut dyn FnMut() -> bool,
) -> Option<Snapshot> {
    let edit = Edit { range: action.range, text: action.text };
    // Automatic, so that doubtful suggestions are withheld as for any automatic request.
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

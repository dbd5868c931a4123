//! Work for the time when nobody waits: reading what a short window left out, and answering before being asked.
//! It knows nothing of threads or clocks: the caller's `watch` says when somebody waits again.

use std::ops::ControlFlow;
use std::time::Duration;

use taper_engine::{Engine, EngineError, Limits, Prompt, Stop};

use super::plan::{self, KEYSTROKE};
use super::{Idle, Snapshot, Suggestion, Trigger, budget, file};
use crate::prompt::{self, template::Profile};
use crate::text::Edit;

/// Tokens that may have been typed in front of a suffix before it is read again: that it has not seen so few makes no
/// difference to speak of.
const FRESH: usize = 8;

/// A window that can be read in this time comes first: a question should not wait for longer.
pub const MEANWHILE: Duration = Duration::from_millis(200);

/// What became of a reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// There was nothing to read, or so little that a question can.
    Already,
    /// All that is to be read is in the cache now.
    Whole,
    /// `watch` ended it; what was read is in the cache.
    Interrupted,
}

/// A window that can be read in this time comes next, where the whole one takes longer: until that one is read, answers
/// come from this one.
const SOON: Duration = Duration::from_millis(1500);

/// What the whole window may take to be read. A machine that needs longer reads a shorter one at each new place: else its
/// fans would run for longer than somebody stays there.
fn whole_window(idle: Idle) -> Duration {
    Duration::from_secs(if idle == Idle::Full { 30 } else { 8 })
}

/// Reads the prompt that is best for `snapshot` into the engine's cache: the whole window, or the longest that this
/// engine reads in reasonable time, and a suffix that has seen what stands before it. Where that takes long, first shorter
/// ones that a question meanwhile can be answered from.
///
/// # Errors
/// The engine failed; see [`Engine::generate`].
pub fn read(
    snapshot: &Snapshot,
    profile: &Profile,
    engine: &mut dyn Engine,
    watch: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<Read, EngineError> {
    read_within(whole_window(snapshot.options.idle), snapshot, profile, engine, watch)
}

/// [`read`], with what the whole window may take.
pub(super) fn read_within(
    time: Duration,
    snapshot: &Snapshot,
    profile: &Profile,
    engine: &mut dyn Engine,
    watch: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<Read, EngineError> {
    let (best, _) =
        prompt::build(profile, engine.tokens(), file(snapshot), budget(&snapshot.options, profile));
    let stale = |stale| Limits { max_tokens: 0, stale, background: true };
    if engine.unread(&best, &stale(FRESH)) <= KEYSTROKE {
        return Ok(Read::Already);
    }
    let mut done = Read::Already;
    let mut read = |engine: &mut dyn Engine, prompt: &Prompt, old: usize| {
        done = Read::Whole;
        engine.generate(prompt, &stale(old), &mut |_| watch()).map(|read| read.stop == Stop::Watch)
    };
    let first = plan::choose(MEANWHILE, snapshot, profile, engine, best.clone());
    // However little it is: until something was read, nobody knows how much can be.
    let unmeasured = engine.rates().prefill <= 0.0;
    if first.short
        && (unmeasured || engine.unread(&first.prompt, &stale(first.stale)) > KEYSTROKE)
        && read(engine, &first.prompt, first.stale)?
    {
        return Ok(Read::Interrupted);
    }
    // Only now, for what was read first may be the first that tells how fast this goes.
    let longest = plan::longest(time, snapshot, profile, engine, best.clone());
    if engine.unread(&longest, &stale(0)) as f32 > engine.rates().prefill * SOON.as_secs_f32() {
        let better = plan::longest(SOON, snapshot, profile, engine, best);
        if engine.unread(&better, &stale(first.stale)) > KEYSTROKE && read(engine, &better, first.stale)? {
            return Ok(Read::Interrupted);
        }
    }
    if engine.unread(&longest, &stale(FRESH)) > KEYSTROKE && read(engine, &longest, 0)? {
        return Ok(Read::Interrupted);
    }
    Ok(done)
}

/// Whether no more of the file than a prompt of so many tokens has is ever read here by [`read`].
pub fn is_longest(tokens: usize, snapshot: &Snapshot, profile: &Profile, engine: &dyn Engine) -> bool {
    if snapshot.options.idle == Idle::Off {
        return true;
    }
    let (best, _) =
        prompt::build(profile, engine.tokens(), file(snapshot), budget(&snapshot.options, profile));
    let time = whole_window(snapshot.options.idle);
    plan::longest(time, snapshot, profile, engine, best).tokens.len() <= tokens
}

/// The document once `suggestion` is accepted, and `typed` behind it; `None` if the suggestion does not fit it, or if
/// time was up before the tree was brought up to it.
pub fn accepted(
    snapshot: &Snapshot,
    suggestion: &Suggestion,
    typed: &str,
    time_is_up: &mut dyn FnMut() -> bool,
) -> Option<Snapshot> {
    let edit = Edit { range: suggestion.range.clone(), text: format!("{}{typed}", suggestion.text) };
    // Nobody asks there, so nothing doubtful is kept for who comes there.
    let trigger = Trigger::Automatic;
    let mut after = Snapshot { selected: None, syntax: None, trigger, ..snapshot.clone() };
    edit.apply(&mut after.text).ok()?;
    after.cursor = suggestion.range.start + edit.text.len();
    if let Some(syntax) = &snapshot.syntax {
        after.syntax = Some(syntax.with_edit(&edit, &after.text, time_is_up)?);
    }
    Some(after)
}

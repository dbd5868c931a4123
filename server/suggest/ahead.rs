//! Work for the time when nobody waits: reading what a short window left out, and answering before being asked.
//! It knows nothing of threads or clocks: the caller's `watch` says when somebody waits again.

use std::ops::ControlFlow;

use taper_engine::{Engine, EngineError, Limits, Prompt};

use super::{Snapshot, Suggestion, Work, budget, file, suggest};
use crate::prompt::{self, template::Profile};
use crate::text::Edit;

/// What one step of reading may take, seconds: a question that comes meanwhile waits for no longer.
const STEP: f32 = 0.010;
/// Tokens of a step at least: fewer take hardly less time, because the weights are read once either way.
const SMALLEST: usize = 16;
/// Tokens of a step at most.
const LARGEST: usize = 512;

/// Reads the whole window of `snapshot` into the engine's cache; says whether it came to the end of it.
///
/// # Errors
/// The engine failed; see [`Engine::generate`].
pub fn read(
    snapshot: &Snapshot,
    profile: &Profile,
    engine: &mut dyn Engine,
    watch: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<bool, EngineError> {
    let (prompt, _) = prompt::build(profile, engine.tokens(), file(snapshot), budget(&snapshot.options));
    let step = ((engine.rates().prefill * STEP) as usize).clamp(SMALLEST, LARGEST);
    let mut read = prompt.tokens.len() - engine.unread(&prompt, &Limits::default());
    while read < prompt.tokens.len() {
        if watch().is_break() {
            return Ok(false);
        }
        read = (read + step).min(prompt.tokens.len());
        let part = Prompt { tokens: prompt.tokens[..read].to_vec(), forced: Vec::new(), ..Prompt::default() };
        let mut interrupted = false;
        engine.generate(&part, &Limits { background: true, ..Limits::default() }, &mut |_| {
            let flow = watch();
            interrupted = flow.is_break();
            flow
        })?;
        if interrupted && read < prompt.tokens.len() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// [`suggest`] for a question that nobody has asked yet; `None` if `watch` ended it before it was done.
///
/// # Errors
/// The engine failed; see [`Engine::generate`].
pub fn answer(
    snapshot: &Snapshot,
    profile: &Profile,
    engine: &mut dyn Engine,
    watch: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<Option<(Option<Suggestion>, Work)>, EngineError> {
    if !read(snapshot, profile, engine, watch)? {
        return Ok(None);
    }
    let mut interrupted = false;
    let answer = suggest(snapshot, profile, engine, &mut |_| {
        let flow = watch();
        interrupted = flow.is_break();
        flow
    })?;
    Ok(Some(answer).filter(|_| !interrupted))
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
    let mut after = Snapshot { selected: None, syntax: None, ..snapshot.clone() };
    edit.apply(&mut after.text).ok()?;
    after.cursor = suggestion.range.start + edit.text.len();
    if let Some(syntax) = &snapshot.syntax {
        after.syntax = Some(syntax.with_edit(&edit, &after.text, time_is_up)?);
    }
    Some(after)
}

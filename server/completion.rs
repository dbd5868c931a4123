//! From a snapshot of a document to a suggestion: the whole path as one readable function.
//! The caller's `watch` decides when to stop.

use std::borrow::Cow;
use std::mem;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::time::Duration;

use taper_engine::{Engine, EngineError, Generation, GenerationLimits, Prompt, ScoredToken, StopReason};
use taper_grammars::Language;

pub mod alternatives;
pub mod cache;
pub mod confidence;
pub mod confidence_filter;
pub mod cursor;
mod fallback;
pub mod next_actions;
pub mod prompt_choice;
pub mod stop;
pub mod trigger;
pub mod trim;

mod block_depth;
mod chatter;
mod enclosing_literal;
mod lexer;
mod post_processor;
mod suffix_overlap;
mod validate;

use crate::prompt::{
    self,
    template::Profile,
    window::{self, PromptWindow},
};
use crate::retrieval::Snippet;
use crate::syntax::Syntax;
use crate::text::{Edit, Rope};
use confidence_filter::{ConfidenceFilter, Eagerness};
use cursor::CursorContext;
use enclosing_literal::EnclosingLiteral;
use fallback::{FallbackResult, FallbackSuggestion};
use post_processor::{FinishedOutput, PostProcessor};
use prompt_choice::PromptChoice;

/// Bytes before and after the cursor that the rules read: the statement, its block, and text that the output might
/// repeat.
const RULE_WINDOW_BYTES: (usize, usize) = (6144, 1536);

/// Everything a request depends on, at one moment. Cheap to take, never changed.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The document.
    pub text: Rope,
    /// Its syntax tree, if the language has a grammar and the parse finished in time.
    pub syntax: Option<Syntax>,
    /// Its language; `None` if taper does not know it.
    pub language: Option<&'static Language>,
    /// The path shown to the model: relative to the workspace, with `/`.
    pub path: String,
    /// The cursor, a byte offset into `text` at a character boundary.
    pub cursor: usize,
    /// Text that precedes the document in the prompt, as if both were one file: the earlier cells of a notebook. It
    /// ends with a line break. Suggestions are trimmed and checked in the document alone.
    pub preceding: Option<Rope>,
    /// The item selected in the editor's completion popup. A suggestion may only extend it.
    pub selected: Option<SelectedItem>,
    /// What caused the request.
    pub trigger: Trigger,
    /// How to suggest.
    pub options: Options,
    /// Chunks of the project's other files that may help here, the best last.
    pub snippets: Arc<[Snippet]>,
    /// The snippets used before `snippets` were found: a prompt cached with them can still be continued.
    pub previous_snippets: Arc<[Snippet]>,
}

/// The selected item of a completion popup (LSP `selectedCompletionInfo`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelectedItem {
    /// Bytes that the item replaces.
    pub range: Range<usize>,
    /// The text it inserts.
    pub text: String,
}

/// What caused a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// The user, explicitly.
    Invoked,
    /// The editor, because of a keystroke or a cursor movement.
    Automatic,
}

/// How to suggest: the settings of this layer and of the prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Maximum lines of a suggestion.
    pub max_lines: usize,
    /// Maximum decoded tokens.
    pub max_tokens: usize,
    /// One line, a block, or decided by the context.
    pub extent: ExtentSetting,
    /// How confident the model must be.
    pub eagerness: Eagerness,
    /// Maximum prompt tokens of this file before the cursor.
    pub prefix_tokens: usize,
    /// Maximum prompt tokens of this file after the cursor; `None`: the model's default.
    pub suffix_tokens: Option<usize>,
    /// Maximum prompt tokens of other files; `None`: the model's default.
    pub snippet_tokens: Option<usize>,
    /// Work done while idle.
    pub idle: IdleSetting,
}

/// Work done while idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum IdleSetting {
    /// None: work ends with the deadline.
    Off,
    /// Finish interrupted work, prefill the best prompt window where a cached one was used instead, and prefetch
    /// likely next completions: see [`next_actions::likely_actions`].
    Modest,
    /// Also prefetch the new line after the shown suggestion.
    Full,
}

/// How much to suggest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtentSetting {
    /// Always one line.
    Line,
    /// A line or a block, depending on the context.
    Auto,
    /// Always up to the end of the block.
    Block,
}

impl Options {
    /// Maximum lines of a suggestion, anywhere.
    fn line_limit(&self) -> usize {
        if self.extent == ExtentSetting::Line { 1 } else { self.max_lines }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_lines: 12,
            max_tokens: 96,
            extent: ExtentSetting::Auto,
            eagerness: Eagerness::Medium,
            prefix_tokens: 2048,
            suffix_tokens: None,
            snippet_tokens: None,
            idle: IdleSetting::Modest,
        }
    }
}

/// The text to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suggestion {
    /// Bytes of the document that the suggestion replaces: empty at the cursor, unless it extends a selected popup
    /// item or replaces closers to the right.
    pub range: Range<usize>,
    /// The text, with the line breaks of the file.
    pub text: String,
}

/// The work done for a response, for logs, `complete` and benches.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CompletionWork {
    /// Tokens in the prompt.
    pub prompt_tokens: usize,
    /// Whether time allowed only a prompt that is shorter than the settings permit.
    pub short: bool,
    /// Whether the prompt's window or anchor is that of some lines ago, because that prompt is cached.
    pub older: bool,
    /// Prompt tokens evaluated for this response.
    pub evaluated: usize,
    /// Tokens decoded greedily.
    pub decoded: usize,
    /// Prefill time, seconds.
    pub prefill_seconds: f64,
    /// Decode time of these tokens, seconds.
    pub decode_seconds: f64,
    /// The model's raw output, before trimming.
    pub raw: String,
    /// Why nothing is suggested, or which rule cut the text: for `--explain` and logs.
    pub reason: &'static str,
    /// The decoded tokens of `raw`, with their probabilities.
    pub pieces: Vec<ScoredToken>,
    /// Each step from `raw` to the shown text that removed something, in order.
    pub trim_steps: Vec<TrimStep>,
    /// Tokens decoded in addition, in search of an alternative.
    pub searched: usize,
    /// Whether that search was interrupted.
    pub search_ended: bool,
    /// The greedy output, if none of it can be shown and an alternative is.
    pub rejected_greedy: Option<RejectedOutput>,
}

/// The greedy output that an alternative replaces.
#[derive(Debug, Clone, PartialEq)]
pub struct RejectedOutput {
    /// The text.
    pub raw: String,
    /// Its tokens.
    pub pieces: Vec<ScoredToken>,
}

/// One step from the raw output to the shown text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrimStep {
    /// The rule.
    pub rule: &'static str,
    /// The text that it left.
    pub remaining: String,
}

/// The progress of a completion.
#[derive(Debug, Clone, Copy)]
pub struct CompletionProgress<'a> {
    /// The output so far, as it would be typed: line breaks are `\n`, and blanks already before the cursor are not
    /// repeated. The last word may be incomplete. Empty during prefill.
    pub text: &'a str,
    /// The suggestion to show if time were up now. It ends at a complete word.
    pub draft: Option<&'a Suggestion>,
    /// The prefill work before the first token.
    pub prefill: PrefillEstimate,
    /// Whether the model has finished, none of its output can be shown, and an alternative is being decoded. `Break`
    /// ends only that search.
    pub seeking_fallback: bool,
}

/// The work of prefilling a prompt.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PrefillEstimate {
    /// Tokens that were in no KV cache at the start.
    pub unread: usize,
    /// Tokens at the end of the prompt that a prompt with more text before the cursor does not share: prefilling them
    /// serves only this prompt.
    pub unshared: usize,
    /// The engine's recent prefill speed in tokens per second; 0 without a measurement.
    pub rate: f32,
}

/// Runs the model and trims its output. `watch` is called after every prefill chunk and token.
///
/// # Errors
/// The engine failed; see [`Engine::generate`].
pub fn suggest(
    snapshot: &Snapshot,
    profile: &Profile,
    engine: &mut dyn Engine,
    watch: &mut dyn FnMut(&CompletionProgress<'_>) -> ControlFlow<()>,
) -> Result<(Option<Suggestion>, CompletionWork), EngineError> {
    suggest_within(None, snapshot, profile, engine, watch)
}

/// [`suggest`] with a limited prefill time. The engine continues a cached prompt if there is one. If it cannot
/// prefill the whole window within `time_to_read`, it uses a shorter one. `watch` enforces the deadline itself.
///
/// # Errors
/// The engine failed; see [`Engine::generate`].
pub fn suggest_within(
    time_to_read: Option<Duration>,
    snapshot: &Snapshot,
    profile: &Profile,
    engine: &mut dyn Engine,
    watch: &mut dyn FnMut(&CompletionProgress<'_>) -> ControlFlow<()>,
) -> Result<(Option<Suggestion>, CompletionWork), EngineError> {
    if let Some(selected) = &snapshot.selected {
        return extend_selected(time_to_read, snapshot, selected, profile, engine, watch);
    }
    let options = &snapshot.options;
    let around = rule_window(snapshot);
    let place = cursor_context(&around, snapshot);
    let extent = match trigger::decide_extent(snapshot, &place) {
        Ok(extent) => extent,
        Err(reason) => return Ok((None, CompletionWork { reason, ..CompletionWork::default() })),
    };
    let (prompt, _) = prompt::build_prompt(
        profile,
        engine.tokenizer(),
        snapshot.joined_document().prompt_file(),
        prompt_budget(options, profile),
    );
    let PromptChoice { prompt, short, older, stale } = match time_to_read {
        Some(left) => prompt_choice::choose_prompt(left, snapshot, profile, engine, prompt),
        None => PromptChoice { prompt, ..PromptChoice::default() },
    };

    // The tokens of the forced text come on top of the output's budget.
    let limits = GenerationLimits {
        max_tokens: options.max_tokens + prompt.healing_bytes.len(),
        max_stale_tokens: stale,
        background: false,
    };
    let rate = engine.throughput().prefill;
    let reading = PrefillEstimate {
        unread: engine.uncached_token_count(&prompt, &limits),
        unshared: unshared_tokens(&prompt),
        rate,
    };
    let rules = PostProcessor {
        snapshot,
        place: &place,
        extent,
        confidence_filter: ConfidenceFilter::for_snapshot(snapshot, profile),
    };
    let mut end = None;
    // The line count distinguishes a complete line from an incomplete one with the same text.
    let mut drafted = (String::new(), 0);
    let mut draft = None;
    let mut interrupted = false;
    let mut seen_len = None;
    let mut typed = String::new();
    let generation = engine.generate(&prompt, &limits, &mut |output| {
        let text = output.text;
        // The text only grows. An unchanged length means that the engine polls in the middle of a token.
        if seen_len.replace(text.len()) != Some(text.len()) {
            end = rules.find_end(output, false);
            if end.is_some() {
                return ControlFlow::Break(());
            }
            let text = rules.without_lead(text);
            if let Some(part) = trim::trim_output(&place, text, false) {
                let part = (part, text.matches('\n').count());
                if part != drafted {
                    draft = rules.draft_suggestion(output, &part.0);
                    drafted = part;
                }
            }
            typed = trim::as_typed(&place, text);
        }
        let flow = watch(&CompletionProgress {
            text: &typed,
            draft: draft.as_ref(),
            prefill: reading,
            seeking_fallback: false,
        });
        interrupted = flow.is_break();
        flow
    })?;

    let mut work = CompletionWork {
        prompt_tokens: prompt.tokens.len(),
        short,
        older,
        evaluated: generation.evaluated,
        decoded: generation.tokens.len(),
        prefill_seconds: generation.prefill.as_secs_f64(),
        decode_seconds: generation.decode.as_secs_f64(),
        ..CompletionWork::default()
    };
    let whole = end.is_some() || generation.stop == StopReason::EndOfText;
    let end = end.or_else(|| whole.then(|| rules.find_end(generation.partial_output(), true))?);
    let mut finished = FinishedOutput { generation, end, whole };
    let mut shown = draft;
    if !interrupted {
        (shown, work.trim_steps) = rules.finish_suggestion(&finished);
    }
    if !interrupted && shown.is_none() && !is_unsure(&work.trim_steps) {
        let typed =
            |ended: &FinishedOutput| trim::as_typed(&place, rules.without_lead(&ended.generation.text));
        let greedy = typed(&finished);
        let FallbackResult { best, decoded, interrupted } =
            fallback::search_fallback(&rules, engine, &finished, limits.max_tokens, &mut |best| {
                let text = best.map(|it| typed(&it.output));
                let draft = best.map(|it| &it.shown);
                watch(&CompletionProgress {
                    text: text.as_ref().unwrap_or(&greedy),
                    draft,
                    prefill: reading,
                    seeking_fallback: true,
                })
            })?;
        (work.searched, work.search_ended) = (decoded, interrupted);
        if let Some(FallbackSuggestion { output: ended, shown: alternative, trim_steps: cuts, .. }) = best {
            let Generation { text: raw, tokens: pieces, .. } = mem::replace(&mut finished, ended).generation;
            work.rejected_greedy = Some(RejectedOutput { raw, pieces });
            (shown, work.trim_steps) = (Some(alternative), cuts);
        }
    }
    work.reason = match (&shown, finished.end) {
        (None, _) if is_unsure(&work.trim_steps) => confidence_filter::UNSURE_RULE,
        (_, Some(end)) => end.rule,
        (Some(_), None) if interrupted => "interrupted",
        (Some(_), None) => "the model ended",
        (None, None) => "nothing of the answer fits",
    };
    Generation { text: work.raw, tokens: work.pieces, .. } = finished.generation;
    Ok((shown, work))
}

/// Whether the last step removed text because of low confidence.
fn is_unsure(cuts: &[TrimStep]) -> bool {
    cuts.last().is_some_and(|cut| cut.rule == confidence_filter::UNSURE_RULE)
}

impl Snapshot {
    /// A cursor in a text of no known language, where typing causes the request and nothing else is known.
    pub fn new(text: Rope, cursor: usize, options: Options) -> Self {
        Self {
            text,
            syntax: None,
            language: None,
            path: String::new(),
            cursor,
            preceding: None,
            selected: None,
            trigger: Trigger::Automatic,
            options,
            snippets: Arc::default(),
            previous_snippets: Arc::default(),
        }
    }

    /// The document with the text that precedes it.
    pub fn joined_document(&self) -> JoinedDocument<'_> {
        let Some(preceding) = &self.preceding else {
            return JoinedDocument { snapshot: self, text: Cow::Borrowed(&self.text), cursor: self.cursor };
        };
        let mut text = preceding.clone();
        text.append(self.text.clone());
        JoinedDocument { snapshot: self, text: Cow::Owned(text), cursor: preceding.len_bytes() + self.cursor }
    }

    /// Whether the text that precedes the document is the same in both.
    pub(crate) fn has_same_preceding(&self, other: &Self) -> bool {
        match (&self.preceding, &other.preceding) {
            (None, None) => true,
            (Some(a), Some(b)) => a.is_instance(b) || a == b,
            _ => false,
        }
    }
}

/// A document with the text that precedes it.
#[derive(Debug)]
pub struct JoinedDocument<'a> {
    snapshot: &'a Snapshot,
    text: Cow<'a, Rope>,
    cursor: usize,
}

impl JoinedDocument<'_> {
    /// The file, as input for a prompt.
    pub fn prompt_file(&self) -> prompt::PromptFile<'_> {
        let Snapshot { path, language, snippets, .. } = self.snapshot;
        prompt::PromptFile { text: &self.text, cursor: self.cursor, path, language: *language, snippets }
    }
}

/// The token budget of each part of the prompt.
pub fn prompt_budget(options: &Options, profile: &Profile) -> prompt::Budget {
    prompt::Budget {
        prefix: options.prefix_tokens,
        suffix: options.suffix_tokens.unwrap_or(profile.form.suffix),
        snippets: profile.snippet_tokens().map_or(0, |best| options.snippet_tokens.unwrap_or(best)),
        output: options.max_tokens,
    }
}

/// Bytes of other files worth retrieving: as many as fit into the prompt.
pub fn snippet_bytes(options: &Options, profile: &Profile) -> usize {
    prompt_budget(options, profile).snippets * prompt::BYTES_PER_TOKEN
}

/// The text that the rules read, independent of the prompt's window.
fn rule_window(snapshot: &Snapshot) -> PromptWindow {
    window::window_at(&snapshot.text, snapshot.cursor, RULE_WINDOW_BYTES.0, RULE_WINDOW_BYTES.1)
}

/// The cursor's context in the text `around` it.
fn cursor_context<'w>(around: &'w PromptWindow, snapshot: &Snapshot) -> CursorContext<'w> {
    let mut place = CursorContext::in_code(&around.prefix, &around.suffix, snapshot.language);
    place.literal = EnclosingLiteral::at_cursor(snapshot, &place);
    place
}

/// [`PrefillEstimate::unshared`]: the suffix segment and what follows it, if the suffix comes after the text before
/// the cursor; otherwise the last token, whose logits are needed.
fn unshared_tokens(prompt: &Prompt) -> usize {
    let Prompt { tokens, suffix, .. } = prompt;
    // Only the middle token follows the suffix, unless text before the cursor does.
    let follows = !suffix.is_empty() && tokens.len() - suffix.end <= 1;
    if follows { tokens.len() - suffix.start + 1 } else { 1 }
}

/// Suggests as if the popup's selected item were already accepted, and prepends that item.
fn extend_selected(
    time_to_read: Option<Duration>,
    snapshot: &Snapshot,
    selected: &SelectedItem,
    profile: &Profile,
    engine: &mut dyn Engine,
    watch: &mut dyn FnMut(&CompletionProgress<'_>) -> ControlFlow<()>,
) -> Result<(Option<Suggestion>, CompletionWork), EngineError> {
    let edit = Edit { range: selected.range.clone(), text: selected.text.clone() };
    let mut accepted = Snapshot { selected: None, syntax: None, ..snapshot.clone() };
    if edit.apply(&mut accepted.text).is_err() {
        return Ok((
            None,
            CompletionWork { reason: "the selected item does not fit the text", ..CompletionWork::default() },
        ));
    }
    accepted.cursor = selected.range.start + selected.text.len();
    let extend = |suggestion: Suggestion| Suggestion {
        range: selected.range.clone(),
        text: format!("{}{}", selected.text, suggestion.text),
    };
    let mut watch = |progress: &CompletionProgress<'_>| {
        let draft = progress.draft.cloned().map(extend);
        watch(&CompletionProgress { draft: draft.as_ref(), ..*progress })
    };
    let (suggestion, work) = suggest_within(time_to_read, &accepted, profile, engine, &mut watch)?;
    Ok((suggestion.map(extend), work))
}

#[cfg(test)]
mod fixture {
    use super::*;

    /// A snapshot of a text marked with `▮` at the cursor, parsed if its language has a grammar.
    pub(super) fn snapshot(path: &str, marked: &str) -> Snapshot {
        let (before, after) = marked.split_once('▮').unwrap_or((marked, ""));
        let language = taper_grammars::by_path(path.as_ref());
        let text = Rope::from_str(&format!("{before}{after}"));
        Snapshot {
            syntax: language.and_then(|it| Syntax::parse(&text, it, &mut || false)),
            language,
            path: path.to_owned(),
            ..Snapshot::new(text, before.len(), Options::default())
        }
    }
}

#[cfg(test)]
mod tests {
    use taper_engine::scripted::ScriptedEngine;

    use super::*;

    #[test]
    fn suffix_hidden_from_model_is_not_repeated() {
        let place = fixture::snapshot("x.py", "def f(a):\n    x = 1\n    ▮\n    y = compute(a, 2)\n");
        for suffix_tokens in [Some(0), Some(1), None] {
            let mut engine: Box<dyn Engine> =
                Box::new(ScriptedEngine::new().answer_with(|_| "y = compute(a, 2)\n".to_owned()));
            let profile = Profile::for_model(engine.engine_info(), engine.tokenizer());
            let options = Options { suffix_tokens, ..Options::default() };
            let place = Snapshot { options, ..place.clone() };
            let shown = suggest(&place, &profile, engine.as_mut(), &mut |_| ControlFlow::Continue(()));
            assert_eq!(shown.map(|it| it.0).ok(), Some(None), "{suffix_tokens:?}");
        }
    }
}

//! From a snapshot of a document to a suggestion: the whole path as one readable function.
//! The caller's `watch` decides when to stop.

use std::borrow::Cow;
use std::mem;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::time::Duration;

use taper_engine::{Engine, EngineError, Generation, GenerationLimits, Prompt, ScoredToken, Tokenizer};
use taper_grammars::Language;

pub mod alternatives;
pub mod cache;
pub mod confidence;
pub mod confidence_filter;
pub mod cursor;
mod fallback;
pub mod next_actions;
pub mod prompt_choice;
pub mod trigger;

mod block_depth;
mod chatter;
mod draft;
mod enclosing_literal;
mod lexer;
mod pipeline;
mod stop;
mod suffix_overlap;
mod trim;
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
use draft::Draft;
use enclosing_literal::EnclosingLiteral;
use fallback::{FallbackResult, FallbackSuggestion};
use pipeline::PostProcessor;
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

impl SelectedItem {
    /// The snapshot as if the item were already accepted; `None` if it does not fit the document.
    fn accept(&self, snapshot: &Snapshot) -> Option<Snapshot> {
        let mut accepted = Snapshot { selected: None, syntax: None, ..snapshot.clone() };
        let edit = Edit { range: self.range.clone(), text: self.text.clone() };
        edit.apply(&mut accepted.text).ok()?;
        accepted.cursor = edit.new_end();
        Some(accepted)
    }

    /// The item with a suggestion that follows it.
    fn extend_by(&self, suggestion: &Suggestion) -> Suggestion {
        Suggestion { range: self.range.clone(), text: format!("{}{}", self.text, suggestion.text) }
    }
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
/// The popup's selected item counts as accepted, and the suggestion extends it.
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
    let Some(selected) = &snapshot.selected else {
        return suggest_at_cursor(time_to_read, snapshot, profile, engine, watch);
    };
    let Some(accepted) = selected.accept(snapshot) else {
        let reason = "the selected item does not fit the document";
        return Ok((None, CompletionWork { reason, ..CompletionWork::default() }));
    };
    let mut watch = |progress: &CompletionProgress<'_>| {
        let draft = progress.draft.map(|it| selected.extend_by(it));
        watch(&CompletionProgress { draft: draft.as_ref(), ..*progress })
    };
    let (shown, work) = suggest_at_cursor(time_to_read, &accepted, profile, engine, &mut watch)?;
    Ok((shown.map(|it| selected.extend_by(&it)), work))
}

fn suggest_at_cursor(
    time_to_read: Option<Duration>,
    snapshot: &Snapshot,
    profile: &Profile,
    engine: &mut dyn Engine,
    watch: &mut dyn FnMut(&CompletionProgress<'_>) -> ControlFlow<()>,
) -> Result<(Option<Suggestion>, CompletionWork), EngineError> {
    let around = rule_window(snapshot);
    let place = cursor_context(&around, snapshot);
    let extent = match trigger::decide_extent(snapshot, &place) {
        Ok(extent) => extent,
        Err(reason) => return Ok((None, CompletionWork { reason, ..CompletionWork::default() })),
    };
    let PreparedPrompt { choice, limits, prefill } = prepare_prompt(time_to_read, snapshot, profile, engine);
    let confidence_filter = ConfidenceFilter::for_snapshot(snapshot, profile);
    let rules = PostProcessor { snapshot, place: &place, extent, confidence_filter };

    let mut draft = Draft::new(&rules);
    let mut interrupted = false;
    let generation = engine.generate(&choice.prompt, &limits, &mut |output| {
        draft.read_output(output)?;
        let Draft { typed, suggestion, .. } = &draft;
        let draft = suggestion.as_ref();
        let flow = watch(&CompletionProgress { text: typed, draft, prefill, seeking_fallback: false });
        interrupted = flow.is_break();
        flow
    })?;
    let mut work = CompletionWork::of_generation(&choice, &generation);
    let Draft { end, suggestion, .. } = draft;
    let mut finished = rules.finish_output(generation, end);
    let mut shown = suggestion;
    if !interrupted {
        (shown, work.trim_steps) = rules.finish_suggestion(&finished);
    }
    if !interrupted && shown.is_none() && !is_unsure(&work.trim_steps) {
        let greedy = rules.typed_text(&finished.generation.text);
        let FallbackResult { best, decoded, interrupted } =
            fallback::search_fallback(&rules, engine, &finished, limits.max_tokens, &mut |best| {
                let typed = best.map(|it| rules.typed_text(&it.output.generation.text));
                let text = typed.as_ref().unwrap_or(&greedy);
                let draft = best.map(|it| &it.shown);
                watch(&CompletionProgress { text, draft, prefill, seeking_fallback: true })
            })?;
        (work.searched, work.search_ended) = (decoded, interrupted);
        if let Some(FallbackSuggestion { output, shown: alternative, trim_steps, .. }) = best {
            let Generation { text: raw, tokens: pieces, .. } = mem::replace(&mut finished, output).generation;
            work.rejected_greedy = Some(RejectedOutput { raw, pieces });
            (shown, work.trim_steps) = (Some(alternative), trim_steps);
        }
    }
    work.reason = match (&shown, finished.end) {
        (None, _) if is_unsure(&work.trim_steps) => confidence_filter::UNSURE_RULE,
        (_, Some(end)) => end.rule,
        (Some(_), None) if interrupted => "interrupted",
        (Some(_), None) => "the model finished",
        (None, None) => "no part of the output can be shown",
    };
    Generation { text: work.raw, tokens: work.pieces, .. } = finished.generation;
    Ok((shown, work))
}

/// A request's prompt, and its generation.
struct PreparedPrompt {
    choice: PromptChoice,
    limits: GenerationLimits,
    prefill: PrefillEstimate,
}

fn prepare_prompt(
    time_to_read: Option<Duration>,
    snapshot: &Snapshot,
    profile: &Profile,
    engine: &dyn Engine,
) -> PreparedPrompt {
    let prompt = best_prompt(snapshot, profile, engine.tokenizer());
    let choice = match time_to_read {
        Some(left) => prompt_choice::choose_prompt(left, snapshot, profile, engine, prompt),
        None => PromptChoice { prompt, ..PromptChoice::default() },
    };
    let limits = GenerationLimits {
        // The tokens of the forced text come on top of the output's budget.
        max_tokens: snapshot.options.max_tokens + choice.prompt.healing_bytes.len(),
        max_stale_tokens: choice.stale,
        background: false,
    };
    let prefill = PrefillEstimate {
        unread: engine.uncached_token_count(&choice.prompt, &limits),
        unshared: unshared_tokens(&choice.prompt),
        rate: engine.throughput().prefill,
    };
    PreparedPrompt { choice, limits, prefill }
}

impl CompletionWork {
    fn of_generation(choice: &PromptChoice, generation: &Generation) -> Self {
        Self {
            prompt_tokens: choice.prompt.tokens.len(),
            short: choice.short,
            older: choice.older,
            evaluated: generation.evaluated,
            decoded: generation.tokens.len(),
            prefill_seconds: generation.prefill.as_secs_f64(),
            decode_seconds: generation.decode.as_secs_f64(),
            ..Self::default()
        }
    }
}

/// Whether the last step removed text because of low confidence.
fn is_unsure(steps: &[TrimStep]) -> bool {
    steps.last().is_some_and(|step| step.rule == confidence_filter::UNSURE_RULE)
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

/// The prompt with the whole window that the options permit.
pub fn best_prompt(snapshot: &Snapshot, profile: &Profile, tokenizer: &Tokenizer) -> Prompt {
    let document = snapshot.joined_document();
    let budget = prompt_budget(&snapshot.options, profile);
    prompt::build_prompt(profile, tokenizer, document.prompt_file(), budget).0
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

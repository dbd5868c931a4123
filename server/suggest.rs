//! From a snapshot of a document to a suggestion: the whole path as one readable function.
//! It knows nothing of LSP, threads, clocks or tensors: the caller's `watch` says when to end.

pub mod reuse;

use std::ops::{ControlFlow, Range};

use taper_engine::{Engine, EngineError};
use taper_grammars::Language;

use crate::prompt::template::Profile;
use crate::syntax::Syntax;
use crate::text::Rope;

/// Everything that a question is about, at one moment: cheap to take, never changed.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The document.
    pub text: Rope,
    /// Its tree, if its language has a grammar and the parse was in time.
    pub syntax: Option<Syntax>,
    /// Its language; `None` for one that taper does not know.
    pub language: Option<&'static Language>,
    /// The path that the model is shown: relative to the workspace, with `/`.
    pub path: String,
    /// The cursor, a byte offset into `text` at a character boundary.
    pub cursor: usize,
    /// The item that is selected in the editor's completion popup, which a suggestion may only extend.
    pub selected: Option<Selected>,
    /// Whether a person asked, or a keystroke.
    pub trigger: Trigger,
    /// How to suggest.
    pub options: Options,
}

/// The selected item of a completion popup (LSP `selectedCompletionInfo`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selected {
    /// Bytes that the item would replace.
    pub range: Range<usize>,
    /// What it would put there.
    pub text: String,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// A person, explicitly.
    Invoked,
    /// The editor, because of a keystroke or a cursor movement.
    Automatic,
}

/// How to suggest; the settings of this floor and of the prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Lines that a suggestion has at most.
    pub max_lines: usize,
    /// Tokens that are decoded at most.
    pub max_tokens: usize,
    /// One line, a block, or what the place asks for.
    pub extent: Extent,
    /// Tokens of this file before the cursor that the model sees at most.
    pub prefix_tokens: usize,
    /// Tokens of this file after the cursor that the model sees at most.
    pub suffix_tokens: usize,
}

/// How much to suggest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Always one line.
    Line,
    /// A line or a block, by the place.
    Auto,
    /// Always up to the end of the block.
    Block,
}

impl Default for Options {
    fn default() -> Self {
        Self { max_lines: 12, max_tokens: 96, extent: Extent::Auto, prefix_tokens: 768, suffix_tokens: 192 }
    }
}

/// What to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suggestion {
    /// Bytes of the document that the suggestion replaces: empty at the cursor, unless it extends a
    /// selected popup item or replaces closers to the right.
    pub range: Range<usize>,
    /// The text, with the line ends of the file.
    pub text: String,
}

/// The work behind an answer, for logs, `complete` and benches.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Work {
    /// Tokens in the prompt.
    pub prompt_tokens: usize,
    /// Prompt tokens evaluated for this answer.
    pub evaluated: usize,
    /// Tokens decoded.
    pub decoded: usize,
    /// Time spent on the prompt, seconds.
    pub prefill_seconds: f64,
    /// Time spent on decoding, seconds.
    pub decode_seconds: f64,
    /// The raw text of the model, before trimming.
    pub raw: String,
    /// Why nothing is suggested, or which rule cut the text: for `--explain` and logs.
    pub reason: &'static str,
}

/// Asks the model and trims the answer. `watch` is called after every prefill chunk and token with what
/// could be shown now if time were up: a suggestion that ends at a complete word, or `None`.
///
/// # Errors
/// The engine failed; see [`Engine::generate`].
pub fn suggest(
    snapshot: &Snapshot,
    profile: &Profile,
    engine: &mut dyn Engine,
    watch: &mut dyn FnMut(Option<Suggestion>) -> ControlFlow<()>,
) -> Result<(Option<Suggestion>, Work), EngineError> {
    let _ = (snapshot, profile, engine, watch);
    Ok((None, Work::default()))
}

//! The engine: a resident language model that continues a prompt, with its files, tokens and tensors.
//!
//! Reading order: this page ([`Engine`], [`Prompt`], [`GenerationLimits`], [`Generation`]), then [`tokenizer`],
//! [`catalog`] and [`fetch`] (which models exist and where their files are), [`local`] (the decoder). The feature
//! `scripted` adds an engine that responds from a script, `test-support` a writer of GGUF files.

use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::time::Duration;

pub mod catalog;
pub mod fetch;
pub mod gguf;
pub mod local;
pub mod memory;
pub mod priority;
#[cfg(any(test, feature = "scripted"))]
pub mod scripted;
#[doc(hidden)]
#[cfg(any(test, feature = "test-support"))]
pub mod testing;
mod threads;
pub mod tokenizer;

mod error;

pub use error::EngineError;
pub use local::TokenDistribution;
pub use tokenizer::{TokenId, Tokenizer};

/// Whether this build has the scripted engine.
pub const HAS_SCRIPTED: bool = cfg!(any(test, feature = "scripted"));

/// The engine that responds from the script at this path; `None` in a build without the feature `scripted`.
///
/// # Errors
/// The script cannot be read, or a line is not a statement.
pub fn scripted_engine(path: &Path) -> Option<Result<Box<dyn Engine>, EngineError>> {
    #[cfg(any(test, feature = "scripted"))]
    return Some(scripted::ScriptedEngine::from_file(path).map(|engine| Box::new(engine) as Box<dyn Engine>));
    #[cfg(not(any(test, feature = "scripted")))]
    {
        let _ = path;
        None
    }
}

/// A model that continues prompts. It has one owner and runs one generation at a time.
pub trait Engine: Send {
    /// The model's vocabulary: encode, count, decode, special tokens.
    fn tokenizer(&self) -> &Tokenizer;

    /// The loaded model and where it runs, for `doctor` and the status line.
    fn engine_info(&self) -> &EngineInfo;

    /// Continues `prompt` greedily until a stop token, `limits`, or `watch` ends it.
    ///
    /// `watch` is called after every prefill chunk (with an empty text before the first token) and after every
    /// token, with all text generated so far *after* [`Prompt::healing_bytes`], which is the text to insert at the
    /// cursor. The text is always valid UTF-8 and never ends inside a character. `watch` is also polled every few
    /// milliseconds with unchanged text, so it must be cheap. `Break` ends the generation with
    /// [`StopReason::Interrupted`]; completed work stays in the KV cache for the next prompt that begins with the same
    /// tokens, including a half-evaluated chunk if the engine can resume one.
    ///
    /// `limits.max_tokens == 0` only prefills the prompt (used while idle).
    ///
    /// # Errors
    /// The prompt is longer than the context, or the device failed. The cache is then empty, and the
    /// engine can be used again.
    fn generate(
        &mut self,
        prompt: &Prompt,
        limits: &GenerationLimits,
        watch: &mut dyn FnMut(PartialOutput<'_>) -> ControlFlow<()>,
    ) -> Result<Generation, EngineError>;

    /// Decodes alternatives to the last generation. The first branch forks at the first uncertain token and takes its
    /// runner-up; the others fork at the most probable remaining runners-up. Each branch obeys the constraints of the
    /// generation: healing bytes and stop tokens. Tokens evaluated before are not evaluated again, and the cache is
    /// unchanged afterwards.
    ///
    /// `watch` is called with each branch after each of its tokens, and once more when it has ended. In between it is
    /// polled with an unchanged branch.
    ///
    /// Nothing happens if the model was certain, if its last generation is no longer in the cache, or if the engine
    /// does not support branches.
    ///
    /// # Errors
    /// The device failed. The cache is then empty, and the engine can be used again.
    fn branch(
        &mut self,
        _limits: &BranchLimits,
        _watch: &mut dyn FnMut(&BranchOutput<'_>) -> BranchControl,
    ) -> Result<(), EngineError> {
        Ok(())
    }

    /// Evaluates `prompt` and then `answer` as if it had been generated, and calls `watch` with the token distribution
    /// after the prompt and after each of the answer's tokens. [`Prompt::healing_bytes`] is ignored. Cached tokens of
    /// the prompt are reused, and the evaluated prompt stays in the cache except for its last token.
    ///
    /// Nothing happens in engines without probabilities, or for an empty prompt.
    ///
    /// # Errors
    /// Prompt and answer are longer than the context, or the device failed. The cache is then empty, and the engine can
    /// be used again.
    fn score(
        &mut self,
        _prompt: &Prompt,
        _answer: &[TokenId],
        _watch: &mut dyn FnMut(&TokenDistribution<'_>),
    ) -> Result<(), EngineError> {
        Ok(())
    }

    /// Clears all cached state. Called after a panic was caught during generation.
    fn clear(&mut self);

    /// Number of the prompt's tokens that would be evaluated now because they are not in a KV cache. Tokens whose
    /// evaluation was interrupted count in proportion to the remaining work.
    fn uncached_token_count(&self, prompt: &Prompt, _limits: &GenerationLimits) -> usize {
        prompt.tokens.len()
    }

    /// The engine's recent speed; zeros if nothing was measured.
    fn throughput(&self) -> ThroughputEstimate {
        ThroughputEstimate::default()
    }
}

/// The input of a generation: tokens, and the bytes that the continuation must begin with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prompt {
    /// Token ids to evaluate, in order, special tokens included.
    pub tokens: Vec<TokenId>,
    /// Token healing: bytes that were removed from the end of the text before the cursor. Decoding is
    /// constrained so that the output's bytes begin with these; they may span several tokens, and the
    /// token that completes them may extend past them. Empty: no healing.
    pub healing_bytes: Vec<u8>,
    /// The range of `tokens` with the text after the cursor, if text before the cursor is inserted in front of it
    /// while the user types: a movable segment of the KV cache, see [`GenerationLimits::max_stale_tokens`]. Empty:
    /// none. At least one token follows it.
    pub suffix: Range<usize>,
}

/// Limits of a generation, and how exact it must be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GenerationLimits {
    /// Maximum tokens to decode, including those that spell [`Prompt::healing_bytes`].
    pub max_tokens: usize,
    /// Maximum number of tokens, removed and added, by which the text before [`Prompt::suffix`] may have changed since
    /// the suffix was evaluated, for its keys and values to be moved to their new positions instead of being evaluated
    /// again. If the beginning of the suffix itself has changed, the rest of it is moved, and the change counts as
    /// well. 0: the result is the same as with an empty cache.
    pub max_stale_tokens: usize,
    /// Whether no client waits for the result: the work then runs at low priority, if engine and system support it.
    pub background: bool,
}

/// The output generated so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct PartialOutput<'a> {
    /// See [`Generation::text`].
    pub text: &'a str,
    /// See [`Generation::tokens`].
    pub tokens: &'a [ScoredToken],
}

/// Limits of the branches of a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BranchLimits {
    /// Maximum number of branches.
    pub max_branches: usize,
    /// Branches fork only within this many bytes of the last generation's text.
    pub within_bytes: usize,
    /// Maximum tokens of a branch, including those that it shares with the last generation.
    pub max_tokens: usize,
}

/// The partial output of one branch.
#[derive(Debug, Clone, Copy)]
pub struct BranchOutput<'a> {
    /// Index of the branch, from 0.
    pub number: usize,
    /// The whole branch from its beginning; times and prompt tokens are those of the branch alone. Its `stop` is valid
    /// after it has ended.
    pub generation: &'a Generation,
    /// Whether the branch has ended.
    pub finished: bool,
}

/// How to proceed with a branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BranchControl {
    /// Decode more of it.
    Continue,
    /// End this branch: it is long enough.
    Finish,
    /// End all branches.
    Abort,
}

/// The result of a generation.
#[derive(Debug, Clone, PartialEq)]
pub struct Generation {
    /// The text after [`Prompt::healing_bytes`].
    pub text: String,
    /// Why it ended.
    pub stop: StopReason,
    /// Each decoded token: the length of `text` after it, and its probability under the model among the allowed
    /// tokens.
    pub tokens: Vec<ScoredToken>,
    /// Prompt tokens found in the KV cache.
    pub reused: usize,
    /// Prompt tokens whose evaluation was completed by this call, even if an interrupted call had begun it. `reused`
    /// and `evaluated` add up to all tokens of the prompt when its prefill is complete.
    pub evaluated: usize,
    /// Time spent on prefill.
    pub prefill: Duration,
    /// Time spent on decoding.
    pub decode: Duration,
}

impl Generation {
    /// A generation in which nothing was done.
    pub fn empty(stop: StopReason) -> Self {
        let (text, pieces, time) = (String::new(), Vec::new(), Duration::ZERO);
        Self { text, stop, tokens: pieces, reused: 0, evaluated: 0, prefill: time, decode: time }
    }

    /// The output so far.
    pub fn partial_output(&self) -> PartialOutput<'_> {
        PartialOutput { text: &self.text, tokens: &self.tokens }
    }
}

/// One decoded token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScoredToken {
    /// Length of the generated text in bytes, up to and including this token.
    pub end: usize,
    /// Probability of the token, 0 to 1.
    pub probability: f32,
}

/// Running averages of an engine's speed, weighted towards recent work.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ThroughputEstimate {
    /// Prompt tokens evaluated per second.
    pub prefill: f32,
    /// Tokens decoded per second.
    pub decode: f32,
}

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// The model generated an end-of-text, FIM or file-separator token.
    EndOfText,
    /// [`GenerationLimits::max_tokens`] or the end of the context.
    Limit,
    /// `watch` returned `Break`.
    Interrupted,
}

/// The model of an engine and where it runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EngineInfo {
    /// The model's name from the file's metadata (`general.name`), else the file name.
    pub model: String,
    /// The family from the file's metadata (`general.architecture`), e.g. `qwen2`.
    pub family: String,
    /// The device and why it was chosen, e.g. `CPU: no GPU feature in this build`.
    pub device: String,
    /// The kernels and why they were chosen, e.g. `AVX-512 VNNI: best that this processor has`.
    pub kernel: String,
    /// How the weights are stored, and held in memory where that differs, e.g. `Q4_K; Q6_K; F32`.
    pub weights: String,
    /// Weights of the model as stored, bytes.
    pub weight_bytes: u64,
    /// Context length in tokens (KV cache capacity).
    pub context: usize,
}

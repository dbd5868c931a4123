//! The engine: a resident language model that continues a prompt, with its files, tokens and tensors.
//! It knows nothing of editors, of the user's files, or of programming languages.
//!
//! Reading order: this page ([`Engine`], [`Prompt`], [`Limits`], [`Generation`]), then [`tokens`],
//! [`models`] and [`fetch`] (which model, where it lies), [`local`] (the decoder). The feature
//! `scripted` adds an engine that answers from a script, `test-support` a writer of GGUF files.

use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::time::Duration;

pub mod catalog;
pub mod fetch;
pub mod gguf;
pub mod local;
mod memory;
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

/// The engine that answers from the script at this path; `None` in a build without the feature `scripted`.
///
/// # Errors
/// The script cannot be read, or a line is no statement.
pub fn scripted_engine(path: &Path) -> Option<Result<Box<dyn Engine>, EngineError>> {
    #[cfg(any(test, feature = "scripted"))]
    return Some(scripted::ScriptedEngine::from_file(path).map(|engine| Box::new(engine) as Box<dyn Engine>));
    #[cfg(not(any(test, feature = "scripted")))]
    {
        let _ = path;
        None
    }
}

/// A model that continues prompts. One owner, one generation at a time.
pub trait Engine: Send {
    /// The model's vocabulary: encode, count, decode, special tokens.
    fn tokenizer(&self) -> &Tokenizer;

    /// What is loaded and where it runs, for `doctor` and the status line.
    fn engine_info(&self) -> &EngineInfo;

    /// Continues `prompt` greedily until a stop token, `limits`, or `watch` ends it.
    ///
    /// `watch` is called after every prefill chunk (with what is said so far, so an empty text at first) and
    /// after every token, with the whole text generated so far *behind* [`Prompt::forced`]: what would be
    /// inserted at the cursor. The text is always valid UTF-8 and never ends inside a character. In between it
    /// is called with the same again, every few milliseconds: to look whether to go on, so it should be
    /// cheap then. `Break` ends the generation with [`Stop::Watch`]; the work done before stays in the KV cache and
    /// serves the next prompt that begins with the same tokens. So does what was done on the chunk in work, where the
    /// engine can go on from the middle of it; else that is given up.
    ///
    /// `limits.max_tokens == 0` only reads the prompt (used while idle).
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

    /// Says the last generation's text in other ways: the first begins alike up to the first token that the model was
    /// unsure of and goes on with the runner-up, the others at the next likeliest of all runners-up. Each keeps what
    /// bound the generation: the forced bytes, the stop tokens. What was read and said before is not evaluated again,
    /// and the cache is afterwards as it was.
    ///
    /// `watch` is told of each branch after each of its tokens, of one that has ended once more, and in between of any,
    /// unchanged, to look whether to go on.
    ///
    /// Nothing happens where the model was sure, where its last generation is not in the cache any more, and in
    /// engines that cannot do it.
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

    /// Reads `prompt` and then `answer` as if it had been generated, and tells `told` how likely each token is behind the
    /// prompt and behind each of the answer's tokens. [`Prompt::forced`] is not looked at. What the cache holds of the
    /// prompt is used, and what is read of it stays, but for its last token.
    ///
    /// Nothing happens in engines without probabilities, nor for an empty prompt.
    ///
    /// # Errors
    /// The two are longer than the context, or the device failed. The cache is then empty, and the engine can be used
    /// again.
    fn score(
        &mut self,
        _prompt: &Prompt,
        _answer: &[TokenId],
        _told: &mut dyn FnMut(&TokenDistribution<'_>),
    ) -> Result<(), EngineError> {
        Ok(())
    }

    /// Forgets every cached state. Called after a panic was caught while generating.
    fn clear(&mut self);

    /// How many of the prompt's tokens would be evaluated now, the others being in a KV cache. Those whose evaluation
    /// was interrupted count for what is left of it.
    fn uncached_token_count(&self, prompt: &Prompt, _limits: &GenerationLimits) -> usize {
        prompt.tokens.len()
    }

    /// How fast the engine has been lately; zeros where nothing was measured.
    fn throughput(&self) -> ThroughputEstimate {
        ThroughputEstimate::default()
    }
}

/// What to continue: tokens, and the bytes the continuation must begin with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prompt {
    /// Token ids to evaluate, in order, special tokens included.
    pub tokens: Vec<TokenId>,
    /// Token healing: bytes that were cut back from the end of the text before the cursor. Decoding is
    /// constrained so that the output's bytes begin with these; they may span several tokens, and the
    /// token that completes them may reach beyond them. Empty: no healing.
    pub healing_bytes: Vec<u8>,
    /// Which of `tokens` are the text after the cursor, if text before the cursor is inserted in front of them
    /// while the user types: a movable segment of the KV cache, see [`Limits::stale`]. Empty: none. At least one
    /// token follows it.
    pub suffix: Range<usize>,
}

/// When to end at the latest, and how exact to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GenerationLimits {
    /// Tokens to decode at most, those that spell [`Prompt::forced`] included.
    pub max_tokens: usize,
    /// Tokens by which the text in front of [`Prompt::suffix`] may have changed since the suffix was evaluated,
    /// removed and added ones counted, for its keys and values to be moved to their new positions instead of being
    /// evaluated again. Where the suffix itself has changed at its beginning, the rest of it is moved, and the
    /// change counts as well. 0: the answer is what an empty cache would give.
    pub max_stale_tokens: usize,
    /// Whether nobody waits for this: it is then worked on at low priority, where the engine and the system can.
    pub background: bool,
}

/// What was generated so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct PartialOutput<'a> {
    /// See [`Generation::text`].
    pub text: &'a str,
    /// See [`Generation::pieces`].
    pub tokens: &'a [ScoredToken],
}

/// How a text is to be said in other ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BranchLimits {
    /// Branches at most.
    pub max_branches: usize,
    /// Bytes of the last generation's text: what the model was unsure of behind them is no matter.
    pub within_bytes: usize,
    /// Tokens of a branch at most, those that it shares with the last generation included.
    pub max_tokens: usize,
}

/// One other way to say a text, while it comes.
#[derive(Debug, Clone, Copy)]
pub struct BranchOutput<'a> {
    /// Which one, from 0.
    pub number: usize,
    /// All of it, from its beginning on; times and prompt tokens are those of the branch alone. Its `stop` counts once
    /// it has ended.
    pub generation: &'a Generation,
    /// Whether it has ended.
    pub finished: bool,
}

/// How to go on with a branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BranchControl {
    /// With more of it.
    Continue,
    /// Without it: it is as long as it need be.
    Finish,
    /// Not at all, nor with any other.
    Abort,
}

/// What came out.
#[derive(Debug, Clone, PartialEq)]
pub struct Generation {
    /// The text behind [`Prompt::forced`].
    pub text: String,
    /// Why it ended.
    pub stop: StopReason,
    /// Each decoded token: the bytes of `text` that were there after it, and its probability under the
    /// model among the tokens that were allowed.
    pub tokens: Vec<ScoredToken>,
    /// Prompt tokens found in the KV cache.
    pub reused: usize,
    /// Prompt tokens whose evaluation came to its end now, also where an interrupted call had begun it. What that did
    /// counts for neither: `reused` and this are all tokens of the prompt once it is read.
    pub evaluated: usize,
    /// Time spent on the prompt.
    pub prefill: Duration,
    /// Time spent on decoding.
    pub decode: Duration,
}

impl Generation {
    /// One in which nothing was done.
    pub fn empty(stop: StopReason) -> Self {
        let (text, pieces, time) = (String::new(), Vec::new(), Duration::ZERO);
        Self { text, stop, tokens: pieces, reused: 0, evaluated: 0, prefill: time, decode: time }
    }

    /// What is there so far.
    pub fn partial_output(&self) -> PartialOutput<'_> {
        PartialOutput { text: &self.text, tokens: &self.tokens }
    }
}

/// One decoded token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScoredToken {
    /// Length of the generated text in bytes once this token is part of it.
    pub end: usize,
    /// Probability of the token, 0 to 1.
    pub probability: f32,
}

/// Running averages of an engine's speed, recent work counting more.
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
    /// The model said so: an end-of-text, FIM or file-separator token.
    EndOfText,
    /// [`Limits::max_tokens`] or the end of the context.
    Limit,
    /// `watch` returned `Break`.
    Interrupted,
}

/// What an engine is and where it runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EngineInfo {
    /// The model's name as the file gives it (`general.name`), else the file's own name.
    pub model: String,
    /// The family as the file names it (`general.architecture`), e.g. `qwen2`.
    pub family: String,
    /// The device and why it was chosen, e.g. `CPU: no GPU feature in this build`.
    pub device: String,
    /// The kernels that run on it and why, e.g. `AVX-512 VNNI: best that this processor has`.
    pub kernel: String,
    /// Weights of the model as stored, bytes.
    pub weight_bytes: u64,
    /// Tokens that fit into the context (KV cache capacity).
    pub context: usize,
}

//! A fake engine for tests and benches: it responds from a script, at a chosen speed.
//!
//! It implements the whole contract of [`Engine`]: healing bytes, limits, `watch`, stop reasons, a cache of a few
//! sequences that survives an interrupted prompt and shifts suffixes. It can also fail or panic if a script asks it to,
//! to test its callers.

use std::collections::VecDeque;
use std::ops::{ControlFlow, Range};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::local::token_healing::TokenHealing;
use crate::tokenizer::{TokenId, Tokenizer, Utf8Stream};
use crate::{
    BranchControl, BranchLimits, BranchOutput, Engine, EngineError, EngineInfo, Generation, GenerationLimits,
    PartialOutput, Prompt, ScoredToken, StopReason, ThroughputEstimate,
};

mod answer;
mod script_file;

use answer::{AnswerStep, wait_polling};

/// Prompt tokens between two calls of `watch` during prefill.
const PREFILL_CHUNK_TOKENS: usize = 64;
/// Maximum number of cached sequences.
const MAX_SEQUENCES: usize = 4;
/// A sequence that loses no more tokens than this at its end is not kept next to the new one.
const MAX_DISCARDED_TOKENS: usize = 32;
/// Probability of each token of an alternative answer, if none is given.
const BRANCH_PROBABILITY: f32 = 0.1;
/// `watch` is called at least this often while a delay passes or a gate is closed.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Maps the prompt's text to the answer.
type AnswerFn = dyn Fn(&str) -> String + Send;

/// An engine that responds from a script.
///
/// The first rule whose text occurs in the prompt decides; the prompt is matched as text, with special tokens as their
/// names (`<|fim_middle|>`). If no rule matches, the function given to [`ScriptedEngine::answer_with`] is called;
/// without one, the answer is empty.
pub struct ScriptedEngine {
    tokenizer: Tokenizer,
    about: EngineInfo,
    rules: Vec<ScriptRule>,
    answer: Option<Box<AnswerFn>>,
    prefill_delay: Duration,
    decode_delay: Duration,
    /// The gate is open once this file exists.
    gate: Option<PathBuf>,
    probability: f32,
    /// Most recently used last.
    sequences: Vec<ScriptedSequence>,
    last_generation: Option<ScriptedGeneration>,
    /// Whether the engine panics when it is dropped, where no guard around its work catches the panic.
    panics_on_drop: bool,
}

impl Drop for ScriptedEngine {
    fn drop(&mut self) {
        assert!(!self.panics_on_drop || std::thread::panicking(), "the script requests a panic on drop");
    }
}

/// The last generation.
#[derive(Debug)]
struct ScriptedGeneration {
    /// The prompt's text.
    prompt: String,
    healing_bytes: Vec<u8>,
    text: String,
}

/// The part of one sequence that a real engine would hold in its KV cache.
#[derive(Debug, Clone, Default)]
struct ScriptedSequence {
    tokens: Vec<TokenId>,
    /// The segment that can be shifted.
    suffix: Range<usize>,
    /// Tokens that changed before the segment since it was evaluated.
    stale_tokens: usize,
}

/// The part of a prompt that a cached sequence saves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ScriptedCacheHit {
    /// Shared tokens at the beginning.
    prefix_len: usize,
    /// If the suffix is shifted: the number of changed tokens that it will then have missed.
    moved_stale_tokens: Option<usize>,
    /// Tokens left to evaluate.
    uncached: usize,
}

impl ScriptedSequence {
    fn cache_hit(&self, prompt: &Prompt, stale: usize) -> ScriptedCacheHit {
        let tokens = &prompt.tokens;
        let mut same = self.tokens.iter().zip(tokens).take_while(|(a, b)| a == b).count();
        if self.stale_tokens > stale {
            same = same.min(self.suffix.start);
        }
        let plain =
            ScriptedCacheHit { prefix_len: same, moved_stale_tokens: None, uncached: tokens.len() - same };
        let (from, to) = (&self.suffix, &prompt.suffix);
        let segments = self.tokens.get(from.clone()).zip(tokens.get(to.clone()));
        if segments.is_none_or(|(old, new)| old.is_empty() || old != new) {
            return plain;
        }
        // The token before the segment, which marks the end of the text before the cursor, is always evaluated.
        let beginning = same.min(from.start.min(to.start).saturating_sub(1));
        let missed = self.stale_tokens + from.start.max(to.start) - 1 - beginning;
        let unread = to.start - beginning + tokens.len() - to.end;
        if missed > stale || unread >= plain.uncached {
            return plain;
        }
        ScriptedCacheHit { prefix_len: beginning, moved_stale_tokens: Some(missed), uncached: unread }
    }
}

#[derive(Debug)]
struct ScriptRule {
    contains: String,
    action: ScriptAction,
    /// Alternative answers, with the probability of each of their own tokens.
    alternatives: Vec<(String, f32)>,
}

impl ScriptRule {
    fn new(contains: &str, action: ScriptAction) -> Self {
        Self { contains: contains.to_owned(), action, alternatives: Vec::new() }
    }
}

#[derive(Debug, Clone)]
enum ScriptAction {
    Answer(String),
    Fail(String),
    Panic,
}

impl Default for ScriptedEngine {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for ScriptedEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scripted").field("rules", &self.rules).finish_non_exhaustive()
    }
}

impl ScriptedEngine {
    /// An engine with an immediate, empty answer and the vocabulary of [`Tokenizer::bytes_only`].
    pub fn new() -> Self {
        let about = EngineInfo {
            model: "scripted".to_owned(),
            family: "scripted".to_owned(),
            device: "none: answers come from a script".to_owned(),
            kernel: "none".to_owned(),
            weights: "scripted".to_owned(),
            weight_bytes: 0,
            context: 8192,
        };
        Self {
            tokenizer: Tokenizer::bytes_only(),
            about,
            rules: Vec::new(),
            answer: None,
            prefill_delay: Duration::ZERO,
            decode_delay: Duration::ZERO,
            gate: None,
            probability: 1.0,
            sequences: Vec::new(),
            last_generation: None,
            panics_on_drop: false,
        }
    }

    /// Answers `answer` if the prompt contains `contains`. Rules are tried in the order they were added.
    pub fn answer_when(mut self, contains: &str, answer: &str) -> Self {
        self.rules.push(ScriptRule::new(contains, ScriptAction::Answer(answer.to_owned())));
        self
    }

    /// Adds an alternative, improbable answer to the rule that was added last.
    pub fn or_answer(self, answer: &str) -> Self {
        self.or_answer_with(answer, BRANCH_PROBABILITY)
    }

    /// [`or_answer`](Self::or_answer), with this probability of each token after those that it shares with the answer.
    pub fn or_answer_with(mut self, answer: &str, probability: f32) -> Self {
        if let Some(rule) = self.rules.last_mut() {
            rule.alternatives.push((answer.to_owned(), probability));
        }
        self
    }

    /// Calls `answer` with the prompt's text if no rule matches.
    pub fn answer_with(mut self, answer: impl Fn(&str) -> String + Send + 'static) -> Self {
        self.answer = Some(Box::new(answer));
        self
    }

    /// Takes this time for each prompt token that is not in the cache.
    pub fn prefill_delay(mut self, each: Duration) -> Self {
        self.prefill_delay = each;
        self
    }

    /// Takes this time for each decoded token.
    pub fn decode_delay(mut self, each: Duration) -> Self {
        self.decode_delay = each;
        self
    }

    /// Waits at each `⏸` of an answer, or of the part of an alternative that differs, until the file `path` exists.
    pub fn with_gate(mut self, path: impl Into<PathBuf>) -> Self {
        self.gate = Some(path.into());
        self
    }

    /// Gives every decoded token this probability instead of 1.
    pub fn with_probability(mut self, probability: f32) -> Self {
        self.probability = probability;
        self
    }

    /// Sets the context length to `tokens`.
    pub fn with_context(mut self, tokens: usize) -> Self {
        self.about.context = tokens;
        self
    }

    /// Uses another vocabulary, e.g. a real model's.
    pub fn with_tokenizer(mut self, tokens: Tokenizer) -> Self {
        self.tokenizer = tokens;
        self
    }

    fn find_action(&self, prompt: &str) -> ScriptAction {
        match (self.rules.iter().find(|rule| prompt.contains(&rule.contains)), &self.answer) {
            (Some(rule), _) => rule.action.clone(),
            (None, Some(answer)) => ScriptAction::Answer(answer(prompt)),
            (None, None) => ScriptAction::Answer(String::new()),
        }
    }

    /// The cached sequence that saves the most, if any saves anything.
    fn best_cache_hit(&self, prompt: &Prompt, stale: usize) -> Option<(usize, ScriptedCacheHit)> {
        let savings = self.sequences.iter().enumerate().map(|(at, held)| (at, held.cache_hit(prompt, stale)));
        savings
            .min_by_key(|(_, saving)| saving.uncached)
            .filter(|(_, saving)| saving.uncached < prompt.tokens.len())
    }

    /// Takes the sequence to continue out of the cache, truncated to the part that the prompt shares with it, and
    /// returns it with its cache hit.
    fn take_sequence(
        &mut self,
        prompt: &Prompt,
        limits: &GenerationLimits,
    ) -> (ScriptedSequence, ScriptedCacheHit) {
        let none =
            ScriptedCacheHit { prefix_len: 0, moved_stale_tokens: None, uncached: prompt.tokens.len() };
        let (at, mut saving) =
            self.best_cache_hit(prompt, limits.max_stale_tokens).unwrap_or((usize::MAX, none));
        // As in a real engine, the last token is evaluated if tokens are to be decoded: its logits are needed.
        if limits.max_tokens > 0 && saving.uncached == 0 && !prompt.tokens.is_empty() {
            saving = ScriptedCacheHit {
                prefix_len: saving.prefix_len.min(prompt.tokens.len() - 1),
                uncached: 1,
                ..saving
            };
        }
        let Some(held) = self.sequences.get(at) else { return (ScriptedSequence::default(), saving) };
        let cut = held.tokens.len().saturating_sub(saving.prefix_len);
        let mut held =
            if cut > MAX_DISCARDED_TOKENS && saving.uncached > 0 && saving.moved_stale_tokens.is_none() {
                held.clone()
            } else {
                self.sequences.remove(at)
            };
        if saving.uncached > 0 {
            held.tokens.truncate(saving.prefix_len);
            if held.tokens.len() < held.suffix.end {
                (held.suffix, held.stale_tokens) = (0..0, 0);
            }
        }
        (held, saving)
    }

    fn keep_sequence(&mut self, held: ScriptedSequence) {
        self.sequences.push(held);
        if self.sequences.len() > MAX_SEQUENCES {
            self.sequences.remove(0);
        }
    }
}

impl ScriptedEngine {
    /// Evaluates the rest of the prompt after `held`, and answers.
    fn evaluate_and_answer(
        &self,
        held: &mut ScriptedSequence,
        saving: ScriptedCacheHit,
        prompt: &Prompt,
        text: &str,
        limits: &GenerationLimits,
        watch: &mut dyn FnMut(PartialOutput<'_>) -> ControlFlow<()>,
    ) -> Result<Generation, EngineError> {
        let mut generation = Generation {
            reused: prompt.tokens.len() - saving.uncached,
            ..Generation::empty(StopReason::Interrupted)
        };
        let start = Instant::now();
        let flow = self.evaluate_prompt(held, saving, prompt, &mut generation, watch);
        generation.prefill = start.elapsed();
        if flow.is_break() {
            return Ok(generation);
        }
        if limits.max_tokens == 0 {
            generation.stop = StopReason::Limit;
            return Ok(generation);
        }
        let answer = match self.find_action(text) {
            ScriptAction::Answer(answer) => answer,
            ScriptAction::Fail(message) => {
                return Err(EngineError::Device { device: "the script".to_owned(), source: message.into() });
            }
            ScriptAction::Panic => {
                std::panic::panic_any(format!("the script panics on this prompt of {} bytes", text.len()))
            }
        };

        let context = self.about.context;
        let start = Instant::now();
        let mut heal = TokenHealing::new(&prompt.healing_bytes);
        let mut stream = Utf8Stream::new();
        let mut answer = self.spell_answer(&prompt.healing_bytes, &answer).into_iter();
        generation.stop = loop {
            if generation.tokens.len() == limits.max_tokens || held.tokens.len() >= context {
                break StopReason::Limit;
            }
            if wait_polling(self.decode_delay, generation.partial_output(), watch).is_break() {
                break StopReason::Interrupted;
            }
            let id = match answer.next() {
                None => break StopReason::EndOfText,
                Some(AnswerStep::Token(id)) => id,
                Some(AnswerStep::Gate) => {
                    if self.wait_at_gate(generation.partial_output(), watch).is_break() {
                        break StopReason::Interrupted;
                    }
                    continue;
                }
            };
            held.tokens.push(id);
            stream.push(heal.consume_token(self.tokenizer.token_bytes(id)), &mut generation.text);
            generation.tokens.push(ScoredToken { end: generation.text.len(), probability: self.probability });
            if watch(generation.partial_output()).is_break() {
                break StopReason::Interrupted;
            }
        };
        generation.decode = start.elapsed();
        Ok(generation)
    }

    /// Evaluates the rest of the prompt after `held`, until `watch` breaks.
    fn evaluate_prompt(
        &self,
        held: &mut ScriptedSequence,
        saving: ScriptedCacheHit,
        prompt: &Prompt,
        generation: &mut Generation,
        watch: &mut dyn FnMut(PartialOutput<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        // A shifted suffix lies between the parts that are evaluated before and after it.
        let suffix = prompt.suffix.clone();
        let parts = match saving.moved_stale_tokens {
            Some(_) => [saving.prefix_len..suffix.start, suffix.end..prompt.tokens.len()],
            None => [prompt.tokens.len() - saving.uncached..prompt.tokens.len(), 0..0],
        };
        for part in parts {
            if saving.moved_stale_tokens.is_some() && part.start == suffix.end {
                held.tokens.extend_from_slice(&prompt.tokens[suffix.clone()]);
            }
            for chunk in prompt.tokens[part].chunks(PREFILL_CHUNK_TOKENS) {
                let delay = self.prefill_delay.saturating_mul(chunk.len() as u32);
                wait_polling(delay, PartialOutput::default(), watch)?;
                held.tokens.extend_from_slice(chunk);
                generation.evaluated += chunk.len();
                watch(PartialOutput::default())?;
            }
        }
        if saving.uncached > 0 && !suffix.is_empty() {
            held.stale_tokens = saving.moved_stale_tokens.unwrap_or(if held.suffix == suffix {
                held.stale_tokens
            } else {
                0
            });
            held.suffix = suffix;
        }
        ControlFlow::Continue(())
    }
}

/// A branch that is being decoded.
struct ScriptedBranch {
    number: usize,
    generation: Generation,
    heal: TokenHealing,
    stream: Utf8Stream,
    /// Remaining steps.
    remaining: VecDeque<AnswerStep>,
    /// Tokens shared with the first answer.
    shared: usize,
    /// Probability of each of the other tokens.
    probability: f32,
}

impl ScriptedBranch {
    fn branch_output(&self, ended: bool) -> BranchOutput<'_> {
        BranchOutput { number: self.number, generation: &self.generation, finished: ended }
    }

    fn is_at_gate(&self) -> bool {
        matches!(self.remaining.front(), Some(AnswerStep::Gate))
    }
}

impl ScriptedEngine {
    /// The branches that differ from the last generation within the limit; none of their tokens is decoded yet.
    fn start_branches(&self, last: &ScriptedGeneration, limits: &BranchLimits) -> Vec<ScriptedBranch> {
        let rule = self.rules.iter().find(|rule| last.prompt.contains(&rule.contains));
        let others = rule.into_iter().flat_map(|rule| &rule.alternatives);
        let begin = |steps: Vec<AnswerStep>, probability| {
            let generation = Generation::empty(StopReason::Limit);
            let (heal, stream) = (TokenHealing::new(&last.healing_bytes), Utf8Stream::new());
            let remaining = steps.into();
            ScriptedBranch { number: 0, generation, heal, stream, remaining, shared: 0, probability }
        };
        let mut growing = Vec::new();
        for &(ref other, probability) in others {
            let mut branch = begin(self.spell_answer(&last.healing_bytes, other), probability);
            let mut probe = begin(Vec::new(), probability);
            for &step in &branch.remaining {
                let AnswerStep::Token(id) = step else { break };
                probe.stream.push(
                    probe.heal.consume_token(self.tokenizer.token_bytes(id)),
                    &mut probe.generation.text,
                );
                if !last.text.starts_with(&probe.generation.text) {
                    break;
                }
                branch.shared += 1;
            }
            let same =
                probe.generation.text.bytes().zip(last.text.bytes()).take_while(|(a, b)| a == b).count();
            if growing.len() < limits.max_branches && same < limits.within_bytes.max(1) {
                branch.number = growing.len();
                growing.push(branch);
            }
        }
        growing
    }
}

impl Engine for ScriptedEngine {
    fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    fn engine_info(&self) -> &EngineInfo {
        &self.about
    }

    fn generate(
        &mut self,
        prompt: &Prompt,
        limits: &GenerationLimits,
        watch: &mut dyn FnMut(PartialOutput<'_>) -> ControlFlow<()>,
    ) -> Result<Generation, EngineError> {
        let context = self.about.context;
        if prompt.tokens.len() > context {
            self.sequences.clear();
            return Err(EngineError::PromptTooLong { tokens: prompt.tokens.len(), context });
        }
        let text = self.tokenizer.render(&prompt.tokens);
        let (mut held, saving) = self.take_sequence(prompt, limits);
        let result = self.evaluate_and_answer(&mut held, saving, prompt, &text, limits, watch);
        if limits.max_tokens > 0 {
            let output = result.as_ref().ok().filter(|it| !it.tokens.is_empty()).map(|it| it.text.clone());
            self.last_generation = output.map(|output| ScriptedGeneration {
                prompt: text,
                healing_bytes: prompt.healing_bytes.clone(),
                text: output,
            });
        }
        match &result {
            Ok(_) => self.keep_sequence(held),
            Err(_) => self.sequences.clear(),
        }
        result
    }

    /// Decodes the script's `or` answers that differ early enough, one token of each per step.
    fn branch(
        &mut self,
        limits: &BranchLimits,
        watch: &mut dyn FnMut(&BranchOutput<'_>) -> BranchControl,
    ) -> Result<(), EngineError> {
        let Some(last) = self.last_generation.take() else { return Ok(()) };
        let mut growing = self.start_branches(&last, limits);
        self.last_generation = Some(last);
        let is_held = |branch: &ScriptedBranch| branch.is_at_gate() && !self.is_gate_open();
        let mut steps = 0;
        while !growing.is_empty() {
            let shared = growing.iter().map(|it| it.shared).min().unwrap_or_default();
            // Tokens shared with the first answer were decoded already.
            if steps >= shared {
                let first = &growing[0];
                let mut poll = |_: PartialOutput<'_>| match watch(&first.branch_output(false)) {
                    BranchControl::Abort => ControlFlow::Break(()),
                    BranchControl::Continue | BranchControl::Finish => ControlFlow::Continue(()),
                };
                let delay = if growing.iter().all(is_held) { POLL_INTERVAL } else { self.decode_delay };
                if wait_polling(delay, PartialOutput::default(), &mut poll).is_break() {
                    return Ok(());
                }
            }
            steps += 1;
            let mut on = Vec::new();
            for mut branch in growing {
                if is_held(&branch) {
                    on.push(branch);
                    continue;
                }
                if branch.is_at_gate() {
                    branch.remaining.pop_front();
                }
                let ended =
                    branch.generation.tokens.len() == limits.max_tokens || branch.remaining.is_empty();
                if ended {
                    let whole = branch.remaining.is_empty();
                    branch.generation.stop = if whole { StopReason::EndOfText } else { StopReason::Limit };
                } else if let Some(AnswerStep::Token(id)) = branch.remaining.pop_front() {
                    let ScriptedBranch { stream, heal, generation, probability, shared, .. } = &mut branch;
                    stream.push(heal.consume_token(self.tokenizer.token_bytes(id)), &mut generation.text);
                    let end = generation.text.len();
                    let own = generation.tokens.len() >= *shared;
                    let probability = if own { *probability } else { self.probability };
                    generation.tokens.push(ScoredToken { end, probability });
                }
                let growth = if ended || steps > branch.shared {
                    watch(&branch.branch_output(ended))
                } else {
                    BranchControl::Continue
                };
                match growth {
                    BranchControl::Abort => return Ok(()),
                    BranchControl::Continue if !ended => on.push(branch),
                    BranchControl::Continue | BranchControl::Finish => {}
                }
            }
            growing = on;
        }
        Ok(())
    }

    fn clear(&mut self) {
        self.sequences.clear();
        self.last_generation = None;
    }

    fn uncached_token_count(&self, prompt: &Prompt, limits: &GenerationLimits) -> usize {
        self.best_cache_hit(prompt, limits.max_stale_tokens)
            .map_or(prompt.tokens.len(), |(_, saving)| saving.uncached)
    }

    /// The script's speed, known before anything was measured: infinite without delays.
    fn throughput(&self) -> ThroughputEstimate {
        let rate = |delay: Duration| 1.0 / delay.as_secs_f32();
        ThroughputEstimate { prefill: rate(self.prefill_delay), decode: rate(self.decode_delay) }
    }
}

#[cfg(test)]
mod tests;

//! The engine that runs a model file in this process: tokens in, tokens out.

use std::collections::VecDeque;
use std::fmt;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::gguf::{Gguf, PULL_AGAIN_REMEDY, sanitize_word};
use crate::tokenizer::Utf8Stream;
use crate::{
    BranchControl, BranchLimits, BranchOutput, Engine, EngineError, EngineInfo, Generation, GenerationLimits,
    PartialOutput, Prompt, ScoredToken, StopReason, ThroughputEstimate, TokenId, Tokenizer,
};

mod branches;
mod cached_sequences;
mod candle_decoder;
mod candle_kv_cache;
mod candle_weights;
mod clock;
pub mod config;
pub mod cpu;
mod decoder;
pub mod device;
mod kernel_selection;
pub mod kernels;
mod lm_head;
mod machine;
mod matmul;
mod memory_check;
mod next_token;
mod options;
mod prompt_lookup;
#[cfg(test)]
pub(crate) mod real_model;
mod sampling;
mod scoring;
#[cfg(test)]
mod testing;
pub mod thread_pool;
#[cfg(test)]
mod thread_pool_model;
mod throughput;
pub mod token_healing;

pub use candle_decoder::CandleDecoder;
pub use config::ModelConfig;
pub use cpu::CpuDecoder;
pub use decoder::{Batch, Decoder, LogitsRequest, ResumableWork, SequencesBatch, SuffixShift};
pub use device::DeviceChoice;
pub use kernels::Kernel;
pub use options::{KernelChoice, Options};
pub use prompt_lookup::SpeculationStats;
pub use sampling::TokenDistribution;

pub use crate::priority::Priority;

use cached_sequences::{CachedSequences, PlannedShift, PromptStart};
use clock::EngineClock;
use device::ChosenDevice;
use machine::HostMachine;
use memory_check::WeightStorage;
use next_token::{NextToken, logits_requests, pick_token};
use prompt_lookup::PromptLookup;
use thread_pool::ThreadPool;
use throughput::Throughput;
use token_healing::TokenHealing;

/// A model file loaded on a device.
pub struct Local {
    tokens: Tokenizer,
    about: EngineInfo,
    decoder: Box<dyn Decoder>,
    /// The contents of the KV caches.
    sequences: CachedSequences,
    throughput: Throughput,
    clock: EngineClock,
    /// The model file.
    path: PathBuf,
    /// If `None`, tokens are decoded one by one.
    prompt_lookup: Option<PromptLookup>,
    /// Consecutive tokens that the last batch chose and that were not consumed yet.
    pending_tokens: VecDeque<NextToken>,
    /// The choices of the last generation, for decoding alternatives.
    last_generation: Option<branches::LastGeneration>,
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { about, sequences, throughput: pace, .. } = self;
        f.debug_struct("Local")
            .field("about", about)
            .field("cached", &sequences.current_tokens().len())
            .field("pace", pace)
            .finish()
    }
}

impl Local {
    /// Loads the model file at `path`.
    ///
    /// # Errors
    /// The file is not a model that taper can run, the selected device is not available, or memory is short.
    pub fn open(path: &Path, options: &Options) -> Result<Self, EngineError> {
        Self::open_with_machine(path, options, HostMachine::current())
    }

    fn open_with_machine(path: &Path, options: &Options, machine: HostMachine) -> Result<Self, EngineError> {
        let gguf = Gguf::open(path)?;
        let config = ModelConfig::from_gguf(&gguf)?;
        let tokens = Tokenizer::from_gguf(&gguf)?;
        let ChosenDevice { device, why } = device::choose_device(options.device)?;
        let capacity = config.context_capacity(options.context);
        let (mut decoder, kernel) = load_decoder(&gguf, &config, capacity, &device, options, &machine)?;
        gguf.check_unchanged()?;
        let file_name = || sanitize_word(&path.file_stem().unwrap_or_default().to_string_lossy());
        let name = gguf.get_str("general.name").map(sanitize_word).filter(|name| !name.is_empty());
        let about = EngineInfo {
            model: name.unwrap_or_else(file_name),
            family: config.family.name().to_owned(),
            device: why,
            kernel,
            weight_bytes: gguf.tensor_bytes(),
            context: decoder.capacity(),
        };
        let lookup = (options.speculate && decoder.is_batch_invariant()).then(PromptLookup::default);
        let sequences = CachedSequences::new(decoder.as_mut(), options.resident_bytes);
        let (pace, chosen, last) = (Throughput::new(decoder.can_resume()), VecDeque::new(), None);
        let (clock, path) = (machine.clock, path.to_owned());
        Ok(Self {
            tokens,
            about,
            decoder,
            sequences,
            throughput: pace,
            clock,
            path,
            prompt_lookup: lookup,
            pending_tokens: chosen,
            last_generation: last,
        })
    }

    /// Statistics of speculation since the file was opened; zeros without speculation.
    pub fn speculation_stats(&self) -> SpeculationStats {
        self.prompt_lookup.as_ref().map_or_else(SpeculationStats::default, PromptLookup::stats)
    }

    /// Evaluates `tokens` after the current sequence, with `shift` inserted after the given number of them. With
    /// `heal`, also chooses at most `most` tokens that follow: one, and in the same batch as many draft tokens as agree
    /// with what decoding would have chosen.
    ///
    /// Afterwards the cache holds all chosen tokens except the last. Returns the number of draft tokens in the batch,
    /// or `None` if `look` broke; then the cache is as before.
    fn evaluate_batch(
        &mut self,
        tokens: &[TokenId],
        shift: Option<(&PlannedShift, usize)>,
        heal: Option<&TokenHealing>,
        most: usize,
        priority: Priority,
        look: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Option<usize>, EngineError> {
        self.pending_tokens.clear();
        let sequence = self.sequences.current_index();
        let moved = shift.map(|(shift, insert_after)| self.sequences.suffix_shift(shift, insert_after));
        let Some(heal) = heal else {
            let batch = Batch { sequence, tokens, suffix_shift: moved, priority, ..Batch::default() };
            if self.decoder.forward_batch(&batch, look)?.is_break() {
                return Ok(None);
            }
            self.sequences.append_tokens(tokens, shift);
            return Ok(Some(0));
        };
        let base = self.decoder.sequence_len(sequence);
        let new = tokens.len() + moved.as_ref().map_or(0, |moved| moved.rows.len());
        let room = self.decoder.capacity().saturating_sub(base + new);
        let draft = self.prompt_lookup.as_mut().map_or(&[][..], |lookup| {
            lookup.build_draft(&self.tokens, heal.remaining_bytes());
            lookup.draft_worth_verifying(tokens.len(), room.min(most.saturating_sub(1)))
        });
        let given = tokens.len();
        let tokens: Vec<TokenId> = tokens.iter().chain(draft).copied().collect();
        let draft = &tokens[given..];
        let drafted = draft.len();
        let requests = logits_requests(&self.tokens, heal, draft);
        // Drafts are verified with the results of decoding one token at a time.
        let exact = drafted > 0;
        let batch =
            Batch { sequence, tokens: &tokens, logits: &requests, suffix_shift: moved, exact, priority };
        let ControlFlow::Continue(logits) = self.decoder.forward_batch(&batch, look)? else {
            return Ok(None);
        };
        let rows = logits.chunks_exact((logits.len() / (1 + drafted)).max(1));
        for (i, (logits, request)) in rows.zip(&requests).enumerate() {
            let next = pick_token(&self.tokens, logits, request);
            self.pending_tokens.push_back(next);
            match next {
                NextToken::Token(choice) if draft.get(i) == Some(&choice.token) => {}
                _ => break,
            }
        }
        let right = self.pending_tokens.len() - 1;
        if right < drafted {
            self.decoder.truncate_sequence(sequence, base + new + right);
        }
        self.sequences.append_tokens(&tokens[..given + right], shift);
        if let Some(lookup) = &mut self.prompt_lookup {
            let chosen: Vec<TokenId> = self.pending_tokens.iter().filter_map(NextToken::token_id).collect();
            let ended = self.pending_tokens.back() == Some(&NextToken::EndOfText);
            lookup.record_outcome(drafted, chosen.iter().copied(), ended);
        }
        Ok(Some(drafted))
    }

    /// The work on `tokens` that an interrupted call left after the current sequence.
    fn resumable_work(&self, tokens: &[TokenId]) -> ResumableWork {
        self.decoder.resumable_work(self.sequences.current_index(), tokens)
    }

    /// Keeps the first `len` tokens of the current sequence.
    fn truncate_sequence(&mut self, len: usize) {
        self.sequences.truncate_current(self.decoder.as_mut(), len);
    }

    fn run_prompt(
        &mut self,
        prompt: &Prompt,
        limits: &GenerationLimits,
        watch: &mut dyn FnMut(PartialOutput<'_>) -> ControlFlow<()>,
    ) -> Result<Generation, EngineError> {
        let context = self.decoder.capacity();
        if prompt.tokens.len() > context {
            return Err(EngineError::PromptTooLong { tokens: prompt.tokens.len(), context });
        }
        let priority = Priority::from_background(limits.background);
        let decodes = limits.max_tokens > 0 && !prompt.tokens.is_empty();
        let PromptStart { keep, shift, .. } =
            self.sequences.acquire(self.decoder.as_mut(), prompt, limits, decodes);
        // To evaluate: everything after the kept prefix except the shifted suffix.
        let (todo, gap) = match &shift {
            Some(PlannedShift { prompt_range: place, .. }) => {
                let (before, after) = (&prompt.tokens[keep..place.start], &prompt.tokens[place.end..]);
                ([before, after].concat(), before.len())
            }
            None => (prompt.tokens[keep..].to_vec(), usize::MAX),
        };
        let mut generation =
            Generation { reused: prompt.tokens.len() - todo.len(), ..Generation::empty(StopReason::Limit) };

        let mut heal = TokenHealing::new(&prompt.healing_bytes);
        if let Some(lookup) = self.prompt_lookup.as_mut().filter(|_| decodes) {
            lookup.begin_generation(&self.tokens, &prompt.tokens, &prompt.healing_bytes);
        }
        let started = self.clock.now();
        while generation.evaluated < todo.len() {
            let done = generation.evaluated;
            let rest = &todo[done..];
            // Resumable work ends before the shifted suffix.
            let begun = self.resumable_work(&rest[..rest.len().min(gap - done.min(gap))]);
            let (chunk, remaining) = rest.split_at(self.throughput.chunk_tokens(begun.tokens, rest.len()));
            let shift = shift.as_ref().filter(|_| (done..done + chunk.len()).contains(&gap));
            let shift = shift.map(|shift| (shift, gap - done));
            let began = self.clock.now();
            let heal = (decodes && remaining.is_empty()).then_some(&heal);
            let drafted =
                self.evaluate_batch(chunk, shift, heal, limits.max_tokens, priority, &mut || {
                    watch(PartialOutput::default())
                })?;
            let Some(drafted) = drafted else {
                let work = self.resumable_work(chunk).work - begun.work;
                self.throughput.record_prefill(chunk.len(), work, self.clock.elapsed_since(began));
                generation.prefill = self.clock.elapsed_since(started);
                generation.stop = StopReason::Interrupted;
                return Ok(generation);
            };
            if drafted == 0 {
                self.throughput.record_prefill(
                    chunk.len(),
                    chunk.len() as f32 - begun.work,
                    self.clock.elapsed_since(began),
                );
            } else if let Some(lookup) = self.prompt_lookup.as_mut().filter(|_| begun.tokens == 0) {
                lookup.record_batch(chunk.len() + drafted, self.clock.elapsed_since(began));
            }
            generation.evaluated += chunk.len();
            generation.prefill = self.clock.elapsed_since(started);
            self.sequences.retain_suffix(self.decoder.as_mut(), prompt);
            if watch(PartialOutput::default()).is_break() {
                // Chosen tokens count as not generated, as if they came one by one.
                self.truncate_sequence(self.sequences.current_tokens().len().min(prompt.tokens.len()));
                generation.stop = StopReason::Interrupted;
                return Ok(generation);
            }
        }
        if !decodes {
            return Ok(generation);
        }

        let started = self.clock.now();
        let mut choices = Vec::new();
        let mut stream = Utf8Stream::new();
        generation.stop = loop {
            let choice = match self.pending_tokens.pop_front() {
                Some(NextToken::Token(choice)) => choice,
                Some(NextToken::InvalidLogits) => return Err(self.invalid_logits_error()),
                Some(NextToken::EndOfText) | None => break StopReason::EndOfText,
            };
            let bytes = self.tokens.token_bytes(choice.token);
            if let Some(lookup) = &mut self.prompt_lookup {
                lookup.push_token(choice.token, bytes);
            }
            stream.push(heal.consume_token(bytes), &mut generation.text);
            let end = generation.text.len();
            generation.tokens.push(ScoredToken { end, probability: choice.probability });
            choices.push(choice);
            generation.decode = self.clock.elapsed_since(started);
            let generated = generation.tokens.len();
            // The last token is chosen but not evaluated.
            let held = prompt.tokens.len() + generated - 1;
            if watch(generation.partial_output()).is_break() {
                self.truncate_sequence(held);
                break StopReason::Interrupted;
            }
            if generated == limits.max_tokens || held == context {
                break StopReason::Limit;
            }
            if self.pending_tokens.is_empty() {
                let began = self.clock.now();
                let most = limits.max_tokens - generated;
                let so_far = generation.partial_output();
                let drafted =
                    self.evaluate_batch(&[choice.token], None, Some(&heal), most, priority, &mut || {
                        watch(so_far)
                    })?;
                let Some(drafted) = drafted else { break StopReason::Interrupted };
                let time = self.clock.elapsed_since(began);
                self.throughput.record_decode(self.pending_tokens.len(), time);
                if let Some(lookup) = &mut self.prompt_lookup {
                    lookup.record_batch(1 + drafted, time);
                }
            }
        };
        if let Some(lookup) = &mut self.prompt_lookup {
            lookup.end_generation(&self.tokens);
        }
        generation.decode = self.clock.elapsed_since(started);
        self.last_generation = Some(branches::LastGeneration::new(prompt, choices, &generation.tokens));
        Ok(generation)
    }

    /// Clears everything after a failed call.
    fn clear_on_error<T>(&mut self, result: Result<T, EngineError>) -> Result<T, EngineError> {
        if result.is_err() {
            self.clear();
        }
        result
    }

    /// Kernels are verified before selection, so the weights are at fault: each is finite, but their results are not.
    fn invalid_logits_error(&self) -> EngineError {
        crate::gguf::model_error(&self.path, "its output", "is not a number", PULL_AGAIN_REMEDY)
    }
}

impl Engine for Local {
    fn tokenizer(&self) -> &Tokenizer {
        &self.tokens
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
        if limits.max_tokens > 0 {
            self.last_generation = None;
        }
        let result = self.run_prompt(prompt, limits, watch);
        self.clear_on_error(result)
    }

    fn branch(
        &mut self,
        limits: &BranchLimits,
        watch: &mut dyn FnMut(&BranchOutput<'_>) -> BranchControl,
    ) -> Result<(), EngineError> {
        let result = self.decode_branches(limits, watch);
        self.sequences.drop_branches(self.decoder.as_mut());
        self.clear_on_error(result)
    }

    fn score(
        &mut self,
        prompt: &Prompt,
        answer: &[TokenId],
        on_row: &mut dyn FnMut(&TokenDistribution<'_>),
    ) -> Result<(), EngineError> {
        self.last_generation = None;
        let result = self.score_tokens(prompt, answer, on_row);
        self.clear_on_error(result)
    }

    fn clear(&mut self) {
        self.last_generation = None;
        self.sequences.drop_branches(self.decoder.as_mut());
        self.sequences.clear(self.decoder.as_mut());
        self.pending_tokens.clear();
        if let Some(lookup) = &mut self.prompt_lookup {
            lookup.clear();
        }
    }

    fn uncached_token_count(&self, prompt: &Prompt, limits: &GenerationLimits) -> usize {
        self.sequences.remaining_work(self.decoder.as_ref(), prompt, limits)
    }

    fn throughput(&self) -> ThroughputEstimate {
        self.throughput.token_rates()
    }
}

/// The decoder for the device, with its kernels and the reason for them, for `doctor`.
fn load_decoder(
    gguf: &Gguf,
    config: &ModelConfig,
    capacity: usize,
    device: &candle_core::Device,
    options: &Options,
    machine: &HostMachine,
) -> Result<(Box<dyn Decoder>, String), EngineError> {
    let check = |held| memory_check::check_memory(gguf, config, capacity, held, &machine.memory);
    let candle = |why: &str| -> Result<(Box<dyn Decoder>, String), EngineError> {
        check(if device.is_cpu() { WeightStorage::Tensors } else { WeightStorage::OnDevice })?;
        let decoder = CandleDecoder::load(gguf, config, capacity, device)?;
        Ok((Box::new(decoder), format!("candle: {why}")))
    };
    let requested = match options.kernel {
        _ if !device.is_cpu() => return candle("required on this device"),
        KernelChoice::Candle => return candle("selected by name"),
        KernelChoice::Auto if !cfg!(target_arch = "x86_64") => {
            return candle("the fastest on this kind of processor");
        }
        KernelChoice::Auto => None,
        KernelChoice::Own(kernel) => Some(kernel),
    };
    check(WeightStorage::Packed)?;
    let requested_threads = options.threads.map_or_else(ThreadPool::default_thread_count, NonZeroUsize::get);
    let (kernel, why) = kernel_selection::choose_kernel(gguf, requested, requested_threads)?;
    match CpuDecoder::with_pool(gguf, config, capacity, kernel, (machine.pool)(requested_threads)) {
        Ok(decoder) => {
            let threads = decoder.thread_count();
            let plural = if threads == 1 { "thread" } else { "threads" };
            let fewer = if threads < requested_threads {
                format!(" of {requested_threads} requested: the system allows no more")
            } else {
                String::new()
            };
            Ok((Box::new(decoder), format!("{why}; {threads} {plural}{fewer}")))
        }
        // candle may support a format for which we have no kernels.
        Err(problem @ EngineError::Model { .. }) => {
            candle(&format!("taper's own kernels cannot run this file ({problem})")).map_err(|_| problem)
        }
        Err(problem) => Err(problem),
    }
}

#[cfg(test)]
mod tests;

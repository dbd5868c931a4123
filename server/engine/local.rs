//! The engine that runs a model file in this process: tokens in, tokens out.

use std::collections::VecDeque;
use std::fmt;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::gguf::{Gguf, PULL_AGAIN_REMEDY, sanitize_word};
use crate::{
    BranchControl, BranchLimits, BranchOutput, Engine, EngineError, EngineInfo, Generation, GenerationLimits,
    PartialOutput, Prompt, ThroughputEstimate, TokenId, Tokenizer,
};

mod active_generation;
mod block_weights;
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
pub mod families;
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
mod sequence_tokens;
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
pub use sequence_tokens::SequenceTokens;

pub use crate::priority::Priority;

use cached_sequences::CachedSequences;
use clock::EngineClock;
use device::ChosenDevice;
use machine::HostMachine;
use memory_check::WeightStorage;
use next_token::NextToken;
use prompt_lookup::PromptLookup;
use thread_pool::ThreadPool;
use throughput::Throughput;

/// A model file loaded on a device.
pub struct Local {
    tokens: Tokenizer,
    about: EngineInfo,
    decoder: Box<dyn Decoder>,
    /// The use of the decoder's sequences.
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
        let Self { about, throughput: pace, .. } = self;
        f.debug_struct("Local")
            .field("about", about)
            .field("cached", &self.cached_tokens().len())
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
        let LoadedDecoder { mut decoder, kernel, held } =
            load_decoder(&gguf, &config, capacity, &device, options, &machine)?;
        gguf.check_unchanged()?;
        let file_name = || sanitize_word(&path.file_stem().unwrap_or_default().to_string_lossy());
        let name = gguf.get_str("general.name").map(sanitize_word).filter(|name| !name.is_empty());
        let about = EngineInfo {
            model: name.unwrap_or_else(file_name),
            family: config.family.name.to_owned(),
            device: why,
            kernel,
            weights: gguf.describe_formats(held == WeightStorage::Packed),
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

/// A decoder, and how `taper doctor` describes it.
struct LoadedDecoder {
    decoder: Box<dyn Decoder>,
    /// The kernels and the reason for them.
    kernel: String,
    held: WeightStorage,
}

/// The decoder for the device.
fn load_decoder(
    gguf: &Gguf,
    config: &ModelConfig,
    capacity: usize,
    device: &candle_core::Device,
    options: &Options,
    machine: &HostMachine,
) -> Result<LoadedDecoder, EngineError> {
    let check = |held| memory_check::check_memory(gguf, config, capacity, held, &machine.memory);
    let candle = |why: &str| -> Result<LoadedDecoder, EngineError> {
        let held = if device.is_cpu() { WeightStorage::Tensors } else { WeightStorage::OnDevice };
        check(held)?;
        let decoder = Box::new(CandleDecoder::load(gguf, config, capacity, device)?);
        Ok(LoadedDecoder { decoder, kernel: format!("candle: {why}"), held })
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
            let kernel = format!("{why}; {threads} {plural}{fewer}");
            Ok(LoadedDecoder { decoder: Box::new(decoder), kernel, held: WeightStorage::Packed })
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

//! The engine that runs a model file in this process.
//! It knows nothing of prompts' meaning: tokens in, tokens out.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::Path;
use std::str::FromStr;
use std::time::Instant;

use crate::gguf::Gguf;
use crate::tokens::Utf8Stream;
use crate::{About, Engine, EngineError, Generation, Limits, Piece, Prompt, Rates, Stop, TokenId, Tokens};

mod cache;
pub mod config;
pub mod decoder;
pub mod device;
mod pace;
#[cfg(test)]
pub(crate) mod real_model;
mod sample;
mod weights;

pub use config::Config;
pub use decoder::CandleDecoder;
pub use device::DeviceChoice;

use device::Chosen;
use pace::Pace;
use sample::Choice;

/// One resident sequence of a decoder-only transformer: weights, and a preallocated KV cache that can be cut.
///
/// Two implementations: candle tensors (GPUs, and the reference on CPUs) and our own kernels (CPUs).
pub trait Decoder: Send {
    /// Appends `tokens` at the current length and returns the logits of the last `rows` of them,
    /// `[rows, vocabulary]` row-major; none if `rows` is 0.
    ///
    /// # Errors
    /// The tokens do not fit into [`Decoder::capacity`], or the device failed; the cache then keeps
    /// only what was there before the call.
    fn forward(&mut self, tokens: &[TokenId], rows: usize) -> Result<&[f32], EngineError>;

    /// Tokens in the cache.
    fn len(&self) -> usize;

    /// Whether the cache is empty.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps the first `len` tokens of the cache.
    fn truncate(&mut self, len: usize);

    /// Tokens that the cache can hold.
    fn capacity(&self) -> usize;
}

/// How a model is to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The device.
    pub device: DeviceChoice,
    /// What multiplies on a CPU.
    pub kernel: Kernel,
    /// Threads on a CPU; none: as many as pay. candle's kernels take theirs from `RAYON_NUM_THREADS` instead.
    pub threads: Option<NonZeroUsize>,
    /// Tokens that the KV cache shall hold, at most those that the model was trained for.
    pub context: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { device: DeviceChoice::Auto, kernel: Kernel::Auto, threads: None, context: 8192 }
    }
}

/// What multiplies on a CPU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Kernel {
    /// The fastest that this processor has.
    #[default]
    Auto,
    /// candle's own: the reference.
    Candle,
}

/// What a user wrote for the kernel is none of the known words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the kernel {0:?} is unknown: write auto or candle")]
pub struct UnknownKernel(String);

impl FromStr for Kernel {
    type Err = UnknownKernel;

    fn from_str(name: &str) -> Result<Self, UnknownKernel> {
        match name {
            "auto" => Ok(Self::Auto),
            "candle" => Ok(Self::Candle),
            _ => Err(UnknownKernel(name.to_owned())),
        }
    }
}

/// A model file, resident on a device.
pub struct Local {
    tokens: Tokens,
    about: About,
    decoder: Box<dyn Decoder>,
    /// What the KV cache holds, token for token.
    cached: Vec<TokenId>,
    pace: Pace,
}

impl Local {
    /// Loads the model file at `path`.
    ///
    /// # Errors
    /// The file is not a model that taper can run, the device that was asked for is not there, or memory is short.
    pub fn open(path: &Path, options: &Options) -> Result<Self, EngineError> {
        let gguf = Gguf::open(path)?;
        let config = Config::from_gguf(&gguf)?;
        let tokens = Tokens::from_gguf(&gguf)?;
        let Chosen { device, why } = device::choose(options.device)?;
        let capacity = config.capacity(options.context);
        let (decoder, kernel) = decoder(&gguf, &config, capacity, &device, options)?;
        let weights = gguf.tensor_names().filter_map(|name| gguf.tensor(name)).map(|view| view.data.len() as u64);
        let file_name = || path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let about = About {
            model: gguf.str("general.name").map_or_else(file_name, str::to_owned),
            family: config.family.name().to_owned(),
            device: why,
            kernel,
            weight_bytes: weights.sum(),
            context: decoder.capacity(),
        };
        Ok(Self { tokens, about, decoder, cached: Vec::with_capacity(capacity), pace: Pace::default() })
    }

    /// Cuts the cache to the longest beginning that it shares with `prompt`, and returns that beginning's length.
    ///
    /// For `logits` of the prompt's end its last token must be evaluated now. A prompt that is only read and lies
    /// in the cache whole leaves there what stands behind it.
    fn reuse(&mut self, prompt: &[TokenId], logits: bool) -> usize {
        // Equal unless a panic was caught between the two and nobody called `clear`.
        let held = self.cached.len().min(self.decoder.len());
        let same = self.cached[..held].iter().zip(prompt).take_while(|(a, b)| a == b).count();
        let keep = if logits { same.min(prompt.len() - 1) } else { same };
        if keep < prompt.len() {
            self.decoder.truncate(keep);
            self.cached.truncate(keep);
        }
        keep
    }

    /// Evaluates `tokens` behind the cache. With `forced`, also chooses what follows them: a token that spells, or
    /// begins, or begins with, these bytes.
    fn evaluate(&mut self, tokens: &[TokenId], forced: Option<&[u8]>) -> Result<Next, EngineError> {
        let logits = self.decoder.forward(tokens, usize::from(forced.is_some()))?;
        let next = match forced {
            None => Next::Nothing,
            Some(forced) => choose(&self.tokens, logits, forced).map_err(|problem| EngineError::Device {
                device: self.about.device.clone(),
                source: problem.into(),
            })?,
        };
        self.cached.extend_from_slice(tokens);
        Ok(next)
    }

    fn run(
        &mut self,
        prompt: &Prompt,
        limits: &Limits,
        watch: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Generation, EngineError> {
        let context = self.decoder.capacity();
        if prompt.tokens.len() > context {
            return Err(EngineError::PromptTooLong { tokens: prompt.tokens.len(), context });
        }
        let decodes = limits.max_tokens > 0 && !prompt.tokens.is_empty();
        let reused = self.reuse(&prompt.tokens, decodes);
        let mut generation = Generation {
            text: String::new(),
            stop: Stop::Limit,
            pieces: Vec::new(),
            reused,
            evaluated: 0,
            prefill: Default::default(),
            decode: Default::default(),
        };

        let mut forced = &prompt.forced[..];
        let mut next = Next::Nothing;
        let mut rest = &prompt.tokens[reused..];
        let started = Instant::now();
        while !rest.is_empty() {
            let (chunk, behind) = rest.split_at(self.pace.chunk().min(rest.len()));
            let began = Instant::now();
            next = self.evaluate(chunk, (decodes && behind.is_empty()).then_some(forced))?;
            self.pace.note_prefill(chunk.len(), began.elapsed());
            generation.evaluated += chunk.len();
            generation.prefill = started.elapsed();
            rest = behind;
            if watch("").is_break() {
                generation.stop = Stop::Watch;
                return Ok(generation);
            }
        }
        if !decodes {
            return Ok(generation);
        }

        let started = Instant::now();
        let mut stream = Utf8Stream::new();
        generation.stop = loop {
            let Next::Token(choice) = next else { break Stop::EndOfText };
            let bytes = self.tokens.bytes(choice.token);
            let (spelt, new) = bytes.split_at(bytes.len().min(forced.len()));
            forced = &forced[spelt.len()..];
            stream.push(new, &mut generation.text);
            let end = generation.text.len();
            generation.pieces.push(Piece { end, probability: choice.probability });
            generation.decode = started.elapsed();
            if watch(&generation.text).is_break() {
                break Stop::Watch;
            }
            if generation.pieces.len() == limits.max_tokens || self.cached.len() == context {
                break Stop::Limit;
            }
            let began = Instant::now();
            next = self.evaluate(&[choice.token], Some(forced))?;
            self.pace.note_decode(began.elapsed());
        };
        generation.decode = started.elapsed();
        Ok(generation)
    }
}

impl Engine for Local {
    fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    fn about(&self) -> &About {
        &self.about
    }

    fn generate(
        &mut self,
        prompt: &Prompt,
        limits: &Limits,
        watch: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Generation, EngineError> {
        let result = self.run(prompt, limits, watch);
        if result.is_err() {
            self.clear();
        }
        result
    }

    fn clear(&mut self) {
        self.cached.clear();
        self.decoder.truncate(0);
    }

    fn rates(&self) -> Rates {
        self.pace.rates()
    }
}

/// What follows the evaluated tokens.
enum Next {
    /// This token.
    Token(Choice),
    /// The end of the text; or nothing was asked.
    Nothing,
}

/// The decoder for this device and these options, and the sentence about its kernels.
fn decoder(
    gguf: &Gguf,
    config: &Config,
    capacity: usize,
    device: &candle_core::Device,
    options: &Options,
) -> Result<(Box<dyn Decoder>, String), EngineError> {
    let why = match options.kernel {
        Kernel::Candle => "asked for",
        Kernel::Auto if device.is_cpu() => "the only ones in this build",
        Kernel::Auto => "made for this device",
    };
    let decoder = CandleDecoder::load(gguf, config, capacity, device)?;
    Ok((Box::new(decoder), format!("candle: {why}")))
}

/// The likeliest token among those that the bytes still `forced` allow.
fn choose(tokens: &Tokens, logits: &[f32], forced: &[u8]) -> Result<Next, &'static str> {
    let choice = if forced.is_empty() {
        sample::greedy(logits)
    } else {
        let shorter = (1..forced.len()).filter_map(|len| tokens.spelling(&forced[..len]));
        let allowed: Vec<TokenId> = shorter.chain(tokens.starting_with(forced)).collect();
        if allowed.is_empty() {
            // A vocabulary without a token for one of the bytes: nothing can be said behind them.
            return Ok(Next::Nothing);
        }
        sample::greedy_among(logits, allowed.iter().copied())
    };
    match choice {
        None => Err("the model's output is not a number; its file is broken: delete it and run `taper pull` again"),
        Some(choice) if tokens.ends(choice.token) => Ok(Next::Nothing),
        Some(choice) => Ok(Next::Token(choice)),
    }
}

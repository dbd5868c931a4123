//! The engine that runs a model file in this process.
//! It knows nothing of prompts' meaning: tokens in, tokens out.

use std::collections::VecDeque;
use std::fmt;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::gguf::{FETCH_AGAIN, Gguf, shown};
use crate::tokens::Utf8Stream;
use crate::{
    About, Branch, Branching, Engine, EngineError, Generation, Growth, Limits, Piece, Prompt, Rates, Said,
    Stop, TokenId, Tokens,
};

mod branch;
mod cache;
mod candle_decoder;
mod clock;
pub mod config;
pub mod cpu;
mod decoder;
pub mod device;
mod head;
pub mod heal;
pub mod kernels;
mod linear;
mod lookup;
mod machine;
mod next;
mod options;
mod pace;
pub mod pool;
#[cfg(test)]
mod pool_model;
#[cfg(test)]
pub(crate) mod real_model;
mod room;
mod sample;
mod score;
mod sequences;
#[cfg(test)]
mod testing;
mod trial;
mod weights;

pub use candle_decoder::CandleDecoder;
pub use config::Config;
pub use cpu::CpuDecoder;
pub use decoder::{Ask, Batch, Begun, Decoder, Moved};
pub use device::DeviceChoice;
pub use kernels::Kernel;
pub use lookup::Speculation;
pub use options::{KernelChoice, Options};
pub use sample::Distribution;

use clock::Clock;
use device::Chosen;
use heal::Heal;
use lookup::Lookup;
use machine::Machine;
use next::{Next, asks, choose};
use pace::Pace;
use pool::Pool;
use room::Held;
use sequences::{Sequences, Shift, Start};

/// A model file, resident on a device.
pub struct Local {
    tokens: Tokens,
    about: About,
    decoder: Box<dyn Decoder>,
    /// What the KV caches hold.
    sequences: Sequences,
    pace: Pace,
    clock: Clock,
    /// The model file.
    path: PathBuf,
    /// None: tokens are decoded one by one.
    lookup: Option<Lookup>,
    /// What the last batch chose, one behind the other, and was not taken yet.
    chosen: VecDeque<Next>,
    /// What the last generation chose, for other ways to say it.
    last: Option<branch::Last>,
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { about, sequences, pace, .. } = self;
        f.debug_struct("Local")
            .field("about", about)
            .field("cached", &sequences.tokens().len())
            .field("pace", pace)
            .finish()
    }
}

impl Local {
    /// Loads the model file at `path`.
    ///
    /// # Errors
    /// The file is not a model that taper can run, the device that was asked for is not there, or memory is short.
    pub fn open(path: &Path, options: &Options) -> Result<Self, EngineError> {
        Self::open_on(path, options, Machine::here())
    }

    fn open_on(path: &Path, options: &Options, machine: Machine) -> Result<Self, EngineError> {
        let gguf = Gguf::open(path)?;
        let config = Config::from_gguf(&gguf)?;
        let tokens = Tokens::from_gguf(&gguf)?;
        let Chosen { device, why } = device::choose(options.device)?;
        let capacity = config.capacity(options.context);
        let (mut decoder, kernel) = decoder(&gguf, &config, capacity, &device, options, &machine)?;
        gguf.check_unchanged()?;
        let file_name = || shown(&path.file_stem().unwrap_or_default().to_string_lossy());
        let name = gguf.str("general.name").map(shown).filter(|name| !name.is_empty());
        let about = About {
            model: name.unwrap_or_else(file_name),
            family: config.family.name().to_owned(),
            device: why,
            kernel,
            weight_bytes: gguf.tensor_bytes(),
            context: decoder.capacity(),
        };
        let lookup = (options.speculate && decoder.batch_invariant()).then(Lookup::default);
        let sequences = Sequences::new(decoder.as_mut(), options.resident_bytes);
        let (pace, chosen, last) = (Pace::new(decoder.resumes()), VecDeque::new(), None);
        let (clock, path) = (machine.clock, path.to_owned());
        Ok(Self { tokens, about, decoder, sequences, pace, clock, path, lookup, chosen, last })
    }

    /// What speculation has done since the file was opened; zeros where there is none.
    pub fn speculation(&self) -> Speculation {
        self.lookup.as_ref().map_or_else(Speculation::default, Lookup::done)
    }

    /// Evaluates `tokens` behind the sequence in use, `shift` being moved in behind so many of them. With `heal`, also
    /// chooses which tokens follow them, at most `most`: one, and in the same batch as many of a draft's as are
    /// what would have been chosen.
    ///
    /// The cache then holds all that was chosen but the last token. Tokens of a draft in the batch are returned; none
    /// if `look` broke it off, and the cache is as before.
    fn evaluate(
        &mut self,
        tokens: &[TokenId],
        shift: Option<(&Shift, usize)>,
        heal: Option<&Heal>,
        most: usize,
        look: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Option<usize>, EngineError> {
        self.chosen.clear();
        let moved = shift.map(|(shift, behind)| self.sequences.moved(shift, behind));
        let Some(heal) = heal else {
            let batch = Batch { tokens, rows: 0, moved };
            if self.decoder.advance(&batch, look)?.is_break() {
                return Ok(None);
            }
            self.sequences.append(tokens, shift);
            return Ok(Some(0));
        };
        let new = tokens.len() + moved.as_ref().map_or(0, |moved| moved.rows.len());
        let room = self.decoder.capacity().saturating_sub(self.decoder.len() + new);
        let draft = self.lookup.as_mut().map_or(&[][..], |lookup| {
            lookup.guess(&self.tokens, heal.rest());
            lookup.take(tokens.len(), room.min(most.saturating_sub(1)))
        });
        let batch: Vec<TokenId> = tokens.iter().chain(draft).copied().collect();
        let drafted = batch.len() - tokens.len();
        let draft = &batch[tokens.len()..];
        let base = self.decoder.len();
        let asks = asks(&self.tokens, heal, draft);
        self.decoder.ask(asks.clone());
        let advance = Batch { tokens: &batch, rows: 1 + drafted, moved };
        let ControlFlow::Continue(logits) = self.decoder.advance(&advance, look)? else { return Ok(None) };
        let rows = logits.chunks_exact((logits.len() / (1 + drafted)).max(1));
        for (i, (logits, ask)) in rows.zip(&asks).enumerate() {
            let next = choose(&self.tokens, logits, ask);
            self.chosen.push_back(next);
            match next {
                Next::Token(choice) if draft.get(i) == Some(&choice.token) => {}
                _ => break,
            }
        }
        let right = self.chosen.len() - 1;
        if right < drafted {
            self.decoder.truncate(base + new + right);
        }
        self.sequences.append(&batch[..tokens.len() + right], shift);
        if let Some(lookup) = &mut self.lookup {
            let said: Vec<TokenId> = self.chosen.iter().filter_map(Next::token).collect();
            let ended = self.chosen.back() == Some(&Next::Nothing);
            lookup.judge(drafted, said.iter().copied(), ended);
        }
        Ok(Some(drafted))
    }

    /// What an interrupted call has left of `tokens` behind the sequence in use.
    fn begun(&self, tokens: &[TokenId]) -> Begun {
        self.decoder.begun(self.sequences.current(), tokens)
    }

    /// Keeps the first `len` tokens of the sequence in use.
    fn cut(&mut self, len: usize) {
        self.sequences.cut(self.decoder.as_mut(), len);
    }

    fn run(
        &mut self,
        prompt: &Prompt,
        limits: &Limits,
        watch: &mut dyn FnMut(Said<'_>) -> ControlFlow<()>,
    ) -> Result<Generation, EngineError> {
        let context = self.decoder.capacity();
        if prompt.tokens.len() > context {
            return Err(EngineError::PromptTooLong { tokens: prompt.tokens.len(), context });
        }
        let decodes = limits.max_tokens > 0 && !prompt.tokens.is_empty();
        let Start { keep, shift, .. } = self.sequences.settle(self.decoder.as_mut(), prompt, limits, decodes);
        // What is evaluated: all behind what is kept, but for what is moved.
        let (todo, gap) = match &shift {
            Some(Shift { place, .. }) => {
                let (before, behind) = (&prompt.tokens[keep..place.start], &prompt.tokens[place.end..]);
                ([before, behind].concat(), before.len())
            }
            None => (prompt.tokens[keep..].to_vec(), usize::MAX),
        };
        let mut generation =
            Generation { reused: prompt.tokens.len() - todo.len(), ..Generation::nothing(Stop::Limit) };

        let mut heal = Heal::new(&prompt.forced);
        if let Some(lookup) = self.lookup.as_mut().filter(|_| decodes) {
            lookup.begin(&self.tokens, &prompt.tokens, &prompt.forced);
        }
        let started = self.clock.now();
        while generation.evaluated < todo.len() {
            let done = generation.evaluated;
            let rest = &todo[done..];
            // What an interrupted call has left of them ends before what is moved.
            let begun = self.begun(&rest[..rest.len().min(gap - done.min(gap))]);
            let (chunk, behind) = rest.split_at(self.pace.chunk(begun.tokens, rest.len()));
            let shift = shift.as_ref().filter(|_| (done..done + chunk.len()).contains(&gap));
            let shift = shift.map(|shift| (shift, gap - done));
            let began = self.clock.now();
            let heal = (decodes && behind.is_empty()).then_some(&heal);
            let drafted =
                self.evaluate(chunk, shift, heal, limits.max_tokens, &mut || watch(Said::default()))?;
            let Some(drafted) = drafted else {
                let work = self.begun(chunk).work - begun.work;
                self.pace.note_prefill(chunk.len(), work, self.clock.since(began));
                generation.prefill = self.clock.since(started);
                generation.stop = Stop::Watch;
                return Ok(generation);
            };
            if drafted == 0 {
                self.pace.note_prefill(chunk.len(), chunk.len() as f32 - begun.work, self.clock.since(began));
            } else if let Some(lookup) = self.lookup.as_mut().filter(|_| begun.tokens == 0) {
                lookup.note_batch(chunk.len() + drafted, self.clock.since(began));
            }
            generation.evaluated += chunk.len();
            generation.prefill = self.clock.since(started);
            self.sequences.remember(self.decoder.as_mut(), prompt);
            if watch(Said::default()).is_break() {
                // Tokens that were chosen already are as unsaid as if they came one by one.
                self.cut(self.sequences.tokens().len().min(prompt.tokens.len()));
                generation.stop = Stop::Watch;
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
            let choice = match self.chosen.pop_front() {
                Some(Next::Token(choice)) => choice,
                Some(Next::Broken) => return Err(self.broken()),
                Some(Next::Nothing) | None => break Stop::EndOfText,
            };
            let bytes = self.tokens.bytes(choice.token);
            if let Some(lookup) = &mut self.lookup {
                lookup.push(choice.token, bytes);
            }
            stream.push(heal.advance(bytes), &mut generation.text);
            let end = generation.text.len();
            generation.pieces.push(Piece { end, probability: choice.probability });
            choices.push(choice);
            generation.decode = self.clock.since(started);
            let said = generation.pieces.len();
            // The last token is chosen but not evaluated.
            let held = prompt.tokens.len() + said - 1;
            if watch(generation.said()).is_break() {
                self.cut(held);
                break Stop::Watch;
            }
            if said == limits.max_tokens || held == context {
                break Stop::Limit;
            }
            if self.chosen.is_empty() {
                let began = self.clock.now();
                let most = limits.max_tokens - said;
                let so_far = generation.said();
                let drafted =
                    self.evaluate(&[choice.token], None, Some(&heal), most, &mut || watch(so_far))?;
                let Some(drafted) = drafted else { break Stop::Watch };
                let time = self.clock.since(began);
                self.pace.note_decode(self.chosen.len(), time);
                if let Some(lookup) = &mut self.lookup {
                    lookup.note_batch(1 + drafted, time);
                }
            }
        };
        if let Some(lookup) = &mut self.lookup {
            lookup.end(&self.tokens);
        }
        generation.decode = self.clock.since(started);
        self.last = Some(branch::Last::new(prompt, choices, &generation.pieces));
        Ok(generation)
    }

    /// Leaves nothing of a call that failed.
    fn or_clear<T>(&mut self, result: Result<T, EngineError>) -> Result<T, EngineError> {
        if result.is_err() {
            self.clear();
        }
        result
    }

    /// Kernels are tried before they are chosen, so it is the weights: numbers, each of them, that are none together.
    fn broken(&self) -> EngineError {
        crate::gguf::bad(&self.path, "what it says", "is not a number", FETCH_AGAIN)
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
        watch: &mut dyn FnMut(Said<'_>) -> ControlFlow<()>,
    ) -> Result<Generation, EngineError> {
        self.decoder.set_background(limits.background);
        if limits.max_tokens > 0 {
            self.last = None;
        }
        let result = self.run(prompt, limits, watch);
        self.or_clear(result)
    }

    fn branch(
        &mut self,
        limits: &Branching,
        watch: &mut dyn FnMut(&Branch<'_>) -> Growth,
    ) -> Result<(), EngineError> {
        self.decoder.set_background(false);
        let result = self.grow(limits, watch);
        self.sequences.drop_branches(self.decoder.as_mut());
        self.or_clear(result)
    }

    fn score(
        &mut self,
        prompt: &Prompt,
        answer: &[TokenId],
        told: &mut dyn FnMut(&Distribution<'_>),
    ) -> Result<(), EngineError> {
        self.decoder.set_background(false);
        self.last = None;
        let result = self.read_along(prompt, answer, told);
        self.or_clear(result)
    }

    fn clear(&mut self) {
        self.last = None;
        self.sequences.drop_branches(self.decoder.as_mut());
        self.sequences.clear(self.decoder.as_mut());
        self.chosen.clear();
        if let Some(lookup) = &mut self.lookup {
            lookup.clear();
        }
    }

    fn unread(&self, prompt: &Prompt, limits: &Limits) -> usize {
        self.sequences.unread(self.decoder.as_ref(), prompt, limits)
    }

    fn rates(&self) -> Rates {
        self.pace.rates()
    }
}

/// The decoder for the device, and the kernels that it runs on with the reason, for `doctor`.
fn decoder(
    gguf: &Gguf,
    config: &Config,
    capacity: usize,
    device: &candle_core::Device,
    options: &Options,
    machine: &Machine,
) -> Result<(Box<dyn Decoder>, String), EngineError> {
    let check = |held| room::check(gguf, config, capacity, held, &machine.memory);
    let candle = |why: &str| -> Result<(Box<dyn Decoder>, String), EngineError> {
        check(if device.is_cpu() { Held::Tensors } else { Held::Elsewhere })?;
        let decoder = CandleDecoder::load(gguf, config, capacity, device)?;
        Ok((Box::new(decoder), format!("candle: {why}")))
    };
    let asked = match options.kernel {
        _ if !device.is_cpu() => return candle("made for this device"),
        KernelChoice::Candle => return candle("asked for by name"),
        KernelChoice::Auto if !cfg!(target_arch = "x86_64") => {
            return candle("the fastest on this kind of processor");
        }
        KernelChoice::Auto => None,
        KernelChoice::Own(kernel) => Some(kernel),
    };
    check(Held::Packed)?;
    let asked_threads = options.threads.map_or_else(Pool::default_threads, NonZeroUsize::get);
    let (kernel, why) = trial::choose(gguf, asked, asked_threads)?;
    match CpuDecoder::on(gguf, config, capacity, kernel, (machine.pool)(asked_threads)) {
        Ok(decoder) => {
            let threads = decoder.threads();
            let plural = if threads == 1 { "thread" } else { "threads" };
            let fewer = if threads < asked_threads {
                format!(" of {asked_threads} asked for: more cannot be had")
            } else {
                String::new()
            };
            Ok((Box::new(decoder), format!("{why}; {threads} {plural}{fewer}")))
        }
        // A format without kernels of ours runs all the same where candle has some.
        Err(problem @ EngineError::Model { .. }) => {
            candle(&format!("the own kernels cannot run this file ({problem})")).map_err(|_| problem)
        }
        Err(problem) => Err(problem),
    }
}

#[cfg(test)]
mod tests;

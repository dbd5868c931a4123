//! A fake engine for tests and benches: it answers from a script, at a chosen speed.
//! It knows nothing of tensors.
//!
//! It keeps the whole contract of [`Engine`]: forced bytes, limits, `watch`, stop reasons, a cache of a few sequences
//! that survives an interrupted prompt and moves suffixes. It can also fail or panic where a script says so, for tests of what is around it.

use std::ops::{ControlFlow, Range};
use std::time::{Duration, Instant};

use crate::local::heal::Heal;
use crate::tokens::{TokenId, Tokens, Utf8Stream};
use crate::{
    About, Branch, Branching, Engine, EngineError, Generation, Growth, Limits, Piece, Prompt, Rates, Said,
    Stop,
};

mod file;

/// Tokens between two calls of `watch` while the prompt is read.
const CHUNK: usize = 64;
/// Sequences that are held.
const SEQUENCES: usize = 4;
/// A sequence whose end is cut by no more than this is not worth keeping beside the new one.
const CUT: usize = 32;
/// Probability of each token of another way to say an answer, where none is given.
const UNLIKELY: f32 = 0.1;
/// `watch` is called at least this often while a delay passes.
const POLL: Duration = Duration::from_millis(5);

/// From the prompt's text to the answer.
type Answer = dyn Fn(&str) -> String + Send;

/// An engine that answers from a script.
///
/// The first rule whose text occurs in the prompt decides; the prompt is matched as text, with special tokens as their names
/// (`<|fim_middle|>`). Without a rule that fits, the function given to [`Scripted::answering`] is asked; without
/// one, the answer is empty.
pub struct Scripted {
    tokens: Tokens,
    about: About,
    rules: Vec<Rule>,
    answer: Option<Box<Answer>>,
    prefill_delay: Duration,
    decode_delay: Duration,
    probability: f32,
    /// The most recently used last.
    held: Vec<Held>,
    last: Option<Last>,
    /// Whether it panics when it is dropped: what no guard around its work catches.
    panics_at_the_end: bool,
}

impl Drop for Scripted {
    fn drop(&mut self) {
        assert!(!self.panics_at_the_end || std::thread::panicking(), "the script says so");
    }
}

/// What was generated last.
#[derive(Debug)]
struct Last {
    /// The prompt's text.
    prompt: String,
    forced: Vec<u8>,
    text: String,
}

/// What a real engine would hold of one sequence.
#[derive(Debug, Clone, Default)]
struct Held {
    tokens: Vec<TokenId>,
    /// The segment that can be moved.
    suffix: Range<usize>,
    /// Tokens that changed in front of it since it was evaluated.
    missed: usize,
}

/// How much of a prompt a sequence saves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Saving {
    /// Tokens at the beginning.
    beginning: usize,
    /// The suffix is moved, and will then have missed so many tokens.
    moved: Option<usize>,
    /// Tokens that are left to evaluate.
    unread: usize,
}

impl Held {
    fn saving(&self, prompt: &Prompt, stale: usize) -> Saving {
        let tokens = &prompt.tokens;
        let mut same = self.tokens.iter().zip(tokens).take_while(|(a, b)| a == b).count();
        if self.missed > stale {
            same = same.min(self.suffix.start);
        }
        let plain = Saving { beginning: same, moved: None, unread: tokens.len() - same };
        let (from, to) = (&self.suffix, &prompt.suffix);
        let segments = self.tokens.get(from.clone()).zip(tokens.get(to.clone()));
        if segments.is_none_or(|(old, new)| old.is_empty() || old != new) {
            return plain;
        }
        // The token before the segment, which says where the text before the cursor ends, is always evaluated.
        let beginning = same.min(from.start.min(to.start).saturating_sub(1));
        let missed = self.missed + from.start.max(to.start) - 1 - beginning;
        let unread = to.start - beginning + tokens.len() - to.end;
        if missed > stale || unread >= plain.unread {
            return plain;
        }
        Saving { beginning, moved: Some(missed), unread }
    }
}

#[derive(Debug)]
struct Rule {
    contains: String,
    action: Action,
    /// Other ways to say the answer, with the probability of each of their own tokens.
    others: Vec<(String, f32)>,
}

impl Rule {
    fn new(contains: &str, action: Action) -> Self {
        Self { contains: contains.to_owned(), action, others: Vec::new() }
    }
}

#[derive(Debug, Clone)]
enum Action {
    Answer(String),
    Fail(String),
    Panic,
}

impl Default for Scripted {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Scripted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scripted").field("rules", &self.rules).finish_non_exhaustive()
    }
}

impl Scripted {
    /// An engine that answers nothing, at once, with the vocabulary of [`Tokens::bytes_only`].
    pub fn new() -> Self {
        let about = About {
            model: "scripted".to_owned(),
            family: "scripted".to_owned(),
            device: "none: answers come from a script".to_owned(),
            kernel: "none".to_owned(),
            weight_bytes: 0,
            context: 8192,
        };
        Self {
            tokens: Tokens::bytes_only(),
            about,
            rules: Vec::new(),
            answer: None,
            prefill_delay: Duration::ZERO,
            decode_delay: Duration::ZERO,
            probability: 1.0,
            held: Vec::new(),
            last: None,
            panics_at_the_end: false,
        }
    }

    /// Answers `answer` where the prompt contains `contains`. Rules are tried in the order they were added.
    pub fn when(mut self, contains: &str, answer: &str) -> Self {
        self.rules.push(Rule::new(contains, Action::Answer(answer.to_owned())));
        self
    }

    /// Another way to say the answer of the rule that was added last, and not a likely one.
    pub fn or(self, answer: &str) -> Self {
        self.or_with(answer, UNLIKELY)
    }

    /// [`or`](Self::or), with this probability of each token behind those that it shares with the answer.
    pub fn or_with(mut self, answer: &str, probability: f32) -> Self {
        if let Some(rule) = self.rules.last_mut() {
            rule.others.push((answer.to_owned(), probability));
        }
        self
    }

    /// Asks `answer` where no rule fits; it is given the prompt's text.
    pub fn answering(mut self, answer: impl Fn(&str) -> String + Send + 'static) -> Self {
        self.answer = Some(Box::new(answer));
        self
    }

    /// Spends this time on each prompt token that is not in the cache.
    pub fn prefill_delay(mut self, each: Duration) -> Self {
        self.prefill_delay = each;
        self
    }

    /// Spends this time on each decoded token.
    pub fn decode_delay(mut self, each: Duration) -> Self {
        self.decode_delay = each;
        self
    }

    /// Gives every decoded token this probability instead of 1.
    pub fn probability(mut self, probability: f32) -> Self {
        self.probability = probability;
        self
    }

    /// Holds at most this many tokens.
    pub fn context(mut self, tokens: usize) -> Self {
        self.about.context = tokens;
        self
    }

    /// Speaks another vocabulary, e.g. a real model's.
    pub fn tokens(mut self, tokens: Tokens) -> Self {
        self.tokens = tokens;
        self
    }

    fn action(&self, prompt: &str) -> Action {
        match (self.rules.iter().find(|rule| prompt.contains(&rule.contains)), &self.answer) {
            (Some(rule), _) => rule.action.clone(),
            (None, Some(answer)) => Action::Answer(answer(prompt)),
            (None, None) => Action::Answer(String::new()),
        }
    }

    /// The sequence that saves the most, if any does.
    fn best(&self, prompt: &Prompt, stale: usize) -> Option<(usize, Saving)> {
        let savings = self.held.iter().enumerate().map(|(at, held)| (at, held.saving(prompt, stale)));
        savings
            .min_by_key(|(_, saving)| saving.unread)
            .filter(|(_, saving)| saving.unread < prompt.tokens.len())
    }

    /// Takes out the sequence to go on with, cut to what the prompt shares with it; and that.
    fn begin(&mut self, prompt: &Prompt, limits: &Limits) -> (Held, Saving) {
        let none = Saving { beginning: 0, moved: None, unread: prompt.tokens.len() };
        let (at, mut saving) = self.best(prompt, limits.stale).unwrap_or((usize::MAX, none));
        // As in a real engine, the last token is evaluated where something is to follow: its logits are needed.
        if limits.max_tokens > 0 && saving.unread == 0 && !prompt.tokens.is_empty() {
            saving = Saving { beginning: saving.beginning.min(prompt.tokens.len() - 1), unread: 1, ..saving };
        }
        let Some(held) = self.held.get(at) else { return (Held::default(), saving) };
        let cut = held.tokens.len().saturating_sub(saving.beginning);
        let mut held = if cut > CUT && saving.unread > 0 && saving.moved.is_none() {
            held.clone()
        } else {
            self.held.remove(at)
        };
        if saving.unread > 0 {
            held.tokens.truncate(saving.beginning);
            if held.tokens.len() < held.suffix.end {
                (held.suffix, held.missed) = (0..0, 0);
            }
        }
        (held, saving)
    }

    fn keep(&mut self, held: Held) {
        self.held.push(held);
        if self.held.len() > SEQUENCES {
            self.held.remove(0);
        }
    }

    /// The tokens of an answer that begins with `forced`, whose bytes may end inside a character.
    fn spell(&self, forced: &[u8], answer: &str) -> Vec<TokenId> {
        let mut bytes = answer.as_bytes().to_vec();
        if !bytes.starts_with(forced) {
            bytes = [forced, answer.as_bytes()].concat();
        }
        let mut ids = Vec::new();
        for chunk in bytes.utf8_chunks() {
            ids.extend(self.tokens.encode(chunk.valid()));
            ids.extend(chunk.invalid().iter().filter_map(|&byte| self.tokens.spelling(&[byte])));
        }
        ids
    }
}

impl Scripted {
    /// Evaluates what is left of the prompt behind `held`, and answers.
    fn go_on(
        &self,
        held: &mut Held,
        saving: Saving,
        prompt: &Prompt,
        text: &str,
        limits: &Limits,
        watch: &mut dyn FnMut(Said<'_>) -> ControlFlow<()>,
    ) -> Result<Generation, EngineError> {
        let context = self.about.context;
        let start = Instant::now();
        let mut generation =
            Generation { reused: prompt.tokens.len() - saving.unread, ..Generation::nothing(Stop::Watch) };
        // A suffix that is moved comes between what is evaluated before and behind it.
        let suffix = prompt.suffix.clone();
        let parts = match saving.moved {
            Some(_) => [saving.beginning..suffix.start, suffix.end..prompt.tokens.len()],
            None => [prompt.tokens.len() - saving.unread..prompt.tokens.len(), 0..0],
        };
        for part in parts {
            if saving.moved.is_some() && part.start == suffix.end {
                held.tokens.extend_from_slice(&prompt.tokens[suffix.clone()]);
            }
            for chunk in prompt.tokens[part].chunks(CHUNK) {
                let delay = self.prefill_delay.saturating_mul(chunk.len() as u32);
                let mut flow = wait(delay, Said::default(), watch);
                if flow.is_continue() {
                    held.tokens.extend_from_slice(chunk);
                    generation.evaluated += chunk.len();
                    flow = watch(Said::default());
                }
                if flow.is_break() {
                    generation.prefill = start.elapsed();
                    return Ok(generation);
                }
            }
        }
        if saving.unread > 0 && !suffix.is_empty() {
            held.missed = saving.moved.unwrap_or(if held.suffix == suffix { held.missed } else { 0 });
            held.suffix = suffix;
        }
        generation.prefill = start.elapsed();
        if limits.max_tokens == 0 {
            generation.stop = Stop::Limit;
            return Ok(generation);
        }

        let answer = match self.action(text) {
            Action::Answer(answer) => answer,
            Action::Fail(message) => {
                return Err(EngineError::Device { device: "the script".to_owned(), source: message.into() });
            }
            Action::Panic => {
                std::panic::panic_any(format!("the script panics on this prompt of {} bytes", text.len()))
            }
        };

        let start = Instant::now();
        let mut heal = Heal::new(&prompt.forced);
        let mut stream = Utf8Stream::new();
        let mut answer = self.spell(&prompt.forced, &answer).into_iter();
        generation.stop = loop {
            if generation.pieces.len() == limits.max_tokens || held.tokens.len() >= context {
                break Stop::Limit;
            }
            if wait(self.decode_delay, generation.said(), watch).is_break() {
                break Stop::Watch;
            }
            let Some(id) = answer.next() else { break Stop::EndOfText };
            held.tokens.push(id);
            stream.push(heal.advance(self.tokens.bytes(id)), &mut generation.text);
            generation.pieces.push(Piece { end: generation.text.len(), probability: self.probability });
            if watch(generation.said()).is_break() {
                break Stop::Watch;
            }
        };
        generation.decode = start.elapsed();
        Ok(generation)
    }
}

/// A branch on its way.
struct Growing {
    number: usize,
    generation: Generation,
    heal: Heal,
    stream: Utf8Stream,
    /// Tokens to come.
    left: Vec<TokenId>,
    /// Tokens that it shares with the first answer.
    shared: usize,
    /// Probability of each of the others.
    probability: f32,
}

impl Growing {
    fn told(&self, ended: bool) -> Branch<'_> {
        Branch { number: self.number, generation: &self.generation, ended }
    }
}

impl Scripted {
    /// The branches of what was said last that differ from it soon enough, nothing said of them yet.
    fn branches(&self, last: &Last, limits: &Branching) -> Vec<Growing> {
        let rule = self.rules.iter().find(|rule| last.prompt.contains(&rule.contains));
        let others = rule.into_iter().flat_map(|rule| &rule.others);
        let begin = |left: Vec<TokenId>, probability| {
            let generation = Generation::nothing(Stop::Limit);
            let (heal, stream) = (Heal::new(&last.forced), Utf8Stream::new());
            Growing { number: 0, generation, heal, stream, left, shared: 0, probability }
        };
        let mut growing = Vec::new();
        for &(ref other, probability) in others {
            let mut branch = begin(self.spell(&last.forced, other), probability);
            let mut probe = begin(Vec::new(), probability);
            for &id in &branch.left {
                probe.stream.push(probe.heal.advance(self.tokens.bytes(id)), &mut probe.generation.text);
                if !last.text.starts_with(&probe.generation.text) {
                    break;
                }
                branch.shared += 1;
            }
            let same =
                probe.generation.text.bytes().zip(last.text.bytes()).take_while(|(a, b)| a == b).count();
            if growing.len() < limits.most && same < limits.within.max(1) {
                branch.number = growing.len();
                growing.push(branch);
            }
        }
        growing
    }
}

impl Engine for Scripted {
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
        let context = self.about.context;
        if prompt.tokens.len() > context {
            self.held.clear();
            return Err(EngineError::PromptTooLong { tokens: prompt.tokens.len(), context });
        }
        let text = self.tokens.render(&prompt.tokens);
        let (mut held, saving) = self.begin(prompt, limits);
        let result = self.go_on(&mut held, saving, prompt, &text, limits, watch);
        if limits.max_tokens > 0 {
            let said = result.as_ref().ok().filter(|it| !it.pieces.is_empty()).map(|it| it.text.clone());
            self.last = said.map(|said| Last { prompt: text, forced: prompt.forced.clone(), text: said });
        }
        match &result {
            Ok(_) => self.keep(held),
            Err(_) => self.held.clear(),
        }
        result
    }

    /// Says what the script has behind `or`: of all that begin otherwise in time, a token of each at once.
    fn branch(
        &mut self,
        limits: &Branching,
        watch: &mut dyn FnMut(&Branch<'_>) -> Growth,
    ) -> Result<(), EngineError> {
        let Some(last) = self.last.take() else { return Ok(()) };
        let mut growing = self.branches(&last, limits);
        self.last = Some(last);
        let mut steps = 0;
        while !growing.is_empty() {
            let shared = growing.iter().map(|it| it.shared).min().unwrap_or_default();
            // What they share with the first answer was said already.
            if steps >= shared {
                let told = &growing[0];
                let mut look = |_: Said<'_>| match watch(&told.told(false)) {
                    Growth::Stop => ControlFlow::Break(()),
                    Growth::On | Growth::Enough => ControlFlow::Continue(()),
                };
                if wait(self.decode_delay, Said::default(), &mut look).is_break() {
                    return Ok(());
                }
            }
            steps += 1;
            let mut on = Vec::new();
            for mut branch in growing {
                let ended = branch.generation.pieces.len() == limits.max_tokens || branch.left.is_empty();
                if ended {
                    let whole = branch.left.is_empty();
                    branch.generation.stop = if whole { Stop::EndOfText } else { Stop::Limit };
                } else {
                    let id = branch.left.remove(0);
                    let Growing { stream, heal, generation, probability, shared, .. } = &mut branch;
                    stream.push(heal.advance(self.tokens.bytes(id)), &mut generation.text);
                    let end = generation.text.len();
                    let own = generation.pieces.len() >= *shared;
                    let probability = if own { *probability } else { self.probability };
                    generation.pieces.push(Piece { end, probability });
                }
                let growth =
                    if ended || steps > branch.shared { watch(&branch.told(ended)) } else { Growth::On };
                match growth {
                    Growth::Stop => return Ok(()),
                    Growth::On if !ended => on.push(branch),
                    Growth::On | Growth::Enough => {}
                }
            }
            growing = on;
        }
        Ok(())
    }

    fn clear(&mut self) {
        self.held.clear();
        self.last = None;
    }

    fn unread(&self, prompt: &Prompt, limits: &Limits) -> usize {
        self.best(prompt, limits.stale).map_or(prompt.tokens.len(), |(_, saving)| saving.unread)
    }

    /// What the script says, known before anything was measured: without delays, without bounds.
    fn rates(&self) -> Rates {
        let rate = |delay: Duration| 1.0 / delay.as_secs_f32();
        Rates { prefill: rate(self.prefill_delay), decode: rate(self.decode_delay) }
    }
}

/// Lets `delay` pass, asking `watch` all the while.
fn wait(
    delay: Duration,
    said: Said<'_>,
    watch: &mut dyn FnMut(Said<'_>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let start = Instant::now();
    loop {
        let left = delay.saturating_sub(start.elapsed());
        if left.is_zero() {
            return ControlFlow::Continue(());
        }
        std::thread::sleep(left.min(POLL));
        watch(said)?;
    }
}

#[cfg(test)]
mod tests;

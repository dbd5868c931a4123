//! Other ways to say what was just said: forks at the tokens of which the model was unsure, decoded together.
//! It knows nothing of what is done with them.
//!
//! A branch shares the KV cache of the prompt and of the text before it. All of them advance by one token in one batch:
//! on a CPU decoding waits for the weights, so a second row costs little beside the first. A decoder with a single
//! sequence grows them one after the other, on what the first left of its cache.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::ops::ControlFlow;

use super::heal::Heal;
use super::sample::Choice;
use super::sequences::BRANCHES;
use super::{Ask, Local, Next, choose};
use crate::tokens::Utf8Stream;
use crate::{Branch, Branching, EngineError, Generation, Growth, Piece, Prompt, Stop, TokenId, Tokens};

/// The last generation, as far as branches need it.
#[derive(Debug)]
pub(super) struct Last {
    prompt: Vec<TokenId>,
    forced: Vec<u8>,
    choices: Vec<Choice>,
    pieces: Vec<Piece>,
}

/// Where a branch begins: instead of the choice of this number stands this token.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Fork {
    at: usize,
    token: TokenId,
    probability: f32,
}

/// A branch that grows.
struct Growing {
    number: usize,
    generation: Generation,
    /// The decoder's sequence.
    sequence: usize,
    heal: Heal,
    stream: Utf8Stream,
    /// The last token, which is chosen but not evaluated.
    token: TokenId,
    /// Tokens evaluated.
    held: usize,
}

impl Last {
    pub(super) fn new(prompt: &Prompt, choices: Vec<Choice>, pieces: &[Piece]) -> Self {
        let Prompt { tokens, forced, .. } = prompt;
        Self { prompt: tokens.clone(), forced: forced.clone(), choices, pieces: pieces.to_vec() }
    }

    /// The first uncertain token's runner-up, then the likeliest of all others.
    fn forks(&self, tokens: &Tokens, limits: &Branching) -> Vec<Fork> {
        let mut forks = Vec::new();
        // What is said from each token on.
        let mut rest: Vec<u8> =
            self.choices.iter().flat_map(|choice| tokens.bytes(choice.token)).copied().collect();
        let mut before = 0;
        for (at, choice) in self.choices.iter().enumerate() {
            if before >= limits.within.max(1) {
                break;
            }
            for &(token, probability) in choice.rivals.iter().flatten() {
                let bytes = tokens.bytes(token);
                // The same text in other tokens is no other text; neither is a part of it.
                if !tokens.ends(token) && !rest.starts_with(bytes) {
                    forks.push(Fork { at, token, probability });
                }
            }
            rest.drain(..tokens.bytes(choice.token).len());
            before = self.pieces.get(at).map_or(before, |piece| piece.end);
        }
        if let [_, others @ ..] = &mut forks[..] {
            others.sort_by(|a, b| b.probability.partial_cmp(&a.probability).unwrap_or(Ordering::Equal));
        }
        forks.truncate(limits.most);
        forks
    }
}

impl Local {
    /// Grows the branches of the last generation; see [`crate::Engine::branch`].
    pub(super) fn grow(
        &mut self,
        limits: &Branching,
        watch: &mut dyn FnMut(&Branch<'_>) -> Growth,
    ) -> Result<(), EngineError> {
        let Some(last) = self.last.take() else { return Ok(()) };
        let mut forks: VecDeque<(usize, Fork)> =
            last.forks(&self.tokens, limits).into_iter().enumerate().collect();
        let together = if self.sequences.forks() {
            BRANCHES
        } else {
            // A later fork needs what an earlier one cuts off.
            forks.make_contiguous().sort_by_key(|(_, fork)| std::cmp::Reverse(fork.at));
            1
        };
        let mut grown = Ok(ControlFlow::Continue(()));
        while !forks.is_empty() && matches!(grown, Ok(ControlFlow::Continue(()))) {
            let some = forks.drain(..forks.len().min(together)).collect();
            grown = self.grow_together(&last, some, limits, watch);
        }
        self.last = Some(last);
        grown.map(|_| ())
    }

    /// Grows as many branches as there are sequences for.
    fn grow_together(
        &mut self,
        last: &Last,
        forks: Vec<(usize, Fork)>,
        limits: &Branching,
        watch: &mut dyn FnMut(&Branch<'_>) -> Growth,
    ) -> Result<ControlFlow<()>, EngineError> {
        let mut growing = Vec::new();
        for (place, (number, fork)) in forks.into_iter().enumerate() {
            let Some(branch) = self.begin(last, place, number, fork) else { continue };
            match watch(&branch.told(false)) {
                Growth::On => growing.push(branch),
                Growth::Enough => {}
                Growth::Stop => return Ok(ControlFlow::Break(())),
            }
        }
        loop {
            let (over, on): (Vec<_>, Vec<_>) =
                growing.into_iter().partition(|branch| self.is_over(branch, limits));
            if over.iter().any(|branch| watch(&branch.told(true)) == Growth::Stop) {
                return Ok(ControlFlow::Break(()));
            }
            if on.is_empty() {
                return Ok(ControlFlow::Continue(()));
            }
            let began = self.clock.now();
            let Some(chosen) = self.step(&on, watch)? else { return Ok(ControlFlow::Break(())) };
            let time = self.clock.since(began);
            growing = Vec::new();
            for (mut branch, next) in on.into_iter().zip(chosen) {
                branch.held += 1;
                branch.generation.decode += time;
                let ended = match next {
                    Next::Broken => return Err(self.broken()),
                    Next::Nothing => {
                        branch.generation.stop = Stop::EndOfText;
                        true
                    }
                    Next::Token(choice) => {
                        branch.push(&self.tokens, choice.token, choice.probability);
                        false
                    }
                };
                match watch(&branch.told(ended)) {
                    Growth::On if !ended => growing.push(branch),
                    Growth::On | Growth::Enough => {}
                    Growth::Stop => return Ok(ControlFlow::Break(())),
                }
            }
        }
    }

    /// Evaluates the last token of each branch, and chooses the next ones; `None` if `watch` broke it off.
    fn step(
        &mut self,
        growing: &[Growing],
        watch: &mut dyn FnMut(&Branch<'_>) -> Growth,
    ) -> Result<Option<Vec<Next>>, EngineError> {
        let ask = |heal: &Heal| {
            if heal.is_done() { Ask::Greatest } else { Ask::Among(heal.allowed(&self.tokens).collect()) }
        };
        let asks: Vec<Ask> = growing.iter().map(|branch| ask(&branch.heal)).collect();
        let rows: Vec<(usize, TokenId)> =
            growing.iter().map(|branch| (branch.sequence, branch.token)).collect();
        let mut look = || match growing.first().map(|branch| watch(&branch.told(false))) {
            Some(Growth::Stop) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        };
        self.decoder.ask(asks.clone());
        let ControlFlow::Continue(logits) = self.decoder.advance_each(&rows, &mut look)? else {
            return Ok(None);
        };
        let width = (logits.len() / rows.len().max(1)).max(1);
        let chosen = logits.chunks_exact(width).zip(&asks).map(|(row, ask)| choose(&self.tokens, row, ask));
        Ok(Some(chosen.collect()))
    }

    /// Whether nothing more can be said in a branch.
    fn is_over(&self, branch: &Growing, limits: &Branching) -> bool {
        branch.generation.pieces.len() >= limits.max_tokens || branch.held >= self.decoder.capacity()
    }

    /// The beginning of a branch, up to its own first token; `None` if the text before it is not in the cache.
    fn begin(&mut self, last: &Last, place: usize, number: usize, fork: Fork) -> Option<Growing> {
        let Fork { at, token, probability } = fork;
        let said = last.choices.get(..at)?;
        let held = last.prompt.len() + at;
        let holds = {
            let cached = self.sequences.tokens();
            let before = last.prompt.iter().copied().chain(said.iter().map(|choice| choice.token));
            cached.len() >= held && self.decoder.len() >= held && before.eq(cached[..held].iter().copied())
        };
        if !holds {
            return None;
        }
        let sequence = self.sequences.branch(self.decoder.as_mut(), place, held);
        let generation = Generation { reused: held, ..Generation::nothing(Stop::Limit) };
        let heal = Heal::new(&last.forced);
        let stream = Utf8Stream::new();
        let mut branch = Growing { number, generation, sequence, heal, stream, token, held };
        for choice in said {
            branch.push(&self.tokens, choice.token, choice.probability);
        }
        branch.push(&self.tokens, token, probability);
        Some(branch)
    }
}

impl Growing {
    fn told(&self, ended: bool) -> Branch<'_> {
        Branch { number: self.number, generation: &self.generation, ended }
    }

    fn push(&mut self, tokens: &Tokens, token: TokenId, probability: f32) {
        self.stream.push(self.heal.advance(tokens.bytes(token)), &mut self.generation.text);
        let end = self.generation.text.len();
        self.generation.pieces.push(Piece { end, probability });
        self.token = token;
    }
}

#[cfg(test)]
mod tests;

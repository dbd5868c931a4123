//! Alternatives to the last generation: forks at the tokens that the model was unsure of, decoded together.
//!
//! A branch shares the KV cache of the prompt and of the text before it. All branches advance by one token in one
//! batch: on a CPU, decoding is bound by reading the weights, so a second row costs little beside the first. A decoder
//! with a single sequence decodes them one after the other, on what the first left in its cache.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::ops::ControlFlow;

use super::cached_sequences::MAX_BRANCHES;
use super::next_token::pick_token;
use super::sampling::TokenChoice;
use super::token_healing::TokenHealing;
use super::{Local, LogitsRequest, NextToken, SequencesBatch};
use crate::tokenizer::Utf8Stream;
use crate::{
    BranchControl, BranchLimits, BranchOutput, EngineError, Generation, Prompt, ScoredToken, StopReason,
    TokenId, Tokenizer,
};

/// The last generation, as far as branches need it.
#[derive(Debug)]
pub(super) struct LastGeneration {
    prompt: Vec<TokenId>,
    healing_bytes: Vec<u8>,
    choices: Vec<TokenChoice>,
    pieces: Vec<ScoredToken>,
}

/// The start of a branch: `token` replaces the choice `choice_index`.
#[derive(Debug, Clone, Copy, PartialEq)]
struct ForkPoint {
    choice_index: usize,
    token: TokenId,
    probability: f32,
}

/// A branch in progress.
struct ActiveBranch {
    number: usize,
    generation: Generation,
    /// The decoder's sequence.
    sequence: usize,
    heal: TokenHealing,
    stream: Utf8Stream,
    /// The last token, which is chosen but not evaluated.
    token: TokenId,
    /// Tokens evaluated.
    evaluated: usize,
}

impl LastGeneration {
    pub(super) fn new(prompt: &Prompt, choices: Vec<TokenChoice>, pieces: &[ScoredToken]) -> Self {
        let Prompt { tokens, healing_bytes: forced, .. } = prompt;
        Self { prompt: tokens.clone(), healing_bytes: forced.clone(), choices, pieces: pieces.to_vec() }
    }

    /// The first uncertain token's runner-up, then the most probable of all others.
    fn fork_points(&self, tokens: &Tokenizer, limits: &BranchLimits) -> Vec<ForkPoint> {
        let mut forks = Vec::new();
        // The generated text from each token on.
        let mut rest: Vec<u8> =
            self.choices.iter().flat_map(|choice| tokens.token_bytes(choice.token)).copied().collect();
        let mut before = 0;
        for (at, choice) in self.choices.iter().enumerate() {
            if before >= limits.within_bytes.max(1) {
                break;
            }
            for &(token, probability) in choice.runner_ups.iter().flatten() {
                let bytes = tokens.token_bytes(token);
                // The same text in other tokens, or a prefix of it, is not an alternative.
                if !tokens.is_stop_token(token) && !rest.starts_with(bytes) {
                    forks.push(ForkPoint { choice_index: at, token, probability });
                }
            }
            rest.drain(..tokens.token_bytes(choice.token).len());
            before = self.pieces.get(at).map_or(before, |piece| piece.end);
        }
        if let [_, others @ ..] = &mut forks[..] {
            others.sort_by(|a, b| b.probability.partial_cmp(&a.probability).unwrap_or(Ordering::Equal));
        }
        forks.truncate(limits.max_branches);
        forks
    }
}

impl Local {
    /// Decodes the branches of the last generation; see [`crate::Engine::branch`].
    pub(super) fn decode_branches(
        &mut self,
        limits: &BranchLimits,
        watch: &mut dyn FnMut(&BranchOutput<'_>) -> BranchControl,
    ) -> Result<(), EngineError> {
        let Some(last) = self.last_generation.take() else { return Ok(()) };
        let mut forks: VecDeque<(usize, ForkPoint)> =
            last.fork_points(&self.tokens, limits).into_iter().enumerate().collect();
        let together = if self.sequences.can_branch() {
            MAX_BRANCHES
        } else {
            // A later fork needs what an earlier one cuts off.
            forks.make_contiguous().sort_by_key(|(_, fork)| std::cmp::Reverse(fork.choice_index));
            1
        };
        let mut grown = Ok(ControlFlow::Continue(()));
        while !forks.is_empty() && matches!(grown, Ok(ControlFlow::Continue(()))) {
            let some = forks.drain(..forks.len().min(together)).collect();
            grown = self.decode_concurrently(&last, some, limits, watch);
        }
        self.last_generation = Some(last);
        grown.map(|_| ())
    }

    /// Grows as many branches as there are sequences for.
    fn decode_concurrently(
        &mut self,
        last: &LastGeneration,
        forks: Vec<(usize, ForkPoint)>,
        limits: &BranchLimits,
        watch: &mut dyn FnMut(&BranchOutput<'_>) -> BranchControl,
    ) -> Result<ControlFlow<()>, EngineError> {
        let mut growing = Vec::new();
        for (place, (number, fork)) in forks.into_iter().enumerate() {
            let Some(branch) = self.start_branch(last, place, number, fork) else { continue };
            match watch(&branch.as_branch(false)) {
                BranchControl::Continue => growing.push(branch),
                BranchControl::Finish => {}
                BranchControl::Abort => return Ok(ControlFlow::Break(())),
            }
        }
        loop {
            let (over, on): (Vec<_>, Vec<_>) =
                growing.into_iter().partition(|branch| self.is_finished(branch, limits));
            if over.iter().any(|branch| watch(&branch.as_branch(true)) == BranchControl::Abort) {
                return Ok(ControlFlow::Break(()));
            }
            if on.is_empty() {
                return Ok(ControlFlow::Continue(()));
            }
            let began = self.clock.now();
            let Some(chosen) = self.decode_step(&on, watch)? else { return Ok(ControlFlow::Break(())) };
            let time = self.clock.elapsed_since(began);
            growing = Vec::new();
            for (mut branch, next) in on.into_iter().zip(chosen) {
                branch.evaluated += 1;
                branch.generation.decode += time;
                let ended = match next {
                    NextToken::InvalidLogits => return Err(self.invalid_logits_error()),
                    NextToken::EndOfText => {
                        branch.generation.stop = StopReason::EndOfText;
                        true
                    }
                    NextToken::Token(choice) => {
                        branch.push_token(&self.tokens, choice.token, choice.probability);
                        false
                    }
                };
                match watch(&branch.as_branch(ended)) {
                    BranchControl::Continue if !ended => growing.push(branch),
                    BranchControl::Continue | BranchControl::Finish => {}
                    BranchControl::Abort => return Ok(ControlFlow::Break(())),
                }
            }
        }
    }

    /// Evaluates the last token of each branch, and chooses the next ones; `None` if `watch` broke it off.
    fn decode_step(
        &mut self,
        growing: &[ActiveBranch],
        watch: &mut dyn FnMut(&BranchOutput<'_>) -> BranchControl,
    ) -> Result<Option<Vec<NextToken>>, EngineError> {
        let request = |heal: &TokenHealing| {
            if heal.is_done() {
                LogitsRequest::Argmax
            } else {
                LogitsRequest::Subset(heal.allowed_tokens(&self.tokens).collect())
            }
        };
        let requests: Vec<LogitsRequest> = growing.iter().map(|branch| request(&branch.heal)).collect();
        let sequences: Vec<usize> = growing.iter().map(|branch| branch.sequence).collect();
        let tokens: Vec<TokenId> = growing.iter().map(|branch| branch.token).collect();
        let mut look = || match growing.first().map(|branch| watch(&branch.as_branch(false))) {
            Some(BranchControl::Abort) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        };
        let batch = SequencesBatch { sequences: &sequences, tokens: &tokens, logits: &requests };
        let ControlFlow::Continue(logits) = self.decoder.forward_sequences(&batch, &mut look)? else {
            return Ok(None);
        };
        let width = (logits.len() / tokens.len().max(1)).max(1);
        let chosen = logits
            .chunks_exact(width)
            .zip(&requests)
            .map(|(row, request)| pick_token(&self.tokens, row, request));
        Ok(Some(chosen.collect()))
    }

    /// Whether a branch has reached its limit.
    fn is_finished(&self, branch: &ActiveBranch, limits: &BranchLimits) -> bool {
        branch.generation.tokens.len() >= limits.max_tokens || branch.evaluated >= self.decoder.capacity()
    }

    /// The beginning of a branch, up to its own first token; `None` if the text before it is not in the cache.
    fn start_branch(
        &mut self,
        last: &LastGeneration,
        place: usize,
        number: usize,
        fork: ForkPoint,
    ) -> Option<ActiveBranch> {
        let ForkPoint { choice_index: at, token, probability } = fork;
        let chosen = last.choices.get(..at)?;
        let held = last.prompt.len() + at;
        let holds = {
            let cached = self.cached_tokens();
            let before = last.prompt.iter().copied().chain(chosen.iter().map(|choice| choice.token));
            cached.len() >= held && before.eq(cached[..held].iter().copied())
        };
        if !holds {
            return None;
        }
        let sequence = self.sequences.create_branch(self.decoder.as_mut(), place, held);
        let generation = Generation { reused: held, ..Generation::empty(StopReason::Limit) };
        let heal = TokenHealing::new(&last.healing_bytes);
        let stream = Utf8Stream::new();
        let mut branch = ActiveBranch { number, generation, sequence, heal, stream, token, evaluated: held };
        for choice in chosen {
            branch.push_token(&self.tokens, choice.token, choice.probability);
        }
        branch.push_token(&self.tokens, token, probability);
        Some(branch)
    }
}

impl ActiveBranch {
    fn as_branch(&self, ended: bool) -> BranchOutput<'_> {
        BranchOutput { number: self.number, generation: &self.generation, finished: ended }
    }

    fn push_token(&mut self, tokens: &Tokenizer, token: TokenId, probability: f32) {
        self.stream.push(self.heal.consume_token(tokens.token_bytes(token)), &mut self.generation.text);
        let end = self.generation.text.len();
        self.generation.tokens.push(ScoredToken { end, probability });
        self.token = token;
    }
}

#[cfg(test)]
mod tests;

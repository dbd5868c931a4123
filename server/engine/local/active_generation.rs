//! Generates: reads a prompt into the KV cache in chunks, then decodes what follows it.

use std::ops::ControlFlow;

use super::branches::LastGeneration;
use super::cached_sequences::PromptStart;
use super::next_token::{NextToken, logits_requests, pick_token};
use super::sampling::TokenChoice;
use super::token_healing::TokenHealing;
use super::{Batch, Local, Priority, ResumableWork, SuffixShift};
use crate::tokenizer::Utf8Stream;
use crate::{
    EngineError, Generation, GenerationLimits, PartialOutput, Prompt, ScoredToken, StopReason, TokenId,
};

/// A generation in progress.
struct ActiveGeneration<'a> {
    prompt: &'a Prompt,
    /// Maximum tokens to decode; 0 also if there is nothing to decode after.
    max_tokens: usize,
    priority: Priority,
    healing: TokenHealing,
    output: Generation,
    /// The decoded tokens.
    choices: Vec<TokenChoice>,
}

impl ActiveGeneration<'_> {
    /// Tokens that may still be decoded.
    fn remaining_tokens(&self) -> usize {
        self.max_tokens - self.choices.len()
    }
}

impl Local {
    /// See [`crate::Engine::generate`].
    pub(super) fn run_prompt(
        &mut self,
        prompt: &Prompt,
        limits: &GenerationLimits,
        watch: &mut dyn FnMut(PartialOutput<'_>) -> ControlFlow<()>,
    ) -> Result<Generation, EngineError> {
        let context = self.decoder.capacity();
        if prompt.tokens.len() > context {
            return Err(EngineError::PromptTooLong { tokens: prompt.tokens.len(), context });
        }
        let decodes = limits.max_tokens > 0 && !prompt.tokens.is_empty();
        let start = self.sequences.acquire(self.decoder.as_mut(), prompt, limits, decodes);
        if let Some(lookup) = self.prompt_lookup.as_mut().filter(|_| decodes) {
            lookup.begin_generation(&self.tokens, &prompt.tokens, &prompt.healing_bytes);
        }
        let mut active = ActiveGeneration {
            prompt,
            max_tokens: if decodes { limits.max_tokens } else { 0 },
            priority: Priority::from_background(limits.background),
            healing: TokenHealing::new(&prompt.healing_bytes),
            output: Generation::empty(StopReason::Limit),
            choices: Vec::new(),
        };
        if self.prefill_prompt(&mut active, &start, watch)?.is_break() {
            active.output.stop = StopReason::Interrupted;
        } else if decodes {
            self.decode_tokens(&mut active, watch)?;
            let ActiveGeneration { choices, output, .. } = &mut active;
            let choices = std::mem::take(choices);
            self.last_generation = Some(LastGeneration::new(prompt, choices, &output.tokens));
        }
        Ok(active.output)
    }

    /// Evaluates what is not cached of the prompt, in chunks. Together with the last chunk it chooses the first tokens
    /// after the prompt, if any are to be decoded. Breaks if `watch` does.
    fn prefill_prompt(
        &mut self,
        active: &mut ActiveGeneration<'_>,
        start: &PromptStart,
        watch: &mut dyn FnMut(PartialOutput<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, EngineError> {
        let prompt = active.prompt;
        let unread = start.unread_tokens(&prompt.tokens);
        active.output.reused = prompt.tokens.len() - unread.len();
        // The number of unread tokens before the shifted suffix.
        let gap = start.shift.as_ref().map_or(usize::MAX, |shift| shift.prompt_range.start - start.keep);
        let started = self.clock.now();
        while active.output.evaluated < unread.len() {
            let done = active.output.evaluated;
            let rest = &unread[done..];
            // Resumable work ends before the shifted suffix.
            let begun = self.resumable_work(&rest[..rest.len().min(gap - done.min(gap))]);
            let (chunk, remaining) = rest.split_at(self.throughput.chunk_tokens(begun.tokens, rest.len()));
            let shift = start.shift.as_ref().filter(|_| (done..done + chunk.len()).contains(&gap));
            let shift = shift.map(|shift| self.sequences.suffix_shift(shift, gap - done));
            let began = self.clock.now();
            let look = &mut || watch(PartialOutput::default());
            let flow = if active.max_tokens > 0 && remaining.is_empty() {
                self.evaluate_and_choose(chunk, shift, active, look)?
            } else {
                self.evaluate_tokens(chunk, shift, active.priority, look)?.map_continue(|()| 0)
            };
            let ControlFlow::Continue(drafted) = flow else {
                let work = self.resumable_work(chunk).work - begun.work;
                self.throughput.record_prefill(chunk.len(), work, self.clock.elapsed_since(began));
                active.output.prefill = self.clock.elapsed_since(started);
                return Ok(ControlFlow::Break(()));
            };
            if drafted == 0 {
                let work = chunk.len() as f32 - begun.work;
                self.throughput.record_prefill(chunk.len(), work, self.clock.elapsed_since(began));
            } else if let Some(lookup) = self.prompt_lookup.as_mut().filter(|_| begun.tokens == 0) {
                lookup.record_batch(chunk.len() + drafted, self.clock.elapsed_since(began));
            }
            active.output.evaluated += chunk.len();
            active.output.prefill = self.clock.elapsed_since(started);
            self.sequences.retain_suffix(self.decoder.as_mut(), prompt);
            if watch(PartialOutput::default()).is_break() {
                // Chosen tokens count as not generated, as if they came one by one.
                self.truncate_sequence(prompt.tokens.len());
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Decodes after the evaluated prompt, starting with the tokens chosen there.
    fn decode_tokens(
        &mut self,
        active: &mut ActiveGeneration<'_>,
        watch: &mut dyn FnMut(PartialOutput<'_>) -> ControlFlow<()>,
    ) -> Result<(), EngineError> {
        let started = self.clock.now();
        let mut stream = Utf8Stream::new();
        active.output.stop = loop {
            let choice = match self.pending_tokens.pop_front() {
                Some(NextToken::Token(choice)) => choice,
                Some(NextToken::InvalidLogits) => return Err(self.invalid_logits_error()),
                Some(NextToken::EndOfText) | None => break StopReason::EndOfText,
            };
            let bytes = self.tokens.token_bytes(choice.token);
            if let Some(lookup) = &mut self.prompt_lookup {
                lookup.push_token(choice.token, bytes);
            }
            stream.push(active.healing.consume_token(bytes), &mut active.output.text);
            let end = active.output.text.len();
            active.output.tokens.push(ScoredToken { end, probability: choice.probability });
            active.choices.push(choice);
            active.output.decode = self.clock.elapsed_since(started);
            // The last token is chosen but not evaluated.
            let held = active.prompt.tokens.len() + active.choices.len() - 1;
            if watch(active.output.partial_output()).is_break() {
                self.truncate_sequence(held);
                break StopReason::Interrupted;
            }
            if active.remaining_tokens() == 0 || held == self.decoder.capacity() {
                break StopReason::Limit;
            }
            if self.pending_tokens.is_empty() {
                let began = self.clock.now();
                let look = &mut || watch(active.output.partial_output());
                let flow = self.evaluate_and_choose(&[choice.token], None, active, look)?;
                let ControlFlow::Continue(drafted) = flow else { break StopReason::Interrupted };
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
        active.output.decode = self.clock.elapsed_since(started);
        Ok(())
    }

    /// Evaluates `tokens` after the current sequence, with `shift` inserted. If `look` breaks, the cache is as before.
    fn evaluate_tokens(
        &mut self,
        tokens: &[TokenId],
        shift: Option<SuffixShift>,
        priority: Priority,
        look: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, EngineError> {
        let sequence = self.sequences.current_index();
        let batch = Batch { sequence, tokens, suffix_shift: shift, priority, ..Batch::default() };
        Ok(self.decoder.forward_batch(&batch, look)?.map_continue(|_| ()))
    }

    /// The same, and chooses tokens that follow: one, and in the same batch as many draft tokens as agree with what
    /// decoding would have chosen. Afterwards the cache holds all chosen tokens except the last.
    ///
    /// Returns the number of draft tokens in the batch.
    fn evaluate_and_choose(
        &mut self,
        tokens: &[TokenId],
        shift: Option<SuffixShift>,
        active: &ActiveGeneration<'_>,
        look: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<ControlFlow<(), usize>, EngineError> {
        self.pending_tokens.clear();
        let (sequence, healing) = (self.sequences.current_index(), &active.healing);
        let base = self.decoder.sequence_len(sequence);
        let new = tokens.len() + shift.as_ref().map_or(0, |shift| shift.rows.len());
        let room = self.decoder.capacity().saturating_sub(base + new);
        let draft = self.prompt_lookup.as_mut().map_or(&[][..], |lookup| {
            lookup.build_draft(&self.tokens, healing.remaining_bytes());
            lookup.draft_worth_verifying(tokens.len(), room.min(active.remaining_tokens().saturating_sub(1)))
        });
        let given = tokens.len();
        let tokens: Vec<TokenId> = tokens.iter().chain(draft).copied().collect();
        let draft = &tokens[given..];
        let logits = &logits_requests(&self.tokens, healing, draft)[..];
        let batch = Batch {
            sequence,
            tokens: &tokens,
            logits,
            suffix_shift: shift,
            // Drafts are verified with the results of decoding one token at a time.
            exact: !draft.is_empty(),
            priority: active.priority,
        };
        let ControlFlow::Continue(rows) = self.decoder.forward_batch(&batch, look)? else {
            return Ok(ControlFlow::Break(()));
        };
        let width = (rows.len() / logits.len()).max(1);
        for (i, (row, request)) in rows.chunks_exact(width).zip(logits).enumerate() {
            let next = pick_token(&self.tokens, row, request);
            self.pending_tokens.push_back(next);
            match next {
                NextToken::Token(choice) if draft.get(i) == Some(&choice.token) => {}
                _ => break,
            }
        }
        let right = self.pending_tokens.len() - 1;
        if right < draft.len() {
            self.decoder.truncate_sequence(sequence, base + new + right);
        }
        if let Some(lookup) = &mut self.prompt_lookup {
            let chosen: Vec<TokenId> = self.pending_tokens.iter().filter_map(NextToken::token_id).collect();
            let ended = self.pending_tokens.back() == Some(&NextToken::EndOfText);
            lookup.record_outcome(draft.len(), chosen.iter().copied(), ended);
        }
        Ok(ControlFlow::Continue(draft.len()))
    }

    /// The work on `tokens` that an interrupted call left after the current sequence.
    fn resumable_work(&self, tokens: &[TokenId]) -> ResumableWork {
        self.decoder.resumable_work(self.sequences.current_index(), tokens)
    }

    /// The tokens of the current sequence.
    pub(super) fn cached_tokens(&self) -> &[TokenId] {
        self.decoder.sequence_tokens(self.sequences.current_index()).as_slice()
    }

    /// Keeps the first `len` tokens of the current sequence.
    pub(super) fn truncate_sequence(&mut self, len: usize) {
        self.decoder.truncate_sequence(self.sequences.current_index(), len);
    }
}

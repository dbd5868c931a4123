//! The steps of an answer: tokens, and the gate at which a test can hold the engine.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use super::{POLL_INTERVAL, ScriptedEngine};
use crate::PartialOutput;
use crate::tokenizer::TokenId;

/// In an answer: decoding waits here until the gate is open.
const GATE_MARK: char = '⏸';

/// One step of decoding an answer.
#[derive(Debug, Clone, Copy)]
pub(super) enum AnswerStep {
    Token(TokenId),
    /// Wait until the gate is open.
    Gate,
}

impl ScriptedEngine {
    /// The steps of an answer that begins with `forced`; these bytes may end inside a character.
    pub(super) fn spell_answer(&self, forced: &[u8], answer: &str) -> Vec<AnswerStep> {
        let mut bytes = answer.as_bytes().to_vec();
        if !bytes.starts_with(forced) {
            bytes = [forced, answer.as_bytes()].concat();
        }
        let mut steps = Vec::new();
        for chunk in bytes.utf8_chunks() {
            for (at, part) in chunk.valid().split(|c| self.gate.is_some() && c == GATE_MARK).enumerate() {
                steps.extend((at > 0).then_some(AnswerStep::Gate));
                steps.extend(self.tokenizer.encode(part).into_iter().map(AnswerStep::Token));
            }
            let invalid = chunk.invalid().iter().filter_map(|&byte| self.tokenizer.spelling(&[byte]));
            steps.extend(invalid.map(AnswerStep::Token));
        }
        steps
    }

    pub(super) fn is_gate_open(&self) -> bool {
        self.gate.as_ref().is_none_or(|path| path.exists())
    }

    /// Waits until the gate is open, polling `watch`.
    pub(super) fn wait_at_gate(
        &self,
        output: PartialOutput<'_>,
        watch: &mut dyn FnMut(PartialOutput<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        while !self.is_gate_open() {
            wait_polling(POLL_INTERVAL, output, watch)?;
        }
        ControlFlow::Continue(())
    }
}

/// Waits for `delay`, polling `watch`.
pub(super) fn wait_polling(
    delay: Duration,
    output: PartialOutput<'_>,
    watch: &mut dyn FnMut(PartialOutput<'_>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let start = Instant::now();
    loop {
        let left = delay.saturating_sub(start.elapsed());
        if left.is_zero() {
            return ControlFlow::Continue(());
        }
        std::thread::sleep(left.min(POLL_INTERVAL));
        watch(output)?;
    }
}

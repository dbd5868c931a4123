//! The suggestion so far, while the model's output grows.

use std::ops::ControlFlow;

use taper_engine::PartialOutput;

use super::Suggestion;
use super::pipeline::PostProcessor;
use super::stop::StopPoint;

/// What is known of the suggestion before the output is complete.
pub(super) struct Draft<'a> {
    rules: &'a PostProcessor<'a>,
    /// Bytes of the output at the last call.
    seen_len: Option<usize>,
    /// The complete part that `suggestion` was made of, and the output's line count, which distinguishes a complete
    /// line from an incomplete one with the same text.
    drafted: (String, usize),
    /// The end of the output, once a rule has found it.
    pub(super) end: Option<StopPoint>,
    /// What would be shown if time were up now.
    pub(super) suggestion: Option<Suggestion>,
    /// The output as it would be typed.
    pub(super) typed: String,
}

impl<'a> Draft<'a> {
    pub(super) fn new(rules: &'a PostProcessor<'a>) -> Self {
        Self {
            rules,
            seen_len: None,
            drafted: (String::new(), 0),
            end: None,
            suggestion: None,
            typed: String::new(),
        }
    }

    /// Reads the output so far; `Break` if a rule ended it.
    pub(super) fn read_output(&mut self, output: PartialOutput<'_>) -> ControlFlow<()> {
        // The text only grows. An unchanged length means that the engine polls in the middle of a token.
        if self.seen_len.replace(output.text.len()) == Some(output.text.len()) {
            return ControlFlow::Continue(());
        }
        self.end = self.rules.find_end(output, false);
        if self.end.is_some() {
            return ControlFlow::Break(());
        }
        if let Some(part) = self.rules.complete_part(output.text) {
            let drafted = (part, output.text.matches('\n').count());
            if drafted != self.drafted {
                self.suggestion = self.rules.draft_suggestion(output, &drafted.0);
                self.drafted = drafted;
            }
        }
        self.typed = self.rules.typed_text(output.text);
        ControlFlow::Continue(())
    }
}

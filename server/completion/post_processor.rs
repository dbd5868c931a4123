//! Applies the rules to a model's output in order: where it ends, and the part that is shown.

use taper_engine::{Generation, PartialOutput, ScoredToken};

use super::confidence_filter::{self, ConfidenceFilter};
use super::cursor::CursorContext;
use super::stop::{self, StopPoint};
use super::trigger::Extent;
use super::{Snapshot, Suggestion, TrimStep, chatter, trim, validate};

/// The rules for one request.
pub(super) struct PostProcessor<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) place: &'a CursorContext<'a>,
    pub(super) extent: Extent,
    /// The required confidence; `None`: no requirement.
    pub(super) confidence_filter: Option<ConfidenceFilter>,
}

/// A model's output and its end.
#[derive(Debug, Clone)]
pub(super) struct FinishedOutput {
    pub(super) generation: Generation,
    /// The rule that ended it.
    pub(super) end: Option<StopPoint>,
    /// Whether the output is complete: a rule or the model ended it.
    pub(super) whole: bool,
}

impl FinishedOutput {
    /// The part that the rule which ended it kept.
    fn kept_text(&self) -> &str {
        &self.generation.text[..self.end.map_or(self.generation.text.len(), |end| end.keep)]
    }
}

impl PostProcessor<'_> {
    /// The output without a lead that is not meant to be inserted.
    pub(super) fn without_lead<'t>(&self, text: &'t str) -> &'t str {
        &text[chatter::lead_len(self.place, text)..]
    }

    /// The end of the output so far. `whole`: the output is complete.
    pub(super) fn find_end(&self, output: PartialOutput<'_>, whole: bool) -> Option<StopPoint> {
        let max_lines = self.snapshot.options.line_limit();
        with_lead_removed(output, output.text.len() - self.without_lead(output.text).len(), |output, lead| {
            let end = stop::find_stop(self.place, self.extent, max_lines, output.text, whole);
            let end = end.or_else(|| {
                Some(StopPoint {
                    keep: self.confidence_filter?.doubtful_line_end(output)?,
                    rule: confidence_filter::UNSURE_RULE,
                })
            })?;
            Some(StopPoint { keep: lead + end.keep, ..end })
        })
    }

    /// The suggestion for incomplete output; `trimmed` is its part up to a complete word.
    pub(super) fn draft_suggestion(&self, output: PartialOutput<'_>, trimmed: &str) -> Option<Suggestion> {
        self.fit_suggestion(output, trimmed, false, &mut |_, _| {})
    }

    /// The suggestion for finished output, and the steps that trimmed it.
    pub(super) fn finish_suggestion(&self, ended: &FinishedOutput) -> (Option<Suggestion>, Vec<TrimStep>) {
        let mut cuts = Vec::new();
        let note =
            &mut |rule: &'static str, left: &str| cuts.push(TrimStep { rule, remaining: left.to_owned() });
        let lead = ended.generation.text.len() - self.without_lead(&ended.generation.text).len();
        let kept = ended.kept_text().get(lead..).unwrap_or("");
        if lead > 0 {
            note("what is not meant to be typed", kept);
        }
        if let Some(end) = ended.end {
            note(end.rule, kept);
        }
        let text = trim::trim_noting_steps(self.place, kept, ended.whole, note);
        let shown = text.and_then(|text| {
            self.fit_suggestion(ended.generation.partial_output(), &text, ended.whole, note)
        });
        (shown, cuts)
    }

    fn fit_suggestion(
        &self,
        output: PartialOutput<'_>,
        text: &str,
        whole: bool,
        note: &mut dyn FnMut(&'static str, &str),
    ) -> Option<Suggestion> {
        let Some(bar) = self.confidence_filter else {
            return validate::fit_to_document(self.snapshot, self.place, text, note);
        };
        with_lead_removed(output, output.text.len() - self.without_lead(output.text).len(), |output, _| {
            bar.fit_confident_part(self.snapshot, self.place, output, (text, whole), note)
        })
    }
}

/// Calls `with` on the output after its first `lead` bytes and on its tokens.
fn with_lead_removed<T>(
    output: PartialOutput<'_>,
    lead: usize,
    with: impl FnOnce(PartialOutput<'_>, usize) -> T,
) -> T {
    if lead == 0 {
        return with(output, 0);
    }
    let pieces = output.tokens.iter().filter(|piece| piece.end > lead);
    let pieces: Vec<ScoredToken> =
        pieces.map(|piece| ScoredToken { end: piece.end - lead, ..*piece }).collect();
    with(PartialOutput { text: &output.text[lead..], tokens: &pieces }, lead)
}

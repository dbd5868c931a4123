//! What ends an answer at a place, and what is shown of it.
//! It knows nothing of the model: each rule is elsewhere, this is their order.

use taper_engine::{Generation, PartialOutput, ScoredToken};

use super::confidence_filter::{self, ConfidenceFilter};
use super::cursor::CursorContext;
use super::stop::{self, StopPoint};
use super::trigger::Extent;
use super::{Snapshot, Suggestion, TrimStep, chatter, trim, validate};

/// The rules for one question.
pub(super) struct PostProcessor<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) place: &'a CursorContext<'a>,
    pub(super) extent: Extent,
    /// How sure the model must be; `None`: it need not.
    pub(super) confidence_filter: Option<ConfidenceFilter>,
}

/// A text of the model, and where it ends.
#[derive(Debug, Clone)]
pub(super) struct FinishedOutput {
    pub(super) generation: Generation,
    /// The rule that ended it.
    pub(super) end: Option<StopPoint>,
    /// Whether nothing more would have come: a rule or the model ended it.
    pub(super) whole: bool,
}

impl FinishedOutput {
    /// What the rule that ended it has left.
    fn kept_text(&self) -> &str {
        &self.generation.text[..self.end.map_or(self.generation.text.len(), |end| end.keep)]
    }
}

impl PostProcessor<'_> {
    /// A text of the model without what stands before all that is meant to be typed.
    pub(super) fn without_lead<'t>(&self, text: &'t str) -> &'t str {
        &text[chatter::lead_len(self.place, text)..]
    }

    /// Where a text ends that is there so far; `whole`: no more of it will come.
    pub(super) fn find_end(&self, said: PartialOutput<'_>, whole: bool) -> Option<StopPoint> {
        let max_lines = self.snapshot.options.line_limit();
        with_lead_removed(said, said.text.len() - self.without_lead(said.text).len(), |said, lead| {
            let end = stop::find_stop(self.place, self.extent, max_lines, said.text, whole);
            let end = end.or_else(|| {
                Some(StopPoint {
                    keep: self.confidence_filter?.doubtful_line_end(said)?,
                    rule: confidence_filter::UNSURE_RULE,
                })
            })?;
            Some(StopPoint { keep: lead + end.keep, ..end })
        })
    }

    /// What could be shown of a text that is not whole yet; `trimmed` is left of it at complete words.
    pub(super) fn draft_suggestion(&self, said: PartialOutput<'_>, trimmed: &str) -> Option<Suggestion> {
        self.fit_suggestion(said, trimmed, false, &mut |_, _| {})
    }

    /// What is shown of a text, and what was taken away from it.
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
        said: PartialOutput<'_>,
        text: &str,
        whole: bool,
        note: &mut dyn FnMut(&'static str, &str),
    ) -> Option<Suggestion> {
        let Some(bar) = self.confidence_filter else {
            return validate::fit_to_document(self.snapshot, self.place, text, note);
        };
        with_lead_removed(said, said.text.len() - self.without_lead(said.text).len(), |said, _| {
            bar.fit_confident_part(self.snapshot, self.place, said, (text, whole), note)
        })
    }
}

/// Does `with` what is left of a text behind its first `lead` bytes, with the tokens that it was made of.
fn with_lead_removed<T>(
    said: PartialOutput<'_>,
    lead: usize,
    with: impl FnOnce(PartialOutput<'_>, usize) -> T,
) -> T {
    if lead == 0 {
        return with(said, 0);
    }
    let pieces = said.tokens.iter().filter(|piece| piece.end > lead);
    let pieces: Vec<ScoredToken> =
        pieces.map(|piece| ScoredToken { end: piece.end - lead, ..*piece }).collect();
    with(PartialOutput { text: &said.text[lead..], tokens: &pieces }, lead)
}

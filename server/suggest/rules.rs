//! What ends an answer at a place, and what is shown of it.
//! It knows nothing of the model: each rule is elsewhere, this is their order.

use taper_engine::{Generation, Piece, Said};

use super::eagerness::{self, Bar};
use super::place::Place;
use super::stop::{self, End};
use super::trigger::Plan;
use super::{Cut, Snapshot, Suggestion, chatter, check, trim};

/// The rules for one question.
pub(super) struct Rules<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) place: &'a Place<'a>,
    pub(super) extent: Plan,
    /// How sure the model must be; `None`: it need not.
    pub(super) bar: Option<Bar>,
}

/// A text of the model, and where it ends.
#[derive(Debug, Clone)]
pub(super) struct Ended {
    pub(super) generation: Generation,
    /// The rule that ended it.
    pub(super) end: Option<End>,
    /// Whether nothing more would have come: a rule or the model ended it.
    pub(super) whole: bool,
}

impl Ended {
    /// What the rule that ended it has left.
    fn kept(&self) -> &str {
        &self.generation.text[..self.end.map_or(self.generation.text.len(), |end| end.keep)]
    }
}

impl Rules<'_> {
    /// A text of the model without what stands before all that is meant to be typed.
    pub(super) fn without_lead<'t>(&self, text: &'t str) -> &'t str {
        &text[chatter::lead(self.place, text)..]
    }

    /// Where a text ends that is there so far; `whole`: no more of it will come.
    pub(super) fn end(&self, said: Said<'_>, whole: bool) -> Option<End> {
        let max_lines = self.snapshot.options.most_lines();
        behind_lead(said, said.text.len() - self.without_lead(said.text).len(), |said, lead| {
            let end = stop::check(self.place, self.extent, max_lines, said.text, whole);
            let end = end.or_else(|| Some(End { keep: self.bar?.ends(said)?, rule: eagerness::UNSURE }))?;
            Some(End { keep: lead + end.keep, ..end })
        })
    }

    /// What could be shown of a text that is not whole yet; `trimmed` is left of it at complete words.
    pub(super) fn draft(&self, said: Said<'_>, trimmed: &str) -> Option<Suggestion> {
        self.fitting(said, trimmed, false, &mut |_, _| {})
    }

    /// What is shown of a text, and what was taken away from it.
    pub(super) fn finish(&self, ended: &Ended) -> (Option<Suggestion>, Vec<Cut>) {
        let mut cuts = Vec::new();
        let note = &mut |rule: &'static str, left: &str| cuts.push(Cut { rule, left: left.to_owned() });
        let lead = ended.generation.text.len() - self.without_lead(&ended.generation.text).len();
        let kept = ended.kept().get(lead..).unwrap_or("");
        if lead > 0 {
            note("what is not meant to be typed", kept);
        }
        if let Some(end) = ended.end {
            note(end.rule, kept);
        }
        let text = trim::noted(self.place, kept, ended.whole, note);
        let shown = text.and_then(|text| self.fitting(ended.generation.said(), &text, ended.whole, note));
        (shown, cuts)
    }

    fn fitting(
        &self,
        said: Said<'_>,
        text: &str,
        whole: bool,
        note: &mut dyn FnMut(&'static str, &str),
    ) -> Option<Suggestion> {
        let Some(bar) = self.bar else { return check::fitting(self.snapshot, self.place, text, note) };
        behind_lead(said, said.text.len() - self.without_lead(said.text).len(), |said, _| {
            bar.fitting(self.snapshot, self.place, said, (text, whole), note)
        })
    }
}

/// Does `with` what is left of a text behind its first `lead` bytes, with the tokens that it was made of.
fn behind_lead<T>(said: Said<'_>, lead: usize, with: impl FnOnce(Said<'_>, usize) -> T) -> T {
    if lead == 0 {
        return with(said, 0);
    }
    let pieces = said.pieces.iter().filter(|piece| piece.end > lead);
    let pieces: Vec<Piece> = pieces.map(|piece| Piece { end: piece.end - lead, ..*piece }).collect();
    with(Said { text: &said.text[lead..], pieces: &pieces }, lead)
}

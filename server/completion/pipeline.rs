//! From a model's output to a suggestion: all rules, in the order in which they are applied.
//!
//! 1. The lead, which is not meant to be inserted, is removed.
//! 2. [`STOP_RULES`] end the output while it is decoded.
//! 3. [`TRIM_RULES`] remove what cannot be shown or already exists.
//! 4. The [`ConfidenceFilter`] keeps the confident part.
//! 5. [`VALIDATION_RULES`] check that part in the document.
//!
//! Each rule's name is shown by `--explain` if the rule removed something.

use std::borrow::Cow;

use taper_engine::{Generation, PartialOutput, ScoredToken, StopReason};

use super::confidence_filter::{ConfidenceFilter, TrimmedOutput, UNSURE_RULE};
use super::cursor::CursorContext;
use super::stop::{self, StopInput, StopPoint, repetition};
use super::trigger::Extent;
use super::trim::{self, TrimInput, incomplete, whitespace};
use super::{Snapshot, Suggestion, TrimStep, block_depth, chatter, suffix_overlap, validate};

/// A rule that may end the output.
enum StopRule {
    /// Returns the bytes to keep.
    Single { name: &'static str, find: fn(&StopInput<'_>) -> Option<usize> },
    /// Several rules that share one pass over the text. The stop point names the one that applied.
    Group(fn(&StopInput<'_>) -> Option<StopPoint>),
}

/// A rule that removes or changes a part of the finished output. It removes everything if none can be shown.
struct TrimRule {
    name: &'static str,
    apply: for<'t> fn(&TrimInput<'_>, &'t str) -> Cow<'t, str>,
}

/// A rule that a suggestion must not violate at its place in the document.
struct ValidationRule {
    name: &'static str,
    is_violated: fn(&Snapshot, &CursorContext<'_>, &str) -> bool,
    /// Whether fewer lines may comply even if all of them do not.
    fewer_lines_may_comply: bool,
}

const LEAD_RULE: &str = "a code fence or a copy of the line's start, before the code";
const CLOSED_LITERAL_RULE: &str = "the end of the string or comment is already after the cursor";
const CLOSED_PAIR_RULE: &str = "the other half of the pair is already after the cursor";

/// The first rule that finds an end decides.
const STOP_RULES: &[StopRule] = &[
    StopRule::Single {
        name: CLOSED_LITERAL_RULE,
        find: |input| input.place.literal.len_before_closer(input.output.text, input.finished),
    },
    StopRule::Single {
        name: CLOSED_PAIR_RULE,
        find: |input| suffix_overlap::len_before_closing_half(input.place, input.output.text, input.finished),
    },
    StopRule::Single {
        name: "the closing bracket is already after the cursor",
        find: |input| stop::len_before_suffix_closer(input.place, input.output.text),
    },
    StopRule::Single {
        name: "a control token of the model",
        find: |input| chatter::find_control_token(input.place, input.output.text),
    },
    StopRule::Group(|input| chatter::find_chatter(input.place, input.output.text)),
    StopRule::Group(|input| repetition::find_run_in_line(input.place, input.output.text)),
    StopRule::Group(stop::find_extent_end),
    StopRule::Single {
        name: UNSURE_RULE,
        find: |input| input.confidence_filter?.doubtful_line_end(input.output),
    },
];

/// All are applied, until nothing is left.
const TRIM_RULES: &[TrimRule] = &[
    TrimRule {
        name: "a character that cannot be displayed",
        apply: |_, text| trim::before_unprintable(text).into(),
    },
    TrimRule {
        name: "the last word or line may be incomplete",
        apply: |input, text| trim::without_partial_word(input, text).into(),
    },
    TrimRule {
        name: "blanks that are already before the cursor",
        apply: |input, text| trim::without_doubled_blanks(input.place, text).into(),
    },
    TrimRule {
        name: CLOSED_LITERAL_RULE,
        apply: |input, text| trim::without_literal_closer(input.place, text).into(),
    },
    TrimRule {
        name: CLOSED_PAIR_RULE,
        apply: |input, text| trim::without_closing_half(input.place, text).into(),
    },
    TrimRule {
        name: "the end repeats the text after the cursor",
        apply: |input, text| trim::without_suffix_overlap(input.place, text).into(),
    },
    TrimRule {
        name: "an incomplete escape, entity or contraction",
        apply: |input, text| incomplete::without_incomplete_end(input.place, text, input.whole).into(),
    },
    TrimRule {
        name: "a comma before the end of a list",
        apply: |input, text| trim::without_trailing_comma(input.place, text).into(),
    },
    TrimRule {
        name: "blanks at the ends of lines",
        apply: |input, text| whitespace::without_trailing_blanks(input.place, text).into(),
    },
    TrimRule {
        name: "the file's indentation style",
        apply: |input, text| whitespace::in_indent_style(input.place, text).into(),
    },
    TrimRule {
        name: "blanks and line breaks at the end",
        apply: |input, text| trim::without_trailing_space(input.place, text),
    },
    TrimRule {
        name: "it would join the word after the cursor",
        apply: |input, text| unless(trim::joins_next_word(input.place, text), text),
    },
    TrimRule {
        name: "it repeats the line above or below",
        apply: |input, text| unless(trim::repeats_neighbour(input.place, text), text),
    },
];

fn unless(rejected: bool, text: &str) -> Cow<'_, str> {
    if rejected { Cow::default() } else { text.into() }
}

/// The first rule that is violated removes the last line, or everything; then the rest is checked again.
const VALIDATION_RULES: &[ValidationRule] = &[
    ValidationRule {
        name: "it belongs to an outer block",
        is_violated: |_, place, text| block_depth::is_too_deep(place, text),
        fewer_lines_may_comply: false,
    },
    ValidationRule {
        name: "the last line opens a bracket that nothing closes",
        is_violated: |_, place, text| validate::ends_with_open_bracket(place, text),
        fewer_lines_may_comply: true,
    },
    ValidationRule {
        name: "the file would have more syntax errors",
        is_violated: |snapshot, place, text| !validate::parses_no_worse(snapshot, place, text),
        fewer_lines_may_comply: true,
    },
];

/// The end of the output so far; `None` if it continues.
pub(super) fn find_stop(input: &StopInput<'_>) -> Option<StopPoint> {
    STOP_RULES.iter().find_map(|rule| match *rule {
        StopRule::Single { name, find } => find(input).map(|keep| StopPoint { keep, rule: name }),
        StopRule::Group(find) => find(input),
    })
}

/// The part of `text` that can be shown; `None` if there is none. `note` receives the name of each rule that changed
/// it, and the text that remains.
///
/// `whole`: the output ended by itself. Otherwise its last word may be incomplete and is removed.
pub(super) fn trim_output(
    place: &CursorContext<'_>,
    text: &str,
    whole: bool,
    note: &mut dyn FnMut(&'static str, &str),
) -> Option<String> {
    let mut text = trim::with_unix_line_breaks(text);
    // Output that breaks off at a broken character has not ended by itself.
    let whole = whole && trim::before_unprintable(&text).len() == text.len();
    let input = TrimInput { place, whole };
    for rule in TRIM_RULES {
        let trimmed = (rule.apply)(&input, &text);
        if trimmed != text {
            note(rule.name, &trimmed);
            text = trimmed.into_owned();
        }
        if text.trim().is_empty() {
            return None;
        }
    }
    Some(text)
}

/// The suggestion that inserts `text` at the cursor, or its first lines if only they pass [`VALIDATION_RULES`]; `None`
/// if no part does. `note` receives the name of each violated rule, and the text that remains.
pub(super) fn fit_to_document(
    snapshot: &Snapshot,
    place: &CursorContext<'_>,
    mut text: &str,
    note: &mut dyn FnMut(&'static str, &str),
) -> Option<Suggestion> {
    while !text.trim().is_empty() {
        let violated = VALIDATION_RULES.iter().find(|rule| (rule.is_violated)(snapshot, place, text));
        let Some(rule) = violated else {
            let text = validate::with_file_line_breaks(snapshot, text);
            return Some(Suggestion { range: snapshot.cursor..snapshot.cursor, text });
        };
        let lines = text.trim_end().rsplit_once('\n').filter(|_| rule.fewer_lines_may_comply);
        text = lines.map_or("", |(lines, _)| lines.trim_end());
        note(rule.name, text);
    }
    None
}

/// Applies the rules for one request.
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

/// Output after its lead.
struct OutputBody<'a> {
    lead_len: usize,
    text: &'a str,
    tokens: Cow<'a, [ScoredToken]>,
}

impl<'a> OutputBody<'a> {
    fn new(place: &CursorContext<'_>, output: PartialOutput<'a>) -> Self {
        let lead_len = chatter::lead_len(place, output.text);
        let tokens = if lead_len == 0 {
            output.tokens.into()
        } else {
            let tokens = output.tokens.iter().filter(|token| token.end > lead_len);
            tokens.map(|token| ScoredToken { end: token.end - lead_len, ..*token }).collect()
        };
        Self { lead_len, text: &output.text[lead_len..], tokens }
    }

    fn as_output(&self) -> PartialOutput<'_> {
        PartialOutput { text: self.text, tokens: &self.tokens }
    }
}

impl PostProcessor<'_> {
    /// The output so far without its lead, as it would be typed: see [`trim::as_typed`].
    pub(super) fn typed_text(&self, text: &str) -> String {
        trim::as_typed(self.place, self.without_lead(text))
    }

    /// The end of the output so far. `finished`: no more will come.
    pub(super) fn find_end(&self, output: PartialOutput<'_>, finished: bool) -> Option<StopPoint> {
        let body = OutputBody::new(self.place, output);
        let end = find_stop(&StopInput {
            place: self.place,
            extent: self.extent,
            max_lines: self.snapshot.options.line_limit(),
            confidence_filter: self.confidence_filter,
            output: body.as_output(),
            finished,
        })?;
        Some(StopPoint { keep: body.lead_len + end.keep, ..end })
    }

    /// A generation that is over. `end`: where a rule ended it, if one did so while it was decoded.
    pub(super) fn finish_output(&self, generation: Generation, end: Option<StopPoint>) -> FinishedOutput {
        let whole = end.is_some() || generation.stop == StopReason::EndOfText;
        let end = end.or_else(|| whole.then(|| self.find_end(generation.partial_output(), true))?);
        FinishedOutput { generation, end, whole }
    }

    /// The suggestion for incomplete output; `trimmed` is its part up to a complete word.
    pub(super) fn draft_suggestion(&self, output: PartialOutput<'_>, trimmed: &str) -> Option<Suggestion> {
        let body = OutputBody::new(self.place, output);
        self.fit_suggestion(&body, trimmed, false, &mut |_, _| {})
    }

    /// The part of incomplete output up to a complete word.
    pub(super) fn complete_part(&self, text: &str) -> Option<String> {
        trim_output(self.place, self.without_lead(text), false, &mut |_, _| {})
    }

    fn without_lead<'t>(&self, text: &'t str) -> &'t str {
        &text[chatter::lead_len(self.place, text)..]
    }

    /// The suggestion for finished output, and the steps that trimmed it.
    pub(super) fn finish_suggestion(&self, finished: &FinishedOutput) -> (Option<Suggestion>, Vec<TrimStep>) {
        let mut steps = Vec::new();
        let note = &mut |rule: &'static str, remaining: &str| {
            steps.push(TrimStep { rule, remaining: remaining.to_owned() });
        };
        let FinishedOutput { generation, end, whole } = finished;
        let body = OutputBody::new(self.place, generation.partial_output());
        let kept = end.map_or(generation.text.len(), |end| end.keep);
        let kept = generation.text.get(body.lead_len..kept).unwrap_or("");
        if body.lead_len > 0 {
            note(LEAD_RULE, kept);
        }
        if let Some(end) = end {
            note(end.rule, kept);
        }
        let trimmed = trim_output(self.place, kept, *whole, note);
        let suggestion = trimmed.and_then(|text| self.fit_suggestion(&body, &text, *whole, note));
        (suggestion, steps)
    }

    fn fit_suggestion(
        &self,
        body: &OutputBody<'_>,
        text: &str,
        whole: bool,
        note: &mut dyn FnMut(&'static str, &str),
    ) -> Option<Suggestion> {
        match self.confidence_filter {
            Some(filter) => {
                let trimmed = TrimmedOutput { output: body.as_output(), text, whole };
                filter.fit_confident_part(self.snapshot, self.place, trimmed, note)
            }
            None => fit_to_document(self.snapshot, self.place, text, note),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use taper_engine::Engine;
    use taper_engine::scripted::ScriptedEngine;

    use super::*;
    use crate::completion::{fixture, suggest};
    use crate::prompt::template::Profile;

    #[test]
    fn trim_steps_name_the_rules_in_order() {
        let snapshot = fixture::snapshot("x.py", "total = sum(▮)\n");
        let engine = ScriptedEngine::new().answer_with(|_| "```python\na,  )\nb".to_owned());
        let mut engine: Box<dyn Engine> = Box::new(engine);
        let mut profile = Profile::for_model(engine.engine_info(), engine.tokenizer());
        profile.form.heal = false;
        let (suggestion, work) =
            suggest(&snapshot, &profile, engine.as_mut(), &mut |_| ControlFlow::Continue(())).unwrap();
        assert_eq!(suggestion.unwrap().text, "a");
        let steps: Vec<_> = work.trim_steps.iter().map(|it| (it.rule, it.remaining.as_str())).collect();
        let bracket = "the closing bracket is already after the cursor";
        assert_eq!(
            steps,
            [(LEAD_RULE, "a,  "), (bracket, "a,  "), ("a comma before the end of a list", "a")]
        );
        assert_eq!(work.reason, bracket);
    }
}

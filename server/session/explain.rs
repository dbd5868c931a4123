//! How the last answers came about, for the person who asks.
//! It knows nothing of how that is put into words.

use crate::completion::{CompletionWork, Snapshot, Suggestion};
use crate::retrieval::redact::{BareWords, redact};

/// How an answer came about.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// The document's path, as the model is shown it.
    pub path: String,
    /// The language's name, or an empty string.
    pub language: &'static str,
    /// What was suggested; empty: nothing.
    pub text: String,
    /// The model's work; `None`: the answer was there already, from typing along an earlier one or worked out ahead.
    pub work: Option<Box<CompletionWork>>,
}

impl Explanation {
    /// Of an answer about this place.
    pub(crate) fn new(
        snapshot: &Snapshot,
        suggestion: Option<&Suggestion>,
        work: Option<Box<CompletionWork>>,
    ) -> Self {
        Self {
            path: snapshot.path.clone(),
            language: snapshot.language.map_or("", |language| language.name),
            text: suggestion.map_or_else(String::new, |suggestion| suggestion.text.clone()),
            work,
        }
    }

    /// Of nothing, and why.
    pub(crate) fn nothing(path: String, language: &'static str, reason: &'static str) -> Self {
        let work = Some(Box::new(CompletionWork { reason, ..CompletionWork::default() }));
        Self { path, language, text: String::new(), work }
    }
}

/// The answers that are worth an explanation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Explanations {
    /// The last one with a text.
    pub suggestion: Option<Explanation>,
    /// The last one without, if it is newer.
    pub silence: Option<Explanation>,
}

impl Explanations {
    /// As they are told: without what looks like a secret, which a suggestion in its own file may repeat.
    pub(crate) fn without_secrets(&self) -> Self {
        let told = |it: &Explanation| {
            let language = taper_grammars::by_id(it.language);
            let text = redact(&it.text, language.map_or(BareWords::Values, BareWords::for_language))
                .unwrap_or_default()
                .into_owned();
            // What the model said is not told, and so not kept.
            let work = it.work.as_ref().map(|work| {
                Box::new(CompletionWork {
                    raw: String::new(),
                    pieces: Vec::new(),
                    trim_steps: Vec::new(),
                    rejected_greedy: None,
                    ..(**work).clone()
                })
            });
            Explanation { text, work, ..it.clone() }
        };
        Self { suggestion: self.suggestion.as_ref().map(told), silence: self.silence.as_ref().map(told) }
    }

    /// Takes note of the newest answer.
    pub(crate) fn record(&mut self, newest: Explanation) {
        if newest.text.is_empty() {
            self.silence = Some(newest);
        } else {
            *self = Self { suggestion: Some(newest), silence: None };
        }
    }
}

//! How the last responses came about, as an explanation for the user.

use crate::completion::{CompletionWork, Snapshot, Suggestion};
use crate::retrieval::redact::{BareWords, redact};

/// How a response came about.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// The document's path, as the model is shown it.
    pub path: String,
    /// The language's name, or an empty string.
    pub language: &'static str,
    /// The suggestion; empty: none.
    pub text: String,
    /// The model's work; `None`: the suggestion was in the cache, from an earlier response that was typed through
    /// or from a prefetch.
    pub work: Option<Box<CompletionWork>>,
}

impl Explanation {
    /// For a response at this cursor.
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

    /// For an empty response, with its reason.
    pub(crate) fn nothing(path: String, language: &'static str, reason: &'static str) -> Self {
        let work = Some(Box::new(CompletionWork { reason, ..CompletionWork::default() }));
        Self { path, language, text: String::new(), work }
    }
}

/// The responses that are worth an explanation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Explanations {
    /// The last one with a text.
    pub suggestion: Option<Explanation>,
    /// The last empty one, if it is newer.
    pub silence: Option<Explanation>,
}

impl Explanations {
    /// For display: without anything that looks like a secret, which a suggestion in its own file may repeat.
    pub(crate) fn without_secrets(&self) -> Self {
        let redacted = |it: &Explanation| {
            let language = taper_grammars::by_id(it.language);
            let text = redact(&it.text, language.map_or(BareWords::Values, BareWords::for_language))
                .unwrap_or_default()
                .into_owned();
            // The model's raw text is not shown, and so not kept.
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
        Self {
            suggestion: self.suggestion.as_ref().map(redacted),
            silence: self.silence.as_ref().map(redacted),
        }
    }

    /// Records the newest response.
    pub(crate) fn record(&mut self, newest: Explanation) {
        if newest.text.is_empty() {
            self.silence = Some(newest);
        } else {
            *self = Self { suggestion: Some(newest), silence: None };
        }
    }
}

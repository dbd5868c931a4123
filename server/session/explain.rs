//! How the last answers came about, for the person who asks.
//! It knows nothing of how that is put into words.

use crate::suggest::{Snapshot, Suggestion, Work};

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
    pub work: Option<Box<Work>>,
}

impl Explanation {
    /// Of an answer about this place.
    pub(crate) fn new(snapshot: &Snapshot, suggestion: Option<&Suggestion>, work: Option<Box<Work>>) -> Self {
        Self {
            path: snapshot.path.clone(),
            language: snapshot.language.map_or("", |language| language.name),
            text: suggestion.map_or_else(String::new, |suggestion| suggestion.text.clone()),
            work,
        }
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
    /// Takes note of the newest answer.
    pub(crate) fn note(&mut self, newest: Explanation) {
        if newest.text.is_empty() {
            self.silence = Some(newest);
        } else {
            *self = Self { suggestion: Some(newest), silence: None };
        }
    }
}

//! Where suggestions are paused until further notice: everywhere, in languages, in documents.

use std::collections::BTreeSet;

use taper_grammars::Language;

/// The scope of a pause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PauseScope {
    /// Every document.
    Everywhere,
    /// Documents in a language, by the editor's name for it or by taper's.
    Language(String),
    /// One document, as the editor names it.
    Document(String),
}

/// The current pauses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pauses {
    /// Whether every document is paused.
    pub everywhere: bool,
    /// Paused languages.
    pub languages: BTreeSet<String>,
    /// Paused documents.
    pub documents: BTreeSet<String>,
}

impl Pauses {
    /// Pauses or resumes. Resuming everywhere ends all pauses.
    pub(crate) fn set_paused(&mut self, scope: PauseScope, paused: bool) {
        let (names, name) = match scope {
            PauseScope::Everywhere => {
                if paused {
                    self.everywhere = true;
                } else {
                    *self = Self::default();
                }
                return;
            }
            PauseScope::Language(name) => (&mut self.languages, name.to_lowercase()),
            PauseScope::Document(uri) => (&mut self.documents, uri),
        };
        if paused {
            names.insert(name);
        } else {
            names.remove(&name);
        }
    }

    /// Whether nothing is to be suggested in this document.
    pub(crate) fn is_paused(&self, uri: &str, language_id: &str, language: Option<&Language>) -> bool {
        let paused = |name: &str| self.languages.contains(&name.to_lowercase());
        self.everywhere
            || self.documents.contains(uri)
            || (!self.languages.is_empty()
                && (paused(language_id) || language.is_some_and(|language| paused(language.name))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_covers_its_scope_and_nothing_else() {
        let mut pauses = Pauses::default();
        assert!(!pauses.is_paused("a", "python", None));
        pauses.set_paused(PauseScope::Language("Python".to_owned()), true);
        assert!(pauses.is_paused("a", "python", None) && !pauses.is_paused("a", "rust", None));
        pauses.set_paused(PauseScope::Document("b".to_owned()), true);
        assert!(pauses.is_paused("b", "rust", None));
        pauses.set_paused(PauseScope::Language("python".to_owned()), false);
        assert!(!pauses.is_paused("a", "python", None) && pauses.is_paused("b", "rust", None));
        pauses.set_paused(PauseScope::Everywhere, true);
        assert!(pauses.is_paused("a", "python", None));
        pauses.set_paused(PauseScope::Everywhere, false);
        assert_eq!(pauses, Pauses::default());
    }
}

//! What is shown in each document and what becomes of it, counted: what happened, never with what text or where.
//! It knows nothing of how counts are kept.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::session::reply::{Question, Said};
use crate::session::{Document, State};
use crate::suggest::Snapshot;
use crate::suggest::fate::{Fate, Life};
use crate::text::{Position, position};

/// Characters of an editor's name for a language, where taper has none of its own.
const NAME: usize = 32;

/// Something to be counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// The language.
    pub language: Arc<str>,
    /// The model.
    pub model: Arc<str>,
    /// What happened.
    pub what: Happening,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happening {
    /// A question arrived for the model.
    Asked,
    /// It was answered, after this time: with a text or, if `empty`, with nothing.
    Answered {
        /// From the question to its answer.
        after: Duration,
        /// With nothing.
        empty: bool,
    },
    /// A suggestion is shown that was not shown before.
    Shown,
    /// The fate of a shown suggestion is known.
    Ended {
        /// What became of it.
        fate: Fate,
        /// Characters of it that were taken.
        characters: usize,
    },
}

/// Who counts. Must not block.
pub type Counter = Box<dyn FnMut(Counted) + Send>;

/// What is shown in one document.
#[derive(Debug)]
struct Watched {
    /// The last question about it: what it was answered with is looked up when the next thing happens there.
    question: Option<Arc<Question>>,
    /// What is shown, and for which model it counts.
    life: Option<(Life, Arc<str>)>,
    language: Arc<str>,
}

/// What is shown everywhere, and who counts.
pub(super) struct Watch {
    documents: HashMap<String, Watched>,
    /// The name of the model that answers; `None` until there is one.
    model: Option<Arc<str>>,
    /// The document that was edited last.
    edited: String,
    counter: Counter,
}

impl Watch {
    pub(super) fn new(counter: Counter) -> Self {
        Self { documents: HashMap::new(), model: None, edited: String::new(), counter }
    }

    /// What is asked from now on is asked of this model.
    pub(super) fn use_model(&mut self, name: &str) {
        // A file's own name is for its owner; of a path only the end is told.
        let name = name.rsplit(['/', '\\']).next().unwrap_or_default();
        self.model = Some(name.into());
    }

    fn count(&mut self, language: &Arc<str>, model: &Arc<str>, what: Happening) {
        (self.counter)(Counted { language: Arc::clone(language), model: Arc::clone(model), what });
    }

    /// Takes note of what the last question about a document was answered with, and of a fate that is known.
    fn take_note(&mut self, uri: &str) {
        let (Some(model), Some(watched)) = (self.model.clone(), self.documents.get_mut(uri)) else { return };
        let language = Arc::clone(&watched.language);
        let mut told = Vec::new();
        if let Some(question) = &watched.question
            && let Some(Said { shown, others, after }) = question.take_said()
        {
            told.push((Arc::clone(&model), Happening::Answered { after, empty: shown.is_none() }));
            if let Some(shown) = shown {
                let Snapshot { text, cursor, .. } = &question.snapshot;
                let same =
                    watched.life.as_mut().is_some_and(|(it, _)| it.renew(text, *cursor, &shown, &others));
                if !same {
                    told.extend(ended(&mut watched.life, true));
                    told.push((Arc::clone(&model), Happening::Shown));
                    watched.life = Some((Life::new(text, *cursor, &shown, &others), model));
                }
            }
        }
        told.extend(ended(&mut watched.life, false));
        told.into_iter().for_each(|(model, what)| self.count(&language, &model, what));
    }

    /// The same for every document.
    pub(super) fn take_note_of_all(&mut self) {
        let uris: Vec<String> = self.documents.keys().cloned().collect();
        uris.iter().for_each(|uri| self.take_note(uri));
    }

    /// Ends what is shown in a document, whatever it is.
    fn leave(&mut self, uri: &str) {
        self.take_note(uri);
        let Some(watched) = self.documents.get_mut(uri) else { return };
        watched.question = None;
        let language = Arc::clone(&watched.language);
        if let Some((model, what)) = ended(&mut watched.life, true) {
            self.count(&language, &model, what);
        }
    }

    /// Ends everything: nothing is shown any more.
    pub(super) fn leave_all(&mut self) {
        let uris: Vec<String> = self.documents.keys().cloned().collect();
        uris.iter().for_each(|uri| self.leave(uri));
        self.documents.clear();
    }

    /// From now on nothing is counted; what is shown is not either.
    pub(super) fn forget_all(&mut self) {
        self.documents.clear();
    }

    /// The editor says that the user took what was shown last.
    pub(super) fn accepted(&mut self) {
        let edited = self.documents.get_mut(&self.edited);
        if edited.and_then(|it| it.life.as_mut()).is_some_and(|(life, _)| life.confirm()) {
            let uri = self.edited.clone();
            self.take_note(&uri);
        }
    }
}

/// The fate of what is shown, if it is known, or comes to its end now.
fn ended(life: &mut Option<(Life, Arc<str>)>, now: bool) -> Option<(Arc<str>, Happening)> {
    let (it, model) = life.as_mut()?;
    if now {
        it.leave();
    }
    let (fate, characters) = it.fate()?;
    let ended = (Arc::clone(model), Happening::Ended { fate, characters });
    *life = None;
    Some(ended)
}

/// What a document's language is counted as: taper's name or the editor's, if that looks like a name.
fn language_of(document: &Document) -> Arc<str> {
    let Document { language, language_id, .. } = document;
    let own = language.map(|it| it.name);
    let plain = |it: &&str| {
        !it.is_empty()
            && it.len() <= NAME
            && it.chars().all(|it| it.is_ascii_alphanumeric() || matches!(it, '-' | '_' | '+' | '#'))
    };
    own.or(Some(language_id.as_str()).filter(plain)).unwrap_or("other").into()
}

impl State {
    /// Whether anything is counted.
    fn counts(&self) -> bool {
        self.settings.statistics && self.watch.model.is_some()
    }

    /// Before anything happens in a document: takes note of what has happened until then.
    pub(super) fn take_note(&mut self, uri: &str) {
        self.watch.take_note(uri);
    }

    /// A question arrived about a place where suggestions are made.
    pub(super) fn count_question(&mut self, uri: &str, snapshot: &Snapshot) {
        let Some((document, _)) = self.documents.get(uri).filter(|_| self.counts()) else { return };
        let Some(model) = self.watch.model.clone() else { return };
        let entry = self.watch.documents.entry(uri.to_owned());
        let watched = entry.or_insert_with(|| {
            let language = language_of(document);
            Watched { question: None, life: None, language }
        });
        watched.question = None;
        let language = Arc::clone(&watched.language);
        if watched.life.as_ref().is_some_and(|(life, _)| life.place() != snapshot.cursor)
            && let Some((model, what)) = ended(&mut watched.life, true)
        {
            self.watch.count(&language, &model, what);
        }
        self.watch.count(&language, &model, Happening::Asked);
    }

    /// What this question is answered with is what will be shown.
    pub(super) fn watch(&mut self, question: &Arc<Question>) {
        if let Some(watched) = self.watch.documents.get_mut(&question.uri) {
            watched.question = Some(Arc::clone(question));
        }
    }

    /// The cursor is here, in a document as it is.
    pub(super) fn moved(&mut self, uri: &str, cursor: Position) {
        self.take_note(uri);
        let Some((document, _)) = self.documents.get(uri) else { return };
        let cursor = position::offset(&document.text, cursor, self.encoding);
        let shown = self.watch.documents.get(uri).and_then(|it| it.life.as_ref());
        if shown.is_some_and(|(life, _)| life.place() != cursor) {
            self.watch.leave(uri);
        }
    }

    /// The suggestion that is shown in a document, to be told of its changes; taken out.
    pub(super) fn take_shown(&mut self, uri: &str) -> Option<Shown> {
        self.watch.take_note(uri);
        uri.clone_into(&mut self.watch.edited);
        let watched = self.watch.documents.get_mut(uri)?;
        // Whatever comes of it is about a text that is gone.
        watched.question = None;
        watched.life.take().map(Shown)
    }

    /// Puts back what [`State::take_shown`] took.
    pub(super) fn put_shown(&mut self, uri: &str, shown: Option<Shown>, lost: bool) {
        if let (Some(Shown(life)), Some(watched)) = (shown, self.watch.documents.get_mut(uri)) {
            watched.life = Some(life);
        }
        if lost {
            self.watch.leave(uri);
        } else {
            self.watch.take_note(uri);
        }
    }

    /// A document is closed, opened anew, or not to be trusted any more: nothing is shown in it.
    pub(super) fn forget_shown(&mut self, uri: &str) {
        self.watch.leave(uri);
        self.watch.documents.remove(uri);
    }
}

/// A suggestion that is shown.
pub(super) struct Shown((Life, Arc<str>));

impl Shown {
    pub(super) fn life(&mut self) -> &mut Life {
        &mut self.0.0
    }
}

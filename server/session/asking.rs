//! What a question meets first: what is known already, what is worked on already, the completer's mailbox.
//! It knows nothing of the completer's work, or of how documents change.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Instant;

use tracing::debug;

use crate::session::completer::Job;
use crate::session::document::Document;
use crate::session::explain::Explanation;
use crate::session::reply::{Due, Question};
use crate::session::workspace::Location;
use crate::session::{Asked, Model, RETRY, State};
use crate::suggest::ahead::Answered;
use crate::suggest::{Idle, Selected, Snapshot, Suggestion, Trigger};
use crate::text::{Position, position};

/// Documents of which more than the text is kept, at most: those that were used last.
const KEPT: usize = 24;

impl State {
    /// What is at this place now; `None` where nothing is to be suggested.
    fn snapshot(&mut self, uri: &str, cursor: Position, trigger: Trigger) -> Option<Snapshot> {
        self.moment += 1;
        self.attend(uri);
        let wanted = self.wanted_snippets();
        // Typing gets no candidates to be ranked.
        let Some((document, _)) = self.documents.get_mut(uri) else {
            self.unknown(uri, "a question");
            return None;
        };
        document.used = self.moment;
        let Document { language_id, language, .. } = document;
        if !self.settings.enable
            || self.settings.is_disabled(language_id, *language)
            || self.pauses.cover(uri, language_id, *language)
        {
            return None;
        }
        if trigger == Trigger::Automatic && document.excluded.is_some() {
            return None;
        }
        if let Some(why) = document.lost() {
            debug!(uri, why, "no suggestion: out of step");
            return None;
        }
        let cursor = position::offset(&document.text, cursor, self.encoding);
        let preceding = self.notebooks.before(uri, &self.documents);
        let (document, _) = self.documents.get_mut(uri)?;
        let index = self.indexes.get(&document.root).filter(|_| wanted > 0 && document.excluded.is_none());
        let (snippets, snippets_before) =
            index.map_or_else(Default::default, |index| document.snippets(cursor, index, wanted));
        Some(Snapshot {
            cursor,
            syntax: document.syntax(cursor).cloned(),
            text: document.text.clone(),
            language: document.language,
            path: document.path.clone(),
            preceding,
            selected: None,
            trigger,
            options: self.settings.suggest.clone(),
            snippets,
            snippets_before,
        })
    }

    /// Tokens of other files that prompts may have.
    fn wanted_snippets(&self) -> usize {
        if !self.settings.other_files {
            return 0;
        }
        let asked = self.settings.suggest.snippet_tokens;
        self.best_snippets.map_or(0, |best| asked.unwrap_or(best))
    }

    /// Somebody works in a document: what was written in the one before is to be known there.
    fn attend(&mut self, uri: &str) {
        if self.attended.as_deref() == Some(uri) {
            return;
        }
        if let Some(before) = self.attended.replace(uri.to_owned()) {
            self.let_others_see(&before);
        }
        self.forget_unused();
    }

    /// Of documents that nobody has worked in for long, what can be made again is let go: editors open thousands.
    pub(super) fn forget_unused(&mut self) {
        let mut all: Vec<(u64, &String)> =
            self.documents.iter().map(|(uri, (document, _))| (document.used, uri)).collect();
        if all.len() <= KEPT {
            return;
        }
        all.sort_unstable_by_key(|&(used, _)| Reverse(used));
        let unused: Vec<String> = all.into_iter().skip(KEPT).map(|(_, uri)| uri.clone()).collect();
        for uri in unused {
            self.usage.close(&uri);
            if let Some((document, cache)) = self.documents.get_mut(&uri) {
                document.forget();
                cache.clear();
            }
        }
    }

    /// Lets questions about other documents know a document's text.
    pub(super) fn let_others_see(&mut self, uri: &str) {
        if self.wanted_snippets() == 0 {
            return;
        }
        let Some((document, _)) = self.documents.get_mut(uri) else { return };
        if document.excluded.is_some() {
            return;
        }
        if let (Some(language), Some(text)) = (document.language, document.unseen()) {
            self.workspace.text(document.location(), language, text);
        }
    }

    /// Looks through the code around a document that was opened.
    pub(super) fn look_around(&mut self, uri: &str) {
        self.let_others_see(uri);
        let reads =
            self.wanted_snippets() > 0 && self.settings.suggest.idle != Idle::Off && !self.is_excluded(uri);
        let Some((document, _)) = self.documents.get(uri).filter(|_| reads) else { return };
        let Location { root, path } = document.location();
        if let Some(root) = root {
            self.workspace.near(root, path);
        }
    }

    /// Looks through the code around all documents: there is a use for it now, if there was none.
    pub(super) fn look_around_all(&mut self) {
        let open: Vec<String> = self.documents.keys().cloned().collect();
        for uri in open {
            self.look_around(&uri);
        }
    }

    /// Whether this is the first question where the last edit typed something.
    fn follows_typing(&mut self, uri: &str, cursor: Position) -> bool {
        let Some((document, _)) = self.documents.get_mut(uri) else { return false };
        let cursor = position::offset(&document.text, cursor, self.encoding);
        document.typed.take() == Some(cursor)
    }

    /// Reads what a question at this place would need, while nobody asks for anything.
    pub(super) fn looked(&mut self, uri: String, cursor: Position) {
        if let Some((document, _)) = self.documents.get(&uri) {
            self.usage.move_cursor(&uri, position::offset(&document.text, cursor, self.encoding));
        }
        if self.working.is_some() || self.model != Model::Ready || self.settings.suggest.idle == Idle::Off {
            return;
        }
        let Some(snapshot) = self.snapshot(&uri, cursor, Trigger::Automatic) else { return };
        let question = Arc::new(Question::unasked(uri, snapshot, self.encoding));
        self.put(Arc::clone(&question), Job::Ahead(question, Answered::Unasked));
    }

    pub(super) fn asked(&mut self, asked: Asked) {
        self.let_go(&asked.uri, Question::supersede);
        self.usage.update(&asked.uri);
        let Asked { uri, position: cursor, selected, mut trigger, popup, arrived, reply } = asked;
        if self.follows_typing(&uri, cursor) && popup {
            trigger = Trigger::Automatic;
        }
        if trigger == Trigger::Automatic && self.explain_excluded(&uri) {
            return;
        }
        let Some(mut snapshot) = self.snapshot(&uri, cursor, trigger) else { return };
        snapshot.selected = selected.map(|(range, text)| {
            let range = position::range(&snapshot.text, range.start, range.end, self.encoding);
            Selected { range, text }
        });
        let Some((document, cache)) = self.documents.get_mut(&uri) else { return };
        if self.settings.statistics {
            let language = document.language.map_or(document.language_id.as_str(), |it| it.name);
            self.usage.record_request(&uri, snapshot.cursor, language);
        }
        let mut reused = match snapshot.selected {
            None => cache.get(&snapshot.text, snapshot.cursor),
            Some(_) => None,
        };
        // A person wants to know what else there may be: what nobody has looked for yet is looked for now, if that can be.
        let mut known = None;
        let mut others = Vec::new();
        if trigger == Trigger::Invoked
            && let Some(first) = &reused
        {
            match cache.others(&snapshot.text, snapshot.cursor, first) {
                Some(looked_for) => others = looked_for,
                None if self.model == Model::Ready => known = reused.take(),
                None => {}
            }
        }
        // A person who asks is worth another try.
        let barren = reused.is_none()
            && known.is_none()
            && snapshot.selected.is_none()
            && trigger == Trigger::Automatic
            && cache.is_barren(&snapshot.text, snapshot.cursor);
        let early = self.refreshes && known.is_none();
        let early = early.then(|| arrived + self.settings.early_answer);
        let usual = arrived + self.settings.latency_budget;
        // If the first suggestion is known, only the alternatives are missing.
        let patient = trigger == Trigger::Invoked && known.is_none();
        let latest = if patient { usual.max(arrived + self.settings.explicit_budget) } else { usual };
        let due = Due { arrived, early, usual, latest };
        // Editors ask again at the same place: what is worked on already is not begun anew.
        if reused.is_none()
            && let Some(working) = self.working.as_ref().filter(|working| working.is_same(&uri, &snapshot))
        {
            let working = Arc::clone(working);
            working.renew(due, reply);
            self.usage.track_response(&working.uri, &working.response);
            self.open.push(working);
            return;
        }
        let mut question = Question::new(uri, snapshot, self.encoding, due, reply);
        if let Some(known) = known {
            question = question.knowing(known);
        }
        if popup {
            question = question.in_popup();
        }
        question.offer(&others);
        let question = Arc::new(question);
        self.usage.track_response(&question.uri, &question.response);
        if reused.is_some() || barren {
            self.answer_known(question, reused);
            return;
        }
        match self.model {
            Model::Ready => {}
            Model::Loading => return,
            Model::Failed(at) => {
                if at.elapsed() >= RETRY {
                    self.load(true);
                }
                return;
            }
        }
        self.begin(question);
    }

    /// Answers a question with what is known, be it that there is nothing.
    fn answer_known(&mut self, question: Arc<Question>, known: Option<Suggestion>) {
        self.explained.note(Explanation::new(&question.snapshot, known.as_ref(), None));
        question.sketch(known.clone());
        question.answer(known.clone());
        self.go_ahead(question, known);
    }

    /// Gives a question to the completer, at once or after a pause in typing.
    fn begin(&mut self, question: Arc<Question>) {
        self.open.push(Arc::clone(&question));
        if self.settings.debounce.is_zero() || question.snapshot.trigger == Trigger::Invoked {
            if let Some((_, older)) = self.resting.take() {
                older.supersede();
            }
            self.give(question);
        } else {
            let until = Instant::now() + self.settings.debounce;
            if let Some((_, older)) = self.resting.replace((until, question)) {
                older.supersede();
            }
        }
    }

    /// Moves a popup's question to where the cursor is once something was typed there; it must be one of this text.
    pub(super) fn move_on(&mut self, older: &Question) {
        let uri = &older.uri;
        let document = self.documents.get(uri).map(|(document, _)| document);
        let place = document.and_then(|document| {
            let typed = older.typed(&document.text)?;
            let cursor =
                position::position(&document.text, older.snapshot.cursor + typed.len(), self.encoding);
            Some((typed, cursor))
        });
        let snapshot = place
            .and_then(|(typed, cursor)| Some((typed, self.snapshot(uri, cursor, older.snapshot.trigger)?)));
        let Some((typed, snapshot)) = snapshot else {
            older.supersede();
            return;
        };
        let question = Arc::new(older.moved_on(snapshot, &typed));
        self.usage.track_response(&question.uri, &question.response);
        let cache = self.documents.get_mut(uri).map(|(_, cache)| cache);
        let Snapshot { text, cursor, .. } = &question.snapshot;
        match cache.and_then(|cache| cache.get(text, *cursor)) {
            None => self.begin(question),
            known => self.answer_known(question, known),
        }
    }

    /// Gives a question to the completer; the one that it displaces is answered as superseded.
    pub(super) fn give(&mut self, question: Arc<Question>) {
        if self.model != Model::Ready {
            question.answer(None);
            return;
        }
        self.working = Some(Arc::clone(&question));
        self.put(Arc::clone(&question), Job::Ask(question));
    }

    /// Lets the completer work for what comes behind a question that was answered from what was known.
    fn go_ahead(&mut self, question: Arc<Question>, shown: Option<Suggestion>) {
        let is_idle_work = question.snapshot.options.idle != Idle::Off && !self.is_excluded(&question.uri);
        if is_idle_work && self.model == Model::Ready {
            self.put(Arc::clone(&question), Job::Ahead(question, shown.into()));
        }
    }

    fn put(&mut self, question: Arc<Question>, job: Job) {
        self.latest = Some(question);
        if let Some(Job::Ask(older)) = self.mailbox.put(job) {
            older.supersede();
            if self.working.as_ref().is_some_and(|working| Arc::ptr_eq(working, &older)) {
                self.working = None;
            }
        }
    }
}

//! A question, and the one reply that it gets: whoever comes first answers, and dropping it unanswered answers
//! "nothing".
//! It knows nothing of engines, of deadlines kept, or of how an answer is written.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::channel::oneshot;

use crate::suggest::{Snapshot, Suggestion, Time, reuse};
use crate::text::{Encoding, Position, Rope, lines, position};
use crate::usage::tracker::{ResponseCell, TrackedResponse};

/// What a question is answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// There is nothing to show.
    Nothing,
    /// A newer question took this one's place, or the text has changed since.
    Superseded,
    /// This is to be shown.
    Shown(Box<Shown>),
}

/// A suggestion in the editor's own coordinates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// What the suggestion replaces: empty at the cursor, most of the time.
    pub range: Range<Position>,
    /// What stands there afterwards.
    pub text: String,
    /// What could stand there instead, the best first: for a person who asked.
    pub others: Vec<String>,
    /// The word that ends at the cursor, for editors that filter by it; empty if there is none.
    pub word: String,
    /// Where that word begins.
    pub word_start: Position,
    /// The language's name, or an empty string.
    pub language: &'static str,
}

/// The right to answer, once. Dropped unanswered, it answers [`Answer::Nothing`].
#[derive(Debug)]
pub struct Reply(Mutex<Option<oneshot::Sender<Answer>>>);

/// Where the answer arrives.
pub type Receiver = oneshot::Receiver<Answer>;

impl Reply {
    /// A reply and the place where it arrives. Dropping the receiver means that nobody wants it any more.
    pub fn new() -> (Self, Receiver) {
        let (sender, receiver) = oneshot::channel();
        (Self(Mutex::new(Some(sender))), receiver)
    }

    /// One that has answered.
    fn spent() -> Self {
        Self(Mutex::new(None))
    }

    /// Answers, unless that has happened; says whether this was the answer.
    pub fn send(&self, answer: Answer) -> bool {
        let sender = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        // An error means that the receiver is gone: cancelled, and answered by whoever dropped it.
        sender.is_some_and(|sender| sender.send(answer).is_ok())
    }

    /// Whether an answer is still to be given.
    pub fn is_open(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Whether nobody waits for the answer that has not been given.
    pub fn is_cancelled(&self) -> bool {
        let sender = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sender.as_ref().is_some_and(oneshot::Sender::is_canceled)
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.send(Answer::Nothing);
    }
}

/// A question on its way: shared by the session, which keeps its deadline, and the completer, which works on it.
/// Only these two look inside.
#[derive(Debug)]
pub struct Question {
    /// The document, as the editor names it.
    pub(crate) uri: String,
    /// What it is about.
    pub(crate) snapshot: Snapshot,
    /// How the editor counts columns.
    pub(crate) encoding: Encoding,
    /// When the answer leaves, and where it goes: asked again at the same place, it has new ones.
    answer: Mutex<(Due, Reply)>,
    draft: Mutex<Draft>,
    /// What was known before: whatever the model says now is no better.
    known: Option<Suggestion>,
    /// See [`Question::is_in_popup`].
    popup: bool,
    /// Where the editor asked, and what was typed there since: see [`Question::moved_on`].
    origin: Option<(Snapshot, String)>,
    /// Beside the best part, the best first.
    others: Mutex<Vec<Suggestion>>,
    /// The response, until it is recorded.
    pub(crate) response: ResponseCell,
    /// Its text is gone: work on it is of no use.
    dropped: AtomicBool,
}

/// When an answer leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Due {
    /// When the question arrived.
    pub(crate) arrived: Instant,
    /// From then on as soon as there is any part of it, where who asks comes back for the rest.
    pub(crate) early: Option<Instant>,
    /// Then at the latest, once there is a complete suggestion: the response does not wait longer for alternatives.
    pub(crate) usual: Instant,
    /// Then at the latest, with the best complete part. Later for an explicit question than for an automatic one.
    pub(crate) latest: Instant,
}

impl Due {
    /// For a question that moves along with typing: from now on it waits no longer than an automatic one.
    fn typed_on(self, now: Instant) -> Self {
        let usual = now + self.usual.saturating_duration_since(self.arrived);
        Self { latest: self.latest.min(usual.max(self.usual)), ..self }
    }
}

impl From<Instant> for Due {
    fn from(latest: Instant) -> Self {
        Self { arrived: latest, early: None, usual: latest, latest }
    }
}

/// What could be shown before the end.
#[derive(Debug, Default)]
struct Draft {
    /// The best complete part so far.
    best: Option<Suggestion>,
    /// What was answered though the work was not at its end.
    told: Option<Option<Suggestion>>,
}

impl Question {
    /// A question that nobody works on yet.
    pub(crate) fn new(uri: String, snapshot: Snapshot, encoding: Encoding, due: Due, reply: Reply) -> Self {
        let (draft, dropped) = (Mutex::default(), AtomicBool::new(false));
        let (known, popup, others, response) = (None, false, Mutex::default(), Arc::default());
        let (answer, origin) = (Mutex::new((due, reply)), None);
        Self { uri, snapshot, encoding, answer, draft, known, popup, origin, others, response, dropped }
    }

    /// This question for a popup, behind what was typed since at its cursor: `snapshot` is there. It has the reply now, and
    /// answers in the place where the editor asked, with what was typed in front.
    pub(crate) fn moved_on(&self, snapshot: Snapshot, typed: &str) -> Self {
        let mut answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner);
        let due = answer.0.typed_on(Instant::now());
        let (_, reply) = std::mem::replace(&mut *answer, (due, Reply::spent()));
        let origin = match &self.origin {
            Some((asked, before)) => (asked.clone(), before.clone() + typed),
            None => (self.snapshot.clone(), typed.to_owned()),
        };
        let question = Self::new(self.uri.clone(), snapshot, self.encoding, due, reply);
        Self { popup: true, origin: Some(origin), ..question }
    }

    /// What has been typed at its cursor, if nothing else was done on the way to `text`.
    pub(crate) fn typed(&self, text: &Rope) -> Option<String> {
        reuse::typed(&self.snapshot, text)
    }

    /// This question, whose first answer is known: it is asked for what else there may be.
    pub(crate) fn knowing(mut self, known: Suggestion) -> Self {
        self.known = Some(known);
        self
    }

    /// This question, asked for a popup.
    pub(crate) fn in_popup(mut self) -> Self {
        self.popup = true;
        self
    }

    /// Whether it was asked for a popup, which is filtered by what is typed before the answer comes.
    pub(crate) fn is_in_popup(&self) -> bool {
        self.popup
    }

    /// What is to be shown first, if the model says `said`.
    pub(crate) fn first(&self, said: Option<Suggestion>) -> Option<Suggestion> {
        self.known.clone().or(said)
    }

    /// Keeps what may be shown beside the first.
    pub(crate) fn offer(&self, others: &[Suggestion]) {
        *self.others.lock().unwrap_or_else(PoisonError::into_inner) = others.to_vec();
    }

    fn draft(&self) -> MutexGuard<'_, Draft> {
        self.draft.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn due(&self) -> Due {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    fn reply<T>(&self, with: impl FnOnce(&Reply) -> T) -> T {
        with(&self.answer.lock().unwrap_or_else(PoisonError::into_inner).1)
    }

    /// When the answer leaves at the latest.
    pub(crate) fn deadline(&self) -> Instant {
        self.due().latest
    }

    /// How long reading a prompt may take, and the whole answer where a better one is looked for.
    ///
    /// A person waits longer than a key. Where the first part can be shown at once, the time is for the rest of the answer.
    /// Where there is one response only, half of the time is for reading more of the file: by the speed that was measured,
    /// so that there is an answer even if the machine is slower now.
    pub(crate) fn time_left(&self, now: Instant, margin: Duration) -> Time {
        let left = |until: Instant| until.saturating_duration_since(now).saturating_sub(margin);
        let Due { early, usual, latest, .. } = self.due();
        let usual = left(usual.min(latest));
        let to_read = if early.is_some() { usual } else { usual.max(left(latest) / 2) };
        Time { to_read: Some(to_read), to_answer: Some(usual) }
    }

    /// There is a complete suggestion: from now on only alternatives are waited for.
    pub(crate) fn settle(&self) {
        let due = &mut self.answer.lock().unwrap_or_else(PoisonError::into_inner).0;
        due.latest = due.latest.min(due.usual);
    }

    /// The same question, asked again while it is worked on: the answer goes to the new place. The old one must
    /// have been answered.
    pub(crate) fn renew(&self, due: Due, reply: Reply) {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = (due, reply);
    }

    /// Whether `other` is the same question: nothing that its answer depends on has changed.
    pub(crate) fn is_same(&self, uri: &str, other: &Snapshot) -> bool {
        let Snapshot { text, cursor, selected, trigger, options, .. } = &self.snapshot;
        self.uri == uri
            && text.is_instance(&other.text)
            && self.snapshot.comes_after_the_same(other)
            && (cursor, selected, trigger, options)
                == (&other.cursor, &other.selected, &other.trigger, &other.options)
            && !self.is_unwanted(Instant::now())
    }

    /// Whether work on it may be of use for `text`: nothing but typing at its cursor has happened since, and what there
    /// is to be shown may come to say that.
    pub(crate) fn foresaw(&self, text: &Rope) -> bool {
        let typed = self.typed(text);
        let draft = self.draft();
        typed.is_some_and(|typed| draft.best.as_ref().is_none_or(|draft| reuse::agrees(&draft.text, &typed)))
    }

    /// Keeps what could be shown now; a later `None` does not take it away.
    pub(crate) fn sketch(&self, suggestion: Option<Suggestion>) {
        if suggestion.is_some() {
            self.draft().best = self.first(suggestion);
        }
    }

    /// Answers with `suggestion`, unless answered.
    pub(crate) fn answer(&self, suggestion: Option<Suggestion>) -> bool {
        if !self.reply(Reply::is_open) {
            return false;
        }
        let first = self.first(suggestion);
        let mut shown = first.clone().and_then(|suggestion| self.show(suggestion));
        let mut others = Vec::new();
        if let (Some(shown), Some(first)) = (&mut shown, &first) {
            let all = self.others.lock().unwrap_or_else(PoisonError::into_inner);
            others = all.iter().map(|it| it.text.clone()).filter(|it| *it != first.text).collect();
            let typed = self.origin.as_ref().map_or("", |(_, typed)| typed);
            shown.others = others.iter().map(|it| format!("{typed}{it}")).collect();
        }
        let (first, arrived) = (first.filter(|_| shown.is_some()), self.due().arrived);
        let answer = shown.map_or(Answer::Nothing, |shown| Answer::Shown(Box::new(shown)));
        // Held until it is written: the edit that takes a suggestion may come at once.
        let mut response = self.response.lock().unwrap_or_else(PoisonError::into_inner);
        let answers = self.reply(|reply| reply.send(answer));
        if answers {
            let Snapshot { text, cursor, .. } = &self.snapshot;
            *response = Some(TrackedResponse {
                text: text.clone(),
                cursor: *cursor,
                shown: first,
                alternatives: others,
                latency: arrived.elapsed(),
            });
        }
        answers
    }

    /// A suggestion in the coordinates of the editor, in the place where it asked.
    fn show(&self, suggestion: Suggestion) -> Option<Shown> {
        let Some((asked, typed)) = &self.origin else {
            return show(&self.snapshot, self.encoding, suggestion);
        };
        let Suggestion { range, text } = suggestion;
        if range.start != self.snapshot.cursor {
            return None;
        }
        let range = asked.cursor..asked.cursor + range.len();
        show(asked, self.encoding, Suggestion { range, text: format!("{typed}{text}") })
    }

    /// Time is up: answers with the draft, unless answered. Work on it may go on.
    pub(crate) fn expire(&self) -> bool {
        let best = self.draft().best.clone();
        let answers = self.answer(best.clone());
        if answers {
            self.draft().told = Some(best);
        }
        answers
    }

    /// Answers with the draft, unless answered, if there is one and who asks may have a part.
    pub(crate) fn answer_early(&self, now: Instant) {
        if self.due().early.is_some_and(|early| early <= now) && self.draft().best.is_some() {
            self.expire();
        }
    }

    /// What there is now, if a part of it or nothing was answered before. Said once.
    pub(crate) fn outgrown(&self) -> Option<Suggestion> {
        let Draft { best, told } = &mut *self.draft();
        let outgrown = best.is_some() && told.as_ref().is_some_and(|told| told != best);
        if outgrown {
            *told = Some(best.clone());
        }
        best.clone().filter(|_| outgrown)
    }

    /// Answers as superseded, unless answered. Work on it may go on.
    pub(crate) fn supersede(&self) {
        self.reply(|reply| reply.send(Answer::Superseded));
    }

    /// Ends the work on it: the text is another one now.
    pub(crate) fn outdate(&self) {
        self.dropped.store(true, Ordering::Release);
    }

    /// Answers nothing, unless answered, and ends the work on it.
    pub(crate) fn abandon(&self) {
        self.outdate();
        self.reply(|reply| reply.send(Answer::Nothing));
    }

    /// Whether an answer is still to be given to someone.
    pub(crate) fn is_open(&self) -> bool {
        self.reply(|reply| reply.is_open() && !reply.is_cancelled())
    }

    /// Whether who asked does not want to know any more.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.reply(Reply::is_cancelled)
    }

    /// Whether work on it is of no use to anyone.
    ///
    /// Editors cancel a question because the next key came, and ask again at once: what was cancelled is worked on
    /// until its time is up, since it may answer what follows.
    pub(crate) fn is_unwanted(&self, now: Instant) -> bool {
        self.dropped.load(Ordering::Acquire) || (self.is_cancelled() && now >= self.deadline())
    }
}

/// A suggestion in the coordinates of the editor; `None` if it does not lie inside the text.
fn show(snapshot: &Snapshot, encoding: Encoding, suggestion: Suggestion) -> Option<Shown> {
    let text = &snapshot.text;
    let Suggestion { range, text: new } = suggestion;
    if new.is_empty() || range.start > range.end || range.end > text.len_bytes() {
        return None;
    }
    let at = |offset| position::position(text, offset, encoding);
    let word = word_before(text, snapshot.cursor);
    Some(Shown {
        range: at(range.start)..at(range.end),
        text: new,
        others: Vec::new(),
        word_start: at(snapshot.cursor - word.len()),
        word,
        language: snapshot.language.map_or("", |language| language.name),
    })
}

/// Word characters that end at `cursor`, at most 256 of them.
fn word_before(text: &Rope, cursor: usize) -> String {
    let before = lines::before(text, cursor, 256);
    let rest = before.trim_end_matches(|character: char| character.is_alphanumeric() || character == '_');
    before[rest.len()..].to_owned()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::suggest::{Options, Trigger};

    fn question(fixture: &str) -> (Question, Receiver) {
        let (before, after) = fixture.split_once('▮').unwrap();
        let snapshot = Snapshot {
            text: Rope::from(format!("{before}{after}")),
            syntax: None,
            language: None,
            path: "a".to_owned(),
            cursor: before.len(),
            preceding: None,
            selected: None,
            trigger: Trigger::Automatic,
            options: Options::default(),
            open: Vec::new(),
            snippets: Default::default(),
            snippets_before: Default::default(),
        };
        let (reply, receiver) = Reply::new();
        (Question::new("a".to_owned(), snapshot, Encoding::Utf16, Instant::now().into(), reply), receiver)
    }

    fn suggestion(range: Range<usize>, text: &str) -> Option<Suggestion> {
        Some(Suggestion { range, text: text.to_owned() })
    }

    #[test]
    fn the_first_answer_is_the_answer() {
        let (question, mut receiver) = question("▮");
        question.supersede();
        assert!(!question.answer(suggestion(0..0, "x")));
        assert!(!question.expire());
        assert_eq!(receiver.try_recv().unwrap(), Some(Answer::Superseded));
        assert!(!question.is_unwanted(Instant::now()), "an answer given is no reason to end the work");
    }

    #[test]
    fn a_question_that_is_dropped_answers_nothing() {
        let (question, mut receiver) = question("▮");
        drop(question);
        assert_eq!(receiver.try_recv().unwrap(), Some(Answer::Nothing));
    }

    #[test]
    fn a_receiver_that_is_dropped_ends_the_work_at_the_deadline() {
        let (question, receiver) = question("▮");
        let (deadline, second) = (question.deadline(), Duration::from_secs(1));
        assert!(question.is_open() && !question.is_unwanted(deadline + second));
        drop(receiver);
        assert!(!question.is_open() && question.is_cancelled());
        assert!(question.is_unwanted(deadline) && !question.is_unwanted(deadline - second));
        question.outdate();
        assert!(question.is_unwanted(deadline - second));
    }

    #[test]
    fn what_was_foreseen_is_what_the_draft_may_say() {
        let (question, _receiver) = question("a▮\n");
        let foresaw = |text: &str| question.foresaw(&Rope::from(text));
        assert!(foresaw("a\n") && foresaw("axyz\n") && !foresaw("\n") && !foresaw("bx\n"));
        question.sketch(suggestion(1..1, "xy"));
        assert!(foresaw("axyz\n") && foresaw("ax\n") && !foresaw("ay\n"));
    }

    #[test]
    fn at_the_deadline_the_best_complete_part_is_the_answer() {
        let (question, mut receiver) = question("é😀 ab▮ c\n");
        question.sketch(suggestion(9..9, "x"));
        question.sketch(suggestion(9..9, "xy"));
        question.sketch(None);
        assert!(question.expire());
        let Some(Answer::Shown(shown)) = receiver.try_recv().unwrap() else { panic!("nothing is shown") };
        let at = |character| Position { line: 0, character };
        assert_eq!(shown.text, "xy");
        assert_eq!(shown.range, at(6)..at(6));
        assert_eq!((shown.word.as_str(), shown.word_start), ("ab", at(4)));
    }

    #[test]
    fn what_is_known_stays_first_and_the_others_stand_beside_it() {
        let (question, mut receiver) = question("x = ▮\n");
        let others = ["ab", "cd", "e"].map(|text| suggestion(4..4, text).unwrap());
        let question = question.knowing(others[0].clone());
        question.sketch(suggestion(4..4, "c"));
        question.offer(&others);
        assert!(question.expire());
        let Some(Answer::Shown(shown)) = receiver.try_recv().unwrap() else { panic!("nothing is shown") };
        assert_eq!((shown.text.as_str(), &shown.others[..]), ("ab", &["cd".to_owned(), "e".to_owned()][..]));
    }

    #[test]
    fn a_suggestion_outside_of_the_text_is_not_shown() {
        for range in [5..9, 9..9] {
            let (question, mut receiver) = question("abcde▮");
            question.answer(suggestion(range, "x"));
            assert_eq!(receiver.try_recv().unwrap(), Some(Answer::Nothing));
        }
    }

    #[test]
    fn an_explicit_question_has_more_time_until_it_is_complete_or_typed_on() {
        let (arrived, second) = (Instant::now(), Duration::from_secs(1));
        let due = Due { arrived, early: None, usual: arrived + second, latest: arrived + second * 10 };
        let (question, _) = question("▮");
        let (reply, _receiver) = Reply::new();
        question.renew(due, reply);
        let time = |at: u32| question.time_left(arrived + second * at, Duration::ZERO);
        assert_eq!((time(0).to_read, time(0).to_answer), (Some(second * 5), Some(second)));
        assert_eq!((time(2).to_read, time(2).to_answer), (Some(second * 4), Some(Duration::ZERO)));
        assert_eq!(question.time_left(arrived, second).to_read, Some(second * 9 / 2));
        question.settle();
        assert_eq!(question.deadline(), arrived + second);
        assert_eq!(time(0).to_read, Some(second));
        let (reply, _receiver) = Reply::new();
        question.renew(Due { early: Some(arrived), ..due }, reply);
        assert_eq!(time(0).to_read, Some(second), "a part is shown as soon as it is there");
        let typed = |at: u32| due.typed_on(arrived + second * at).latest - arrived;
        assert_eq!([0, 3, 9, 20].map(typed), [1, 4, 10, 10].map(|it| second * it));
    }

    #[test]
    fn asked_again_the_answer_goes_to_the_new_place() {
        let (question, mut first) = question("▮");
        assert!(question.is_same("a", &question.snapshot.clone()));
        question.supersede();
        let (reply, mut second) = Reply::new();
        question.renew(Instant::now().into(), reply);
        assert!(question.answer(suggestion(0..0, "x")));
        assert_eq!(first.try_recv().unwrap(), Some(Answer::Superseded));
        assert!(matches!(second.try_recv().unwrap(), Some(Answer::Shown(_))));
    }
}

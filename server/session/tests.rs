//! Tests of the session between keystrokes, with an engine that generates on demand: no test waits for time to pass.

use std::ops::ControlFlow;
use std::sync::mpsc;

use taper_engine::{
    Engine, EngineError, EngineInfo, Generation, GenerationLimits, PartialOutput, Prompt, StopReason,
    Tokenizer,
};

use super::*;
use crate::completion::{IdleSetting, Trigger};
use crate::text::Position;

mod explicit;
mod prefetch;

const URI: &str = "file:///a";
const OTHER: &str = "file:///b";
/// Time limit for anything that must happen, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the engine does next.
enum Order {
    /// Generate this, and call `watch`.
    Say(&'static str),
    /// End the text here.
    End,
}

/// What the engine did.
#[derive(Debug, PartialEq, Eq)]
enum Doing {
    /// It started with this text before the cursor.
    Begins(String),
    /// `watch` returned whether to continue.
    GoesOn(bool),
}

/// An engine that reports the whole prompt as cached.
struct Puppet {
    tokens: Tokenizer,
    about: EngineInfo,
    orders: mpsc::Receiver<Order>,
    doing: mpsc::Sender<Doing>,
}

impl Engine for Puppet {
    fn tokenizer(&self) -> &Tokenizer {
        &self.tokens
    }

    fn engine_info(&self) -> &EngineInfo {
        &self.about
    }

    fn generate(
        &mut self,
        prompt: &Prompt,
        limits: &GenerationLimits,
        watch: &mut dyn FnMut(PartialOutput<'_>) -> ControlFlow<()>,
    ) -> Result<Generation, EngineError> {
        let mut generation =
            Generation { reused: prompt.tokens.len(), ..Generation::empty(StopReason::Limit) };
        if limits.max_tokens == 0 {
            return Ok(generation);
        }
        let text = self.tokens.render(&prompt.tokens);
        let before = text.split("<|fim_suffix|>").next().unwrap().rsplit("<|fim_prefix|>").next().unwrap();
        let _ = self.doing.send(Doing::Begins(before.to_owned()));
        generation.stop = loop {
            match self.orders.recv() {
                Ok(Order::Say(text)) => generation.text += text,
                Ok(Order::End) => break StopReason::EndOfText,
                // The test is over.
                Err(_) => break StopReason::Interrupted,
            }
            let flow = watch(generation.partial_output());
            let _ = self.doing.send(Doing::GoesOn(flow.is_continue()));
            if flow.is_break() {
                break StopReason::Interrupted;
            }
        };
        Ok(generation)
    }

    fn clear(&mut self) {}

    fn uncached_token_count(&self, _: &Prompt, _: &GenerationLimits) -> usize {
        0
    }
}

/// A session with a puppet, and an editor with two documents.
struct Stage {
    session: Session,
    orders: mpsc::Sender<Order>,
    doing: mpsc::Receiver<Doing>,
    notices: mpsc::Receiver<Notice>,
    /// The cursor in the first document.
    cursor: u32,
    version: i64,
}

impl Stage {
    /// The first document is `x = ` and a line end, with the cursor before it.
    fn new(idle: IdleSetting) -> Self {
        Self::with(idle, false)
    }

    /// With an editor that `refreshes` its suggestion, and gets the first part at once.
    fn with(idle: IdleSetting, refreshes: bool) -> Self {
        Self::within(PATIENCE, idle, refreshes)
    }

    /// With a `latency_budget` for automatic requests.
    fn within(latency_budget: Duration, idle: IdleSetting, refreshes: bool) -> Self {
        let (orders, to_do) = mpsc::channel();
        let (does, doing) = mpsc::channel();
        let (notice, notices) = mpsc::channel();
        let mut to_do = Some(to_do);
        let (early_answer, explicit_budget) = (Duration::ZERO, PATIENCE);
        let mut settings = Settings { latency_budget, explicit_budget, early_answer, ..Settings::default() };
        settings.suggest.idle = idle;
        let session = Session::start(SessionStart {
            encoding: Encoding::Utf8,
            refreshes,
            settings,
            usage_recorder: Box::new(|_| ()),
            crawling: CrawlMode::Here,
            supervisor: ThreadSupervisor::new(|_| ()),
            source: Box::new(move |_| {
                let about = EngineInfo { context: 4096, ..EngineInfo::default() };
                let orders = to_do.take().unwrap();
                Ok(Box::new(Puppet { tokens: Tokenizer::bytes_only(), about, orders, doing: does.clone() }))
            }),
            notices: Box::new(move |it| {
                if !matches!(it, Notice::Trace(_)) {
                    notice.send(it).ok();
                }
            }),
        })
        .unwrap();
        let stage = Self { session, orders, doing, notices, cursor: 4, version: 1 };
        while !matches!(stage.notices.recv_timeout(PATIENCE).unwrap(), Notice::Loaded(_)) {}
        for uri in [URI, OTHER] {
            stage.session.send(Event::Opened(OpenedDocument {
                root: None,
                file: None,
                uri: uri.to_owned(),
                path: "a".to_owned(),
                language_id: "none".to_owned(),
                version: Some(1),
                text: "x = \n".to_owned(),
            }));
        }
        stage
    }

    /// Waits until the session has handled all events.
    fn settle(&self) {
        self.session.send(Event::Notify(Notice::Problem("settled".to_owned())));
        let settled = Notice::Problem("settled".to_owned());
        while self.notices.recv_timeout(PATIENCE).unwrap() != settled {}
    }

    fn ask_at(&self, uri: &str, character: u32) -> ResponseReceiver {
        self.ask_as(uri, character, Trigger::Automatic, false)
    }

    /// A popup request at the cursor, which editors report as explicit, as LSP prescribes.
    fn ask_for_popup(&self) -> ResponseReceiver {
        self.ask_as(URI, self.cursor, Trigger::Invoked, true)
    }

    fn ask_as(&self, uri: &str, character: u32, trigger: Trigger, popup: bool) -> ResponseReceiver {
        self.ask_on(uri, Position { line: 0, character }, trigger, popup)
    }

    fn ask_on(&self, uri: &str, position: Position, trigger: Trigger, popup: bool) -> ResponseReceiver {
        let (reply, receiver) = Responder::new();
        self.session.send(Event::Requested(ArrivedRequest {
            uri: uri.to_owned(),
            position,
            selected: None,
            trigger,
            popup,
            arrived: Instant::now(),
            reply,
        }));
        self.settle();
        receiver
    }

    /// With `foo` shown after the document's `x = `.
    fn showing_foo(idle: IdleSetting) -> Self {
        let stage = Self::new(idle);
        let first = stage.ask();
        stage.begins("x = ");
        stage.says("foo", true);
        stage.ends();
        shows(first, "foo");
        stage
    }

    /// After `x = f()`, where nothing is shown.
    fn behind_a_call() -> Self {
        let mut stage = Self::new(IdleSetting::Modest);
        let first = stage.press("f()");
        stage.begins("x = f()");
        stage.ends();
        assert_eq!(answer(first), CompletionResponse::Empty);
        stage
    }

    /// A request at the cursor.
    fn ask(&self) -> ResponseReceiver {
        self.ask_at(URI, self.cursor)
    }

    fn change(&mut self, at: u32, text: &str) {
        let at = Position { line: 0, character: at };
        self.version += 1;
        self.session.send(Event::Edited {
            uri: URI.to_owned(),
            version: Some(self.version),
            changes: vec![TextChange { range: Some(at..at), text: text.to_owned() }],
        });
        self.settle();
    }

    /// Deletes `count` characters before the cursor.
    fn remove(&mut self, count: u32) {
        let at = |character: u32| Position { line: 0, character };
        self.version += 1;
        self.session.send(Event::Edited {
            uri: URI.to_owned(),
            version: Some(self.version),
            changes: vec![TextChange {
                range: Some(at(self.cursor - count)..at(self.cursor)),
                text: String::new(),
            }],
        });
        self.cursor -= count;
        self.settle();
    }

    /// The cursor comes to rest.
    fn look(&self) {
        let position = Position { line: 0, character: self.cursor };
        self.session.send(Event::CursorRested { uri: URI.to_owned(), position });
        self.settle();
    }

    /// Presses Enter at the cursor, and sends a request on the new line.
    fn press_enter(&mut self) -> ResponseReceiver {
        self.change(self.cursor, "\n");
        self.ask_on(URI, Position { line: 1, character: 0 }, Trigger::Automatic, false)
    }

    /// Types at the cursor and sends a request there.
    fn press(&mut self, text: &str) -> ResponseReceiver {
        self.change(self.cursor, text);
        self.cursor += u32::try_from(text.len()).unwrap();
        self.ask()
    }

    #[track_caller]
    fn does(&self, doing: Doing) {
        assert_eq!(self.doing.recv_timeout(PATIENCE).unwrap(), doing);
    }

    #[track_caller]
    fn begins(&self, before: &str) {
        self.does(Doing::Begins(before.to_owned()));
    }

    /// Makes the engine generate `text`; `goes_on`: whether it is to continue.
    #[track_caller]
    fn says(&self, text: &'static str, goes_on: bool) {
        self.orders.send(Order::Say(text)).unwrap();
        self.does(Doing::GoesOn(goes_on));
    }

    fn ends(&self) {
        self.orders.send(Order::End).unwrap();
    }
}

/// The response, once it arrives.
fn answer(receiver: ResponseReceiver) -> CompletionResponse {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(receiver).unwrap()
}

#[track_caller]
fn shows(receiver: ResponseReceiver, text: &str) {
    let CompletionResponse::Shown(shown) = answer(receiver) else {
        panic!("nothing is shown instead of {text:?}")
    };
    assert_eq!(shown.text, text);
    assert_eq!(shown.range.start, shown.range.end);
}

#[test]
fn agreeing_in_flight_request_answers_newest_key() {
    let mut stage = Stage::new(IdleSetting::Modest);
    let first = stage.ask();
    stage.begins("x = ");
    stage.says("foo", true);
    let second = stage.press("f");
    stage.says("(a, ", true);
    let third = stage.press("oo");
    stage.says("b", true);
    // More than was generated so far.
    let fourth = stage.press("(a, b) +");
    stage.says(") ", true);
    stage.says("+ 1", true);
    stage.ends();
    for older in [first, second, third] {
        assert_eq!(answer(older), CompletionResponse::Superseded);
    }
    shows(fourth, " 1");
    stage.begins("x = foo(a, b) + 1");
}

#[test]
fn refreshing_client_gets_part_then_refresh() {
    let mut stage = Stage::with(IdleSetting::Off, true);
    let first = stage.ask();
    stage.begins("x = ");
    stage.says("fo", true);
    stage.says("o(a, ", true);
    shows(first, "foo(a,");
    // The next key also gets a part, and the work continues for it.
    let second = stage.press("f");
    stage.says("b", true);
    shows(second, "oo(a,");
    stage.says(") + 1", true);
    stage.ends();
    let grown = stage.notices.recv_timeout(PATIENCE).unwrap();
    let position = Position { line: 0, character: 5 };
    assert_eq!(grown, Notice::Refresh(Improvement { uri: URI.to_owned(), position, version: Some(2) }));
    let again = stage.ask();
    shows(again, "oo(a, b) + 1");
    assert!(stage.notices.try_recv().is_err(), "refreshed once");
}

#[test]
fn refresh_is_not_sent_for_stale_or_complete_text() {
    let mut stage = Stage::with(IdleSetting::Off, true);
    let first = stage.ask();
    stage.begins("x = ");
    stage.says("foo(a, ", true);
    shows(first, "foo(a,");
    stage.change(4, "f");
    stage.says("b)", true);
    stage.ends();
    stage.cursor += 1;
    // Once the engine works for another document, the session has handled the result.
    let other = stage.ask_at(OTHER, 4);
    stage.begins("x = ");
    // From the cache, whole.
    let second = stage.ask();
    shows(second, "oo(a, b)");
    stage.says("y ", true);
    shows(other, "y");
    stage.ends();
    stage.settle();
    assert!(stage.notices.try_recv().is_err());
}

#[test]
fn disagreeing_generation_is_cancelled_for_newer_request() {
    let mut stage = Stage::new(IdleSetting::Modest);
    let first = stage.ask();
    stage.begins("x = ");
    stage.says("foo", true);
    let second = stage.press("b");
    stage.says("(", false);
    stage.begins("x = b");
    stage.says("ar()", true);
    stage.ends();
    assert_eq!(answer(first), CompletionResponse::Superseded);
    shows(second, "ar()");
}

#[test]
fn popup_request_is_rebased_on_typing() {
    // The output agrees with the typed text: it continues, and is placed at the editor's original cursor.
    let mut stage = Stage::new(IdleSetting::Modest);
    let asked = stage.ask_for_popup();
    stage.begins("x = ");
    stage.says("foo(a, ", true);
    stage.change(4, "f");
    stage.change(5, "o");
    stage.says("b)", true);
    stage.ends();
    shows(asked, "foo(a, b)");

    // Nothing could be shown yet, and the output diverges: the model is run again.
    let mut stage = Stage::new(IdleSetting::Modest);
    let asked = stage.ask_for_popup();
    stage.begins("x = ");
    stage.change(4, "b");
    stage.says("foo(a, ", false);
    stage.begins("x = b");
    stage.says("ar()", true);
    stage.ends();
    shows(asked, "bar()");

    // The draft does not agree with the typed text: nothing is shown.
    let mut stage = Stage::new(IdleSetting::Modest);
    let asked = stage.ask_for_popup();
    stage.begins("x = ");
    stage.says("foo(a, ", true);
    stage.change(4, "b");
    assert_eq!(answer(asked), CompletionResponse::Superseded);
}

#[test]
fn first_popup_request_after_typing_is_automatic() {
    let mut stage = Stage::new(IdleSetting::Off);
    stage.change(4, "f");
    stage.cursor += 1;
    let first = stage.ask_for_popup();
    stage.begins("x = f");
    stage.says("oo(a)", true);
    stage.ends();
    shows(first, "oo(a)");
    // An explicit request wants alternatives: the engine is run again.
    let _second = stage.ask_for_popup();
    stage.begins("x = f");
}

#[test]
fn diverging_in_flight_request_is_restarted() {
    // The output diverges from the text typed beyond it, or ends there.
    for more in [Some("x"), None] {
        let mut stage = Stage::new(IdleSetting::Modest);
        let _first = stage.ask();
        stage.begins("x = ");
        stage.says("fo", true);
        let second = stage.press("foo");
        match more {
            Some(more) => stage.says(more, false),
            None => {
                stage.says("", true);
                stage.ends();
            }
        }
        stage.begins("x = foo");
        stage.says("(1)", true);
        stage.ends();
        shows(second, "(1)");
    }
}

#[test]
fn newest_key_wins_over_diverged_request() {
    let mut stage = Stage::new(IdleSetting::Modest);
    let _first = stage.ask();
    stage.begins("x = ");
    stage.says("fo", true);
    let second = stage.press("fo");
    stage.says("o", true);
    let third = stage.press("x");
    stage.says("(", false);
    stage.begins("x = fox");
    stage.ends();
    assert_eq!(answer(second), CompletionResponse::Superseded);
    assert_eq!(answer(third), CompletionResponse::Empty);
}

#[test]
fn only_typing_at_the_cursor_is_followed() {
    let stage = Stage::new(IdleSetting::Modest);
    let _first = stage.ask();
    stage.begins("x = ");
    // Another document with the same text.
    let other = stage.ask_at(OTHER, 4);
    stage.says("foo", false);
    stage.begins("x = ");
    stage.says("foo", true);
    // The same text, but another cursor.
    let second = stage.ask_at(OTHER, 3);
    stage.says("(", false);
    stage.begins("x =");
    stage.ends();
    assert_eq!(answer(other), CompletionResponse::Superseded);
    assert_eq!(answer(second), CompletionResponse::Empty);
}

#[test]
fn cancelled_request_still_serves_next_key() {
    let mut stage = Stage::new(IdleSetting::Modest);
    let first = stage.ask();
    stage.begins("x = ");
    drop(first);
    stage.says("foo", true);
    let second = stage.press("f");
    stage.says("(1)", true);
    stage.ends();
    shows(second, "oo(1)");
}

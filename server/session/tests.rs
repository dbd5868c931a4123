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
enum EngineCommand {
    /// Generate this, and call `watch`.
    Emit(&'static str),
    /// End the text here.
    Finish,
}

/// What the engine did.
#[derive(Debug, PartialEq, Eq)]
enum EngineStep {
    /// It started with this text before the cursor.
    Started(String),
    /// `watch` returned whether to continue.
    Polled { continues: bool },
}

/// An engine that reports the whole prompt as cached.
struct SteppedEngine {
    tokenizer: Tokenizer,
    info: EngineInfo,
    commands: mpsc::Receiver<EngineCommand>,
    steps: mpsc::Sender<EngineStep>,
}

impl Engine for SteppedEngine {
    fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    fn engine_info(&self) -> &EngineInfo {
        &self.info
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
        let text = self.tokenizer.render(&prompt.tokens);
        let before = text.split("<|fim_suffix|>").next().unwrap().rsplit("<|fim_prefix|>").next().unwrap();
        let _ = self.steps.send(EngineStep::Started(before.to_owned()));
        generation.stop = loop {
            match self.commands.recv() {
                Ok(EngineCommand::Emit(text)) => generation.text += text,
                Ok(EngineCommand::Finish) => break StopReason::EndOfText,
                // The test is over.
                Err(_) => break StopReason::Interrupted,
            }
            let flow = watch(generation.partial_output());
            let _ = self.steps.send(EngineStep::Polled { continues: flow.is_continue() });
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

/// A session with such an engine, and an editor with two documents.
struct TestSession {
    session: Session,
    commands: mpsc::Sender<EngineCommand>,
    steps: mpsc::Receiver<EngineStep>,
    notices: mpsc::Receiver<Notice>,
    /// The cursor in the first document.
    cursor: u32,
    version: i64,
}

impl TestSession {
    /// The first document is `x = ` and a line end, with the cursor before it.
    fn new(idle: IdleSetting) -> Self {
        Self::with_budget(PATIENCE, idle, false)
    }

    /// With an editor that refreshes its suggestion, and gets the first part at once.
    fn with_refresh(idle: IdleSetting) -> Self {
        Self::with_budget(PATIENCE, idle, true)
    }

    /// With a `latency_budget` for automatic requests.
    fn with_budget(latency_budget: Duration, idle: IdleSetting, refreshes: bool) -> Self {
        let (commands, engine_commands) = mpsc::channel();
        let (engine_steps, steps) = mpsc::channel();
        let (notice, notices) = mpsc::channel();
        let mut engine_commands = Some(engine_commands);
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
                Ok(Box::new(SteppedEngine {
                    tokenizer: Tokenizer::bytes_only(),
                    info: EngineInfo { context: 4096, ..EngineInfo::default() },
                    commands: engine_commands.take().unwrap(),
                    steps: engine_steps.clone(),
                }))
            }),
            notices: Box::new(move |it| {
                if !matches!(it, Notice::Trace(_)) {
                    notice.send(it).ok();
                }
            }),
        })
        .unwrap();
        let test = Self { session, commands, steps, notices, cursor: 4, version: 1 };
        while !matches!(test.notices.recv_timeout(PATIENCE).unwrap(), Notice::Loaded(_)) {}
        for uri in [URI, OTHER] {
            test.session.send(Event::Opened(OpenedDocument {
                root: None,
                file: None,
                uri: uri.to_owned(),
                path: "a".to_owned(),
                language_id: "none".to_owned(),
                version: Some(1),
                text: "x = \n".to_owned(),
            }));
        }
        test
    }

    /// Waits until the session has handled all events.
    fn settle(&self) {
        self.session.send(Event::Notify(Notice::Problem("settled".to_owned())));
        let settled = Notice::Problem("settled".to_owned());
        while self.notices.recv_timeout(PATIENCE).unwrap() != settled {}
    }

    fn request_at(&self, uri: &str, character: u32) -> ResponseReceiver {
        self.request_as(uri, character, Trigger::Automatic, false)
    }

    /// A popup request at the cursor, which editors report as explicit, as LSP prescribes.
    fn request_popup(&self) -> ResponseReceiver {
        self.request_as(URI, self.cursor, Trigger::Invoked, true)
    }

    fn request_as(&self, uri: &str, character: u32, trigger: Trigger, popup: bool) -> ResponseReceiver {
        self.send_request(uri, Position { line: 0, character }, trigger, popup)
    }

    fn send_request(&self, uri: &str, position: Position, trigger: Trigger, popup: bool) -> ResponseReceiver {
        let (responder, receiver) = Responder::new();
        self.session.send(Event::Requested(ArrivedRequest {
            uri: uri.to_owned(),
            position,
            selected: None,
            trigger,
            popup,
            arrived: Instant::now(),
            responder,
        }));
        self.settle();
        receiver
    }

    /// With `foo` shown after the document's `x = `.
    fn showing_foo(idle: IdleSetting) -> Self {
        let test = Self::new(idle);
        let first = test.request();
        test.expect_start("x = ");
        test.emit("foo", true);
        test.finish();
        assert_shown(first, "foo");
        test
    }

    /// After `x = f()`, where nothing is shown.
    fn after_call() -> Self {
        let mut test = Self::new(IdleSetting::Modest);
        let first = test.type_text("f()");
        test.expect_start("x = f()");
        test.finish();
        assert_eq!(response(first), CompletionResponse::Empty);
        test
    }

    /// A request at the cursor.
    fn request(&self) -> ResponseReceiver {
        self.request_at(URI, self.cursor)
    }

    fn insert(&mut self, at: u32, text: &str) {
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
    fn delete(&mut self, count: u32) {
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
    fn rest_cursor(&self) {
        let position = Position { line: 0, character: self.cursor };
        self.session.send(Event::CursorRested { uri: URI.to_owned(), position });
        self.settle();
    }

    /// Presses Enter at the cursor, and sends a request on the new line.
    fn type_enter(&mut self) -> ResponseReceiver {
        self.insert(self.cursor, "\n");
        self.send_request(URI, Position { line: 1, character: 0 }, Trigger::Automatic, false)
    }

    /// Types at the cursor and sends a request there.
    fn type_text(&mut self, text: &str) -> ResponseReceiver {
        self.insert(self.cursor, text);
        self.cursor += u32::try_from(text.len()).unwrap();
        self.request()
    }

    #[track_caller]
    fn expect_step(&self, step: EngineStep) {
        assert_eq!(self.steps.recv_timeout(PATIENCE).unwrap(), step);
    }

    #[track_caller]
    fn expect_start(&self, before: &str) {
        self.expect_step(EngineStep::Started(before.to_owned()));
    }

    /// Makes the engine generate `text`; `continues`: whether it is to continue.
    #[track_caller]
    fn emit(&self, text: &'static str, continues: bool) {
        self.commands.send(EngineCommand::Emit(text)).unwrap();
        self.expect_step(EngineStep::Polled { continues });
    }

    fn finish(&self) {
        self.commands.send(EngineCommand::Finish).unwrap();
    }
}

/// The response, once it arrives.
fn response(receiver: ResponseReceiver) -> CompletionResponse {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(receiver).unwrap()
}

#[track_caller]
fn assert_shown(receiver: ResponseReceiver, text: &str) {
    let CompletionResponse::Shown(shown) = response(receiver) else {
        panic!("nothing is shown instead of {text:?}")
    };
    assert_eq!(shown.text, text);
    assert_eq!(shown.range.start, shown.range.end);
}

#[test]
fn agreeing_in_flight_request_answers_newest_key() {
    let mut test = TestSession::new(IdleSetting::Modest);
    let first = test.request();
    test.expect_start("x = ");
    test.emit("foo", true);
    let second = test.type_text("f");
    test.emit("(a, ", true);
    let third = test.type_text("oo");
    test.emit("b", true);
    // More than was generated so far.
    let fourth = test.type_text("(a, b) +");
    test.emit(") ", true);
    test.emit("+ 1", true);
    test.finish();
    for older in [first, second, third] {
        assert_eq!(response(older), CompletionResponse::Superseded);
    }
    assert_shown(fourth, " 1");
    test.expect_start("x = foo(a, b) + 1");
}

#[test]
fn refreshing_client_gets_part_then_refresh() {
    let mut test = TestSession::with_refresh(IdleSetting::Off);
    let first = test.request();
    test.expect_start("x = ");
    test.emit("fo", true);
    test.emit("o(a, ", true);
    assert_shown(first, "foo(a,");
    // The next key also gets a part, and the work continues for it.
    let second = test.type_text("f");
    test.emit("b", true);
    assert_shown(second, "oo(a,");
    test.emit(") + 1", true);
    test.finish();
    let notice = test.notices.recv_timeout(PATIENCE).unwrap();
    let position = Position { line: 0, character: 5 };
    assert_eq!(notice, Notice::Refresh(Improvement { uri: URI.to_owned(), position, version: Some(2) }));
    let again = test.request();
    assert_shown(again, "oo(a, b) + 1");
    assert!(test.notices.try_recv().is_err(), "refreshed once");
}

#[test]
fn refresh_is_not_sent_for_stale_or_complete_text() {
    let mut test = TestSession::with_refresh(IdleSetting::Off);
    let first = test.request();
    test.expect_start("x = ");
    test.emit("foo(a, ", true);
    assert_shown(first, "foo(a,");
    test.insert(4, "f");
    test.emit("b)", true);
    test.finish();
    test.cursor += 1;
    // Once the engine works for another document, the session has handled the result.
    let other = test.request_at(OTHER, 4);
    test.expect_start("x = ");
    // From the cache, whole.
    let second = test.request();
    assert_shown(second, "oo(a, b)");
    test.emit("y ", true);
    assert_shown(other, "y");
    test.finish();
    test.settle();
    assert!(test.notices.try_recv().is_err());
}

#[test]
fn disagreeing_generation_is_cancelled_for_newer_request() {
    let mut test = TestSession::new(IdleSetting::Modest);
    let first = test.request();
    test.expect_start("x = ");
    test.emit("foo", true);
    let second = test.type_text("b");
    test.emit("(", false);
    test.expect_start("x = b");
    test.emit("ar()", true);
    test.finish();
    assert_eq!(response(first), CompletionResponse::Superseded);
    assert_shown(second, "ar()");
}

#[test]
fn popup_request_is_rebased_on_typing() {
    // The output agrees with the typed text: it continues, and is placed at the editor's original cursor.
    let mut test = TestSession::new(IdleSetting::Modest);
    let popup = test.request_popup();
    test.expect_start("x = ");
    test.emit("foo(a, ", true);
    test.insert(4, "f");
    test.insert(5, "o");
    test.emit("b)", true);
    test.finish();
    assert_shown(popup, "foo(a, b)");

    // Nothing could be shown yet, and the output diverges: the model is run again.
    let mut test = TestSession::new(IdleSetting::Modest);
    let popup = test.request_popup();
    test.expect_start("x = ");
    test.insert(4, "b");
    test.emit("foo(a, ", false);
    test.expect_start("x = b");
    test.emit("ar()", true);
    test.finish();
    assert_shown(popup, "bar()");

    // The draft does not agree with the typed text: nothing is shown.
    let mut test = TestSession::new(IdleSetting::Modest);
    let popup = test.request_popup();
    test.expect_start("x = ");
    test.emit("foo(a, ", true);
    test.insert(4, "b");
    assert_eq!(response(popup), CompletionResponse::Superseded);
}

#[test]
fn first_popup_request_after_typing_is_automatic() {
    let mut test = TestSession::new(IdleSetting::Off);
    test.insert(4, "f");
    test.cursor += 1;
    let first = test.request_popup();
    test.expect_start("x = f");
    test.emit("oo(a)", true);
    test.finish();
    assert_shown(first, "oo(a)");
    // An explicit request wants alternatives: the engine is run again.
    let _second = test.request_popup();
    test.expect_start("x = f");
}

#[test]
fn diverging_in_flight_request_is_restarted() {
    // The output diverges from the text typed beyond it, or ends there.
    for more in [Some("x"), None] {
        let mut test = TestSession::new(IdleSetting::Modest);
        let _first = test.request();
        test.expect_start("x = ");
        test.emit("fo", true);
        let second = test.type_text("foo");
        match more {
            Some(more) => test.emit(more, false),
            None => {
                test.emit("", true);
                test.finish();
            }
        }
        test.expect_start("x = foo");
        test.emit("(1)", true);
        test.finish();
        assert_shown(second, "(1)");
    }
}

#[test]
fn newest_key_wins_over_diverged_request() {
    let mut test = TestSession::new(IdleSetting::Modest);
    let _first = test.request();
    test.expect_start("x = ");
    test.emit("fo", true);
    let second = test.type_text("fo");
    test.emit("o", true);
    let third = test.type_text("x");
    test.emit("(", false);
    test.expect_start("x = fox");
    test.finish();
    assert_eq!(response(second), CompletionResponse::Superseded);
    assert_eq!(response(third), CompletionResponse::Empty);
}

#[test]
fn only_typing_at_cursor_retargets_generation() {
    let test = TestSession::new(IdleSetting::Modest);
    let _first = test.request();
    test.expect_start("x = ");
    // Another document with the same text.
    let other = test.request_at(OTHER, 4);
    test.emit("foo", false);
    test.expect_start("x = ");
    test.emit("foo", true);
    // The same text, but another cursor.
    let second = test.request_at(OTHER, 3);
    test.emit("(", false);
    test.expect_start("x =");
    test.finish();
    assert_eq!(response(other), CompletionResponse::Superseded);
    assert_eq!(response(second), CompletionResponse::Empty);
}

#[test]
fn cancelled_request_still_serves_next_key() {
    let mut test = TestSession::new(IdleSetting::Modest);
    let first = test.request();
    test.expect_start("x = ");
    drop(first);
    test.emit("foo", true);
    let second = test.type_text("f");
    test.emit("(1)", true);
    test.finish();
    assert_shown(second, "oo(1)");
}

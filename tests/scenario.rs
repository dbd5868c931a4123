//! One document in a real server with a scripted engine, step by step. The cursor is at `▮`:
//!
//! ```ignore
//! scenario("x = ▮").model("foo").type_text("f").expect("oo");
//! ```
//!
//! The first step starts the server; the end of the scenario shuts it down.

use serde_json::{Value, json};
use taper::text::{Encoding, Position, Rope, position};

use crate::client::{Client, explicit_params, first_text, inline_params, insertion, item_texts};
use crate::script::Script;

/// A server to be, and then a running one.
pub(crate) struct Scenario {
    // Dropped before the script, which its engine reads.
    server: RunningServer,
    script: Script,
    path: String,
    environment: Vec<(String, String)>,
    options: Value,
    text_document: Value,
    experimental: Value,
    /// The document's text, without the mark.
    text: String,
    /// In bytes.
    cursor: usize,
    version: i64,
    /// The last expected suggestion.
    suggestion: String,
}

/// Shuts the server down at the end of a test that passed.
struct RunningServer(Option<Client>);

impl Drop for RunningServer {
    fn drop(&mut self) {
        if let Some(client) = self.0.take().filter(|_| !std::thread::panicking()) {
            client.quit();
        }
    }
}

/// A Python file with the cursor at `▮`, and an engine that says nothing.
#[track_caller]
pub(crate) fn scenario(marked: &str) -> Scenario {
    let (text, cursor) = read_marked(marked);
    Scenario {
        server: RunningServer(None),
        script: Script::new(),
        path: "src/a.py".to_owned(),
        environment: Vec::new(),
        options: json!({}),
        text_document: json!({ "inlineCompletion": {} }),
        experimental: json!({}),
        text,
        cursor,
        version: 1,
        suggestion: String::new(),
    }
}

#[track_caller]
fn read_marked(marked: &str) -> (String, usize) {
    let (before, after) = marked.split_once('▮').expect("a `▮` for the cursor");
    (format!("{before}{after}"), before.len())
}

fn language_of(path: &str) -> &'static str {
    taper_grammars::by_path(path.as_ref()).map_or("unknown", |language| language.name)
}

/// What is there before the first step.
impl Scenario {
    /// The engine's answer at the present cursor, and the rest of it where a part is typed already.
    pub(crate) fn model(self, answer: &str) -> Self {
        let before = &self.text[..self.cursor];
        let line = before.trim_end().rfind('\n').map_or(0, |end| end + 1);
        let before = before[line..].to_owned();
        // The whole answer last: alternatives are added to it.
        answer.char_indices().rev().fold(self, |this, (typed, _)| {
            let (typed, rest) = answer.split_at(typed);
            this.when(&format!("{before}{}", typed.replace('⏸', "")), rest)
        })
    }

    /// The engine's answer where the text before the cursor ends with `before`; the first one that fits counts.
    pub(crate) fn when(self, before: &str, answer: &str) -> Self {
        self.script(|script| script.when(before, answer))
    }

    /// Adds an alternative to the last answer.
    pub(crate) fn or(self, answer: &str) -> Self {
        self.script(|script| script.or(answer))
    }

    /// More about the engine: its delays, gates and failures.
    pub(crate) fn script(mut self, change: impl FnOnce(Script) -> Script) -> Self {
        self.script = change(self.script);
        self
    }

    /// The document's path in the project, which decides its language.
    pub(crate) fn file(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    /// An option of the server.
    pub(crate) fn option(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.options[name] = value.into();
        self
    }

    /// An environment variable of the server.
    pub(crate) fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The editor announces one of taper's capabilities: `refresh`, `status`, `accepted`.
    pub(crate) fn announcing(mut self, capability: &str) -> Self {
        self.experimental[capability] = json!(true);
        self
    }

    /// The editor has no inline completion, only popups.
    pub(crate) fn with_popups(mut self) -> Self {
        self.text_document = json!({});
        self
    }
}

/// Steps of the user and the editor.
impl Scenario {
    /// The server, for what this page has no word for.
    #[track_caller]
    pub(crate) fn client(&mut self) -> &mut Client {
        let uri = self.uri();
        self.server.0.get_or_insert_with(|| {
            let environment: Vec<(&str, &str)> =
                self.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let arguments = ["--stdio", "--engine", &self.script.written()];
            let mut client = Client::start_with(&arguments, &environment);
            client.initialize(json!({
                "processId": null,
                "rootUri": "file:///w",
                "capabilities": {
                    "textDocument": self.text_document,
                    "experimental": { "taper": self.experimental },
                },
                "initializationOptions": self.options,
            }));
            client.wait_ready();
            client.open(&uri, language_of(&self.path), &self.text);
            client
        })
    }

    pub(crate) fn uri(&self) -> String {
        format!("file:///w/{}", self.path)
    }

    /// The cursor in UTF-16.
    pub(crate) fn position(&self) -> Position {
        position::position_at(&Rope::from_str(&self.text), self.cursor, Encoding::Utf16)
    }

    /// Types at the cursor.
    #[track_caller]
    pub(crate) fn type_text(&mut self, typed: &str) -> &mut Self {
        let (uri, at, version) = (self.uri(), self.position(), self.version + 1);
        let change = insertion(&uri, version, at.line, at.character, typed);
        self.client().notify("textDocument/didChange", change);
        self.version = version;
        self.text.insert_str(self.cursor, typed);
        self.cursor += typed.len();
        self
    }

    /// Shuts the server down now; returns its log.
    #[track_caller]
    pub(crate) fn quit(mut self) -> String {
        self.server.0.take().expect("a running server").quit()
    }

    /// Accepts the last expected suggestion.
    #[track_caller]
    pub(crate) fn accept(&mut self) -> &mut Self {
        let suggestion = self.suggestion.clone();
        self.type_text(&suggestion)
    }

    /// Moves the cursor to the `▮` of `marked`, whose text occurs once in the document.
    #[track_caller]
    pub(crate) fn move_to(&mut self, marked: &str) -> &mut Self {
        let (text, offset) = read_marked(marked);
        assert_eq!(self.text.matches(&text).count(), 1, "{text:?} in {:?}", self.text);
        self.cursor = self.text.find(&text).unwrap() + offset;
        self
    }

    /// Replaces the document by `marked`.
    #[track_caller]
    pub(crate) fn edit(&mut self, marked: &str) -> &mut Self {
        self.client();
        (self.text, self.cursor) = read_marked(marked);
        self.version += 1;
        let document = json!({ "uri": self.uri(), "version": self.version });
        let params = json!({ "textDocument": document, "contentChanges": [{ "text": self.text }] });
        self.client().notify("textDocument/didChange", params);
        self
    }

    /// Closes the document.
    #[track_caller]
    pub(crate) fn close(&mut self) -> &mut Self {
        let uri = self.uri();
        self.client().close(&uri);
        self
    }

    /// Opens the document again, as `marked`.
    #[track_caller]
    pub(crate) fn reopen(&mut self, marked: &str) -> &mut Self {
        self.client();
        (self.text, self.cursor) = read_marked(marked);
        self.version = 1;
        let (uri, language, text) = (self.uri(), language_of(&self.path), self.text.clone());
        self.client().open(&uri, language, &text);
        self
    }

    /// The cursor rests.
    #[track_caller]
    pub(crate) fn rest(&mut self) -> &mut Self {
        let params = self.params();
        self.client().notify("taper/cursor", params);
        self
    }

    /// Changes the editor's settings.
    #[track_caller]
    pub(crate) fn change_settings(&mut self, settings: Value) -> &mut Self {
        let params = json!({ "settings": settings });
        self.client().notify("workspace/didChangeConfiguration", params);
        self
    }

    /// Lets the engine pass every `⏸`.
    pub(crate) fn open_gate(&mut self) -> &mut Self {
        self.script.open_gate();
        self
    }

    /// Requests a suggestion without waiting; returns the request's id.
    #[track_caller]
    pub(crate) fn request(&mut self) -> i64 {
        let params = self.params();
        self.client().request("textDocument/inlineCompletion", params)
    }

    /// [`request`](Self::request) with the key for it.
    #[track_caller]
    pub(crate) fn request_explicitly(&mut self) -> i64 {
        let at = self.position();
        let params = explicit_params(&self.uri(), at.line, at.character);
        self.client().request("textDocument/inlineCompletion", params)
    }

    fn params(&self) -> Value {
        let at = self.position();
        inline_params(&self.uri(), at.line, at.character)
    }
}

/// What the test expects.
impl Scenario {
    /// Requests a suggestion as typing does: its text, empty for none.
    #[track_caller]
    pub(crate) fn expect(&mut self, text: &str) -> &mut Self {
        let request = self.request();
        self.expect_response(request, text)
    }

    /// The response to an earlier request.
    #[track_caller]
    pub(crate) fn expect_response(&mut self, request: i64, text: &str) -> &mut Self {
        self.suggestion = first_text(&self.client().answer(request));
        assert_eq!(self.suggestion, text);
        self
    }

    /// A newer request or a change of the text ended an earlier request.
    #[track_caller]
    pub(crate) fn expect_superseded(&mut self, request: i64) -> &mut Self {
        let answer = self.client().answer(request);
        assert_eq!(answer["error"]["code"], -32800, "{answer}");
        self
    }

    /// Requests suggestions with the key for it: all of them, the best first.
    #[track_caller]
    pub(crate) fn expect_explicit(&mut self, texts: &[&str]) -> &mut Self {
        let request = self.request_explicitly();
        assert_eq!(item_texts(&self.client().answer(request)), texts);
        self
    }

    /// The response is a part of `whole`, neither nothing nor all of it.
    #[track_caller]
    pub(crate) fn expect_part_of(&mut self, request: i64, whole: &str) -> &mut Self {
        self.expect_less_than(request, whole);
        assert_ne!(self.suggestion, "");
        self
    }

    /// The response, sent at a deadline, is a part of `whole`, or nothing if the machine pauses.
    #[track_caller]
    pub(crate) fn expect_less_than(&mut self, request: i64, whole: &str) -> &mut Self {
        self.suggestion = first_text(&self.client().answer(request));
        let part = &self.suggestion;
        assert!(part.len() < whole.len() && whole.starts_with(part), "{part:?}");
        self
    }

    /// Waits until the server has traced `event` this often.
    #[track_caller]
    pub(crate) fn wait_traced(&mut self, event: &str, times: usize) -> &mut Self {
        self.client().wait_traces(event, &json!({}), times);
        self
    }

    /// The server has traced `event` this often, and no more than that by now; returns these events.
    #[track_caller]
    pub(crate) fn expect_traced(&mut self, event: &str, times: usize) -> Vec<Value> {
        let traced = self.wait_traced(event, times).client().traced(event);
        assert_eq!(traced.len(), times, "{traced:?}");
        traced
    }

    /// The server shows the user a message with this text.
    #[track_caller]
    pub(crate) fn expect_message(&mut self, text: &str) -> &mut Self {
        self.client().notice("window/showMessage", text);
        self
    }

    /// There is no message that was not expected.
    #[track_caller]
    pub(crate) fn expect_no_message(&mut self) -> &mut Self {
        let notices = &self.client().notices;
        assert!(notices.iter().all(|it| it["method"] != "window/showMessage"), "{notices:?}");
        self
    }
}

#[test]
fn suggestion_is_typed_through_and_accepted() {
    scenario("x = ▮").model("foo").type_text("f").expect("oo").accept().expect("");
}

//! A minimal editor: speaks LSP with the built program over real pipes and requires exactly one response per request.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use taper_eval::lsp_client::{Incoming, LspClient};
pub(crate) use taper_eval::lsp_client::{frame, inline_params, insertion, notification};

use crate::script::Script;

/// Timeout for anything that must arrive, also on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The params of an inline completion that the user requests with a key.
pub(crate) fn explicit_params(uri: &str, line: u32, character: u32) -> Value {
    let mut params = inline_params(uri, line, character);
    params["context"]["triggerKind"] = json!(1);
    params
}

/// The texts of the items in a response, the best first.
#[track_caller]
pub(crate) fn item_texts(answer: &Value) -> Vec<String> {
    let items = answer["result"]["items"].as_array().unwrap_or_else(|| panic!("no items: {answer}"));
    items.iter().map(|item| item["insertText"].as_str().unwrap().to_owned()).collect()
}

/// The text of the first item, empty if there is none.
#[track_caller]
pub(crate) fn first_text(answer: &Value) -> String {
    item_texts(answer).into_iter().next().unwrap_or_default()
}

/// A running server and the messages received from it. When dropped, it asserts that every request got one response.
pub(crate) struct Client {
    lsp: LspClient,
    waiting: HashSet<i64>,
    answers: HashMap<i64, (Value, Instant)>,
    /// Unexpected responses: duplicates, or with an unknown id.
    stray: Vec<Value>,
    /// Errors without an id, as for malformed messages.
    pub(crate) nameless: Vec<Value>,
    /// Notifications not yet waited for, oldest first.
    pub(crate) notices: Vec<Value>,
    /// The response to `workspace/configuration`.
    pub(crate) configuration: Value,
    /// What the server announced in its response to `initialize`.
    pub(crate) capabilities: Value,
    /// Parameters of `taper/trace`, oldest first.
    traces: Vec<Value>,
    barriers: usize,
    log: Arc<Mutex<String>>,
    /// The thread that reads the log until the server ends.
    logger: Option<JoinHandle<()>>,
    allows_strays: bool,
}

impl Client {
    /// Starts the server with these arguments, without the user's configuration and models.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, &[])
    }

    /// [`start`](Self::start) with additional environment variables.
    pub(crate) fn start_with(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_taper"));
        command
            .arg("serve")
            .args(arguments)
            .env("TAPER_LOG", "warn,taper=debug")
            .env("XDG_CONFIG_HOME", "/nonexistent")
            .env("TAPER_HOME", "/dev/null/taper")
            .envs(environment.iter().copied())
            .stderr(Stdio::piped());
        let mut lsp = LspClient::start(&mut command).unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let lines = Arc::clone(&log);
        let stderr = BufReader::new(lsp.take_stderr().unwrap());
        let logger = thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let mut log = lines.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        Self {
            lsp,
            waiting: HashSet::new(),
            answers: HashMap::new(),
            stray: Vec::new(),
            nameless: Vec::new(),
            notices: Vec::new(),
            configuration: Value::Null,
            capabilities: Value::Null,
            traces: Vec::new(),
            barriers: 0,
            log,
            logger: Some(logger),
            allows_strays: false,
        }
    }

    /// Starts the server, initializes it with these options, and waits until the model is loaded.
    pub(crate) fn ready(arguments: &[&str], options: Value) -> Self {
        let mut client = Self::start(arguments);
        client.hello(options);
        client.wait_ready();
        client
    }

    /// Sends `initialize` as an editor with inline completion and UTF-16, then `initialized`; returns the result.
    pub(crate) fn hello(&mut self, options: Value) -> Value {
        self.initialize(json!({
            "processId": null,
            "rootUri": "file:///w",
            "capabilities": {
                "textDocument": { "inlineCompletion": {} },
                "window": { "workDoneProgress": true },
            },
            "initializationOptions": options,
        }))
    }

    /// Sends `initialize` with these params, then `initialized`; returns the result. Budgets are long unless the
    /// options set them: only tests of deadlines may depend on the machine's load.
    pub(crate) fn initialize(&mut self, mut params: Value) -> Value {
        let options = &mut params["initializationOptions"];
        for budget in ["latency-budget-ms", "explicit-budget-ms"] {
            if options.get(budget).is_none() {
                options[budget] = json!(20_000);
            }
        }
        // Tests follow the server by its traces.
        let capabilities = &mut params["capabilities"];
        capabilities["experimental"]["taper"]["trace"] = json!(true);
        let answer = self.ask("initialize", params);
        self.notify("initialized", json!({}));
        assert_eq!(answer["error"], Value::Null);
        self.capabilities = answer["result"]["capabilities"].clone();
        answer["result"].clone()
    }

    /// Waits until the server reports that the model is loaded.
    pub(crate) fn wait_ready(&mut self) {
        self.wait_trace("modelLoaded", &json!({}));
    }

    /// Sends a request; returns its id.
    pub(crate) fn request(&mut self, method: &str, params: Value) -> i64 {
        let (id, message) = self.prepare(method, params);
        self.raw(&message);
        id
    }

    /// A request to be sent with [`Client::raw`], and its id.
    pub(crate) fn prepare(&mut self, method: &str, params: Value) -> (i64, Vec<u8>) {
        let (id, message) = self.lsp.prepare(method, params);
        self.waiting.insert(id);
        (id, message)
    }

    /// Sends a notification.
    pub(crate) fn notify(&mut self, method: &str, params: Value) {
        self.lsp.notify(method, params).unwrap();
    }

    /// Sends raw bytes.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.lsp.send(bytes).unwrap();
    }

    /// Waits for the response to a request.
    #[track_caller]
    pub(crate) fn answer(&mut self, id: i64) -> Value {
        self.timed_answer(id).0
    }

    /// Waits for the response to a request; returns it with its time of arrival.
    #[track_caller]
    pub(crate) fn timed_answer(&mut self, id: i64) -> (Value, Instant) {
        self.until(&format!("the answer to request {id}"), |client| client.answers.remove(&id))
    }

    /// Sends a request and waits for its response.
    #[track_caller]
    pub(crate) fn ask(&mut self, method: &str, params: Value) -> Value {
        let id = self.request(method, params);
        self.answer(id)
    }

    /// Waits for a notification of this method whose params contain `text`, and removes it.
    #[track_caller]
    pub(crate) fn notice(&mut self, method: &str, text: &str) -> Value {
        self.until(&format!("{method} with {text:?}"), |client| {
            let found =
                |notice: &Value| notice["method"] == method && notice["params"].to_string().contains(text);
            let at = client.notices.iter().position(found)?;
            Some(client.notices.remove(at))
        })
    }

    /// Waits for an error without an id; returns its code.
    #[track_caller]
    pub(crate) fn nameless_error(&mut self) -> i64 {
        let error = self.until("an error without an id", |client| {
            (!client.nameless.is_empty()).then(|| client.nameless.remove(0))
        });
        error["error"]["code"].as_i64().unwrap()
    }

    #[track_caller]
    fn until<T>(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = done(self) {
                return found;
            }
            match self.lsp.receive(end) {
                Ok(Some(incoming)) => self.sort(incoming),
                Ok(None) => panic!("waited in vain for {what}"),
                Err(_) => panic!("the server ended before {what}"),
            }
        }
    }

    fn sort(&mut self, Incoming { message, at }: Incoming) {
        match (message.get("method").is_some(), message.get("id").cloned()) {
            (true, Some(id)) => {
                // Every request of the server succeeds.
                let asks = message["method"] == "workspace/configuration";
                let result = if asks { self.configuration.clone() } else { Value::Null };
                self.notices.push(message);
                if self.lsp.is_input_open() {
                    self.lsp.respond(&id, &result).unwrap();
                }
            }
            (true, None) if message["method"] == "taper/trace" => self.traces.push(message["params"].clone()),
            (true, None) => self.notices.push(message),
            (false, Some(Value::Null) | None) => self.nameless.push(message),
            (false, Some(id)) => match id.as_i64().filter(|id| self.waiting.remove(id)) {
                Some(id) => drop(self.answers.insert(id, (message, at))),
                None => self.stray.push(message),
            },
        }
    }

    /// Waits until the server has traced an event with these fields.
    #[track_caller]
    pub(crate) fn wait_trace(&mut self, event: &str, fields: &Value) {
        self.wait_traces(event, fields, 1);
    }

    /// Waits until the server has traced an event with these fields `times` times.
    #[track_caller]
    pub(crate) fn wait_traces(&mut self, event: &str, fields: &Value, times: usize) {
        let fields = fields.as_object().unwrap();
        let fits = |trace: &&Value| {
            trace["event"] == event && fields.iter().all(|(name, value)| trace[name.as_str()] == *value)
        };
        self.until(&format!("the event {event} with {fields:?}, {times} times"), |client| {
            (client.traces.iter().filter(fits).count() >= times).then_some(())
        });
    }

    /// Waits until the workspace index with this many files is complete.
    #[track_caller]
    pub(crate) fn wait_indexed(&mut self, files: usize) {
        self.wait_trace("workspaceIndexed", &json!({ "files": files, "waiting": 0 }));
    }

    /// The traced events of this kind, after everything that the session has done so far.
    #[track_caller]
    pub(crate) fn traced(&mut self, event: &str) -> Vec<Value> {
        self.traced_of(&[event])
    }

    /// The traced events of these kinds, as [`traced`](Self::traced).
    #[track_caller]
    pub(crate) fn traced_of(&mut self, events: &[&str]) -> Vec<Value> {
        self.barriers += 1;
        let uri = format!("barrier:{}", self.barriers);
        self.notify("textDocument/didChange", insertion(&uri, 1, 0, 0, "x"));
        self.wait_trace("unknownDocument", &json!({ "uri": uri }));
        self.traces.iter().filter(|it| events.iter().any(|event| it["event"] == *event)).cloned().collect()
    }

    /// The server's log so far; complete after [`ended`](Client::ended).
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.lsp.pid()
    }

    /// Closes the server's input.
    pub(crate) fn hang_up(&mut self) {
        self.lsp.close_input();
    }

    /// Waits until the server has ended; returns its exit status.
    #[track_caller]
    pub(crate) fn ended(&mut self) -> ExitStatus {
        loop {
            // The pipe closes when the process ends, so this does not sleep.
            match self.lsp.receive(Instant::now() + PATIENCE) {
                Ok(Some(incoming)) if incoming.message.get("method").is_none() => self.sort(incoming),
                Ok(Some(incoming)) => self.notices.push(incoming.message),
                Ok(None) => panic!("the server does not end"),
                Err(_) => break,
            }
        }
        let status = self.lsp.wait().unwrap();
        if let Some(logger) = self.logger.take() {
            logger.join().unwrap();
        }
        status
    }

    /// Stops expecting responses: the server had no time to send them.
    pub(crate) fn forget_requests(&mut self) {
        self.waiting.clear();
    }

    /// Allows unexpected responses, after input that was damaged on purpose.
    pub(crate) fn allow_strays(&mut self) {
        self.allows_strays = true;
    }

    /// Opens a document in version 1.
    pub(crate) fn open(&mut self, uri: &str, language: &str, text: &str) {
        self.lsp.open(uri, language, text).unwrap();
    }

    /// Inserts text into a document, which makes this version of it.
    pub(crate) fn insert(&mut self, uri: &str, version: i64, line: u32, character: u32, text: &str) {
        self.notify("textDocument/didChange", insertion(uri, version, line, character, text));
    }

    /// Closes a document.
    pub(crate) fn close(&mut self, uri: &str) {
        self.notify("textDocument/didClose", json!({ "textDocument": { "uri": uri } }));
    }

    /// Requests an inline completion and waits for the response: the text of its item, empty if there is none.
    #[track_caller]
    pub(crate) fn inline(&mut self, uri: &str, line: u32, character: u32) -> String {
        first_text(&self.ask("textDocument/inlineCompletion", inline_params(uri, line, character)))
    }

    /// Sends `shutdown` and `exit`; the server must end with 0. Returns its log.
    #[track_caller]
    pub(crate) fn quit(mut self) -> String {
        assert_eq!(self.ask("shutdown", Value::Null)["result"], Value::Null);
        self.notify("exit", Value::Null);
        let status = self.ended();
        assert!(status.success(), "{status}");
        self.log()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if thread::panicking() {
            #[expect(clippy::print_stderr, reason = "a failing test shows why")]
            {
                let traces: Vec<String> = self.traces.iter().map(Value::to_string).collect();
                eprintln!("traces:\n{}\nthe server's log:\n{}", traces.join("\n"), self.log());
            }
            return;
        }
        // Messages still in transit count.
        let end = Instant::now() + PATIENCE;
        while !self.waiting.is_empty()
            && let Ok(Some(incoming)) = self.lsp.receive(end)
        {
            self.sort(incoming);
        }
        assert!(self.waiting.is_empty(), "requests without a response: {:?}", self.waiting);
        if self.allows_strays {
            return;
        }
        assert!(self.stray.is_empty(), "unexpected responses: {:?}", self.stray);
        assert!(self.nameless.is_empty(), "unexpected errors: {:?}", self.nameless);
    }
}

impl Script {
    /// Starts a server with this engine in a project, with a token budget for other files, and waits for the model.
    pub(crate) fn serve_in(&self, root: &Path) -> Client {
        let mut client = Client::start(&["--stdio", "--engine", &self.written()]);
        client.initialize(json!({
            "processId": null,
            "rootUri": format!("file://{}", root.display()),
            "capabilities": { "textDocument": { "inlineCompletion": {} } },
            "initializationOptions": { "snippet-tokens": 512 },
        }));
        client.wait_ready();
        client
    }
}

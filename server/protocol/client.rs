//! The other end of the pipes: an editor without a screen, for measuring a server as people meet it.
//! It knows nothing of what is typed and when, or of what an answer is worth.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use serde_json::{Value, json};
use thiserror::Error;
use tower_lsp::ls_types::notification::Notification;

use crate::protocol::messages::{self, TaperRefresh};
use crate::protocol::trace::TaperTrace;
use crate::text::Position;

/// How long the server may take to say hello and to say goodbye.
const PATIENCE: Duration = Duration::from_secs(20);

/// What goes wrong between the two.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The process cannot be started.
    #[error("cannot start {program}: {cause}")]
    Start {
        /// What was to run.
        program: String,
        /// Why it does not.
        cause: io::Error,
    },
    /// It ended, or closed its pipes.
    #[error("the server ended while it was needed; what it last said on stderr is above")]
    Ended,
    /// It did not do something for long.
    #[error("the server did not {what} within {} s", .patience.as_secs())]
    Silent {
        /// What it was to do.
        what: &'static str,
        /// How long it was waited for.
        patience: Duration,
    },
    /// It cannot do its work.
    #[error("the server says: {0}")]
    Problem(String),
}

/// What the answer to a question is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A suggestion.
    Text {
        /// The text of its first item.
        text: String,
        /// Whether it only inserts, so that nothing of the document is replaced.
        inserts: bool,
    },
    /// No suggestion.
    Nothing,
    /// An error instead; a cancelled or superseded question has one, too.
    Refused,
}

/// What the server says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// The answer to the question with this number, and when it came.
    Answer {
        /// What [`Client::ask`] gave.
        id: i64,
        /// When the answer was read from the pipe.
        at: Instant,
        /// The answer.
        outcome: Outcome,
    },
    /// More is known of this place of this version of a document than was answered.
    Grown {
        /// The document.
        uri: String,
        /// Its version.
        version: i64,
    },
    /// The model is loaded.
    Ready,
    /// A message for the user.
    Problem(String),
    /// The model's work for a request came to an end.
    Completed {
        /// Tokens that it read.
        evaluated: u64,
        /// Tokens that it generated.
        decoded: u64,
    },
}

/// A message, and when it was read.
type Incoming = (Value, Instant);

/// A running server, spoken to as VS Code does: UTF-16 columns, incremental changes. Dropped, it is ended.
pub struct Client {
    child: Child,
    stdin: Option<ChildStdin>,
    incoming: Receiver<Incoming>,
    next_id: i64,
}

impl Client {
    /// Starts the server and says hello. `budget` is what it is told to answer within; `refreshes` says that this
    /// editor asks again when more is known; `eagerness` is how readily to suggest, if not as by default. `folders` are the
    /// workspace's, as absolute paths.
    ///
    /// # Errors
    /// It cannot be started, or does not answer.
    pub fn start(
        program: &Path,
        arguments: &[impl AsRef<OsStr>],
        budget: Duration,
        refreshes: bool,
        eagerness: Option<&str>,
        folders: &[String],
    ) -> Result<Self, ClientError> {
        let start = |cause| ClientError::Start { program: program.display().to_string(), cause };
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(start)?;
        let stdin = child.stdin.take();
        let (sender, incoming) = unbounded();
        let stdout = child.stdout.take();
        // From here on, dropping it ends the process.
        let mut client = Self { child, stdin, incoming, next_id: 0 };
        if let Some(stdout) = stdout {
            thread::Builder::new().spawn(move || listen(stdout, &sender)).map_err(start)?;
        }
        let milliseconds = u64::try_from(budget.as_millis()).unwrap_or(u64::MAX);
        let id = client.request(
            "initialize",
            json!({
                "processId": std::process::id(),
                "workspaceFolders": folders.iter().map(|it| json!({ "uri": uri(it, "") })).collect::<Vec<_>>(),
                "capabilities": {
                    "textDocument": { "inlineCompletion": {} },
                    "experimental": { "taper": { "refresh": refreshes, "trace": true } },
                },
                "initializationOptions": {
                    "latency-budget-ms": milliseconds,
                    "eagerness": eagerness,
                    // Nobody is there to take anything.
                    "statistics": false,
                },
            }),
        )?;
        client.answered(id, "answer `initialize`")?;
        client.notify("initialized", json!({}))?;
        Ok(client)
    }

    /// Waits until the model is loaded.
    ///
    /// # Errors
    /// It cannot be loaded, or not within `patience`.
    pub fn wait_ready(&mut self, patience: Duration) -> Result<(), ClientError> {
        let end = Instant::now() + patience;
        loop {
            match self.hear(end)? {
                Some(Said::Ready) => return Ok(()),
                Some(Said::Problem(message)) => return Err(ClientError::Problem(message)),
                Some(Said::Answer { .. } | Said::Grown { .. } | Said::Completed { .. }) => {}
                None => return Err(ClientError::Silent { what: "load the model", patience }),
            }
        }
    }

    /// The process' id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Opens a document in version 1.
    ///
    /// # Errors
    /// The server has ended.
    pub fn open(&mut self, uri: &str, language: &str, text: &str) -> Result<(), ClientError> {
        let document = json!({ "uri": uri, "languageId": language, "version": 1, "text": text });
        self.notify("textDocument/didOpen", json!({ "textDocument": document }))
    }

    /// Inserts `text`, which makes this `version` of the document.
    ///
    /// # Errors
    /// The server has ended.
    pub fn insert(&mut self, uri: &str, version: i64, at: Position, text: &str) -> Result<(), ClientError> {
        let at = json!({ "line": at.line, "character": at.character });
        let change = json!({ "range": { "start": at, "end": at }, "rangeLength": 0, "text": text });
        let document = json!({ "uri": uri, "version": version });
        let params = json!({ "textDocument": document, "contentChanges": [change] });
        self.notify("textDocument/didChange", params)
    }

    /// Closes a document.
    ///
    /// # Errors
    /// The server has ended.
    pub fn close(&mut self, uri: &str) -> Result<(), ClientError> {
        self.notify("textDocument/didClose", json!({ "textDocument": { "uri": uri } }))
    }

    /// Says that the cursor rests there without a key.
    ///
    /// # Errors
    /// The server has ended.
    pub fn look(&mut self, uri: &str, at: Position) -> Result<(), ClientError> {
        let position = json!({ "line": at.line, "character": at.character });
        self.notify(messages::CURSOR_METHOD, json!({ "textDocument": { "uri": uri }, "position": position }))
    }

    /// Asks for an inline completion, as typing does; the number of the question.
    ///
    /// # Errors
    /// The server has ended.
    pub fn ask(&mut self, uri: &str, at: Position) -> Result<i64, ClientError> {
        let params = json!({
            "textDocument": { "uri": uri },
            "position": { "line": at.line, "character": at.character },
            "context": { "triggerKind": 2 },
        });
        self.request("textDocument/inlineCompletion", params)
    }

    /// Says that the answer to a question is not wanted any more.
    ///
    /// # Errors
    /// The server has ended.
    pub fn cancel(&mut self, id: i64) -> Result<(), ClientError> {
        self.notify("$/cancelRequest", json!({ "id": id }))
    }

    /// The next thing that the server says; `None` if it says nothing until `end`. What it asks of the editor is
    /// agreed to.
    ///
    /// # Errors
    /// The server has ended.
    pub fn hear(&mut self, end: Instant) -> Result<Option<Said>, ClientError> {
        loop {
            match self.incoming.recv_deadline(end) {
                Ok((message, at)) => {
                    if let Some(said) = self.understood(&message, at)? {
                        return Ok(Some(said));
                    }
                }
                Err(RecvTimeoutError::Timeout) => return Ok(None),
                Err(RecvTimeoutError::Disconnected) => return Err(ClientError::Ended),
            }
        }
    }

    /// `shutdown` and `exit`, and waits for the end of the process.
    ///
    /// # Errors
    /// It does not end; it is killed then.
    pub fn quit(mut self) -> Result<(), ClientError> {
        let id = self.request("shutdown", Value::Null)?;
        self.answered(id, "answer `shutdown`")?;
        self.notify("exit", Value::Null)?;
        self.stdin = None;
        let end = Instant::now() + PATIENCE;
        loop {
            // The pipes close when the process ends.
            match self.incoming.recv_deadline(end) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
                Err(RecvTimeoutError::Timeout) => {
                    return Err(ClientError::Silent { what: "end", patience: PATIENCE });
                }
            }
        }
    }

    fn understood(&mut self, message: &Value, at: Instant) -> Result<Option<Said>, ClientError> {
        let text = |pointer: &str| message.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        match (text("/method"), message.get("id")) {
            ("", id) => {
                Ok(id.and_then(Value::as_i64).map(|id| Said::Answer { id, at, outcome: outcome(message) }))
            }
            (TaperTrace::METHOD, None) => Ok(match text("/params/event") {
                "modelLoaded" => Some(Said::Ready),
                "completed" => {
                    let number = |name| message.pointer(name).and_then(Value::as_u64).unwrap_or_default();
                    let (evaluated, decoded) = (number("/params/evaluated"), number("/params/decoded"));
                    Some(Said::Completed { evaluated, decoded })
                }
                _ => None,
            }),
            (TaperRefresh::METHOD, None) => Ok(Some(Said::Grown {
                uri: text("/params/textDocument/uri").to_owned(),
                version: message.pointer("/params/version").and_then(Value::as_i64).unwrap_or_default(),
            })),
            ("window/showMessage", None) => Ok(Some(Said::Problem(text("/params/message").to_owned()))),
            (_, Some(id)) => {
                self.send(&json!({ "jsonrpc": "2.0", "id": id, "result": null }))?;
                Ok(None)
            }
            (_, None) => Ok(None),
        }
    }

    fn answered(&mut self, wanted: i64, what: &'static str) -> Result<(), ClientError> {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.hear(end)? {
                Some(Said::Answer { id, .. }) if id == wanted => return Ok(()),
                Some(_) => {}
                None => return Err(ClientError::Silent { what, patience: PATIENCE }),
            }
        }
    }

    fn request(&mut self, method: &str, params: Value) -> Result<i64, ClientError> {
        let id = self.next_id;
        self.next_id += 1;
        self.send(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }))?;
        Ok(id)
    }

    fn notify(&mut self, method: &str, params: Value) -> Result<(), ClientError> {
        self.send(&json!({ "jsonrpc": "2.0", "method": method, "params": params }))
    }

    fn send(&mut self, message: &Value) -> Result<(), ClientError> {
        let stdin = self.stdin.as_mut().ok_or(ClientError::Ended)?;
        let body = message.to_string();
        // One write a message: the server is to read it whole.
        let framed = format!("Content-Length: {}\r\n\r\n{body}", body.len());
        stdin.write_all(framed.as_bytes()).and_then(|()| stdin.flush()).map_err(|_| ClientError::Ended)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // Either fails only if the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The folder of a workspace that is on no disk.
pub const NOWHERE: &str = "/replay";

/// The URI of a document at this path below a folder, or of the folder where the path is empty.
#[must_use]
pub fn uri(folder: &str, path: &str) -> String {
    let mut uri = "file://".to_owned();
    let separator = if path.is_empty() { "" } else { "/" };
    let whole = [folder.trim_end_matches('/'), separator, path.trim_start_matches('/')];
    for byte in whole.iter().flat_map(|it| it.bytes()) {
        if byte.is_ascii_alphanumeric() || b"/._-".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            uri.push_str(&format!("%{byte:02X}"));
        }
    }
    uri
}

fn outcome(message: &Value) -> Outcome {
    if message.get("error").is_some() {
        return Outcome::Refused;
    }
    // A list of items, or an object that has one.
    let item = message.pointer("/result/items/0").or_else(|| message.pointer("/result/0"));
    match item.and_then(|item| item.get("insertText")?.as_str()) {
        None | Some("") => Outcome::Nothing,
        Some(text) => {
            let range = item.and_then(|item| item.get("range"));
            let inserts = range.is_none_or(|range| range.get("start") == range.get("end"));
            Outcome::Text { text: text.to_owned(), inserts }
        }
    }
}

/// Reads messages until the pipe closes or nobody listens.
fn listen(stdout: impl Read, sender: &Sender<Incoming>) {
    let mut stdout = BufReader::new(stdout);
    while let Some(message) = message(&mut stdout) {
        if sender.send((message, Instant::now())).is_err() {
            return;
        }
    }
}

fn message(stdout: &mut impl BufRead) -> Option<Value> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if stdout.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => {
                if let Some(written) = line.strip_prefix("Content-Length:") {
                    length = written.trim().parse().ok()?;
                }
            }
        }
    }
    let mut body = vec![0; length];
    stdout.read_exact(&mut body).ok()?;
    serde_json::from_slice(&body).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart() {
        let item = |end| {
            let at = |character| json!({ "line": 1, "character": character });
            json!({ "id": 1, "result": { "items": [
                { "insertText": "a)", "range": { "start": at(2), "end": at(end) } },
            ] } })
        };
        let text = |inserts| Outcome::Text { text: "a)".to_owned(), inserts };
        assert_eq!(outcome(&item(2)), text(true));
        assert_eq!(outcome(&item(3)), text(false));
        assert_eq!(outcome(&json!({ "id": 1, "result": [{ "insertText": "a)" }] })), text(true));
        assert_eq!(outcome(&json!({ "id": 1, "result": { "items": [] } })), Outcome::Nothing);
        assert_eq!(outcome(&json!({ "id": 1, "result": null })), Outcome::Nothing);
        assert_eq!(outcome(&json!({ "id": 1, "error": { "code": -32800 } })), Outcome::Refused);
    }

    #[test]
    fn messages_are_read_whatever_their_other_headers() {
        let stream = b"Content-Type: x\r\nContent-Length: 2\r\n\r\n{}Content-Length: 4\r\n\r\nnull";
        let mut stream = stream.as_slice();
        assert_eq!(message(&mut stream), Some(json!({})));
        assert_eq!(message(&mut stream), Some(Value::Null));
        assert_eq!(message(&mut stream), None);
    }

    #[test]
    fn uris_are_escaped() {
        assert_eq!(uri(NOWHERE, "src/[id] ä.ts"), "file:///replay/src/%5Bid%5D%20%C3%A4.ts");
        assert_eq!(uri("/w/@s", ""), "file:///w/%40s");
    }
}

//! A headless editor for the replay: sends what an editor sends while a user types, and receives the server's messages.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::{Value, json};
use taper::text::Position;

use crate::lsp_client::{ClientError, LspClient, inline_params, insertion};

/// Timeout of the server's start and end.
const PATIENCE: Duration = Duration::from_secs(20);

/// The response to a completion request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// A suggestion.
    Text {
        /// The text of its first item.
        text: String,
        /// Whether it only inserts and replaces nothing in the document.
        inserts: bool,
    },
    /// No suggestion.
    Nothing,
    /// An error; also for a cancelled or superseded request.
    Refused,
}

/// An event from the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ServerEvent {
    /// The response to the request with this id, and its time of arrival.
    Answer {
        /// The id that [`Editor::ask`] returned.
        id: i64,
        /// When the response was read from the pipe.
        at: Instant,
        /// The response.
        outcome: Outcome,
    },
    /// A better suggestion exists for this version of a document.
    Refresh {
        /// The document.
        uri: String,
        /// Its version.
        version: i64,
    },
    /// The model is loaded.
    Ready,
    /// A message for the user.
    Problem(String),
    /// Work for a request ended.
    Completed {
        /// Prefilled tokens.
        evaluated: u64,
        /// Decoded tokens.
        decoded: u64,
    },
}

/// How to start the server, and its settings.
pub(super) struct StartOptions<'a> {
    /// The server's program.
    pub(super) program: &'a Path,
    /// Its arguments.
    pub(super) arguments: &'a [String],
    /// The latency budget.
    pub(super) budget: Duration,
    /// Whether this editor requests again on `taper/refresh`.
    pub(super) refreshes: bool,
    /// The eagerness, if not the default.
    pub(super) eagerness: Option<&'a str>,
    /// The workspace's folders, as absolute paths.
    pub(super) folders: &'a [String],
}

/// An editor with a running server, to which it speaks as VS Code does: UTF-16 columns, incremental changes.
pub(super) struct Editor {
    client: LspClient,
}

impl Editor {
    /// Starts the server and initializes it.
    ///
    /// # Errors
    /// It cannot be started, or does not respond.
    pub(super) fn start(start: &StartOptions<'_>) -> Result<Self> {
        let mut editor =
            Self { client: LspClient::start(Command::new(start.program).args(start.arguments))? };
        let milliseconds = u64::try_from(start.budget.as_millis()).unwrap_or(u64::MAX);
        let folders: Vec<Value> = start.folders.iter().map(|it| json!({ "uri": uri(it, "") })).collect();
        let id = editor.client.request(
            "initialize",
            json!({
                "processId": std::process::id(),
                "workspaceFolders": folders,
                "capabilities": {
                    "textDocument": { "inlineCompletion": {} },
                    "experimental": { "taper": { "refresh": start.refreshes, "trace": true } },
                },
                "initializationOptions": {
                    "latency-budget-ms": milliseconds,
                    "eagerness": start.eagerness,
                    // No user is there to accept anything.
                    "statistics": false,
                },
            }),
        )?;
        editor.wait_answer(id, "answer `initialize`")?;
        editor.client.notify("initialized", json!({}))?;
        Ok(editor)
    }

    /// Waits until the model is loaded.
    ///
    /// # Errors
    /// It cannot be loaded, or not within `patience`.
    pub(super) fn wait_ready(&mut self, patience: Duration) -> Result<()> {
        let end = Instant::now() + patience;
        loop {
            match self.next_event(end)? {
                Some(ServerEvent::Ready) => return Ok(()),
                Some(ServerEvent::Problem(message)) => bail!("message from the server: {message}"),
                Some(
                    ServerEvent::Answer { .. } | ServerEvent::Refresh { .. } | ServerEvent::Completed { .. },
                ) => {}
                None => return timeout_error("load the model", patience),
            }
        }
    }

    /// The server's process id.
    pub(super) fn pid(&self) -> u32 {
        self.client.pid()
    }

    /// Opens a document in version 1.
    ///
    /// # Errors
    /// The server has ended.
    pub(super) fn open(&mut self, uri: &str, language: &str, text: &str) -> Result<(), ClientError> {
        self.client.open(uri, language, text)
    }

    /// Inserts `text`, which makes this `version` of the document.
    ///
    /// # Errors
    /// The server has ended.
    pub(super) fn insert(
        &mut self,
        uri: &str,
        version: i64,
        at: Position,
        text: &str,
    ) -> Result<(), ClientError> {
        let change = insertion(uri, version, at.line, at.character, text);
        self.client.notify("textDocument/didChange", change)
    }

    /// Closes a document.
    ///
    /// # Errors
    /// The server has ended.
    pub(super) fn close(&mut self, uri: &str) -> Result<(), ClientError> {
        self.client.notify("textDocument/didClose", json!({ "textDocument": { "uri": uri } }))
    }

    /// Reports that the cursor is idle at this position.
    ///
    /// # Errors
    /// The server has ended.
    pub(super) fn notify_cursor(&mut self, uri: &str, at: Position) -> Result<(), ClientError> {
        let position = json!({ "line": at.line, "character": at.character });
        self.client.notify("taper/cursor", json!({ "textDocument": { "uri": uri }, "position": position }))
    }

    /// Requests an inline completion, as typing does; returns the request's id.
    ///
    /// # Errors
    /// The server has ended.
    pub(super) fn ask(&mut self, uri: &str, at: Position) -> Result<i64, ClientError> {
        self.client.request("textDocument/inlineCompletion", inline_params(uri, at.line, at.character))
    }

    /// Cancels a request.
    ///
    /// # Errors
    /// The server has ended.
    pub(super) fn cancel(&mut self, id: i64) -> Result<(), ClientError> {
        self.client.notify("$/cancelRequest", json!({ "id": id }))
    }

    /// The next event from the server; `None` if there is none until `end`. Requests of the server succeed.
    ///
    /// # Errors
    /// The server has ended.
    pub(super) fn next_event(&mut self, end: Instant) -> Result<Option<ServerEvent>, ClientError> {
        while let Some(incoming) = self.client.receive(end)? {
            let message = &incoming.message;
            if let Some(id) = message.get("id")
                && message.get("method").is_some()
            {
                self.client.respond(id, &Value::Null)?;
            } else if let Some(event) = parse_event(message, incoming.at) {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// Sends `shutdown` and `exit`, and waits for the end of the process.
    ///
    /// # Errors
    /// It does not end; then it is killed.
    pub(super) fn quit(mut self) -> Result<()> {
        let id = self.client.request("shutdown", Value::Null)?;
        self.wait_answer(id, "answer `shutdown`")?;
        self.client.notify("exit", Value::Null)?;
        self.client.close_input();
        let end = Instant::now() + PATIENCE;
        loop {
            // The pipes close when the process ends.
            match self.client.receive(end) {
                Ok(Some(_)) => {}
                Ok(None) => return timeout_error("end", PATIENCE),
                Err(_) => return Ok(()),
            }
        }
    }

    fn wait_answer(&mut self, wanted: i64, what: &str) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.next_event(end)? {
                Some(ServerEvent::Answer { id, .. }) if id == wanted => return Ok(()),
                Some(_) => {}
                None => return timeout_error(what, PATIENCE),
            }
        }
    }
}

fn timeout_error(what: &str, patience: Duration) -> Result<()> {
    bail!("the server did not {what} within {} s", patience.as_secs())
}

/// The event in a message that is not a request.
fn parse_event(message: &Value, at: Instant) -> Option<ServerEvent> {
    let text = |pointer: &str| message.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    match text("/method") {
        "" => {
            let id = message.get("id").and_then(Value::as_i64)?;
            Some(ServerEvent::Answer { id, at, outcome: parse_outcome(message) })
        }
        "taper/trace" => match text("/params/event") {
            "modelLoaded" => Some(ServerEvent::Ready),
            "completed" => {
                let number = |name| message.pointer(name).and_then(Value::as_u64).unwrap_or_default();
                let (evaluated, decoded) = (number("/params/evaluated"), number("/params/decoded"));
                Some(ServerEvent::Completed { evaluated, decoded })
            }
            _ => None,
        },
        "taper/refresh" => Some(ServerEvent::Refresh {
            uri: text("/params/textDocument/uri").to_owned(),
            version: message.pointer("/params/version").and_then(Value::as_i64).unwrap_or_default(),
        }),
        "window/showMessage" => Some(ServerEvent::Problem(text("/params/message").to_owned())),
        _ => None,
    }
}

/// The folder of a workspace that does not exist on disk.
pub(super) const VIRTUAL_FOLDER: &str = "/replay";

/// The URI of a document at this path in a folder, or of the folder if the path is empty.
#[must_use]
pub(super) fn uri(folder: &str, path: &str) -> String {
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

fn parse_outcome(message: &Value) -> Outcome {
    if message.get("error").is_some() {
        return Outcome::Refused;
    }
    // A list of items, or an object that contains one.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_distinguished() {
        let item = |end| {
            let at = |character| json!({ "line": 1, "character": character });
            json!({ "id": 1, "result": { "items": [
                { "insertText": "a)", "range": { "start": at(2), "end": at(end) } },
            ] } })
        };
        let text = |inserts| Outcome::Text { text: "a)".to_owned(), inserts };
        assert_eq!(parse_outcome(&item(2)), text(true));
        assert_eq!(parse_outcome(&item(3)), text(false));
        assert_eq!(parse_outcome(&json!({ "id": 1, "result": [{ "insertText": "a)" }] })), text(true));
        assert_eq!(parse_outcome(&json!({ "id": 1, "result": { "items": [] } })), Outcome::Nothing);
        assert_eq!(parse_outcome(&json!({ "id": 1, "result": null })), Outcome::Nothing);
        assert_eq!(parse_outcome(&json!({ "id": 1, "error": { "code": -32800 } })), Outcome::Refused);
    }

    #[test]
    fn uris_are_escaped() {
        assert_eq!(uri(VIRTUAL_FOLDER, "src/[id] ä.ts"), "file:///replay/src/%5Bid%5D%20%C3%A4.ts");
        assert_eq!(uri("/w/@s", ""), "file:///w/%40s");
    }
}

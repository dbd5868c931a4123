//! A headless LSP client: starts a server and speaks LSP with it over its pipes. The replay, the benches and the
//! end-to-end tests use it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStderr, ChildStdin, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use serde_json::{Value, json};
use thiserror::Error;

/// Errors of the connection.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The process cannot be started.
    #[error("cannot start {program}: {cause}")]
    Start {
        /// The program.
        program: String,
        /// The cause.
        cause: io::Error,
    },
    /// The process ended, or closed its pipes.
    #[error("the server ended unexpectedly; see its stderr")]
    Ended,
}

/// A message from the server.
#[derive(Debug, Clone, PartialEq)]
pub struct Incoming {
    /// The message, parsed.
    pub message: Value,
    /// When the client read it from the pipe.
    pub at: Instant,
}

/// A running server and the client's end of its pipes. Dropping it kills the server.
#[derive(Debug)]
pub struct LspClient {
    child: Child,
    stdin: Option<ChildStdin>,
    incoming: Receiver<Incoming>,
    next_id: i64,
}

impl LspClient {
    /// Starts the server. Its stdin and stdout become the client's; stderr stays as the command has it.
    ///
    /// # Errors
    /// The process cannot be started.
    pub fn start(command: &mut Command) -> Result<Self, ClientError> {
        let program = command.get_program().display().to_string();
        let failed = |cause| ClientError::Start { program: program.clone(), cause };
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(failed)?;
        let (sender, incoming) = unbounded();
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        // From here on, dropping the client ends the process.
        let client = Self { child, stdin, incoming, next_id: 0 };
        if let Some(stdout) = stdout {
            thread::Builder::new().spawn(move || listen(stdout, &sender)).map_err(failed)?;
        }
        Ok(client)
    }

    /// The process id of the server.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The server's stderr, once, if the command piped it.
    pub fn take_stderr(&mut self) -> Option<ChildStderr> {
        self.child.stderr.take()
    }

    /// A request as bytes for [`LspClient::send`], and its id.
    pub fn prepare(&mut self, method: &str, params: Value) -> (i64, Vec<u8>) {
        let id = self.next_id;
        self.next_id += 1;
        (id, frame(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })))
    }

    /// Sends a request; returns its id.
    ///
    /// # Errors
    /// The server has ended.
    pub fn request(&mut self, method: &str, params: Value) -> Result<i64, ClientError> {
        let (id, bytes) = self.prepare(method, params);
        self.send(&bytes)?;
        Ok(id)
    }

    /// Sends a notification.
    ///
    /// # Errors
    /// The server has ended.
    pub fn notify(&mut self, method: &str, params: Value) -> Result<(), ClientError> {
        self.send(&notification(method, params))
    }

    /// Opens a document in version 1.
    ///
    /// # Errors
    /// The server has ended.
    pub fn open(&mut self, uri: &str, language: &str, text: &str) -> Result<(), ClientError> {
        let document = json!({ "uri": uri, "languageId": language, "version": 1, "text": text });
        self.notify("textDocument/didOpen", json!({ "textDocument": document }))
    }

    /// Responds to a request of the server.
    ///
    /// # Errors
    /// The server has ended.
    pub fn respond(&mut self, id: &Value, result: &Value) -> Result<(), ClientError> {
        self.send(&frame(&json!({ "jsonrpc": "2.0", "id": id, "result": result })))
    }

    /// Sends raw bytes.
    ///
    /// # Errors
    /// The server has ended, or its input is closed.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        let stdin = self.stdin.as_mut().ok_or(ClientError::Ended)?;
        stdin.write_all(bytes).and_then(|()| stdin.flush()).map_err(|_| ClientError::Ended)
    }

    /// Closes the server's input.
    pub fn close_input(&mut self) {
        self.stdin = None;
    }

    /// Whether the server's input is open.
    pub fn is_input_open(&self) -> bool {
        self.stdin.is_some()
    }

    /// The next message, or `None` if none comes until `end`.
    ///
    /// # Errors
    /// The server has ended: its output is closed and read to the end.
    pub fn receive(&self, end: Instant) -> Result<Option<Incoming>, ClientError> {
        match self.incoming.recv_deadline(end) {
            Ok(incoming) => Ok(Some(incoming)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(ClientError::Ended),
        }
    }

    /// Waits for the end of the process.
    ///
    /// # Errors
    /// The system cannot report the status.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }
}

impl Drop for LspClient {
    fn drop(&mut self) {
        // Either fails only if the process has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A message with its header.
#[must_use]
pub fn frame(message: &Value) -> Vec<u8> {
    let body = message.to_string();
    format!("Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// A notification with its header.
#[must_use]
pub fn notification(method: &str, params: Value) -> Vec<u8> {
    frame(&json!({ "jsonrpc": "2.0", "method": method, "params": params }))
}

/// The params of an inline completion that typing triggers.
#[must_use]
pub fn inline_params(uri: &str, line: u32, character: u32) -> Value {
    json!({
        "textDocument": { "uri": uri },
        "position": { "line": line, "character": character },
        "context": { "triggerKind": 2 },
    })
}

/// The params of a change that inserts `text` and makes this `version` of the document.
#[must_use]
pub fn insertion(uri: &str, version: i64, line: u32, character: u32, text: &str) -> Value {
    let at = json!({ "line": line, "character": character });
    json!({
        "textDocument": { "uri": uri, "version": version },
        "contentChanges": [{ "range": { "start": at, "end": at }, "text": text }],
    })
}

/// Reads messages until the pipe closes or the receiver is dropped.
fn listen(stdout: impl Read, sender: &Sender<Incoming>) {
    let mut stdout = BufReader::new(stdout);
    while let Some(message) = read_message(&mut stdout) {
        if sender.send(Incoming { message, at: Instant::now() }).is_err() {
            break;
        }
    }
}

fn read_message(stdout: &mut impl BufRead) -> Option<Value> {
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
    fn messages_are_read_whatever_their_other_headers() {
        let stream = b"Content-Type: x\r\nContent-Length: 2\r\n\r\n{}Content-Length: 4\r\n\r\nnull";
        let mut stream = stream.as_slice();
        assert_eq!(read_message(&mut stream), Some(json!({})));
        assert_eq!(read_message(&mut stream), Some(Value::Null));
        assert_eq!(read_message(&mut stream), None);
    }

    #[test]
    fn framed_message_is_read_back() {
        let message = json!({ "method": "ä", "params": ["\n"] });
        assert_eq!(read_message(&mut frame(&message).as_slice()), Some(message));
    }
}

//! The standard output as the protocol uses it: a thread that frames messages and writes them.
//! It knows nothing of what the messages mean.
//!
//! Whoever writes does not wait, unless the editor has stopped reading long ago. That it has gone shows here first.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use crate::lsp::shutdown::{EndReason, Shutdown};
use crate::session::ThreadSupervisor;

/// Messages that may wait to be written before those who write have to wait: as many as a client sends requests before it
/// reads the first response.
const OUTPUT_QUEUE_LEN: usize = 8192;

/// How it shows that the editor has gone.
pub(crate) const OUTPUT_CLOSED: &str = "nobody reads the standard output any more";

/// Where messages go.
#[derive(Debug, Clone)]
pub(crate) struct MessageOutput {
    /// `None`: there will be no more.
    messages: mpsc::Sender<Option<Vec<u8>>>,
}

/// What is to be written, until a thread does.
#[derive(Debug)]
pub(crate) struct UnwrittenMessages {
    messages: mpsc::Receiver<Option<Vec<u8>>>,
}

/// Tells when everything is written.
#[derive(Debug)]
pub(crate) struct WriterDone(Receiver<()>);

impl WriterDone {
    /// Waits until everything is written that there is now, `patience` at most.
    pub(crate) fn wait_written(&self, output: &MessageOutput, patience: Duration) {
        // With no room even for this, nobody reads.
        if output.messages.try_send(None).is_err()
            || self.0.recv_timeout(patience) == Err(RecvTimeoutError::Timeout)
        {
            debug!("the last messages were not written in time");
        }
    }
}

impl MessageOutput {
    /// Somewhere to write to, before anything is written.
    pub(crate) fn new() -> (Self, UnwrittenMessages) {
        let (sender, messages) = mpsc::channel(OUTPUT_QUEUE_LEN);
        (Self { messages: sender }, UnwrittenMessages { messages })
    }

    /// Writes a message. Waits if very many are waiting already.
    pub(crate) async fn send(&self, message: &impl Serialize) {
        if let Some(framed) = frame_message(message) {
            // An error means that nobody reads any more: the process ends.
            let _ = self.messages.send(Some(framed)).await;
        }
    }

    /// Writes a notification, if there is room for it.
    pub(crate) fn try_notify(&self, method: &str, params: Value) {
        if let Some(framed) = frame_message(&json!({ "jsonrpc": "2.0", "method": method, "params": params }))
        {
            let _ = self.messages.try_send(Some(framed));
        }
    }
}

fn frame_message(message: &impl Serialize) -> Option<Vec<u8>> {
    let body = serde_json::to_vec(message);
    let body = body.inspect_err(|problem| warn!(%problem, "a message cannot be written")).ok()?;
    let mut framed = format!("Content-Length: {}\r\n\r\n", body.len()).into_bytes();
    framed.extend_from_slice(&body);
    Some(framed)
}

impl UnwrittenMessages {
    /// Starts a thread that writes to `stream`.
    ///
    /// # Errors
    /// The system gives no more threads.
    pub(crate) fn start_writer(
        mut self,
        mut stream: impl Write + Send + 'static,
        supervisor: &ThreadSupervisor,
        ending: Arc<Shutdown>,
    ) -> io::Result<WriterDone> {
        let (alive, ended) = bounded(0);
        supervisor.spawn("output", move || {
            let _alive: Sender<()> = alive;
            while let Some(Some(message)) = self.messages.blocking_recv() {
                if let Err(problem) = stream.write_all(&message).and_then(|()| stream.flush()) {
                    debug!(%problem, "cannot write to the standard output");
                    ending.begin_exit(EndReason::EditorGone(OUTPUT_CLOSED));
                    return;
                }
            }
        })?;
        Ok(WriterDone(ended))
    }
}

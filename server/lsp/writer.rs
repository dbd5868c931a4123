//! The standard output: a thread that frames messages and writes them.
//!
//! Senders do not wait unless the editor stopped reading long ago. If the editor has gone, that shows here first.

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

/// Messages that may wait to be written before senders wait: as many as a client sends requests before it reads the
/// first response.
const OUTPUT_QUEUE_LEN: usize = 8192;

/// The evidence that the editor has gone.
pub(crate) const OUTPUT_CLOSED: &str = "the standard output is closed";

/// Where messages go.
#[derive(Debug, Clone)]
pub(crate) struct MessageOutput {
    /// `None`: there are no more messages.
    messages: mpsc::Sender<Option<Vec<u8>>>,
}

/// Queued messages, until the thread starts.
#[derive(Debug)]
pub(crate) struct UnwrittenMessages {
    messages: mpsc::Receiver<Option<Vec<u8>>>,
}

/// Signals that everything is written.
#[derive(Debug)]
pub(crate) struct WriterDone(Receiver<()>);

impl WriterDone {
    /// Waits until all queued messages are written, at most for `patience`.
    pub(crate) fn wait_written(&self, output: &MessageOutput, patience: Duration) {
        // If even this does not fit, the output is not read.
        if output.messages.try_send(None).is_err()
            || self.0.recv_timeout(patience) == Err(RecvTimeoutError::Timeout)
        {
            debug!("the last messages were not written in time");
        }
    }
}

impl MessageOutput {
    /// A queue for messages, before the thread starts.
    pub(crate) fn new() -> (Self, UnwrittenMessages) {
        let (sender, messages) = mpsc::channel(OUTPUT_QUEUE_LEN);
        (Self { messages: sender }, UnwrittenMessages { messages })
    }

    /// Queues a message. Waits if the queue is full.
    pub(crate) async fn send(&self, message: &impl Serialize) {
        if let Some(framed) = frame_message(message) {
            // An error means that the output is no longer read: the process ends.
            let _ = self.messages.send(Some(framed)).await;
        }
    }

    /// Queues a notification, if there is room for it.
    pub(crate) fn try_notify(&self, method: &str, params: Value) {
        if let Some(framed) = frame_message(&json!({ "jsonrpc": "2.0", "method": method, "params": params }))
        {
            let _ = self.messages.try_send(Some(framed));
        }
    }
}

fn frame_message(message: &impl Serialize) -> Option<Vec<u8>> {
    let body = serde_json::to_vec(message);
    let body = body.inspect_err(|problem| warn!(%problem, "a message could not be serialized")).ok()?;
    let mut framed = format!("Content-Length: {}\r\n\r\n", body.len()).into_bytes();
    framed.extend_from_slice(&body);
    Some(framed)
}

impl UnwrittenMessages {
    /// Starts a thread that writes to `stream`.
    ///
    /// # Errors
    /// The system cannot start another thread.
    pub(crate) fn start_writer(
        mut self,
        mut stream: impl Write + Send + 'static,
        supervisor: &ThreadSupervisor,
        shutdown: Arc<Shutdown>,
    ) -> io::Result<WriterDone> {
        let (running, ended) = bounded(0);
        supervisor.spawn("output", move || {
            let _running: Sender<()> = running;
            while let Some(Some(message)) = self.messages.blocking_recv() {
                if let Err(problem) = stream.write_all(&message).and_then(|()| stream.flush()) {
                    debug!(%problem, "cannot write to the standard output");
                    shutdown.begin_exit(EndReason::EditorGone(OUTPUT_CLOSED));
                    return;
                }
            }
        })?;
        Ok(WriterDone(ended))
    }
}

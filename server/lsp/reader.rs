//! The standard input: a thread that reads, frames and parses messages.

use std::io::{self, Read};
use std::sync::Arc;

use tokio::sync::mpsc::{self, Receiver};

use crate::lsp::framing::MessageFramer;
use crate::lsp::incoming::IncomingMessage;
use crate::lsp::shutdown::{EndReason, Shutdown};
use crate::session::ThreadSupervisor;

/// Messages that may wait between the two threads before reading pauses.
const INPUT_QUEUE_LEN: usize = 64;

/// Starts a thread that reads `stream` to its end.
///
/// # Errors
/// The system cannot start another thread.
pub(crate) fn start_reader(
    mut stream: impl Read + Send + 'static,
    supervisor: &ThreadSupervisor,
    shutdown: Arc<Shutdown>,
) -> io::Result<Receiver<IncomingMessage>> {
    let (sender, messages) = mpsc::channel(INPUT_QUEUE_LEN);
    supervisor.spawn("input", move || {
        let mut framer = MessageFramer::default();
        let mut piece = vec![0; 64 << 10];
        loop {
            match stream.read(&mut piece) {
                Ok(0) => break,
                Ok(length) => framer.feed_bytes(&piece[..length], &mut |message| {
                    // An error means that the receiver has gone; the next read ends this, or the process does.
                    let _ = sender.blocking_send(message);
                }),
                Err(problem) if problem.kind() == io::ErrorKind::Interrupted => {}
                Err(problem) => {
                    tracing::warn!(%problem, "cannot read the standard input");
                    break;
                }
            }
        }
        shutdown.begin_exit(EndReason::InputEnded);
    })?;
    Ok(messages)
}

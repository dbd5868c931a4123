//! The standard input as the protocol uses it: a thread that reads, frames and parses messages.
//! It knows nothing of what the messages mean.

use std::io::{self, Read};
use std::sync::Arc;

use tokio::sync::mpsc::{self, Receiver};

use crate::protocol::ending::{Ending, Reason};
use crate::protocol::framing::Framer;
use crate::protocol::incoming::Incoming;
use crate::session::Supervisor;

/// Messages that may wait between the two threads before reading pauses.
const WAITING: usize = 64;

/// Starts a thread that reads `stream` to its end.
///
/// # Errors
/// The system gives no more threads.
pub(crate) fn start(
    mut stream: impl Read + Send + 'static,
    supervisor: &Supervisor,
    ending: Arc<Ending>,
) -> io::Result<Receiver<Incoming>> {
    let (sender, messages) = mpsc::channel(WAITING);
    supervisor.spawn("input", move || {
        let mut framer = Framer::default();
        let mut piece = vec![0; 64 << 10];
        loop {
            match stream.read(&mut piece) {
                Ok(0) => break,
                Ok(length) => framer.feed(&piece[..length], &mut |message| {
                    // An error means that nobody reads any more; the next read ends this, or the process does.
                    let _ = sender.blocking_send(message);
                }),
                Err(problem) if problem.kind() == io::ErrorKind::Interrupted => {}
                Err(problem) => {
                    tracing::warn!(%problem, "cannot read the standard input");
                    break;
                }
            }
        }
        ending.begin(Reason::InputEnded);
    })?;
    Ok(messages)
}

//! The standard input as tower-lsp reads it: a thread reads and frames, tokio takes what is framed.
//! It knows nothing of what the messages mean.

use std::io::{self, Read};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::thread;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::mpsc;

use crate::protocol::framing::Framer;
use crate::protocol::front::Ending;

/// Messages that may wait between the two threads before reading pauses.
const WAITING: usize = 64;

/// Framed messages, as a stream of bytes.
#[derive(Debug)]
pub(crate) struct Input {
    messages: mpsc::Receiver<Vec<u8>>,
    /// The message that is being read, and how far.
    current: (Vec<u8>, usize),
}

impl Input {
    /// Starts a thread that reads `stream` to its end.
    ///
    /// # Errors
    /// The system gives no more threads.
    pub(crate) fn start(mut stream: impl Read + Send + 'static, ending: Arc<Ending>) -> io::Result<Self> {
        let (sender, messages) = mpsc::channel(WAITING);
        thread::Builder::new().name("input".to_owned()).spawn(move || {
            let mut framer = Framer::default();
            let mut piece = vec![0; 64 << 10];
            loop {
                match stream.read(&mut piece) {
                    Ok(0) => break,
                    // An error means that nobody reads any more; the next read or the end of the process ends this.
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
            ending.over.notify_one();
        })?;
        Ok(Self { messages, current: (Vec::new(), 0) })
    }
}

impl AsyncRead for Input {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.current.1 == self.current.0.len() {
            match ready!(self.messages.poll_recv(context)) {
                Some(message) => self.current = (message, 0),
                None => return Poll::Ready(Ok(())),
            }
        }
        let (message, at) = &mut self.current;
        let length = buffer.remaining().min(message.len() - *at);
        buffer.put_slice(&message[*at..*at + length]);
        *at += length;
        if *at == message.len() {
            self.current = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }
}

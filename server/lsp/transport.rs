//! Connects the pipes and the service: passes messages in arrival order, and sends responses and the server's own
//! requests.
//!
//! It replaces tower-lsp's own server, for messages that are already parsed.

use futures::stream::{FuturesUnordered, StreamExt};
use futures::{SinkExt, future};
use tokio::sync::mpsc::Receiver;
use tower::Service;
use tower_lsp::ClientSocket;
use tracing::error;

use crate::lsp::incoming::IncomingMessage;
use crate::lsp::service::OrderedService;
use crate::lsp::writer::MessageOutput;

/// Maximum number of open requests. As the newest wins in each document, editors have one or two.
const MAX_OPEN_REQUESTS: usize = 256;

/// Serves until the messages end or the editor sends `exit`, and every request has its response.
pub(crate) async fn serve(
    mut service: OrderedService,
    socket: ClientSocket,
    mut messages: Receiver<IncomingMessage>,
    output: MessageOutput,
) {
    let (mut requests, mut responses) = socket.split();
    let mut open = FuturesUnordered::new();
    let mut has_messages = true;
    while has_messages || !open.is_empty() {
        tokio::select! {
            Some(outcome) = open.next() => {
                if let Ok(Some(response)) = outcome {
                    output.send(&response).await;
                }
            }
            Some(request) = requests.next() => output.send(&request).await,
            message = messages.recv(), if has_messages && open.len() < MAX_OPEN_REQUESTS => match message {
                None => has_messages = false,
                Some(IncomingMessage::Request(request)) => {
                    if let Err(problem) = future::poll_fn(|context| service.poll_ready(context)).await {
                        error!(%problem, "the service has ended");
                        return;
                    }
                    has_messages = request.method() != "exit";
                    open.push(service.call(request));
                }
                // An error means that the receiver has gone.
                Some(IncomingMessage::Response(response)) => drop(responses.send(response).await),
                Some(IncomingMessage::Changed(changed)) => service.document_changed(changed),
                Some(IncomingMessage::Malformed(response)) => output.send(&response).await,
            },
        }
    }
}

//! Reports to the user: messages, progress while the model loads, and the state for a status line. The session
//! never waits for it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{timeout, timeout_at};
use tower_lsp::Client;
use tower_lsp::ls_types::notification::Progress;
use tower_lsp::ls_types::{
    MessageType, ProgressParams, ProgressParamsValue, ProgressToken, WorkDoneProgress, WorkDoneProgressBegin,
    WorkDoneProgressEnd, WorkDoneProgressReport,
};

use crate::lsp::convert::{self, TaperRefresh};
use crate::lsp::service::ClientState;
use crate::lsp::status::{StatusEvent, StatusLine, TaperStatus};
use crate::lsp::trace::{self, TaperTrace};
use crate::session::{LoadProgress, Notice};

/// Time limit for the editor to create a progress bar; after that no progress is shown.
const PROGRESS_LIMIT: Duration = Duration::from_secs(3);

/// Sends notices to the editor, once it is ready, until all senders have gone.
pub(crate) async fn send_notices(
    client: Client,
    mut events: UnboundedReceiver<StatusEvent>,
    client_state: Arc<ClientState>,
) {
    client_state.initialized.notified().await;
    let shows_status = client_state.status.load(Ordering::Acquire);
    let sends_trace = client_state.trace.load(Ordering::Acquire);
    let mut status = StatusLine::default();
    let mut bar = ProgressBar {
        client,
        shown: None,
        count: 0,
        refused: !client_state.progress.load(Ordering::Acquire),
    };
    loop {
        if shows_status && let Some(due) = status.take_due(Instant::now()) {
            bar.client.send_notification::<TaperStatus>(due).await;
        }
        let received = match status.next_change().filter(|_| shows_status) {
            Some(at) => timeout_at(at.into(), events.recv()).await,
            None => Ok(events.recv().await),
        };
        let Ok(received) = received else { continue };
        let Some(event) = received else { return };
        status.record_event(&event, Instant::now());
        match event {
            StatusEvent::Session(Notice::Loading(loading)) => bar.show_progress(loading).await,
            StatusEvent::Session(Notice::Loaded(about)) => {
                bar.end_progress().await;
                let message = format!("taper: {} is ready", about.model);
                bar.client.log_message(MessageType::INFO, message).await;
            }
            StatusEvent::Session(Notice::Failed(_)) => bar.end_progress().await,
            StatusEvent::Session(Notice::Problem(message)) => {
                bar.client.show_message(MessageType::WARNING, message).await;
            }
            StatusEvent::Session(Notice::Refresh(improvement)) => {
                bar.client.send_notification::<TaperRefresh>(convert::refresh_params(&improvement)).await;
            }
            StatusEvent::Session(Notice::Trace(event)) => {
                if sends_trace {
                    bar.client.send_notification::<TaperTrace>(trace::trace_params(&event)).await;
                }
            }
            StatusEvent::Session(Notice::Paused(_))
            | StatusEvent::Enabled(_)
            | StatusEvent::Requested
            | StatusEvent::Responded => {}
        }
    }
}

/// The editor's progress bar.
struct ProgressBar {
    client: Client,
    /// The token of the bar that is shown now.
    shown: Option<ProgressToken>,
    /// Number of bars so far: each has its own token.
    count: u32,
    /// The editor does not show progress, or did not create a bar.
    refused: bool,
}

impl ProgressBar {
    async fn show_progress(&mut self, loading: LoadProgress) {
        if self.refused {
            return;
        }
        let LoadProgress { message, percent } = loading;
        let (message, percentage, cancellable) =
            (Some(message), percent.map(|percent| percent.min(100)), None);
        if let Some(token) = &self.shown {
            let report = WorkDoneProgressReport { cancellable, message, percentage };
            self.send_progress(token.clone(), WorkDoneProgress::Report(report)).await;
            return;
        }
        self.count += 1;
        let token = ProgressToken::String(format!("taper/model/{}", self.count));
        let created = timeout(PROGRESS_LIMIT, self.client.create_work_done_progress(token.clone())).await;
        if !matches!(created, Ok(Ok(()))) {
            self.refused = true;
            return;
        }
        let title = "taper".to_owned();
        let begin = WorkDoneProgressBegin { title, cancellable, message, percentage };
        self.shown = Some(token.clone());
        self.send_progress(token, WorkDoneProgress::Begin(begin)).await;
    }

    async fn end_progress(&mut self) {
        if let Some(token) = self.shown.take() {
            self.send_progress(token, WorkDoneProgress::End(WorkDoneProgressEnd { message: None })).await;
        }
    }

    async fn send_progress(&self, token: ProgressToken, progress: WorkDoneProgress) {
        let value = ProgressParamsValue::WorkDone(progress);
        self.client.send_notification::<Progress>(ProgressParams { token, value }).await;
    }
}

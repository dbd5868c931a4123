//! What the user is told: messages, progress while the model loads, and the state for a status line.
//! It knows nothing of why; it is told by the session, and never makes it wait.

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

use crate::protocol::front::Ready;
use crate::protocol::messages::{self, Refresh};
use crate::protocol::status::{News, Status, TaperStatus};
use crate::protocol::trace::{self, TaperTrace};
use crate::session::{Loading, Notice};

/// How long the editor may take to agree to progress before it is told without.
const CREATE: Duration = Duration::from_secs(3);

/// Tells the editor, once it is ready, until nobody has anything to tell any more.
pub(crate) async fn tell(client: Client, mut news: UnboundedReceiver<News>, ready: Arc<Ready>) {
    ready.initialized.notified().await;
    let shows_status = ready.status.load(Ordering::Acquire);
    let is_followed = ready.trace.load(Ordering::Acquire);
    let mut status = Status::default();
    let mut bar = Bar { client, shown: None, begun: 0, refused: !ready.progress.load(Ordering::Acquire) };
    loop {
        if shows_status && let Some(due) = status.due(Instant::now()) {
            bar.client.send_notification::<TaperStatus>(due).await;
        }
        let heard = match status.wakes_at().filter(|_| shows_status) {
            Some(at) => timeout_at(at.into(), news.recv()).await,
            None => Ok(news.recv().await),
        };
        let Ok(heard) = heard else { continue };
        let Some(heard) = heard else { return };
        status.note(&heard, Instant::now());
        match heard {
            News::Session(Notice::Loading(loading)) => bar.show(loading).await,
            News::Session(Notice::Loaded(about)) => {
                bar.end().await;
                let message = format!("taper: {} is ready", about.model);
                bar.client.log_message(MessageType::INFO, message).await;
            }
            News::Session(Notice::Failed(_)) => bar.end().await,
            News::Session(Notice::Problem(message)) => {
                bar.client.show_message(MessageType::WARNING, message).await;
            }
            News::Session(Notice::Grown(place)) => {
                bar.client.send_notification::<Refresh>(messages::grown(&place)).await;
            }
            News::Session(Notice::Trace(event)) => {
                if is_followed {
                    bar.client.send_notification::<TaperTrace>(trace::params(&event)).await;
                }
            }
            News::Session(Notice::Paused(_)) | News::Enabled(_) | News::Asked | News::Answered => {}
        }
    }
}

/// The editor's progress bar.
struct Bar {
    client: Client,
    /// The one that is shown now.
    shown: Option<ProgressToken>,
    /// How many there have been: each has its own token.
    begun: u32,
    /// The editor does not show progress, or would not create one.
    refused: bool,
}

impl Bar {
    async fn show(&mut self, loading: Loading) {
        if self.refused {
            return;
        }
        let Loading { message, percent } = loading;
        let (message, percentage, cancellable) =
            (Some(message), percent.map(|percent| percent.min(100)), None);
        if let Some(token) = &self.shown {
            let report = WorkDoneProgressReport { cancellable, message, percentage };
            self.send(token.clone(), WorkDoneProgress::Report(report)).await;
            return;
        }
        self.begun += 1;
        let token = ProgressToken::String(format!("taper/model/{}", self.begun));
        let created = timeout(CREATE, self.client.create_work_done_progress(token.clone())).await;
        if !matches!(created, Ok(Ok(()))) {
            self.refused = true;
            return;
        }
        let title = "taper".to_owned();
        let begin = WorkDoneProgressBegin { title, cancellable, message, percentage };
        self.shown = Some(token.clone());
        self.send(token, WorkDoneProgress::Begin(begin)).await;
    }

    async fn end(&mut self) {
        if let Some(token) = self.shown.take() {
            self.send(token, WorkDoneProgress::End(WorkDoneProgressEnd { message: None })).await;
        }
    }

    async fn send(&self, token: ProgressToken, progress: WorkDoneProgress) {
        let value = ProgressParamsValue::WorkDone(progress);
        self.client.send_notification::<Progress>(ProgressParams { token, value }).await;
    }
}

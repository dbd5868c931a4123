//! What the user is told: messages, and progress while the model loads.
//! It knows nothing of why; it is told by the session, and never makes it wait.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::timeout;
use tower_lsp::Client;
use tower_lsp::ls_types::notification::Progress;
use tower_lsp::ls_types::{
    MessageType, ProgressParams, ProgressParamsValue, ProgressToken, WorkDoneProgress, WorkDoneProgressBegin,
    WorkDoneProgressEnd, WorkDoneProgressReport,
};

use crate::protocol::front::Ready;
use crate::session::{Loading, Notice};

/// How long the editor may take to agree to progress before it is told without.
const CREATE: Duration = Duration::from_secs(3);

/// Tells the editor, once it is ready, until nobody has anything to tell any more.
pub(crate) async fn tell(client: Client, mut notices: UnboundedReceiver<Notice>, ready: Arc<Ready>) {
    ready.initialized.notified().await;
    let mut bar = Bar { client, shown: None, begun: 0, refused: !ready.progress.load(Ordering::Acquire) };
    while let Some(notice) = notices.recv().await {
        match notice {
            Notice::Loading(loading) => bar.show(loading).await,
            Notice::Loaded(model) => {
                bar.end().await;
                if let Some(model) = model {
                    bar.client.log_message(MessageType::INFO, format!("taper: {model} is ready")).await;
                }
            }
            Notice::Problem(message) => bar.client.show_message(MessageType::WARNING, message).await,
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
        let (message, percentage, cancellable) = (Some(message), percent.map(|percent| percent.min(100)), None);
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

//! The service in front of tower-lsp's: arrival order, client-specific messages, and the end of the process.
//!
//! It adds what tower-lsp lacks:
//! - tower-lsp runs handlers in a few slots, notifications and cancellations too. Here every call is polled once as
//!   it arrives, so that whatever a handler does before its first wait happens in arrival order, slots or not;
//!   notifications of documents do not use the slots at all.
//! - A panic in a handler leaves a process that answers nothing. Here it becomes an error for that request.
//! - `exit` leaves the process waiting for its input. Here it ends the process.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::{BoxFuture, ready};
use futures::task::noop_waker_ref;
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};
use tower::Service;
use tower_lsp::jsonrpc::{Error, ErrorCode, Id, Request, Response, Result};
use tower_lsp::ls_types::{InitializeParams, InitializeResult};
use tower_lsp::{ExitedError, LanguageServer, LspService};
use tracing::{error, warn};

use crate::lsp::client_monitor::ClientMonitor;
use crate::lsp::commands::{self, ExecuteCommand};
use crate::lsp::configuration::ClientOptions;
use crate::lsp::convert::{self, ClientFeatures, CompletionParams, TextDocumentItem};
use crate::lsp::incoming::DocumentChange;
use crate::lsp::notebooks::OpenFiles;
use crate::lsp::request_metrics::RequestMetrics;
use crate::lsp::shutdown::{EndReason, Shutdown};
use crate::lsp::status::StatusEvent;
use crate::session::crawler::CrawlMode;
use crate::session::{
    ArrivedRequest, CompletionItem, CompletionResponse, EngineSource, Event, Notice, PauseScope, Responder,
    ResponseReceiver, Session, SessionStart, ThreadSupervisor,
};
use crate::usage::outcome::Outcome;
use crate::usage::stats::UsageEvent;
use crate::usage::store::StatsHandle;

/// The method that passes `textDocument/completion` to tower-lsp, whose own handler would refuse its URIs.
pub(crate) const POPUP_METHOD: &str = "$/taper/completion";
/// The method that passes `workspace/executeCommand` to tower-lsp, whose own handler refuses `arguments: null`.
pub(crate) const COMMAND_METHOD: &str = "$/taper/command";
/// The request for inline completions.
pub(crate) const INLINE_METHOD: &str = "textDocument/inlineCompletion";

/// Shared by the handlers: the session, once it has started.
pub(crate) struct Backend {
    session: Arc<OnceLock<Session>>,
    ready: Arc<ClientState>,
    news: mpsc::UnboundedSender<StatusEvent>,
    open: Arc<Mutex<OpenFiles>>,
    stats: StatsHandle,
}

impl Backend {
    pub(crate) fn new(
        session: Arc<OnceLock<Session>>,
        ready: Arc<ClientState>,
        news: mpsc::UnboundedSender<StatusEvent>,
        open: Arc<Mutex<OpenFiles>>,
        stats: StatsHandle,
    ) -> Self {
        Self { session, ready, news, open, stats }
    }

    /// Sends a request to the session. Nothing is awaited before: requests and changes stay in arrival order.
    fn enqueue_request(&self, params: &Value, popup: bool) -> Result<(ResponseReceiver, RequestMetrics)> {
        let arrived = Instant::now();
        let inquiry = CompletionParams::read(params)
            .ok_or_else(|| Error::invalid_params("a request needs `textDocument.uri` and `position`"))?;
        let metrics = RequestMetrics::begin(self.stats.clone(), self.news.clone(), arrived);
        let (responder, receiver) = Responder::new();
        let CompletionParams { uri, position, selected, trigger } = inquiry;
        let uri = lock_documents(&self.open).documents.canonical_name_for_request(uri);
        self.send(Event::Requested(ArrivedRequest {
            uri,
            position,
            selected,
            trigger,
            popup,
            arrived,
            responder,
        }));
        Ok((receiver, metrics))
    }

    fn send(&self, event: Event) {
        if let Some(session) = self.session.get() {
            session.send(event);
        }
    }

    /// `textDocument/inlineCompletion`.
    pub(crate) async fn inline_completion(&self, params: Value) -> Result<Value> {
        let (receiver, metrics) = self.enqueue_request(&params, false)?;
        let answer = receiver.await.unwrap_or(CompletionResponse::Empty);
        metrics.record_answer(&answer);
        let tells = self.ready.accepted.load(Ordering::Acquire);
        response_result(answer, |shown| convert::inline_result(shown, tells))
    }

    /// `textDocument/completion`, for editors without inline completion.
    pub(crate) async fn popup_completion(&self, params: Value) -> Result<Value> {
        let (receiver, metrics) = self.enqueue_request(&params, true)?;
        let answer = receiver.await.unwrap_or(CompletionResponse::Empty);
        metrics.record_answer(&answer);
        let answer = match answer {
            // Editors drop the response to a superseded request; Helix would log an error.
            CompletionResponse::Superseded => CompletionResponse::Empty,
            answer => answer,
        };
        response_result(answer, convert::popup_result)
    }

    /// `workspace/executeCommand`.
    pub(crate) async fn execute_command(&self, params: Value) -> Result<Value> {
        match ExecuteCommand::parse_params(&params).map_err(Error::invalid_params)? {
            ExecuteCommand::Pause(scope, paused) => {
                let scope = match scope {
                    PauseScope::Document(uri) => PauseScope::Document(
                        lock_documents(&self.open).documents.canonical_name_for_request(uri),
                    ),
                    scope => scope,
                };
                self.send(Event::Paused { scope, paused });
            }
            ExecuteCommand::Accepted => {
                // The accepted length is known only from the edits.
                let (outcome, characters) = (Outcome::Accepted, 0);
                self.stats.record_since_start(UsageEvent::Finished { outcome, characters });
                self.send(Event::Accepted);
            }
            ExecuteCommand::Statistics => {
                let (sender, receiver) = oneshot::channel();
                self.send(Event::FlushUsage(sender));
                // An error means that the session has not started.
                let _ = receiver.await;
                return Ok(self.stats.report().await);
            }
            ExecuteCommand::ExplainLast => {
                let (sender, receiver) = oneshot::channel();
                self.send(Event::Explain(sender));
                return Ok(commands::explanations_json(receiver.await.unwrap_or_default()));
            }
            ExecuteCommand::Models => {
                return commands::models_json().map_err(|problem| {
                    let mut error = Error::internal_error();
                    error.message = problem.into();
                    error
                });
            }
        }
        Ok(Value::Null)
    }
}

fn lock_documents(open: &Mutex<OpenFiles>) -> MutexGuard<'_, OpenFiles> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A notice with the URIs that the client used last.
fn with_client_uris(mut notice: Notice, open: &Mutex<OpenFiles>) -> Notice {
    let written = |uri: String| lock_documents(open).documents.client_uri(uri);
    match &mut notice {
        Notice::Refresh(grown) => grown.uri = written(std::mem::take(&mut grown.uri)),
        Notice::Paused(pauses) => {
            pauses.documents = std::mem::take(&mut pauses.documents).into_iter().map(written).collect();
        }
        _ => {}
    }
    notice
}

fn response_result(
    answer: CompletionResponse,
    write: impl Fn(Option<&CompletionItem>) -> Value,
) -> Result<Value> {
    match answer {
        CompletionResponse::Shown(shown) => Ok(write(Some(&shown))),
        CompletionResponse::Empty => Ok(write(None)),
        // The one error that editors ignore silently.
        CompletionResponse::Superseded => Err(Error::new(ErrorCode::RequestCancelled)),
    }
}

impl LanguageServer for Backend {
    async fn initialize(&self, _: InitializeParams) -> Result<InitializeResult> {
        // The service has read the params and writes the result; tower-lsp only updates its state.
        Ok(InitializeResult::default())
    }

    async fn shutdown(&self) -> Result<()> {
        Ok(())
    }
}

/// What the service needs to start.
pub(crate) struct ServiceStart {
    /// Options from the file and the command line.
    pub(crate) options: Arc<ClientOptions>,
    /// Where the engine comes from.
    pub(crate) source: EngineSource,
    /// Where the project's files are crawled.
    pub(crate) crawling: CrawlMode,
    /// Records the statistics.
    pub(crate) stats: StatsHandle,
    /// Problems found before a client was connected.
    pub(crate) problems: Vec<String>,
    /// The open documents; shared with the handlers.
    pub(crate) open: Arc<Mutex<OpenFiles>>,
    /// Watches the editor's process.
    pub(crate) lifeline: ClientMonitor,
    /// Reports a failed thread.
    pub(crate) supervisor: ThreadSupervisor,
}

/// The service in front of tower-lsp.
pub(crate) struct OrderedService {
    inner: LspService<Backend>,
    session: Arc<OnceLock<Session>>,
    ending: Arc<Shutdown>,
    /// Taken when the session starts.
    source: Option<(EngineSource, CrawlMode)>,
    stats: StatsHandle,
    options: Arc<ClientOptions>,
    problems: Vec<String>,
    lifeline: ClientMonitor,
    supervisor: ThreadSupervisor,
    greeting: Option<ClientFeatures>,
    news: mpsc::UnboundedSender<StatusEvent>,
    open: Arc<Mutex<OpenFiles>>,
    /// Signalled when the editor is ready for notices, with its features.
    ready: Arc<ClientState>,
}

/// Whether the editor is ready for notices, and what it can show.
#[derive(Debug, Default)]
pub(crate) struct ClientState {
    /// Signalled by `initialized`.
    pub(crate) initialized: Notify,
    /// Whether it shows progress that the server begins.
    pub(crate) progress: AtomicBool,
    /// Whether it shows the state of the server.
    pub(crate) status: AtomicBool,
    /// Whether it follows the steps of the work.
    pub(crate) trace: AtomicBool,
    /// Whether it runs a suggestion's command when the suggestion is accepted.
    pub(crate) accepted: AtomicBool,
}

type ServiceFuture = BoxFuture<'static, std::result::Result<Option<Response>, ExitedError>>;

impl OrderedService {
    pub(crate) fn new(
        inner: LspService<Backend>,
        session: Arc<OnceLock<Session>>,
        ending: Arc<Shutdown>,
        beginning: ServiceStart,
        news: mpsc::UnboundedSender<StatusEvent>,
        ready: Arc<ClientState>,
    ) -> Self {
        let ServiceStart { options, source, crawling, stats, problems, open, lifeline, supervisor } =
            beginning;
        let (source, greeting) = (Some((source, crawling)), None);
        Self {
            inner,
            session,
            ending,
            source,
            stats,
            options,
            problems,
            lifeline,
            supervisor,
            greeting,
            news,
            open,
            ready,
        }
    }

    /// Reads the client's features, starts the session, and returns the result of `initialize`.
    fn initialize_session(&mut self, params: &Value) -> Result<Value> {
        let greeting = ClientFeatures::parse_initialize(params);
        self.ready.progress.store(greeting.progress, Ordering::Release);
        self.ready.status.store(greeting.status, Ordering::Release);
        self.ready.trace.store(greeting.trace, Ordering::Release);
        self.ready.accepted.store(greeting.accepted, Ordering::Release);
        let settings =
            self.options.initial_settings(greeting.options.clone(), std::mem::take(&mut self.problems));
        let result = convert::initialize_result(&greeting);
        if let Some((source, crawling)) = self.source.take() {
            let (news, open) = (self.news.clone(), Arc::clone(&self.open));
            let stats = self.stats.clone();
            let start = SessionStart {
                encoding: greeting.encoding,
                refreshes: greeting.refresh,
                settings,
                source,
                crawling,
                notices: Box::new(move |notice| drop(news.send(with_client_uris(notice, &open).into()))),
                usage_recorder: Box::new(move |record| stats.record(record)),
                supervisor: self.supervisor.clone(),
            };
            let session = Session::start(start).map_err(|problem| {
                error!(%problem, "cannot start the session");
                self.ending.begin_exit(EndReason::NotStarted);
                let mut error = Error::internal_error();
                error.message = format!("taper cannot start: {problem}").into();
                error
            })?;
            // Set once: `source` can be taken once.
            let _ = self.session.set(session);
        }
        if let Some(process) = greeting.process {
            self.lifeline.watch_process(process);
        }
        self.greeting = Some(greeting);
        Ok(result)
    }

    fn send(&self, event: Event) {
        if let Some(session) = self.session.get() {
            session.send(event);
        }
    }

    /// Handles a notification immediately; false if it is not for the session.
    fn handle_notification(&mut self, method: &str, params: &mut Value) -> bool {
        let Some(greeting) = &mut self.greeting else { return false };
        let mut open = lock_documents(&self.open);
        let uri = |params: &Value| {
            let uri = convert::document_uri(params);
            if uri.is_none() {
                warn!("ignored `{method}` without a URI");
            }
            uri
        };
        let mut events = Vec::new();
        match method {
            "textDocument/didOpen" => {
                match params.get_mut("textDocument").and_then(TextDocumentItem::take_from) {
                    Some(document) => events = open.open_document(document, &greeting.folders),
                    None => warn!("ignored `didOpen` without a URI or a text"),
                }
            }
            "textDocument/didSave" => {
                let uri = uri(params).map(|uri| open.documents.canonical_name(uri));
                events.extend(uri.map(|uri| Event::Saved { uri }));
            }
            convert::CURSOR_METHOD => match convert::document_position(params) {
                Some((uri, position)) => {
                    let uri = open.documents.canonical_name_for_request(uri);
                    events.push(Event::CursorRested { uri, position });
                }
                None => warn!("ignored `{method}` without a URI or a position"),
            },
            "textDocument/didClose" => {
                let uri = uri(params).map(|uri| open.documents.close(uri));
                events.extend(uri.map(|uri| Event::Closed { uri }));
            }
            "workspace/didChangeWorkspaceFolders" => {
                let (added, removed) = convert::changed_folders(params);
                removed.into_iter().for_each(|path| greeting.folders.remove_folder(path));
                added.into_iter().for_each(|path| greeting.folders.add_folder(path));
                events = open.relocation_events(&greeting.folders);
            }
            "workspace/didChangeConfiguration" => {
                match params.get_mut("settings").map_or(Value::Null, Value::take) {
                    // This editor only signals that something has changed, and must be asked for its settings.
                    Value::Null if greeting.configuration => self.options.ask.notify_one(),
                    settings => self.options.change_settings(settings),
                }
            }
            _ => match open.notebook_events(method, params, &greeting.folders) {
                Some(told) => events = told,
                None => return false,
            },
        }
        // Sending may block until the session has room, and the session locks this for its notices.
        drop(open);
        events.into_iter().for_each(|event| self.send(event));
        true
    }

    /// Passes a document change to the session.
    pub(crate) fn document_changed(&self, changed: DocumentChange) {
        if self.greeting.is_none() {
            return;
        }
        let DocumentChange { uri, version, changes } = changed;
        let uri = lock_documents(&self.open).documents.canonical_name(uri);
        self.send(match changes {
            Some(changes) => Event::Edited { uri, version, changes },
            None => Event::DocumentLost { uri },
        });
    }

    /// Passes a call to tower-lsp and polls it once.
    fn forward_call(&mut self, method: &str, id: Option<Id>, params: Option<Value>) -> ServiceFuture {
        let mut request = Request::build(method.to_owned());
        if let Some(id) = id.clone() {
            request = request.id(id);
        }
        if let Some(params) = params {
            request = request.params(params);
        }
        let future = AssertUnwindSafe(self.inner.call(request.finish())).catch_unwind();
        let mut future = future
            .map(move |outcome| {
                outcome.unwrap_or_else(|_| {
                    error!("panic in a handler");
                    Ok(id.map(|id| Response::from_error(id, Error::internal_error())))
                })
            })
            .boxed();
        match future.poll_unpin(&mut Context::from_waker(noop_waker_ref())) {
            Poll::Ready(response) => ready(response).boxed(),
            Poll::Pending => future,
        }
    }

    fn dispatch_message(&mut self, request: Request) -> ServiceFuture {
        let (method, id, mut params) = request.into_parts();
        match (method.as_ref(), id) {
            ("initialize", Some(id)) => {
                let params = params.unwrap_or_default();
                let begun = match self.greeting {
                    // A second `initialize`: tower-lsp returns the error for it.
                    Some(_) => Ok(Value::Null),
                    None => self.initialize_session(&params),
                };
                let future = match &begun {
                    Ok(_) => {
                        self.forward_call("initialize", Some(id.clone()), Some(json!({ "capabilities": {} })))
                    }
                    Err(error) => ready(Ok(Some(Response::from_error(id.clone(), error.clone())))).boxed(),
                };
                let result = begun.unwrap_or_default();
                future
                    .map(move |outcome| {
                        outcome.map(|response| match response {
                            Some(response) if response.is_ok() => Some(Response::from_ok(id, result)),
                            other => other,
                        })
                    })
                    .boxed()
            }
            ("shutdown", Some(id)) => {
                self.ending.request_shutdown();
                self.stats.save();
                self.forward_call("shutdown", Some(id), params)
            }
            ("textDocument/completion", Some(id)) => self.forward_call(POPUP_METHOD, Some(id), params),
            ("workspace/executeCommand", Some(id)) => self.forward_call(COMMAND_METHOD, Some(id), params),
            ("exit", None) => {
                self.ending.begin_exit(EndReason::Exit);
                self.forward_call("exit", None, params)
            }
            (method, None) => {
                if method == "initialized" {
                    self.ready.initialized.notify_one();
                    if self.greeting.as_ref().is_some_and(|greeting| greeting.configuration) {
                        self.options.ask.notify_one();
                    }
                }
                if params.as_mut().is_some_and(|params| self.handle_notification(method, params)) {
                    return ready(Ok(None)).boxed();
                }
                self.forward_call(method, None, params)
            }
            (method, Some(id)) => self.forward_call(method, Some(id), params),
        }
    }
}

impl Service<Request> for OrderedService {
    type Response = Option<Response>;
    type Error = ExitedError;
    type Future = ServiceFuture;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<std::result::Result<(), ExitedError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> ServiceFuture {
        let id = request.id().cloned();
        let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| self.dispatch_message(request)));
        outcome.unwrap_or_else(|_| {
            error!("panic in the service");
            ready(Ok(id.map(|id| Response::from_error(id, Error::internal_error())))).boxed()
        })
    }
}

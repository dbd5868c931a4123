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

/// Shared by the service and its handlers: the session, once it has started, and what belongs to the client.
#[derive(Clone)]
pub(crate) struct Backend {
    pub(crate) session: Arc<OnceLock<Session>>,
    pub(crate) client_state: Arc<ClientState>,
    pub(crate) status: mpsc::UnboundedSender<StatusEvent>,
    pub(crate) open_files: Arc<Mutex<OpenFiles>>,
    pub(crate) stats: StatsHandle,
}

impl Backend {
    /// Sends a request to the session. Nothing is awaited before: requests and changes stay in arrival order.
    fn enqueue_request(&self, params: &Value, popup: bool) -> Result<(ResponseReceiver, RequestMetrics)> {
        let arrived = Instant::now();
        let CompletionParams { uri, position, selected, trigger } = CompletionParams::read(params)
            .ok_or_else(|| Error::invalid_params("a request needs `textDocument.uri` and `position`"))?;
        let metrics = RequestMetrics::begin(self.stats.clone(), self.status.clone(), arrived);
        let (responder, receiver) = Responder::new();
        let uri = self.open_files().documents.canonical_name_for_request(uri);
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

    fn open_files(&self) -> MutexGuard<'_, OpenFiles> {
        lock_files(&self.open_files)
    }

    fn send(&self, event: Event) {
        if let Some(session) = self.session.get() {
            session.send(event);
        }
    }

    /// `textDocument/inlineCompletion`.
    pub(crate) async fn inline_completion(&self, params: Value) -> Result<Value> {
        let (receiver, metrics) = self.enqueue_request(&params, false)?;
        let response = receiver.await.unwrap_or(CompletionResponse::Empty);
        metrics.record_response(&response);
        let reports_acceptance = self.client_state.accepted.load(Ordering::Acquire);
        response_result(response, |shown| convert::inline_result(shown, reports_acceptance))
    }

    /// `textDocument/completion`, for editors without inline completion.
    pub(crate) async fn popup_completion(&self, params: Value) -> Result<Value> {
        let (receiver, metrics) = self.enqueue_request(&params, true)?;
        let response = receiver.await.unwrap_or(CompletionResponse::Empty);
        metrics.record_response(&response);
        let response = match response {
            // Editors drop the response to a superseded request; Helix would log an error.
            CompletionResponse::Superseded => CompletionResponse::Empty,
            response => response,
        };
        response_result(response, convert::popup_result)
    }

    /// `workspace/executeCommand`.
    pub(crate) async fn execute_command(&self, params: Value) -> Result<Value> {
        match ExecuteCommand::parse_params(&params).map_err(Error::invalid_params)? {
            ExecuteCommand::Pause(scope, paused) => {
                let scope = match scope {
                    PauseScope::Document(uri) => {
                        PauseScope::Document(self.open_files().documents.canonical_name_for_request(uri))
                    }
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

fn lock_files(open_files: &Mutex<OpenFiles>) -> MutexGuard<'_, OpenFiles> {
    open_files.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A notice with the URIs that the client used last.
fn with_client_uris(mut notice: Notice, open_files: &Mutex<OpenFiles>) -> Notice {
    let client_uri = |uri: String| lock_files(open_files).documents.client_uri(uri);
    match &mut notice {
        Notice::Refresh(improvement) => improvement.uri = client_uri(std::mem::take(&mut improvement.uri)),
        Notice::Paused(pauses) => {
            pauses.documents = std::mem::take(&mut pauses.documents).into_iter().map(client_uri).collect();
        }
        _ => {}
    }
    notice
}

fn response_result(
    response: CompletionResponse,
    write: impl Fn(Option<&CompletionItem>) -> Value,
) -> Result<Value> {
    match response {
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
    /// Problems found before a client was connected.
    pub(crate) problems: Vec<String>,
    /// Watches the editor's process.
    pub(crate) client_monitor: ClientMonitor,
    /// Reports a failed thread.
    pub(crate) supervisor: ThreadSupervisor,
    /// Ends the process.
    pub(crate) shutdown: Arc<Shutdown>,
}

/// The service in front of tower-lsp.
pub(crate) struct OrderedService {
    inner: LspService<Backend>,
    backend: Backend,
    options: Arc<ClientOptions>,
    /// Taken when the session starts.
    source: Option<(EngineSource, CrawlMode)>,
    problems: Vec<String>,
    client_monitor: ClientMonitor,
    supervisor: ThreadSupervisor,
    shutdown: Arc<Shutdown>,
    /// The client, once it has sent `initialize`.
    client: Option<ClientFeatures>,
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
    /// A service in front of `inner`, whose handlers share `backend`.
    pub(crate) fn new(inner: LspService<Backend>, backend: Backend, start: ServiceStart) -> Self {
        let ServiceStart { options, source, crawling, problems, client_monitor, supervisor, shutdown } =
            start;
        let (source, client) = (Some((source, crawling)), None);
        Self { inner, backend, options, source, problems, client_monitor, supervisor, shutdown, client }
    }

    /// Reads the client's features, starts the session, and returns the result of `initialize`.
    fn initialize_session(&mut self, params: &Value) -> Result<Value> {
        let mut client = ClientFeatures::parse_initialize(params);
        let state = &self.backend.client_state;
        state.progress.store(client.progress, Ordering::Release);
        state.status.store(client.status, Ordering::Release);
        state.trace.store(client.trace, Ordering::Release);
        state.accepted.store(client.accepted, Ordering::Release);
        let options = std::mem::take(&mut client.options);
        let settings = self.options.initial_settings(options, std::mem::take(&mut self.problems));
        let result = convert::initialize_result(&client);
        if let Some((source, crawling)) = self.source.take() {
            let Backend { status, open_files, stats, .. } = self.backend.clone();
            let start = SessionStart {
                encoding: client.encoding,
                refreshes: client.refresh,
                settings,
                source,
                crawling,
                notices: Box::new(move |notice| {
                    // An error means that the server is ending.
                    let _ = status.send(with_client_uris(notice, &open_files).into());
                }),
                usage_recorder: Box::new(move |record| stats.record(record)),
                supervisor: self.supervisor.clone(),
            };
            let session = Session::start(start).map_err(|problem| {
                error!(%problem, "cannot start the session");
                self.shutdown.begin_exit(EndReason::NotStarted);
                let mut error = Error::internal_error();
                error.message = format!("taper cannot start: {problem}").into();
                error
            })?;
            // Set once: `source` can be taken once.
            let _ = self.backend.session.set(session);
        }
        if let Some(process) = client.process {
            self.client_monitor.watch_process(process);
        }
        self.client = Some(client);
        Ok(result)
    }

    /// Handles a notification immediately; false if it is not for the session.
    fn handle_notification(&mut self, method: &str, params: &mut Value) -> bool {
        let Some(client) = &mut self.client else { return false };
        let mut open_files = self.backend.open_files();
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
                    Some(document) => events = open_files.open_document(document, &client.folders),
                    None => warn!("ignored `didOpen` without a URI or a text"),
                }
            }
            "textDocument/didSave" => {
                let uri = uri(params).map(|uri| open_files.documents.canonical_name(uri));
                events.extend(uri.map(|uri| Event::Saved { uri }));
            }
            convert::CURSOR_METHOD => match convert::document_position(params) {
                Some((uri, position)) => {
                    let uri = open_files.documents.canonical_name_for_request(uri);
                    events.push(Event::CursorRested { uri, position });
                }
                None => warn!("ignored `{method}` without a URI or a position"),
            },
            "textDocument/didClose" => {
                let uri = uri(params).map(|uri| open_files.documents.close(uri));
                events.extend(uri.map(|uri| Event::Closed { uri }));
            }
            "workspace/didChangeWorkspaceFolders" => {
                let (added, removed) = convert::changed_folders(params);
                removed.into_iter().for_each(|path| client.folders.remove_folder(path));
                added.into_iter().for_each(|path| client.folders.add_folder(path));
                events = open_files.relocation_events(&client.folders);
            }
            "workspace/didChangeConfiguration" => {
                match params.get_mut("settings").map_or(Value::Null, Value::take) {
                    // This editor only signals that something has changed, and must be asked for its settings.
                    Value::Null if client.configuration => self.options.pull_requested.notify_one(),
                    settings => self.options.change_settings(settings),
                }
            }
            _ => match open_files.notebook_events(method, params, &client.folders) {
                Some(cell_events) => events = cell_events,
                None => return false,
            },
        }
        // Sending may block until the session has room, and the session locks this for its notices.
        drop(open_files);
        events.into_iter().for_each(|event| self.backend.send(event));
        true
    }

    /// Passes a document change to the session.
    pub(crate) fn document_changed(&self, changed: DocumentChange) {
        if self.client.is_none() {
            return;
        }
        let DocumentChange { uri, version, changes } = changed;
        let uri = self.backend.open_files().documents.canonical_name(uri);
        self.backend.send(match changes {
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
                let begun = match self.client {
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
                self.shutdown.request_shutdown();
                self.backend.stats.save();
                self.forward_call("shutdown", Some(id), params)
            }
            ("textDocument/completion", Some(id)) => self.forward_call(POPUP_METHOD, Some(id), params),
            ("workspace/executeCommand", Some(id)) => self.forward_call(COMMAND_METHOD, Some(id), params),
            ("exit", None) => {
                self.shutdown.begin_exit(EndReason::Exit);
                self.forward_call("exit", None, params)
            }
            (method, None) => {
                if method == "initialized" {
                    self.backend.client_state.initialized.notify_one();
                    if self.client.as_ref().is_some_and(|client| client.configuration) {
                        self.options.pull_requested.notify_one();
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

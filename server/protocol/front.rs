//! The service in front of tower-lsp's: arrival order, the editor's own words, and the end of the process.
//! It knows nothing of what the session does with what it is handed.
//!
//! What tower-lsp does not do by itself, and editors need:
//! - Handlers run in a few slots, notifications and cancellations too. Here every call is polled once as it
//!   arrives, so that whatever a handler does before it first waits happens in arrival order, slots or not;
//!   notifications of documents do not reach the slots at all.
//! - A panic in a handler leaves a process that answers nothing. Here it becomes an error for that request.
//! - `exit` leaves the process waiting for its input. Here it ends it.

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

use crate::protocol::commands::{self, Command};
use crate::protocol::ending::{Ending, Reason};
use crate::protocol::incoming::Changed;
use crate::protocol::lifeline::Lifeline;
use crate::protocol::messages::{self, Greeting, Inquiry, TextDocument};
use crate::protocol::notebooks::Open;
use crate::protocol::options::Options;
use crate::protocol::request_metrics::RequestMetrics;
use crate::protocol::status::News;
use crate::session::crawler::Crawling;
use crate::session::{
    Answer, Asked, Event, Notice, Receiver, Reply, Scope, Session, Shown, Source, Start, Supervisor,
};
use crate::usage::outcome::Outcome;
use crate::usage::stats::UsageEvent;
use crate::usage::store::StatsHandle;

/// The method under which `textDocument/completion` goes to tower-lsp, whose own would refuse its URIs.
pub(crate) const POPUP: &str = "$/taper/completion";
/// The method under which `workspace/executeCommand` goes to tower-lsp, whose own refuses `arguments: null`.
pub(crate) const COMMAND: &str = "$/taper/command";
/// The request for inline completions.
pub(crate) const INLINE: &str = "textDocument/inlineCompletion";

/// What handlers share: the session, once there is one.
pub(crate) struct Backend {
    session: Arc<OnceLock<Session>>,
    ready: Arc<Ready>,
    news: mpsc::UnboundedSender<News>,
    open: Arc<Mutex<Open>>,
    stats: StatsHandle,
}

impl Backend {
    pub(crate) fn new(
        session: Arc<OnceLock<Session>>,
        ready: Arc<Ready>,
        news: mpsc::UnboundedSender<News>,
        open: Arc<Mutex<Open>>,
        stats: StatsHandle,
    ) -> Self {
        Self { session, ready, news, open, stats }
    }

    /// Hands a question over. Nothing is awaited before: questions and changes stay in arrival order.
    fn ask(&self, params: &Value, popup: bool) -> Result<(Receiver, RequestMetrics)> {
        let arrived = Instant::now();
        let inquiry = Inquiry::read(params)
            .ok_or_else(|| Error::invalid_params("a request needs `textDocument.uri` and `position`"))?;
        let metrics = RequestMetrics::begin(self.stats.clone(), self.news.clone(), arrived);
        let (reply, receiver) = Reply::new();
        let Inquiry { uri, position, selected, trigger } = inquiry;
        let uri = locked(&self.open).documents.name_for_request(uri);
        self.send(Event::Asked(Asked { uri, position, selected, trigger, popup, arrived, reply }));
        Ok((receiver, metrics))
    }

    fn send(&self, event: Event) {
        if let Some(session) = self.session.get() {
            session.send(event);
        }
    }

    /// `textDocument/inlineCompletion`.
    pub(crate) async fn inline(&self, params: Value) -> Result<Value> {
        let (receiver, metrics) = self.ask(&params, false)?;
        let answer = receiver.await.unwrap_or(Answer::Nothing);
        metrics.record_answer(&answer);
        let tells = self.ready.accepted.load(Ordering::Acquire);
        answered(answer, |shown| messages::inline_result(shown, tells))
    }

    /// `textDocument/completion`, for editors without inline completion.
    pub(crate) async fn popup(&self, params: Value) -> Result<Value> {
        let (receiver, metrics) = self.ask(&params, true)?;
        let answer = receiver.await.unwrap_or(Answer::Nothing);
        metrics.record_answer(&answer);
        let answer = match answer {
            // Editors drop the answer to a question that they asked anew; Helix logs an error all the same.
            Answer::Superseded => Answer::Nothing,
            answer => answer,
        };
        answered(answer, messages::popup_result)
    }

    /// `workspace/executeCommand`.
    pub(crate) async fn command(&self, params: Value) -> Result<Value> {
        match Command::read(&params).map_err(Error::invalid_params)? {
            Command::Pause(scope, paused) => {
                let scope = match scope {
                    Scope::Document(uri) => {
                        Scope::Document(locked(&self.open).documents.name_for_request(uri))
                    }
                    scope => scope,
                };
                self.send(Event::Paused { scope, paused });
            }
            Command::Accepted => {
                // How much it was is known only from the edits.
                let (outcome, characters) = (Outcome::Accepted, 0);
                self.stats.record_since_start(UsageEvent::Finished { outcome, characters });
                self.send(Event::Accepted);
            }
            Command::Statistics => {
                let (sender, receiver) = oneshot::channel();
                self.send(Event::UpdateUsage(sender));
                // An error means that there is no session.
                let _ = receiver.await;
                return Ok(self.stats.report().await);
            }
            Command::ExplainLast => {
                let (sender, receiver) = oneshot::channel();
                self.send(Event::Explain(sender));
                return Ok(commands::explained(receiver.await.unwrap_or_default()));
            }
            Command::Models => {
                return commands::models().map_err(|problem| {
                    let mut error = Error::internal_error();
                    error.message = problem.into();
                    error
                });
            }
        }
        Ok(Value::Null)
    }
}

fn locked(open: &Mutex<Open>) -> MutexGuard<'_, Open> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A notice with the URIs that the client used last.
fn as_written(mut notice: Notice, open: &Mutex<Open>) -> Notice {
    let written = |uri: String| locked(open).documents.written(uri);
    match &mut notice {
        Notice::Grown(grown) => grown.uri = written(std::mem::take(&mut grown.uri)),
        Notice::Paused(pauses) => {
            pauses.documents = std::mem::take(&mut pauses.documents).into_iter().map(written).collect();
        }
        _ => {}
    }
    notice
}

fn answered(answer: Answer, write: impl Fn(Option<&Shown>) -> Value) -> Result<Value> {
    match answer {
        Answer::Shown(shown) => Ok(write(Some(&shown))),
        Answer::Nothing => Ok(write(None)),
        // The one error that editors swallow without a word.
        Answer::Superseded => Err(Error::new(ErrorCode::RequestCancelled)),
    }
}

impl LanguageServer for Backend {
    async fn initialize(&self, _: InitializeParams) -> Result<InitializeResult> {
        // The front has read the params and writes the result; tower-lsp only takes note of the state.
        Ok(InitializeResult::default())
    }

    async fn shutdown(&self) -> Result<()> {
        Ok(())
    }
}

/// What the front needs to begin.
pub(crate) struct Beginning {
    /// Options from the file and the command line.
    pub(crate) options: Arc<Options>,
    /// Where the engine comes from.
    pub(crate) source: Source,
    /// Where the project's files are looked through.
    pub(crate) crawling: Crawling,
    /// Counts what happens.
    pub(crate) stats: StatsHandle,
    /// What went wrong before there was an editor to tell.
    pub(crate) problems: Vec<String>,
    /// The open documents; shared with the handlers.
    pub(crate) open: Arc<Mutex<Open>>,
    /// Who watches the editor's process.
    pub(crate) lifeline: Lifeline,
    /// Who is told when a thread fails.
    pub(crate) supervisor: Supervisor,
}

/// The service in front.
pub(crate) struct Front {
    inner: LspService<Backend>,
    session: Arc<OnceLock<Session>>,
    ending: Arc<Ending>,
    /// Taken when the session begins.
    source: Option<(Source, Crawling)>,
    stats: StatsHandle,
    options: Arc<Options>,
    problems: Vec<String>,
    lifeline: Lifeline,
    supervisor: Supervisor,
    greeting: Option<Greeting>,
    news: mpsc::UnboundedSender<News>,
    open: Arc<Mutex<Open>>,
    /// Signalled when the editor is ready for notices; whether it shows progress.
    ready: Arc<Ready>,
}

/// Whether the editor is ready for notices, and what it can show.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    /// Signalled by `initialized`.
    pub(crate) initialized: Notify,
    /// Whether it shows progress that the server begins.
    pub(crate) progress: AtomicBool,
    /// Whether it shows the state of the server.
    pub(crate) status: AtomicBool,
    /// Whether it follows the steps of the work.
    pub(crate) trace: AtomicBool,
    /// Whether it runs a suggestion's command when that is taken.
    pub(crate) accepted: AtomicBool,
}

type Future = BoxFuture<'static, std::result::Result<Option<Response>, ExitedError>>;

impl Front {
    pub(crate) fn new(
        inner: LspService<Backend>,
        session: Arc<OnceLock<Session>>,
        ending: Arc<Ending>,
        beginning: Beginning,
        news: mpsc::UnboundedSender<News>,
        ready: Arc<Ready>,
    ) -> Self {
        let Beginning { options, source, crawling, stats, problems, open, lifeline, supervisor } = beginning;
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

    /// Reads what the editor says of itself, starts the session, and gives the answer to `initialize`.
    fn begin(&mut self, params: &Value) -> Result<Value> {
        let greeting = Greeting::read(params);
        self.ready.progress.store(greeting.progress, Ordering::Release);
        self.ready.status.store(greeting.status, Ordering::Release);
        self.ready.trace.store(greeting.trace, Ordering::Release);
        self.ready.accepted.store(greeting.accepted, Ordering::Release);
        let settings = self.options.begin(greeting.options.clone(), std::mem::take(&mut self.problems));
        let result = messages::capabilities(&greeting);
        if let Some((source, crawling)) = self.source.take() {
            let (news, open) = (self.news.clone(), Arc::clone(&self.open));
            let stats = self.stats.clone();
            let start = Start {
                encoding: greeting.encoding,
                refreshes: greeting.refresh,
                settings,
                source,
                crawling,
                notices: Box::new(move |notice| drop(news.send(as_written(notice, &open).into()))),
                usage_recorder: Box::new(move |record| stats.record(record)),
                supervisor: self.supervisor.clone(),
            };
            let session = Session::start(start).map_err(|problem| {
                error!(%problem, "the session cannot be started");
                self.ending.begin(Reason::NotStarted);
                let mut error = Error::internal_error();
                error.message = format!("taper cannot serve: {problem}").into();
                error
            })?;
            // Set once: `source` can be taken once.
            let _ = self.session.set(session);
        }
        if let Some(process) = greeting.process {
            self.lifeline.watch(process);
        }
        self.greeting = Some(greeting);
        Ok(result)
    }

    fn send(&self, event: Event) {
        if let Some(session) = self.session.get() {
            session.send(event);
        }
    }

    /// Handles a notification here and now; false if it is not for the session.
    fn note(&mut self, method: &str, params: &mut Value) -> bool {
        let Some(greeting) = &mut self.greeting else { return false };
        let mut open = locked(&self.open);
        let uri = |params: &Value| {
            let uri = messages::uri(params);
            if uri.is_none() {
                warn!("`{method}` without a URI");
            }
            uri
        };
        let mut events = Vec::new();
        match method {
            "textDocument/didOpen" => match params.get_mut("textDocument").and_then(TextDocument::take) {
                Some(document) => events = open.document(document, &greeting.folders),
                None => warn!("`didOpen` without a URI or a text"),
            },
            "textDocument/didSave" => {
                let uri = uri(params).map(|uri| open.documents.name(uri));
                events.extend(uri.map(|uri| Event::Saved { uri }));
            }
            messages::CURSOR => match messages::place(params) {
                Some((uri, position)) => {
                    let uri = open.documents.name_for_request(uri);
                    events.push(Event::Looked { uri, position });
                }
                None => warn!("`{method}` without a URI or a position"),
            },
            "textDocument/didClose" => {
                let uri = uri(params).map(|uri| open.documents.close(uri));
                events.extend(uri.map(|uri| Event::Closed { uri }));
            }
            "workspace/didChangeWorkspaceFolders" => {
                let (added, removed) = messages::folders(params);
                removed.into_iter().for_each(|path| greeting.folders.remove(path));
                added.into_iter().for_each(|path| greeting.folders.add(path));
                events = open.relocated(&greeting.folders);
            }
            "workspace/didChangeConfiguration" => {
                match params.get_mut("settings").map_or(Value::Null, Value::take) {
                    // Such an editor says that something has changed, and is to be asked what.
                    Value::Null if greeting.configuration => self.options.ask.notify_one(),
                    settings => self.options.change(settings),
                }
            }
            _ => match open.notebook(method, params, &greeting.folders) {
                Some(told) => events = told,
                None => return false,
            },
        }
        // Sending may block until the session has room, and the session locks this for its notices.
        drop(open);
        events.into_iter().for_each(|event| self.send(event));
        true
    }

    /// Hands a change of a document to the session.
    pub(crate) fn changed(&self, changed: Changed) {
        if self.greeting.is_none() {
            return;
        }
        let Changed { uri, version, changes } = changed;
        let uri = locked(&self.open).documents.name(uri);
        self.send(match changes {
            Some(changes) => Event::Edited { uri, version, changes },
            None => Event::Lost { uri },
        });
    }

    /// Hands a call to tower-lsp and polls it once.
    fn forward(&mut self, method: &str, id: Option<Id>, params: Option<Value>) -> Future {
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
                    error!("a handler panicked");
                    Ok(id.map(|id| Response::from_error(id, Error::internal_error())))
                })
            })
            .boxed();
        match future.poll_unpin(&mut Context::from_waker(noop_waker_ref())) {
            Poll::Ready(response) => ready(response).boxed(),
            Poll::Pending => future,
        }
    }

    fn dispatch(&mut self, request: Request) -> Future {
        let (method, id, mut params) = request.into_parts();
        match (method.as_ref(), id) {
            ("initialize", Some(id)) => {
                let params = params.unwrap_or_default();
                let begun = match self.greeting {
                    // A second one: tower-lsp has the error for it.
                    Some(_) => Ok(Value::Null),
                    None => self.begin(&params),
                };
                let future = match &begun {
                    Ok(_) => {
                        self.forward("initialize", Some(id.clone()), Some(json!({ "capabilities": {} })))
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
                self.ending.shut_down();
                self.stats.save();
                self.forward("shutdown", Some(id), params)
            }
            ("textDocument/completion", Some(id)) => self.forward(POPUP, Some(id), params),
            ("workspace/executeCommand", Some(id)) => self.forward(COMMAND, Some(id), params),
            ("exit", None) => {
                self.ending.begin(Reason::Exit);
                self.forward("exit", None, params)
            }
            (method, None) => {
                if method == "initialized" {
                    self.ready.initialized.notify_one();
                    if self.greeting.as_ref().is_some_and(|greeting| greeting.configuration) {
                        self.options.ask.notify_one();
                    }
                }
                if params.as_mut().is_some_and(|params| self.note(method, params)) {
                    return ready(Ok(None)).boxed();
                }
                self.forward(method, None, params)
            }
            (method, Some(id)) => self.forward(method, Some(id), params),
        }
    }
}

impl Service<Request> for Front {
    type Response = Option<Response>;
    type Error = ExitedError;
    type Future = Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<std::result::Result<(), ExitedError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Future {
        let id = request.id().cloned();
        let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| self.dispatch(request)));
        outcome.unwrap_or_else(|_| {
            error!("the front panicked");
            ready(Ok(id.map(|id| Response::from_error(id, Error::internal_error())))).boxed()
        })
    }
}

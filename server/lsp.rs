//! The LSP server: the only place with LSP types and JSON. The path of a message:
//!
//! - [`reader`] reads the standard input on a thread of its own.
//! - [`framing`] splits the bytes into messages, [`incoming`] parses them.
//! - [`transport`] passes them in arrival order to the [`service`], which passes them to the session or to tower-lsp.
//! - [`convert`], [`notebooks`] and [`commands`] read and write messages,
//!   [`text_change`] positions and changes; [`uri`] maps URIs to documents.
//! - [`outgoing`] sends notices and the [`status`] for a status line; [`writer`] writes to the standard output.
//! - [`client_monitor`] watches the client, [`shutdown`] ends the process.
//! - [`configuration`] holds the client's options, [`request_metrics`] counts requests.

mod client_monitor;
mod commands;
mod configuration;
mod convert;
pub mod framing;
pub mod incoming;
mod notebooks;
mod outgoing;
mod reader;
mod request_metrics;
mod service;
mod shutdown;
mod status;
mod text_change;
mod trace;
mod transport;
mod uri;
mod writer;

use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::mpsc;
use tower_lsp::{Client, ClientSocket, LspService};

use crate::config::ConfigLayers;
use crate::session::crawler::CrawlMode;
use crate::session::{EngineSource, ThreadSupervisor};
use crate::usage::store::{StatsFile, StatsWorker};

use client_monitor::ClientMonitor;
use configuration::ClientOptions;
use service::{Backend, ClientState, OrderedService, ServiceStart};
pub use shutdown::ExitOutcome;
use shutdown::{EndReason, Shutdown};
use writer::MessageOutput;

/// Time limit for writing the last messages.
const FLUSH_LIMIT: Duration = Duration::from_millis(500);

/// What the server needs to start.
pub struct ServeOptions {
    /// Options from the configuration file and the command line; the editor's have precedence.
    pub layers: ConfigLayers,
    /// Where the engine comes from.
    pub source: EngineSource,
    /// Where the project's files are crawled.
    pub crawling: CrawlMode,
    /// Problems found before a client was connected, for instance an unreadable configuration.
    pub problems: Vec<String>,
}

/// Serves one editor on the standard input and output until it sends `exit`, closes a pipe, or ends; until this
/// process gets a signal; or until a part of the server fails.
///
/// Threads may still run when this returns, for instance with a generation: they end with the process.
///
/// # Errors
/// The system cannot start another thread.
pub fn serve(serving: ServeOptions) -> io::Result<ExitOutcome> {
    let ServeOptions { layers, source, crawling, problems } = serving;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let (output, unwritten) = MessageOutput::new();
    let shutdown = Arc::new(Shutdown::new(output.clone()));
    let supervisor = {
        let shutdown = Arc::clone(&shutdown);
        ThreadSupervisor::new(move |thread| shutdown.begin_exit(EndReason::Failed(thread)))
    };
    let writer_done = unwritten.start_writer(io::stdout(), &supervisor, Arc::clone(&shutdown))?;
    let client_monitor = ClientMonitor::start_monitor(&supervisor, Arc::clone(&shutdown))?;
    let (worker, stats, stats_finished) = StatsWorker::new(StatsFile::open());
    supervisor.spawn("statistics", move || worker.run())?;
    let messages = reader::start_reader(io::stdin(), &supervisor, Arc::clone(&shutdown))?;
    let (status, status_events) = mpsc::unbounded_channel();
    let session = Arc::new(OnceLock::new());
    let client_state = Arc::new(ClientState::default());
    let options = Arc::new(ClientOptions::new(layers, Arc::clone(&session), status.clone()));
    let backend = Backend {
        session: Arc::clone(&session),
        client_state: Arc::clone(&client_state),
        status,
        open_files: Arc::default(),
        stats: stats.clone(),
    };
    let (service, socket, client) = build_service(
        backend,
        ServiceStart {
            options: Arc::clone(&options),
            source,
            crawling,
            problems,
            client_monitor,
            supervisor,
            shutdown: Arc::clone(&shutdown),
        },
    );

    let served = async {
        let background_tasks = async {
            if let Some(client) = client {
                futures::join!(
                    configuration::pull_settings(client.clone(), options),
                    outgoing::send_notices(client, status_events, client_state)
                );
            }
            futures::future::pending::<()>().await;
        };
        tokio::select! {
            () = transport::serve(service, socket, messages, output.clone()) => {}
            () = background_tasks => {}
            () = shutdown.wait_for_exit() => {}
        }
    };
    if runtime.block_on(AssertUnwindSafe(served).catch_unwind()).is_err() {
        shutdown.begin_exit(EndReason::Failed("service"));
    }
    // A blocked write, for instance, is not waited for.
    runtime.shutdown_background();
    writer_done.wait_written(&output, FLUSH_LIMIT);
    if let Some(session) = session.get() {
        session.stop();
    }
    // If a thread hangs or has failed, the last counts may never arrive: save the present ones first.
    stats.save();
    drop(stats);
    stats_finished.wait();
    Ok(shutdown.exit_outcome())
}

/// The service in front of tower-lsp's, tower-lsp's end of it, and the client as tower-lsp reaches it.
fn build_service(backend: Backend, start: ServiceStart) -> (OrderedService, ClientSocket, Option<Client>) {
    let mut client = None;
    let (inner, socket) = LspService::build(|handle| {
        client = Some(handle);
        backend.clone()
    })
    .custom_method(service::INLINE_METHOD, Backend::inline_completion)
    .custom_method(service::POPUP_METHOD, Backend::popup_completion)
    .custom_method(service::COMMAND_METHOD, Backend::execute_command)
    .finish();
    (OrderedService::new(inner, backend, start), socket, client)
}

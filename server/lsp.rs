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
use tower_lsp::LspService;

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
    let ending = Arc::new(Shutdown::new(output.clone()));
    let supervisor = {
        let ending = Arc::clone(&ending);
        ThreadSupervisor::new(move |thread| ending.begin_exit(EndReason::Failed(thread)))
    };
    let written = unwritten.start_writer(io::stdout(), &supervisor, Arc::clone(&ending))?;
    let lifeline = ClientMonitor::start_monitor(&supervisor, Arc::clone(&ending))?;
    let session = Arc::new(OnceLock::new());
    let ready = Arc::new(ClientState::default());
    let (news, status_events) = mpsc::unbounded_channel();
    let options = Arc::new(ClientOptions::new(layers, Arc::clone(&session), news.clone()));
    let (worker, stats, stats_finished) = StatsWorker::new(StatsFile::open());
    supervisor.spawn("statistics", move || worker.run())?;
    let messages = reader::start_reader(io::stdin(), &supervisor, Arc::clone(&ending))?;
    let open = Arc::default();

    let mut client = None;
    let (inner, socket) = LspService::build(|its| {
        client = Some(its);
        Backend::new(Arc::clone(&session), Arc::clone(&ready), news.clone(), Arc::clone(&open), stats.clone())
    })
    .custom_method(service::INLINE_METHOD, Backend::inline_completion)
    .custom_method(service::POPUP_METHOD, Backend::popup_completion)
    .custom_method(service::COMMAND_METHOD, Backend::execute_command)
    .finish();
    let beginning = ServiceStart {
        options: Arc::clone(&options),
        source,
        crawling,
        stats: stats.clone(),
        problems,
        open,
        lifeline,
        supervisor,
    };
    let front = OrderedService::new(
        inner,
        Arc::clone(&session),
        Arc::clone(&ending),
        beginning,
        news,
        Arc::clone(&ready),
    );

    let served = async {
        let asides = async {
            if let Some(client) = client {
                futures::join!(
                    configuration::pull(client.clone(), options),
                    outgoing::send_notices(client, status_events, ready)
                );
            }
            futures::future::pending::<()>().await;
        };
        tokio::select! {
            () = transport::serve(front, socket, messages, output.clone()) => {}
            () = asides => {}
            () = ending.over() => {}
        }
    };
    if runtime.block_on(AssertUnwindSafe(served).catch_unwind()).is_err() {
        ending.begin_exit(EndReason::Failed("service"));
    }
    // A blocked write, for instance, is not waited for.
    runtime.shutdown_background();
    written.wait_written(&output, FLUSH_LIMIT);
    if let Some(session) = session.get() {
        session.stop();
    }
    // If a thread hangs or has failed, the last counts may never arrive: save the present ones first.
    stats.save();
    drop(stats);
    stats_finished.wait();
    Ok(ending.exit_outcome())
}

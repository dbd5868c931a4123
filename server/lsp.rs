//! LSP in and out: the only place with LSP types and JSON.
//! It keeps no state, and knows nothing of what the documents contain.
//!
//! The way of a message: [`input`] (a thread) has it framed ([`framing`]) and parsed ([`incoming`]), [`transport`] hands it
//! to the [`front`], that to the session in arrival order or to tower-lsp, [`messages`], [`notebooks`] and [`commands`] read
//! and write it, [`uri`] says which documents it is about;
//! [`notices`] goes the other way, with the [`status`] for a status line, and [`output`] writes. The [`lifeline`] watches
//! whether there still is an editor, and [`ending`] is how it all ends; [`options`] are what the editor sets, and
//! [`request_metrics`] count requests.

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

/// How long the last messages may take to be written.
const FLUSH_LIMIT: Duration = Duration::from_millis(500);

/// What serving needs to begin.
pub struct ServeOptions {
    /// Options from the configuration file and the command line; the editor's come on top.
    pub layers: ConfigLayers,
    /// Where the engine comes from.
    pub source: EngineSource,
    /// Where the project's files are looked through.
    pub crawling: CrawlMode,
    /// What went wrong before there was an editor to tell, for instance an unreadable configuration.
    pub problems: Vec<String>,
}

/// Serves one editor on the standard input and output until it says `exit`, its end of a pipe closes, its process or this one
/// is to end, or a part of the server fails.
///
/// Threads may still run when this returns, for instance with a generation: they end with the process.
///
/// # Errors
/// The system gives no more threads.
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
    let (news, told) = mpsc::unbounded_channel();
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
                    outgoing::send_notices(client, told, ready)
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
        ending.begin_exit(EndReason::Failed("front"));
    }
    // What still blocks, a write that nobody reads for instance, is not waited for.
    runtime.shutdown_background();
    written.wait_written(&output, FLUSH_LIMIT);
    if let Some(session) = session.get() {
        session.stop();
    }
    // The last counts may never come, where a thread hangs or has failed: those until now are saved first.
    stats.save();
    drop(stats);
    stats_finished.wait();
    Ok(ending.exit_outcome())
}

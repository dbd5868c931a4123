//! LSP in and out: the only place with LSP types and JSON.
//! It keeps no state but counts, and knows nothing of what the documents contain.
//!
//! The way of a message: [`input`] (a thread) has it framed ([`framing`]) and parsed ([`incoming`]), [`transport`] hands it
//! to the [`front`], that to the session in arrival order or to tower-lsp, [`messages`], [`notebooks`] and [`commands`] read
//! and write it, [`uri`] says which documents it is about;
//! [`notices`] goes the other way, with the [`status`] for a status line, and [`output`] writes. The [`lifeline`] watches
//! whether there still is an editor, and [`ending`] is how it all ends; [`options`] are what the editor sets, [`tally`] counts what one server answered, and
//! [`statistics`] what became of it, in [`counts`] that the [`ledger`] keeps.

mod commands;
pub mod counts;
mod ending;
pub mod framing;
mod front;
pub mod incoming;
mod input;
pub mod ledger;
mod lifeline;
mod messages;
mod notebooks;
mod notices;
mod options;
mod output;
pub mod statistics;
mod status;
mod tally;
mod trace;
mod transport;
mod uri;

use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::mpsc;
use tower_lsp::LspService;

use crate::config::Layers;
use crate::session::crawler::Crawling;
use crate::session::{Source, Supervisor};

pub use ending::End;
use ending::{Ending, Reason};
use front::{Backend, Beginning, Front, Ready};
use ledger::Ledger;
use lifeline::Lifeline;
use options::Options;
use output::Output;
use statistics::Statistics;

/// How long the last messages may take to be written.
const WRITE: Duration = Duration::from_millis(500);

/// What serving needs to begin.
pub struct Serving {
    /// Options from the configuration file and the command line; the editor's come on top.
    pub layers: Layers,
    /// Where the engine comes from.
    pub source: Source,
    /// Where the project's files are looked through.
    pub crawling: Crawling,
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
pub fn serve(serving: Serving) -> io::Result<End> {
    let Serving { layers, source, crawling, problems } = serving;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let (output, unwritten) = Output::new();
    let ending = Arc::new(Ending::new(output.clone()));
    let supervisor = {
        let ending = Arc::clone(&ending);
        Supervisor::new(move |thread| ending.begin(Reason::Failed(thread)))
    };
    let written = unwritten.start(io::stdout(), &supervisor, Arc::clone(&ending))?;
    let lifeline = Lifeline::start(&supervisor, Arc::clone(&ending))?;
    let session = Arc::new(OnceLock::new());
    let ready = Arc::new(Ready::default());
    let (news, told) = mpsc::unbounded_channel();
    let options = Arc::new(Options::new(layers, Arc::clone(&session), news.clone()));
    let (counting, counted) = Statistics::start(Ledger::open(), &supervisor)?;
    let counts = counting.desk();
    let messages = input::start(io::stdin(), &supervisor, Arc::clone(&ending))?;
    let open = Arc::default();

    let mut client = None;
    let (inner, socket) = LspService::build(|its| {
        client = Some(its);
        Backend::new(
            Arc::clone(&session),
            Arc::clone(&ready),
            news.clone(),
            Arc::clone(&open),
            counting.desk(),
        )
    })
    .custom_method(front::INLINE, Backend::inline)
    .custom_method(front::POPUP, Backend::popup)
    .custom_method(front::COMMAND, Backend::command)
    .finish();
    let beginning = Beginning {
        options: Arc::clone(&options),
        source,
        crawling,
        counting,
        problems,
        open,
        lifeline,
        supervisor,
    };
    let front =
        Front::new(inner, Arc::clone(&session), Arc::clone(&ending), beginning, news, Arc::clone(&ready));

    let served = async {
        let asides = async {
            if let Some(client) = client {
                futures::join!(options::pull(client.clone(), options), notices::tell(client, told, ready));
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
        ending.begin(Reason::Failed("front"));
    }
    // What still blocks, a write that nobody reads for instance, is not waited for.
    runtime.shutdown_background();
    written.wait(&output, WRITE);
    if let Some(session) = session.get() {
        session.stop();
    }
    // Before all the rest comes in, which may not come where a thread hangs or has failed.
    counts.write();
    drop(counts);
    counted.wait();
    Ok(ending.end())
}

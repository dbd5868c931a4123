//! LSP in and out: the only place with LSP types and JSON.
//! It keeps no state but counts, and knows nothing of what the documents contain.
//!
//! The way of a message: [`input`] (a thread) frames and bounds it, tower-lsp parses it, [`front`] hands it to the
//! session in arrival order, [`messages`], [`notebooks`] and [`commands`] read and write it, [`uri`] says which document it is about; [`notices`] goes
//! the other way, with the
//! [`status`] for a status line; [`options`] are what the editor sets, [`tally`] counts what one server answered, and
//! [`statistics`] what became of it, in [`counts`] that the [`ledger`] keeps. [`client`] is the other end of the pipes,
//! for measuring; [`tasks`] are the files that it is measured with, [`answers`] the file that keeps
//! what came out, [`llama`] the server that it is compared with.

pub mod answers;
pub mod client;
mod commands;
pub mod counts;
mod framing;
mod front;
mod input;
pub mod ledger;
pub mod llama;
mod messages;
mod notebooks;
mod notices;
mod options;
pub mod statistics;
mod status;
mod tally;
pub mod tasks;
mod uri;

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::mpsc;
use tower_lsp::{LspService, Server};

use crate::config::Layers;
use crate::session::Source;

use front::{Backend, Beginning, Ending, Front, Ready};
use input::Input;
use ledger::Ledger;
use options::Options;
use statistics::Statistics;

/// Requests that may be open at once. With the newest winning in each document, editors have one or two.
const OPEN: usize = 256;

/// How long what is still to be answered and written may take after `exit` or the end of the input.
const GRACE: Duration = Duration::from_millis(800);

/// What serving needs to begin.
pub struct Serving {
    /// Options from the configuration file and the command line; the editor's come on top.
    pub layers: Layers,
    /// Where the engine comes from.
    pub source: Source,
    /// What went wrong before there was an editor to tell, for instance an unreadable configuration.
    pub problems: Vec<String>,
}

/// How serving ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By `exit` after `shutdown`, or because the input ended.
    Orderly,
    /// By `exit` without `shutdown`: the process is to report a failure.
    Abrupt,
}

/// Serves one editor on the standard input and output until it says `exit` or its end of the input closes.
///
/// Threads may still run when this returns, for instance with a generation: they end with the process.
///
/// # Errors
/// The system gives no more threads.
pub fn serve(serving: Serving) -> io::Result<End> {
    let Serving { layers, source, problems } = serving;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let ending = Arc::new(Ending::default());
    let session = Arc::new(OnceLock::new());
    let ready = Arc::new(Ready::default());
    let (news, told) = mpsc::unbounded_channel();
    let options = Arc::new(Options::new(layers, Arc::clone(&session), news.clone()));
    let (counting, counted) = Statistics::start(Ledger::open())?;
    let input = Input::start(io::stdin(), Arc::clone(&ending))?;
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
    let beginning = Beginning { options: Arc::clone(&options), source, counting, problems, open };
    let front =
        Front::new(inner, Arc::clone(&session), Arc::clone(&ending), beginning, news, Arc::clone(&ready));

    runtime.block_on(async {
        if let Some(client) = client {
            tokio::spawn(options::pull(client.clone(), options));
            tokio::spawn(notices::tell(client, told, ready));
        }
        let served = Server::new(input, tokio::io::stdout(), socket).concurrency_level(OPEN).serve(front);
        let over = async {
            ending.over.notified().await;
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            () = served => {}
            () = over => {}
        }
    });
    // What still blocks, a write that nobody reads for instance, is not waited for.
    runtime.shutdown_background();
    if let Some(session) = session.get() {
        session.stop();
    }
    counted.wait();
    let abrupt = ending.exited.load(Ordering::Acquire) && !ending.shut_down.load(Ordering::Acquire);
    Ok(if abrupt { End::Abrupt } else { End::Orderly })
}

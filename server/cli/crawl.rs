//! `taper crawl`, which nobody types: the process that the server has look through a project's files.
//! It knows nothing of what is asked of it.

use std::io;
use std::process::exit;

use crate::session::crawler;

/// Runs until the server closes the pipe.
///
/// # Errors
/// The system gives no thread, or nobody reads what came out.
#[expect(clippy::exit, reason = "whoever asked has gone: nothing that is being done is of use")]
pub fn run() -> anyhow::Result<()> {
    Ok(crawler::serve_crawl(io::stdin(), io::stdout().lock(), || exit(0))?)
}

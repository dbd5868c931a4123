//! `taper crawl`, an internal command: the process that indexes a project's files for the server.

use std::io;
use std::process::exit;

use crate::session::crawler;

/// Runs until the server closes the pipe.
///
/// # Errors
/// The system refuses a thread, or the output is closed.
#[expect(clippy::exit, reason = "the server is gone, so the work is of no use")]
pub fn run() -> anyhow::Result<()> {
    Ok(crawler::serve_crawl(io::stdin(), io::stdout().lock(), || exit(0))?)
}

//! The log of a server: its filter, its destination, and the logging of panics.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::path::Path;
use std::sync::Mutex;
use std::{io, panic, thread};

use tracing::{debug, error, trace};
use tracing_subscriber::EnvFilter;

mod file;

use file::LogFile;

/// The default filter.
const DEFAULT_FILTER: &str = "warn,taper=info";

/// Checks a `--log` argument: empty, or a list of levels (`warn`) and of levels of modules (`taper=debug`). The log
/// itself would take a mistyped level for a module's name, and log only that module.
pub(super) fn parse_filter(text: &str) -> Result<String, String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let wrong = |part: &str| {
        format!(
            "invalid log level `{part}`: use off, error, warn, info, debug or trace, or levels of modules as taper=debug"
        )
    };
    let is_level = |level: &str| LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level));
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let level = part.rsplit_once('=').map_or(part, |(_, level)| level);
        if !is_level(level) {
            return Err(wrong(part));
        }
    }
    EnvFilter::try_new(text).map(|_| text.to_owned()).map_err(|_| wrong(text))
}

/// Starts the log, in a file or on stderr, since stdout belongs to the protocol. Returns the problems.
pub(super) fn start_logging(filter: Option<String>, file: Option<&Path>) -> Vec<String> {
    let mut problems = Vec::new();
    let filter = filter.filter(|filter| !filter.trim().is_empty());
    let filter = EnvFilter::try_new(filter.as_deref().unwrap_or(DEFAULT_FILTER))
        .unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let file = file.and_then(|path| match LogFile::open_log_file(path) {
        Ok(file) => Some(file),
        Err(problem) => {
            problems.push(format!("cannot log to {}: {problem}; the log goes to stderr", path.display()));
            None
        }
    });
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false);
    // An error means that a log was already started.
    let _ = match file {
        Some(file) => log.with_writer(Mutex::new(file)).try_init(),
        None => log.with_writer(io::stderr).try_init(),
    };
    panic::set_hook(Box::new(|panic| log_panic(panic.location(), panic.payload())));
    problems
}

/// Logs a panic. A formatted message may quote code, for instance a string that was cut in the wrong place, so only a
/// literal message is logged above the level trace.
fn log_panic(location: Option<&panic::Location<'_>>, payload: &(dyn Any + Send)) {
    let thread = thread::current();
    let thread = thread.name().unwrap_or("an unnamed thread");
    let location = location.map_or_else(|| "an unknown location".to_owned(), ToString::to_string);
    let message = payload.downcast_ref::<&'static str>().copied();
    error!(thread, location, message, "panic");
    if let Some(message) = payload.downcast_ref::<String>() {
        trace!(thread, message, "panic");
    }
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        debug!(%backtrace, "panic");
    }
}

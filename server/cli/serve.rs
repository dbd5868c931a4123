//! `taper serve`: serves an editor over stdin and stdout. It gathers the configuration and the source of the engine.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use taper_engine::Engine;
use taper_engine::fetch::{self, ModelReference, ModelStore, PullPhase, PullProgress};

use super::load::{self, ModelArgs};
use super::{log, pull};
use crate::lsp::{self, ExitOutcome, ServeOptions};
use crate::session::crawler::{self, CrawlMode};
use crate::session::{EngineSource, LoadAttempt, LoadProgress};

/// Serve an editor over stdin and stdout (LSP).
#[derive(Debug, Clone, Default, clap::Args)]
#[command(after_help = "Example, for an editor's configuration: taper serve --stdio

Options come from the configuration file, the editor and the command line; the later wins.")]
pub struct Args {
    /// Serve over stdin and stdout: the default; editors add this option.
    #[arg(long)]
    stdio: bool,
    /// Which model, and how it runs.
    #[command(flatten)]
    model: ModelArgs,
    /// Configuration file to use instead of `taper/config.toml` in the platform's configuration folder.
    #[arg(long, value_name = "PATH")]
    config: Option<PathBuf>,
    /// Log level: off, error, warn, info, debug or trace (only trace logs code); or levels of modules, as in
    /// warn,taper::session=debug
    #[arg(long, value_name = "LEVEL", env = "TAPER_LOG", value_parser = log::parse_filter)]
    log: Option<String>,
    /// Log to this file instead of stderr. Only its owner can read it; beyond 10 MB it is renamed to PATH.old
    #[arg(long, value_name = "PATH")]
    log_file: Option<PathBuf>,
}

/// Serves until the editor sends `exit`, closes a pipe or exits. The exit code is 1 after an `exit` without `shutdown`
/// or a failure of a part of the server, and 128 plus the signal's number after a signal.
pub fn run(args: Args) -> ExitCode {
    match serve_editor(args) {
        Ok(end) => ExitCode::from(end.exit_code()),
        Err(error) => {
            super::print_error("taper", &error);
            ExitCode::FAILURE
        }
    }
}

fn serve_editor(args: Args) -> anyhow::Result<ExitOutcome> {
    let Args { stdio: _, model, config, log: level, log_file } = args;
    let mut problems = Vec::new();
    problems.extend(log::start_logging(level, log_file.as_deref()));
    let layers = load::config_layers(config.as_deref(), &model, &mut problems);
    let source: EngineSource = match model.engine {
        Some(script) => Box::new(move |_| load::scripted(&script)),
        None => Box::new(model_source),
    };
    // If the program's path is unknown, the crawler cannot be started, and files are read without a parser.
    let crawling = CrawlMode::Apart(crawler::current_program().unwrap_or_default());
    lsp::serve(ServeOptions { layers, source, crawling, problems }).context("cannot start serving")
}

/// The model of the settings: found, or downloaded in the first attempt, and opened.
fn model_source(attempt: LoadAttempt<'_>) -> anyhow::Result<Box<dyn Engine>> {
    let LoadAttempt { settings, again, report } = attempt;
    let path = match pull::resolve_model(settings.model.as_deref())? {
        ModelReference::File(path) => path,
        ModelReference::Known(model) => {
            // A second attempt only looks for the file: an unreachable network is not tried again at every pause in
            // typing.
            let options =
                fetch::PullOptions { offline: settings.offline || again, ..fetch::PullOptions::default() };
            let mut last = None;
            let mut watch = |progress: PullProgress| {
                let loading = load_progress(model.name, &progress);
                if last.as_ref() != Some(&loading) {
                    last = Some(loading.clone());
                    report(loading);
                }
            };
            fetch::ensure_downloaded(&ModelStore::open()?, model, &options, &mut watch)?
        }
    };
    let name = path.file_name().unwrap_or_default().display();
    report(LoadProgress { message: format!("reading {name}"), percent: None });
    Ok(Box::new(load::open_model(&path, settings)?))
}

/// The progress of a download, in whole percents, so that an editor gets a hundred notifications and not a million.
fn load_progress(model: &str, progress: &PullProgress) -> LoadProgress {
    let percent = (progress.total > 0).then(|| {
        let percent = progress.done.min(progress.total).saturating_mul(100) / progress.total;
        u32::try_from(percent).unwrap_or(100)
    });
    let message = match &progress.phase {
        PullPhase::Wait => format!("{model}: waiting for another process that downloads it"),
        PullPhase::Connect(source) => format!("{model}: connecting to {source}"),
        PullPhase::Download => format!("{model}: downloading"),
        PullPhase::Unpack => format!("{model}: unpacking"),
        PullPhase::Verify => format!("{model}: verifying"),
    };
    LoadProgress { message, percent }
}

//! `taper serve`: serves an editor over stdin and stdout.
//! It knows nothing of the protocol: it gathers what was configured and where the engine comes from.

use std::fs::OpenOptions;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;

use anyhow::Context as _;
use taper_engine::Engine;
use taper_engine::fetch::{self, Phase, Progress, Store, Wanted};
use tracing_subscriber::EnvFilter;

use super::load::{self, ModelArgs};
use super::pull;
use crate::config::{self, EngineSettings, Layer, Layers};
use crate::protocol::{self, End, Serving};
use crate::session::{Attempt, Loading, Source};

/// Serve an editor over stdin and stdout (LSP).
#[derive(Debug, Clone, Default, clap::Args)]
#[command(after_help = "Example, for an editor's configuration: taper serve --stdio

Options come from the configuration file, then from the editor, then from here; the later wins.")]
pub struct Args {
    /// Speak over stdin and stdout: the default, and what editors add.
    #[arg(long)]
    stdio: bool,
    /// Which model, and how it runs.
    #[command(flatten)]
    model: ModelArgs,
    /// The configuration file, in place of `taper/config.toml` in the platform's folder.
    #[arg(long, value_name = "PATH")]
    config: Option<PathBuf>,
    /// What is logged to stderr: off, error, warn, info, debug or trace, which alone logs code; or levels of parts, as
    /// warn,taper::session=debug
    #[arg(long, value_name = "LEVEL", env = "TAPER_LOG", value_parser = log_filter)]
    log: Option<String>,
    /// Log to this file, in place of stderr.
    #[arg(long, value_name = "PATH")]
    log_file: Option<PathBuf>,
}

/// Serves until the editor says `exit` or closes the pipe. The exit code is 1 if it said so without `shutdown`.
pub fn run(args: Args) -> ExitCode {
    match serve(args) {
        Ok(End::Orderly) => ExitCode::SUCCESS,
        Ok(End::Abrupt) => ExitCode::FAILURE,
        Err(error) => {
            super::report(&error);
            ExitCode::FAILURE
        }
    }
}

fn serve(args: Args) -> anyhow::Result<End> {
    let Args { stdio: _, model, config, log, log_file } = args;
    let mut problems = Vec::new();
    if let Err(problem) = start_log(log, log_file) {
        problems.push(format!("{problem:#}"));
    }
    let path = config.clone().or_else(config::file);
    let file = path.map(|path| Layer::read(&path, config.is_some())).transpose();
    let file = file.unwrap_or_else(|problem| {
        problems.push(problem);
        None
    });
    let layers = Layers { file: file.unwrap_or_default(), arguments: arguments(&model), ..Layers::default() };
    let source: Source = match model.engine {
        Some(script) => Box::new(move |_| load::scripted(&script)),
        None => Box::new(resident),
    };
    protocol::serve(Serving { layers, source, problems }).context("cannot start serving")
}

/// The options that the command line sets.
fn arguments(model: &ModelArgs) -> Layer {
    // The memory for KV caches has no option there.
    let EngineSettings { model, threads, context, cache_bytes: _, device, kernel, offline } =
        model.settings();
    let mut layer = Layer::empty("the command line");
    for (name, text) in [("model", model), ("device", device), ("kernel", kernel)] {
        if let Some(text) = text {
            layer = layer.with(name, text);
        }
    }
    for (name, number) in [("threads", threads), ("context", context)] {
        if number > 0 {
            layer = layer.with(name, number);
        }
    }
    if offline { layer.with("offline", true) } else { layer }
}

/// The model that the settings ask for: found, or fetched in the first attempt, and opened.
fn resident(attempt: Attempt<'_>) -> anyhow::Result<Box<dyn Engine>> {
    let Attempt { settings, again, report } = attempt;
    let wanted = match &settings.model {
        Some(text) => fetch::wanted(text)?,
        None => Wanted::Known(pull::default_model()?),
    };
    let path = match wanted {
        Wanted::File(path) => path,
        Wanted::Known(model) => {
            // A second attempt only looks whether the file has come meanwhile: a network that was not there
            // is not asked again at every pause in typing.
            let options = fetch::Options { offline: settings.offline || again, ..fetch::Options::default() };
            let mut last = None;
            let mut watch = |progress: Progress| {
                let loading = loading(model.name, &progress);
                if last.as_ref() != Some(&loading) {
                    last = Some(loading.clone());
                    report(loading);
                }
            };
            fetch::ensure(&Store::open()?, model, &options, &mut watch)?
        }
    };
    let name = path.file_name().unwrap_or_default().display();
    report(Loading { message: format!("reading {name}"), percent: None });
    Ok(Box::new(load::open(&path, settings)?))
}

/// How far a pull is, in whole percents, so that an editor is told a hundred times and not a million.
fn loading(model: &str, progress: &Progress) -> Loading {
    let percent = (progress.total > 0).then(|| {
        let percent = progress.done.min(progress.total).saturating_mul(100) / progress.total;
        u32::try_from(percent).unwrap_or(100)
    });
    let message = match &progress.phase {
        Phase::Wait => format!("{model}: another process fetches it"),
        Phase::Ask(source) => format!("{model}: asking {source}"),
        Phase::Download => format!("{model}: downloading"),
        Phase::Unpack => format!("{model}: unpacking"),
        Phase::Verify => format!("{model}: verifying"),
    };
    Loading { message, percent }
}

/// What is logged unless something else is asked for.
const LOG: &str = "warn,taper=info";

/// A `--log` argument, empty or a list of levels (`warn`) and of levels of parts of the program (`taper=debug`). The log
/// itself would take a mistyped level for the name of a part, and log nothing but that.
fn log_filter(text: &str) -> Result<String, String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let wrong = |part: &str| {
        format!(
            "`{part}` is no level: write off, error, warn, info, debug or trace, or levels of parts as taper=debug"
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

/// Starts the log. stdout is the protocol's, so it goes to stderr or a file.
fn start_log(filter: Option<String>, file: Option<PathBuf>) -> anyhow::Result<()> {
    let filter = filter.filter(|filter| !filter.trim().is_empty());
    let filter = EnvFilter::try_new(filter.as_deref().unwrap_or(LOG)).unwrap_or_else(|_| EnvFilter::new(LOG));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false);
    match file {
        Some(path) => {
            let file = OpenOptions::new().create(true).append(true).open(&path);
            let file = file.with_context(|| format!("cannot log to {}", path.display()))?;
            // An error means that a log has been started already.
            let _ = log.with_writer(Mutex::new(file)).try_init();
        }
        None => drop(log.with_writer(std::io::stderr).try_init()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_level_is_no_filter() {
        for good in [
            "",
            " ",
            "warn",
            "INFO",
            "off",
            "warn,taper=info",
            "taper::session=debug, warn",
            "taper[question]=trace",
        ] {
            assert!(log_filter(good).is_ok(), "{good}");
        }
        for bad in [
            "loud",
            "inf",
            "warn,loud",
            "taper=loud",
            "taper",
            "5",
            "=",
            "taper=",
            "warn;info",
            "taper[=info",
            "ä",
        ] {
            let problem = log_filter(bad).unwrap_err();
            assert!(problem.contains("off, error, warn, info, debug or trace"), "{bad}: {problem}");
        }
    }
}

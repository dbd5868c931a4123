//! `taper pull`: downloads a model. Also the progress display of every command that does so.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressStyle};
use taper_engine::catalog::{self, CatalogModel};
use taper_engine::fetch::{
    self, ByteSize, FetchError, FileIntegrity, ModelReference, ModelStore, PullOptions, PullPhase,
    PullProgress,
};

use super::load::{self, ModelArgs};
use super::terminal::{escape_controls, escape_message};
use crate::config::DEFAULT_LATENCY_BUDGET;

/// Download a model.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  taper pull                        the default model
  taper pull qwen2.5-coder-1.5b     another one; `taper models` lists them

An installed file is verified, and downloaded again if it is damaged.
Interrupted downloads are resumed. HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE are honoured.
`taper models` prints the folder of the models; TAPER_HOME moves it.")]
pub struct Args {
    /// The model's name [default: the configured one, else the default model of this machine]
    name: Option<String>,
    /// Do not use the network: only check whether the model is installed
    #[arg(long)]
    offline: bool,
    /// Download the file even if it is installed
    #[arg(long, conflicts_with = "offline")]
    force: bool,
}

/// Runs the command.
///
/// # Errors
/// The model is unknown, cannot be read by this version, or cannot be downloaded; the message contains the remedy.
pub fn run(args: Args) -> anyhow::Result<()> {
    let Args { name, offline, force } = args;
    let (settings, problems) = load::command_settings(&ModelArgs { offline, ..ModelArgs::default() });
    problems.iter().for_each(|problem| super::print_warning(problem));
    let origin = if name.is_some() { "" } else { "the configured model " };
    let (name, offline) = (name.or(settings.engine.model), settings.engine.offline);
    let store = ModelStore::open()?;
    let model = match resolve_model(name.as_deref())? {
        ModelReference::Known(model) => model,
        ModelReference::File(path) => {
            bail!(
                "{origin}{} is a path; only the models that `taper models` lists can be downloaded, by their names",
                path.display()
            )
        }
    };
    let options = PullOptions { offline, force, ..PullOptions::default() };
    let path = verified_model_file(&store, model, &options)?;
    let mut out = io::stdout();
    // A program gets the exact path, a terminal the escaped one.
    let path = path.display().to_string();
    let path = if out.is_terminal() { escape_controls(&path) } else { path.as_str().into() };
    writeln!(out, "{path}").context("cannot write to stdout")
}

/// The model's file, fully verified; downloaded if it is missing or wrong.
fn verified_model_file(
    store: &ModelStore,
    model: &'static CatalogModel,
    options: &PullOptions,
) -> anyhow::Result<PathBuf> {
    let mut display = PullDisplay::new(store, model);
    let path = find_or_fetch(store, model, options, &mut display);
    display.finish_phase();
    Ok(path?)
}

fn find_or_fetch(
    store: &ModelStore,
    model: &'static CatalogModel,
    options: &PullOptions,
    display: &mut PullDisplay,
) -> Result<PathBuf, FetchError> {
    let name = model.name;
    let examined = match options.force {
        true => FileIntegrity::Absent,
        false => store.check_integrity(model, &mut |progress| display.show_progress(&progress))?,
    };
    match examined {
        FileIntegrity::Verified(path) => Ok(path),
        FileIntegrity::Unpinned(path) => {
            display.print_line(&format!(
                "{name} is here, but cannot be checked: taper has no hash for it (`taper pull --force {name}` fetches \
                 it again)"
            ));
            Ok(path)
        }
        FileIntegrity::Damaged(path, damage) if options.offline => {
            Err(FetchError::Damaged { name, path, damage })
        }
        FileIntegrity::Damaged(path, damage) => {
            display.print_line(&format!("{} is damaged: {damage}; fetching it again", path.display()));
            let again = PullOptions { force: true, ..options.clone() };
            store.pull(model, &again, &mut |progress| display.show_progress(&progress))
        }
        FileIntegrity::Absent => {
            let path = store.pull(model, options, &mut |progress| display.show_progress(&progress))?;
            if model.sha256.is_none() {
                display.print_line(&format!(
                    "{name} is unpinned: it was checked against the hash that the hub itself announced"
                ));
            }
            Ok(path)
        }
    }
}

/// The default model of this machine, according to the speeds that `taper doctor` measured.
///
/// # Errors
/// The folder of the measurements is unknown.
pub fn default_model() -> anyhow::Result<&'static CatalogModel> {
    let measured = catalog::measured::read_record(&fetch::data_folder()?);
    Ok(catalog::default_model(&measured, DEFAULT_LATENCY_BUDGET))
}

/// The model of a `--model` argument or setting, or the default model without one.
///
/// # Errors
/// The model is unknown, or there is no home folder with the measurements.
pub fn resolve_model(model: Option<&str>) -> anyhow::Result<ModelReference> {
    match model {
        Some(text) => Ok(fetch::parse_model_reference(text)?),
        None => Ok(ModelReference::Known(default_model()?)),
    }
}

/// The file for a `--model` argument, or of the default model without one: downloaded with a progress display on stderr
/// if it is missing.
///
/// # Errors
/// The model is unknown, or it is missing and cannot be downloaded.
pub fn model_file(model: Option<&str>, offline: bool) -> anyhow::Result<PathBuf> {
    let model = match resolve_model(model)? {
        ModelReference::File(path) => return Ok(path),
        ModelReference::Known(model) => model,
    };
    pull_model(&ModelStore::open()?, model, &PullOptions { offline, ..PullOptions::default() })
}

/// Downloads `model` if it is missing (or if `options` force it), with progress on stderr.
fn pull_model(
    store: &ModelStore,
    model: &'static CatalogModel,
    options: &PullOptions,
) -> anyhow::Result<PathBuf> {
    let mut display = PullDisplay::new(store, model);
    let path = store.pull(model, options, &mut |progress| display.show_progress(&progress));
    display.finish_phase();
    Ok(path?)
}

/// Progress of a download on stderr: a bar on a terminal, otherwise an occasional line. An installed model prints
/// nothing.
struct PullDisplay {
    /// The message before anything else, until it is printed.
    opening: Option<String>,
    /// The bar, on a terminal.
    bar: Option<ProgressBar>,
    /// The last shown phase.
    phase: Option<PullPhase>,
    /// Position and time of the phase's start, for the speed.
    start: (u64, Instant),
    /// Tenths of the phase that were printed, if not on a terminal.
    told: u64,
}

impl PullDisplay {
    fn new(store: &ModelStore, model: &CatalogModel) -> PullDisplay {
        let unfinished = store.partial_len(model);
        let resume = if unfinished > 0 {
            format!(", {} of it here already", ByteSize(unfinished))
        } else {
            String::new()
        };
        let (name, size, licence) = (model.name, ByteSize(model.bytes), model.licence);
        let folder = escape_message(store.folder().display());
        PullDisplay {
            opening: Some(format!(
                "fetching the model {name} ({size}{resume}; licence {licence}) into {folder}"
            )),
            bar: io::stderr().is_terminal().then(|| ProgressBar::new(0).with_style(bar_style(""))),
            phase: None,
            start: (0, Instant::now()),
            told: 0,
        }
    }

    fn show_progress(&mut self, progress: &PullProgress) {
        // Verifying an installed file is not a download.
        if progress.phase != PullPhase::Verify
            && let Some(opening) = self.opening.take()
        {
            self.print_line(&opening);
        }
        // Parts are downloaded and unpacked in turn: both phases share one bar.
        let loads =
            |phase: &Option<PullPhase>| matches!(phase, Some(PullPhase::Download | PullPhase::Unpack));
        let next = Some(progress.phase.clone());
        let same = self.phase == next || loads(&self.phase) && loads(&next);
        self.phase = next;
        if !same {
            self.begin_phase(progress);
        }
        let Some(bar) = &self.bar else { return self.print_tenths(progress) };
        // A downloaded part is counted again while it is unpacked: the bar does not go back.
        bar.set_position(progress.done.max(bar.position()));
        if matches!(progress.phase, PullPhase::Download | PullPhase::Unpack) {
            bar.set_message(if progress.phase == PullPhase::Unpack { "unzipping" } else { "loading" });
        }
    }

    /// Starts a phase.
    fn begin_phase(&mut self, progress: &PullProgress) {
        self.start = (progress.done, Instant::now());
        self.told = 0;
        let line = match &progress.phase {
            PullPhase::Wait => Some("waiting for another process that downloads it".to_owned()),
            PullPhase::Connect(source) => Some(format!("trying: {source}")),
            PullPhase::Download | PullPhase::Unpack | PullPhase::Verify => None,
        };
        if let Some(line) = line {
            return self.print_line(&line);
        }
        if let Some(bar) = &self.bar {
            bar.set_style(bar_style(
                "{msg:>9} [{bar:30}] {decimal_bytes}/{decimal_total_bytes}  {decimal_bytes_per_sec}  {eta} left",
            ));
            bar.set_message("checking");
            bar.set_length(progress.total);
            bar.set_position(progress.done);
            // The part of an earlier download does not count for this one's speed.
            bar.reset_eta();
        }
    }

    /// If not on a terminal: one line per tenth.
    fn print_tenths(&mut self, progress: &PullProgress) {
        if progress.total == 0 || !matches!(progress.phase, PullPhase::Download | PullPhase::Unpack) {
            return;
        }
        let tenth = progress.done.saturating_mul(10) / progress.total;
        if tenth <= self.told {
            return;
        }
        self.told = tenth;
        let (from, since) = self.start;
        #[expect(clippy::cast_precision_loss, reason = "only shown")]
        let speed =
            (progress.done - from.min(progress.done)) as f64 / since.elapsed().as_secs_f64().max(1e-3);
        let (done, total) = (ByteSize(progress.done), ByteSize(progress.total));
        let mut line = format!("{}0 %, {done} of {total}", tenth.min(10));
        if speed >= 1.0 {
            #[expect(clippy::cast_precision_loss, reason = "only shown")]
            let left = progress.total.saturating_sub(progress.done) as f64 / speed;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "positive, only shown"
            )]
            let speed = ByteSize(speed as u64);
            line += &format!(", {speed}/s, {left:.0} s left");
        }
        self.print_line(&line);
    }

    fn print_line(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(escape_controls(line)),
            // A closed stderr does not end a download.
            None => drop(writeln!(io::stderr(), "{}", escape_controls(line))),
        }
    }

    fn finish_phase(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A progress bar of this shape; indicatif checks shapes only at run time.
fn bar_style(shape: &str) -> ProgressStyle {
    ProgressStyle::with_template(shape).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

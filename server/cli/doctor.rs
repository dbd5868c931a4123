//! `taper doctor`: checks this machine, the model, its kernel and its speed.

use std::fs;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use taper_engine::catalog::{self, CatalogModel, MeasuredSpeed, measured};
use taper_engine::fetch::{self, ByteSize, FetchError, FileIntegrity, ModelReference, ModelStore};
use taper_engine::local::{self, Local};
use taper_engine::{Engine, GenerationLimits, Prompt};

use super::load::{self, ModelArgs};
use super::pull;
use super::terminal::escape_controls;
use crate::config::{self, DEFAULT_LATENCY_BUDGET};
use crate::prompt::template::Profile;
use crate::usage::store::local_date;

/// Arguments of `taper doctor`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  taper doctor\n  taper doctor --model qwen2.5-coder-1.5b\n\n\
                  The measured speed is recorded and decides which model is the default on this machine.")]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
}

/// Prompt tokens and generated tokens of the measurement: a cold prompt, then a short suggestion, as in an editor.
const PROMPT_TOKENS: usize = 256;
const ANSWER_TOKENS: usize = 32;

/// Runs the command.
///
/// # Errors
/// The model is unavailable or cannot be read; what was found before is printed nevertheless.
pub fn run(args: &Args) -> Result<()> {
    let mut out = io::stdout().lock();
    let mut report = |what: &str, text: &str| writeln!(out, "{what:<10} {}", escape_controls(text));

    report(
        "taper",
        &format!("{}, {} {}", env!("CARGO_PKG_VERSION"), std::env::consts::OS, std::env::consts::ARCH),
    )?;
    report("machine", &machine_description())?;
    let store = ModelStore::open()?;
    report("models", &store.folder().display().to_string())?;
    report("config", &config_line())?;
    let (settings, problems) = load::command_settings(&args.model);
    for problem in &problems {
        report("", problem)?;
    }
    let settings = settings.engine;
    let resolved = pull::resolve_model(settings.model.as_deref())?;
    let is_known = matches!(resolved, ModelReference::Known(_));
    let (name, path, content) = match resolved {
        ModelReference::File(path) => (path.display().to_string(), path, None),
        ModelReference::Known(model) => {
            let (path, content) = checked_model_file(&store, model, settings.offline)?;
            (model.name.to_owned(), path, Some(content))
        }
    };
    let size = fs::metadata(&path).with_context(|| format!("cannot read {}", path.display()))?.len();
    report("model", &format!("{name}, {}, {}", ByteSize(size), path.display()))?;
    if let Some(content) = content {
        report("content", content)?;
    }
    fetch::check_kind(&path)?;

    let started = Instant::now();
    // On the repetitive text of the measurement drafts are nearly always right: with them the machine would look
    // several times as fast as it is on real code, and a model too large for it would become the default.
    let options = local::Options { speculate: false, ..load::engine_options(&settings)? };
    let mut engine = Local::open(&path, &options)?;
    let loaded = started.elapsed();
    let about = engine.engine_info().clone();
    report("family", &format!("{}, {} tokens of context", about.family, about.context))?;
    report("device", &about.device)?;
    report("kernel", &about.kernel)?;
    report("weights", &format!("{}: {}", ByteSize(about.weight_bytes), about.weights))?;
    report("prompt", &Profile::for_model(&about, engine.tokenizer()).describe())?;
    report("load", &format!("{:.2} s", loaded.as_secs_f64()))?;

    let (prefill, decode) = measure_speed(&mut engine, PROMPT_TOKENS, ANSWER_TOKENS)?;
    report("speed", &format!("reads {prefill:.0} tokens/s, writes {decode:.1} tokens/s"))?;
    if is_known {
        let record = MeasuredSpeed {
            model: name.clone(),
            kernel: about.kernel.clone(),
            prefill_tps: prefill,
            decode_tps: decode,
            date: local_date().to_string(),
        };
        let folder = fetch::data_folder()?;
        // A measurement that cannot be recorded is still worth showing.
        if let Err(error) = measured::write_record(&folder, &record) {
            report("record", &format!("could not be written to {}: {error}", folder.display()))?;
        }
        for line in speed_verdict(&name, &measured::read_record(&folder)) {
            report("", &line)?;
        }
    }
    Ok(())
}

/// The file of a known model, downloaded if it is missing, and the state of its content.
///
/// # Errors
/// It is damaged, or missing and cannot be downloaded.
fn checked_model_file(
    store: &ModelStore,
    model: &'static CatalogModel,
    offline: bool,
) -> Result<(PathBuf, &'static str)> {
    match store.check_integrity(model, &mut |_| ())? {
        FileIntegrity::Verified(path) => Ok((path, "verified: its sha256 matches")),
        FileIntegrity::Unpinned(path) => {
            Ok((path, "unpinned: its size is about right, and taper has no hash for it"))
        }
        FileIntegrity::Damaged(path, damage) => {
            Err(FetchError::Damaged { name: model.name, path, damage }.into())
        }
        FileIntegrity::Absent => {
            let path = pull::model_file(Some(model.name), offline)?;
            Ok((path, "just downloaded and verified"))
        }
    }
}

/// Prefill and decode speed on a fixed text, in tokens per second.
fn measure_speed(engine: &mut dyn Engine, prompt_tokens: usize, answer_tokens: usize) -> Result<(f64, f64)> {
    let code = "fn add(left: usize, right: usize) -> usize {\n    left + right\n}\n\n".repeat(prompt_tokens);
    engine.clear();
    let mut tokens = engine.tokenizer().encode(&code[..code.len().min(prompt_tokens * 8)]);
    tokens.truncate(prompt_tokens);
    let prompt = Prompt { tokens, healing_bytes: Vec::new(), ..Prompt::default() };
    let limits = GenerationLimits { max_tokens: answer_tokens, ..GenerationLimits::default() };
    let generation = engine.generate(&prompt, &limits, &mut |_| ControlFlow::Continue(()))?;
    engine.clear();
    let rate = |tokens: usize, time: Duration| tokens as f64 / time.as_secs_f64().max(1e-9);
    Ok((rate(generation.evaluated, generation.prefill), rate(generation.tokens.len(), generation.decode)))
}

/// The meaning of the measurements for the user.
fn speed_verdict(name: &str, measured: &[MeasuredSpeed]) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(time) =
        catalog::find_model(name).and_then(|model| catalog::keystroke_latency(model, measured))
    {
        let ms = time.as_secs_f64() * 1e3;
        let verdict = if time <= DEFAULT_LATENCY_BUDGET { "within" } else { "above" };
        lines.push(format!(
            "estimated response time: {ms:.0} ms (8 tokens read, 12 written), {verdict} the target of {} ms",
            DEFAULT_LATENCY_BUDGET.as_millis()
        ));
    }
    let best = catalog::default_model(measured, DEFAULT_LATENCY_BUDGET);
    let why = if best.name == name { "the one just measured" } else { "not the one just measured" };
    lines.push(format!("default model on this machine: {} ({why})", best.name));
    lines
}

fn machine_description() -> String {
    let cores = available_parallelism().map_or(1, usize::from);
    let read = |path: &str, key: &str| {
        let text = fs::read_to_string(path).ok()?;
        let line = text.lines().find(|line| line.starts_with(key))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let mut parts = Vec::new();
    parts.extend(read("/proc/cpuinfo", "model name"));
    parts.push(format!("{cores} {}", if cores == 1 { "core" } else { "cores" }));
    let memory = read("/proc/meminfo", "MemTotal").and_then(|it| it.split(' ').next()?.parse::<u64>().ok());
    parts.extend(memory.map(|kilobytes| format!("{} of memory", ByteSize(kilobytes * 1024))));
    parts.join(", ")
}

fn config_line() -> String {
    match config::config_path() {
        Some(path) if Path::new(&path).exists() => path.display().to_string(),
        Some(path) => format!("none ({} would be read)", path.display()),
        None => "none".to_owned(),
    }
}

//! The engine that a command asks for: arguments and settings in, a loaded model out.
//! It knows nothing of what will be asked of it.

use std::num::NonZeroUsize;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use taper_engine::Engine;
use taper_engine::fetch;
use taper_engine::local::{self, DeviceChoice, Local};

use super::pull;
use crate::config::{self, EngineSettings};

/// Which model, and how it runs: arguments that several commands share.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ModelArgs {
    /// A model that `taper models` lists, or the path of a GGUF file (`~`, `$HOME` and file:// are understood); without
    /// it, the largest that this machine can answer with in time.
    #[arg(long, value_name = "NAME|PATH")]
    pub model: Option<String>,
    /// Where it runs: auto, cpu, cuda, metal.
    #[arg(long, value_name = "DEVICE", value_parser = parse_device)]
    pub device: Option<String>,
    /// Which kernels run it on a CPU: auto, amx, avx512-vnni, avx-vnni, avx2, portable, candle; `taper doctor` says
    /// what auto is here, and why.
    #[arg(long, value_name = "KERNEL", env = "TAPER_KERNEL", value_parser = parse_kernel)]
    pub kernel: Option<String>,
    /// Threads that compute; without it, as many as there are cores.
    #[arg(long, value_name = "N", value_parser = |text: &str| config::parse_option_number("threads", text))]
    pub threads: Option<usize>,
    /// Tokens that the context holds.
    #[arg(long, value_name = "TOKENS", value_parser = |text: &str| config::parse_option_number("context", text))]
    pub context: Option<usize>,
    /// Never use the network, not even to fetch a missing model.
    #[arg(long)]
    pub offline: bool,
    /// A scripted engine in place of a model, for tests: `scripted:PATH`.
    #[arg(long, hide = true, value_name = "scripted:PATH", value_parser = script)]
    pub engine: Option<String>,
}

impl ModelArgs {
    /// The same as settings.
    pub fn engine_settings(&self) -> EngineSettings {
        EngineSettings {
            model: self.model.clone().filter(|model| !matches!(model.trim(), "" | "auto")),
            threads: self.threads.unwrap_or(0),
            context: self.context.unwrap_or(0),
            device: self.device.clone().filter(|device| !device.is_empty()),
            kernel: self.kernel.clone().filter(|kernel| !kernel.is_empty()),
            offline: self.offline,
            ..EngineSettings::default()
        }
    }
}

/// A `--device` argument: a name, whether or not this machine has one. An empty one is none, as in the environment.
fn parse_device(name: &str) -> Result<String, String> {
    if name.is_empty() {
        return Ok(String::new());
    }
    DeviceChoice::from_str(name).map(|_| name.to_owned()).map_err(|error| error.to_string())
}

/// A `--kernel` argument: one that this machine has.
fn parse_kernel(name: &str) -> Result<String, String> {
    if name.is_empty() {
        return Ok(String::new());
    }
    local::KernelChoice::from_str(name).map(|_| name.to_owned()).map_err(|error| error.to_string())
}

/// An `--engine` argument, in a build that has the scripted engine.
fn script(text: &str) -> Result<String, String> {
    match text.strip_prefix("scripted:") {
        Some(_) if taper_engine::HAS_SCRIPTED => Ok(text.to_owned()),
        Some(_) => Err("this build has no scripted engine: it is for tests".to_owned()),
        None => Err("no engine: write scripted:PATH".to_owned()),
    }
}

/// The engine for a command: the scripted one, or the model, which is fetched first if it is missing.
///
/// # Errors
/// The model cannot be had or read, or an argument names nothing that is known.
pub fn load_engine(args: &ModelArgs) -> Result<Box<dyn Engine>> {
    match &args.engine {
        Some(script) => scripted(script),
        None => {
            let settings = args.engine_settings();
            let path = pull::model_file(settings.model.as_deref(), settings.offline)?;
            Ok(Box::new(open_model(&path, &settings)?))
        }
    }
}

/// The engine of a `scripted:PATH` argument.
///
/// # Errors
/// The argument has another form, the script cannot be read, or this build has no such engine.
pub fn scripted(script: &str) -> Result<Box<dyn Engine>> {
    let Some(path) = script.strip_prefix("scripted:") else {
        bail!("`{script}` is no engine: write scripted:PATH");
    };
    let Some(engine) = taper_engine::scripted_engine(Path::new(path)) else {
        bail!("this build has no scripted engine: it is for tests");
    };
    engine.with_context(|| format!("cannot use the script {path}"))
}

/// Loads the model at `path`.
///
/// # Errors
/// The file is no readable model, or a setting names nothing that is known.
pub fn open_model(path: &Path, settings: &EngineSettings) -> Result<Local> {
    fetch::check_kind(path)?;
    Ok(Local::open(path, &engine_options(settings)?)?)
}

/// The settings as the engine takes them.
///
/// # Errors
/// The device or the kernel is none of those known.
pub fn engine_options(settings: &EngineSettings) -> Result<local::Options> {
    let mut options = local::Options::default();
    if let Some(device) = &settings.device {
        options.device = DeviceChoice::from_str(device)?;
    }
    if let Some(kernel) = &settings.kernel {
        options.kernel = local::KernelChoice::from_str(kernel)?;
    }
    options.threads = NonZeroUsize::new(settings.threads);
    if settings.context > 0 {
        options.context = settings.context;
    }
    options.resident_bytes = settings.cache_bytes;
    Ok(options)
}

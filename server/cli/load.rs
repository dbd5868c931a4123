//! Loads the engine for a command: arguments and settings in, a loaded model out.

use std::num::NonZeroUsize;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use taper_engine::Engine;
use taper_engine::fetch;
use taper_engine::local::{self, DeviceChoice, Local};

use super::pull;
use crate::config::{self, ConfigLayer, ConfigLayers, EngineSettings, Settings};

/// Which model, and how it runs: arguments that several commands share.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ModelArgs {
    /// Model: a name from `taper models`, or the path of a GGUF file (`~`, `$HOME` and file:// are understood)
    /// [default: the largest that is fast enough on this machine].
    #[arg(long, value_name = "NAME|PATH")]
    pub model: Option<String>,
    /// Device to run on: auto, cpu, cuda, metal.
    #[arg(long, value_name = "DEVICE", value_parser = parse_device)]
    pub device: Option<String>,
    /// CPU kernels: auto, amx, avx512-vnni, avx-vnni, avx2, portable, candle; `taper doctor` shows the choice of auto,
    /// and the reason.
    #[arg(long, value_name = "KERNEL", env = "TAPER_KERNEL", value_parser = parse_kernel)]
    pub kernel: Option<String>,
    /// Number of compute threads [default: one for each physical core].
    #[arg(long, value_name = "N", value_parser = |text: &str| config::parse_option_number("threads", text))]
    pub threads: Option<usize>,
    /// Size of the context in tokens.
    #[arg(long, value_name = "TOKENS", value_parser = |text: &str| config::parse_option_number("context", text))]
    pub context: Option<usize>,
    /// Never use the network, not even to download a missing model.
    #[arg(long)]
    pub offline: bool,
    /// A scripted engine instead of a model, for tests: `scripted:PATH`.
    #[arg(long, hide = true, value_name = "scripted:PATH", value_parser = script)]
    pub engine: Option<String>,
}

impl ModelArgs {
    /// The arguments as settings.
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

/// The options of the configuration file (`path`, or the user's own) and of the command line. What is wrong with the
/// file is added to `problems`.
pub fn config_layers(path: Option<&Path>, args: &ModelArgs, problems: &mut Vec<String>) -> ConfigLayers {
    let file = path.map(Path::to_path_buf).or_else(config::config_path);
    let file = file.map(|file| ConfigLayer::read(&file, path.is_some())).transpose();
    let file = file.unwrap_or_else(|problem| {
        problems.push(problem);
        None
    });
    ConfigLayers {
        file: file.unwrap_or_default(),
        arguments: command_line_options(args),
        ..ConfigLayers::default()
    }
}

/// The settings of a command: those of the user's configuration file, overridden by the command line. Returns also a
/// message for each option that could not be used.
pub fn command_settings(args: &ModelArgs) -> (Settings, Vec<String>) {
    let mut problems = Vec::new();
    let layers = config_layers(None, args, &mut problems);
    let (settings, messages) = layers.resolve_settings();
    problems.extend(messages);
    (settings, problems)
}

/// The options that the command line sets.
fn command_line_options(model: &ModelArgs) -> ConfigLayer {
    // The memory for KV caches has no command-line option.
    let EngineSettings { model, threads, context, cache_bytes: _, device, kernel, offline } =
        model.engine_settings();
    let mut layer = ConfigLayer::empty("the command line");
    for (name, text) in [("model", model), ("device", device), ("kernel", kernel)] {
        if let Some(text) = text {
            layer = layer.with_option(name, text);
        }
    }
    for (name, number) in [("threads", threads), ("context", context)] {
        if number > 0 {
            layer = layer.with_option(name, number);
        }
    }
    if offline { layer.with_option("offline", true) } else { layer }
}

/// Checks a `--device` argument: a known name, whether or not this machine has the device. An empty one counts as
/// unset, as in the environment.
fn parse_device(name: &str) -> Result<String, String> {
    if name.is_empty() {
        return Ok(String::new());
    }
    DeviceChoice::from_str(name).map(|_| name.to_owned()).map_err(|error| error.to_string())
}

/// Checks a `--kernel` argument: kernels that this machine supports.
fn parse_kernel(name: &str) -> Result<String, String> {
    if name.is_empty() {
        return Ok(String::new());
    }
    local::KernelChoice::from_str(name).map(|_| name.to_owned()).map_err(|error| error.to_string())
}

/// Checks an `--engine` argument, in a build that has the scripted engine.
fn script(text: &str) -> Result<String, String> {
    match text.strip_prefix("scripted:") {
        Some(_) if taper_engine::HAS_SCRIPTED => Ok(text.to_owned()),
        Some(_) => Err("this build has no scripted engine: it is for tests".to_owned()),
        None => Err("expected scripted:PATH".to_owned()),
    }
}

/// The engine for a command: the scripted one, or the model, which is downloaded first if it is missing.
///
/// # Errors
/// The model is unavailable or cannot be read, or an argument has an unknown value.
pub fn load_engine(args: &ModelArgs) -> Result<Box<dyn Engine>> {
    load_engine_with(args, &args.engine_settings())
}

/// The same with these settings in place of the arguments'.
///
/// # Errors
/// See [`load_engine`].
pub fn load_engine_with(args: &ModelArgs, settings: &EngineSettings) -> Result<Box<dyn Engine>> {
    match &args.engine {
        Some(script) => scripted(script),
        None => {
            let path = pull::model_file(settings.model.as_deref(), settings.offline)?;
            Ok(Box::new(open_model(&path, settings)?))
        }
    }
}

/// The engine of a `scripted:PATH` argument.
///
/// # Errors
/// The argument has another form, the script cannot be read, or this build has no scripted engine.
pub fn scripted(script: &str) -> Result<Box<dyn Engine>> {
    let Some(path) = script.strip_prefix("scripted:") else {
        bail!("invalid engine `{script}`: expected scripted:PATH");
    };
    let Some(engine) = taper_engine::scripted_engine(Path::new(path)) else {
        bail!("this build has no scripted engine: it is for tests");
    };
    engine.with_context(|| format!("cannot use the script {path}"))
}

/// Loads the model at `path`.
///
/// # Errors
/// The file is not a readable model, or a setting has an unknown value.
pub fn open_model(path: &Path, settings: &EngineSettings) -> Result<Local> {
    fetch::check_kind(path)?;
    Ok(Local::open(path, &engine_options(settings)?)?)
}

/// The settings as engine options.
///
/// # Errors
/// The device or the kernel is unknown.
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

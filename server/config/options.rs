//! The table of options: the name, expected value, default and description of each, and how it is set.

use std::time::Duration;

use serde_json::Value;

use super::Settings;
use crate::completion::confidence_filter::Eagerness;
use crate::completion::{ExtentSetting, IdleSetting};
use crate::retrieval::excluded_files::ExcludedFiles;

/// One option: its documentation, and how it is set.
#[derive(Debug)]
pub struct OptionSpec {
    /// The name in the configuration file. Editors may write it in camelCase.
    pub name: &'static str,
    /// What a value must be.
    pub expected: &'static str,
    /// The default, as it would be written.
    pub default: &'static str,
    /// What it does.
    pub description: &'static str,
    /// Sets it; `None` if the value is not what is expected.
    pub(super) set: fn(&mut Settings, &Value) -> Option<()>,
}

/// All options, in the order of the documentation.
pub fn option_specs() -> &'static [OptionSpec] {
    OPTION_SPECS
}

pub(super) const OPTION_SPECS: &[OptionSpec] = &[
    OptionSpec {
        name: "model",
        expected: "a string: a name from `taper models`, or the path of a GGUF file",
        default: "\"auto\"",
        description: "The model. `auto`: the largest default model that this machine runs within 300 ms, as measured \
                      by `taper doctor`; qwen2.5-coder-0.5b until then.",
        set: |settings, value| {
            settings.engine.model = parse_auto_string(value)?;
            Some(())
        },
    },
    OptionSpec {
        name: "latency-budget-ms",
        expected: "a whole number from 10 to 60000",
        default: "300",
        description: "Maximum time from a request to its response while you type, in milliseconds.",
        set: |settings, value| {
            settings.latency_budget = Duration::from_millis(parse_number(value, 10..=60_000)?);
            Some(())
        },
    },
    OptionSpec {
        name: "explicit-budget-ms",
        expected: "a whole number from 10 to 60000",
        default: "2000",
        description: "Maximum time for a suggestion that you request with a key, in milliseconds. It is shown as soon \
                      as it is complete. A value below `latency-budget-ms` counts as `latency-budget-ms`.",
        set: |settings, value| {
            settings.explicit_budget = Duration::from_millis(parse_number(value, 10..=60_000)?);
            Some(())
        },
    },
    OptionSpec {
        name: "early-answer-ms",
        expected: "a whole number from 0 to 60000",
        default: "50",
        description: "Show the first part of a suggestion after this many milliseconds and extend it when more is \
                      ready, in editors with taper's extension or plugin (VS Code, Neovim). 60000 disables it.",
        set: |settings, value| {
            settings.early_answer = Duration::from_millis(parse_number(value, 0..=60_000)?);
            Some(())
        },
    },
    OptionSpec {
        name: "suggest",
        expected: "\"line\", \"auto\" or \"block\"",
        default: "\"auto\"",
        description: "How much to suggest. `line`: always one line. `auto`: as much as fits the place. `block`: up to \
                      the end of the block.",
        set: |settings, value| {
            settings.suggest.extent = match value.as_str()? {
                "line" => ExtentSetting::Line,
                "auto" => ExtentSetting::Auto,
                "block" => ExtentSetting::Block,
                _ => return None,
            };
            Some(())
        },
    },
    OptionSpec {
        name: "eagerness",
        expected: "\"low\", \"medium\" or \"high\"",
        default: "\"medium\"",
        description: "How readily to suggest while you type. `low`: only what is probably right. `medium`: all but \
                      what is hardly ever right. `high`: everything.",
        set: |settings, value| {
            settings.suggest.eagerness = match value.as_str()? {
                "low" => Eagerness::Low,
                "medium" => Eagerness::Medium,
                "high" => Eagerness::High,
                _ => return None,
            };
            Some(())
        },
    },
    OptionSpec {
        name: "max-lines",
        expected: "a whole number from 1 to 1000",
        default: "12",
        description: "Maximum number of lines in a suggestion.",
        set: |settings, value| {
            settings.suggest.max_lines = parse_size(value, 1..=1000)?;
            Some(())
        },
    },
    OptionSpec {
        name: "max-tokens",
        expected: "a whole number from 1 to 4096",
        default: "96",
        description: "Maximum number of tokens to generate for a suggestion.",
        set: |settings, value| {
            settings.suggest.max_tokens = parse_size(value, 1..=4096)?;
            Some(())
        },
    },
    OptionSpec {
        name: "prefix-tokens",
        expected: "a whole number from 16 to 131072",
        default: "2048",
        description: "Maximum number of tokens before the cursor that the model sees.",
        set: |settings, value| {
            settings.suggest.prefix_tokens = parse_size(value, 16..=131_072)?;
            Some(())
        },
    },
    OptionSpec {
        name: "suffix-tokens",
        expected: "a whole number from 0 to 131072",
        default: "0",
        description: "Maximum number of tokens after the cursor that the model sees. 0: the model's own default.",
        set: |settings, value| {
            settings.suggest.suffix_tokens =
                Some(parse_size(value, 0..=131_072)?).filter(|&tokens| tokens > 0);
            Some(())
        },
    },
    OptionSpec {
        name: "snippet-tokens",
        expected: "a whole number from 0 to 8192",
        default: "0",
        description: "Maximum number of tokens of related code from other files of the project that the model sees. \
                      0: the model's own default.",
        set: |settings, value| {
            settings.suggest.snippet_tokens = Some(parse_size(value, 0..=8192)?).filter(|&tokens| tokens > 0);
            Some(())
        },
    },
    OptionSpec {
        name: "other-files",
        expected: "true or false",
        default: "true",
        description: "Read other files of the project, for models that benefit from them. Files that git ignores are \
                      skipped unless they are open. Files of keys and secrets are always skipped, and what looks like \
                      a key, a token or a password is redacted.",
        set: |settings, value| {
            settings.other_files = value.as_bool()?;
            Some(())
        },
    },
    OptionSpec {
        name: "excluded-files",
        expected: "a list of strings",
        default: "[]",
        description: "More files to exclude, as `.gitignore` patterns. An excluded file is never read for other \
                      files, and gets no suggestions while you type. The built-in list of keys, certificates and \
                      secrets always applies, and a project adds to it with `.taperignore`.",
        set: |settings, value| {
            let patterns = value.as_array()?.iter().map(|it| it.as_str().map(str::to_owned));
            settings.excluded_files = ExcludedFiles::new(patterns.collect::<Option<_>>()?).ok()?;
            Some(())
        },
    },
    OptionSpec {
        name: "enable",
        expected: "true or false",
        default: "true",
        description: "Whether to suggest anything.",
        set: |settings, value| {
            settings.enable = value.as_bool()?;
            Some(())
        },
    },
    OptionSpec {
        name: "disabled-languages",
        expected: "a list of strings",
        default: "[]",
        description: "Languages without suggestions, by the editor's identifier or taper's own name.",
        set: |settings, value| {
            let names = value.as_array()?.iter().map(|name| name.as_str().map(str::to_owned));
            settings.disabled_languages = names.collect::<Option<_>>()?;
            Some(())
        },
    },
    OptionSpec {
        name: "debounce-ms",
        expected: "a whole number from 0 to 10000",
        default: "0",
        description: "How long typing must pause before a request reaches the model, in milliseconds.",
        set: |settings, value| {
            settings.debounce = Duration::from_millis(parse_number(value, 0..=10_000)?);
            Some(())
        },
    },
    OptionSpec {
        name: "idle-work",
        expected: "\"off\", \"modest\" or \"full\"",
        default: "\"modest\"",
        description: "What to do while the editor is idle. `off`: nothing. `modest`: finish interrupted suggestions, \
                      and prepare those at the resting cursor, after the suggestion on screen, and on the line below \
                      a complete one. `full`: also prepare what follows a suggestion on a new line.",
        set: |settings, value| {
            settings.suggest.idle = match value.as_str()? {
                "off" => IdleSetting::Off,
                "modest" => IdleSetting::Modest,
                "full" => IdleSetting::Full,
                _ => return None,
            };
            Some(())
        },
    },
    OptionSpec {
        name: "threads",
        expected: "a whole number from 0 to 1024",
        default: "0",
        description: "Number of compute threads. 0: one for each physical core.",
        set: |settings, value| {
            settings.engine.threads = parse_size(value, 0..=1024)?;
            Some(())
        },
    },
    OptionSpec {
        name: "context",
        expected: "a whole number from 0 to 1048576",
        default: "0",
        description: "Size of the model's context, in tokens. 0: as large as the other settings need.",
        set: |settings, value| {
            settings.engine.context = parse_size(value, 0..=1_048_576)?;
            Some(())
        },
    },
    OptionSpec {
        name: "cache-mb",
        expected: "a whole number from 0 to 65536",
        default: "128",
        description: "Memory for what the model has read of recent documents, in megabytes, on a CPU. The document in \
                      use is kept, whatever its size.",
        set: |settings, value| {
            settings.engine.cache_bytes = parse_size(value, 0..=65_536)? << 20;
            Some(())
        },
    },
    OptionSpec {
        name: "device",
        expected: "\"auto\", \"cpu\", \"cuda\" or \"metal\"",
        default: "\"auto\"",
        description: "Where the model runs. `auto`: on a GPU if this build and this machine have one, else on the CPU.",
        set: |settings, value| {
            let device = parse_auto_string(value)?;
            if device.as_deref().is_some_and(|device| !matches!(device, "cpu" | "cuda" | "metal")) {
                return None;
            }
            settings.engine.device = device;
            Some(())
        },
    },
    OptionSpec {
        name: "kernel",
        expected: "a string: `auto`, `amx`, `avx512-vnni`, `avx-vnni`, `avx2`, `portable` or `candle`",
        default: "\"auto\"",
        description: "Which kernels run the model on a CPU. `auto`: the fastest that this processor supports; `taper \
                      doctor` says which, and why.",
        set: |settings, value| {
            settings.engine.kernel = parse_auto_string(value)?;
            Some(())
        },
    },
    OptionSpec {
        name: "offline",
        expected: "true or false",
        default: "false",
        description: "Never download a model; use only what is on this machine.",
        set: |settings, value| {
            settings.engine.offline = value.as_bool()?;
            Some(())
        },
    },
    OptionSpec {
        name: "statistics",
        expected: "true or false",
        default: "true",
        description: "Count on this machine what was shown and accepted, for `taper stats`. The counts hold no code, \
                      file names or paths, and nothing is sent.",
        set: |settings, value| {
            settings.statistics = value.as_bool()?;
            Some(())
        },
    },
];

/// What is wrong with a value that is valid only on another machine.
pub(super) fn machine_limit_problem(name: &str, value: &Value) -> Option<String> {
    /// Maximum threads for each core, and a maximum that is allowed on any machine: more would only wait for each
    /// other.
    const THREADS_PER_CORE: u64 = 4;
    const MIN_THREAD_LIMIT: u64 = 16;
    let threads = value.as_u64().filter(|&threads| name == "threads" && threads <= 1024)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let most = (cores * THREADS_PER_CORE).max(MIN_THREAD_LIMIT);
    (threads > most).then(|| {
        let machine = if cores == 1 { "one core".to_owned() } else { format!("{cores} cores") };
        format!("`threads` must be at most {most} on this machine, which has {machine}, not {threads}")
    })
}

fn parse_number(value: &Value, range: std::ops::RangeInclusive<u64>) -> Option<u64> {
    value.as_u64().filter(|number| range.contains(number))
}

fn parse_size(value: &Value, range: std::ops::RangeInclusive<u64>) -> Option<usize> {
    usize::try_from(parse_number(value, range)?).ok()
}

/// A string; `auto` and an empty one mean automatic.
fn parse_auto_string(value: &Value) -> Option<Option<String>> {
    let value = value.as_str()?;
    Some((!value.is_empty() && value != "auto").then(|| value.to_owned()))
}

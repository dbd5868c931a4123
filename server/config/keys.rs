//! The table of options: what each is called, what it must be, what it does, and how it is set.
//! It knows nothing of where they were written.

use std::time::Duration;

use serde_json::Value;

use super::Settings;
use crate::context::excluded_files::ExcludedFiles;
use crate::suggest::eagerness::Eagerness;
use crate::suggest::{Extent, Idle};

/// One option: what a page of documentation says of it, and how it is set.
#[derive(Debug)]
pub struct Key {
    /// As written in the file. Editors may write it in camelCase.
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

/// Every option there is, in the order of the documentation.
pub fn keys() -> &'static [Key] {
    KEYS
}

pub(super) const KEYS: &[Key] = &[
    Key {
        name: "model",
        expected: "a string: a name from `taper models`, or the path of a GGUF file",
        default: "\"auto\"",
        description: "The model. `auto` is the largest that this machine answers with in time.",
        set: |settings, value| {
            settings.engine.model = automatic(value)?;
            Some(())
        },
    },
    Key {
        name: "latency-budget-ms",
        expected: "a whole number from 10 to 60000",
        default: "300",
        description: "An answer leaves this many milliseconds after the question arrived, at the latest.",
        set: |settings, value| {
            settings.latency_budget = Duration::from_millis(number(value, 10..=60_000)?);
            Some(())
        },
    },
    Key {
        name: "explicit-budget-ms",
        expected: "a whole number from 10 to 60000",
        default: "2000",
        description: "The same for a suggestion that you ask for with a key: it leaves as soon as it is complete, and this \
                      many milliseconds after the question at the latest. Less than `latency-budget-ms` is as much as that.",
        set: |settings, value| {
            settings.explicit_budget = Duration::from_millis(number(value, 10..=60_000)?);
            Some(())
        },
    },
    Key {
        name: "early-answer-ms",
        expected: "a whole number from 0 to 60000",
        default: "50",
        description: "In editors that show more as soon as more is known (with taper's extension for VS Code and its \
                      plugin for Neovim): so many milliseconds after the question a first part is shown. With 60000, \
                      never a part.",
        set: |settings, value| {
            settings.early_answer = Duration::from_millis(number(value, 0..=60_000)?);
            Some(())
        },
    },
    Key {
        name: "suggest",
        expected: "\"line\", \"auto\" or \"block\"",
        default: "\"auto\"",
        description: "How much to suggest: always one line, what the place asks for, or up to the end of the block.",
        set: |settings, value| {
            settings.suggest.extent = match value.as_str()? {
                "line" => Extent::Line,
                "auto" => Extent::Auto,
                "block" => Extent::Block,
                _ => return None,
            };
            Some(())
        },
    },
    Key {
        name: "eagerness",
        expected: "\"low\", \"medium\" or \"high\"",
        default: "\"medium\"",
        description: "How readily something is suggested unasked: only what is probably right, not what is hardly ever \
                      right, or whatever the model says.",
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
    Key {
        name: "max-lines",
        expected: "a whole number from 1 to 1000",
        default: "12",
        description: "Lines that a suggestion has at most.",
        set: |settings, value| {
            settings.suggest.max_lines = size(value, 1..=1000)?;
            Some(())
        },
    },
    Key {
        name: "max-tokens",
        expected: "a whole number from 1 to 4096",
        default: "96",
        description: "Tokens that are decoded for a suggestion at most.",
        set: |settings, value| {
            settings.suggest.max_tokens = size(value, 1..=4096)?;
            Some(())
        },
    },
    Key {
        name: "prefix-tokens",
        expected: "a whole number from 16 to 131072",
        default: "2048",
        description: "Tokens of the file before the cursor that the model sees at most.",
        set: |settings, value| {
            settings.suggest.prefix_tokens = size(value, 16..=131_072)?;
            Some(())
        },
    },
    Key {
        name: "suffix-tokens",
        expected: "a whole number from 0 to 131072",
        default: "0",
        description: "Tokens of the file after the cursor that the model sees at most; 0 is what is best for the model.",
        set: |settings, value| {
            settings.suggest.suffix_tokens = Some(size(value, 0..=131_072)?).filter(|&tokens| tokens > 0);
            Some(())
        },
    },
    Key {
        name: "snippet-tokens",
        expected: "a whole number from 0 to 8192",
        default: "0",
        description: "Tokens of the project's other files that the model sees at most, in pieces that share words with the \
                      place; 0 is what is best for the model.",
        set: |settings, value| {
            settings.suggest.snippet_tokens = Some(size(value, 0..=8192)?).filter(|&tokens| tokens > 0);
            Some(())
        },
    },
    Key {
        name: "other-files",
        expected: "true or false",
        default: "true",
        description: "Whether the project's other files are read, for a model that makes use of them. What git ignores is \
                      not, unless it is open; files of keys and secrets are not, open or not; what looks like a key, a \
                      token or a password is blacked out.",
        set: |settings, value| {
            settings.other_files = value.as_bool()?;
            Some(())
        },
    },
    Key {
        name: "excluded-files",
        expected: "a list of strings",
        default: "[]",
        description: "Patterns as in `.gitignore` of more files that are never read for other files and in which nothing \
                      is suggested unasked. They add to the list of keys, certificates and files of secrets, as does a \
                      project's `.taperignore`; neither takes anything off it.",
        set: |settings, value| {
            let patterns = value.as_array()?.iter().map(|it| it.as_str().map(str::to_owned));
            settings.excluded_files = ExcludedFiles::new(patterns.collect::<Option<_>>()?).ok()?;
            Some(())
        },
    },
    Key {
        name: "enable",
        expected: "true or false",
        default: "true",
        description: "Whether anything is suggested.",
        set: |settings, value| {
            settings.enable = value.as_bool()?;
            Some(())
        },
    },
    Key {
        name: "disabled-languages",
        expected: "a list of strings",
        default: "[]",
        description: "Languages in which nothing is suggested, by the editor's identifier or taper's name.",
        set: |settings, value| {
            let names = value.as_array()?.iter().map(|name| name.as_str().map(str::to_owned));
            settings.disabled_languages = names.collect::<Option<_>>()?;
            Some(())
        },
    },
    Key {
        name: "debounce-ms",
        expected: "a whole number from 0 to 10000",
        default: "0",
        description: "How long typing must pause, in milliseconds, before a question reaches the model.",
        set: |settings, value| {
            settings.debounce = Duration::from_millis(number(value, 0..=10_000)?);
            Some(())
        },
    },
    Key {
        name: "idle-work",
        expected: "\"off\", \"modest\" or \"full\"",
        default: "\"modest\"",
        description: "What is worked on while nobody waits: nothing; what was cut short, the answer where the \
                      cursor rests, what follows the shown suggestion, and the line below one that may be complete; or \
                      also what follows a suggestion on a new line.",
        set: |settings, value| {
            settings.suggest.idle = match value.as_str()? {
                "off" => Idle::Off,
                "modest" => Idle::Modest,
                "full" => Idle::Full,
                _ => return None,
            };
            Some(())
        },
    },
    Key {
        name: "threads",
        expected: "a whole number from 0 to 1024",
        default: "0",
        description: "Threads that compute; 0 is as many as there are cores.",
        set: |settings, value| {
            settings.engine.threads = size(value, 0..=1024)?;
            Some(())
        },
    },
    Key {
        name: "context",
        expected: "a whole number from 0 to 1048576",
        default: "0",
        description: "Tokens that fit into the model's context; 0 is as many as the other settings need.",
        set: |settings, value| {
            settings.engine.context = size(value, 0..=1_048_576)?;
            Some(())
        },
    },
    Key {
        name: "cache-mb",
        expected: "a whole number from 0 to 65536",
        default: "128",
        description: "Memory in megabytes for what the model has read of documents, on a processor: the last used ones answer at once when you come back to them. The one that is in use stays, whatever it needs.",
        set: |settings, value| {
            settings.engine.cache_bytes = size(value, 0..=65_536)? << 20;
            Some(())
        },
    },
    Key {
        name: "device",
        expected: "\"auto\", \"cpu\", \"cuda\" or \"metal\"",
        default: "\"auto\"",
        description: "Where the model runs. `auto` is a GPU if this build and this machine have one.",
        set: |settings, value| {
            let device = automatic(value)?;
            if device.as_deref().is_some_and(|device| !matches!(device, "cpu" | "cuda" | "metal")) {
                return None;
            }
            settings.engine.device = device;
            Some(())
        },
    },
    Key {
        name: "kernel",
        expected: "a string: `auto`, `amx`, `avx512-vnni`, `avx-vnni`, `avx2`, `portable` or `candle`",
        default: "\"auto\"",
        description: "Which kernels run the model on a processor. `auto` is the fastest that it has; `taper doctor` says \
                      which, and why.",
        set: |settings, value| {
            settings.engine.kernel = automatic(value)?;
            Some(())
        },
    },
    Key {
        name: "offline",
        expected: "true or false",
        default: "false",
        description: "Never fetch a model; use only what is on this machine.",
        set: |settings, value| {
            settings.engine.offline = value.as_bool()?;
            Some(())
        },
    },
    Key {
        name: "statistics",
        expected: "true or false",
        default: "true",
        description: "Count on this machine what was shown and what became of it, for `taper stats`. Never code, names \
                      of files or paths; nothing is sent.",
        set: |settings, value| {
            settings.statistics = value.as_bool()?;
            Some(())
        },
    },
];

/// What is wrong with a value that only another machine could use.
pub(super) fn beyond_this_machine(name: &str, value: &Value) -> Option<String> {
    /// Threads for each core, and threads that are allowed anywhere: beyond that they only wait for each other.
    const EACH: u64 = 4;
    const ANYWHERE: u64 = 16;
    let threads = value.as_u64().filter(|&threads| name == "threads" && threads <= 1024)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let most = (cores * EACH).max(ANYWHERE);
    (threads > most).then(|| {
        let machine = if cores == 1 { "one core".to_owned() } else { format!("{cores} cores") };
        format!("`threads` should be at most {most} on this machine, which has {machine}, not {threads}")
    })
}

fn number(value: &Value, range: std::ops::RangeInclusive<u64>) -> Option<u64> {
    value.as_u64().filter(|number| range.contains(number))
}

fn size(value: &Value, range: std::ops::RangeInclusive<u64>) -> Option<usize> {
    usize::try_from(number(value, range)?).ok()
}

/// A string, in which `auto` and nothing mean "choose".
fn automatic(value: &Value) -> Option<Option<String>> {
    let value = value.as_str()?;
    Some((!value.is_empty() && value != "auto").then(|| value.to_owned()))
}

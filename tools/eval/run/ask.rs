//! Asks a task: taper's own path, and a llama.cpp server in its two ways.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Instant, UNIX_EPOCH};

use anyhow::Result;
use taper_engine::{Engine, Tokenizer};

use super::likelihood;
use super::workspaces::Workspaces;
use crate::answers::{Answer, Greedy};
use crate::llama::{self, Llama, LlamaError};
use crate::tasks::{OtherFile, Task};
use taper::completion::alternatives::{self, AlternativesRequest};
use taper::completion::{self, Options, Snapshot, Suggestion, Trigger, confidence};
use taper::prompt::{self, Budget, template::Profile, template::SegmentOrder};
use taper::retrieval::Snippet;
use taper::syntax::{RegionSize, Syntax};
use taper::text::Rope;

/// The defaults of llama.vim (`n_predict`, `n_prefix` and `n_suffix` of <https://github.com/ggml-org/llama.vim>):
/// maximum tokens, and lines before and after the cursor's.
const LLAMA_TOKENS: usize = 128;
const LLAMA_LINES: (usize, usize) = (256, 64);

/// The snapshot of a task at its cursor.
pub(super) fn snapshot(task: &Task, options: &Options) -> Snapshot {
    let language =
        taper_grammars::by_path(Path::new(&task.path)).or_else(|| taper_grammars::by_id(&task.language));
    let text = Rope::from_str(&format!("{}{}", task.prefix, task.suffix));
    Snapshot {
        syntax: language.and_then(|it| {
            Syntax::parse_around(&text, it, task.prefix.len(), RegionSize::DEFAULT, &mut || false)
        }),
        language,
        path: task.path.clone(),
        // The first is the nearest.
        snippets: task.context.iter().rev().map(snippet).collect(),
        ..Snapshot::new(text, task.prefix.len(), options.clone())
    }
}

fn snippet(file: &OtherFile) -> Snippet {
    Snippet { path: file.path.clone(), text: file.text.clone() }
}

/// Our own path.
pub(super) struct Taper<'e> {
    engine: &'e mut dyn Engine,
    profile: Profile,
    options: Options,
    /// Maximum suggestions per task; more than one makes the request explicit.
    candidates: usize,
    workspaces: Option<&'e mut Workspaces>,
    /// Everything that an answer depends on.
    pub(super) configuration: String,
}

impl<'e> Taper<'e> {
    pub(super) fn new(engine: &'e mut dyn Engine, profile: Profile, options: Options) -> Self {
        let about = engine.engine_info();
        let configuration = format!(
            "{} ({} bytes); {}; {}; {}; build {}",
            about.model,
            about.weight_bytes,
            profile.describe(),
            window(&options, &profile),
            about.kernel,
            build_id(),
        );
        Self { engine, profile, options, candidates: 1, workspaces: None, configuration }
    }

    /// Makes the requests explicit, for up to this many suggestions.
    pub(super) fn with_candidates(mut self, candidates: Option<usize>) -> Self {
        if let Some(candidates) = candidates {
            self.configuration += &format!("; asked for {candidates} candidates");
            self.candidates = candidates;
        }
        self
    }

    /// Uses snippets of these projects instead of the tasks' own.
    pub(super) fn with_workspaces(mut self, workspaces: Option<&'e mut Workspaces>) -> Self {
        if workspaces.is_some() {
            self.configuration += "; snippets of whole projects";
        }
        self.workspaces = workspaces;
        self
    }

    /// Asks a task with an empty KV cache, as if its file had just been opened.
    pub(super) fn ask(&mut self, task: &Task) -> Result<Answer> {
        self.engine.clear();
        self.ask_next(task)
    }

    /// [`ask`](Self::ask) with the KV cache kept: faster, and the same answer if the engine's results do not depend on
    /// how a text was split into chunks, as on CPUs.
    pub(super) fn ask_next(&mut self, task: &Task) -> Result<Answer> {
        let mut snapshot = self.snapshot(task);
        if self.candidates > 1 {
            snapshot.trigger = Trigger::Invoked;
        }
        let started = Instant::now();
        let (suggestion, work) =
            completion::suggest(&snapshot, &self.profile, self.engine, &mut |_| ControlFlow::Continue(()))?;
        let seconds = started.elapsed().as_secs_f64();
        let others = match &suggestion {
            _ if self.candidates < 2 => None,
            None => Some(Vec::new()),
            Some(first) => {
                let watch = &mut |_: &[Suggestion]| ControlFlow::Continue(());
                let most = self.candidates - 1;
                let request = AlternativesRequest { snapshot: &snapshot, first, work: &work, most };
                let others = alternatives::find_alternatives(request, &self.profile, self.engine, watch)?;
                Some(others.into_iter().map(|it| it.text).collect())
            }
        };
        let sure = suggestion.as_ref().and_then(|it| confidence::shown_confidence(&work, &it.text));
        let replaces = |it: &Suggestion| (snapshot.cursor - it.range.start, it.range.end - snapshot.cursor);
        let greedy = work.rejected_greedy.map(|it| Greedy {
            replaces: (0, 0),
            shown: None,
            raw: it.raw,
            decoded: work.decoded,
        });
        Ok(Answer {
            replaces: suggestion.as_ref().map(replaces).unwrap_or_default(),
            shown: suggestion.map(|it| it.text),
            others,
            raw: work.raw,
            greedy,
            reason: work.reason.to_owned(),
            prompt_tokens: work.prompt_tokens,
            decoded: work.decoded + work.searched,
            seconds,
            mean_probability: sure.map(|it| it.mean),
            min_probability: sure.map(|it| it.min),
            pieces: work.pieces.iter().map(|piece| (piece.end, piece.probability)).collect(),
            ..Answer::default()
        })
    }

    /// Measures only the likelihood of the expected line, with the KV cache kept; see [`ask_next`](Self::ask_next).
    pub(super) fn likelihood(&mut self, task: &Task) -> Result<Answer> {
        let snapshot = self.snapshot(task);
        let prompt = completion::best_prompt(&snapshot, &self.profile, self.engine.tokenizer());
        let started = Instant::now();
        let likelihood = match likelihood::line(task) {
            Some((line, ends)) => likelihood::of(self.engine, &prompt, line, ends)?,
            None => None,
        };
        Ok(Answer {
            likelihood,
            reason: "scored".to_owned(),
            prompt_tokens: prompt.tokens.len(),
            seconds: started.elapsed().as_secs_f64(),
            ..Answer::default()
        })
    }

    fn snapshot(&mut self, task: &Task) -> Snapshot {
        let mut snapshot = snapshot(task, &self.options);
        if let Some(workspaces) = &mut self.workspaces {
            let bytes = completion::snippet_bytes(&self.options, &self.profile);
            snapshot.snippets = workspaces.find(task, &snapshot, bytes).into();
        }
        snapshot
    }
}

fn window(options: &Options, profile: &Profile) -> String {
    let Options { max_lines, max_tokens, extent, eagerness, .. } = options;
    let Budget { prefix, suffix, snippets, .. } = completion::prompt_budget(options, profile);
    format!(
        "{snippets} + {prefix} + {suffix} tokens, {max_tokens} out, {max_lines} lines, {extent:?}, \
         eagerness {eagerness:?}"
    )
}

/// An id of this build: another one may answer differently.
fn build_id() -> String {
    let about = std::env::current_exe().and_then(std::fs::metadata);
    let modified = about.as_ref().ok().and_then(|it| it.modified().ok()?.duration_since(UNIX_EPOCH).ok());
    format!("{}-{}", about.map_or(0, |it| it.len()), modified.map_or(0, |it| it.as_secs()))
}

/// A way to ask a llama.cpp server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Baseline {
    /// `/infill`, which makes the prompt itself, with the text that llama.vim sends.
    Infill,
    /// `/completion`, with only the format's three tokens around the text: the window of our own path.
    Bare,
}

impl Baseline {
    /// The ways that a model's format allows.
    pub(super) fn of(profile: &Profile) -> Vec<Self> {
        let bare = profile.template.as_ref().is_some_and(|it| it.template.order == SegmentOrder::PrefixFirst);
        if bare { vec![Self::Infill, Self::Bare] } else { vec![Self::Infill] }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Infill => "llama /infill",
            Self::Bare => "llama bare",
        }
    }

    pub(super) fn configuration(self, engine: &dyn Engine, profile: &Profile, options: &Options) -> String {
        let about = engine.engine_info();
        let Budget { prefix, suffix, snippets, .. } = completion::prompt_budget(options, profile);
        let window = match self {
            Self::Infill => {
                let others = if snippets > 0 { ", other files" } else { "" };
                format!("{} + {} lines{others}", LLAMA_LINES.0, LLAMA_LINES.1)
            }
            Self::Bare => format!("{prefix} + {suffix} tokens"),
        };
        let name = self.name();
        format!("{name}; {} ({} bytes); {window}, {LLAMA_TOKENS} out", about.model, about.weight_bytes)
    }

    /// The whole answer counts as shown, as in an editor's plug-in without post-processing; if only a line is expected,
    /// decoding stops after it.
    pub(super) fn ask(
        self,
        server: &Llama,
        task: &Task,
        profile: &Profile,
        tokens: &Tokenizer,
        options: &Options,
    ) -> Result<Answer, LlamaError> {
        let extent = llama::Extent { tokens: LLAMA_TOKENS, one_line: task.one_line() };
        let started = Instant::now();
        let answer = match (self, &profile.template) {
            (Self::Bare, Some(it)) => {
                let snapshot = snapshot(task, options);
                let (whole, budget) =
                    (snapshot.joined_document(), completion::prompt_budget(options, profile));
                let (_, window) = prompt::build_prompt(profile, tokens, whole.prompt_file(), budget);
                let it = it.template;
                let parts = [it.prefix, &window.prefix, it.suffix, &window.suffix, it.middle];
                server.complete(&parts.concat(), extent)?
            }
            _ => {
                let (before, after) = lines_around(&task.prefix, &task.suffix, LLAMA_LINES);
                // The snippets of our own prompt, from its own `context` only.
                let others = task
                    .context
                    .iter()
                    .rev()
                    .filter(|_| completion::prompt_budget(options, profile).snippets > 0);
                let others: Vec<_> = others.map(|it| (it.path.as_str(), it.text.as_str())).collect();
                server.infill(before, after, &others, extent)?
            }
        };
        Ok(Answer {
            shown: Some(answer.content.clone()).filter(|it| !it.trim().is_empty()),
            raw: answer.content,
            reason: answer.stop_type,
            prompt_tokens: answer.tokens_evaluated,
            decoded: answer.tokens_predicted,
            seconds: started.elapsed().as_secs_f64(),
            ..Answer::default()
        })
    }
}

/// The cursor's line with `lines` before and after it.
fn lines_around<'t>(prefix: &'t str, suffix: &'t str, lines: (usize, usize)) -> (&'t str, &'t str) {
    let start = prefix.rmatch_indices('\n').nth(lines.0).map_or(0, |(at, _)| at + 1);
    let end = suffix.match_indices('\n').nth(lines.1).map_or(suffix.len(), |(at, _)| at);
    (&prefix[start..], &suffix[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_around_the_cursors_line() {
        let (prefix, suffix) = ("a\nb\nc\nd", "e\nf\n\ng\n");
        for (lines, expected) in [
            ((0, 0), ("d", "e")),
            ((1, 1), ("c\nd", "e\nf")),
            ((3, 3), (prefix, "e\nf\n\ng")),
            ((9, 9), (prefix, suffix)),
        ] {
            assert_eq!(lines_around(prefix, suffix, lines), expected);
        }
        assert_eq!(lines_around("", "", (2, 2)), ("", ""));
    }
}

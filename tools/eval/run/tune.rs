//! Finds the prompt form that a model answers best: tries the forms on the same tasks and prints a row for the table.

use std::io::{self, Write};

use anyhow::{Result, bail};
use clap::ValueEnum;
use indicatif::ProgressBar;
use taper_engine::Engine;

use super::ask::Taper;
use super::form::FormArgs;
use super::interval::{self, Estimate};
use super::workspaces::Workspaces;
use super::{AnswerStore, likelihood, scored};
use crate::tasks::Task;
use taper::cli::terminal::EscapedWriter;
use taper::completion::Options;
use taper::prompt::template::{Profile, PromptForm, PromptLayout};

/// Anchor distances to try, in lines.
const ANCHORS: [usize; 3] = [4, 10, 20];
/// Suffix lengths to try, in tokens.
const SUFFIXES: [usize; 6] = [0, 64, 128, 256, 400, 800];
/// Snippet lengths to try, in tokens, if there are other files.
const SNIPPETS: [usize; 3] = [0, 512, 1024];

/// The basis of comparing forms.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum By {
    /// Their answers.
    #[default]
    Exact,
    /// The likelihood of the expected line.
    Likelihood,
}

/// One form, and its results.
struct Trial {
    form: PromptForm,
    by: By,
    scores: Vec<Outcome>,
    /// Tokens in a prompt, on average.
    read: f64,
}

/// The result of a form on a task.
#[derive(Debug, Clone, Copy, Default)]
struct Outcome {
    /// 1 if the answer is exact, or greedy decoding would generate the line; 0 if not.
    exact: f64,
    /// 0 to 1.
    similarity: f64,
    /// The probability of the expected line, 0 to 1.
    probability: f64,
    /// Its natural logarithm.
    log: f64,
}

impl Trial {
    fn mean(&self, of: impl Fn(&Outcome) -> f64) -> f64 {
        self.scores.iter().map(of).sum::<f64>() / self.scores.len() as f64
    }

    fn exact(&self) -> f64 {
        self.mean(|it| it.exact)
    }

    fn similarity(&self) -> f64 {
        self.mean(|it| it.similarity)
    }

    /// Ranked by exact matches, then by similarity, which never outweighs one task; or by the probability: a sum of
    /// logarithms would be dominated by the few unpredictable lines.
    fn rank(&self) -> f64 {
        match self.by {
            By::Exact => self.exact() + self.similarity() / (2 * self.scores.len()) as f64,
            By::Likelihood => self.mean(|it| it.probability),
        }
    }
}

/// Tunes layout and healing together first, since one changes the value of the other; then, with the best of them, the
/// header, then the suffix, and then the snippets.
pub(super) fn run(
    tasks: &[Task],
    by: By,
    args: &FormArgs,
    engine: &mut dyn Engine,
    workspaces: Option<&mut Workspaces>,
    kept: &mut AnswerStore,
) -> Result<()> {
    let options = args.options();
    // An answer is limited to this many tokens; a longer line might not fit into the context after the longest prompt.
    let fits = |line: &str| engine.tokenizer().encode(line).len() <= options.max_tokens;
    let usable = |task: &&Task| match by {
        By::Exact => true,
        By::Likelihood => likelihood::line(task).is_some_and(|(line, _)| fits(line)),
    };
    let tasks: Vec<Task> = tasks.iter().filter(usable).cloned().collect();
    if tasks.is_empty() {
        bail!(
            "none of these tasks expects a line of up to {} tokens after its cursor, so no likelihood can be measured",
            options.max_tokens
        );
    }
    let profile = args.profile(engine);
    let model = engine.engine_info().model.clone();
    let present = profile.form;
    super::print_progress(&format!("{} tasks, {model}, now asked with: {}", tasks.len(), profile.describe()));

    let others = workspaces.is_some() || tasks.iter().any(|task| !task.context.is_empty());
    let mut tuning =
        Tuning { tasks: &tasks, by, profile, options, engine, workspaces, kept, trials: Vec::new() };
    let Profile { template, chat, .. } = &tuning.profile;
    let layouts = possible_layouts(template.is_some(), chat.is_some());
    let healed = layouts.into_iter().flat_map(|layout| {
        // A form without a suffix says nothing about one.
        let blind = layout != PromptLayout::PrefixOnly && present.suffix == 0;
        let suffix = if blind { SUFFIXES[2] } else { present.suffix };
        [false, true].map(|heal| PromptForm { layout, heal, suffix, ..present })
    });
    tuning.try_forms([present].into_iter().chain(healed))?;
    let form = tuning.best();
    tuning.try_forms([PromptForm { header: !form.header, ..form }])?;
    let form = tuning.best();
    let sees_suffix = form.layout != PromptLayout::PrefixOnly;
    tuning.try_forms(
        SUFFIXES.into_iter().filter(|_| sees_suffix).map(|suffix| PromptForm { suffix, ..form }),
    )?;
    let form = tuning.best();
    let others = others && tuning.profile.snippet_tokens().is_some();
    tuning
        .try_forms(SNIPPETS.into_iter().filter(|_| others).map(|snippets| PromptForm { snippets, ..form }))?;
    Ok(report(&model, &tuning.trials, &mut EscapedWriter::new(&mut io::stdout().lock()))?)
}

/// The layouts that a model's tokens and its file allow.
fn possible_layouts(fills_in: bool, chats: bool) -> Vec<PromptLayout> {
    let mut layouts = vec![PromptLayout::PrefixOnly];
    if fills_in {
        layouts[0] = PromptLayout::Plain;
        layouts.extend(ANCHORS.map(|lines| PromptLayout::Anchored { lines }));
    }
    if chats {
        layouts.extend(ANCHORS.map(|lines| PromptLayout::Chat { lines }));
    }
    layouts
}

/// Model, tasks and results so far.
struct Tuning<'a> {
    tasks: &'a [Task],
    by: By,
    profile: Profile,
    options: Options,
    engine: &'a mut dyn Engine,
    workspaces: Option<&'a mut Workspaces>,
    kept: &'a mut AnswerStore,
    trials: Vec<Trial>,
}

impl Tuning<'_> {
    fn best(&self) -> PromptForm {
        self.trials[best(&self.trials)].form
    }

    /// Asks every task in each of these forms that was not tried before. Forms of one task follow each other: most of
    /// their prompts is the same text, which is prefilled once.
    fn try_forms(&mut self, forms: impl IntoIterator<Item = PromptForm>) -> Result<()> {
        let mut new: Vec<Trial> = Vec::new();
        for form in forms {
            if self.trials.iter().chain(&new).all(|it| it.form != form) {
                new.push(Trial { form, by: self.by, scores: Vec::new(), read: 0.0 });
            }
        }
        let bar = ProgressBar::new((self.tasks.len() * new.len()) as u64);
        for task in self.tasks {
            self.engine.clear();
            for trial in &mut new {
                let profile = Profile { form: trial.form, ..self.profile.clone() };
                let mut taper = Taper::new(self.engine, profile, self.options.clone())
                    .with_workspaces(self.workspaces.as_deref_mut());
                let mut configuration = taper.configuration.clone();
                if self.by == By::Likelihood {
                    configuration += "; the likelihood of the expected line";
                }
                let it = scored(task, self.kept, false, &configuration, "taper", |task| match self.by {
                    By::Exact => taper.ask_next(task),
                    By::Likelihood => taper.likelihood(task),
                })?;
                let mut outcome = Outcome {
                    exact: f64::from(u8::from(it.score.exact)),
                    similarity: it.score.similarity / 100.0,
                    ..Outcome::default()
                };
                if self.by == By::Likelihood {
                    let Some(likely) = it.answer.likelihood else {
                        bail!("this engine reports no probabilities: leave out `--by likelihood`");
                    };
                    outcome.exact = f64::from(u8::from(likely.greedy));
                    (outcome.probability, outcome.log) = (likely.log.exp(), likely.log);
                }
                trial.scores.push(outcome);
                trial.read += it.answer.prompt_tokens as f64 / self.tasks.len() as f64;
                bar.inc(1);
            }
        }
        bar.finish_and_clear();
        for trial in &new {
            let exact = 100.0 * trial.exact();
            let scores = match self.by {
                By::Exact => format!("{exact:.1} % exact, similarity {:.1}", 100.0 * trial.similarity()),
                By::Likelihood => format!("{exact:.1} % greedy, probability {:.1} %", 100.0 * trial.rank()),
            };
            super::print_progress(&format!("{}: {scores}", describe(trial.form)));
        }
        self.trials.append(&mut new);
        Ok(())
    }
}

fn best(trials: &[Trial]) -> usize {
    (0..trials.len()).max_by(|&a, &b| trials[a].rank().total_cmp(&trials[b].rank())).unwrap_or(0)
}

/// Prints the table, best first, and the row. The first trial is the model's present form.
fn report(model: &str, trials: &[Trial], out: &mut dyn Write) -> io::Result<()> {
    let mut order: Vec<usize> = (0..trials.len()).collect();
    order.sort_by(|&a, &b| trials[b].rank().total_cmp(&trials[a].rank()));
    let best = &trials[order[0]];
    // Greedy decoding would generate the line, which is not yet the visible part.
    let (first, second, points) = match best.by {
        By::Exact => ("exact %", "similarity", "exact, points to best"),
        By::Likelihood => ("greedy %", "probability, log", "probability, points to best"),
    };
    writeln!(out, "{:<66} {first:>16} {second:>16} {points:>27} {:>7}", "form", "read")?;
    for &at in &order {
        let trial = &trials[at];
        let hits = trial.scores.iter().filter(|it| it.exact > 0.5).count();
        let exact = interval::share(hits, trial.scores.len());
        let lag = difference(trial, best);
        let percent = |it: Option<Estimate>, digits: usize| match it {
            Some(it) => format!(
                "{:.1} ({:.digits$} to {:.digits$})",
                100.0 * it.value,
                100.0 * it.low,
                100.0 * it.high
            ),
            None => "-".to_owned(),
        };
        let second = match trial.by {
            By::Exact => format!("{:.1}", 100.0 * trial.similarity()),
            By::Likelihood => format!("{:.1} %, {:.2}", 100.0 * trial.rank(), trial.mean(|it| it.log)),
        };
        writeln!(
            out,
            "{:<66} {:>16} {second:>16} {:>27} {:>7.0}{}",
            describe(trial.form),
            percent(exact, 0),
            if at == order[0] { "best".to_owned() } else { percent(lag, 1) },
            trial.read,
            if at == 0 { "  now" } else { "" },
        )?;
    }
    writeln!(out, "\nFor MEASURED_FORMS in server/prompt/template.rs:\n\n{}", row(model, best))?;
    let now = &trials[0];
    if order[0] == 0 {
        writeln!(out, "\nThis is already the form of the model.")?;
    } else if difference(now, best).is_none_or(|it| it.high >= 0.0) {
        writeln!(
            out,
            "\nThe form of now may be as good: over these {} tasks the difference is within its noise.",
            now.scores.len()
        )?;
    }
    Ok(())
}

/// Exact matches, or probabilities, minus those of the best, per task, over the same tasks.
fn difference(trial: &Trial, best: &Trial) -> Option<Estimate> {
    let value = |it: &Outcome| match trial.by {
        By::Exact => it.exact,
        By::Likelihood => it.probability,
    };
    let differences: Vec<f64> =
        trial.scores.iter().zip(&best.scores).map(|(a, b)| value(a) - value(b)).collect();
    interval::mean(&differences)
}

fn describe(form: PromptForm) -> String {
    let layout = match form.layout {
        PromptLayout::Plain => "plain".to_owned(),
        PromptLayout::Anchored { lines } => format!("anchored {lines}"),
        PromptLayout::PrefixOnly => "prefix only".to_owned(),
        PromptLayout::Chat { lines } => format!("chat {lines}"),
    };
    let heal = if form.heal { "healed" } else { "not healed" };
    let header = if form.header { "header" } else { "no header" };
    let others = if form.snippets > 0 { format!(", other files {}", form.snippets) } else { String::new() };
    format!("{layout}, {heal}, {header}, suffix {}{others}", form.suffix)
}

/// The row's text. Its words are the model's name without the words for its file format.
fn row(model: &str, best: &Trial) -> String {
    let name = model.to_lowercase().replace([' ', '_'], "-");
    let stored = |word: &str| {
        matches!(word, "gguf" | "awq" | "gptq" | "f16" | "f32" | "bf16" | "k" | "m" | "s" | "l")
            || (word.starts_with(['q', 'i'])
                && word[1..].starts_with(|c: char| c.is_ascii_digit())
                && word.len() <= 3)
    };
    let words: Vec<String> = name
        .split('-')
        .filter(|word| !word.is_empty() && !stored(word))
        .map(|word| format!("{word:?}"))
        .collect();
    let PromptForm { layout, heal, header, suffix, snippets } = best.form;
    let layout = match layout {
        PromptLayout::Plain => "PromptLayout::Plain".to_owned(),
        PromptLayout::Anchored { lines } => format!("PromptLayout::Anchored {{ lines: {lines} }}"),
        PromptLayout::PrefixOnly => "PromptLayout::PrefixOnly".to_owned(),
        PromptLayout::Chat { lines } => format!("PromptLayout::Chat {{ lines: {lines} }}"),
    };
    let measured = match best.by {
        By::Exact => {
            format!(
                "{:.0} % of {} tasks exact; `taper-eval run --tune`",
                100.0 * best.exact(),
                best.scores.len()
            )
        }
        By::Likelihood => format!(
            "{:.1} % for the expected line, mean of {} tasks; `taper-eval run --tune --by likelihood`",
            100.0 * best.rank(),
            best.scores.len()
        ),
    };
    format!(
        "    // {measured}.\n    FormRow {{\n        words: &[{}],\n        \
         form: PromptForm {{ layout: {layout}, heal: {heal}, header: {header}, suffix: {suffix}, snippets: {snippets} \
         }},\n    }},",
        words.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_follow_from_tokens_and_chat_template() {
        assert_eq!(possible_layouts(false, false), [PromptLayout::PrefixOnly]);
        assert_eq!(
            possible_layouts(true, false)[..2],
            [PromptLayout::Plain, PromptLayout::Anchored { lines: 4 }]
        );
        assert_eq!(
            possible_layouts(false, true)[..2],
            [PromptLayout::PrefixOnly, PromptLayout::Chat { lines: 4 }]
        );
        assert_eq!(possible_layouts(true, true).len(), 1 + 2 * ANCHORS.len());
    }

    fn trial(lines: usize, exact: usize, similarity: f64) -> Trial {
        let outcome = |at: usize| {
            let right = f64::from(u8::from(at < exact));
            Outcome { exact: right, similarity, probability: right / 2.0, log: right - 2.0 }
        };
        let scores = (0..20).map(outcome).collect();
        let form = PromptForm {
            layout: PromptLayout::Anchored { lines },
            heal: true,
            header: false,
            suffix: 128,
            snippets: 0,
        };
        Trial { form, by: By::Exact, scores, read: 600.0 }
    }

    #[test]
    fn exact_matches_decide_then_similarity() {
        assert_eq!(best(&[trial(4, 5, 0.9), trial(10, 6, 0.1), trial(20, 6, 0.2)]), 2);
    }

    #[test]
    fn probabilities_decide_when_comparing_by_likelihood() {
        let trial = |lines, exact| Trial { by: By::Likelihood, ..trial(lines, exact, 0.0) };
        let mut text = Vec::new();
        report("x", &[trial(4, 5), trial(10, 12)], &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let mut lines = text.lines().skip(1);
        let best: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
        assert!(best.starts_with(&["anchored", "10,"]) && best.contains(&"30.0"), "{text}");
        assert!(best.contains(&"-1.40") && best.contains(&"best"), "{text}");
        assert!(lines.next().unwrap().contains("-17.5"), "{text}");
    }

    #[test]
    fn row_is_valid_source_text() {
        let mut text = Vec::new();
        let name = "Qwen2.5 Coder 0.5B Instruct AWQ";
        report(name, &[trial(4, 2, 0.5), trial(10, 15, 0.5)], &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let row = "    FormRow {\n        words: &[\"qwen2.5\", \"coder\", \"0.5b\", \"instruct\"],\n        form: \
                   PromptForm { layout: PromptLayout::Anchored { lines: 10 }, heal: true, header: false, suffix: 128, snippets: 0 },\n    },";
        assert!(text.contains(row), "{text}");
        assert!(text.contains("now") && !text.contains("as good"), "{text}");
        let mut text = Vec::new();
        report(name, &[trial(4, 9, 0.5), trial(10, 10, 0.5)], &mut text).unwrap();
        assert!(String::from_utf8(text).unwrap().contains("within its noise"));
        let mut text = Vec::new();
        report(name, &[trial(4, 9, 0.5), trial(10, 8, 0.5)], &mut text).unwrap();
        assert!(String::from_utf8(text).unwrap().contains("already the form"));
    }
}

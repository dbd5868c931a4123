//! Which form of a prompt a model answers best: tried one after the other on the same tasks, and a row proposed.
//! It knows nothing of the table of forms: the row is printed, and a person puts it there.

use std::io::{self, Write};

use anyhow::Result;
use indicatif::ProgressBar;
use taper_engine::Engine;

use super::ask::Taper;
use super::form::FormArgs;
use super::interval::{self, Estimate};
use super::{Kept, scored};
use crate::prompt::template::{Form, Layout, Profile};
use crate::protocol::tasks::Task;
use crate::suggest::Options;

/// Anchor distances that are tried, in lines.
const ANCHORS: [usize; 3] = [4, 10, 20];
/// Suffix lengths that are tried, in tokens.
const SUFFIXES: [usize; 5] = [0, 64, 128, 256, 400];

/// One form, and how it did.
struct Trial {
    form: Form,
    /// For each task: exact, similarity / 100.
    scores: Vec<(f64, f64)>,
    /// Tokens in a prompt, on average.
    read: f64,
}

impl Trial {
    fn exact(&self) -> f64 {
        self.scores.iter().map(|it| it.0).sum::<f64>() / self.scores.len() as f64
    }

    fn similarity(&self) -> f64 {
        self.scores.iter().map(|it| it.1).sum::<f64>() / self.scores.len() as f64
    }

    /// Exact matches decide; among equals the similarity, which never weighs as much as one task.
    fn rank(&self) -> f64 {
        self.exact() + self.similarity() / (2 * self.scores.len()) as f64
    }
}

/// Layout and healing together first, for one changes what the other is worth; then, with the best of them, the
/// header, and then the suffix.
pub(super) fn run(tasks: &[Task], args: &FormArgs, engine: &mut dyn Engine, kept: &mut Kept) -> Result<()> {
    let profile = args.profile(engine);
    let model = engine.about().model.clone();
    let present = profile.form;
    super::say(&format!("{} tasks, {model}, now asked as: {}", tasks.len(), profile.describe()));

    let mut tuning = Tuning { tasks, profile, options: args.options(), engine, kept, trials: Vec::new() };
    let anchored = tuning.profile.template.is_some();
    let anchors = ANCHORS.map(|lines| Layout::Anchored { lines });
    let layouts = [Layout::Plain].into_iter().chain(anchors.into_iter().filter(|_| anchored));
    let healed = layouts.flat_map(|layout| [false, true].map(|heal| Form { layout, heal, ..present }));
    tuning.attempt([present].into_iter().chain(healed))?;
    let form = tuning.best();
    tuning.attempt([Form { header: !form.header, ..form }])?;
    let form = tuning.best();
    // A model without fill-in tokens sees no suffix.
    tuning.attempt(SUFFIXES.into_iter().filter(|_| anchored).map(|suffix| Form { suffix, ..form }))?;
    Ok(report(&model, &tuning.trials, &mut io::stdout().lock())?)
}

/// What is tried on what, and how it did so far.
struct Tuning<'a> {
    tasks: &'a [Task],
    profile: Profile,
    options: Options,
    engine: &'a mut dyn Engine,
    kept: &'a mut Kept,
    trials: Vec<Trial>,
}

impl Tuning<'_> {
    fn best(&self) -> Form {
        self.trials[best(&self.trials)].form
    }

    /// Asks every task in each of these forms that was not tried before. Forms of one task follow each other: most of
    /// what they show the model is the same text, which is read once.
    fn attempt(&mut self, forms: impl IntoIterator<Item = Form>) -> Result<()> {
        let mut new: Vec<Trial> = Vec::new();
        for form in forms {
            if self.trials.iter().chain(&new).all(|it| it.form != form) {
                new.push(Trial { form, scores: Vec::new(), read: 0.0 });
            }
        }
        let bar = ProgressBar::new((self.tasks.len() * new.len()) as u64);
        for task in self.tasks {
            self.engine.clear();
            for trial in &mut new {
                let profile = Profile { form: trial.form, ..self.profile.clone() };
                let mut taper = Taper::new(self.engine, profile, self.options.clone());
                let configuration = taper.configuration.clone();
                let it =
                    scored(task, self.kept, false, &configuration, "taper", |task| taper.ask_next(task))?;
                trial.scores.push((f64::from(u8::from(it.score.exact)), it.score.similarity / 100.0));
                trial.read += it.answer.prompt_tokens as f64 / self.tasks.len() as f64;
                bar.inc(1);
            }
        }
        bar.finish_and_clear();
        for trial in &new {
            super::say(&format!(
                "{}: {:.1} % exact, similarity {:.1}",
                told(trial.form),
                100.0 * trial.exact(),
                100.0 * trial.similarity()
            ));
        }
        self.trials.append(&mut new);
        Ok(())
    }
}

fn best(trials: &[Trial]) -> usize {
    (0..trials.len()).max_by(|&a, &b| trials[a].rank().total_cmp(&trials[b].rank())).unwrap_or(0)
}

/// The table, the best first, and the row. The first trial is the form that the model is asked in now.
fn report(model: &str, trials: &[Trial], out: &mut dyn Write) -> io::Result<()> {
    let mut order: Vec<usize> = (0..trials.len()).collect();
    order.sort_by(|&a, &b| trials[b].rank().total_cmp(&trials[a].rank()));
    let best = &trials[order[0]];
    writeln!(
        out,
        "{:<52} {:>16} {:>14} {:>24} {:>7}",
        "form", "exact %", "similarity", "exact, points to best", "read"
    )?;
    for &at in &order {
        let trial = &trials[at];
        let hits = trial.scores.iter().filter(|it| it.0 > 0.5).count();
        let exact = interval::share(hits, trial.scores.len());
        let behind = difference(trial, best);
        let percent = |it: Option<Estimate>, digits: usize| match it {
            Some(it) => format!(
                "{:.1} ({:.digits$} to {:.digits$})",
                100.0 * it.value,
                100.0 * it.low,
                100.0 * it.high
            ),
            None => "-".to_owned(),
        };
        writeln!(
            out,
            "{:<52} {:>16} {:>14.1} {:>24} {:>7.0}{}",
            told(trial.form),
            percent(exact, 0),
            100.0 * trial.similarity(),
            if at == order[0] { "best".to_owned() } else { percent(behind, 1) },
            trial.read,
            if at == 0 { "  now" } else { "" },
        )?;
    }
    writeln!(out, "\nFor FORMS in server/prompt/template.rs:\n\n{}", row(model, best))?;
    let now = &trials[0];
    if order[0] == 0 {
        writeln!(out, "\nThe model is asked that way already.")?;
    } else if difference(now, best).is_none_or(|it| it.high >= 0.0) {
        writeln!(
            out,
            "\nThe form of now may be as good: over these {} tasks the difference is within its noise.",
            now.scores.len()
        )?;
    }
    Ok(())
}

/// Exact matches less those of the best, per task, over the same tasks.
fn difference(trial: &Trial, best: &Trial) -> Option<Estimate> {
    let differences: Vec<f64> = trial.scores.iter().zip(&best.scores).map(|(a, b)| a.0 - b.0).collect();
    interval::mean(&differences)
}

fn told(form: Form) -> String {
    let layout = match form.layout {
        Layout::Plain => "plain".to_owned(),
        Layout::Anchored { lines } => format!("anchored {lines}"),
    };
    let heal = if form.heal { "healed" } else { "not healed" };
    let header = if form.header { "header" } else { "no header" };
    format!("{layout}, {heal}, {header}, suffix {}", form.suffix)
}

/// The row's text. Its words are the model's name without what tells only how it is stored.
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
    let Form { layout, heal, header, suffix, snippets } = best.form;
    let layout = match layout {
        Layout::Plain => "Layout::Plain".to_owned(),
        Layout::Anchored { lines } => format!("Layout::Anchored {{ lines: {lines} }}"),
    };
    format!(
        "    // {:.0} % of {} tasks exact; `taper eval --tune`.\n    FormRow {{\n        words: &[{}],\n        \
         form: Form {{ layout: {layout}, heal: {heal}, header: {header}, suffix: {suffix}, snippets: {snippets} \
         }},\n    }},",
        100.0 * best.exact(),
        best.scores.len(),
        words.join(", ")
    )
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn trial(lines: usize, exact: usize, similarity: f64) -> Trial {
        let scores = (0..20).map(|at| (f64::from(u8::from(at < exact)), similarity)).collect();
        let form =
            Form { layout: Layout::Anchored { lines }, heal: true, header: false, suffix: 128, snippets: 0 };
        Trial { form, scores, read: 600.0 }
    }

    #[test]
    fn exact_matches_decide_then_similarity() {
        assert_eq!(best(&[trial(4, 5, 0.9), trial(10, 6, 0.1), trial(20, 6, 0.2)]), 2);
    }

    #[test]
    fn the_row_is_ready_to_be_put_in() {
        let mut text = Vec::new();
        let name = "Qwen2.5 Coder 0.5B Instruct AWQ";
        report(name, &[trial(4, 2, 0.5), trial(10, 15, 0.5)], &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let row = "    FormRow {\n        words: &[\"qwen2.5\", \"coder\", \"0.5b\", \"instruct\"],\n        form: \
                   Form { layout: Layout::Anchored { lines: 10 }, heal: true, header: false, suffix: 128, snippets: 0 },\n    },";
        assert!(text.contains(row), "{text}");
        assert!(text.contains("now") && !text.contains("as good"), "{text}");
        let mut text = Vec::new();
        report(name, &[trial(4, 9, 0.5), trial(10, 10, 0.5)], &mut text).unwrap();
        assert!(String::from_utf8(text).unwrap().contains("within its noise"));
        let mut text = Vec::new();
        report(name, &[trial(4, 9, 0.5), trial(10, 8, 0.5)], &mut text).unwrap();
        assert!(String::from_utf8(text).unwrap().contains("that way already"));
    }
}

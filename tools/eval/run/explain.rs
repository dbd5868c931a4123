//! Explains one task: the prompt, the raw answer, each step with its rule, the result.

use std::io::Write;
use std::ops::ControlFlow;

use anyhow::Result;
use taper_engine::Engine;

use super::ask;
use super::score::Score;
use crate::answers::Answer;
use crate::tasks::Task;
use taper::completion::{self, Options, confidence};
use taper::prompt::template::Profile;

/// Asks the task and prints everything.
pub(super) fn print(
    task: &Task,
    profile: Profile,
    options: Options,
    engine: &mut dyn Engine,
    out: &mut dyn Write,
) -> Result<()> {
    let snapshot = ask::snapshot(task, &options);
    let prompt = completion::best_prompt(&snapshot, &profile, engine.tokenizer());
    let (suggestion, work) =
        completion::suggest(&snapshot, &profile, engine, &mut |_| ControlFlow::Continue(()))?;

    writeln!(out, "── {} · {} · {} · {} ──", task.id, task.set, task.kind, task.language)?;
    writeln!(out, "── prompt: {}; {} tokens ──", profile.describe(), prompt.tokens.len())?;
    writeln!(out, "{}", engine.tokenizer().render(&prompt.tokens))?;
    if !prompt.healing_bytes.is_empty() {
        writeln!(out, "── forced: {:?} ──", String::from_utf8_lossy(&prompt.healing_bytes))?;
    }
    writeln!(out, "── raw answer: {} tokens, with their probabilities ──\n{}", work.pieces.len(), work.raw)?;
    let mut start = 0;
    for piece in &work.pieces {
        let text = work.raw.get(start..piece.end).unwrap_or("");
        write!(out, "{text:?} {:.2}  ", piece.probability)?;
        start = piece.end;
    }
    if let Some(greedy) = &work.rejected_greedy {
        write!(out, "\n── in place of greedy decoding ──\n{}", greedy.raw)?;
    }
    writeln!(out, "\n── steps ──")?;
    for step in &work.trim_steps {
        writeln!(out, "{}: {:?}", step.rule, step.remaining)?;
    }
    if work.trim_steps.is_empty() {
        writeln!(out, "none")?;
    }
    writeln!(out, "── result: {} ──", work.reason)?;
    match &suggestion {
        Some(it) => writeln!(out, "{:?}", it.text)?,
        None => writeln!(out, "nothing")?,
    }
    if let Some(it) = suggestion.as_ref().and_then(|it| confidence::shown_confidence(&work, &it.text)) {
        writeln!(out, "probability: mean {:.2}, lowest {:.2}", it.mean, it.min)?;
    }
    writeln!(out, "── expected ──\n{:?}", task.expected)?;
    let cursor = snapshot.cursor;
    let replaces = suggestion.as_ref().map_or((0, 0), |it| (cursor - it.range.start, it.range.end - cursor));
    let answer = Answer {
        shown: suggestion.map(|it| it.text),
        replaces,
        raw: work.raw,
        reason: work.reason.to_owned(),
        ..Answer::default()
    };
    let Score { exact, exact_first, similarity, saved, expected, parses, repeats, half_word, .. } =
        Score::of(task, &answer);
    writeln!(
        out,
        "exact {exact}, first line {exact_first}, similarity {similarity:.1}, {saved} of {expected} characters saved"
    )?;
    let verdict = |value: Option<bool>| value.map_or("not judged", |it| if it { "yes" } else { "no" });
    writeln!(
        out,
        "parses no worse: {}; repeats existing text: {}; ends in a word: {}",
        verdict(parses),
        verdict(repeats),
        verdict(half_word)
    )?;
    Ok(())
}

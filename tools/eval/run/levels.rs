//! Scores each eagerness from kept answers: replays the model's output through post-processing, without running the
//! model.

use std::io::{self, Write};
use std::ops::ControlFlow;

use anyhow::Result;
use taper_engine::{
    Engine, EngineError, EngineInfo, Generation, GenerationLimits, PartialOutput, Prompt, ScoredToken,
    StopReason, Tokenizer,
};

use super::ScoredAnswer;
use super::ask;
use super::interval::{self, Estimate};
use super::score::Score;
use crate::answers::Answer;
use taper::completion::confidence_filter::Eagerness;
use taper::completion::{self, Options};
use taper::prompt::template::Profile;

/// All levels, with their names.
const LEVELS: [(&str, Eagerness); 3] =
    [("high", Eagerness::High), ("medium", Eagerness::Medium), ("low", Eagerness::Low)];

/// The result of one eagerness.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Level {
    shown: usize,
    /// Exactly right first lines.
    exact: usize,
    /// Characters saved.
    saved: usize,
    worse: usize,
    repeats: usize,
    half_words: usize,
}

/// The result of each eagerness for the answers of our own path, in the order of [`LEVELS`].
///
/// # Errors
/// Only errors that the kept answers had too.
pub(super) fn of(
    scored: &[ScoredAnswer<'_>],
    profile: &Profile,
    options: &Options,
    engine: &mut dyn Engine,
) -> Result<[Level; LEVELS.len()]> {
    let mut levels = [Level::default(); LEVELS.len()];
    for ScoredAnswer { task, answer, .. } in scored.iter().filter(|it| it.answer.system == "taper") {
        for (level, (_, eagerness)) in levels.iter_mut().zip(LEVELS) {
            let snapshot = ask::snapshot(task, &Options { eagerness, ..options.clone() });
            let mut again = ReplayEngine { engine: &mut *engine, answer };
            let (suggestion, work) =
                completion::suggest(&snapshot, profile, &mut again, &mut |_| ControlFlow::Continue(()))?;
            let Some(suggestion) = suggestion else { continue };
            let replaces = (snapshot.cursor - suggestion.range.start, suggestion.range.end - snapshot.cursor);
            let shown = Some(suggestion.text);
            let reason = work.reason.to_owned();
            let score =
                Score::of(task, &Answer { shown, replaces, raw: work.raw, reason, ..Answer::default() });
            level.shown += 1;
            level.exact += usize::from(score.exact_first);
            level.saved += score.saved;
            level.worse += usize::from(score.parses == Some(false));
            level.repeats += usize::from(score.repeats == Some(true));
            level.half_words += usize::from(score.half_word == Some(true));
        }
    }
    Ok(levels)
}

/// One line per eagerness.
pub(super) fn csv(levels: &[Level; LEVELS.len()], out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "eagerness,suggestions,share,exact_first_line,exact_first_line_low,exact_first_line_high,saved_characters,\
         saved_share,parse_worse,repeat,half_words"
    )?;
    let [high, ..] = levels;
    for (level, (name, _)) in levels.iter().zip(LEVELS) {
        let Level { shown, exact, saved, worse, repeats, half_words } = level;
        let share = |part: usize, of: usize| part as f64 / of.max(1) as f64;
        let Estimate { value, low, high: most } =
            interval::share(*exact, *shown).unwrap_or(Estimate { value: 0.0, low: 0.0, high: 1.0 });
        writeln!(
            out,
            "{name},{shown},{:.4},{value:.4},{low:.4},{most:.4},{saved},{:.4},{worse},{repeats},{half_words}",
            share(*shown, high.shown),
            share(*saved, high.saved)
        )?;
    }
    Ok(())
}

/// An engine that replays the kept output of the original one.
struct ReplayEngine<'e> {
    engine: &'e mut dyn Engine,
    answer: &'e Answer,
}

impl Engine for ReplayEngine<'_> {
    fn tokenizer(&self) -> &Tokenizer {
        self.engine.tokenizer()
    }

    fn engine_info(&self) -> &EngineInfo {
        self.engine.engine_info()
    }

    fn generate(
        &mut self,
        _: &Prompt,
        limits: &GenerationLimits,
        watch: &mut dyn FnMut(PartialOutput<'_>) -> ControlFlow<()>,
    ) -> Result<Generation, EngineError> {
        let Answer { raw, pieces, .. } = self.answer;
        let mut generation = Generation::empty(StopReason::EndOfText);
        for &(end, probability) in pieces {
            generation.text = raw.get(..end).unwrap_or(raw).to_owned();
            generation.tokens.push(ScoredToken { end, probability });
            if watch(generation.partial_output()).is_break() {
                generation.stop = StopReason::Interrupted;
                return Ok(generation);
            }
        }
        if pieces.len() >= limits.max_tokens {
            generation.stop = StopReason::Limit;
        }
        Ok(generation)
    }

    fn clear(&mut self) {}
}

#[cfg(test)]
mod tests {
    use taper_engine::scripted::ScriptedEngine;

    use super::*;
    use crate::tasks::Task;

    fn scored<'t>(task: &'t Task, text: &str, probability: f32) -> ScoredAnswer<'t> {
        let pieces = text.char_indices().map(|(at, c)| (at + c.len_utf8(), probability)).collect();
        let answer = Answer { system: "taper".to_owned(), raw: text.to_owned(), pieces, ..Answer::default() };
        ScoredAnswer { task, score: Score::default(), answer }
    }

    #[test]
    fn lower_eagerness_shows_less_of_the_same_output() {
        let task = Task {
            path: "x.py".into(),
            kind: "line".into(),
            prefix: "x = ".into(),
            suffix: "\n".into(),
            expected: "foo(1)".into(),
            ..Task::default()
        };
        let all = [
            scored(&task, "foo(1)\n", 0.999),
            scored(&task, "foo(1)\n", 0.5),
            scored(&task, "bar(1)\n", 0.1),
        ];
        let mut engine: Box<dyn Engine> = Box::new(ScriptedEngine::new());
        let profile = Profile::for_model(engine.engine_info(), engine.tokenizer());
        let levels = of(&all, &profile, &Options::default(), engine.as_mut()).unwrap();
        assert_eq!(levels.map(|it| (it.shown, it.exact, it.saved)), [(3, 2, 10), (1, 1, 5), (1, 1, 5)]);
        let mut text = Vec::new();
        csv(&levels, &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("\nmedium,1,0.3333,1.0000,0.2065,1.0000,5,0.5000,0,0,0\n"), "{text}");
    }
}

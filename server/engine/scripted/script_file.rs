//! Reads scripts from files, for tests of whole processes.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::{BRANCH_PROBABILITY, ScriptAction, ScriptRule, ScriptedEngine};
use crate::EngineError;
use crate::gguf::model_error;

const SCRIPT_FORMAT: &str = "a script has lines `when TEXT` or `otherwise`, each followed by `answer TEXT` (and `or TEXT` or `or-with P TEXT` for \
     alternatives), `fail TEXT`, or `panic`, and `prefill-ms N`, `decode-ms N`, `gate FILE`, `probability P`, \
     `context N`, `panic-at-the-end`; \
     write `\\n` for a line end";

impl ScriptedEngine {
    /// Reads a script file: UTF-8, one statement per line, `#` begins a comment line.
    ///
    /// ```text
    /// # milliseconds for each prompt token and each decoded token; fractions are allowed
    /// prefill-ms 0.5
    /// decode-ms 20
    /// # decoding waits at each ⏸ of an answer until this file exists
    /// gate /tmp/script.open
    /// # of each token
    /// probability 0.9
    /// # tokens that fit into the context
    /// context 4096
    /// # if the prompt contains this text; the first rule that matches decides
    /// when def add(
    /// answer a, b):\n    return a + b\n
    /// # alternatives, most probable first and none of them probable: branches of the generation
    /// or x, y):\n    return x + y\n
    /// # with this probability of each token after those that it shares with the answer
    /// or-with 0.5 *terms):\n    return sum(terms)\n
    /// when fail here
    /// fail the device is gone
    /// when panic here
    /// panic
    /// otherwise
    /// answer pass
    /// # when the engine is dropped
    /// panic-at-the-end
    /// ```
    ///
    /// In texts `\n`, `\r`, `\t`, `\\` and `\s` (a blank at the end of a line) are escapes.
    ///
    /// # Errors
    /// The file cannot be read, or a line is not a statement; the message names the line.
    pub fn from_file(path: &Path) -> Result<Self, EngineError> {
        let script =
            fs::read_to_string(path).map_err(|source| EngineError::Read { path: path.to_owned(), source })?;
        let mut this = Self::new();
        let mut waiting: Option<String> = None;
        for (number, line) in script.lines().enumerate() {
            let line = line.trim_start();
            let wrong =
                |problem: &str| model_error(path, &format!("line {}", number + 1), problem, SCRIPT_FORMAT);
            let (word, text) = line.split_once(' ').unwrap_or((line, ""));
            let text = unescape(text);
            if word.is_empty() || word.starts_with('#') {
                continue;
            }
            match this.apply_setting(word, &text) {
                Some(Ok(())) => continue,
                Some(Err(problem)) => return Err(wrong(problem)),
                None => {}
            }
            let action = match word {
                "when" | "otherwise" => {
                    if waiting.replace(text).is_some() {
                        return Err(wrong("the rule before it has no action"));
                    }
                    continue;
                }
                "or" | "or-with"
                    if waiting.is_none()
                        && let Some(ScriptRule {
                            action: ScriptAction::Answer(_),
                            alternatives: others,
                            ..
                        }) = this.rules.last_mut() =>
                {
                    others.push(if word == "or" {
                        (text, BRANCH_PROBABILITY)
                    } else {
                        let (number, text) =
                            text.split_once(' ').ok_or_else(|| wrong(NO_PROBABILITY_PROBLEM))?;
                        let own = parse_probability(number).ok_or_else(|| wrong(NO_PROBABILITY_PROBLEM))?;
                        (text.to_owned(), own)
                    });
                    continue;
                }
                "or" | "or-with" => return Err(wrong("there is no `answer` before it")),
                "answer" => ScriptAction::Answer(text),
                "fail" => ScriptAction::Fail(text),
                "panic" => ScriptAction::Panic,
                _ => return Err(wrong("is not a statement")),
            };
            let contains =
                waiting.take().ok_or_else(|| wrong("there is no `when` or `otherwise` before it"))?;
            this.rules.push(ScriptRule::new(&contains, action));
        }
        if waiting.is_some() {
            return Err(model_error(path, "the last line", "the rule has no action", SCRIPT_FORMAT));
        }
        Ok(this)
    }

    /// Applies a statement that is no part of a rule; `None` if `word` does not begin one.
    fn apply_setting(&mut self, word: &str, text: &str) -> Option<Result<(), &'static str>> {
        let milliseconds = || parse_milliseconds(text).ok_or("is not a number of milliseconds");
        let applied = match word {
            "panic-at-the-end" => {
                self.panics_on_drop = true;
                Ok(())
            }
            "prefill-ms" => milliseconds().map(|delay| self.prefill_delay = delay),
            "decode-ms" => milliseconds().map(|delay| self.decode_delay = delay),
            "gate" => {
                self.gate = Some(text.into());
                Ok(())
            }
            "context" => {
                let tokens = text.trim().parse().map_err(|_| "is not a number of tokens");
                tokens.map(|tokens| self.about.context = tokens)
            }
            "probability" => {
                let probability = parse_probability(text).ok_or(NO_PROBABILITY_PROBLEM);
                probability.map(|probability| self.probability = probability)
            }
            _ => return None,
        };
        Some(applied)
    }
}

const NO_PROBABILITY_PROBLEM: &str = "needs a probability from 0 to 1";

fn parse_probability(text: &str) -> Option<f32> {
    text.trim().parse().ok().filter(|it| (0.0..=1.0).contains(it))
}

fn parse_milliseconds(text: &str) -> Option<Duration> {
    let number: f64 = text.trim().parse().ok()?;
    Duration::try_from_secs_f64(number / 1000.0).ok()
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        if char != '\\' {
            out.push(char);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some('s') => out.push(' '),
            Some('\\') | None => out.push('\\'),
            Some(other) => out.extend(['\\', other]),
        }
    }
    out
}

//! The append-only file of answers to completion tasks: one JSON object per line.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Errors of the answers file.
#[derive(Debug, Error)]
pub enum AnswersError {
    /// It cannot be read or written.
    #[error("cannot use the answers in {}: {cause}", .path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// A line other than the last is not an answer.
    #[error("{}:{line}: not an answer of taper-eval: {cause}; remove the line, or name another folder", .path.display())]
    Line {
        /// Which file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Why.
        cause: serde_json::Error,
    },
}

/// The probability that a model generates the line that a task expects.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Likelihood {
    /// Natural logarithm of the probability that the model, when sampling, generates this line and ends it, in the
    /// line's encoded tokens.
    pub log: f64,
    /// Whether each of these tokens is the most likely: then greedy decoding generates the line.
    pub greedy: bool,
}

/// One system's answer to one task.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The task's name.
    pub task: String,
    /// A hash of the task's text, so that a changed task is asked again.
    pub content: String,
    /// The system.
    pub system: String,
    /// The configuration: everything that the answer depends on.
    pub configuration: String,
    /// The shown text; `None` if nothing was shown.
    pub shown: Option<String>,
    /// The other suggestions, best first, if alternatives were requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub others: Option<Vec<String>>,
    /// Bytes before and after the cursor that the answer replaces.
    pub replaces: (usize, usize),
    /// The model's output.
    pub raw: String,
    /// The result of greedy decoding, if nothing of it could be shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub greedy: Option<Greedy>,
    /// The rule that ended it, or the reason for showing nothing.
    pub reason: String,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens decoded.
    pub decoded: usize,
    /// From the request to the response.
    pub seconds: f64,
    /// Mean probability of the shown tokens, if the engine reports it.
    pub mean_probability: Option<f32>,
    /// The lowest of them.
    pub min_probability: Option<f32>,
    /// For each decoded token: the bytes of `raw` up to its end, and its probability.
    pub pieces: Vec<(usize, f32)>,
    /// Whether the task's tests passed; `None` if they did not run.
    pub passed: Option<bool>,
    /// The likelihood of the expected line, if only that was requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub likelihood: Option<Likelihood>,
}

/// The result without alternatives.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Greedy {
    /// See [`Answer::shown`].
    pub shown: Option<String>,
    /// See [`Answer::replaces`].
    pub replaces: (usize, usize),
    /// See [`Answer::raw`].
    pub raw: String,
    /// See [`Answer::decoded`]; without the tokens of alternatives.
    pub decoded: usize,
}

impl Answer {
    /// The answer without alternatives.
    pub fn without_search(&self) -> Self {
        let Some(Greedy { shown, replaces, raw, decoded }) = self.greedy.clone() else { return self.clone() };
        // The tests and the probabilities belong to another text.
        Self {
            shown,
            replaces,
            raw,
            decoded,
            greedy: None,
            mean_probability: None,
            min_probability: None,
            pieces: Vec::new(),
            passed: None,
            ..self.clone()
        }
    }
}

/// The file, open for appending; its lines are `T`.
#[derive(Debug)]
pub struct Answers<T = Answer> {
    path: PathBuf,
    file: File,
    lines: PhantomData<T>,
}

impl<T: Serialize + DeserializeOwned> Answers<T> {
    /// Opens or creates the file and reads its lines. An incomplete last line, left by a killed run, is cut off.
    ///
    /// # Errors
    /// The file cannot be read or written, or a line is not a `T`.
    pub fn open(path: &Path) -> Result<(Self, Vec<T>), AnswersError> {
        let problem = |cause| AnswersError::File { path: path.to_owned(), cause };
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(problem)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(problem)?;
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        if whole < bytes.len() {
            // Not every system can truncate a file that is open for appending.
            let cut = OpenOptions::new().write(true).open(path).map_err(problem)?;
            cut.set_len(whole as u64).map_err(problem)?;
        }
        let lines = bytes[..whole].split(|&byte| byte == b'\n').enumerate();
        let answers = lines
            .filter(|(_, line)| !line.is_empty())
            .map(|(at, line)| {
                serde_json::from_slice(line).map_err(|cause| AnswersError::Line {
                    path: path.to_owned(),
                    line: at + 1,
                    cause,
                })
            })
            .collect::<Result<_, _>>()?;
        Ok((Self { path: path.to_owned(), file, lines: PhantomData }, answers))
    }

    /// Appends one answer, in one write.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn append(&mut self, answer: &T) -> Result<(), AnswersError> {
        let mut line = serde_json::to_vec(answer)
            .map_err(|cause| AnswersError::File { path: self.path.clone(), cause: cause.into() })?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(|cause| AnswersError::File { path: self.path.clone(), cause })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn file_cut_at_any_byte_keeps_its_complete_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("answers.jsonl");
        let answers: Vec<Answer> = (0..3)
            .map(|at| Answer {
                task: format!("t{at}"),
                shown: (at != 1).then(|| "a\nä\"".to_owned()),
                pieces: vec![(1, 0.5)],
                ..Answer::default()
            })
            .collect();
        let (mut file, found) = Answers::open(&path).unwrap();
        assert!(found.is_empty());
        answers.iter().for_each(|it| file.append(it).unwrap());
        let bytes = fs::read(&path).unwrap();
        for kept in 0..=bytes.len() {
            fs::write(&path, &bytes[..kept]).unwrap();
            let whole = bytes[..kept].iter().filter(|&&byte| byte == b'\n').count();
            let (mut file, found) = Answers::open(&path).unwrap();
            assert_eq!(found, answers[..whole], "{kept} bytes");
            answers[whole..].iter().for_each(|it| file.append(it).unwrap());
            assert_eq!(fs::read(&path).unwrap(), bytes, "{kept} bytes");
        }
    }

    #[test]
    fn foreign_line_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("answers.jsonl");
        fs::write(&path, "{}\n").unwrap();
        let message = Answers::<Answer>::open(&path).unwrap_err().to_string();
        assert!(message.contains("answers.jsonl:1:"), "{message}");
    }
}

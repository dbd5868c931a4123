//! Reads files of completion tasks and writes typing traces: one JSON object per line.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Errors of these files.
#[derive(Debug, Error)]
pub enum TaskError {
    /// The file cannot be read.
    #[error("cannot read the tasks in {}: {cause}", .path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// A line is not a task.
    #[error(
        "{}:{line}: no task: {cause}; a line is a JSON object with `path`, `prefix`, `suffix` and `expected`",
        .path.display()
    )]
    Line {
        /// Which file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Why.
        cause: serde_json::Error,
    },
    /// The file cannot be written.
    #[error("cannot write the trace {}: {cause}", .path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
}

/// A file with a hole, and the text that was in the hole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Task {
    /// Its name.
    #[serde(default)]
    pub id: String,
    /// The set that it belongs to.
    #[serde(default)]
    pub set: String,
    /// The kind of hole: `single-line`, `line`, `rest-of-line` and `xfile-rest` end at the line's end; `multi-line`,
    /// `block` and `random-span` do not.
    #[serde(default)]
    pub kind: String,
    /// The language's LSP id.
    #[serde(default)]
    pub language: String,
    /// The file's path in its workspace.
    pub path: String,
    /// The text before the hole.
    pub prefix: String,
    /// The text after the hole.
    pub suffix: String,
    /// The text that was in the hole.
    pub expected: String,
    /// How to test a completion, if possible.
    #[serde(default)]
    pub tests: Option<Tests>,
    /// Other files that an editor could have.
    #[serde(default)]
    pub context: Vec<OtherFile>,
}

impl Task {
    /// Whether only the rest of one line is expected.
    pub fn one_line(&self) -> bool {
        matches!(self.kind.as_str(), "single-line" | "line" | "rest-of-line" | "xfile-rest")
    }
}

/// The project at the start of a task's path, and the path in it: of `@scope/name/a.js`, `@scope/name` and `a.js`.
pub fn project(path: &str) -> Option<(&str, &str)> {
    let names = if path.starts_with('@') { 2 } else { 1 };
    let (at, _) = path.match_indices('/').nth(names - 1)?;
    Some((&path[..at], &path[at + 1..]))
}

/// How to test a completion.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Tests {
    /// The runner: `python`, `node`, `cpp`, `java`, `rust`; or `null`.
    #[serde(default)]
    pub runner: Option<String>,
    /// Code after prefix, completion and suffix that makes the program fail if the completion is wrong.
    #[serde(default)]
    pub after: String,
}

/// Another file of the project.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct OtherFile {
    /// Its path in the workspace.
    pub path: String,
    /// Its text.
    pub text: String,
}

/// One keystroke.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Key {
    /// The inserted text: a character, or a line break with the indentation after it.
    pub text: String,
    /// The pause until the next one, in milliseconds.
    pub pause_ms: f64,
}

/// A task as a sequence of keystrokes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Trace {
    /// The task's name.
    pub id: String,
    /// The language's LSP id.
    pub language: String,
    /// The file's path in its workspace.
    pub path: String,
    /// The text before the cursor.
    pub prefix: String,
    /// The text after the cursor.
    pub suffix: String,
    /// The pause between opening the file and the first key, in milliseconds.
    pub look_ms: f64,
    /// The keys: they insert the expected text and, if it begins a line, the line break before it.
    pub keys: Vec<Key>,
}

/// Reads the tasks of a file. Empty lines are skipped.
///
/// # Errors
/// The file cannot be read, or a line is not a task.
pub fn read(path: &Path) -> Result<Vec<Task>, TaskError> {
    let text = fs::read_to_string(path).map_err(|cause| TaskError::Read { path: path.to_owned(), cause })?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(at, line)| {
            serde_json::from_str(line).map_err(|cause| TaskError::Line {
                path: path.to_owned(),
                line: at + 1,
                cause,
            })
        })
        .collect()
}

/// Writes traces.
///
/// # Errors
/// The file cannot be written.
pub fn write(path: &Path, traces: &[Trace]) -> Result<(), TaskError> {
    let written = || -> io::Result<()> {
        let mut file = BufWriter::new(File::create(path)?);
        for trace in traces {
            serde_json::to_writer(&mut file, trace)?;
            file.write_all(b"\n")?;
        }
        file.flush()
    };
    written().map_err(|cause| TaskError::Write { path: path.to_owned(), cause })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn project_is_split_from_task_path() {
        assert_eq!(project("a/b/c.py"), Some(("a", "b/c.py")));
        assert_eq!(project("@s/a/b/c.js"), Some(("@s/a", "b/c.js")));
        assert_eq!(project("c.py"), None);
    }
}

//! Files of completion tasks, read, and of typing traces, written: a JSON object a line.
//! It knows nothing of how a task is typed or scored.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What goes wrong with such files.
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
    /// A line is no task.
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

/// A file with a hole, and what stood in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Task {
    /// Its name.
    #[serde(default)]
    pub id: String,
    /// The set that it belongs to.
    #[serde(default)]
    pub set: String,
    /// What the hole is: `single-line`, `line`, `rest-of-line` and `xfile-rest` end at the line's end;
    /// `multi-line`, `block` and `random-span` do not.
    #[serde(default)]
    pub kind: String,
    /// The language's LSP id.
    #[serde(default)]
    pub language: String,
    /// The file's path in its workspace.
    pub path: String,
    /// The text before the hole.
    pub prefix: String,
    /// The text behind it.
    pub suffix: String,
    /// What stood in it.
    pub expected: String,
    /// How a completion is tested, where it can be.
    #[serde(default)]
    pub tests: Option<Tests>,
    /// Other files that an editor could know.
    #[serde(default)]
    pub context: Vec<OtherFile>,
}

impl Task {
    /// Whether only the rest of one line is asked for.
    pub fn one_line(&self) -> bool {
        matches!(self.kind.as_str(), "single-line" | "line" | "rest-of-line" | "xfile-rest")
    }
}

/// The project that a task's path begins with, and the path in it: of `@scope/name/a.js`, `@scope/name` and `a.js`.
pub fn project(path: &str) -> Option<(&str, &str)> {
    let names = if path.starts_with('@') { 2 } else { 1 };
    let (at, _) = path.match_indices('/').nth(names - 1)?;
    Some((&path[..at], &path[at + 1..]))
}

/// How a completion is tested.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Tests {
    /// What runs it: `python`, `node`, `cpp`, `java`, `rust`; or `null`.
    #[serde(default)]
    pub runner: Option<String>,
    /// What stands behind prefix, completion and suffix, so that the program fails if the completion is wrong.
    #[serde(default)]
    pub after: String,
}

/// A file beside the one with the hole.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct OtherFile {
    /// Its path in the workspace.
    pub path: String,
    /// Its text.
    pub text: String,
}

/// One thing that fingers do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Key {
    /// What it inserts: a character, or a line break with the indentation behind it.
    pub text: String,
    /// How long it is until the next one, in milliseconds.
    pub pause_ms: f64,
}

/// A task as it is typed.
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
    /// The text behind it.
    pub suffix: String,
    /// How long the file is looked at before the first key, in milliseconds.
    pub look_ms: f64,
    /// The keys: they insert what is expected and, where that begins a line, the line break before it.
    pub keys: Vec<Key>,
}

/// Reads the tasks of a file. Empty lines count for nothing.
///
/// # Errors
/// It cannot be read, or a line is no task.
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
    fn a_path_begins_with_its_project() {
        assert_eq!(project("a/b/c.py"), Some(("a", "b/c.py")));
        assert_eq!(project("@s/a/b/c.js"), Some(("@s/a", "b/c.js")));
        assert_eq!(project("c.py"), None);
    }
}

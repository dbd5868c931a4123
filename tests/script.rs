//! Scripts for the scripted engine: its output by prompt, and its speed.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A script in a temporary folder, which is deleted with it.
pub(crate) struct Script {
    folder: TempDir,
    text: String,
}

impl Script {
    /// A script without rules or delays.
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), text: String::new() }
    }

    /// Generates `answer` if the text before the cursor ends with `before`; the first matching rule counts.
    pub(crate) fn when(self, before: &str, answer: &str) -> Self {
        self.rule(before, &format!("answer {}", escaped(answer)))
    }

    /// Generates `answer` if the prompt contains `text`.
    pub(crate) fn shown(mut self, text: &str, answer: &str) -> Self {
        self.text += &format!("when {}\nanswer {}\n", escaped(text), escaped(answer));
        self
    }

    /// The probability of each token.
    pub(crate) fn probability(mut self, probability: f32) -> Self {
        self.text += &format!("probability {probability}\n");
        self
    }

    /// [`or`](Self::or), with this probability of each of its tokens.
    pub(crate) fn or_with(mut self, answer: &str, probability: f32) -> Self {
        self.text += &format!("or-with {probability} {}\n", escaped(answer));
        self
    }

    /// Adds an alternative to the last answer.
    pub(crate) fn or(mut self, answer: &str) -> Self {
        self.text += &format!("or {}\n", escaped(answer));
        self
    }

    /// Panics if the text before the cursor ends with `before`.
    pub(crate) fn panics_at(self, before: &str) -> Self {
        self.rule(before, "panic")
    }

    /// Panics when the engine is dropped.
    pub(crate) fn panics_at_the_end(mut self) -> Self {
        self.text += "panic-at-the-end\n";
        self
    }

    /// Fails if the text before the cursor ends with `before`.
    pub(crate) fn fails_at(self, before: &str) -> Self {
        self.rule(before, "fail it broke")
    }

    /// The script's vocabulary has Qwen's tokens: the suffix token marks the cursor.
    fn rule(mut self, before: &str, action: &str) -> Self {
        self.text += &format!("when {}<|fim_suffix|>\n{action}\n", escaped(before));
        self
    }

    /// Delay per token (mostly a byte) in decode.
    pub(crate) fn token_ms(mut self, milliseconds: u32) -> Self {
        self.text += &format!("decode-ms {milliseconds}\n");
        self
    }

    /// Delay per prompt token.
    pub(crate) fn prompt_token_ms(mut self, milliseconds: f32) -> Self {
        self.text += &format!("prefill-ms {milliseconds}\n");
        self
    }

    /// Holds the engine at each `⏸` of an answer until [`open_gate`](Self::open_gate).
    pub(crate) fn gated(mut self) -> Self {
        self.text += &format!("gate {}\n", self.gate().display());
        self
    }

    /// Lets the engine pass every `⏸`, now and later.
    pub(crate) fn open_gate(&self) {
        fs::write(self.gate(), "").unwrap();
    }

    fn gate(&self) -> PathBuf {
        self.folder.path().join("gate")
    }

    /// Its folder.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its path once written.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("script")
    }

    /// The `--engine` argument that names it, written or not.
    pub(crate) fn argument(&self) -> String {
        format!("scripted:{}", self.path().display())
    }

    /// Writes it.
    pub(crate) fn write(&self) {
        fs::write(self.path(), &self.text).unwrap();
    }

    /// Writes it to a pipe.
    #[cfg(unix)]
    pub(crate) fn write_to(&self, mut pipe: fs::File) {
        pipe.write_all(self.text.as_bytes()).unwrap();
    }

    /// Writes it; returns the argument that names it.
    pub(crate) fn written(&self) -> String {
        self.write();
        self.argument()
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n")
}

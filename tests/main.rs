//! One end-to-end binary: every test here runs the built program or checks the source tree.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed unwrap is a failed test")]

mod bad_input;
mod candidates;
mod client;
mod commands;
mod commands_lsp;
mod completion;
mod explicit;
mod fake_hub;
mod hostile;
mod hostile_messages;
mod hostile_texts;
mod lifecycle;
mod long_lines;
mod lsp;
mod memory;
mod minimum_rust;
mod notebooks;
mod process;
mod pull;
mod real_model;
mod repetition;
mod scenario;
#[expect(dead_code, reason = "the tests of `taper-eval` use more of it")]
mod script;
mod secrets;
mod snapshots;
mod spellings;
mod statistics;
mod tidy;
mod vscode_settings;

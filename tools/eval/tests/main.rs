//! End-to-end tests of `taper-eval`: every test here runs the built program.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::process::{Command, Output, Stdio};

mod eval;
mod quality;
mod replay;
#[path = "../../../tests/script.rs"]
#[expect(dead_code, reason = "the server's tests use more of it")]
mod script;

/// Runs a subcommand of the built program. It finds no configuration and no models of this machine's user.
fn run_tool(subcommand: &str, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_taper-eval"))
        .arg(subcommand)
        .args(arguments)
        .env("XDG_CONFIG_HOME", "/nonexistent")
        .env("TAPER_HOME", "/dev/null/taper")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

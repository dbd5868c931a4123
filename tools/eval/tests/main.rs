//! End-to-end tests of `taper-eval`: every test here runs the built program.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod eval;
mod quality;
mod replay;
#[path = "../../../tests/script.rs"]
#[expect(dead_code, reason = "the server's tests use more of it")]
mod script;

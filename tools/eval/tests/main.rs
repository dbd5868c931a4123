//! The laboratory's end-to-end tests: everything here runs the built program.
//! It knows nothing of the insides.

mod eval;
mod quality;
mod replay;
#[path = "../../../tests/script.rs"]
#[expect(dead_code, reason = "the server's tests use more of it")]
mod script;

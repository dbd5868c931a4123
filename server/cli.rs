//! The command line: arguments in, exit code out. One file a command.
//! It knows nothing of how the work is done: each command calls the floors below.

pub mod models;
pub mod pull;

use std::process::ExitCode;

/// Parses the arguments, runs the command, prints its error.
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}

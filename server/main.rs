//! The `taper` program.
//! It knows nothing: everything is in the library's `cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    taper::cli::main()
}

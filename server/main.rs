//! The `taper` program; everything is in the library's `cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    taper::cli::main()
}

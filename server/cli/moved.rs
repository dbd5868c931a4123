//! Commands that were moved out of the installed program: each prints where it is now.

use std::ffi::OsString;
use std::process::ExitCode;

/// Arguments of a moved command, whatever they are.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Prints where the command moved. The exit code is that of wrong usage.
#[expect(clippy::print_stderr, reason = "a message for the command's user")]
pub(super) fn say(command: &str, args: &Args) -> ExitCode {
    let replay = args.arguments.first().is_some_and(|it| it == "replay");
    let (was, now) = match command {
        "bench" if replay => ("bench replay", "replay"),
        "bench" => ("bench", "replay"),
        _ => ("eval", "run"),
    };
    eprintln!(
        "taper: `taper {was}` is no longer part of the installed program: in a checkout of the sources, run \
         `cargo run --release -p taper-eval -- {now} …` with the same options"
    );
    ExitCode::from(2)
}

//! Commands that the installed program had and does not have any more: each says where it went.
//! It knows nothing of what they do there.

use std::ffi::OsString;
use std::process::ExitCode;

/// Arguments of a command that moved: whatever it took.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Says where the command went. The exit code is that of wrong usage.
#[expect(clippy::print_stderr, reason = "this is where the command's user looks")]
pub(super) fn say(command: &str, args: &Args) -> ExitCode {
    let replay = args.arguments.first().is_some_and(|it| it == "replay");
    let (was, now) = match command {
        "bench" if replay => ("bench replay", "replay"),
        "bench" => ("bench", "replay"),
        _ => ("eval", "run"),
    };
    eprintln!(
        "taper: `taper {was}` is not part of the installed program any more: in a checkout of the sources, write \
         `cargo run --release -p taper-eval -- {now} …` with the same options"
    );
    ExitCode::from(2)
}

//! `taper bench`: measurements that need the whole program.
//! It knows nothing of what is measured: each measurement is a file.

use anyhow::Result;
use clap::Subcommand;

pub mod replay;
mod report;
mod typist;

/// Arguments of `taper bench`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: taper bench replay tasks.jsonl --limit 20")]
pub struct Args {
    #[command(subcommand)]
    measurement: Measurement,
}

#[derive(Debug, Subcommand)]
enum Measurement {
    /// Type the answers of completion tasks at a real server, with a person's pauses.
    Replay(Box<replay::Args>),
}

/// Runs the command.
///
/// # Errors
/// Whatever ends the measurement.
pub fn run(args: &Args) -> Result<()> {
    match &args.measurement {
        Measurement::Replay(args) => replay::run(args),
    }
}

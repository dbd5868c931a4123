//! The `taper-eval` program: parses arguments, returns an exit code.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use taper::cli;
use taper_eval::{replay, run};

/// Measure taper: the quality of its suggestions, and its latency for a user who types.
#[derive(Debug, Parser)]
#[command(name = "taper-eval", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Score suggestions on completion tasks.
    Run(Box<run::Args>),
    /// Type the answers of completion tasks at a real server, with a person's pauses.
    Replay(Box<replay::Args>),
    /// Serve, as `taper serve` does: the replay's server is of the same build as the replay.
    #[command(hide = true)]
    Serve(Box<cli::serve::Args>),
    /// Read a project's files for that server, which starts this by itself.
    #[command(hide = true)]
    Crawl,
}

/// Runs the command and prints its error. Exit codes: 0 success, 1 failure, 2 invalid usage.
fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Run(args) => run::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Serve(args) => return cli::serve::run(*args),
        Command::Crawl => cli::crawl::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            cli::print_error("taper-eval", &error);
            ExitCode::FAILURE
        }
    }
}

//! The `taper-eval` program: arguments in, exit code out.
//! It knows nothing of what is measured: each command is a module of the library.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use taper::cli;
use taper_eval::{replay, run};

/// Measures taper: how good its suggestions are, and what a person who types gets.
#[derive(Debug, Parser)]
#[command(name = "taper-eval", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Score what is suggested, on completion tasks.
    Run(Box<run::Args>),
    /// Type the answers of completion tasks at a real server, with a person's pauses.
    Replay(Box<replay::Args>),
    /// Serve, as `taper serve` does: the replay's server is of the same build as the replay.
    #[command(hide = true)]
    Serve(Box<cli::serve::Args>),
    /// Look through a project's files for that server, which starts this by itself.
    #[command(hide = true)]
    Crawl,
}

/// Runs the command and prints its error. Exit codes: 0 done, 1 it failed, 2 wrong usage.
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

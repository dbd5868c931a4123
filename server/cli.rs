//! The command line: arguments in, exit code out. One file per command.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

pub mod complete;
pub mod crawl;
pub mod doctor;
pub mod load;
mod log;
pub mod models;
mod moved;
pub mod pull;
pub mod serve;
pub mod stats;
pub mod terminal;

/// Code completion from a small language model on your own machine.
#[derive(Debug, Parser)]
#[command(
    name = "taper",
    version,
    about,
    after_help = "Without a command, taper serves LSP if its input is not a terminal.\n\n\
                  Example: taper complete src/main.rs:12:5"
)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Serve LSP over stdin and stdout; editors add this option.
    #[arg(long)]
    pub stdio: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve an editor over stdin and stdout (LSP).
    Serve(Box<serve::Args>),
    /// Print a completion for a position in a file.
    Complete(Box<complete::Args>),
    /// Download a model.
    Pull(pull::Args),
    /// List known and installed models.
    Models(models::Args),
    /// Check this machine, its models and its speed.
    Doctor(Box<doctor::Args>),
    /// Show usage statistics.
    Stats(stats::Args),
    /// Reports where `taper bench` moved.
    #[command(hide = true, disable_help_flag = true)]
    Bench(moved::Args),
    /// Reports where `taper eval` moved.
    #[command(hide = true, disable_help_flag = true)]
    Eval(moved::Args),
    /// Index a project's files for a server, which starts this itself.
    #[command(hide = true)]
    Crawl,
    /// Print a completion script for a shell.
    #[command(
        after_help = "Example: taper completions bash > ~/.local/share/bash-completion/completions/taper"
    )]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Parses the arguments, runs the command, prints its error. Exit codes: 0 success, 1 failure, 2 wrong usage.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.command {
        Some(Command::Serve(args)) => return serve::run(*args),
        Some(Command::Complete(args)) => complete::run(&args),
        Some(Command::Pull(args)) => pull::run(args),
        Some(Command::Models(args)) => models::run(args),
        Some(Command::Doctor(args)) => doctor::run(&args),
        Some(Command::Stats(args)) => stats::run(args),
        Some(Command::Bench(args)) => return moved::say("bench", &args),
        Some(Command::Eval(args)) => return moved::say("eval", &args),
        Some(Command::Crawl) => crawl::run(),
        Some(Command::Completions { shell }) => {
            clap_complete::generate(shell, &mut Arguments::command(), "taper", &mut std::io::stdout());
            Ok(())
        }
        None if arguments.stdio || !std::io::stdin().is_terminal() => {
            // Parsed, so that environment variables apply as in `taper serve`.
            return match Arguments::parse_from(["taper", "serve"]).command {
                Some(Command::Serve(args)) => serve::run(*args),
                _ => ExitCode::from(2),
            };
        }
        None => {
            // A user at a terminal: print the help.
            let _ = Arguments::command().print_help();
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_error("taper", &error);
            ExitCode::FAILURE
        }
    }
}

/// Prints a warning for the user of a command.
#[expect(clippy::print_stderr, reason = "a message for the command's user")]
fn print_warning(message: &str) {
    eprintln!("taper: {}", terminal::escape_controls(message));
}

/// Prints an error with its causes on one line, without repetitions.
#[expect(clippy::print_stderr, reason = "a command's error is printed for its user")]
pub fn print_error(program: &str, error: &anyhow::Error) {
    let mut message = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        if !message.contains(&text) {
            if !message.is_empty() {
                message.push_str(": ");
            }
            message.push_str(&text);
        }
    }
    eprintln!("{program}: {}", terminal::escape_controls(&message));
}

//! The commands, one file each, and what starts them.

mod address;
mod bench;
mod cgroup;
mod check_config;
mod doctor;
mod flags;
mod healthcheck;
mod keys;
pub(crate) mod output;
pub(crate) mod progress;
pub(crate) mod pull;
mod serve;
mod settings;
mod shell;
pub(crate) mod source;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use settings::{CommandLine, Layers};

/// How a command ends that did not do what it was asked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Wrong usage or configuration, one line a fault: exit code 2.
    Usage(Vec<String>),
    /// A refusal to start that explains itself in some lines: exit code 2.
    Refusal(&'static str),
    /// What a command found wrong and has printed: exit code 2.
    Told,
    /// Anything else, in one line: exit code 1.
    Runtime(String),
}

impl Failure {
    fn usage(fault: impl Into<String>) -> Self {
        Self::Usage(vec![fault.into()])
    }

    fn runtime(fault: impl Into<String>) -> Self {
        Self::Runtime(fault.into())
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Usage(faults) => f.write_str(&faults.join("; ")),
            Self::Refusal(text) => f.write_str(text),
            Self::Told => f.write_str("see above"),
            Self::Runtime(fault) => f.write_str(fault),
        }
    }
}

impl std::error::Error for Failure {}

pub(crate) type Outcome = Result<(), Failure>;

#[derive(Debug, Parser)]
#[command(name = "millrace", version, about = "An OpenAI-compatible completions server")]
#[command(disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    quiet: flags::Quiet,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Load a model and serve it
    Serve(serve::Options),
    /// Fetch a model into the model folder
    Pull(pull::Options),
    /// Make, list and revoke API keys
    #[command(subcommand)]
    Keys(keys::Command),
    /// Print the effective configuration and where each value came from
    CheckConfig(check_config::Options),
    /// Look at this machine and at what `serve` would need, measure the speed, and say what to change
    Doctor(doctor::Options),
    /// Ask a running server whether it is ready
    Healthcheck(healthcheck::Options),
    Bench(Box<bench::Options>),
    /// Print a script that lets a shell complete commands and options
    Completions(shell::CompletionsOptions),
    /// Print the manual page: `millrace man | man -l -`
    Man(shell::ManOptions),
}

/// Parses the arguments and runs the command that they name.
///
/// Exit codes: 0 done, 1 a fault at run time, 2 wrong usage or configuration.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            // Help and version go to stdout with 0, faults to stderr with 2. A closed pipe is no fault.
            let _ = e.print();
            return ExitCode::from(u8::try_from(e.exit_code()).unwrap_or(2));
        }
    };
    // Commands with a --config of their own obey that file, too.
    let line = CommandLine { flags: cli.quiet.flag().into_iter().collect(), ..Default::default() };
    output::set_quiet(settings::quiet(&Layers::read(&line)).unwrap_or_default());
    let outcome = match cli.command {
        Command::Serve(options) => serve::run(options),
        Command::Pull(options) => pull::run(&options),
        Command::Keys(command) => keys::run(&command),
        Command::CheckConfig(options) => check_config::run(options),
        Command::Doctor(options) => doctor::run(options),
        Command::Healthcheck(options) => healthcheck::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Completions(options) => shell::completions(&options),
        Command::Man(options) => shell::man(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(faults)) => {
            output::complain_of(&faults);
            ExitCode::from(2)
        }
        Err(Failure::Told) => ExitCode::from(2),
        Err(Failure::Refusal(text)) => {
            output::refuse(text);
            ExitCode::from(2)
        }
        Err(Failure::Runtime(fault)) => {
            output::complain(&fault);
            ExitCode::from(1)
        }
    }
}

//! `millrace completions` and `millrace man`: what shells and `man` want to know, from the options themselves.

use std::path::PathBuf;

use clap::{Command, CommandFactory as _};
use clap_complete::Shell;

use super::output::print;
use super::{Cli, Failure, Outcome};

const NAME: &str = "millrace";

/// Options of `completions`.
#[derive(Debug, clap::Args)]
pub(crate) struct CompletionsOptions {
    /// For which shell. bash: `millrace completions bash > /etc/bash_completion.d/millrace`
    shell: Shell,
}

/// Options of `man`.
#[derive(Debug, clap::Args)]
pub(crate) struct ManOptions {
    /// The page of one command, such as `serve` or `keys add` [default: the page of all]
    command: Vec<String>,
    /// Write the pages of all commands into a folder, as millrace.1, millrace-serve.1 and so on, instead
    #[arg(long, value_name = "DIR", conflicts_with = "command")]
    dir: Option<PathBuf>,
}

/// Prints a script for the shell.
pub(crate) fn completions(options: &CompletionsOptions) -> Outcome {
    let mut out = Vec::new();
    clap_complete::generate(options.shell, &mut Cli::command(), NAME, &mut out);
    written(&out)
}

/// Prints a page in roff.
pub(crate) fn man(options: &ManOptions) -> Outcome {
    let mut command = Cli::command();
    if let Some(dir) = &options.dir {
        let made =
            std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(command, dir));
        return made.map_err(|e| {
            let dir = dir.display();
            Failure::runtime(format!(
                "cannot write pages to {dir}: {e}; name another folder with --dir"
            ))
        });
    }
    command.build();
    let mut page = &command;
    for name in &options.command {
        page = page.find_subcommand(name).ok_or_else(|| {
            let known: Vec<_> = page.get_subcommands().map(Command::get_name).collect();
            let there = known.join(", ");
            Failure::usage(format!(
                "man: {name:?} is not one of the commands that have a page: {there}"
            ))
        })?;
    }
    let mut out = Vec::new();
    let rendered = clap_mangen::Man::new(page.clone()).render(&mut out);
    rendered.map_err(|e| Failure::runtime(format!("cannot make the page: {e}")))?;
    written(&out)
}

fn written(out: &[u8]) -> Outcome {
    let text = String::from_utf8_lossy(out);
    print(&text).map_err(|e| Failure::runtime(format!("cannot print: {e}")))
}

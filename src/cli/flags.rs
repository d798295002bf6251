//! The options of `serve` as clap arguments, made from the table of settings.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use super::settings::{ALL, CommandLine, Form, Setting};

/// Whatever options were given, as they were written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Flags {
    pub(crate) config: Option<PathBuf>,
    pub(crate) given: Vec<(&'static Setting, String)>,
}

impl Flags {
    /// With the first argument, if there was one.
    pub(crate) fn with_model(self, model: Option<String>) -> CommandLine {
        CommandLine { config: self.config, model, flags: self.given }
    }
}

/// Settings that are options; the model is the first argument instead.
fn options() -> impl Iterator<Item = &'static Setting> {
    ALL.iter().filter(|s| s.name != "model")
}

/// Of all commands, not only of those that serve.
pub(crate) const QUIET: &str = "quiet";

/// `--quiet`, which may stand before a command and behind it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Quiet(Option<String>);

impl Quiet {
    /// For a command that reads settings.
    pub(crate) fn flag(&self) -> Option<(&'static Setting, String)> {
        Some((Setting::by_name(QUIET)?, self.0.clone()?))
    }
}

impl Args for Quiet {
    fn augment_args(command: Command) -> Command {
        let setting = Setting::by_name(QUIET).map(option);
        let arg = setting.unwrap_or_else(|| Arg::new(QUIET).long(QUIET));
        // Not each command reads it as a setting, so that it is checked here.
        command.arg(arg.short('q').global(true).value_parser(["true", "false", "1", "0"]))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Quiet {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self(matches.get_one::<String>(QUIET).cloned()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn option(setting: &'static Setting) -> Arg {
    let mut help = format!("{} [env: {}", setting.help, setting.variable());
    if !setting.default.is_empty() && setting.form != Form::Switch {
        let _ = write!(help, "] [default: {}", setting.default);
    }
    help.push(']');
    let arg = Arg::new(setting.name).long(setting.name).help(help).action(ArgAction::Set);
    match setting.form {
        // `--offline=false` overrules the file.
        Form::Switch => arg
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .value_name("true|false"),
        Form::Text(name) | Form::Url(name) | Form::Number(name) | Form::List(name) => {
            arg.value_name(name).allow_negative_numbers(true)
        }
    }
}

impl Args for Flags {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help("the configuration file [env: MILLRACE_CONFIG] [default: config/millrace.toml if present]");
        command.arg(config).args(options().filter(|s| s.name != QUIET).map(option))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = options()
            .filter_map(|s| Some((s, matches.get_one::<String>(s.name)?.clone())))
            .collect();
        Ok(Self { config: matches.get_one::<PathBuf>("config").cloned(), given })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

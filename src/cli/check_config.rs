//! `millrace check-config`: the effective configuration and where each value came from.

use super::flags::Flags;
use super::output::{print, say, set_quiet};
use super::settings::{self, Layers};
use super::{Failure, Outcome};
use crate::keys;

/// Options of the command: those of `serve`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The model, as `serve` would get it
    model: Option<String>,
    /// Print a configuration file with every key at its default, as comments, instead
    #[arg(long)]
    template: bool,
    #[command(flatten)]
    flags: Flags,
}

/// Prints TOML with comments, or every fault.
pub(crate) fn run(options: Options) -> Outcome {
    if options.template {
        return print(&settings::template()).map_err(|e| Failure::runtime(e.to_string()));
    }
    let layers = Layers::read(&options.flags.with_model(options.model));
    let config = settings::config(&layers).map_err(Failure::Usage)?;
    set_quiet(config.log.quiet);
    if let Some(path) = &config.auth.api_key_file {
        keys::list(path).map_err(|e| Failure::usage(e.to_string()))?;
    }
    print(&settings::effective(&layers)).map_err(|e| Failure::runtime(e.to_string()))?;
    if super::serve::is_locked_out(&config.auth) {
        say("note: `serve` would refuse to start: no key file, no MILLRACE_API_KEY");
    }
    Ok(())
}

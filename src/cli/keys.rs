//! `millrace keys`: make, list and revoke API keys in the key file.

use super::{Failure, Outcome};

/// The subcommands.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List the keys of the file: ids and limits, never a secret
    List,
}

pub(crate) fn run(_command: &Command) -> Outcome {
    Err(Failure::runtime("the key file cannot be read yet"))
}

//! `millrace keys`: make, list and revoke API keys in the key file.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::output::{print, say};
use super::settings::{self, CommandLine, Layers, default_key_file};
use super::{Failure, Outcome};
use crate::keys::{self, KeyError, Moment, NewKey};

/// The subcommands.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Make a key; the secret is printed once, alone on stdout, and stored nowhere
    Add {
        /// Who or what the key is for: letters, digits and ._@:- (it shows in logs)
        #[arg(value_parser = key_name)]
        name: String,
        /// A date (2027-01-31, its first moment in UTC) or time (2027-01-31T12:00:00Z) to end at
        #[arg(long, value_name = "DATE")]
        expires: Option<Moment>,
        #[command(flatten)]
        file: FileOption,
    },
    /// List the keys of the file: never a secret
    List {
        #[command(flatten)]
        file: FileOption,
    },
    /// Take a key out of the file; a running server refuses it within a second
    Revoke {
        /// As it was added
        name: String,
        #[command(flatten)]
        file: FileOption,
    },
}

/// Which file.
#[derive(Debug, clap::Args)]
pub(crate) struct FileOption {
    /// The key file [default: that of `serve` (`MILLRACE_API_KEY_FILE` or the configuration file), else
    /// `millrace/keys.toml` in the user's configuration folder]
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

impl FileOption {
    fn path(&self) -> Result<PathBuf, Failure> {
        if let Some(path) = &self.file {
            return Ok(path.clone());
        }
        let set = settings::key_file(&Layers::read(&CommandLine::default()));
        Ok(set.map_err(Failure::Usage)?.unwrap_or_else(default_key_file))
    }
}

impl From<KeyError> for Failure {
    fn from(e: KeyError) -> Self {
        Self::runtime(e.to_string())
    }
}

fn key_name(name: &str) -> Result<String, String> {
    keys::check_id(name).map(|()| name.to_owned())
}

/// Does what the subcommand says.
pub(crate) fn run(command: &Command) -> Outcome {
    match command {
        Command::Add { name, expires, file } => add(name, *expires, &file.path()?),
        Command::List { file } => list(&file.path()?),
        Command::Revoke { name, file } => {
            let path = file.path()?;
            keys::revoke(&path, name)?;
            say(&format!("revoked {name} in {}", path.display()));
            Ok(())
        }
    }
}

fn add(name: &str, expires: Option<Moment>, path: &std::path::Path) -> Outcome {
    let new = NewKey { id: name.to_owned(), expires, ..NewKey::default() };
    let secret = keys::add(path, new)?;
    if let Err(e) = print(&format!("{}\n", secret.as_str())) {
        // Nobody has it, so nobody shall be able to use it.
        keys::revoke(path, name)?;
        return Err(Failure::runtime(format!("cannot print the key, so none was made: {e}")));
    }
    say(&format!(
        "added {name} to {0}; serve with --api-key-file {0}. The key is not shown again.",
        path.display()
    ));
    Ok(())
}

fn list(path: &std::path::Path) -> Outcome {
    let keys = keys::list(path)?;
    let width = keys.iter().map(|k| k.id.len()).chain([4]).max().unwrap_or(4);
    let mut out = format!("{:width$}  {:20}  expires\n", "name", "created");
    for key in &keys {
        let show = |moment: Option<Moment>| moment.map_or("-".to_owned(), |m| m.to_string());
        let (created, expires) = (show(key.created), show(key.expires));
        let ended = key.expires.is_some_and(|e| e <= Moment::now());
        let mark = if ended { " (expired)" } else { "" };
        let _ = writeln!(out, "{:width$}  {created:20}  {expires}{mark}", key.id);
    }
    print(&out).map_err(|e| Failure::runtime(e.to_string()))
}

//! `millrace keys`: make, list and revoke API keys in the key file.

use std::fmt::Write as _;
use std::num::NonZeroU32;
use std::path::PathBuf;

use super::output::{print, say};
use super::settings::{self, CommandLine, Layers, default_key_file};
use super::{Failure, Outcome};
use crate::keys::{self, Entry, KeyError, MAX_LIMIT, MAX_PRIORITY, Moment, NewKey};

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
        limits: LimitOptions,
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

/// What the key may use: all there is, unless said.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct LimitOptions {
    /// Requests a minute
    #[arg(long, value_name = "N", value_parser = limit)]
    rpm: Option<NonZeroU32>,
    /// Tokens a minute, of prompts and answers
    #[arg(long, value_name = "N", value_parser = limit)]
    tpm: Option<NonZeroU32>,
    /// Requests at one time
    #[arg(long, value_name = "N", value_parser = limit)]
    concurrency: Option<NonZeroU32>,
    /// Lower is sooner, -8 to 8: each point below 0 doubles the share of a busy server, each above halves it
    #[arg(long, value_name = "N", allow_negative_numbers = true,
        value_parser = clap::value_parser!(i32).range(i64::from(-MAX_PRIORITY)..=i64::from(MAX_PRIORITY)))]
    priority: Option<i32>,
    /// Model names that the key may use, separated by commas
    #[arg(long, value_name = "A,B", value_delimiter = ',', value_parser = model)]
    models: Option<Vec<String>>,
}

fn model(name: &str) -> Result<String, String> {
    if name.is_empty() { Err("a name is empty".to_owned()) } else { Ok(name.to_owned()) }
}

fn limit(text: &str) -> Result<NonZeroU32, String> {
    let number = text.parse().ok().filter(|n: &NonZeroU32| n.get() <= MAX_LIMIT);
    number.ok_or_else(|| format!("a number from 1 to {MAX_LIMIT}"))
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
        Command::Add { name, expires, limits, file } => {
            let LimitOptions { rpm, tpm, concurrency, priority, models } = limits.clone();
            let (id, expires) = (name.clone(), *expires);
            add(NewKey { id, expires, rpm, tpm, concurrency, priority, models }, &file.path()?)
        }
        Command::List { file } => list(&file.path()?),
        Command::Revoke { name, file } => {
            let path = file.path()?;
            keys::revoke(&path, name)?;
            say(&format!("revoked {name} in {}", path.display()));
            Ok(())
        }
    }
}

fn add(new: NewKey, path: &std::path::Path) -> Outcome {
    if is_nowhere() {
        let reason = "stdout is closed or /dev/null: nobody would see the key, so none was made";
        return Err(Failure::runtime(reason));
    }
    let name = &new.id.clone();
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

/// Whether what is printed goes where nobody can read it. A closed stdout is `/dev/null`, too: the
/// standard library sees to that before `main`, so that no file that is opened later gets its number.
#[cfg(unix)]
fn is_nowhere() -> bool {
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
    let device = |data: std::fs::Metadata| data.file_type().is_char_device().then(|| data.rdev());
    let null = std::fs::metadata("/dev/null").ok().and_then(device);
    let stdout = std::io::stdout().as_fd().try_clone_to_owned().map(std::fs::File::from);
    let stdout = stdout.and_then(|file| file.metadata()).ok().and_then(device);
    null.is_some() && stdout == null
}

#[cfg(not(unix))]
fn is_nowhere() -> bool {
    false
}

/// As `keys add` takes them; `-` for none.
fn limits(key: &Entry) -> String {
    let number = |name: &str, limit: Option<NonZeroU32>| limit.map(|n| format!("{name} {n}"));
    let said: Vec<String> = [
        number("rpm", key.rpm),
        number("tpm", key.tpm),
        number("concurrency", key.concurrency),
        key.priority.map(|p| format!("priority {p}")),
        key.models.as_ref().map(|models| format!("models {}", models.join(","))),
    ]
    .into_iter()
    .flatten()
    .collect();
    if said.is_empty() { "-".to_owned() } else { said.join(", ") }
}

fn list(path: &std::path::Path) -> Outcome {
    let keys = keys::list(path)?;
    let width = keys.iter().map(|k| k.id.len()).chain([4]).max().unwrap_or(4);
    let mut out = format!("{:width$}  {:20}  {:30}  limits\n", "name", "created", "expires");
    for key in &keys {
        let show = |moment: Option<Moment>| moment.map_or("-".to_owned(), |m| m.to_string());
        let (created, expires) = (show(key.created), show(key.expires));
        let ended = key.expires.is_some_and(|e| e <= Moment::now());
        let mark = if ended { " (expired)" } else { "" };
        let expires = expires + mark;
        let _ = writeln!(out, "{:width$}  {created:20}  {expires:30}  {}", key.id, limits(key));
    }
    print(&out).map_err(|e| Failure::runtime(e.to_string()))
}

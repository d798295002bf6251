//! What MODEL means: a file, a folder, a built-in name, a model of a hub, or (in tests) the fake model.

use std::path::{Path, PathBuf};

use super::Failure;
use super::pull::Fetchable;
use crate::config::Config;

/// Where the weights come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ModelSource {
    /// Or a folder.
    File(PathBuf),
    /// Not here yet.
    Fetch(Fetchable),
    /// The whole `fake:…`.
    #[cfg(feature = "fake-model")]
    Fake(String),
}

/// Finds out. A name that is nothing is wrong usage; a path where nothing is, a fault at run time.
pub(crate) fn resolve(config: &Config) -> Result<ModelSource, Failure> {
    let model = config.model.as_str();
    if model.starts_with("fake:") {
        #[cfg(feature = "fake-model")]
        return crate::model::fake::Options::parse(model)
            .map(|_| ModelSource::Fake(model.to_owned()))
            .map_err(Failure::usage);
        #[cfg(not(feature = "fake-model"))]
        return Err(Failure::usage("fake: models are only in builds with the feature fake-model"));
    }
    let fetchable = Fetchable::by_name(model);
    if let Ok(built_in @ Fetchable::BuiltIn(_)) = &fetchable {
        return found(built_in, config);
    }
    for path in [PathBuf::from(model), config.model_dir.join(model)] {
        if path.is_file() || path.is_dir() {
            return Ok(ModelSource::File(path));
        }
        // A pipe or a device: it may have no end, or nobody may ever write to it.
        if path.exists() {
            let what = "is not a regular file: name a .gguf file, or a folder with config.json";
            return Err(Failure::runtime(format!("{} {what}", path.display())));
        }
    }
    let path = Path::new(model);
    // `owner/name:FILE.gguf` ends like a file, too.
    let like_a_file = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf"))
        && !model.contains(':')
        || path.is_absolute()
        || model.starts_with('.');
    if like_a_file {
        let folder = config.model_dir.display();
        return Err(Failure::runtime(format!(
            "{model}: no such file, here or in {folder}: check the path, or name the folder with --model-dir"
        )));
    }
    found(&fetchable.map_err(Failure::usage)?, config)
}

fn found(model: &Fetchable, config: &Config) -> Result<ModelSource, Failure> {
    let found = model.find(&config.model_dir, config.offline);
    let found = found.map_err(|e| Failure::runtime(e.to_string()))?;
    Ok(found.map_or_else(|| ModelSource::Fetch(model.clone()), ModelSource::File))
}

//! The model: where it is, and whether it fits.

use std::path::Path;

use super::machine;
use super::report::{Check, size};
use crate::cli::Failure;
use crate::cli::source::{ModelSource, resolve};
use crate::config::Config;
use crate::model;

/// What is known of the model, and whether it is here and can be loaded.
pub(super) struct Found {
    pub(super) checks: Vec<Check>,
    pub(super) loads: bool,
}

impl Found {
    fn only(check: Check, loads: bool) -> Self {
        Self { checks: vec![check], loads }
    }
}

pub(super) fn find(config: &Config) -> Found {
    let model = &config.model;
    match resolve(config) {
        Ok(ModelSource::File(path)) => file(config, &path),
        Ok(ModelSource::Fetch(fetchable)) => Found::only(absent(config, &fetchable), false),
        #[cfg(feature = "fake-model")]
        Ok(ModelSource::Fake(spec)) => Found::only(Check::new("model", spec), true),
        Err(failure) => {
            let check = Check::new("model", failure.to_string()).fact("model", model.as_str());
            let change = match failure {
                Failure::Usage(_) => "Name a model that there is: a .gguf file, a folder, a name of millrace pull --list, \
                                      or owner/name of a hub."
                    .to_owned(),
                _ if config.offline => {
                    format!("The model is not here: fetch it with millrace pull {model}, where there is a network, or \
                             take --offline away.")
                }
                _ => format!("The model is not here: check the path {model}, or --model-dir ({}).", config.model_dir.display()),
            };
            Found::only(check.must(change), false)
        }
    }
}

/// It will be fetched when the server starts.
fn absent(config: &Config, model: &crate::cli::pull::Fetchable) -> Check {
    let (name, origin) = (model.name(), model.origin());
    let bytes = model.bytes();
    let much = bytes.map_or(String::new(), |bytes| format!(", {}", size(bytes)));
    let folder = model.folder(&config.model_dir);
    let text = format!(
        "{name} is not here: serve would fetch it first (from {origin}{much}, to {})",
        folder.display()
    );
    let check = Check::new("model", text).fact("model", name.as_str()).fact("here", false);
    match (free_bytes(folder), bytes) {
        // The package and what is unpacked from it lie there at one time.
        (Some(free), Some(bytes)) if free < 2 * bytes => check.must(format!(
            "{} has {} free, too little for the model: make room, or take another --model-dir.",
            folder.display(),
            size(free)
        )),
        _ => check.better(format!("Fetch the model before the first start, which is then faster and surer: millrace pull {name}.")),
    }
}

/// Of the disk that the folder is on, or will be.
fn free_bytes(folder: &Path) -> Option<u64> {
    #[cfg(target_os = "linux")]
    {
        let there = folder.ancestors().find(|path| path.is_dir())?;
        let disk = rustix::fs::statvfs(there).ok()?;
        disk.f_bavail.checked_mul(disk.f_frsize)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = folder;
        None
    }
}

fn file(config: &Config, path: &Path) -> Found {
    let shown = path.display();
    let survey = match model::survey(path, &config.backend, &config.engine) {
        Ok(survey) => survey,
        Err(e) => {
            let check = Check::new("model", e.to_string());
            let asked = e.to_string().contains(": --");
            let change = if asked {
                "Change the option that the line about the model names.".to_owned()
            } else {
                format!("The model cannot be used: fetch {shown} again, or take another.")
            };
            return Found::only(check.must(change), false);
        }
    };
    let model = Check::new(
        "model",
        format!("{shown} ({}, {}, {})", survey.arch, survey.quantization, size(survey.file_bytes)),
    )
    .fact("path", path.to_string_lossy())
    .fact("arch", survey.arch.as_str())
    .fact("quantization", survey.quantization.as_str())
    .fact("file_bytes", survey.file_bytes);
    let plan = plan(config, &survey);
    let loads = plan.state < super::report::State::Broken;
    Found { checks: vec![model, plan], loads }
}

/// The memory that the model takes, against what there is.
fn plan(config: &Config, survey: &model::Survey) -> Check {
    let (weights, cache) = (survey.weights_bytes, survey.kv_cache_bytes);
    let needed = weights.saturating_add(cache);
    let context = survey.max_context;
    let text = format!(
        "weights {} + KV cache {} ({} tokens; one context is {context})",
        size(weights),
        size(cache),
        survey.kv_tokens
    );
    let mut check = Check::new("plan", text)
        .fact("weights_bytes", weights)
        .fact("kv_cache_bytes", cache)
        .fact("kv_tokens", survey.kv_tokens)
        .fact("max_context", context);
    if survey.is_on_device {
        return check;
    }
    let fewer = "take a model of fewer bits (such as Q4_K_M) or a smaller one";
    match (config.backend.memory_bytes, machine::available_bytes()) {
        (Some(memory), _) if needed > memory => {
            return check.must(format!(
                "{} is more than the {} of memory: lower --kv-cache-memory, or {fewer}.",
                size(needed),
                size(memory)
            ));
        }
        (_, Some(available)) if needed > available => {
            check = check.better(format!(
                "{} is more than the {} available now: end other programs, lower --kv-cache-memory, or {fewer}.",
                size(needed),
                size(available)
            ));
        }
        _ => {}
    }
    if survey.kv_tokens < survey.trained_context {
        let whole = survey
            .kv_block_bytes
            .saturating_mul(survey.trained_context.div_ceil(crate::backend::BLOCK_TOKENS) as u64);
        check = check.better(format!(
            "The KV cache holds less than one context of the {} tokens that the model was trained for: raise \
             --kv-cache-memory to {}MiB, or live with shorter contexts by --max-model-len {}.",
            survey.trained_context,
            whole.div_ceil(1 << 20),
            survey.kv_tokens
        ));
    }
    check
}

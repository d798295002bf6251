//! Which of a repository's models is meant.

use std::collections::{BTreeMap, BTreeSet};

use super::name::{Wanted, is_gguf};
use crate::model::load::folder_files::{self, CONFIG, INDEX, SINGLE};

/// Tried in this order where nobody says which: small and good first, then what is nearest to it.
pub(super) const USUAL: [&str; 8] =
    ["Q4_K_M", "Q8_0", "Q5_K_M", "Q6_K", "Q4_0", "Q4_1", "BF16", "F16"];
/// As many files are named in a message.
const MAX_NAMED: usize = 12;
/// Of one model; the loader takes no more.
const MAX_PARTS: usize = 1_000;

/// What is to be fetched, or is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Choice {
    /// A GGUF: its only file, or all its parts in order.
    Gguf(Vec<String>),
    /// `config.json`, safetensors and what else is read of a folder.
    Folder,
}

/// A GGUF model among the files.
struct Model<'a> {
    /// Its only file, or the first one that is there.
    file: &'a str,
    parts: Vec<String>,
    /// A part that is not there.
    missing: Option<String>,
}

/// What of `files` is `wanted`. The error goes on after the repository's name.
pub(super) fn choose(files: &[String], wanted: &Wanted) -> Result<Choice, String> {
    let all = models(files);
    let models: Vec<&Model<'_>> = all.iter().filter(|model| is_model(model.file)).collect();
    let chosen = match wanted {
        // Named in full, it may also be what is never chosen.
        Wanted::File(file) => {
            let found = all.iter().find(|model| model.parts.contains(file));
            found.ok_or_else(|| format!("has no file {file:?}; {}", listed(&models, files)))
        }
        Wanted::Quantization(part) => match matching(&models, part)[..] {
            [] => Err(format!("has no .gguf file of {part:?}; {}", listed(&models, files))),
            [one] => Ok(one),
            ref several => {
                Err(format!("has several files of {part:?}, name one: {}", named(several)))
            }
        },
        Wanted::Usual => match usual(&models) {
            Err(_) if is_folder(files) => return Ok(Choice::Folder),
            Err(_) if models.is_empty() => Err(no_model(files)),
            usual => usual,
        },
    }?;
    match &chosen.missing {
        None => Ok(Choice::Gguf(chosen.parts.clone())),
        Some(missing) => Err(format!("has {}, but not its part {missing}", chosen.file)),
    }
}

fn usual<'a>(models: &[&'a Model<'a>]) -> Result<&'a Model<'a>, String> {
    let complete: Vec<_> = models.iter().copied().filter(|m| m.missing.is_none()).collect();
    let models = if complete.is_empty() { models } else { &complete };
    if let [one] = models {
        return Ok(one);
    }
    for part in USUAL {
        if let [one] = matching(models, part)[..] {
            return Ok(one);
        }
    }
    Err(format!("has several models, name one as owner/name:FILE.gguf: {}", named(models)))
}

/// The files that are GGUF, those of one model together.
fn models(files: &[String]) -> Vec<Model<'_>> {
    let mut models = Vec::new();
    let mut split: BTreeMap<(&str, usize), (&str, BTreeSet<usize>)> = BTreeMap::new();
    for file in files.iter().filter(|file| is_gguf(file)) {
        match part_of(file) {
            Some((stem, number, count)) => {
                let (_, there) =
                    split.entry((stem, count)).or_insert_with(|| (file, BTreeSet::new()));
                there.insert(number);
            }
            None => models.push(Model { file, parts: vec![file.clone()], missing: None }),
        }
    }
    for ((stem, count), (file, there)) in split {
        let name = |number: usize| format!("{stem}-{number:05}-of-{count:05}.gguf");
        models.push(Model {
            file,
            parts: (1..=count).map(name).collect(),
            missing: (1..=count).find(|number| !there.contains(number)).map(name),
        });
    }
    models.sort_by_key(|model| model.file);
    models
}

/// What stands before the number, the number and the count of `…-00001-of-00003.gguf`.
fn part_of(file: &str) -> Option<(&str, usize, usize)> {
    let number = |text: &str| {
        let is_number = text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<usize>().ok().filter(|n| is_number && (1..=MAX_PARTS).contains(n))
    };
    let (rest, count) = file.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let (stem, part) = rest.rsplit_once('-')?;
    let (part, count) = (number(part)?, number(count)?);
    (part <= count).then_some((stem, part, count))
}

/// Whether it could be a language model: what reads images for one (`mmproj`) is not.
fn is_model(file: &str) -> bool {
    let base = file.rsplit('/').next().unwrap_or(file);
    !base.to_ascii_lowercase().contains("mmproj")
}

fn has(files: &[String], name: &str) -> bool {
    files.iter().any(|file| file == name)
}

fn has_weights(files: &[String]) -> bool {
    has(files, INDEX) || has(files, SINGLE)
}

fn is_folder(files: &[String]) -> bool {
    has(files, CONFIG) && has_weights(files)
}

/// Why there is nothing to choose from.
fn no_model(files: &[String]) -> String {
    if has_weights(files) {
        return format!("has safetensors, but no {CONFIG}, without which they cannot be served");
    }
    let mut pickles = files.iter().filter(|file| folder_files::is_pickle(file));
    if let Some(pickle) = pickles.next() {
        return format!(
            "has neither a .gguf file nor {SINGLE}, but PyTorch's pickles ({pickle}), which could run any code \
             and are never read"
        );
    }
    format!("has neither a .gguf file nor {CONFIG} with {SINGLE}, and only those can be served")
}

/// Those whose path has `part` as a component: `Q4_K` is none of `Q4_K_M`, nor `Q4_0` of `IQ4_0`.
fn matching<'a>(models: &[&'a Model<'a>], part: &str) -> Vec<&'a Model<'a>> {
    let part = part.to_ascii_lowercase();
    let fits = |file: &str| {
        let file = file.to_ascii_lowercase();
        file.match_indices(&part).any(|(at, _)| {
            let before = file[..at].chars().next_back();
            let after = file[at + part.len()..].chars().next();
            !before.is_some_and(char::is_alphanumeric)
                && !after.is_some_and(|c| c.is_alphanumeric() || c == '_')
        })
    };
    models.iter().copied().filter(|model| fits(model.file)).collect()
}

fn listed(models: &[&Model<'_>], files: &[String]) -> String {
    if !models.is_empty() {
        return format!("it has {}", named(models));
    }
    let none = "it has no .gguf file at all";
    if is_folder(files) {
        return format!("{none}, but a folder with safetensors: leave out what is behind the name");
    }
    none.to_owned()
}

fn named(models: &[&Model<'_>]) -> String {
    let names = models.iter().take(MAX_NAMED).map(|model| model.file);
    let mut text = names.collect::<Vec<_>>().join(", ");
    if let Some(more) = models.len().checked_sub(MAX_NAMED).filter(|&n| n > 0) {
        use std::fmt::Write as _;
        let _ = write!(text, " and {more} more");
    }
    text
}

//! Which of a repository's files is meant.

use super::name::{Wanted, is_gguf};

/// Tried in this order where nobody says which: small and good first, then what is nearest to it.
pub(super) const USUAL: [&str; 8] =
    ["Q4_K_M", "Q8_0", "Q5_K_M", "Q6_K", "Q4_0", "Q4_1", "BF16", "F16"];
/// As many files are named in a message.
const MAX_NAMED: usize = 12;

const SPLIT: &str = "is split into several files, which cannot be served yet";

/// The file of `files` that is `wanted`. The error goes on after the repository's name.
pub(super) fn choose(files: &[String], wanted: &Wanted) -> Result<String, String> {
    let models: Vec<&str> = files.iter().map(String::as_str).filter(|f| is_model(f)).collect();
    match wanted {
        Wanted::File(file) if is_split(file) => Err(format!("has {file:?}, but that {SPLIT}")),
        // Named in full, it may also be what is never chosen.
        Wanted::File(file) if files.contains(file) => Ok(file.clone()),
        Wanted::File(file) => Err(format!("has no file {file:?}; {}", listed(&models))),
        Wanted::Quantization(part) => match matching(&models, part)[..] {
            [] => Err(format!("has no .gguf file of {part:?}; {}", listed(&models))),
            [one] if !is_split(one) => Ok(one.to_owned()),
            ref several if several.iter().all(|f| is_split(f)) => {
                Err(format!("has {part:?}, but that {SPLIT}"))
            }
            ref several => {
                Err(format!("has several files of {part:?}, name one: {}", named(several)))
            }
        },
        Wanted::Usual => usual(&models),
    }
}

fn usual(models: &[&str]) -> Result<String, String> {
    let whole: Vec<&str> = models.iter().copied().filter(|f| !is_split(f)).collect();
    match whole[..] {
        [] if models.is_empty() => {
            return Err("has no .gguf file, and only those can be served".to_owned());
        }
        [] => return Err(format!("has a model, but that {SPLIT}")),
        [one] => return Ok(one.to_owned()),
        _ => {}
    }
    for part in USUAL {
        if let [one] = matching(&whole, part)[..] {
            return Ok(one.to_owned());
        }
    }
    Err(format!("has several models, name one as owner/name:FILE.gguf: {}", named(&whole)))
}

/// Whether it could be a language model: what reads images for one (`mmproj`) is not.
fn is_model(file: &str) -> bool {
    let base = file.rsplit('/').next().unwrap_or(file);
    is_gguf(file) && !base.to_ascii_lowercase().contains("mmproj")
}

/// `…-00001-of-00003.gguf`.
fn is_split(file: &str) -> bool {
    let Some(stem) = file.get(..file.len().saturating_sub(5)) else { return false };
    let number = |s: &str| s.len() == 5 && s.bytes().all(|b| b.is_ascii_digit());
    let Some((rest, count)) = stem.rsplit_once("-of-") else { return false };
    number(count) && rest.rsplit_once('-').is_some_and(|(_, part)| number(part))
}

/// Those whose path has `part` as a component: `Q4_K` is none of `Q4_K_M`, nor `Q4_0` of `IQ4_0`.
fn matching<'a>(files: &[&'a str], part: &str) -> Vec<&'a str> {
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
    files.iter().copied().filter(|f| fits(f)).collect()
}

fn listed(models: &[&str]) -> String {
    if models.is_empty() {
        return "it has no .gguf file at all".to_owned();
    }
    format!("it has {}", named(models))
}

fn named(files: &[&str]) -> String {
    let mut text = files.iter().take(MAX_NAMED).copied().collect::<Vec<_>>().join(", ");
    if let Some(more) = files.len().checked_sub(MAX_NAMED).filter(|&n| n > 0) {
        use std::fmt::Write as _;
        let _ = write!(text, " and {more} more");
    }
    text
}

//! What a `tokenizer.json` does to a text before and after merging.

use serde_json::value::RawValue;

use super::json::{Part, Pattern, Piece, Template, kind, read};
use crate::model::load::gguf::shown;
use crate::text::tokenizer::Prefix;
use crate::text::tokenizer::split::pre;

/// How texts are cut into words.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Steps {
    pub(super) nfc: bool,
    /// Blanks are written as U+2581.
    pub(super) blanks: bool,
    pub(super) prefix: Prefix,
    /// Bytes are written in GPT-2's alphabet.
    pub(super) byte_level: bool,
    pub(super) patterns: Vec<&'static str>,
}

const BLANK: &str = "\u{2581}";

/// Patterns that leave nothing of a text out.
const COVERING: [&str; 6] =
    [pre::GPT2, pre::QWEN2, pre::QWEN35, pre::LLAMA3, pre::GPT4O, pre::TEKKEN];

impl Steps {
    pub(super) fn new(
        normalizers: Vec<&RawValue>,
        pre_tokenizers: Vec<&RawValue>,
    ) -> Result<Self, String> {
        let mut steps = Self::default();
        for part in normalizers {
            steps.normalizer(&read(part)?)?;
        }
        if steps.prefix != Prefix::Never && !steps.blanks {
            return Err("the normalizer prepends U+2581, but writes blanks as they are".to_owned());
        }
        for part in pre_tokenizers {
            steps.pre_tokenizer(&read(part)?)?;
        }
        match (steps.byte_level, steps.blanks) {
            (true, true) => Err("it is byte-level, and writes blanks as U+2581".to_owned()),
            (false, false) => {
                Err("it is neither byte-level nor writes blanks as U+2581".to_owned())
            }
            _ => Ok(steps),
        }
    }

    fn normalizer(&mut self, part: &Part<'_>) -> Result<(), String> {
        match &*part.kind {
            "NFC" => self.nfc = true,
            "Prepend" if part.prepend.as_deref() == Some(BLANK) && !self.blanks => {
                self.prefix = Prefix::Always;
            }
            "Replace" if part.replaces(" ", BLANK) => self.blanks = true,
            other => return Err(format!("normalizer {} is not supported", shown(other))),
        }
        Ok(())
    }

    fn pre_tokenizer(&mut self, part: &Part<'_>) -> Result<(), String> {
        let refused = |what: &str| {
            Err(format!("pre_tokenizer {}: {what} is not supported", shown(&part.kind)))
        };
        if self.byte_level {
            return refused("something behind ByteLevel");
        }
        match &*part.kind {
            "ByteLevel" => {
                // The library's own default is true.
                if part.add_prefix_space.unwrap_or(true) {
                    return refused("add_prefix_space");
                }
                self.byte_level = true;
                if part.use_regex.unwrap_or(true) {
                    self.patterns.push(pre::GPT2);
                }
            }
            "Digits" => {
                let each = part.individual_digits.unwrap_or(false);
                self.patterns.push(if each { pre::DIGIT } else { pre::DIGITS });
            }
            "Punctuation" => self.patterns.push(match part.behavior.as_deref() {
                Some("Isolated") | None => pre::PUNCTUATION,
                Some("Contiguous") => pre::PUNCTUATIONS,
                Some(other) => return refused(&shown(other)),
            }),
            "Split" => return self.split(part),
            "Metaspace" => return self.metaspace(part),
            other => {
                return Err(format!("pre_tokenizer {} is not supported", shown(other)));
            }
        }
        Ok(())
    }

    /// Only patterns of the table: a pattern of a stranger could take quadratic time.
    fn split(&mut self, part: &Part<'_>) -> Result<(), String> {
        let (regex, text) = match &part.pattern {
            Some(Pattern::Regex(text)) => (true, &**text),
            Some(Pattern::String(text)) => (false, &**text),
            None => return Err("pre_tokenizer Split has no pattern".to_owned()),
        };
        // No blank is left to cut at: Gemma's.
        if self.blanks && !regex && text == " " {
            return Ok(());
        }
        let mut known = pre::PRES.iter().flat_map(|pre| pre.patterns).copied();
        let known = known.find(|pattern| regex && alike(pattern, text));
        let Some(pattern) = known else {
            let text: String = text.chars().take(200).collect();
            return Err(format!("pre_tokenizer Split: unknown pattern {text:?}"));
        };
        match (part.behavior.as_deref(), part.invert.unwrap_or(false)) {
            (Some("Isolated"), _) => {}
            (Some("Removed"), true) if COVERING.contains(&pattern) => {}
            (behavior, invert) => {
                let behavior = shown(behavior.unwrap_or("none"));
                return Err(format!(
                    "pre_tokenizer Split: behavior {behavior} with invert {invert} is not supported"
                ));
            }
        }
        self.patterns.push(pattern);
        Ok(())
    }

    fn metaspace(&mut self, part: &Part<'_>) -> Result<(), String> {
        if part.replacement.as_deref() != Some(BLANK) {
            return Err("pre_tokenizer Metaspace: its replacement is not U+2581".to_owned());
        }
        if self.prefix != Prefix::Never {
            return Err("pre_tokenizer Metaspace behind Prepend is not supported".to_owned());
        }
        self.blanks = true;
        let older = || part.add_prefix_space.map(|yes| if yes { "always" } else { "never" });
        self.prefix = match part.prepend_scheme.as_deref().or_else(older).unwrap_or("always") {
            "always" => Prefix::UnlessThere,
            "first" => Prefix::First,
            "never" => Prefix::Never,
            other => {
                let other = shown(other);
                return Err(format!("pre_tokenizer Metaspace: prepend_scheme {other}"));
            }
        };
        if part.split.unwrap_or(true) {
            self.patterns.push(pre::WORDS);
        }
        Ok(())
    }
}

/// Whether `text` is `pattern`, or another way to write it that files have.
fn alike(pattern: &str, text: &str) -> bool {
    let plain = |text: &str| {
        // Possessive where nothing could be given back, and one case after the other.
        text.replace("]?+", "]?").replace("]++", "]+").replace(
            "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])",
            "(?i:'s|'t|'re|'ve|'m|'ll|'d)",
        )
    };
    pattern == text || pattern == plain(text)
}

/// What is put in front of a text: the tokens of a template's beginning.
pub(super) fn in_front(parts: Vec<&RawValue>) -> Result<Vec<u32>, String> {
    let mut front = Vec::new();
    for part in parts {
        match &*kind(part)? {
            // It moves offsets only.
            "ByteLevel" => {}
            "TemplateProcessing" => front = template(read(part)?)?,
            other => return Err(format!("post_processor {} is not supported", shown(other))),
        }
    }
    Ok(front)
}

fn template(template: Template<'_>) -> Result<Vec<u32>, String> {
    let mut front = Vec::new();
    for piece in template.single.0 {
        // What stands behind the text is left out: a prompt goes on.
        let Piece::SpecialToken { id } = piece else { break };
        let named = template.special_tokens.0.iter().find(|(name, _)| *name == id);
        let (_, ids) = named.ok_or("post_processor TemplateProcessing names an unknown token")?;
        front.extend(ids);
    }
    Ok(front)
}

/// Refuses decoders that would make another text of the tokens.
pub(super) fn check_decoders(parts: Vec<&RawValue>) -> Result<(), String> {
    for part in parts {
        let part: Part<'_> = read(part)?;
        let known = match &*part.kind {
            "ByteLevel" | "ByteFallback" | "Fuse" | "Metaspace" | "Strip" => true,
            "Replace" => part.replaces(BLANK, " "),
            _ => false,
        };
        if !known {
            return Err(format!("decoder {} is not supported", shown(&part.kind)));
        }
    }
    Ok(())
}

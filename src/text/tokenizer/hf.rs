//! Tokenizers from `tokenizer.json`, the file of the `tokenizers` library: BPE of bytes or, in the manner of
//! `SentencePiece`, of characters. Anything that would be done differently here is refused by name.

mod json;
mod steps;

use std::collections::HashMap;

use self::json::{AddedToken, File, Model, Part, Words};
use self::steps::Steps;
use super::bpe::Bpe;
use super::split::Split;
use super::split::pre::Whole;
use super::{Method, Prefix, Strip, Tokenizer, index_of};
use crate::engine::message::TokenId;
use crate::text::TextError;
use crate::text::vocab::{Kind, Spelling, Vocab};

/// Most bytes of the file: Gemma's has 33 MB.
const FILE_BYTES_MAX: usize = 128 << 20;
/// Ids are below this.
const IDS_MAX: u32 = 1 << 22;
/// Most ids that no token has.
const GAPS_MAX: usize = 1 << 16;

/// What a file gives.
#[derive(Debug)]
pub(in crate::text) struct Loaded {
    pub(in crate::text) vocab: Vocab,
    pub(in crate::text) tokenizer: Tokenizer,
    /// The token that is put in front of a text.
    pub(in crate::text) bos: Option<TokenId>,
    pub(in crate::text) prefix: Prefix,
}

/// Of the bytes of the file, for a model with an embedding of `rows` tokens: those that the file does not
/// have are unused.
pub(in crate::text) fn load(bytes: &[u8], rows: usize) -> Result<Loaded, TextError> {
    if bytes.len() > FILE_BYTES_MAX {
        return Err(wrong(format!("it has more than {} MiB", FILE_BYTES_MAX >> 20)));
    }
    let file: File = serde_json::from_slice(bytes).map_err(wrong)?;
    tokenizer(file, rows).map_err(|TextError(reason)| wrong(reason))
}

fn wrong(reason: impl std::fmt::Display) -> TextError {
    TextError(format!("tokenizer.json: {reason}"))
}

fn tokenizer(file: File, rows: usize) -> Result<Loaded, TextError> {
    let flat = |part: Option<Part>, key| part.map_or(Ok(Vec::new()), |part| part.flat(key));
    let normalizers = flat(file.normalizer, "normalizers").map_err(TextError)?;
    let pre_tokenizers = flat(file.pre_tokenizer, "pretokenizers").map_err(TextError)?;
    let steps = Steps::new(normalizers, pre_tokenizers).map_err(TextError)?;
    let decoders = flat(file.decoder, "decoders").map_err(TextError)?;
    steps::check_decoders(&decoders).map_err(TextError)?;
    let processors = flat(file.post_processor, "processors").map_err(TextError)?;
    let front = steps::in_front(processors).map_err(TextError)?;
    check_model(&file.model, &steps)?;
    let spelling = if steps.byte_level { Spelling::Chars } else { Spelling::Blanks };
    let words = words(&file.model.vocab)?;
    let mut vocab = vocabulary(&words, &file.added_tokens, &file.model, (spelling, rows))?;
    let strips = strips(&file.added_tokens, &steps)?;
    let merged: std::collections::HashSet<TokenId> = words.iter().map(|&(_, id)| id).collect();
    let index = index_of(&mut vocab, |vocab, id| {
        vocab.is_ordinary(id) || vocab.kind(id) == Kind::UserDefined && merged.contains(&id)
    });
    let unknown = file.model.unk_token.as_deref();
    let unknown = words.iter().find(|(word, _)| Some(*word) == unknown).map(|&(_, id)| id);
    let whole = if file.model.ignore_merges { Whole::Always } else { Whole::Never };
    let split = Split::of(&steps.patterns, steps.nfc, whole).map_err(TextError)?;
    let merges = ("model.merges", file.model.merges.iter().map(json::Merge::parts));
    let bpe = Bpe::new(split, merges, (&vocab, &index), (spelling, unknown, steps.prefix))?;
    let mut tokenizer = Tokenizer::with(Method::Bpe(Box::new(bpe)), index, &vocab)?;
    tokenizer.strips = strips;
    let bos = match front[..] {
        [] => None,
        [bos] if (bos as usize) < vocab.len() => Some(bos),
        [_] => {
            return Err(TextError("post_processor puts a token in front that is none".to_owned()));
        }
        _ => {
            let reason = "post_processor puts more than one token in front: that is not supported";
            return Err(TextError(reason.to_owned()));
        }
    };
    Ok(Loaded { vocab, tokenizer, bos, prefix: steps.prefix })
}

fn check_model(model: &Model, steps: &Steps) -> Result<(), TextError> {
    let given = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    let refused = |what: &str| Err(TextError(format!("model.{what} is not supported")));
    match model.kind.as_deref() {
        Some("BPE") | None => {}
        Some(other) => {
            let shown: String = other.chars().take(40).collect();
            return refused(&format!("type {shown:?}"));
        }
    }
    if model.dropout.is_some_and(|dropout| dropout != 0.0) {
        refused("dropout")
    } else if given(&model.continuing_subword_prefix) {
        refused("continuing_subword_prefix")
    } else if given(&model.end_of_word_suffix) {
        refused("end_of_word_suffix")
    } else if model.byte_fallback == steps.byte_level {
        refused(&format!("byte_fallback {} with these bytes", model.byte_fallback))
    } else {
        Ok(())
    }
}

/// The words of the model and their ids.
fn words(vocab: &Words) -> Result<Vec<(&str, TokenId)>, TextError> {
    let vocab = vocab.0.as_ref().ok_or(TextError("model.vocab is no object".to_owned()))?;
    if vocab.values().any(|&id| id >= IDS_MAX) {
        return Err(TextError(format!("model.vocab has ids that are none below {IDS_MAX}")));
    }
    Ok(vocab.iter().map(|(word, &id)| (word.as_str(), id)).collect())
}

/// All tokens in the order of their ids.
fn vocabulary(
    words: &[(&str, TokenId)],
    added: &[AddedToken],
    model: &Model,
    (spelling, rows): (Spelling, usize),
) -> Result<Vocab, TextError> {
    let twice = |id| TextError(format!("two tokens have the id {id}"));
    let ids = words.iter().map(|&(_, id)| id).chain(added.iter().map(|token| token.id));
    let highest = ids.max().ok_or(TextError("there are no tokens".to_owned()))?;
    let most = (words.len() + added.len() + GAPS_MAX).max(rows).min(IDS_MAX as usize);
    if highest as usize >= most || rows > most {
        return Err(TextError(format!("ids have to be below {most}")));
    }
    let mut tokens: Vec<Option<(&str, Kind)>> = vec![None; rows.max(highest as usize + 1)];
    for &(word, id) in words {
        let byte = model.byte_fallback && Vocab::is_byte(word);
        let kind = match word {
            _ if byte => Kind::Byte,
            word if model.unk_token.as_deref() == Some(word) => Kind::Unknown,
            _ => Kind::Normal,
        };
        if tokens[id as usize].replace((word, kind)).is_some() {
            return Err(twice(id));
        }
    }
    for token in added {
        let place = &mut tokens[token.id as usize];
        if place.is_some_and(|(word, _)| word != token.content) {
            return Err(twice(token.id));
        }
        // In answers the first kind is left out, the second one is text.
        let kind = if token.special { Kind::Control } else { Kind::UserDefined };
        // Texts are never spelt with U+2581: what has it is found by merging only.
        let spelt = spelling == Spelling::Blanks && token.content.contains('\u{2581}');
        let kind = if spelt && !token.special { Kind::Normal } else { kind };
        *place = Some((&token.content, kind));
    }
    let mut vocab = Vocab::default();
    for token in tokens {
        let (text, kind) = token.unwrap_or(("", Kind::Unused));
        vocab.push(text, kind, spelling)?;
    }
    Ok(vocab)
}

/// Which added tokens take blanks along. What cannot be done as the library does it is refused.
fn strips(added: &[AddedToken], steps: &Steps) -> Result<HashMap<TokenId, Strip>, TextError> {
    let mut strips = HashMap::new();
    for token in added {
        let refused = |what: &str| {
            let name: String = token.content.chars().take(40).collect();
            Err(TextError(format!("added token {name:?}: {what} is not supported")))
        };
        if token.single_word {
            return refused("single_word");
        }
        // The library would look for what the normalizer makes of it.
        let changed = steps.prefix == Prefix::Always || steps.blanks && token.content.contains(' ');
        if token.normalized && changed {
            return refused("normalized, with this normalizer,");
        }
        if token.lstrip || token.rstrip {
            strips.insert(token.id, Strip { left: token.lstrip, right: token.rstrip });
        }
    }
    Ok(strips)
}

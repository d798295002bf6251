//! Tokenizers from `tokenizer.json`, the file of the `tokenizers` library: BPE of bytes or, in the manner of
//! `SentencePiece`, of characters. Anything that would be done differently here is refused by name.

mod json;
mod steps;

use std::collections::HashMap;

use unicode_normalization::UnicodeNormalization as _;

use self::json::{AddedToken, File, Model, Text, Words, flat};
use self::steps::Steps;
use super::bpe::Bpe;
use super::split::Split;
use super::split::pre::Whole;
use super::{Method, Prefix, Strip, Tokenizer, index_of};
use crate::engine::message::TokenId;
use crate::model::load::bounded::told;
use crate::model::load::gguf::shown;
use crate::text::TextError;
use crate::text::vocab::{Kind, Spelling, Vocab};

/// Most bytes of the file: Gemma's has 33 MB.
const FILE_BYTES_MAX: usize = 64 << 20;
/// Ids are below this.
const IDS_MAX: u32 = 1 << 22;
/// Most ids that no token has.
const GAPS_MAX: usize = 1 << 16;
/// What blanks are written as.
const BLANK: char = '\u{2581}';

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
    let file: File<'_> = serde_json::from_slice(bytes).map_err(|e| wrong(told(&e)))?;
    tokenizer(&file, rows).map_err(|TextError(reason)| wrong(reason))
}

fn wrong(reason: impl std::fmt::Display) -> TextError {
    TextError(format!("tokenizer.json: {reason}"))
}

fn tokenizer(file: &File<'_>, rows: usize) -> Result<Loaded, TextError> {
    let in_part = |part: &'static str| move |reason| TextError(format!("{part}: {reason}"));
    let normalizers = flat(file.normalizer).map_err(in_part("normalizer"))?;
    let pre_tokenizers = flat(file.pre_tokenizer).map_err(in_part("pre_tokenizer"))?;
    let steps = Steps::new(normalizers, pre_tokenizers).map_err(TextError)?;
    let decoders = flat(file.decoder).map_err(in_part("decoder"))?;
    steps::check_decoders(decoders).map_err(TextError)?;
    let processors = flat(file.post_processor).map_err(in_part("post_processor"))?;
    let front = steps::in_front(processors).map_err(TextError)?;
    check_model(&file.model, &steps)?;
    let spelling = if steps.byte_level { Spelling::Chars } else { Spelling::Blanks };
    let words = words(&file.model.vocab)?;
    let mut vocab = vocabulary(&words, &file.added_tokens.0, &file.model, (spelling, rows))?;
    let strips = strips(&file.added_tokens.0, &words, &steps)?;
    check_ids(&file.added_tokens.0, &words)?;
    let normalized =
        file.added_tokens.0.iter().filter(|token| token.normalized).map(|token| token.id);
    let merged: std::collections::HashSet<TokenId> = words.iter().map(|&(_, id)| id).collect();
    let index = index_of(&mut vocab, |vocab, id| {
        vocab.is_ordinary(id) || vocab.kind(id) == Kind::UserDefined && merged.contains(&id)
    });
    if spelling == Spelling::Blanks && vocab.byte_tokens(None).is_err() {
        // The library takes the unknown token for all of a character then.
        let reason = "model.byte_fallback, but not every byte from <0x00> to <0xFF> is a token";
        return Err(TextError(reason.to_owned()));
    }
    let whole = if file.model.ignore_merges { Whole::Always } else { Whole::Never };
    let split = Split::of(&steps.patterns, steps.nfc, whole).map_err(TextError)?;
    let merges = ("model.merges", file.model.merges.0.iter().map(json::Merge::parts));
    let bpe = Bpe::new(split, merges, (&vocab, &index), (spelling, None, steps.prefix))?;
    let mut tokenizer =
        Tokenizer::with(Method::Bpe(Box::new(bpe)), index, &vocab, &normalized.collect())?;
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

fn check_model(model: &Model<'_>, steps: &Steps) -> Result<(), TextError> {
    let given = |text: &Option<Text<'_>>| text.as_ref().is_some_and(|text| !text.is_empty());
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
fn words<'a>(vocab: &'a Words<'_>) -> Result<Vec<(&'a str, TokenId)>, TextError> {
    let vocab = vocab.0.as_ref().ok_or(TextError("model.vocab is no object".to_owned()))?;
    if vocab.iter().any(|&(_, id)| id >= IDS_MAX) {
        return Err(TextError(format!("model.vocab has ids that are none below {IDS_MAX}")));
    }
    let mut words: Vec<(&str, TokenId)> = vocab.iter().map(|(word, id)| (&**word, *id)).collect();
    words.sort_unstable();
    match words.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        Some(pair) => Err(TextError(format!("model.vocab has {:?} twice", shown(pair[0].0)))),
        None => Ok(words),
    }
}

/// All tokens in the order of their ids.
fn vocabulary(
    words: &[(&str, TokenId)],
    added: &[AddedToken<'_>],
    model: &Model<'_>,
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
        if place.is_some_and(|(word, _)| word != &*token.content) {
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

/// Refuses added tokens with other ids than the library gives them: those of the model's own words, and the next ones
/// for the others.
fn check_ids(added: &[AddedToken<'_>], words: &[(&str, TokenId)]) -> Result<(), TextError> {
    let mut given: HashMap<&str, TokenId> = HashMap::new();
    let mut next = words.len() as TokenId;
    for token in added.iter().filter(|token| !token.content.is_empty()) {
        let known = given.get(&*token.content).copied().or_else(|| {
            let at = words.binary_search_by_key(&&*token.content, |&(word, _)| word);
            at.ok().and_then(|at| words.get(at)).map(|&(_, id)| id)
        });
        let id = known.unwrap_or(next);
        next += TokenId::from(known.is_none());
        if id != token.id {
            let (name, told) = (shown(&token.content), token.id);
            return Err(TextError(format!(
                "added token {name:?} has the id {told}, but the words before it make it {id}"
            )));
        }
        given.insert(&token.content, id);
    }
    Ok(())
}

/// Which added tokens take blanks along. What cannot be done as the library does it is refused.
fn strips(
    added: &[AddedToken<'_>],
    words: &[(&str, TokenId)],
    steps: &Steps,
) -> Result<HashMap<TokenId, Strip>, TextError> {
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
        let changed = steps.prefix == Prefix::Always
            || steps.blanks && token.content.contains([' ', BLANK])
            || steps.nfc && !token.content.nfc().eq(token.content.chars());
        if token.normalized && changed {
            return refused("normalized, with this normalizer,");
        }
        // It is text with a blank in answers, and found in texts with this character only.
        let is_word = || words.binary_search_by_key(&&*token.content, |&(word, _)| word).is_ok();
        if steps.blanks && token.content.contains(BLANK) && !token.special && !is_word() {
            return refused("U+2581, without being a word of the model,");
        }
        if token.lstrip || token.rstrip {
            strips.insert(token.id, Strip { left: token.lstrip, right: token.rstrip });
        }
    }
    Ok(strips)
}

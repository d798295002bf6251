//! The folder of a model without the numbers of its weights.

use std::io::Read;
use std::path::Path;

use super::{WEIGHT_BYTES, assert_is_line, engine};
use crate::config::Quantize;
use crate::model::load::{Checkpoint, Folder, Opened, SamplingDefaults};
use crate::text::Text;

/// Files by the byte that begins their part of the input. Of weights there is the header without its length, which is put in
/// front of it; they count as somewhat longer, so that tensors lie within them.
pub(super) const FILES: [(u8, &str); 11] = [
    (b'c', "config.json"),
    (b'g', "generation_config.json"),
    (b't', "tokenizer.json"),
    (b'o', "tokenizer_config.json"),
    (b's', "special_tokens_map.json"),
    (b'j', "chat_template.jinja"),
    (b'i', "model.safetensors.index.json"),
    (b'w', "model.safetensors"),
    (b'1', "model-00001-of-00003.safetensors"),
    (b'2', "model-00002-of-00003.safetensors"),
    (b'3', "model-00003-of-00003.safetensors"),
];
/// Between two files: no text of JSON has it.
pub(super) const BETWEEN: u8 = 0;

struct InMemory<'a>(Vec<(&'static str, &'a [u8])>);

impl<'a> InMemory<'a> {
    /// Of several files with the same name the first one counts.
    fn new(data: &'a [u8]) -> Self {
        let file = |part: &'a [u8]| {
            let (&letter, bytes) = part.split_first()?;
            let (_, name) = FILES.iter().find(|(known, _)| *known == letter)?;
            Some((*name, bytes))
        };
        Self(data.split(|&byte| byte == BETWEEN).filter_map(file).collect())
    }
}

impl Folder for InMemory<'_> {
    fn path(&self) -> &Path {
        Path::new("fuzz")
    }

    fn open(&self, name: &str) -> Result<Option<Opened<'_>>, String> {
        let Some(&(_, bytes)) = self.0.iter().find(|(known, _)| *known == name) else {
            return Ok(None);
        };
        if !name.ends_with(".safetensors") {
            return Ok(Some((bytes.len() as u64, Box::new(bytes))));
        }
        let length = bytes.len() as u64;
        let whole = std::io::Cursor::new(length.to_le_bytes()).chain(bytes);
        Ok(Some((length + 8 + WEIGHT_BYTES, Box::new(whole))))
    }

    fn names(&self) -> Vec<String> {
        self.0.iter().map(|(name, _)| (*name).to_owned()).collect()
    }
}

/// All that a server makes of a folder before it reads the weights, and its tokenizer.
pub fn folder(data: &[u8]) {
    let files = InMemory::new(data);
    // Of the three, the one that has the most to decide.
    let checkpoint = match Checkpoint::of(&files, Quantize::Q4K) {
        Ok(checkpoint) => checkpoint,
        Err(error) => return assert_is_line(&error.to_string()),
    };
    assert!(checkpoint.tensors.values().all(|tensor| tensor.byte_len() > 0));
    let defaults = SamplingDefaults::of(&checkpoint.metadata);
    assert!((0.0..=2.0).contains(&defaults.temperature) && defaults.top_p > 0.0, "{defaults:?}");
    let (description, limits) = match crate::model::examine(&checkpoint, &engine()) {
        Ok(examined) => examined,
        Err(error) => return assert_is_line(&error.to_string()),
    };
    let Some(text) = &checkpoint.text else { unreachable!("a folder has texts") };
    let text = match Text::from_folder(text, &limits.end_tokens, description.shape.vocab) {
        Ok(text) => text,
        Err(error) => return assert_is_line(&error.to_string()),
    };
    super::assert_is_usable(&text);
}

//! MXFP4 as gpt-oss is released: the numbers of a tensor are one tensor of the file, the exponents of its blocks another.

use std::collections::BTreeMap;

use super::names::Half;
use super::safetensors::Bytes;
use crate::backend::{Change, Coded, Exponents, TensorSource};
use crate::model::load::gguf::shown;

/// Numbers of a block, in so many bytes.
const BLOCK: usize = 32;
const BLOCK_BYTES: usize = 16;

/// What was found so far, under the names of whole tensors.
#[derive(Default)]
pub(super) struct Halves(BTreeMap<String, (Change, Option<Bytes>, Option<Bytes>)>);

impl Halves {
    /// Whether this half is there, or, for a whole tensor, any.
    pub(super) fn contains(&self, name: &str, half: Option<Half>) -> bool {
        self.0.get(name).is_some_and(|(_, numbers, exponents)| match half {
            None => true,
            Some(Half::Numbers) => numbers.is_some(),
            Some(Half::Exponents) => exponents.is_some(),
        })
    }

    /// Takes in a half that is not there.
    pub(super) fn add(&mut self, name: String, change: Change, half: Half, found: Bytes) {
        let (_, numbers, exponents) = self.0.entry(name).or_insert((change, None, None));
        *(if half == Half::Numbers { numbers } else { exponents }) = Some(found);
    }

    /// The whole tensors, once all files were read.
    ///
    /// # Errors
    /// A half without the other, or of another shape.
    pub(super) fn join(self) -> Result<Vec<(String, TensorSource)>, String> {
        let joined = self.0.into_iter().map(|(name, halves)| Ok((name, join(halves)?)));
        joined.collect()
    }
}

fn join(
    (change, numbers, exponents): (Change, Option<Bytes>, Option<Bytes>),
) -> Result<TensorSource, String> {
    let (numbers, exponents) = match (numbers, exponents) {
        (Some(numbers), Some(exponents)) => (numbers, exponents),
        (Some(one), None) => return Err(format!("tensor {} has no _scales", shown(&one.name))),
        (None, Some(one)) => return Err(format!("tensor {} has no _blocks", shown(&one.name))),
        (None, None) => return Err("MXFP4 of nothing".to_owned()),
    };
    let (&[matrices, rows, blocks, BLOCK_BYTES], of) = (&numbers.shape[..], &exponents.shape[..])
    else {
        let (name, shape) = (shown(&numbers.name), &numbers.shape);
        return Err(format!("tensor {name} has the dimensions {shape:?}, not blocks of 16 bytes"));
    };
    if of != [matrices, rows, blocks] {
        let (name, blocks) = (shown(&exponents.name), shown(&numbers.name));
        return Err(format!(
            "tensor {name} has the dimensions {of:?}, which are not those of {blocks}"
        ));
    }
    Ok(TensorSource {
        name: numbers.name,
        path: numbers.path,
        offset: numbers.offset,
        stored: Coded::Mxfp4.into(),
        kind: Coded::Mxfp4.kept_as(),
        matrices,
        rows,
        // A file holds half a byte for each.
        cols: blocks.saturating_mul(BLOCK),
        change,
        exponents: Some(Exponents { path: exponents.path, offset: exponents.offset }),
    })
}

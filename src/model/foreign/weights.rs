//! Weights as candle-transformers asks for them: by name and shape, read from the file when they are wanted.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::{DType, Device, Error, Result, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;

use crate::backend::{TensorSource, read_floats};
use crate::model::load::gguf::shown;

/// The tensors of a folder. What was read stays, for a network that is built a second time: its tensors are those of
/// the first one, and take nothing more.
pub(super) struct Weights {
    sources: BTreeMap<String, TensorSource>,
    /// Tensors that cannot be used, and why.
    unusable: BTreeMap<String, String>,
    read: Mutex<HashMap<String, Tensor>>,
}

impl Weights {
    pub(super) fn new(
        sources: BTreeMap<String, TensorSource>,
        unusable: BTreeMap<String, String>,
    ) -> Self {
        Self { sources, unusable, read: Mutex::default() }
    }

    /// Bytes of all of them as F32.
    pub(super) fn float_bytes(&self) -> u64 {
        let numbers = |source: &TensorSource| source.matrices * source.rows * source.cols;
        self.sources.values().map(|source| numbers(source) as u64 * 4).sum()
    }

    /// Outputs of a matrix.
    pub(super) fn rows(&self, name: &str) -> Option<usize> {
        self.sources.get(name).map(|source| source.rows)
    }

    /// Refuses tensors that nobody asked for: numbers would be wrong without them. Those whose names end so may be there.
    pub(super) fn refuse_unread(&self, aside: &[&str]) -> std::result::Result<(), String> {
        let read: BTreeSet<String> = self.read().keys().cloned().collect();
        let mut names = self.sources.keys().chain(self.unusable.keys());
        let unread = names
            .find(|name| !read.contains(*name) && !aside.iter().any(|end| name.ends_with(end)));
        match unread {
            Some(name) => Err(format!("tensor {} has no use in this architecture", shown(name))),
            None => Ok(()),
        }
    }

    fn read(&self) -> MutexGuard<'_, HashMap<String, Tensor>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tensor(&self, name: &str, wanted: Option<&Shape>, device: &Device) -> Result<Tensor> {
        let refuse = |reason: &str| Error::Msg(format!("tensor {} {reason}", shown(name)));
        if let Some(reason) = self.unusable.get(name) {
            return Err(refuse(reason));
        }
        let source = self.sources.get(name).ok_or_else(|| refuse("is missing"))?;
        let all = [source.matrices, source.rows, source.cols];
        let ours = match wanted.map(Shape::rank) {
            Some(1) => &all[2..],
            Some(2) => &all[1..],
            _ => &all[..],
        };
        let outer: usize = all[..3 - ours.len()].iter().product();
        if outer != 1 || wanted.is_some_and(|wanted| wanted.dims() != ours) {
            let wanted = wanted.map_or(&[][..], Shape::dims);
            return Err(refuse(&format!("is {all:?}, the configuration says {wanted:?}")));
        }
        if let Some(tensor) = self.read().get(name) {
            return Ok(tensor.clone());
        }
        let numbers = read_floats(source).map_err(|e| Error::Msg(e.to_string()))?;
        let tensor = Tensor::from_vec(numbers, ours, device)?;
        self.read().insert(name.to_owned(), tensor.clone());
        Ok(tensor)
    }
}

/// Shared by the network's builder and whoever looks what was asked for.
pub(super) struct Shared(pub(super) std::sync::Arc<Weights>);

impl SimpleBackend for Shared {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        _: candle_nn::Init,
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        self.0.tensor(name, Some(&shape), device)?.to_dtype(dtype)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        self.0.tensor(name, None, device)?.to_dtype(dtype)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.0.sources.contains_key(name)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::backend::{BlockType, Change};

    fn weights(file: &tempfile::NamedTempFile) -> Weights {
        let source = |matrices, rows, cols| TensorSource {
            name: "t".to_owned(),
            path: file.path().to_owned(),
            offset: 0,
            stored: BlockType::F16.into(),
            kind: BlockType::F16,
            matrices,
            rows,
            cols,
            change: Change::None,
            exponents: None,
        };
        let sources =
            [("line", source(1, 1, 6)), ("flat", source(1, 2, 3)), ("deep", source(2, 1, 3))];
        let unusable = [("packed".to_owned(), "has type U8".to_owned())];
        Weights::new(
            sources.map(|(name, source)| (name.to_owned(), source)).into(),
            unusable.into(),
        )
    }

    #[test]
    fn tensors_are_given_by_name_and_shape_and_what_nobody_asked_for_is_told() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let numbers: Vec<u8> =
            (0..6).flat_map(|i| half::f16::from_f32(i as f32).to_le_bytes()).collect();
        file.write_all(&numbers).unwrap();
        let weights = weights(&file);
        assert_eq!(weights.float_bytes(), 3 * 6 * 4);
        let get = |name: &str, dims: &[usize]| {
            weights.tensor(name, Some(&Shape::from(dims)), &Device::Cpu)
        };
        for (name, dims) in [("line", &[6][..]), ("flat", &[2, 3]), ("deep", &[2, 1, 3])] {
            assert!(get(name, dims).is_ok());
            let all = get(name, dims).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(all, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
            assert!(get(name, &[5]).is_err());
            assert!(get(name, &[3, 2]).is_err());
        }
        assert!(get("absent", &[1]).unwrap_err().to_string().contains("tensor absent is missing"));
        assert!(get("packed", &[1]).unwrap_err().to_string().contains("packed has type U8"));
        let refusal = weights.refuse_unread(&[]).unwrap_err();
        assert_eq!(refusal, "tensor packed has no use in this architecture");
        assert_eq!(weights.refuse_unread(&["cked"]), Ok(()));
    }
}

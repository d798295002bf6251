//! Finds tensors by name, checks their shapes, and keeps count of those that found a use.

use std::collections::{BTreeMap, BTreeSet};

use super::Refused;
use crate::backend::TensorSource;

/// The tensors of a file, and which of them were asked for.
pub(super) struct Tensors<'a> {
    all: &'a BTreeMap<String, TensorSource>,
    used: BTreeSet<&'a str>,
}

/// A tensor with another shape than the hyperparameters say.
pub(super) fn mis_shaped(source: &TensorSource, rows: usize, cols: usize) -> Refused {
    Refused(format!(
        "tensor {} is {} x {}, the hyperparameters say {rows} x {cols}",
        source.name, source.rows, source.cols
    ))
}

impl<'a> Tensors<'a> {
    pub(super) fn new(all: &'a BTreeMap<String, TensorSource>) -> Self {
        Self { all, used: BTreeSet::new() }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.all.contains_key(name)
    }

    /// The embedding: its height is what tells the vocabulary's size.
    pub(super) fn matrix_of_any_height(&mut self, name: &str) -> Result<TensorSource, Refused> {
        let (name, source) = self
            .all
            .get_key_value(name)
            .ok_or_else(|| Refused(format!("tensor {name} is missing")))?;
        self.used.insert(name);
        Ok(source.clone())
    }

    /// A matrix of `rows` outputs and `cols` inputs.
    pub(super) fn matrix(
        &mut self,
        name: &str,
        rows: usize,
        cols: usize,
    ) -> Result<TensorSource, Refused> {
        let source = self.matrix_of_any_height(name)?;
        if (source.rows, source.cols) == (rows, cols) {
            Ok(source)
        } else {
            Err(mis_shaped(&source, rows, cols))
        }
    }

    pub(super) fn optional_matrix(
        &mut self,
        name: &str,
        rows: usize,
        cols: usize,
    ) -> Result<Option<TensorSource>, Refused> {
        self.has(name).then(|| self.matrix(name, rows, cols)).transpose()
    }

    pub(super) fn vector(&mut self, name: &str, len: usize) -> Result<TensorSource, Refused> {
        self.matrix(name, 1, len)
    }

    pub(super) fn optional_vector(
        &mut self,
        name: &str,
        len: usize,
    ) -> Result<Option<TensorSource>, Refused> {
        self.optional_matrix(name, 1, len)
    }

    /// Refuses a file with tensors that nothing asked for.
    pub(super) fn nothing_left(&self) -> Result<(), Refused> {
        match self.all.keys().find(|n| !self.used.contains(n.as_str())) {
            None => Ok(()),
            Some(name) => {
                let shown: String = name.chars().take(96).collect();
                Err(Refused(format!("tensor {shown:?} has no use in this architecture")))
            }
        }
    }
}

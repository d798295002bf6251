//! Where the weights of a model are, and in which form.

use std::fmt::Display;
use std::path::PathBuf;

use super::coded::{self, Levels};
use super::{BackendError, BlockType, Change, Coded, Exponents, Stored};

/// A matrix (or, with `rows == 1`, a vector) in a model file, or several of one shape, bounds checked
/// when the header was read. Row-major: `rows` outputs of `cols` inputs each.
#[derive(Debug, Clone)]
pub struct TensorSource {
    pub name: String,
    pub path: PathBuf,
    /// Byte offset of the first block from the beginning of the file.
    pub offset: u64,
    /// How the file has it.
    pub stored: Stored,
    /// How backends take it.
    pub kind: BlockType,
    /// One after the other: the experts of a layer. 1 for all that backends are given to load.
    pub matrices: usize,
    pub rows: usize,
    pub cols: usize,
    pub change: Change,
    /// Where the exponents of MXFP4 blocks are, if they lie apart from the numbers, as folders have them.
    pub exponents: Option<Exponents>,
}

impl TensorSource {
    /// Bytes of one row as backends take it. Cannot overflow for a source that was checked against its
    /// file.
    pub fn row_bytes(&self) -> usize {
        self.cols / self.kind.block_len() * self.kind.block_bytes()
    }

    /// Bytes of the whole tensor as backends take it.
    pub fn byte_len(&self) -> usize {
        self.matrices * self.rows * self.row_bytes()
    }

    /// Matrix `index` of several.
    #[must_use]
    pub fn matrix(&self, index: usize) -> Self {
        let bytes = self.rows * self.stored_row_bytes();
        let mut one = self.clone();
        one.name = format!("{}[{index}]", self.name);
        one.matrices = 1;
        one.offset += (index * bytes) as u64;
        if let Change::Scaled { offset, .. } = &mut one.change {
            *offset += (index * size_of::<f32>()) as u64;
        }
        if let Some(exponents) = &mut one.exponents {
            exponents.offset += (index * self.rows * self.row_blocks()) as u64;
        }
        one
    }

    /// Blocks that a row has in the file.
    pub(super) fn row_blocks(&self) -> usize {
        self.cols / self.stored.block_len()
    }

    /// Bytes of the whole tensor in the file, without exponents that lie apart.
    pub fn stored_len(&self) -> usize {
        self.matrices * self.rows * self.stored_row_bytes()
    }

    /// The same with them.
    pub fn file_len(&self) -> usize {
        self.matrices * self.rows * self.row_blocks() * self.stored.block_bytes()
    }

    /// Bytes that a row has in the file.
    pub(super) fn stored_row_bytes(&self) -> usize {
        let apart = usize::from(self.exponents.is_some());
        self.row_blocks() * (self.stored.block_bytes() - apart)
    }

    /// Whether its bytes can be used as they are.
    pub(super) fn is_stored_as_taken(&self) -> bool {
        self.stored == Stored::Block(self.kind)
            && self.change == Change::None
            && self.exponents.is_none()
    }

    /// Whether rows of the tensor are rows of the file, whose numbers nothing but a factor changes.
    fn has_whole_rows(&self) -> bool {
        match self.change {
            Change::None | Change::Scaled { .. } => true,
            Change::Separated => self.rows > 1,
            Change::PlusOne | Change::Transposed | Change::TransposedSeparated => false,
        }
    }

    /// The code it is in, if its integers stay as they are where they become blocks of `kind`.
    pub(super) fn repacked(&self) -> Option<Coded> {
        match self.stored {
            Stored::Coded(coded) if self.kind == coded.kept_as() && self.has_whole_rows() => {
                Some(coded)
            }
            _ => None,
        }
    }

    /// What the integers of its blocks are, if there are at most 16 of them.
    pub(super) fn levels(&self) -> Option<Levels> {
        self.repacked().and_then(coded::levels)
    }

    pub(super) fn fault(&self, reason: impl Display) -> BackendError {
        BackendError::Tensor { name: self.name.clone(), reason: reason.to_string() }
    }
}

/// What a product multiplies by: matrices stacked by rows, and what is added to each output.
#[derive(Debug, Clone)]
pub struct LinearSource {
    /// All with the same `cols`.
    pub weights: Vec<TensorSource>,
    /// Vectors, together as long as `weights` have rows; empty: nothing is added.
    pub bias: Vec<TensorSource>,
}

impl From<TensorSource> for LinearSource {
    fn from(weight: TensorSource) -> Self {
        Self { weights: vec![weight], bias: Vec::new() }
    }
}

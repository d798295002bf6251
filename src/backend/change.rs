//! What files have in another form than backends take.

use std::path::PathBuf;

/// What loading does to the numbers of a tensor.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Change {
    #[default]
    None,
    /// Adds 1: the file has what a weight differs by from that.
    PlusOne,
    /// The file has rows as columns, of a type whose blocks are one number.
    Transposed,
    /// Two matrices are one in the file, their rows in turn: those of the first come first then. Likewise the
    /// numbers of two vectors.
    Separated,
    /// Both of the above.
    TransposedSeparated,
    /// Multiplies by an f32 that the model has beside it, at this byte of a file: one for each matrix, one after the other.
    Scaled { path: PathBuf, offset: u64 },
}

impl Change {
    /// Rows are columns in the file.
    pub(crate) fn transposes(&self) -> bool {
        matches!(self, Self::Transposed | Self::TransposedSeparated)
    }

    /// Every second row comes first.
    pub(crate) fn separates(&self) -> bool {
        matches!(self, Self::Separated | Self::TransposedSeparated)
    }
}

/// A byte for each block, in the order of those.
#[derive(Debug, Clone)]
pub struct Exponents {
    pub path: PathBuf,
    pub offset: u64,
}

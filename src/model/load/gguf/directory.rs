//! The tensor directory: one entry a tensor, each held against the file it is in.

use std::io::Read;
use std::path::Path;

use super::reader::Reader;
use crate::backend::{BlockType, Change, Coded, Stored, TensorSource};

/// ggml knows four; a few more are read so that the tensor can be refused by name.
const MAX_DIMS: u32 = 8;

/// A tensor as the file describes it, before anything of it is believed.
pub(super) struct Entry {
    pub(super) name: String,
    /// Innermost first: columns, rows, …
    dims: Vec<u64>,
    kind: u32,
    /// From the beginning of the data.
    offset: u64,
}

/// Where the tensors' data may lie.
pub(super) struct Extent {
    /// Offset of the data in the file.
    pub(super) start: u64,
    pub(super) file_bytes: u64,
    pub(super) alignment: u64,
}

impl Entry {
    /// The smallest that an entry can be: an empty name and no dimensions.
    pub(super) const MIN_BYTES: u64 = 8 + 4 + 4 + 8;

    /// Reads what follows the name.
    pub(super) fn read<R: Read>(name: String, reader: &mut Reader<R>) -> Result<Self, String> {
        let count = reader.u32()?;
        if count > MAX_DIMS {
            return Err(format!("has {count} dimensions"));
        }
        let dims = (0..count).map(|_| reader.u64()).collect::<Result<_, _>>()?;
        Ok(Self { name, dims, kind: reader.u32()?, offset: reader.u64()? })
    }

    /// The tensor's place in the file, or why it cannot be used: a clause without its subject.
    pub(super) fn locate(&self, path: &Path, extent: &Extent) -> Result<TensorSource, String> {
        let stored = self.stored()?;
        let (matrices, rows, cols) = self.shape()?;
        let (block_len, block_bytes) = (stored.block_len() as u64, stored.block_bytes() as u64);
        if !cols.is_multiple_of(block_len) {
            return Err(format!(
                "has rows of {cols} values, which is not a multiple of {}'s {block_len}",
                stored.label()
            ));
        }
        if !self.offset.is_multiple_of(extent.alignment) {
            return Err(format!("is at offset {}, off its alignment", self.offset));
        }
        let bytes = (cols / block_len)
            .checked_mul(block_bytes)
            .and_then(|b| b.checked_mul(rows))
            .and_then(|b| b.checked_mul(matrices));
        let offset = extent.start.checked_add(self.offset);
        let end = offset.zip(bytes).and_then(|(offset, bytes)| offset.checked_add(bytes));
        let (Some(offset), Some(end)) = (offset, end) else {
            return Err(format!("({} at offset {}) overflows", self.size(), self.offset));
        };
        if end > extent.file_bytes {
            let file_bytes = extent.file_bytes;
            return Err(format!("ends at byte {end} of a file of {file_bytes} bytes"));
        }
        let too_large = |_| format!("({}) is too large for this machine", self.size());
        Ok(TensorSource {
            name: self.name.clone(),
            path: path.to_owned(),
            offset,
            stored,
            kind: stored.kept_as(),
            matrices: usize::try_from(matrices).map_err(too_large)?,
            rows: usize::try_from(rows).map_err(too_large)?,
            cols: usize::try_from(cols).map_err(too_large)?,
            change: Change::None,
            exponents: None,
        })
    }

    /// Matrices, rows and columns. One dimension is one row; dimensions beyond the third may only be 1.
    fn shape(&self) -> Result<(u64, u64, u64), String> {
        let shape = match self.dims[..] {
            [cols] => (1, 1, cols),
            [cols, rows] => (1, rows, cols),
            [cols, rows, matrices, ref rest @ ..] if rest.iter().all(|&d| d == 1) => {
                (matrices, rows, cols)
            }
            _ => return Err(format!("has the dimensions {:?}", self.dims)),
        };
        if self.dims.contains(&0) {
            return Err(format!("is empty ({})", self.size()));
        }
        Ok(shape)
    }

    /// Innermost first, as in the file.
    fn size(&self) -> String {
        self.dims.iter().map(u64::to_string).collect::<Vec<_>>().join(" x ")
    }

    fn stored(&self) -> Result<Stored, String> {
        let known = NUMBERS.iter().find(|(number, _)| *number == self.kind);
        known.map(|(_, stored)| *stored).ok_or_else(|| {
            let name = foreign_name(self.kind).map_or_else(|| self.kind.to_string(), str::to_owned);
            let known: Vec<&str> = NUMBERS.iter().map(|(_, stored)| stored.label()).collect();
            format!("has type {name}, which is not supported ({} are)", known.join(", "))
        })
    }
}

/// ggml's numbers of the types that can be read (`enum ggml_type`).
pub(super) const NUMBERS: [(u32, Stored); 28] = {
    use BlockType::{BF16, F16, F32, Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
    use Coded::{
        Iq1M, Iq1S, Iq2S, Iq2Xs, Iq2Xxs, Iq3S, Iq3Xxs, Iq4Nl, Iq4Xs, Mxfp4, Nvfp4, Q1_0, Q2_0,
        Tq1_0, Tq2_0,
    };
    [
        (0, Stored::Block(F32)),
        (1, Stored::Block(F16)),
        (2, Stored::Block(Q4_0)),
        (3, Stored::Block(Q4_1)),
        (6, Stored::Block(Q5_0)),
        (7, Stored::Block(Q5_1)),
        (8, Stored::Block(Q8_0)),
        (10, Stored::Block(Q2K)),
        (11, Stored::Block(Q3K)),
        (12, Stored::Block(Q4K)),
        (13, Stored::Block(Q5K)),
        (14, Stored::Block(Q6K)),
        (16, Stored::Coded(Iq2Xxs)),
        (17, Stored::Coded(Iq2Xs)),
        (18, Stored::Coded(Iq3Xxs)),
        (19, Stored::Coded(Iq1S)),
        (20, Stored::Coded(Iq4Nl)),
        (21, Stored::Coded(Iq3S)),
        (22, Stored::Coded(Iq2S)),
        (23, Stored::Coded(Iq4Xs)),
        (29, Stored::Coded(Iq1M)),
        (30, Stored::Block(BF16)),
        (34, Stored::Coded(Tq1_0)),
        (35, Stored::Coded(Tq2_0)),
        (39, Stored::Coded(Mxfp4)),
        (40, Stored::Coded(Nvfp4)),
        (41, Stored::Coded(Q1_0)),
        (42, Stored::Coded(Q2_0)),
    ]
};

/// Names of ggml's other types, so that a refusal can say which it met. `Q8_1` and `Q8_K` are how ggml has activations, and in no
/// file; numbers of no model's weights are the integers and `F64`; the others were given up.
fn foreign_name(kind: u32) -> Option<&'static str> {
    Some(match kind {
        4 => "Q4_2",
        5 => "Q4_3",
        9 => "Q8_1",
        15 => "Q8_K",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        31 => "Q4_0_4_4",
        32 => "Q4_0_4_8",
        33 => "Q4_0_8_8",
        36 => "IQ4_NL_4_4",
        37 => "IQ4_NL_4_8",
        38 => "IQ4_NL_8_8",
        _ => return None,
    })
}

//! Rows of a tensor from its file, in order, through a buffer of a fixed size: loading never holds a tensor twice.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use crate::backend::{BackendError, TensorSource};

/// Bytes read at once, unless a single row is longer.
const BUFFER_BYTES: usize = 1 << 20;

/// Reads one row after the other.
pub(crate) struct RowReader {
    file: File,
    name: String,
    row_bytes: usize,
    rows_left: usize,
    buffer: Vec<u8>,
    at: usize,
}

impl RowReader {
    /// Opens the tensor's file at its first row.
    pub(crate) fn open(source: &TensorSource) -> Result<Self, BackendError> {
        let fault = |reason: String| BackendError::Tensor { name: source.name.clone(), reason };
        let (block_len, block_bytes) = (source.kind.block_len(), source.kind.block_bytes());
        if !source.cols.is_multiple_of(block_len) {
            return Err(fault(format!(
                "has rows of {} values, not whole blocks of {block_len}",
                source.cols
            )));
        }
        let mut file = File::open(&source.path).map_err(|e| fault(e.to_string()))?;
        file.seek(SeekFrom::Start(source.offset)).map_err(|e| fault(e.to_string()))?;
        let row_bytes = source.cols / block_len * block_bytes;
        Ok(Self {
            file,
            name: source.name.clone(),
            row_bytes,
            rows_left: source.rows,
            buffer: Vec::new(),
            at: 0,
        })
    }

    /// The next row's bytes.
    pub(crate) fn next_row(&mut self) -> Result<&[u8], BackendError> {
        if self.at == self.buffer.len() {
            let rows = (BUFFER_BYTES / self.row_bytes).clamp(1, self.rows_left.max(1));
            self.buffer.resize(rows * self.row_bytes, 0);
            self.at = 0;
            self.rows_left = self.rows_left.saturating_sub(rows);
            self.file.read_exact(&mut self.buffer).map_err(|e| BackendError::Tensor {
                name: self.name.clone(),
                reason: e.to_string(),
            })?;
        }
        let row = &self.buffer[self.at..self.at + self.row_bytes];
        self.at += self.row_bytes;
        Ok(row)
    }
}

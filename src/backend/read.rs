//! Rows of a tensor from its file, in order, through a buffer of a fixed size: loading never holds a tensor twice.
//! What the file has in another form than the backend takes is converted on the way.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use super::coded::{self, repack};
use super::convert::encode;
use super::cpu::quant;
use super::{BackendError, Change, Stored, TensorSource};

/// Bytes read at once, unless a single row is longer.
const BUFFER_BYTES: usize = 1 << 20;
/// The same where rows of the tensor are columns of the file: one strip of them is read in many small pieces, so it is wide.
const STRIP_BYTES: usize = 1 << 24;

/// Reads one row after the other.
pub(crate) struct RowReader<'a> {
    source: &'a TensorSource,
    file: File,
    /// What numbers are multiplied by.
    factor: f32,
    /// Rows that were read, and all of them.
    read: usize,
    /// Rows as the backend takes them, and how far they were given out.
    buffer: Vec<u8>,
    at: usize,
    /// What conversions go through.
    stored: Vec<u8>,
    values: Vec<f32>,
}

impl<'a> RowReader<'a> {
    /// Opens the tensor's file at its first row.
    pub(crate) fn open(source: &'a TensorSource) -> Result<Self, BackendError> {
        let (blocks, stored) = (source.kind.block_len(), source.stored.block_len());
        if !source.cols.is_multiple_of(blocks) || !source.cols.is_multiple_of(stored) {
            return Err(source.fault(format!(
                "has rows of {} values, not whole blocks of {}",
                source.cols,
                blocks.max(stored)
            )));
        }
        let file = File::open(&source.path).map_err(|e| source.fault(e))?;
        let factor = match &source.change {
            Change::Scaled { path, offset } => {
                read_float(path, *offset).map_err(|e| source.fault(e))?
            }
            _ => 1.0,
        };
        let (buffer, stored, values) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { source, file, factor, read: 0, buffer, at: 0, stored, values })
    }

    /// The next row's bytes, of the source's `kind`.
    pub(crate) fn next_row(&mut self) -> Result<&[u8], BackendError> {
        if self.at == self.buffer.len() {
            self.refill()?;
        }
        let row = &self.buffer[self.at..self.at + self.source.row_bytes()];
        self.at += self.source.row_bytes();
        Ok(row)
    }

    /// The next rows, as many as the buffer takes.
    fn refill(&mut self) -> Result<(), BackendError> {
        let source = self.source;
        let transposed = source.change == Change::Transposed;
        let room = if transposed { STRIP_BYTES } else { BUFFER_BYTES };
        let rows = (room / source.stored_row_bytes()).clamp(1, (source.rows - self.read).max(1));
        self.at = 0;
        if source.is_stored_as_taken() {
            self.buffer.resize(rows * source.row_bytes(), 0);
            let start = source.offset + (self.read * source.row_bytes()) as u64;
            read_at(&mut self.file, start, &mut self.buffer).map_err(|e| source.fault(e))?;
        } else if let Stored::Coded(coded) = source.stored
            && matches!(source.change, Change::None | Change::Scaled { .. })
            && source.kind == coded.kept_as()
        {
            self.stored_rows(rows).map_err(|e| source.fault(e))?;
            self.buffer.clear();
            repack(coded, self.factor, &self.stored, &mut self.buffer)
                .map_err(|e| source.fault(e))?;
        } else {
            self.values.resize(rows * source.cols, 0.0);
            if transposed { self.columns(rows) } else { self.rows(rows) }
                .map_err(|e| source.fault(e))?;
            self.convert()?;
        }
        self.read += rows;
        Ok(())
    }

    /// Reads the next rows into `stored`.
    fn stored_rows(&mut self, rows: usize) -> std::io::Result<()> {
        let row_bytes = self.source.stored_row_bytes();
        self.stored.resize(rows * row_bytes, 0);
        let start = self.source.offset + (self.read * row_bytes) as u64;
        read_at(&mut self.file, start, &mut self.stored)
    }

    /// Reads the next rows into `values`.
    fn rows(&mut self, rows: usize) -> std::io::Result<()> {
        self.stored_rows(rows)?;
        let source = self.source;
        let rows = self.stored.chunks_exact(source.stored_row_bytes());
        for (bytes, out) in rows.zip(self.values.chunks_exact_mut(source.cols)) {
            dequantize_row(source.stored, bytes, out);
        }
        Ok(())
    }

    /// The same where the file has them as columns: of each of its rows, the piece that is in the strip.
    fn columns(&mut self, rows: usize) -> std::io::Result<()> {
        let source = self.source;
        let width = source.stored.block_bytes();
        self.stored.resize(rows * width, 0);
        let mut column = vec![0.0; rows];
        for k in 0..source.cols {
            let start = source.offset + ((k * source.rows + self.read) * width) as u64;
            read_at(&mut self.file, start, &mut self.stored)?;
            dequantize_row(source.stored, &self.stored, &mut column);
            for (row, &value) in self.values.chunks_exact_mut(source.cols).zip(&column) {
                row[k] = value;
            }
        }
        Ok(())
    }

    /// From `values` to what the backend takes.
    fn convert(&mut self) -> Result<(), BackendError> {
        let source = self.source;
        match source.change {
            Change::PlusOne => self.values.iter_mut().for_each(|v| *v += 1.0),
            Change::Scaled { .. } => self.values.iter_mut().for_each(|v| *v *= self.factor),
            Change::None | Change::Transposed => {}
        }
        // Blocks of a scale and small integers have no form for it: it would come out as some number.
        if self.values.iter().any(|v| !v.is_finite()) {
            return Err(source.fault("holds a number that is not finite"));
        }
        self.buffer.clear();
        encode(source.kind, &self.values, source.cols, &mut self.buffer)
            .map_err(|e| source.fault(e))
    }
}

/// Dequantises a row as the file has it.
fn dequantize_row(stored: Stored, bytes: &[u8], out: &mut [f32]) {
    match stored {
        Stored::Block(kind) => quant::dequantize_row(kind, bytes, out),
        Stored::Coded(coded) => coded::dequantize_row(coded, bytes, out),
    }
}

fn read_float(path: &Path, offset: u64) -> std::io::Result<f32> {
    let mut bytes = [0; 4];
    read_at(&mut File::open(path)?, offset, &mut bytes)?;
    Ok(f32::from_le_bytes(bytes))
}

fn read_at(file: &mut File, start: u64, into: &mut [u8]) -> std::io::Result<()> {
    file.seek(SeekFrom::Start(start))?;
    file.read_exact(into)
}

/// All rows, one after the other, of the source's `kind`.
pub(crate) fn read_all(source: &TensorSource, into: &mut [u8]) -> Result<(), BackendError> {
    let mut reader = RowReader::open(source)?;
    for row in into.chunks_exact_mut(source.row_bytes()).take(source.rows) {
        row.copy_from_slice(reader.next_row()?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::BlockType;
    use std::io::Write;

    /// A file of 3 other bytes and these numbers, as bf16.
    fn written(values: &[f32]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"abc").unwrap();
        for &v in values {
            file.write_all(&half::bf16::from_f32(v).to_le_bytes()).unwrap();
        }
        file
    }

    fn source(file: &tempfile::NamedTempFile, rows: usize, cols: usize) -> TensorSource {
        TensorSource {
            name: "t".to_owned(),
            path: file.path().to_owned(),
            offset: 3,
            stored: BlockType::BF16.into(),
            kind: BlockType::F32,
            matrices: 1,
            rows,
            cols,
            change: Change::None,
        }
    }

    fn floats(source: &TensorSource) -> Vec<f32> {
        let mut bytes = vec![0; source.byte_len()];
        read_all(source, &mut bytes).unwrap();
        bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect()
    }

    #[test]
    fn rows_are_widened_moved_up_and_turned() {
        let values: Vec<f32> = (0..6).map(|i| i as f32 / 4.0).collect();
        let file = written(&values);
        let plain = source(&file, 2, 3);
        assert_eq!(floats(&plain), values);
        let up: Vec<f32> = values.iter().map(|v| v + 1.0).collect();
        assert_eq!(floats(&TensorSource { change: Change::PlusOne, ..plain.clone() }), up);
        // The file has 2 x 3, the tensor is 3 x 2.
        let turned = TensorSource { rows: 3, cols: 2, change: Change::Transposed, ..plain };
        assert_eq!(floats(&turned), [0.0, 0.75, 0.25, 1.0, 0.5, 1.25]);
    }

    #[test]
    fn a_scale_beside_it_multiplies_each_matrix() {
        // Two matrices of two rows, and the scale of each behind them.
        let mut file = written(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
        for scale in [0.5_f32, f32::NAN] {
            file.write_all(&scale.to_le_bytes()).unwrap();
        }
        let change = Change::Scaled { path: file.path().to_owned(), offset: 3 + 16 };
        let both = TensorSource { matrices: 2, change, ..source(&file, 2, 2) };
        assert_eq!(floats(&both.matrix(0)), [0.5, 1.0, 1.5, 2.0]);
        let error = RowReader::open(&both.matrix(1)).unwrap().next_row().unwrap_err().to_string();
        assert_eq!(error, "tensor t[1]: holds a number that is not finite");
        let gone = Change::Scaled { path: file.path().to_owned(), offset: 3 + 24 };
        assert!(RowReader::open(&TensorSource { change: gone, ..both }).is_err());
    }

    #[test]
    fn many_rows_come_through_the_buffer_in_order() {
        let (rows, cols) = (3_000, 250);
        let values: Vec<f32> = (0..rows * cols).map(|i| (i % 251) as f32).collect();
        let file = written(&values);
        assert!(floats(&source(&file, rows, cols)) == values);
        let turned = floats(&TensorSource {
            rows: cols,
            cols: rows,
            change: Change::Transposed,
            ..source(&file, rows, cols)
        });
        assert!((0..rows * cols).all(|i| turned[i] == values[i % rows * cols + i / rows]));
    }

    #[test]
    fn what_is_not_finite_is_no_weight() {
        let mut values = vec![1.0; 64];
        values[40] = f32::INFINITY;
        let file = written(&values);
        let source = TensorSource { kind: BlockType::Q8_0, ..source(&file, 2, 32) };
        let mut reader = RowReader::open(&source).unwrap();
        let error = reader.next_row().unwrap_err().to_string();
        assert_eq!(error, "tensor t: holds a number that is not finite");
    }

    #[test]
    fn blocks_come_close() {
        let values: Vec<f32> = (0..512).map(|i| ((i * 37) % 101) as f32 / 64.0 - 0.8).collect();
        let file = written(&values);
        for (kind, within) in
            [(BlockType::Q8_0, 0.004), (BlockType::Q6K, 0.02), (BlockType::Q4K, 0.06)]
        {
            let source = TensorSource { kind, ..source(&file, 2, 256) };
            let mut bytes = vec![0; source.byte_len()];
            read_all(&source, &mut bytes).unwrap();
            let mut got = vec![0.0; 512];
            crate::backend::cpu::quant::dequantize_row(kind, &bytes, &mut got);
            for (got, want) in got.iter().zip(&values) {
                assert!((got - want).abs() < within, "{kind:?}: {got} for {want}");
            }
        }
    }
}

//! Rows of a tensor from its file, in order, through a buffer of a fixed size: loading never holds a tensor twice.
//! What the file has in another form than the backend takes is converted on the way.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use super::coded::{self, repack};
use super::convert::encode;
use super::cpu::quant;
use super::{BackendError, BlockType, Change, Exponents, Stored, TensorSource};

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

/// Rows that are read at once.
#[derive(Clone, Copy)]
struct Strip {
    rows: usize,
    /// Which row of the file (or column, where it is turned) the first one is, and how far apart they are.
    first: usize,
    step: usize,
}

impl Strip {
    /// Rows of the file from the first to the last of these.
    fn span(self) -> usize {
        (self.rows - 1) * self.step + 1
    }
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
        let outputs = if source.rows == 1 { source.cols } else { source.rows };
        if source.change.separates() && !outputs.is_multiple_of(2) {
            return Err(source.fault(format!("has {outputs} rows, not two in turn")));
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
        let strip = self.strip();
        self.at = 0;
        if source.is_stored_as_taken() {
            self.buffer.resize(strip.rows * source.row_bytes(), 0);
            let start = source.offset + (self.read * source.row_bytes()) as u64;
            read_at(&mut self.file, start, &mut self.buffer).map_err(|e| source.fault(e))?;
        } else if let Stored::Coded(coded) = source.stored
            && source.kind == coded.kept_as()
            && source.has_whole_rows()
        {
            self.stored_rows(strip).map_err(|e| source.fault(e))?;
            self.buffer.clear();
            repack(coded, self.factor, &self.stored, &mut self.buffer)
                .map_err(|e| source.fault(e))?;
        } else {
            self.values.resize(strip.rows * source.cols, 0.0);
            if source.change.transposes() { self.columns(strip) } else { self.rows(strip) }
                .map_err(|e| source.fault(e))?;
            self.convert()?;
        }
        self.read += strip.rows;
        Ok(())
    }

    /// The next rows that one buffer takes.
    fn strip(&self) -> Strip {
        let source = self.source;
        let room = if source.change.transposes() { STRIP_BYTES } else { BUFFER_BYTES };
        let most = room / source.stored_row_bytes();
        let rows = |left: usize| most.clamp(1, left.max(1));
        if source.change.separates() && source.rows > 1 {
            let half = source.rows / 2;
            let (second, at) = (self.read / half, self.read % half);
            return Strip { rows: rows(half - at), first: 2 * at + second, step: 2 };
        }
        Strip { rows: rows(source.rows - self.read), first: self.read, step: 1 }
    }

    /// Reads the next rows into `stored`, in whole blocks, one row after the other.
    fn stored_rows(&mut self, strip: Strip) -> std::io::Result<()> {
        let source = self.source;
        let row_bytes = source.stored_row_bytes();
        self.stored.resize(strip.span() * row_bytes, 0);
        let start = source.offset + (strip.first * row_bytes) as u64;
        read_at(&mut self.file, start, &mut self.stored)?;
        for row in 1..strip.rows {
            let from = row * strip.step * row_bytes;
            self.stored.copy_within(from..from + row_bytes, row * row_bytes);
        }
        self.stored.truncate(strip.rows * row_bytes);
        match &source.exponents {
            Some(exponents) => self.join(strip, exponents),
            None => Ok(()),
        }
    }

    /// Makes blocks of the numbers in `stored` and the exponents that lie apart: those of `MXFP4`, as a GGUF has them.
    fn join(&mut self, strip: Strip, exponents: &Exponents) -> std::io::Result<()> {
        let blocks = self.source.row_blocks();
        let mut apart = vec![0; strip.span() * blocks];
        let start = exponents.offset + (strip.first * blocks) as u64;
        read_at(&mut File::open(&exponents.path)?, start, &mut apart)?;
        let apart = apart.chunks_exact(blocks).step_by(strip.step).flatten();
        let joined = self.stored.as_chunks().0.iter().zip(apart);
        self.stored = joined
            .flat_map(|(pairs, &exponent)| std::iter::once(exponent).chain(halves(pairs)))
            .collect();
        Ok(())
    }

    /// Reads the next rows into `values`.
    fn rows(&mut self, strip: Strip) -> std::io::Result<()> {
        self.stored_rows(strip)?;
        let source = self.source;
        let rows = self.stored.chunks_exact(source.row_blocks() * source.stored.block_bytes());
        for (bytes, out) in rows.zip(self.values.chunks_exact_mut(source.cols)) {
            dequantize_row(source.stored, bytes, out);
        }
        if source.change.separates() && source.rows == 1 {
            let (first, second): (Vec<f32>, Vec<f32>) =
                self.values.as_chunks().0.iter().map(|&[a, b]| (a, b)).unzip();
            self.values = [first, second].concat();
        }
        Ok(())
    }

    /// The same where the file has them as columns: of each of its rows, the piece that is in the strip.
    fn columns(&mut self, strip: Strip) -> std::io::Result<()> {
        let source = self.source;
        let width = source.stored.block_bytes();
        self.stored.resize(strip.span() * width, 0);
        let mut column = vec![0.0; strip.span()];
        for k in 0..source.cols {
            let start = source.offset + ((k * source.rows + strip.first) * width) as u64;
            read_at(&mut self.file, start, &mut self.stored)?;
            dequantize_row(source.stored, &self.stored, &mut column);
            let rows = self.values.chunks_exact_mut(source.cols);
            for (row, &value) in rows.zip(column.iter().step_by(strip.step)) {
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
            Change::None | Change::Transposed | Change::Separated | Change::TransposedSeparated => {
            }
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

/// Four bits a number, from neighbours in a byte to the order that GGUF has: number j beside number 16 + j.
fn halves(pairs: &[u8; 16]) -> [u8; 16] {
    let number = |k: usize| pairs[k / 2] >> (4 * (k % 2)) & 15;
    std::array::from_fn(|j| number(j) | number(16 + j) << 4)
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

/// All numbers of a tensor as F32, those of several matrices one after the other.
///
/// # Errors
/// Its file cannot be read, or holds what is no number.
pub fn read_floats(source: &TensorSource) -> Result<Vec<f32>, BackendError> {
    let mut all = Vec::with_capacity(source.matrices * source.rows * source.cols);
    let rows = source.matrices * source.rows;
    let stacked = TensorSource { kind: BlockType::F32, matrices: 1, rows, ..source.clone() };
    let mut reader = RowReader::open(&stacked)?;
    for _ in 0..rows {
        let row = reader.next_row()?.as_chunks().0.iter();
        all.extend(row.map(|&bytes| f32::from_le_bytes(bytes)));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Coded;
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
            exponents: None,
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
    fn two_in_turn_come_one_after_the_other() {
        let values: Vec<f32> = (0..8).map(|i| i as f32).collect();
        let file = written(&values);
        let four = TensorSource { change: Change::Separated, ..source(&file, 4, 2) };
        assert_eq!(floats(&four), [0.0, 1.0, 4.0, 5.0, 2.0, 3.0, 6.0, 7.0]);
        let vector = TensorSource { rows: 1, cols: 8, ..four.clone() };
        assert_eq!(floats(&vector), [0.0, 2.0, 4.0, 6.0, 1.0, 3.0, 5.0, 7.0]);
        // The file has 2 x 4.
        let turned = TensorSource { change: Change::TransposedSeparated, ..four.clone() };
        assert_eq!(floats(&turned), [0.0, 4.0, 2.0, 6.0, 1.0, 5.0, 3.0, 7.0]);
        let odd = TensorSource { rows: 3, ..four };
        assert!(RowReader::open(&odd).is_err());
    }

    #[test]
    fn exponents_that_lie_apart_join_their_blocks() {
        // Two matrices of two rows of one block each: number k of block b is k + b, of four bits.
        let numbers = |b: u8| (0..16).map(move |j| (2 * j + b) & 15 | ((2 * j + 1 + b) & 15) << 4);
        let bytes: Vec<u8> = (0..4).flat_map(numbers).chain([120, 121, 122, 123]).collect();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&bytes).unwrap();
        let path = file.path().to_owned();
        let all = TensorSource {
            offset: 0,
            stored: Coded::Mxfp4.into(),
            kind: BlockType::Q8_0,
            matrices: 2,
            change: Change::Separated,
            exponents: Some(Exponents { path, offset: 64 }),
            ..source(&file, 2, 32)
        };
        assert_eq!(all.stored_len(), 64);
        assert_eq!(all.row_bytes(), 34);
        // The same as a GGUF has it, rows as they come out.
        let mut together = tempfile::NamedTempFile::new().unwrap();
        for b in [0, 1, 2, 3_u8] {
            let number = |k: u8| (k + b) & 15;
            together.write_all(&[120 + b]).unwrap();
            let block: Vec<u8> = (0..16).map(|j| number(j) | number(16 + j) << 4).collect();
            together.write_all(&block).unwrap();
        }
        let same = TensorSource {
            path: together.path().to_owned(),
            change: Change::None,
            exponents: None,
            ..all.clone()
        };
        for kind in [BlockType::Q8_0, BlockType::F32] {
            for matrix in [0, 1] {
                let read = |source: &TensorSource| {
                    let source = TensorSource { kind, ..source.matrix(matrix) };
                    let mut bytes = vec![0; source.byte_len()];
                    read_all(&source, &mut bytes).unwrap();
                    bytes
                };
                assert!(read(&all) == read(&same), "{kind:?} {matrix}");
            }
        }
        // Four rows, of which every second comes first.
        let four = TensorSource { matrices: 1, rows: 4, ..all };
        let mut rows = vec![0; 4 * 34];
        read_all(&four, &mut rows).unwrap();
        for (row, from) in rows.chunks(34).zip([0, 2, 1, 3]) {
            let mut expected = vec![0; 34];
            let one =
                TensorSource { rows: 1, change: Change::None, offset: 17 * from, ..same.clone() };
            read_all(&one.matrix(0), &mut expected).unwrap();
            assert!(row == expected, "{from}");
        }
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
        let apart = |change, rows, cols| {
            floats(&TensorSource { rows, cols, change, ..source(&file, rows, cols) })
        };
        let before = |row: usize, of: usize| row % (of / 2) * 2 + row / (of / 2);
        let got = apart(Change::Separated, rows, cols);
        assert!(
            (0..rows * cols).all(|i| got[i] == values[before(i / cols, rows) * cols + i % cols])
        );
        let got = apart(Change::TransposedSeparated, cols, rows);
        assert!(
            (0..rows * cols).all(|i| got[i] == values[i % rows * cols + before(i / rows, cols)])
        );
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

//! Rows of a tensor from its file, in order, through a buffer of a fixed size: loading never holds a tensor twice.
//! What the file has in another form than the backend takes is converted on the way.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use half::f16;

use super::coded::{self, repack};
use super::convert::encode;
use super::cpu::quant;
use super::finite::are_finite;
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
        } else if let Some(coded) = source.repacked() {
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
        if are_finite(source.kind, &self.buffer) {
            Ok(())
        } else if source.stored == Stored::Block(source.kind) {
            Err(source.fault("holds a number that is not finite"))
        } else {
            Err(self.too_large())
        }
    }

    fn too_large(&self) -> BackendError {
        let kind = self.source.kind.label();
        self.source.fault(format!("holds a number that is too large for {kind}"))
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
        // Nor have they one for what is larger than their scales: sums overflow while the best one is looked for.
        let is_too_large = |v: &f32| v.abs() > f16::MAX.to_f32();
        if source.kind.block_len() > 1 && self.values.iter().any(is_too_large) {
            return Err(self.too_large());
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
mod tests;

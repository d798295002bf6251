//! Reads the pieces of a GGUF header in order, never past its end, never more than is there.

use std::io::{self, Read};

use super::metadata::Value;

/// No header is larger: the largest vocabularies of 2026 make about 20 MB. This bounds what a
/// hostile file, sparse ones included, can make us hold.
const MAX_HEADER_BYTES: u64 = 128 << 20;
/// Elements of all arrays together: half as many again as Gemma's 262,144 tokens with scores, types and 515,000 merges.
/// A string of one letter takes six times its bytes in the file.
const MAX_ARRAY_ELEMENTS: u64 = 2 << 20;
/// Keys and names; the format says 65,535.
const MAX_NAME_BYTES: u64 = 65_535;
const MAX_NESTING: usize = 4;

/// Value types by number, as ggml's `enum gguf_type` has them.
mod kind {
    pub(super) const U8: u32 = 0;
    pub(super) const I8: u32 = 1;
    pub(super) const U16: u32 = 2;
    pub(super) const I16: u32 = 3;
    pub(super) const U32: u32 = 4;
    pub(super) const I32: u32 = 5;
    pub(super) const F32: u32 = 6;
    pub(super) const BOOL: u32 = 7;
    pub(super) const STRING: u32 = 8;
    pub(super) const ARRAY: u32 = 9;
    pub(super) const U64: u32 = 10;
    pub(super) const I64: u32 = 11;
    pub(super) const F64: u32 = 12;
}

/// Bytes of a value of fixed size.
fn fixed_bytes(kind: u32) -> Option<usize> {
    match kind {
        kind::U8 | kind::I8 | kind::BOOL => Some(1),
        kind::U16 | kind::I16 => Some(2),
        kind::U32 | kind::I32 | kind::F32 => Some(4),
        kind::U64 | kind::I64 | kind::F64 => Some(8),
        _ => None,
    }
}

/// A position in the header. Errors are reasons without a subject: the caller knows what it read.
pub(super) struct Reader<R> {
    input: R,
    file_bytes: u64,
    at: u64,
    elements: u64,
}

impl<R: Read> Reader<R> {
    /// `file_bytes` is what the input really holds.
    pub(super) fn new(input: R, file_bytes: u64) -> Self {
        Self { input, file_bytes, at: 0, elements: 0 }
    }

    /// Bytes read so far.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Whether `count` things of at least `each` bytes can still follow.
    pub(super) fn holds(&self, count: u64, each: u64) -> bool {
        count.checked_mul(each).is_some_and(|bytes| bytes <= self.file_bytes - self.at)
    }

    /// Moves on by `bytes`, if they are there.
    fn advance(&mut self, bytes: u64) -> Result<(), String> {
        if bytes > self.file_bytes - self.at {
            let left = self.file_bytes - self.at;
            return Err(format!("needs {bytes} bytes where the file has {left} left"));
        }
        if bytes > MAX_HEADER_BYTES.saturating_sub(self.at) {
            return Err(format!("makes the header larger than {} MiB", MAX_HEADER_BYTES >> 20));
        }
        self.at += bytes;
        Ok(())
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        self.advance(N as u64)?;
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes).map_err(|e| unreadable(&e))?;
        Ok(bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, String> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, String> {
        self.array().map(u64::from_le_bytes)
    }

    fn bytes(&mut self, len: u64) -> Result<Vec<u8>, String> {
        self.advance(len)?;
        let mut bytes = vec![0; len as usize];
        self.input.read_exact(&mut bytes).map_err(|e| unreadable(&e))?;
        Ok(bytes)
    }

    fn skip(&mut self, len: u64) -> Result<(), String> {
        self.advance(len)?;
        let skipped = io::copy(&mut self.input.by_ref().take(len), &mut io::sink());
        match skipped.map_err(|e| unreadable(&e))? {
            n if n == len => Ok(()),
            _ => Err(unreadable(&io::ErrorKind::UnexpectedEof.into())),
        }
    }

    /// A key or the name of a tensor.
    pub(super) fn name(&mut self) -> Result<String, String> {
        let len = self.u64()?;
        if len > MAX_NAME_BYTES {
            return Err(format!("has a name of {len} bytes, above {MAX_NAME_BYTES}"));
        }
        String::from_utf8(self.bytes(len)?).map_err(|_| "has a name that is not UTF-8".to_owned())
    }

    fn string(&mut self) -> Result<Option<String>, String> {
        let len = self.u64()?;
        Ok(String::from_utf8(self.bytes(len)?).ok())
    }

    /// A metadata value, from its type number on.
    pub(super) fn value(&mut self) -> Result<Value, String> {
        let kind = self.u32()?;
        Ok(match kind {
            kind::U8 => Value::U64(u8::from_le_bytes(self.array()?).into()),
            kind::U16 => Value::U64(u16::from_le_bytes(self.array()?).into()),
            kind::U32 => Value::U64(self.u32()?.into()),
            kind::U64 => Value::U64(self.u64()?),
            kind::I8 => Value::I64(i8::from_le_bytes(self.array()?).into()),
            kind::I16 => Value::I64(i16::from_le_bytes(self.array()?).into()),
            kind::I32 => Value::I64(i32::from_le_bytes(self.array()?).into()),
            kind::I64 => Value::I64(i64::from_le_bytes(self.array()?)),
            kind::F32 => Value::F64(f32::from_le_bytes(self.array()?).into()),
            kind::F64 => Value::F64(f64::from_le_bytes(self.array()?)),
            kind::BOOL => Value::Bool(self.array::<1>()? != [0]),
            kind::STRING => self.string()?.map_or(Value::NotUtf8, Value::String),
            kind::ARRAY => self.elements()?,
            _ => return Err(format!("has the unknown value type {kind}")),
        })
    }

    /// Type and length of an array, the latter held against what can still follow.
    fn array_head(&mut self) -> Result<(u32, u64), String> {
        let (kind, len) = (self.u32()?, self.u64()?);
        let each = match kind {
            kind::STRING => 8,
            kind::ARRAY => 12,
            _ => fixed_bytes(kind).ok_or_else(|| format!("has the unknown element type {kind}"))?
                as u64,
        };
        if !self.holds(len, each) {
            let left = self.file_bytes - self.at;
            return Err(format!("has {len} elements where the file has {left} bytes left"));
        }
        self.elements = self.elements.saturating_add(len);
        if self.elements > MAX_ARRAY_ELEMENTS {
            return Err(format!("takes the arrays above {MAX_ARRAY_ELEMENTS} elements"));
        }
        Ok((kind, len))
    }

    fn elements(&mut self) -> Result<Value, String> {
        let (kind, len) = self.array_head()?;
        let Some(each) = fixed_bytes(kind) else {
            return match kind {
                kind::STRING => self.strings(len),
                _ => self.skip_elements(kind, len, 1).map(|()| Value::Nested),
            };
        };
        let raw = self.bytes(len * each as u64)?;
        Ok(match kind {
            kind::U8 => Value::U64s(raw.iter().map(|&b| b.into()).collect()),
            kind::U16 => Value::U64s(convert(&raw, |b| u16::from_le_bytes(b).into())),
            kind::U32 => Value::U64s(convert(&raw, |b| u32::from_le_bytes(b).into())),
            kind::U64 => Value::U64s(convert(&raw, u64::from_le_bytes)),
            kind::I8 => Value::I64s(convert(&raw, |b| i8::from_le_bytes(b).into())),
            kind::I16 => Value::I64s(convert(&raw, |b| i16::from_le_bytes(b).into())),
            kind::I32 => Value::I64s(convert(&raw, |b| i32::from_le_bytes(b).into())),
            kind::I64 => Value::I64s(convert(&raw, i64::from_le_bytes)),
            kind::F32 => Value::F32s(convert(&raw, f32::from_le_bytes)),
            kind::F64 => Value::F32s(convert(&raw, |b| f64::from_le_bytes(b) as f32)),
            _ => Value::Bools(raw.iter().map(|&b| b != 0).collect()),
        })
    }

    fn strings(&mut self, len: u64) -> Result<Value, String> {
        let mut all = Some(Vec::with_capacity(len as usize));
        for _ in 0..len {
            match (self.string()?, &mut all) {
                (Some(text), Some(all)) => all.push(text),
                // One bad string spoils the array; the rest is read to get past it.
                _ => all = None,
            }
        }
        Ok(all.map_or(Value::NotUtf8, Value::Strings))
    }

    /// Gets past the elements of an array that nobody will use.
    fn skip_elements(&mut self, kind: u32, len: u64, depth: usize) -> Result<(), String> {
        if depth > MAX_NESTING {
            return Err(format!("has arrays nested more than {MAX_NESTING} deep"));
        }
        if let Some(each) = fixed_bytes(kind) {
            return self.skip(len * each as u64);
        }
        for _ in 0..len {
            if kind == kind::STRING {
                let bytes = self.u64()?;
                self.skip(bytes)?;
            } else {
                let (kind, len) = self.array_head()?;
                self.skip_elements(kind, len, depth + 1)?;
            }
        }
        Ok(())
    }
}

fn unreadable(e: &io::Error) -> String {
    format!("cannot be read: {e}")
}

fn convert<const N: usize, T>(raw: &[u8], from: impl Fn([u8; N]) -> T) -> Vec<T> {
    raw.as_chunks::<N>().0.iter().map(|&bytes| from(bytes)).collect()
}

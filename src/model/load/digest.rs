//! A fingerprint of a model file that is cheap enough for every start.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use sha2::{Digest, Sha256};

use super::gguf::ModelFile;

/// One piece of [`SAMPLE_BYTES`] is read of every such stretch of weights.
const STRIDE_BYTES: u64 = 1 << 20;
const SAMPLE_BYTES: u64 = 4096;

/// SHA-256, hexadecimal, over the size of each file, its header (which holds vocabulary, names and shapes)
/// and 4 KiB of every MiB after it: two trainings of one model differ in nearly every block of weights, so
/// that this tells them apart at a 256th of the price of reading everything. It tells files apart; it
/// does not prove that a file is whole.
pub fn digest(files: &[ModelFile]) -> io::Result<String> {
    let mut hash = Sha256::new();
    for file in files {
        add(&mut hash, file)?;
    }
    Ok(hex(&hash.finalize()))
}

fn add(hash: &mut Sha256, about: &ModelFile) -> io::Result<()> {
    let mut file = File::open(&about.path)?;
    let size = file.metadata()?.len();
    hash.update(size.to_le_bytes());
    let mut chunk = vec![0; STRIDE_BYTES as usize];
    let mut left = about.header_bytes.min(size);
    while left > 0 {
        let piece = &mut chunk[..left.min(STRIDE_BYTES) as usize];
        file.read_exact(piece)?;
        hash.update(&*piece);
        left -= piece.len() as u64;
    }
    let mut at = about.header_bytes;
    while at < size {
        let piece = &mut chunk[..SAMPLE_BYTES.min(size - at) as usize];
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(piece)?;
        hash.update(&*piece);
        at += STRIDE_BYTES;
    }
    Ok(())
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        // Writing to a string cannot fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_files_agree_and_others_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let mut bytes = vec![7u8; 3 << 20];
        let digest_of = |bytes: &[u8], header: u64| {
            std::fs::write(&path, bytes).unwrap();
            digest(&[ModelFile { path: path.clone(), header_bytes: header }]).unwrap()
        };
        let first = digest_of(&bytes, 1000);
        assert_eq!(first.len(), 64);
        assert_eq!(digest_of(&bytes, 1000), first);
        bytes[999] = 8;
        let header = digest_of(&bytes, 1000);
        assert_ne!(header, first);
        bytes[1000 + (1 << 20) + 5] = 8;
        let weights = digest_of(&bytes, 1000);
        assert_ne!(weights, header);
        bytes.push(7);
        assert_ne!(digest_of(&bytes, 1000), weights);
        assert_eq!(digest_of(&[], 0).len(), 64);
    }
}

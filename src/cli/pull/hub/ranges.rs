//! Which bytes of a file have come: it is cut into pieces, each filled from its beginning.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::cache::replace;
use super::small::read_small;
use crate::cli::pull::PullError;

/// Few pieces make few requests, many let all connections work to the end.
const PIECES: u64 = 64;
const MIN_PIECE_BYTES: u64 = 16 << 20;
/// So that the largest files, too, lose little work to a connection that must begin a piece again.
const MAX_PIECE_BYTES: u64 = 1 << 30;
/// Whatever size a hub claims: this bounds what is held, and the note.
const MAX_PIECES: u64 = 4096;
/// A number of at most twenty digits for each piece.
const MAX_NOTE_BYTES: usize = 128 << 10;
const HEADLINE: &str = "millrace ranges 1";

/// The pieces of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ranges {
    bytes: u64,
    piece_bytes: u64,
    /// Bytes of each piece that have come.
    done: Vec<u64>,
}

impl Ranges {
    /// Of a file of which the first `prefix` bytes are there.
    pub(super) fn new(bytes: u64, prefix: u64) -> Self {
        let piece_bytes = (bytes / PIECES).clamp(MIN_PIECE_BYTES, MAX_PIECE_BYTES);
        let piece_bytes = piece_bytes.max(bytes.div_ceil(MAX_PIECES));
        let starts = (0..bytes.div_ceil(piece_bytes)).map(|i| i * piece_bytes);
        let done =
            starts.map(|start| prefix.saturating_sub(start).min(piece_bytes).min(bytes - start));
        Self { bytes, piece_bytes, done: done.collect() }
    }

    /// As an earlier run noted it at `path`, if that is right for a file of so many bytes.
    pub(super) fn read(path: &Path, bytes: u64) -> Option<Self> {
        let text = read_small(path, MAX_NOTE_BYTES).ok()?;
        let mut lines = text.lines();
        let mut ranges = Self::new(bytes, 0);
        let head = [HEADLINE.to_owned(), bytes.to_string(), ranges.piece_bytes.to_string()];
        if head.iter().any(|line| lines.next() != Some(line)) {
            return None;
        }
        for index in 0..ranges.done.len() {
            let done = lines.next()?.parse().ok()?;
            if done > ranges.len(index) {
                return None;
            }
            ranges.done[index] = done;
        }
        lines.next().is_none().then_some(ranges)
    }

    /// Notes it at `path`.
    pub(super) fn write(&self, path: &Path) -> Result<(), PullError> {
        let mut text = format!("{HEADLINE}\n{}\n{}\n", self.bytes, self.piece_bytes);
        for done in &self.done {
            let _ = writeln!(text, "{done}");
        }
        replace(path, |new| fs::write(new, text))
    }

    pub(super) fn pieces(&self) -> usize {
        self.done.len()
    }

    fn len(&self, index: usize) -> u64 {
        self.piece_bytes.min(self.bytes - index as u64 * self.piece_bytes)
    }

    /// Where the rest of a piece begins and ends.
    pub(super) fn rest(&self, index: usize) -> (u64, u64) {
        let start = index as u64 * self.piece_bytes;
        (start + self.done[index], start + self.len(index))
    }

    /// `bytes` more of a piece came.
    pub(super) fn add(&mut self, index: usize, bytes: u64) {
        self.done[index] = (self.done[index] + bytes).min(self.len(index));
    }

    /// Bytes that have come.
    pub(super) fn total(&self) -> u64 {
        self.done.iter().sum()
    }

    pub(super) fn is_complete(&self) -> bool {
        self.total() == self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_is_noted_and_known_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("note");
        let bytes = (3 * MIN_PIECE_BYTES) + 5;
        let mut ranges = Ranges::new(bytes, MIN_PIECE_BYTES + 7);
        assert_eq!(ranges.pieces(), 4);
        assert_eq!(ranges.rest(0), (MIN_PIECE_BYTES, MIN_PIECE_BYTES));
        assert_eq!(ranges.rest(1), (MIN_PIECE_BYTES + 7, 2 * MIN_PIECE_BYTES));
        assert_eq!(ranges.rest(3), (3 * MIN_PIECE_BYTES, bytes));
        ranges.add(3, 2);
        assert_eq!(ranges.total(), MIN_PIECE_BYTES + 9);
        ranges.write(&path).unwrap();
        assert_eq!(Ranges::read(&path, bytes), Some(ranges.clone()));
        ranges.add(1, MIN_PIECE_BYTES);
        ranges.add(2, MIN_PIECE_BYTES);
        assert!(!ranges.is_complete());
        ranges.add(3, 3);
        assert!(ranges.is_complete());
        assert_eq!(Ranges::new(1 << 40, 0).pieces(), 1 << 10);
        let largest = Ranges::new(u64::MAX, u64::MAX);
        assert!(largest.pieces() == 4096 && largest.is_complete());
        assert_eq!(largest.rest(4095), (u64::MAX, u64::MAX));
        largest.write(&path).unwrap();
        assert_eq!(Ranges::read(&path, u64::MAX), Some(largest));
    }

    #[test]
    fn row_32_a_note_that_is_none_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("note");
        let bytes = (2 * MIN_PIECE_BYTES) + 5;
        assert_eq!(Ranges::read(&path, bytes), None);
        Ranges::new(bytes, 9).write(&path).unwrap();
        let right = fs::read_to_string(&path).unwrap();
        assert!(Ranges::read(&path, bytes).is_some() && Ranges::read(&path, bytes + 1).is_none());
        for wrong in [
            right.replacen("\n9\n", "\n99999999999\n", 1),
            right.replacen("\n9\n", "\n-9\n", 1),
            right.replacen("\n9\n", "\n", 1),
            right.replacen("ranges 1", "ranges 2", 1),
            format!("{right}0\n"),
            "x".repeat(MAX_NOTE_BYTES + 1),
            String::new(),
        ] {
            fs::write(&path, wrong).unwrap();
            assert_eq!(Ranges::read(&path, bytes), None);
        }
    }
}

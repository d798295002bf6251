//! Request heads that somebody else may read otherwise.
//!
//! hyper takes a bare LF for the end of a line, and a `Transfer-Encoding` instead of a `Content-Length`
//! that stands beside it, as RFC 9112 allows. A proxy in front may have done neither, and then both see
//! different requests in the same bytes. Such a request is the last of its connection, so that what
//! follows it is never taken for another client's. So is one whose head came behind the body of another
//! (pipelined): nobody looked at it here.

/// Follows the heads of a connection, piece by piece.
#[derive(Debug, Default)]
pub(super) struct Heads {
    place: Place,
    /// The beginning of the line, in lower case.
    name: Name,
    has_length: bool,
    has_coding: bool,
    /// Heads that were followed to their end.
    pub(super) ended: usize,
    /// One of them can be read in two ways.
    pub(super) are_ambiguous: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Place {
    /// Before the request line: empty lines are skipped.
    #[default]
    Before,
    /// In a line that has had nothing but a CR so far, or more.
    LineStart,
    Line,
    /// Behind a head that has a body: what comes with it is not looked at.
    Behind,
}

/// Longest name that is looked for.
const LONGEST_NAME: usize = b"transfer-encoding:".len();

#[derive(Debug, Default)]
struct Name {
    bytes: [u8; LONGEST_NAME],
    len: usize,
    /// The byte before was CR.
    cr: bool,
}

impl Name {
    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.len) {
            *place = byte.to_ascii_lowercase();
        }
        self.len += 1;
    }

    fn is(&self, name: &[u8]) -> bool {
        self.bytes.get(..self.len) == Some(name)
    }
}

impl Heads {
    /// Bytes that came while no request was being answered: a head, a part of one, or more.
    pub(super) fn read(&mut self, bytes: &[u8]) {
        if self.place == Place::Behind {
            self.place = Place::Before;
        }
        for &byte in bytes {
            match byte {
                b'\n' => self.end_line(),
                b'\r' => {}
                _ if self.place == Place::Behind => return,
                _ => {
                    self.place = Place::Line;
                    self.name.push(byte);
                    self.has_length |= self.name.is(b"content-length:");
                    self.has_coding |= self.name.is(b"transfer-encoding:");
                }
            }
            self.name.cr = byte == b'\r';
        }
    }

    fn end_line(&mut self) {
        if self.place == Place::Behind {
            return;
        }
        self.are_ambiguous |= !self.name.cr;
        self.name.len = 0;
        match self.place {
            Place::Line => self.place = Place::LineStart,
            Place::LineStart => self.end_head(),
            Place::Before | Place::Behind => {}
        }
    }

    fn end_head(&mut self) {
        self.ended += 1;
        self.are_ambiguous |= self.has_length && self.has_coding;
        let has_body = self.has_length || self.has_coding;
        (self.has_length, self.has_coding) = (false, false);
        self.place = if has_body { Place::Behind } else { Place::Before };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Heads that ended and whether one is ambiguous, however the bytes are cut.
    fn follow(bytes: &str) -> (usize, bool) {
        let results = (0..=bytes.len()).map(|cut| {
            let mut heads = Heads::default();
            let (first, second) = bytes.as_bytes().split_at(cut);
            heads.read(first);
            heads.read(second);
            (heads.ended, heads.are_ambiguous)
        });
        let mut results = results.collect::<Vec<_>>();
        results.dedup();
        assert_eq!(results.len(), 1, "{bytes:?}: {results:?}");
        results[0]
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_seen_wherever_it_stands() {
        for (bytes, expected) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", (1, false)),
            ("GET / HTTP/1.1\nHost: a\r\n\r\n", (1, true)),
            ("GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", (1, true)),
            ("GET / HTTP/1.1\r\nHost: a\r\n\n", (1, true)),
            ("GET / HTTP/1.1\n\n", (1, true)),
            ("\nGET / HTTP/1.1\r\n\r\n", (1, true)),
            ("\r\nGET / HTTP/1.1\r\n\r\n", (1, false)),
            ("GET / HTTP/1.1\r\nHost: a\r\n", (0, false)),
            ("GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n", (2, false)),
            ("GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\n\r\n", (2, true)),
            ("POST / HTTP/1.1\r\ncontent-LENGTH: 1\r\n\r\n", (1, false)),
            (
                "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                (1, true),
            ),
            ("POST / HTTP/1.1\r\ntransfer-encoding:chunked\r\ncontent-length:1\r\n\r\n", (1, true)),
            (
                "POST / HTTP/1.1\r\nX-Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                (1, false),
            ),
        ] {
            assert_eq!(follow(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn bodies_are_their_own_business() {
        let mut heads = Heads::default();
        let post = "POST / HTTP/1.1\r\nContent-Length: 30\r\n\r\n";
        heads.read(format!("{post}body\nwith\n\nTransfer-Encoding:\n").as_bytes());
        assert_eq!((heads.ended, heads.are_ambiguous), (1, false));
        heads.read(format!("{post}{post}").as_bytes());
        assert_eq!((heads.ended, heads.are_ambiguous), (2, false), "what comes behind is not seen");
    }
}

//! Server-sent events as they come off the wire, in pieces of any size.

/// Longest event that is taken: no server sends one, and a stream without ends of lines must not fill the memory.
const MAX_EVENT_BYTES: usize = 8 << 20;

/// Puts the pieces of a stream together; gives out the data of whole events.
#[derive(Debug, Default)]
pub(super) struct Parser {
    /// The line that has not ended.
    line: Vec<u8>,
    /// Data of the event that has not ended.
    data: Vec<u8>,
    has_data: bool,
    /// The last byte was a CR, so that an LF now belongs to it.
    after_cr: bool,
    /// Something came, so that a byte order mark is none.
    begun: bool,
}

/// An event longer than any that could be meant.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong;

impl Parser {
    /// Takes a piece; `event` gets the data of each event that ends in it.
    pub(super) fn take(
        &mut self,
        piece: &[u8],
        mut event: impl FnMut(&[u8]),
    ) -> Result<(), TooLong> {
        let mut rest = piece;
        while !rest.is_empty() {
            if std::mem::take(&mut self.after_cr) && rest[0] == b'\n' {
                rest = &rest[1..];
                continue;
            }
            let end = rest.iter().position(|&b| b == b'\n' || b == b'\r');
            self.line.extend_from_slice(&rest[..end.unwrap_or(rest.len())]);
            if self.line.len() + self.data.len() > MAX_EVENT_BYTES {
                return Err(TooLong);
            }
            let Some(end) = end else { break };
            self.after_cr = rest[end] == b'\r';
            rest = &rest[end + 1..];
            self.end_line(&mut event);
        }
        Ok(())
    }

    /// What a stream left that ended behind a line and without the empty one: some servers do.
    pub(super) fn finish(&mut self, mut event: impl FnMut(&[u8])) {
        if !self.line.is_empty() {
            self.end_line(&mut event);
        }
        self.end_line(&mut event);
    }

    fn end_line(&mut self, event: &mut impl FnMut(&[u8])) {
        let mut line = std::mem::take(&mut self.line);
        let text = if self.begun {
            &line[..]
        } else {
            line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line)
        };
        self.begun = true;
        if text.is_empty() {
            if std::mem::take(&mut self.has_data) {
                event(&self.data);
            }
            self.data.clear();
        } else if let Some(value) = text.strip_prefix(b"data") {
            // Other fields (`event`, `id`, `retry`) and comments say nothing about tokens.
            let value = match value {
                [] => Some(value),
                [b':', b' ', value @ ..] | [b':', value @ ..] => Some(value),
                _ => None,
            };
            if let Some(value) = value {
                if self.has_data {
                    self.data.push(b'\n');
                }
                self.has_data = true;
                self.data.extend_from_slice(value);
            }
        }
        // Its memory is for the next line.
        line.clear();
        self.line = line;
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use proptest::prelude::*;

    use super::{MAX_EVENT_BYTES, Parser, TooLong};

    fn events(pieces: &[&[u8]]) -> Vec<String> {
        let mut parser = Parser::default();
        let mut found = Vec::new();
        let mut event = |data: &[u8]| found.push(String::from_utf8(data.to_vec()).unwrap());
        for piece in pieces {
            parser.take(piece, &mut event).unwrap();
        }
        parser.finish(&mut event);
        found
    }

    #[test]
    fn what_is_no_data_is_skipped() {
        let text = b"\xef\xbb\xbf: hello\n\ndata: a\n\nevent: x\nid: 1\nretry: 5\ndata:b\n\n:ping\ndata\n\ndatabase: c\n\ndata:  d\ndata: e\n\n";
        assert_eq!(events(&[text]), ["a", "b", "", " d\ne"]);
    }

    #[test]
    fn lines_end_in_three_ways() {
        for end in ["\n", "\r\n", "\r"] {
            let text = format!("data: a{end}{end}: c{end}data: b{end}{end}data: [DONE]{end}");
            assert_eq!(events(&[text.as_bytes()]), ["a", "b", "[DONE]"], "{end:?}");
        }
    }

    #[test]
    fn an_event_without_end_is_refused() {
        let mut parser = Parser::default();
        let piece = vec![b'x'; MAX_EVENT_BYTES / 4];
        let outcome: Vec<_> = (0..5).map(|_| parser.take(&piece, |_| {})).collect();
        assert_eq!(outcome[..4], [Ok(()), Ok(()), Ok(()), Ok(())]);
        assert_eq!(outcome[4], Err(TooLong));
    }

    proptest! {
        /// However a stream is cut, the events are the same.
        #[test]
        fn cuts_do_not_matter(
            data in prop::collection::vec("[a-z é{}\":]{0,12}", 0..8),
            ends in prop::collection::vec(prop::sample::select(vec!["\n", "\r\n", "\r"]), 8),
            comments in prop::collection::vec(any::<bool>(), 8),
            cuts in prop::collection::vec(1_usize..9, 1..200),
        ) {
            let mut text = String::new();
            for (i, data) in data.iter().enumerate() {
                let end = ends[i];
                if comments[i] {
                    let _ = write!(text, ": ping{end}{end}");
                }
                let _ = write!(text, "data: {data}{end}{end}");
            }
            let mut rest = text.as_bytes();
            let mut pieces = Vec::new();
            for cut in cuts.iter().cycle().take(text.len()) {
                let (piece, left) = rest.split_at((*cut).min(rest.len()));
                pieces.push(piece);
                rest = left;
            }
            pieces.push(rest);
            prop_assert_eq!(events(&pieces), data);
        }
    }
}

//! The beginning of a file that is still at the hub, read as far as somebody asks for.

use std::io::{self, Read};

use http::StatusCode;
use http::header::CONTENT_RANGE;

use super::api::Remote;
use super::client::{Client, Fault, Span};
use crate::cli::pull::{Interrupt, PullError};

/// Ends of what is asked for, one request after the other. A directory of tensors alone takes some kilobytes, one with a
/// vocabulary a few megabytes; what no header needs is not fetched twice.
const ENDS: [u64; 5] = [64 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20];

/// Reads up to the last of [`ENDS`], and fails beyond it.
pub(super) struct Head<'a> {
    pub(super) client: &'a Client,
    pub(super) remote: &'a Remote,
    pub(super) interrupt: &'a Interrupt,
    /// Bytes asked for so far.
    pub(super) end: u64,
    /// What of them is still unread.
    pub(super) unread: io::Cursor<Vec<u8>>,
}

impl<'a> Head<'a> {
    pub(super) fn new(client: &'a Client, remote: &'a Remote, interrupt: &'a Interrupt) -> Self {
        Self { client, remote, interrupt, end: 0, unread: io::Cursor::default() }
    }

    fn ask(&self, to: u64) -> Result<Vec<u8>, Fault> {
        self.interrupt.check()?;
        let span = Span { from: self.end, to };
        let response = self.client.get_part(&self.remote.path, span, None)?;
        let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
        let is_part = range.is_some_and(|r| r.starts_with(&format!("bytes {}-", span.from)));
        if response.status() != StatusCode::PARTIAL_CONTENT || !is_part {
            return Err(Fault::last("the hub sends whole files only".to_owned()));
        }
        // One more than it should be, so that a wrong length is seen.
        let mut body = response.into_body().into_reader().take(to - span.from + 1);
        let mut bytes = Vec::new();
        let read = body.read_to_end(&mut bytes);
        match read {
            Ok(n) if n as u64 == to - span.from => Ok(bytes),
            Ok(n) => Err(Fault::last(format!("the hub sends {n} bytes of {}", to - span.from))),
            Err(e) => Err(Fault::passing(e.to_string())),
        }
    }
}

impl Read for Head<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.unread.read(buffer)?;
        if n > 0 || buffer.is_empty() || self.end == self.remote.bytes {
            return Ok(n);
        }
        let next = ENDS.into_iter().find(|&end| end > self.end);
        let next = next.ok_or_else(|| io::Error::other("the header is too long"))?;
        let to = next.min(self.remote.bytes);
        let bytes = self.ask(to).map_err(|fault| io::Error::other(PullError::from(fault)))?;
        self.unread = io::Cursor::new(bytes);
        self.end = to;
        self.unread.read(buffer)
    }
}

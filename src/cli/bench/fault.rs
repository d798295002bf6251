//! Why a request brought no answer.

use std::fmt;

use crate::cli::output::one_line;

/// What is counted apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    /// No connection: refused, unreachable, no TLS.
    Connect,
    /// The server answered with this status instead of a stream.
    Http(u16),
    /// The connection or the stream ended in the middle of the answer.
    Cut,
    /// The stream told of an error.
    ErrorEvent,
    /// What came is no stream of chunks.
    BadStream,
    /// `--timeout-s` was over.
    Timeout,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect => f.write_str("connect"),
            Self::Http(status) => write!(f, "http_{status}"),
            Self::Cut => f.write_str("cut"),
            Self::ErrorEvent => f.write_str("error_event"),
            Self::BadStream => f.write_str("bad_stream"),
            Self::Timeout => f.write_str("timeout"),
        }
    }
}

/// A request that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) kind: Kind,
    /// One line.
    pub(super) message: String,
}

impl Fault {
    pub(super) fn new(kind: Kind, message: &str) -> Self {
        Self { kind, message: one_line(message) }
    }
}

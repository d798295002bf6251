//! The key file: its format, and the checks before anything in it counts.

use std::collections::HashSet;
use std::fmt;
use std::num::NonZeroU32;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, OffsetDateTime, Time, UtcOffset};

use super::{Digest, KeyError};
use crate::telemetry::one_line;

/// Longest key id. It stands in logs and, with limits, in answers.
const MAX_ID_CHARS: usize = 64;

/// The highest limit a minute: above it, a token would be worth less than the clock can tell.
pub const MAX_LIMIT: u32 = 1_000_000_000;

/// Priorities lie between this and its negative.
pub const MAX_PRIORITY: i32 = 8;

/// A key file is a handful of lines a key; what is longer than this is something else.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// The whole file. `keys` must be there, so that a file caught while it was being rewritten (empty)
/// is an error and not "no keys".
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyFile {
    pub(super) keys: Vec<Entry>,
}

/// One key, as the file has it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The name that logs show: letters, digits and `._@:-`.
    pub id: String,
    /// SHA-256 of the secret, 64 hexadecimal digits in the file.
    #[serde(with = "hex")]
    pub sha256: Digest,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<Moment>,
    /// From here on the key is as good as a wrong one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<Moment>,
    /// Requests a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rpm: Option<NonZeroU32>,
    /// Tokens a minute, of prompts and answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tpm: Option<NonZeroU32>,
    /// Requests at one time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<NonZeroU32>,
    /// Lower is sooner: each point below 0 doubles the key's share of a busy server, each above halves it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// Model names that the key may use; all if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub models: Option<Vec<String>>,
}

impl Entry {
    /// A key that may do everything.
    pub(super) fn unlimited(id: &str, sha256: Digest) -> Self {
        Self {
            id: id.to_owned(),
            sha256,
            created: None,
            expires: None,
            rpm: None,
            tpm: None,
            concurrency: None,
            priority: None,
            models: None,
        }
    }
}

/// A point in time, in UTC: read from RFC 3339, or from a date alone, which means its first moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub OffsetDateTime);

impl Moment {
    /// The present, to the second, in UTC.
    pub fn now() -> Self {
        let now = OffsetDateTime::now_utc();
        Self(now.replace_nanosecond(0).unwrap_or(now))
    }
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let date = Date::parse(text, format_description!("[year]-[month]-[day]")).ok();
        let moment = date.map(|date| date.with_time(Time::MIDNIGHT).assume_utc()).or_else(|| {
            OffsetDateTime::parse(text, &Rfc3339).ok()?.checked_to_offset(UtcOffset::UTC)
        });
        // Within the years that it can be written in again: an offset may lead out of them.
        moment
            .filter(|moment| moment.year() >= 0)
            .map(Self)
            .ok_or_else(|| "not a date (2027-01-31) or a time (2027-01-31T12:00:00Z)".to_owned())
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.format(&Rfc3339).map_err(|_| fmt::Error)?;
        f.write_str(&text)
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        /// TOML has times of its own; people also write them as strings.
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Toml(toml::value::Datetime),
            Text(String),
        }
        let written = Written::deserialize(from).map_err(|_| de::Error::custom("not a time"))?;
        let text = match written {
            Written::Toml(datetime) => datetime.to_string(),
            Written::Text(text) => text,
        };
        text.parse().map_err(de::Error::custom)
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let datetime: toml::value::Datetime =
            self.to_string().parse().map_err(serde::ser::Error::custom)?;
        datetime.serialize(to)
    }
}

/// Digests as 64 hexadecimal digits. Errors never repeat the text: it may be a secret in the wrong
/// place.
mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de};

    use super::Digest;

    pub(super) fn serialize<S: Serializer>(digest: &Digest, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&super::to_hex(digest))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Digest, D::Error> {
        let text = String::deserialize(from)
            .map_err(|_| de::Error::custom("sha256 is not a string of 64 hexadecimal digits"))?;
        super::from_hex(&text)
            .ok_or_else(|| de::Error::custom("sha256 is not a string of 64 hexadecimal digits"))
    }
}

pub(super) fn to_hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|b| [b >> 4, b & 15])
        .map(|n| char::from(b"0123456789abcdef"[usize::from(n)]))
        .collect()
}

fn from_hex(text: &str) -> Option<Digest> {
    let mut digest = Digest::default();
    let digits = text.as_bytes();
    if digits.len() != 2 * digest.len() {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |c: u8| char::from(c).to_digit(16);
        *byte = u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()?;
    }
    Some(digest)
}

/// Reads and checks a key file. Refuses one that every user of the machine may read or write: what
/// is in it cannot be turned back into keys, but limits and names are nobody else's business, and a
/// writable one is an open door. A group may read it (Kubernetes mounts secrets `0440` with an
/// `fsGroup`).
pub(super) fn read(path: &Path) -> Result<KeyFile, KeyError> {
    let fail = |reason: String| KeyError::new(path, reason);
    let metadata = std::fs::metadata(path).map_err(|e| {
        let is_absent = e.kind() == std::io::ErrorKind::NotFound;
        let advice = if is_absent { "; `millrace keys add NAME --file FILE` makes it" } else { "" };
        fail(format!("{e}{advice}"))
    })?;
    if !metadata.is_file() {
        return Err(fail("not a file".to_owned()));
    }
    if metadata.len() > MAX_FILE_BYTES {
        return Err(fail(format!("more than {MAX_FILE_BYTES} bytes: not a key file")));
    }
    check_mode(&metadata).map_err(fail)?;
    parse(&std::fs::read_to_string(path).map_err(|e| fail(e.to_string()))?).map_err(fail)
}

#[cfg(unix)]
fn check_mode(metadata: &std::fs::Metadata) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = metadata.permissions().mode() & 0o777;
    let others = mode & 0o007;
    if others == 0 {
        return Ok(());
    }
    Err(format!("everybody on this machine may read or write it (mode {mode:04o}); chmod 600 it"))
}

#[cfg(not(unix))]
fn check_mode(_metadata: &std::fs::Metadata) -> Result<(), String> {
    Ok(())
}

/// Parses and checks. The error names a line and a field, and repeats nothing of the text.
pub(super) fn parse(text: &str) -> Result<KeyFile, String> {
    let file: KeyFile = toml::from_str(text).map_err(|e| {
        let line = e.span().map_or(1, |span| {
            1 + text.as_bytes().iter().take(span.start).filter(|&&b| b == b'\n').count()
        });
        format!("line {line}: {}", one_line(&without_text(e.message())))
    })?;
    check(&file)?;
    Ok(file)
}

/// Serde repeats wrong values in double quotes and unknown names in backticks; one of them may be a secret
/// in the wrong place, and have quotes of its own. What is expected, or is missing, are our own words.
fn without_text(message: &str) -> String {
    let expected = message.rfind(", expected ").unwrap_or(message.len());
    let ours = message.starts_with("missing field ");
    let shown = match message[..expected].find(['"', '`']) {
        Some(quote) if !ours => format!("{}…{}", &message[..quote], &message[expected..]),
        _ => message.to_owned(),
    };
    shown.lines().next().unwrap_or_default().to_owned()
}

pub(super) fn check(file: &KeyFile) -> Result<(), String> {
    let (mut ids, mut digests) = (HashSet::new(), HashSet::new());
    for (i, key) in file.keys.iter().enumerate() {
        check_id(&key.id).map_err(|reason| format!("key {}: {reason}", i + 1))?;
        if !ids.insert(&key.id) {
            return Err(format!("two keys have the id '{}'", key.id));
        }
        if !digests.insert(&key.sha256) {
            return Err(format!("key '{}' has the digest of another", key.id));
        }
        check_limits(key).map_err(|reason| format!("key '{}': {reason}", key.id))?;
    }
    Ok(())
}

fn check_limits(key: &Entry) -> Result<(), String> {
    for (name, limit) in [("rpm", key.rpm), ("tpm", key.tpm), ("concurrency", key.concurrency)] {
        if limit.is_some_and(|limit| limit.get() > MAX_LIMIT) {
            return Err(format!("{name} is at most {MAX_LIMIT}"));
        }
    }
    if key.priority.is_some_and(|p| !(-MAX_PRIORITY..=MAX_PRIORITY).contains(&p)) {
        return Err(format!("priority lies between -{MAX_PRIORITY} and {MAX_PRIORITY}"));
    }
    let models = key.models.as_deref();
    if models.is_some_and(<[String]>::is_empty) {
        return Err("models is empty: revoke the key, or name what it may use".to_owned());
    }
    if models.unwrap_or_default().iter().any(String::is_empty) {
        return Err("models has an empty name".to_owned());
    }
    // `keys list` shows them.
    if models.unwrap_or_default().iter().any(|name| name.chars().any(char::is_control)) {
        return Err("models has a name with control characters".to_owned());
    }
    Ok(())
}

/// Ids stand in logs: short, and nothing in them that could break a line or a field.
pub fn check_id(id: &str) -> Result<(), String> {
    let good = |c: char| c.is_ascii_alphanumeric() || "._@:-".contains(c);
    if id.is_empty() || id.len() > MAX_ID_CHARS || !id.chars().all(good) {
        return Err(format!("an id has 1 to {MAX_ID_CHARS} letters, digits and ._@:-"));
    }
    Ok(())
}

//! Which hub, and where its files are kept: the variables that the hub's own tools read.

use std::env::VarError;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use http::{HeaderValue, Uri};
use zeroize::Zeroizing;

use super::small::read_small;
use crate::cli::pull::PullError;

const USUAL_ENDPOINT: &str = "https://huggingface.co";
/// Far longer than any.
const MAX_TOKEN_BYTES: usize = 4 << 10;

/// A hub and the cache of its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) endpoint: Endpoint,
    /// Holds a folder for each repository.
    pub(super) cache: PathBuf,
    token_file: PathBuf,
    /// `HF_HUB_OFFLINE` is set.
    pub(super) is_offline: bool,
}

/// Those that are read here.
const VARIABLES: [&str; 6] =
    ["HF_ENDPOINT", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN", "HF_TOKEN_PATH"];

impl Place {
    pub(super) fn from_environment() -> Result<Self, String> {
        // Not the same as unset: another hub would be asked, or another folder used.
        let broken = |name: &&&str| matches!(std::env::var(name), Err(VarError::NotUnicode(_)));
        if let Some(name) = VARIABLES.iter().find(broken) {
            return Err(format!("{name} is not UTF-8"));
        }
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// As [`Place::from_environment`], with the environment given.
    pub(super) fn from_variables(get: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let set = |name: &str| get(name).filter(|value| !value.trim().is_empty());
        let path = |name: &str| {
            let expanded = set(name).map(|value| expanded(&value, &get));
            expanded.transpose().map_err(|reason| format!("{name}: {reason}"))
        };
        let home = match (path("HF_HOME")?, path("XDG_CACHE_HOME")?) {
            (Some(home), _) => home,
            (None, Some(caches)) => caches.join("huggingface"),
            (None, None) => Path::new(&set("HOME").unwrap_or_default()).join(".cache/huggingface"),
        };
        Ok(Self {
            endpoint: Endpoint::parse(set("HF_ENDPOINT").as_deref().unwrap_or(USUAL_ENDPOINT))?,
            cache: path("HF_HUB_CACHE")?.unwrap_or_else(|| home.join("hub")),
            token_file: path("HF_TOKEN_PATH")?.unwrap_or_else(|| home.join("token")),
            is_offline: is_offline(&get),
        })
    }

    /// What authorizes at the endpoint, if the user has a token: that of `HF_TOKEN`, else of the file
    /// that logging in writes.
    pub(super) fn authorization(&self) -> Result<Option<HeaderValue>, PullError> {
        let given = std::env::var("HF_TOKEN").ok().filter(|token| !token.trim().is_empty());
        let (token, source) = match given {
            Some(token) => (Zeroizing::new(token), "HF_TOKEN".to_owned()),
            None => match read_small(&self.token_file, MAX_TOKEN_BYTES) {
                Ok(token) => (Zeroizing::new(token), self.token_file.display().to_string()),
                Err(e) if is_absent(&e) => return Ok(None),
                Err(e) => return Err(PullError::io("cannot read", &self.token_file, &e)),
            },
        };
        let token = token.trim();
        if token.is_empty() {
            return Ok(None);
        }
        let sound = token.bytes().all(|b| b.is_ascii_graphic());
        let header = Zeroizing::new(format!("Bearer {token}"));
        let Some(mut header) = HeaderValue::from_str(&header).ok().filter(|_| sound) else {
            let reason = "a token is visible ASCII without spaces (it is not shown)";
            return Err(PullError::new(format!("{source}: {reason}")));
        };
        header.set_sensitive(true);
        if !self.endpoint.origin.is_https && !self.endpoint.origin.is_loopback() {
            return Err(PullError::new(format!(
                "HF_ENDPOINT is http, and the token of {source} would go over the network in clear: take \
                 an https endpoint, or the token away"
            )));
        }
        Ok(Some(header))
    }
}

/// Whether `HF_HUB_OFFLINE` is set to a yes.
pub(super) fn is_offline(get: impl Fn(&str) -> Option<String>) -> bool {
    get("HF_HUB_OFFLINE").is_some_and(|value| {
        ["1", "on", "yes", "true"].iter().any(|word| value.trim().eq_ignore_ascii_case(word))
    })
}

/// A path as the hub's own tools read it: first `~` at its beginning, then `$NAME` and `${NAME}`. What is
/// no variable stays as it stands, as it does there.
fn expanded(path: &str, get: impl Fn(&str) -> Option<String>) -> Result<PathBuf, String> {
    let path = match path.strip_prefix('~') {
        None => path.to_owned(),
        Some(below) if below.is_empty() || below.starts_with('/') => {
            let home = get("HOME").filter(|home| !home.is_empty());
            home.ok_or("HOME is not set, which ~ stands for")?.trim_end_matches('/').to_owned()
                + below
        }
        Some(_) => return Err(format!("{path:?}: write out another user's folder")),
    };
    let (mut out, mut rest) = (String::new(), path.as_str());
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let (name, behind) = variable(after);
        match name.and_then(&get) {
            Some(value) => out.push_str(&value),
            None => out.extend(["$", &after[..after.len() - behind.len()]]),
        }
        rest = behind;
    }
    Ok(PathBuf::from(out + rest))
}

/// The name that stands behind a `$`, if there is one, and what follows.
fn variable(text: &str) -> (Option<&str>, &str) {
    if let Some((name, behind)) = text.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
        return (Some(name).filter(|name| !name.is_empty()), behind);
    }
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let end = text.find(|c| !is_part(c)).unwrap_or(text.len());
    let (name, behind) = text.split_at(end);
    (Some(name).filter(|name| !name.is_empty()), behind)
}

fn is_absent(e: &std::io::Error) -> bool {
    matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}

/// Where a hub is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// Without a slash at the end.
    pub(super) url: String,
    pub(super) origin: Origin,
}

impl Endpoint {
    fn parse(text: &str) -> Result<Self, String> {
        let url = text.trim().trim_end_matches('/');
        if url.contains('@') {
            // What stands before it is a password, often.
            return Err(
                "HF_ENDPOINT: names and passwords have no place in it (it is not shown): set \
                        HF_TOKEN"
                    .to_owned(),
            );
        }
        let origin = url.parse().ok().and_then(|uri| Origin::of(&uri));
        match origin {
            Some(origin) if !url.contains(['?', '#']) => Ok(Self { url: url.to_owned(), origin }),
            _ => Err(format!("HF_ENDPOINT: {text:?} is not like {USUAL_ENDPOINT}")),
        }
    }
}

/// What a token belongs to: scheme, host and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) is_https: bool,
    host: String,
    port: u16,
}

impl Origin {
    /// Of http and https addresses alone, and never of one with a password in it.
    pub(super) fn of(uri: &Uri) -> Option<Self> {
        let is_https = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let (authority, host) = (uri.authority()?.as_str(), uri.host()?);
        if authority.contains('@') || host.is_empty() {
            return None;
        }
        let port = match authority.strip_prefix(host)? {
            "" | ":" => {
                if is_https {
                    443
                } else {
                    80
                }
            }
            // The library takes one that is none for the usual one.
            port => port.strip_prefix(':')?.parse().ok().filter(|&port| port != 0)?,
        };
        Some(Self { is_https, host: host.to_ascii_lowercase(), port })
    }

    pub(super) fn is_loopback(&self) -> bool {
        let bare = self.host.trim_start_matches('[').trim_end_matches(']');
        bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

impl fmt::Display for Origin {
    /// The host, and its port where that is not the usual one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)?;
        match (self.is_https, self.port) {
            (true, 443) | (false, 80) => Ok(()),
            (_, port) => write!(f, ":{port}"),
        }
    }
}

//! What a hub says of a repository and of a file in it.

use http::header::{CONTENT_LENGTH, ETAG};
use http::{HeaderMap, Response, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::Value;
use ureq::Body;

use super::client::{Client, Fault, answered_by};
use super::folder::is_of_folder;
use super::name::{HubName, is_commit, is_etag, is_gguf, is_plain_path};
use super::place::Origin;
use crate::cli::output::one_line;

/// Of the description of a repository. The largest list some ten thousand files.
const MAX_ANSWER_BYTES: u64 = 32 << 20;
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A revision of a repository.
#[derive(Debug)]
pub(super) struct Repository {
    pub(super) commit: String,
    /// Those whose names are plain paths.
    pub(super) files: Vec<Listed>,
    pub(super) licence: Option<String>,
}

/// A file as the list has it.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) path: String,
    pub(super) bytes: Option<u64>,
    sha256: Option<String>,
    /// The hash that git has of it, if it is in git itself.
    git: Option<String>,
}

/// What shows that a content is the right one. Hashes are in lower-case hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Check {
    Sha256(String),
    /// SHA-1 as git takes it: the length goes before the content.
    Git(String),
    /// The hub tells no more than its size.
    Size,
}

/// A file as it must come.
#[derive(Debug, Clone)]
pub(super) struct Remote {
    /// Behind the endpoint.
    pub(super) path: String,
    /// Names the content.
    pub(super) etag: String,
    pub(super) bytes: u64,
    pub(super) check: Check,
}

#[derive(Deserialize)]
struct Answer {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
    #[serde(default, rename = "cardData")]
    card: Value,
    #[serde(default)]
    tags: Value,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    #[serde(default, rename = "blobId")]
    blob_id: Value,
    #[serde(default)]
    lfs: Value,
}

/// Asks for the revision that `name` means.
pub(super) fn repository(client: &Client, name: &HubName) -> Result<Repository, Fault> {
    let revision = encoded(&name.revision);
    let path = format!("/api/models/{}/revision/{revision}?blobs=true", name.repository());
    let response = client.get(&path, 0)?;
    if response.status() == StatusCode::NOT_FOUND {
        return Err(missing(client, name, response.headers()));
    }
    let mut body = granted(client, name, response)?.into_body();
    let host = &client.endpoint.origin;
    let text = body.with_config().limit(MAX_ANSWER_BYTES).read_to_vec();
    let text = text.map_err(|e| match e {
        ureq::Error::BodyExceedsLimit(most) => {
            Fault::last(format!("{host} answers with more than {most} bytes"))
        }
        e => Fault::passing(format!("no whole answer from {host}: {e}")),
    })?;
    let answer: Answer = serde_json::from_slice(&text).map_err(|e| {
        Fault::last(format!("{host} does not answer like a hub (is HF_ENDPOINT right?): {e}"))
    })?;
    if !is_commit(&answer.sha) {
        return Err(Fault::last(format!("{host} names a commit that is none: {:?}", answer.sha)));
    }
    let files = answer.siblings.into_iter().filter_map(|sibling| listed(host, sibling).transpose());
    let files = files.collect::<Result<_, _>>()?;
    Ok(Repository { commit: answer.sha, files, licence: licence(&answer.card, &answer.tags) })
}

/// A file of the list. One that could be of a model must have a name that can be used; others are passed over.
fn listed(host: &Origin, sibling: Sibling) -> Result<Option<Listed>, Fault> {
    let path = sibling.rfilename;
    if !is_plain_path(&path) {
        if is_gguf(&path) || is_of_folder(&path) {
            let reason = "lists a file whose name is no plain path";
            return Err(Fault::last(format!("{host} {reason}: {path:?}")));
        }
        return Ok(None);
    }
    let hash = |value: &Value, is_hash: fn(&str) -> bool| {
        value.as_str().filter(|text| is_hash(text)).map(str::to_ascii_lowercase)
    };
    Ok(Some(Listed {
        path,
        bytes: sibling.size,
        sha256: hash(&sibling.lfs["sha256"], is_sha256),
        // Of what is kept elsewhere, git has a pointer to it.
        git: hash(&sibling.blob_id, is_sha1).filter(|_| !sibling.lfs.is_object()),
    }))
}

/// Asks what the content of `file` is.
pub(super) fn describe(
    client: &Client,
    name: &HubName,
    commit: &str,
    file: &Listed,
) -> Result<Remote, Fault> {
    let encoded = file.path.split('/').map(encoded).collect::<Vec<_>>().join("/");
    let path = format!("/{}/resolve/{commit}/{encoded}", name.repository());
    // The hub itself says what the file is; the storage that it sends to may not know.
    let response =
        client.head(&path, |response| response.headers().contains_key("x-linked-etag"))?;
    if response.status() == StatusCode::NOT_FOUND {
        let (host, file) = (&client.endpoint.origin, &file.path);
        return Err(Fault::last(format!("{host} lists {file} in {name}, but does not have it")));
    }
    let is_there = response.status().is_success() || response.status().is_redirection();
    let response = if is_there { response } else { granted(client, name, response)? };
    let headers = response.headers();
    let text = |name: &str| headers.get(name)?.to_str().ok();
    let etag = text("x-linked-etag").or_else(|| text(ETAG.as_str())).unwrap_or_default();
    let etag = etag.trim().trim_start_matches("W/").trim_matches('"');
    if !is_etag(etag) {
        let host = &client.endpoint.origin;
        return Err(Fault::last(format!("{host} does not tell the content of {}", file.path)));
    }
    let length = text(CONTENT_LENGTH.as_str()).filter(|_| response.status().is_success());
    let bytes = text("x-linked-size").or(length).and_then(|n| n.trim().parse().ok());
    let Some(bytes) = bytes.or(file.bytes) else {
        let host = &client.endpoint.origin;
        return Err(Fault::last(format!("{host} does not tell the size of {}", file.path)));
    };
    if bytes == 0 {
        return Err(Fault::last(format!(
            "{} of {name} has no bytes, so it is no model",
            file.path
        )));
    }
    let named = Some(etag.to_ascii_lowercase());
    let sha256 = named.clone().filter(|etag| is_sha256(etag)).or(file.sha256.clone());
    // Only where list and mark agree: some hubs mark contents in ways of their own.
    let git = named.filter(|etag| file.git.as_ref() == Some(etag));
    let check = sha256.map(Check::Sha256).or(git.map(Check::Git)).unwrap_or(Check::Size);
    Ok(Remote { path, etag: etag.to_owned(), bytes, check })
}

/// An answer with what was asked for, or why there is none.
pub(super) fn granted(
    client: &Client,
    name: &HubName,
    response: Response<Body>,
) -> Result<Response<Body>, Fault> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let repository = name.repository();
    let (hub, from) = (&client.endpoint.origin, answered_by(&response));
    if let Some(from) = from.filter(|from| *from != hub) {
        // Who may have the model was for the hub to say, and it said yes.
        let reason = format!("to which {hub} sends for {repository}, answers {status}");
        return Err(Fault::last(format!("{from}, {reason}")));
    }
    if !matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        return Err(Fault::last(format!("{hub} answers {status} to a request for {repository}")));
    }
    // Where no licence is to be accepted, the hub hides what is private like what does not exist.
    let hidden = said(response.headers()).is_some_and(|code| code != "GatedRepo");
    let what = match (client.has_token(), hidden) {
        (false, false) => format!("{repository} is gated"),
        (false, true) => format!("{repository} does not exist, or is private or gated"),
        (true, _) => format!("the token gives no access to {repository}"),
    };
    let url = format!("{}/{repository}", client.endpoint.url);
    Err(Fault::last(format!("{what}: accept the licence at {url} and set HF_TOKEN")))
}

/// Whether it is the repository or the revision that is not there.
fn missing(client: &Client, name: &HubName, headers: &HeaderMap) -> Fault {
    let (host, repository) = (&client.endpoint.origin, name.repository());
    let revision = &name.revision;
    let is_there = match said(headers) {
        Some("RevisionNotFound") => true,
        Some(_) => false,
        None => {
            let found = client.get(&format!("/api/models/{repository}"), 0);
            found.is_ok_and(|response| response.status().is_success())
        }
    };
    if is_there {
        return Fault::last(format!("{repository} has no revision {revision:?} at {host}"));
    }
    Fault::last(format!("{host} has no model {repository}, or it is private (then set HF_TOKEN)"))
}

/// The hub's own word for what is wrong.
fn said(headers: &HeaderMap) -> Option<&str> {
    headers.get("x-error-code")?.to_str().ok()
}

/// Of the model card, or of the tags made from it.
fn licence(card: &Value, tags: &Value) -> Option<String> {
    let mut tags = tags.as_array().into_iter().flatten().filter_map(Value::as_str);
    let tag = || tags.find_map(|tag| tag.strip_prefix("license:"));
    let licence = card["license"].as_str().or_else(tag)?;
    Some(one_line(licence)).filter(|licence| !licence.is_empty())
}

fn is_sha256(text: &str) -> bool {
    is_hash(text, 64)
}

fn is_sha1(text: &str) -> bool {
    is_hash(text, 40)
}

fn is_hash(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn encoded(component: &str) -> String {
    utf8_percent_encode(component, KEPT).to_string()
}

//! A hub of the test's own, and the storage that it sends to: two listeners, so that they are two
//! hosts to whoever asks. Each connection gets one answer.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use ring::digest;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::support::millrace;

pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
pub(crate) const NAME: &str = "maker/tiny";

/// What was asked. Names of headers are in lower case.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: BTreeMap<String, String>,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The first byte of its range, and the last one if that is named.
    fn range(&self) -> Option<(usize, Option<usize>)> {
        let (from, last) = self.header("range")?.strip_prefix("bytes=")?.split_once('-')?;
        Some((from.parse().unwrap(), last.parse().ok()))
    }

    pub(crate) fn from(&self) -> usize {
        self.range().map_or(0, |(from, _)| from)
    }

    /// Whether a part with an end is wanted: the beginning that tells what a model takes, or a piece of a large file.
    pub(crate) fn is_bounded(&self) -> bool {
        self.range().is_some_and(|(_, last)| last.is_some())
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    /// Ends the connection after as many bytes of the body.
    pub(crate) cut: Option<usize>,
    /// Keeps the connection open after that.
    pub(crate) hang: bool,
}

impl Answer {
    pub(crate) fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn json(value: &Value) -> Self {
        Self { body: value.to_string().into_bytes(), ..Self::status(200) }
    }

    /// Of `content` what was asked for.
    pub(crate) fn part(content: &[u8], asked: &Asked) -> Self {
        let all = content.len();
        let Some((from, last)) = asked.range() else {
            return Self { body: content.to_vec(), ..Self::status(200) };
        };
        let last = last.map_or(all - 1, |last| last.min(all - 1));
        let answer = Self { body: content[from..=last].to_vec(), ..Self::status(206) };
        answer.with("content-range", format!("bytes {from}-{last}/{all}"))
    }

    /// All of `content`, whatever was asked for.
    pub(crate) fn whole(content: &[u8]) -> Self {
        Self { body: content.to_vec(), ..Self::status(200) }
    }
}

/// A listener that notes what it is asked.
pub(crate) struct Host {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    connections: Arc<Mutex<usize>>,
    sent: Arc<AtomicUsize>,
}

impl Host {
    pub(crate) fn start(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        Self::listen(None, answer)
    }

    /// Over TLS, with a certificate that it puts into `folder`.
    pub(crate) fn start_tls(
        folder: &Path,
        answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let names = ["localhost", "127.0.0.1"].map(str::to_owned).to_vec();
        let pair = rcgen::generate_simple_self_signed(names).unwrap();
        std::fs::write(folder.join("cert.pem"), pair.cert.pem()).unwrap();
        let key = pair.signing_key.serialize_pem();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let certificate = CertificateDer::from_pem_slice(pair.cert.pem().as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        Self::listen(Some(Arc::new(config)), answer)
    }

    fn listen(
        tls: Option<Arc<ServerConfig>>,
        answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, connections) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(0)));
        let sent = Arc::new(AtomicUsize::new(0));
        let host = Self {
            address,
            asked: Arc::clone(&asked),
            connections: Arc::clone(&connections),
            sent: Arc::clone(&sent),
        };
        let answer = Arc::new(answer);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                *connections.lock().unwrap() += 1;
                let (tls, answer) = (tls.clone(), Arc::clone(&answer));
                let (asked, sent) = (Arc::clone(&asked), Arc::clone(&sent));
                std::thread::spawn(move || serve(stream, tls, &*answer, (&asked, &sent)));
            }
        });
        host
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    pub(crate) fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }

    /// Where each stream that was asked for without an end began.
    pub(crate) fn streams(&self) -> Vec<usize> {
        self.asked().iter().filter(|asked| !asked.is_bounded()).map(Asked::from).collect()
    }

    /// Bytes of bodies so far.
    pub(crate) fn sent(&self) -> usize {
        self.sent.load(Ordering::SeqCst)
    }
}

/// Where it is noted what was asked, and how many bytes went out.
type Notes<'a> = (&'a Mutex<Vec<Asked>>, &'a AtomicUsize);

fn serve(
    stream: TcpStream,
    tls: Option<Arc<ServerConfig>>,
    answer: &dyn Fn(&Asked) -> Answer,
    notes: Notes<'_>,
) {
    // A client that leaves, or does not trust us, is what some tests are about.
    let _ = match tls {
        None => exchange(stream, answer, notes),
        Some(config) => exchange(
            StreamOwned::new(ServerConnection::new(config).unwrap(), stream),
            answer,
            notes,
        ),
    };
}

fn exchange(
    stream: impl Read + Write,
    answer: &dyn Fn(&Asked) -> Answer,
    (asked, sent): Notes<'_>,
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Ok(());
        }
        if line.trim_end().is_empty() {
            break;
        }
        lines.push(line.trim_end().to_owned());
    }
    let first: Vec<&str> = lines[0].split(' ').collect();
    let headers = lines[1..].iter().filter_map(|line| line.split_once(": "));
    let request = Asked {
        method: first[0].to_owned(),
        target: first[1].to_owned(),
        headers: headers.map(|(n, v)| (n.to_lowercase(), v.to_owned())).collect(),
    };
    let answer = answer(&request);
    let mut head = format!("HTTP/1.1 {} X\r\nconnection: close\r\n", answer.status);
    for (name, value) in &answer.headers {
        write!(head, "{name}: {value}\r\n").unwrap();
    }
    write!(head, "content-length: {}\r\n\r\n", answer.body.len()).unwrap();
    let is_head = request.method == "HEAD";
    // Noted before it is answered: who has the answer finds it noted.
    asked.lock().unwrap().push(request);
    let stream = stream.get_mut();
    stream.write_all(head.as_bytes())?;
    if !is_head {
        let body = &answer.body[..answer.cut.unwrap_or(answer.body.len()).min(answer.body.len())];
        sent.fetch_add(body.len(), Ordering::SeqCst);
        stream.write_all(body)?;
    }
    stream.flush()?;
    if answer.hang {
        stream.read_exact(&mut [0])?;
    }
    Ok(())
}

/// In lower-case hexadecimal.
pub(crate) fn sha256(content: &[u8]) -> String {
    hex(&Sha256::digest(content))
}

fn hex(hash: &[u8]) -> String {
    hash.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

/// As git names the content.
fn git_hash(content: &[u8]) -> String {
    let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(format!("blob {}\0", content.len()).as_bytes());
    hash.update(content);
    hex(hash.finish().as_ref())
}

/// Whether a hub keeps it apart from git.
fn is_large(name: &str) -> bool {
    [".gguf", ".safetensors"].iter().any(|end| name.ends_with(end))
}

/// What the hub says of [`NAME`] with these files.
pub(crate) fn listing(files: &[(&str, &[u8])]) -> Value {
    let files = files.iter().map(|(name, content)| {
        if !is_large(name) {
            let blob = git_hash(content);
            return json!({"rfilename": name, "size": content.len(), "blobId": blob});
        }
        let lfs = json!({"sha256": sha256(content), "size": content.len()});
        json!({"rfilename": name, "size": content.len(), "blobId": git_hash(b"pointer"), "lfs": lfs})
    });
    let files: Vec<Value> = files.collect();
    json!({"sha": COMMIT, "siblings": files, "cardData": {"license": "apache-2.0"}})
}

/// A hub with these files, which sends to `storage` for each large one.
pub(crate) fn hub(
    files: Vec<(&'static str, Vec<u8>)>,
    storage: String,
) -> impl Fn(&Asked) -> Answer + Send + Sync {
    let all: Vec<_> = files.iter().map(|(n, c)| (*n, c.as_slice())).collect();
    let list = listing(&all);
    let hashes: Vec<String> = files.iter().map(|(_, content)| sha256(content)).collect();
    move |asked| {
        if asked.target.starts_with(&format!("/api/models/{NAME}/revision/main")) {
            return Answer::json(&list);
        }
        let file = asked.target.strip_prefix(&format!("/{NAME}/resolve/{COMMIT}/"));
        let Some(index) = files.iter().position(|(name, _)| file == Some(*name)) else {
            return Answer::status(404);
        };
        let (name, content) = &files[index];
        if !is_large(name) {
            return Answer::part(content, asked)
                .with("etag", format!("\"{}\"", git_hash(content)))
                .with("x-repo-commit", COMMIT);
        }
        Answer::status(302)
            .with("location", format!("{storage}/{name}"))
            .with("x-repo-commit", COMMIT)
            .with("x-linked-etag", format!("\"{}\"", hashes[index]))
            .with("x-linked-size", content.len().to_string())
    }
}

/// A storage with these files.
pub(crate) fn storage(
    files: Vec<(&'static str, Vec<u8>)>,
) -> impl Fn(&Asked) -> Answer + Send + Sync {
    move |asked| match files.iter().find(|(name, _)| asked.target == format!("/{name}")) {
        Some((_, content)) => Answer::part(content, asked),
        None => Answer::status(404),
    }
}

/// The files of a small model in `tests/models` that `is_wanted`.
pub(crate) fn family(name: &str, is_wanted: fn(&str) -> bool) -> Vec<(&'static str, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models").join(name);
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter_map(|path| {
        let name = path.file_name()?.to_str()?;
        // For as long as the test runs, as a literal would be.
        is_wanted(name).then(|| (&*name.to_owned().leak(), std::fs::read(&path).unwrap()))
    });
    files.collect()
}

/// `pull` of `model` from the hub at `url`.
pub(crate) fn pull(home: &TempDir, url: &str, model: &str) -> Command {
    let mut command = millrace(home.path());
    command.args(["pull", model]).env("HF_ENDPOINT", url);
    command
}

/// Exit code, stdout and stderr.
pub(crate) fn outcome(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// Of the repository, in the cache of `home`.
pub(crate) fn cached(home: &TempDir) -> PathBuf {
    home.path().join("huggingface/hub/models--maker--tiny")
}

/// Bytes that repeat nowhere near.
pub(crate) fn content(bytes: usize, seed: u8) -> Vec<u8> {
    (0..bytes).map(|i| (i as u64).wrapping_mul(2_654_435_761).to_le_bytes()[2] ^ seed).collect()
}

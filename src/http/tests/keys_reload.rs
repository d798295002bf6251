//! Keys that come and go while the server runs.

use std::path::Path;

use super::support::*;
use crate::config::AuthConfig;
use crate::keys::{self, KeyStore, NewKey};

fn add(file: &Path, id: &str) -> String {
    let new = NewKey { id: id.to_owned(), ..NewKey::default() };
    keys::add(file, new).unwrap().to_string()
}

async fn is_accepted(server: &Server, key: &str) -> bool {
    let request = format!(
        "GET /v1/models HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n\
         Connection: close\r\n\r\n"
    );
    match status(&ask(server.addr, &request).await) {
        401 => false,
        503 => true,
        other => panic!("{other}"),
    }
}

/// Asks until the answer is the one that is hoped for.
async fn until(server: &Server, key: &str, accepted: bool) {
    let asking = async { while is_accepted(server, key).await != accepted {} };
    tokio::time::timeout(PATIENCE, asking).await.unwrap();
}

/// `millrace_key_reload_total{result="error"}`, which all tests of the process share.
async fn errors(server: &Server) -> u64 {
    let text = get_public(server.addr, "/metrics").await;
    let series = "millrace_key_reload_total{result=\"error\"} ";
    text.lines().find_map(|l| l.strip_prefix(series)).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_new_key_counts_and_a_revoked_one_stops_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.toml");
    let first = add(&file, "first");
    let store = KeyStore::open(Some(file.clone()), None).unwrap();
    let server = start_with(config(), &AuthConfig::default(), store).await;
    assert!(is_accepted(&server, &first).await);
    let second = add(&file, "second");
    until(&server, &second, true).await;
    assert!(is_accepted(&server, &first).await);
    keys::revoke(&file, "first").unwrap();
    until(&server, &first, false).await;
    assert!(is_accepted(&server, &second).await);
}

#[tokio::test]
async fn a_file_that_goes_bad_leaves_the_old_keys_and_shows() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.toml");
    let key = add(&file, "only");
    let good = std::fs::read(&file).unwrap();
    let store = KeyStore::open(Some(file.clone()), None).unwrap();
    let server = start_with(config(), &AuthConfig::default(), store).await;
    let bad: [&[u8]; 3] = [b"", b"[[keys]]\nid = \"only\"\nsha256 = \"12", b"keys = [\xff]"];
    for content in bad {
        let before = errors(&server).await;
        std::fs::write(&file, content).unwrap();
        let looking = async { while errors(&server).await == before {} };
        tokio::time::timeout(PATIENCE, looking).await.unwrap();
        assert!(is_accepted(&server, &key).await);
    }
    let before = errors(&server).await;
    std::fs::remove_file(&file).unwrap();
    let looking = async { while errors(&server).await == before {} };
    tokio::time::timeout(PATIENCE, looking).await.unwrap();
    assert!(is_accepted(&server, &key).await);
    // And it recovers: another key in a new file, and the first one gone.
    std::fs::write(&file, good).unwrap();
    std::fs::remove_file(&file).unwrap();
    let other = add(&file, "other");
    until(&server, &other, true).await;
    assert!(!is_accepted(&server, &key).await);
}

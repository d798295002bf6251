//! Hubs that refuse, lie, and send elsewhere.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tempfile::{TempDir, tempdir};

use crate::fake_hub::{Answer, Host, NAME, cached, content, hub, listing, outcome, pull, sha256};

const FILE: &str = "tiny-Q4_K_M.gguf";

/// The one line of an error, after exit code 1.
pub(crate) fn refusal(command: &mut std::process::Command) -> String {
    let (code, out, err) = outcome(command);
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    let mut errors = err.lines().filter(|line| line.starts_with("error: "));
    let error = errors.next().unwrap_or_else(|| panic!("no error in {err}")).to_owned();
    assert!(errors.next().is_none() && !err.contains("panicked"), "{err}");
    error
}

/// Whatever a later run could take for a model.
fn is_empty(home: &TempDir) -> bool {
    let files = |folder| fs::read_dir(cached(home).join(folder)).map_or(0, Iterator::count);
    files("blobs") == 0 && files("snapshots") == 0
}

#[test]
fn row_32_what_is_not_the_file_is_removed() {
    let home = tempdir().unwrap();
    let mut other = content(1_000_000, 7);
    let whole = other.clone();
    other[500_000] ^= 1;
    let storage = Host::start(move |asked| Answer::part(&other, asked));
    let hub = Host::start(hub(vec![(FILE, whole.clone())], storage.url()));
    let e = refusal(&mut pull(&home, &hub.url(), NAME));
    assert!(e.contains("is not the file, and was removed") && e.contains(&sha256(&whole)), "{e}");
    assert!(is_empty(&home));
    assert_eq!(storage.streams(), [0]);
}

#[test]
fn row_32_a_gated_model_names_its_licence_and_the_token() {
    let home = tempdir().unwrap();
    for status in [401, 403] {
        let hub = Host::start(move |_| Answer::status(status));
        let e = refusal(&mut pull(&home, &hub.url(), NAME));
        let advice = format!("accept the licence at {}/{NAME} and set HF_TOKEN", hub.url());
        assert!(e.contains(&advice) && e.contains("gated"), "{e}");
        assert_eq!(hub.connections(), 1, "it would be refused again");
    }
    // Some hubs describe what they do not give.
    let list = listing(&[(FILE, b"x")]);
    let hub = Host::start(move |asked| {
        if asked.target.starts_with("/api/") { Answer::json(&list) } else { Answer::status(403) }
    });
    let e = refusal(pull(&home, &hub.url(), NAME).env("HF_TOKEN", "hf_canary"));
    assert!(e.contains("the token gives no access") && e.contains("accept the licence"), "{e}");
    assert!(!e.contains("canary"));
}

#[test]
fn row_32_a_storage_that_refuses_is_not_a_licence() {
    let home = tempdir().unwrap();
    for status in [401, 403, 404] {
        let storage = Host::start(move |_| Answer::status(status));
        let host = Host::start(hub(vec![(FILE, vec![1])], storage.url()));
        let e = refusal(pull(&home, &host.url(), NAME).env("HF_TOKEN", "hf_canary"));
        let said = format!("{}, to which {} sends", storage.address, host.address);
        assert!(e.contains(&said) && e.contains(&format!("answers {status}")), "{e}");
        assert!(!e.contains("licence") && !e.contains("token"), "{e}");
        assert_eq!(storage.streams(), [0], "it would be refused again");
    }
}

#[test]
fn row_32_answers_that_no_hub_gives_are_asked_for_once() {
    let home = tempdir().unwrap();
    let long = Host::start(|_| Answer { body: vec![b' '; 33 << 20], ..Answer::status(200) });
    let e = refusal(&mut pull(&home, &long.url(), NAME));
    assert!(e.contains("answers with more than 33554432 bytes"), "{e}");
    let empty = Host::start(hub(vec![(FILE, Vec::new())], String::new()));
    let e = refusal(&mut pull(&home, &empty.url(), NAME));
    assert!(e.contains("tiny-Q4_K_M.gguf of maker/tiny has no bytes"), "{e}");
    assert_eq!((long.connections(), empty.connections()), (1, 2));
    assert!(is_empty(&home));
}

#[test]
fn row_32_what_is_missing_is_named() {
    let home = tempdir().unwrap();
    let repository = Host::start(|_| Answer::status(404));
    let e = refusal(&mut pull(&home, &repository.url(), NAME));
    assert!(e.contains("no model maker/tiny"), "{e}");
    let revision = Host::start(|asked| {
        Answer::status(if asked.target == format!("/api/models/{NAME}") { 200 } else { 404 })
    });
    let e = refusal(&mut pull(&home, &revision.url(), "maker/tiny@v9"));
    assert!(e.contains("no revision \"v9\""), "{e}");
    assert_eq!(revision.asked()[0].target, "/api/models/maker/tiny/revision/v9?blobs=true");
    let told = Host::start(|_| Answer::status(404).with("x-error-code", "RevisionNotFound"));
    let e = refusal(&mut pull(&home, &told.url(), "maker/tiny@refs/pr/1"));
    assert!(e.contains("no revision \"refs/pr/1\""), "{e}");
    assert!(told.asked()[0].target.contains("/revision/refs%2Fpr%2F1"));
    let file = Host::start(hub(vec![(FILE, vec![1]), ("tiny-Q8_0.gguf", vec![2])], String::new()));
    let e = refusal(&mut pull(&home, &file.url(), "maker/tiny:none.gguf"));
    assert!(e.contains("no file \"none.gguf\"; it has tiny-Q4_K_M.gguf, tiny-Q8_0.gguf"), "{e}");
    assert_eq!((told.connections(), file.connections()), (1, 1));
}

#[test]
fn row_32_the_token_goes_to_the_hub_and_to_nobody_else() {
    let home = tempdir().unwrap();
    let whole = content(1000, 8);
    let stored = whole.clone();
    let storage = Host::start(move |asked| Answer::part(&stored, asked));
    let host = Host::start(hub(vec![(FILE, whole)], storage.url()));
    // A proxy would read it, so it is not asked.
    let proxy = Host::start(|_| Answer::status(502));
    let mut command = pull(&home, &host.url(), NAME);
    command.env("HF_TOKEN", "hf_canary").env("ALL_PROXY", proxy.url());
    let (code, out, err) = outcome(&mut command);
    assert_eq!(code, 0, "{err}");
    assert!(!format!("{out}{err}").contains("canary"));
    let (asked, stored) = (host.asked(), storage.asked());
    assert!(asked.len() == 4 && stored.len() == 2 && proxy.connections() == 0);
    for request in asked {
        assert_eq!(request.header("authorization"), Some("Bearer hf_canary"), "{request:?}");
    }
    assert!(!format!("{stored:?}").contains("canary"), "{stored:?}");
}

/// A hub that knows no ranges and cuts now sooner, now later, must not be asked for ever.
#[test]
fn row_32_who_begins_anew_each_time_is_given_up() {
    let home = tempdir().unwrap();
    let whole = content(8_000_000, 9);
    let (stored, calls) = (whole.clone(), AtomicUsize::new(0));
    let storage = Host::start(move |_| {
        let cut = [2_000_000, 5_000_000][calls.fetch_add(1, Ordering::SeqCst) % 2];
        Answer { status: 200, body: stored.clone(), cut: Some(cut), ..Answer::default() }
    });
    let host = Host::start(hub(vec![(FILE, whole)], storage.url()));
    let e = refusal(&mut pull(&home, &host.url(), NAME));
    assert!(e.contains("the download was cut"), "{e}");
}

#[test]
fn row_32_what_the_environment_says_is_not_passed_over() {
    use std::os::unix::ffi::OsStringExt as _;
    let home = tempdir().unwrap();
    let host = Host::start(|_| Answer::status(500));
    // Of a machine elsewhere, for which a proxy counts; nobody gets as far as asking it.
    let mut command = pull(&home, "http://192.0.2.1:9", NAME);
    let e = refusal(command.env("ALL_PROXY", "http://[::canary"));
    assert!(e.contains("ALL_PROXY is not the address of a proxy") && !e.contains("canary"), "{e}");
    let mut command = pull(&home, &host.url(), NAME);
    let broken = std::ffi::OsString::from_vec(b"http://127.0.0.1:9/\xff".to_vec());
    let (code, _, err) = outcome(command.env("HF_ENDPOINT", broken));
    assert!(code == 2 && err.contains("HF_ENDPOINT is not UTF-8"), "{err}");
    assert_eq!(host.connections(), 0);
}

#[cfg(unix)]
#[test]
fn row_32_a_link_in_a_shared_cache_leads_the_download_nowhere() {
    let (home, elsewhere) = (tempdir().unwrap(), tempdir().unwrap());
    let whole = content(1000, 10);
    let stored = whole.clone();
    let storage = Host::start(move |asked| Answer::part(&stored, asked));
    let host = Host::start(hub(vec![(FILE, whole.clone())], storage.url()));
    let (blobs, victim) = (cached(&home).join("blobs"), elsewhere.path().join("victim"));
    fs::create_dir_all(&blobs).unwrap();
    fs::write(&victim, "precious").unwrap();
    let part = blobs.join(format!("{}.incomplete", sha256(&whole)));
    std::os::unix::fs::symlink(&victim, &part).unwrap();
    let (code, out, err) = outcome(&mut pull(&home, &host.url(), NAME));
    assert_eq!(code, 0, "{err}");
    assert!(fs::read(out.trim_end()).unwrap() == whole);
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
}

#[test]
fn row_32_an_encrypted_connection_is_neither_trusted_blindly_nor_left() {
    let (home, folder) = (tempdir().unwrap(), tempdir().unwrap());
    let plain = Host::start(|_| Answer::status(404));
    let location = format!("{}/x", plain.url());
    let host = Host::start_tls(folder.path(), move |_| {
        Answer::status(302).with("location", location.clone())
    });
    let url = format!("https://localhost:{}", host.address.port());
    let e = refusal(pull(&home, &url, NAME).env("HF_TOKEN", "hf_canary"));
    assert!(
        e.contains(&format!("no secure connection to localhost:{}", host.address.port())),
        "{e}"
    );
    assert!(e.contains("certificate"), "{e}");
    assert_eq!((host.connections(), host.asked().len()), (1, 0), "it would be refused again");
    let mut command = pull(&home, &url, NAME);
    command.env("HF_TOKEN", "hf_canary").env("SSL_CERT_FILE", folder.path().join("cert.pem"));
    let e = refusal(&mut command);
    assert!(e.contains("leads from an encrypted connection to a plain one"), "{e}");
    assert_eq!(host.asked()[0].header("authorization"), Some("Bearer hf_canary"));
    assert_eq!(plain.connections(), 0);
}

#[test]
fn row_32_nothing_that_a_hub_says_leads_out_of_the_cache() {
    let long = format!("{}.gguf", "x".repeat(300));
    for file in [
        "../../../evil.gguf",
        "/evil.gguf",
        "a/../evil.gguf",
        "a\\evil.gguf",
        "e\u{1b}.gguf",
        "e\u{202e}fugg.gguf",
        "e\u{200f}.gguf",
        &long,
    ] {
        let home = tempdir().unwrap();
        let list = listing(&[(file, b"x")]);
        let hub = Host::start(move |_| Answer::json(&list));
        let e = refusal(&mut pull(&home, &hub.url(), NAME));
        assert!(e.contains("whose name is no plain path") && !e.contains('\u{1b}'), "{e}");
        assert!(is_empty(&home));
    }
    let list = json!({"sha": "../../evil", "siblings": [{"rfilename": FILE}]});
    let fine = listing(&[(FILE, b"x")]);
    let etag = |etag: &'static str| {
        let fine = fine.clone();
        Host::start(move |asked| {
            if asked.target.starts_with("/api/") {
                return Answer::json(&fine);
            }
            Answer::status(200).with("etag", etag)
        })
    };
    for (hub, part) in [
        (Host::start(move |_| Answer::json(&list)), "names a commit that is none"),
        (etag("\"../../evil\""), "does not tell the content"),
        (etag("\"\""), "does not tell the content"),
        (Host::start(|_| Answer::json(&json!([]))), "does not answer like a hub"),
        (Host::start(|_| Answer::status(418)), "answers 418"),
        (Host::start(|_| Answer::status(302)), "sends elsewhere"),
        (
            Host::start(|_| Answer::status(302).with("location", "/again")),
            "one address to the next",
        ),
        (Host::start(|_| Answer::status(302).with("location", "file:///etc/passwd")), "of the web"),
    ] {
        let home = tempdir().unwrap();
        let e = refusal(&mut pull(&home, &hub.url(), NAME));
        assert!(e.contains(part), "{part} not in {e}");
        assert!(is_empty(&home) && !home.path().join("huggingface/evil").exists());
    }
}

#[test]
fn row_32_choices_that_are_none_are_said() {
    let home = tempdir().unwrap();
    let one = |name| vec![(name, vec![1])];
    let config = ("config.json", b"{}".to_vec());
    for (files, name, said) in [
        (
            vec![("a.gguf", vec![1]), ("b.gguf", vec![2])],
            NAME,
            "name one as owner/name:FILE.gguf: a.gguf",
        ),
        (one("mmproj.gguf"), NAME, "has neither a .gguf file nor config.json"),
        (one(FILE), "maker/tiny:Q2_K", "it has tiny-Q4_K_M.gguf"),
        (one("t-00001-of-00002.gguf"), NAME, "but not its part t-00002-of-00002.gguf"),
        (one("model.safetensors"), NAME, "has safetensors, but no config.json"),
        (
            vec![config.clone(), ("model.safetensors", vec![1])],
            NAME,
            "has no tokenizer.json, without which it cannot be served",
        ),
        (
            vec![config, ("pytorch_model.bin", vec![1])],
            NAME,
            "but PyTorch's pickles (pytorch_model.bin), which could run any code and are never read",
        ),
    ] {
        let hub = Host::start(hub(files, String::new()));
        let e = refusal(&mut pull(&home, &hub.url(), name));
        assert!(e.contains(said), "{said} not in {e}");
    }
    let (code, _, err) = outcome(&mut pull(&home, "https://me:canary@hub.example", NAME));
    assert_eq!(code, 2);
    assert!(err.contains("HF_ENDPOINT") && !err.contains("canary"), "{err}");
    assert!(!home.path().join("huggingface").exists());
}

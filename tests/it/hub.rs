//! Models of a hub: fetched, resumed, found again, served.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::tempdir;

use crate::fake_hub::{Answer, COMMIT, Host, NAME, cached, content, hub, outcome, pull, sha256};
use crate::support::{KEY, PATIENCE, Server, signal, smollm2, wait};

const FILE: &str = "tiny-Q4_K_M.gguf";

#[test]
fn row_32_a_model_comes_once_and_is_used_without_a_connection() {
    let home = tempdir().unwrap();
    let (small, large) = (content(3_000_000, 1), content(20, 2));
    let files =
        vec![(FILE, small.clone()), ("tiny-Q8_0.gguf", large.clone()), ("README.md", vec![1])];
    let stored = files.clone();
    let storage = Host::start(move |asked| {
        let file = stored.iter().find(|(name, _)| asked.target == format!("/{name}"));
        file.map_or(Answer::status(404), |(_, content)| Answer::part(content, asked))
    });
    let hub = Host::start(hub(files, storage.url()));
    let (code, out, err) = outcome(&mut pull(&home, &hub.url(), NAME));
    assert_eq!(code, 0, "{err}");
    assert!(err.contains(&format!("{FILE} (3 MB, licence apache-2.0)")), "{err}");
    let path = cached(&home).join("snapshots").join(COMMIT).join(FILE);
    assert_eq!(out.lines().last(), path.to_str());
    assert!(fs::read(&path).unwrap() == small);
    let blob = cached(&home).join("blobs").join(sha256(&small));
    assert_eq!(fs::canonicalize(&path).unwrap(), fs::canonicalize(blob).unwrap());
    assert_eq!(fs::read_to_string(cached(&home).join("refs/main")).unwrap(), COMMIT);
    // By each of its names it is there; the other one is not.
    let connections = hub.connections();
    for name in [NAME, "maker/tiny:q4_k_m", "maker/tiny:tiny-Q4_K_M.gguf", "maker/tiny@main"] {
        let (code, again, err) = outcome(&mut pull(&home, &hub.url(), name));
        assert_eq!((code, &again), (0, &out), "{err}");
    }
    for (flag, variable) in [(Some("--offline"), "0"), (None, "1")] {
        let mut command = pull(&home, &hub.url(), "maker/tiny:Q8_0");
        let (code, _, err) = outcome(command.args(flag).env("HF_HUB_OFFLINE", variable));
        assert_eq!(code, 1);
        let by = flag.unwrap_or("HF_HUB_OFFLINE");
        assert!(err.contains(&format!("{by} forbids to ask the hub")), "{err}");
        assert!(err.contains(cached(&home).to_str().unwrap()) && err.contains(FILE), "{err}");
    }
    assert_eq!(hub.connections(), connections);
    let (code, _, err) = outcome(&mut pull(&home, &hub.url(), "maker/tiny:Q8_0"));
    assert_eq!(code, 0, "{err}");
    assert!(hub.connections() > connections);
}

#[test]
fn row_32_a_cut_download_goes_on_where_it_was_cut() {
    let whole = content(4_000_000, 3);
    // Where a storage knows no ranges, it begins again.
    for knows_ranges in [true, false] {
        let home = tempdir().unwrap();
        let (stored, calls) = (whole.clone(), AtomicUsize::new(0));
        let storage = Host::start(move |asked| {
            let answer =
                if knows_ranges { Answer::part } else { |all: &[u8], _: &_| Answer::whole(all) };
            let is_first = !asked.is_bounded() && calls.fetch_add(1, Ordering::SeqCst) == 0;
            Answer { cut: is_first.then_some(1_500_000), ..answer(&stored, asked) }
        });
        let hub = Host::start(hub(vec![(FILE, whole.clone())], storage.url()));
        let (code, out, err) = outcome(&mut pull(&home, &hub.url(), NAME));
        assert_eq!(code, 0, "{err}");
        assert!(err.contains("cut at 2 of 4 MB"), "{err}");
        assert!(fs::read(out.trim_end()).unwrap() == whole);
        assert_eq!(storage.streams(), [0, 1_500_000]);
    }
}

#[test]
fn row_32_an_interrupted_download_is_kept_and_goes_on() {
    let home = tempdir().unwrap();
    let (whole, calls) = (content(4_000_000, 4), AtomicUsize::new(0));
    let stored = whole.clone();
    let storage = Host::start(move |asked| {
        let hang = !asked.is_bounded() && calls.fetch_add(1, Ordering::SeqCst) == 0;
        Answer { hang, cut: hang.then_some(2_000_000), ..Answer::part(&stored, asked) }
    });
    let hub = Host::start(hub(vec![(FILE, whole.clone())], storage.url()));
    let mut command = pull(&home, &hub.url(), NAME);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let part = cached(&home).join(format!("blobs/{}.incomplete", sha256(&whole)));
    let until = Instant::now() + PATIENCE;
    while fs::metadata(&part).map_or(0, |data| data.len()) < 2_000_000 {
        assert!(Instant::now() < until, "nothing came");
        // There is no wait for another process's file; its state itself ends the loop.
        std::thread::park_timeout(Duration::from_millis(5));
    }
    signal(&child, "TERM");
    assert_eq!(wait(&mut child).code(), Some(1));
    let err = std::io::read_to_string(child.stderr.take().unwrap()).unwrap();
    assert!(err.contains("interrupted") && err.contains("goes on from there"), "{err}");
    let (code, out, err) = outcome(&mut pull(&home, &hub.url(), NAME));
    assert_eq!(code, 0, "{err}");
    assert_eq!(storage.streams(), [0, 2_000_000]);
    assert!(fs::read(out.trim_end()).unwrap() == whole && !part.exists());
}

#[test]
fn row_32_who_waits_for_anothers_download_says_so_and_finds_it() {
    let home = tempdir().unwrap();
    let whole = content(1000, 5);
    let stored = whole.clone();
    let storage = Host::start(move |asked| Answer::part(&stored, asked));
    let hub = Host::start(hub(vec![(FILE, whole.clone())], storage.url()));
    let locks = home.path().join("huggingface/hub/.locks/models--maker--tiny");
    fs::create_dir_all(&locks).unwrap();
    let lock = fs::File::create(locks.join(format!("{}.lock", sha256(&whole)))).unwrap();
    lock.lock().unwrap();
    let mut command = pull(&home, &hub.url(), NAME);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let mut lines = lines.skip_while(|line| !line.contains("another run is fetching maker/tiny"));
    assert!(lines.next().is_some());
    // As the other run would leave it.
    let blobs = cached(&home).join("blobs");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join(sha256(&whole)), &whole).unwrap();
    drop(lock);
    assert_eq!(wait(&mut child).code(), Some(0));
    assert_eq!(storage.streams(), [0; 0]);
    assert!(cached(&home).join("snapshots").join(COMMIT).join(FILE).is_file());
}

#[test]
fn row_32_a_hub_that_is_away_stops_nobody_who_has_the_model() {
    let home = tempdir().unwrap();
    let whole = content(1000, 6);
    let file = "tiny.Q8_0.gguf";
    let stored = whole.clone();
    let storage = Host::start(move |asked| Answer::part(&stored, asked));
    let host = Host::start(hub(vec![(file, whole)], storage.url()));
    let (code, out, err) = outcome(&mut pull(&home, &host.url(), NAME));
    assert_eq!(code, 0, "{err}");
    let away = Host::start(|_| Answer::status(503));
    let (code, again, err) = outcome(&mut pull(&home, &away.url(), NAME));
    assert_eq!((code, again), (0, out), "{err}");
    assert!(err.contains("503") && err.contains("taking what is in the cache"), "{err}");
    assert_eq!(away.connections(), 6, "{err}");
}

#[test]
fn row_32_serve_fetches_from_the_hub_and_then_needs_it_no_more() {
    let home = tempdir().unwrap();
    let whole = fs::read(smollm2()).unwrap();
    let stored = whole.clone();
    let storage = Host::start(move |asked| Answer::part(&stored, asked));
    let host = Host::start(hub(vec![("tiny.Q4_1.gguf", whole)], storage.url()));
    let mut once = 0;
    for offline in ["0", "1"] {
        let server = Server::spawn_with(&["maker/tiny:Q4_1", "--max-num-seqs", "1"], |command| {
            command.env("MILLRACE_API_KEY", KEY).env("HF_HUB_OFFLINE", offline);
            command.env("HF_HOME", home.path()).env("HF_ENDPOINT", host.url());
        });
        server.wait_ready();
        let body = json!({"model": "tiny.Q4_1", "prompt": "Once", "max_tokens": 2});
        let answer = server.client().post("/v1/completions", &body);
        assert_eq!(answer.status, 200);
        if offline == "0" {
            once = storage.sent();
            // What was told before it came is what loading it takes.
            let log = server.log();
            let loading = "memory that the model will take weights=\"0.09 GiB\"";
            assert!(log.contains("(weights 0.09 GiB, KV cache ") && log.contains(loading), "{log}");
        }
    }
    // Its beginning besides.
    let twice = fs::metadata(smollm2()).unwrap().len() as usize + (4 << 20);
    assert!(storage.sent() == once && once <= twice, "{once} of {twice}");
}

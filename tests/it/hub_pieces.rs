//! Large files of a hub, which come in pieces over several connections.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tempfile::{TempDir, tempdir};

use crate::fake_hub::{Answer, Asked, Host, NAME, cached, content, hub, outcome, pull, sha256};
use crate::hub_faults::refusal;
use crate::support::{PATIENCE, signal, wait};

const FILE: &str = "tiny-Q4_K_M.gguf";
const MIB: usize = 1 << 20;
const PIECE_BYTES: usize = 16 * MIB;
/// Just large enough.
const BYTES: usize = 65 * MIB + 7;
/// Besides the pieces: the beginning that tells what the model takes, and the list.
const SLACK_BYTES: usize = MIB;

/// A file no piece of which is like another.
static WHOLE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let block = content(MIB, 1);
    let mut whole = block.repeat(BYTES / MIB + 1);
    whole.truncate(BYTES);
    for (i, block) in whole.chunks_mut(MIB).enumerate() {
        block[0] = i as u8;
    }
    whole
});
static HASH: LazyLock<String> = LazyLock::new(|| sha256(&WHOLE));

fn blob(home: &TempDir, ending: &str) -> PathBuf {
    cached(home).join("blobs").join(format!("{}{ending}", *HASH))
}

/// What is asked for to tell what the model takes.
fn is_glance(asked: &Asked) -> bool {
    asked.header("range") == Some("bytes=0-65535")
}

/// A hub whose storage answers so; for a piece with the number of those before it.
fn hosts(answer: impl Fn(&Asked, usize) -> Answer + Send + Sync + 'static) -> (Host, Host) {
    let calls = AtomicUsize::new(0);
    let storage = Host::start(move |asked| {
        if is_glance(asked) {
            return Answer::part(&WHOLE, asked);
        }
        answer(asked, calls.fetch_add(1, Ordering::SeqCst))
    });
    (Host::start(hub(vec![(FILE, WHOLE.clone())], storage.url())), storage)
}

/// It comes, and nothing else is left.
fn assert_comes(home: &TempDir, hub: &Host) -> String {
    let (code, out, err) = outcome(&mut pull(home, &hub.url(), NAME));
    assert_eq!(code, 0, "{err}");
    assert!(fs::read(out.trim_end()).unwrap() == *WHOLE);
    assert_eq!(fs::read_dir(cached(home).join("blobs")).unwrap().count(), 1);
    err
}

/// First bytes of the pieces that were asked for.
fn starts(storage: &Host) -> Vec<usize> {
    let mut starts: Vec<_> =
        storage.asked().iter().filter(|asked| !is_glance(asked)).map(Asked::from).collect();
    starts.sort_unstable();
    starts
}

#[test]
fn row_32_a_large_file_comes_in_pieces_and_goes_on_where_one_was_cut() {
    let home = tempdir().unwrap();
    let (hub, storage) = hosts(|asked, call| {
        let cut = (call == 1).then_some(5 * MIB);
        Answer { cut, ..Answer::part(&WHOLE, asked) }
    });
    let err = assert_comes(&home, &hub);
    assert!(err.contains("the download was cut at"), "{err}");
    let starts = starts(&storage);
    assert_eq!(starts.len(), 6, "{starts:?}");
    let cut: Vec<_> = starts.iter().filter(|&&from| !from.is_multiple_of(PIECE_BYTES)).collect();
    assert!(cut.len() == 1 && *cut[0] % PIECE_BYTES == 5 * MIB, "{starts:?}");
    assert!(storage.sent() <= BYTES + SLACK_BYTES, "{}", storage.sent());
}

#[test]
fn row_32_an_interrupted_download_in_pieces_keeps_all_of_them() {
    for name in ["INT", "TERM"] {
        let home = tempdir().unwrap();
        let (hub, _storage) = hosts(|asked, _| Answer {
            hang: true,
            cut: Some(3 * MIB),
            ..Answer::part(&WHOLE, asked)
        });
        let mut command = pull(&home, &hub.url(), NAME);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let until = Instant::now() + PATIENCE;
        let written = || fs::metadata(blob(&home, ".pieces")).map_or(0, |data| data.blocks() * 512);
        while written() < 12 * MIB as u64 {
            assert!(Instant::now() < until, "{} bytes came", written());
            // There is no wait for another process's file; its state itself ends the loop.
            std::thread::park_timeout(Duration::from_millis(5));
        }
        signal(&child, name);
        assert_eq!(wait(&mut child).code(), Some(1));
        let err = std::io::read_to_string(child.stderr.take().unwrap()).unwrap();
        assert!(err.contains("interrupted") && err.contains("goes on from there"), "{err}");
        assert!(blob(&home, ".ranges").is_file() && !blob(&home, "").exists());
        let (hub, storage) = hosts(|asked, _| Answer::part(&WHOLE, asked));
        assert_comes(&home, &hub);
        let most = BYTES - 11 * MIB + SLACK_BYTES;
        assert!(storage.sent() <= most, "{} of {most}", storage.sent());
    }
}

#[test]
fn row_32_a_storage_without_ranges_sends_the_whole_file_once() {
    let home = tempdir().unwrap();
    let (hub, storage) = hosts(|_, _| Answer::whole(&WHOLE));
    assert_comes(&home, &hub);
    assert_eq!(storage.streams(), [0]);
    // It was asked for a piece by one alone.
    assert_eq!(starts(&storage), [0, 0]);
}

#[test]
fn row_32_a_file_that_changes_in_between_is_begun_anew() {
    let home = tempdir().unwrap();
    let (hub, storage) = hosts(|asked, call| {
        // Twice the old file, then the new one; a part of the old one is no longer to be had.
        let (old, etag) = ([0; 64], if call < 2 { "\"old\"" } else { "\"new\"" });
        let is_stale = asked.header("if-range").is_some_and(|known| known != etag);
        let answer = if is_stale { Answer::whole(&WHOLE) } else { Answer::part(&WHOLE, asked) };
        let mut answer = answer.with("etag", etag);
        if call < 2 {
            answer.body[..64].copy_from_slice(&old);
        }
        answer
    });
    let err = assert_comes(&home, &hub);
    assert!(err.contains("sends another file than before: trying again"), "{err}");
    let asked = storage.asked();
    assert!(asked.iter().any(|asked| asked.header("if-range") == Some("\"new\"")));
    assert!(storage.streams().is_empty());
}

#[test]
fn row_32_parts_of_another_file_are_not_taken() {
    let home = tempdir().unwrap();
    let (hub, storage) = hosts(|asked, _| {
        let mut other = WHOLE.clone();
        other.push(0);
        Answer::part(&other, asked)
    });
    let e = refusal(&mut pull(&home, &hub.url(), NAME));
    assert!(e.contains("sends another part of the file than it was asked for"), "{e}");
    assert_eq!(starts(&storage), [0; 6], "it is given up");
    assert!(!blob(&home, ".pieces").exists() && !blob(&home, "").exists());
}

#[test]
fn row_32_what_came_in_one_stream_is_gone_on_with_in_pieces() {
    let home = tempdir().unwrap();
    let begun = blob(&home, ".incomplete");
    fs::create_dir_all(begun.parent().unwrap()).unwrap();
    fs::write(&begun, &WHOLE[..20 * MIB]).unwrap();
    let (hub, storage) = hosts(|asked, _| Answer::part(&WHOLE, asked));
    assert_comes(&home, &hub);
    assert_eq!(starts(&storage), [20 * MIB, 32 * MIB, 48 * MIB, 64 * MIB]);
}

#[test]
fn row_32_pieces_that_are_wrong_or_refused_are_said() {
    let home = tempdir().unwrap();
    let (hub, _storage) = hosts(|asked, _| {
        let mut answer = Answer::part(&WHOLE, asked);
        answer.body[0] ^= 1;
        answer
    });
    let e = refusal(&mut pull(&home, &hub.url(), NAME));
    assert!(e.contains("is not the file, and was removed") && e.contains(&*HASH), "{e}");
    assert_eq!(fs::read_dir(cached(&home).join("blobs")).unwrap().count(), 0);
    let (hub, storage) = hosts(|asked, call| match call {
        0 => Answer::part(&WHOLE, asked),
        _ => Answer::status(403),
    });
    let e = refusal(&mut pull(&home, &hub.url(), NAME));
    assert!(e.contains("to which") && e.contains("answers 403"), "{e}");
    assert!(starts(&storage).len() <= 4, "none asks again");
}

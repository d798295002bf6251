use std::fs::{self, Permissions};
use std::num::NonZeroU32;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::FutureExt as _;
use proptest::prelude::*;

use super::file::{self, Moment};
use super::*;
use crate::engine::message::Tenant;

fn named(id: &str) -> NewKey {
    NewKey { id: id.to_owned(), ..NewKey::default() }
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.toml");
    (folder, file)
}

fn write(file: &Path, text: &str, mode: u32) {
    fs::write(file, text).unwrap();
    fs::set_permissions(file, Permissions::from_mode(mode)).unwrap();
}

fn entry(id: &str, secret: &str, more: &str) -> String {
    let hex = file::to_hex(&digest(secret.as_bytes()));
    format!("[[keys]]\nid = \"{id}\"\nsha256 = \"{hex}\"\n{more}\n")
}

#[test]
fn an_added_key_is_a_digest_in_a_private_file_and_opens_the_door() {
    let (_folder, file) = folder();
    let secret = add(&file, named("alice")).unwrap();
    assert!(secret.starts_with("sk-") && secret.len() == 46, "{}", secret.len());
    assert_ne!(*secret, *add(&file, named("bob")).unwrap());
    let text = fs::read_to_string(&file).unwrap();
    assert!(!text.contains(&secret[3..]), "no secret in the file");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let store = KeyStore::open(Some(file), None).unwrap();
    let key = store.find(&digest(secret.as_bytes())).unwrap();
    assert_eq!(&*key.id, "alice");
    assert!(store.find(&digest(&secret.as_bytes()[1..])).is_none());
    assert_eq!(store.len(), 2);
}

#[test]
fn secrets_are_base64url() {
    let counting: [u8; 32] = std::array::from_fn(|i| i as u8);
    let expected = "sk-AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
    assert_eq!(edit::secret_from(&counting).as_str(), expected);
    assert_eq!(edit::secret_from(&[0xff; 32]).as_str(), format!("sk-{}8", "_".repeat(42)));
}

#[test]
fn list_and_revoke_know_every_key_once() {
    let (_folder, file) = folder();
    let limits = NewKey {
        rpm: NonZeroU32::new(5),
        tpm: NonZeroU32::new(1000),
        concurrency: NonZeroU32::new(2),
        priority: Some(-1),
        models: Some(vec!["fake".to_owned()]),
        expires: Some("2027-01-31".parse().unwrap()),
        ..named("limited")
    };
    add(&file, limits).unwrap();
    add(&file, named("other")).unwrap();
    let error = add(&file, named("other")).unwrap_err().to_string();
    assert!(error.contains("'other' already"), "{error}");
    let keys = list(&file).unwrap();
    let ids: Vec<_> = keys.iter().map(|k| k.id.as_str()).collect();
    assert_eq!(ids, ["limited", "other"]);
    let numbers = [keys[0].rpm, keys[0].tpm, keys[0].concurrency].map(|n| n.unwrap().get());
    assert_eq!(numbers, [5, 1000, 2]);
    assert_eq!(
        (keys[0].priority, keys[0].models.as_deref()),
        (Some(-1), Some(&["fake".to_owned()][..]))
    );
    assert_eq!(keys[0].expires.unwrap().to_string(), "2027-01-31T00:00:00Z");
    assert!(keys[0].created.unwrap() <= Moment::now());
    revoke(&file, "limited").unwrap();
    assert!(revoke(&file, "limited").is_err());
    revoke(&file, "other").unwrap();
    assert!(list(&file).unwrap().is_empty(), "a file without keys is a file");
}

#[test]
fn keys_added_at_once_are_all_there() {
    let (_folder, file) = folder();
    std::thread::scope(|scope| {
        for i in 0..8 {
            let file = &file;
            scope.spawn(move || add(file, named(&format!("key-{i}"))).unwrap());
        }
    });
    assert_eq!(list(&file).unwrap().len(), 8);
    let left = fs::read_dir(file.parent().unwrap()).unwrap().count();
    assert_eq!(left, 1, "no drafts are left behind");
}

#[test]
fn a_link_stays_a_link_and_a_group_keeps_its_access() {
    let (folder, file) = folder();
    let link = folder.path().join("link.toml");
    write(&file, &entry("a", "s", ""), 0o640);
    std::os::unix::fs::symlink(&file, &link).unwrap();
    add(&link, named("b")).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(list(&file).unwrap().len(), 2);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
}

#[test]
fn a_file_that_everybody_may_read_or_write_is_refused() {
    let (_folder, file) = folder();
    for (mode, good) in [
        (0o600, true),
        (0o400, true),
        (0o440, true),
        (0o644, false),
        (0o602, false),
        (0o601, false),
    ] {
        write(&file, &entry("a", "s", ""), mode);
        let result = KeyStore::open(Some(file.clone()), None);
        assert_eq!(result.is_ok(), good, "{mode:o}");
        if let Err(error) = result {
            assert!(error.to_string().contains("chmod 600"), "{error}");
        }
    }
}

#[test]
fn bad_files_are_refused_by_line_without_repeating_them() {
    let good = entry("a", "s", "");
    let bad: [(String, &str); 24] = [
        (String::new(), "missing field `keys`"),
        ("keys = [".to_owned(), "line 1"),
        (good.replace("sha256", "sha-canary"), "unknown field"),
        ("[[keys]]\nsk-canary = 1\n".to_owned(), "unknown field …, expected one of `id`"),
        ("[[keys]]\n'`sk-canary`, expected ' = 1\n".to_owned(), "unknown field …, expected one"),
        (entry("a", "s", "rpm = 'a\"sk-canary'"), "invalid type: string …, expected a nonzero"),
        ("[[keys]]\nid = \"a\"\n".to_owned(), "missing field `sha256`"),
        ("[[keys]]\nid = \"a\"\nsha256 = \"sk-canary\"\n".to_owned(), "64 hexadecimal digits"),
        ("[[keys]]\nid = \"a\"\nsha256 = 1\n".to_owned(), "64 hexadecimal digits"),
        (entry("a", "s", "rpm = \"sk-canary\""), "invalid type"),
        (entry("a", "s", "rpm = -1"), "line 4"),
        (entry("a", "s", "concurrency = 0"), "line 4"),
        (entry("a", "s", "tpm = 1_000_000_001"), "'a': tpm is at most 1000000000"),
        (entry("a", "s", "priority = 9"), "'a': priority lies between -8 and 8"),
        (entry("a", "s", "models = []"), "'a': models is empty"),
        (entry("a", "s", "models = [\"\"]"), "'a': models has an empty name"),
        (entry("a", "s", "models = [1]"), "line 4"),
        (entry("a", "s", r#"models = ["b\u001b[2J"]"#), "'a': models has a name with control"),
        (entry("a", "s", r#""b\u001b[2J\tc" = 1"#), "unknown field …, expected one of"),
        (
            entry("a", "s", &format!("\"{}\" = 1", "b".repeat(100_000))),
            "unknown field …, expected one of",
        ),
        (entry("a", "s", "expires = \"sk-canary\""), "not a date"),
        (entry("a b", "s", ""), "key 1: an id has"),
        (good.clone() + &entry("a", "other", ""), "two keys have the id 'a'"),
        (good.clone() + &entry("b", "s", ""), "the digest of another"),
    ];
    for (text, expected) in bad {
        let error = file::parse(&text).unwrap_err();
        assert!(error.contains(expected), "{expected}: {error}");
        assert!(!error.contains("canary\"") && !error.contains("sk-"), "{error}");
        assert!(!error.chars().any(char::is_control) && error.len() < 500, "{error}");
    }
    assert!(file::parse("keys = []").unwrap().keys.is_empty());
}

#[test]
fn times_may_be_written_in_the_ways_people_write_them() {
    for (text, expected) in [
        ("2027-01-31", "2027-01-31T00:00:00Z"),
        ("\"2027-01-31\"", "2027-01-31T00:00:00Z"),
        ("2027-01-31T12:00:00+02:00", "2027-01-31T10:00:00Z"),
        ("2027-01-31 12:00:00Z", "2027-01-31T12:00:00Z"),
        ("\"2027-01-31T12:00:00Z\"", "2027-01-31T12:00:00Z"),
    ] {
        let file = file::parse(&entry("a", "s", &format!("expires = {text}"))).unwrap();
        assert_eq!(file.keys[0].expires.unwrap().to_string(), expected, "{text}");
    }
    for text in ["2027-01-31T12:00:00", "2027-13-01", "12:00:00", "\"tomorrow\"", "1"] {
        assert!(file::parse(&entry("a", "s", &format!("expires = {text}"))).is_err(), "{text}");
    }
}

#[test]
fn an_expired_key_is_as_good_as_a_wrong_one() {
    let (_folder, file) = folder();
    let text = entry("old", "old", "expires = 2020-01-01")
        + &entry("new", "new", "expires = 2999-01-01")
        + &entry("plain", "plain", "");
    write(&file, &text, 0o600);
    let store = KeyStore::open(Some(file), None).unwrap();
    assert!(store.find(&digest(b"old")).is_none());
    assert!(store.find(&digest(b"new")).is_some());
    assert!(store.find(&digest(b"plain")).is_some());
}

#[test]
fn a_secret_keeps_its_tenant_and_a_new_secret_gets_its_own() {
    let (_folder, file) = folder();
    let tenant =
        |store: &KeyStore, secret: &str| store.find(&digest(secret.as_bytes())).map(|k| k.tenant);
    write(&file, &(entry("a", "1", "") + &entry("b", "2", "")), 0o600);
    let store = KeyStore::open(Some(file.clone()), Some(digest(b"env"))).unwrap();
    let first = [tenant(&store, "1"), tenant(&store, "2"), tenant(&store, "env")];
    let expected = [1, 2, 3].map(|n| Some(Tenant(n)));
    assert_eq!(first, expected, "0 is for servers without keys");
    // a was rotated, and stands behind b now.
    write(&file, &(entry("b", "2", "") + &entry("a", "3", "")), 0o600);
    store.reload();
    let second = [tenant(&store, "1"), tenant(&store, "2"), tenant(&store, "env")];
    assert_eq!(second, [None, expected[1], expected[2]]);
    assert_eq!(tenant(&store, "3"), Some(Tenant(4)));
}

#[test]
fn what_was_used_of_a_limit_outlives_a_reload_unless_the_limit_changes() {
    let (_folder, file) = folder();
    let store = |more: &str| write(&file, &entry("a", "1", more), 0o600);
    store("rpm = 5\ntpm = 100\nconcurrency = 2");
    let keys = KeyStore::open(Some(file.clone()), None).unwrap();
    let limits = || keys.find(&digest(b"1")).unwrap().limits.clone();
    let remaining = |meter: &Option<Arc<Meter>>| meter.as_ref().unwrap().level().remaining;
    // Without a store nothing waits.
    let enter = |limits: Arc<Limits>| limits.enter().now_or_never().unwrap();
    let take = |meter: &Option<Arc<Meter>>, n| {
        let mut taken = Reserved::take(meter.as_ref().unwrap(), n).now_or_never().unwrap().unwrap();
        taken.spend(n);
    };
    let (first, _place) = (limits(), enter(limits()).unwrap());
    take(&first.requests, 3);
    take(&first.tokens, 90);
    store("rpm = 5\ntpm = 200\nconcurrency = 1");
    keys.reload();
    let second = limits();
    assert_eq!(remaining(&second.requests), 2, "the same limit");
    assert_eq!(remaining(&second.tokens), 200, "another one");
    assert!(enter(second).is_none(), "who runs still runs");
    store("");
    keys.reload();
    assert!(limits().requests.is_none() && enter(limits()).is_some());
}

#[test]
fn a_reload_that_fails_changes_nothing() {
    let (_folder, file) = folder();
    write(&file, &entry("a", "1", ""), 0o600);
    let store = KeyStore::open(Some(file.clone()), None).unwrap();
    write(&file, &entry("b", "2", ""), 0o644);
    store.reload();
    assert!(store.find(&digest(b"1")).is_some() && store.find(&digest(b"2")).is_none());
    fs::remove_file(&file).unwrap();
    store.reload();
    assert!(store.find(&digest(b"1")).is_some());
}

#[test]
fn debug_output_shows_no_digest() {
    let (_folder, file) = folder();
    write(&file, &entry("a", "1", ""), 0o600);
    let store = KeyStore::open(Some(file), Some(digest(b"env"))).unwrap();
    let shown = format!("{store:?}");
    assert!(shown.contains("\"a\""), "{shown}");
    let byte_lists = [digest(b"1"), digest(b"env")].map(|d| format!("{}, {}", d[0], d[1]));
    assert!(byte_lists.iter().all(|list| !shown.contains(list.as_str())), "{shown}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_text_makes_the_parser_panic(text in "(\\[\\[keys\\]\\]\n|id = \"[a-z]{0,3}\"\n|[ -~\n]{0,20}|é)*") {
        let _ = file::parse(&text);
    }

    #[test]
    fn what_is_written_can_be_read(id in "[a-zA-Z0-9._@:-]{1,64}", rpm in any::<Option<u32>>()) {
        let (_folder, file) = folder();
        let rpm = rpm.and_then(|n| NonZeroU32::new(n.min(file::MAX_LIMIT)));
        let secret = add(&file, NewKey { rpm, ..named(&id) }).unwrap();
        let keys = list(&file).unwrap();
        prop_assert_eq!(&keys[0].id, &id);
        prop_assert_eq!(keys[0].rpm, rpm);
        prop_assert_eq!(keys[0].sha256, digest(secret.as_bytes()));
    }
}

#[test]
fn moments_can_be_written_as_they_were_read_or_are_refused() {
    for (text, written) in [
        ("2027-01-31", "2027-01-31T00:00:00Z"),
        ("2027-01-31T12:00:00+02:00", "2027-01-31T10:00:00Z"),
        ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59Z"),
        ("0000-01-01T00:00:00Z", "0000-01-01T00:00:00Z"),
    ] {
        assert_eq!(text.parse::<Moment>().unwrap().to_string(), written);
    }
    // Their offsets lead out of the four digits of a year.
    for text in ["9999-12-31T23:59:59-01:00", "0000-01-01T00:00:00+01:00", "-0001-01-01", "soon"] {
        assert!(text.parse::<Moment>().is_err(), "{text}");
    }
}

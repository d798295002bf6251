//! Does the time of a look-up tell how much of a wrong key was right? The test of dudect (Reparaz, Balasch and
//! Verbauwhede, "Dude, is my code constant time?", 2017): times of two classes of input in random order,
//! compared by Welch's t.

use std::fs::{self, Permissions};
use std::hint::black_box;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Instant;

use super::file;
use super::*;

const SAMPLES: usize = 100_000;
/// Beyond this, says dudect, the classes differ.
const T_MAX: f64 = 4.5;
/// Enough that the look-up outweighs the reading of the clock.
const KEYS: u8 = 64;
/// The slowest part of all samples measures what else the machine does.
const KEPT: f64 = 0.9;

fn welch_t(classes: &[Vec<f64>; 2]) -> f64 {
    let [a, b] = classes.each_ref().map(|times| {
        let n = times.len() as f64;
        let mean = times.iter().sum::<f64>() / n;
        let variance = times.iter().map(|t| (t - mean).powi(2)).sum::<f64>() / (n - 1.0);
        (mean, variance / n)
    });
    (a.0 - b.0) / (a.1 + b.1).sqrt()
}

/// Times looking up `wrong[0]` and `wrong[1]`.
fn t_of(wrong: &[Digest; 2], find: impl Fn(&Digest) -> bool) -> f64 {
    let mut order = 1_u64;
    let mut times: Vec<(f64, usize)> = Vec::with_capacity(SAMPLES);
    for _ in 0..SAMPLES {
        order =
            order.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let class = (order >> 63) as usize;
        // Not by its place, which the cache would know.
        let digest = black_box(wrong[class]);
        let start = Instant::now();
        let found = black_box(find(&digest));
        times.push((start.elapsed().as_nanos() as f64, class));
        assert!(!found);
    }
    times.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    times.truncate((SAMPLES as f64 * KEPT) as usize);
    let of = |class| times.iter().filter(|t| t.1 == class).map(|t| t.0).collect();
    welch_t(&[of(0), of(1)])
}

/// The least of several: a leak shows in each of them, another program's work in some.
fn least_t(wrong: &[Digest; 2], find: impl Fn(&Digest) -> bool) -> f64 {
    (0..5).map(|_| t_of(wrong, &find).abs()).fold(f64::INFINITY, f64::min)
}

#[test]
fn row_25_the_time_of_a_look_up_tells_nothing_of_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.toml");
    let digests: Vec<Digest> = (0..KEYS).map(|i| digest(&[i])).collect();
    let entry = |(i, digest): (usize, &Digest)| {
        format!("[[keys]]\nid = \"k{i}\"\nsha256 = \"{}\"\n", file::to_hex(digest))
    };
    fs::write(&path, digests.iter().enumerate().map(entry).collect::<String>()).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    let store = KeyStore::open(Some(path), None).unwrap();
    let differing_at = |byte: usize| {
        let mut wrong = digests[0];
        wrong[byte] ^= 1;
        wrong
    };
    let wrong = [differing_at(0), differing_at(31)];
    let t = least_t(&wrong, |digest| store.find(digest).is_some());
    assert!(t < T_MAX, "t = {t}");
    // The same by a comparison that ends early: the test would see it.
    let careless = |digest: &Digest| {
        let equal = |key: &Digest| (0..32).all(|i| black_box(key[i]) == black_box(digest[i]));
        (0..KEYS).any(|_| equal(black_box(&digests[0])))
    };
    let t = least_t(&wrong, careless);
    assert!(t > T_MAX, "t = {t} of a comparison that leaks");
}

//! What the time to the first token tells of others (row 28 of `docs/faults.md`).

use std::time::Instant;

use crate::client::Client;
use crate::lifecycle::streaming;
use crate::limits::serve;

/// Pairs of samples.
const ROUNDS: usize = 40;

/// The standard score from which on two samples differ: reached by chance once in 16,000 runs.
const DIFFERENT: f64 = 4.0;

/// Mann and Whitney's U of `a` against `b` as a standard score by its normal approximation, with the correction for
/// ties. Below zero: `a` is the smaller one.
fn mann_whitney_z(a: &[f64], b: &[f64]) -> f64 {
    let of = |sample: &[f64], is_a: bool| sample.iter().map(|&x| (x, is_a)).collect::<Vec<_>>();
    let mut all = [of(a, true), of(b, false)].concat();
    all.sort_by(|x, y| x.0.total_cmp(&y.0));
    let (mut rank_sum, mut ties, mut ranked) = (0.0, 0.0, 0.0);
    for equal in all.chunk_by(|x, y| x.0 == y.0) {
        let count = equal.len() as f64;
        let rank = f64::midpoint(ranked + 1.0, ranked + count);
        rank_sum += rank * equal.iter().filter(|(_, is_a)| *is_a).count() as f64;
        ties += count.powi(3) - count;
        ranked += count;
    }
    let (n, m) = (a.len() as f64, b.len() as f64);
    let u = rank_sum - n * (n + 1.0) / 2.0;
    let variance = n * m / 12.0 * (ranked + 1.0 - ties / (ranked * (ranked - 1.0)));
    (u - n * m / 2.0) / variance.sqrt()
}

#[test]
fn ranks_are_compared_as_in_the_books() {
    let near = |z: f64, expected: f64| assert!((z - expected).abs() < 1e-4, "{z}");
    near(mann_whitney_z(&[1.0, 2.0, 3.0], &[4.0, 5.0, 6.0]), -1.963_961);
    near(mann_whitney_z(&[6.0, 4.0, 5.0], &[3.0, 1.0, 2.0]), 1.963_961);
    near(mann_whitney_z(&[1.0, 1.0, 2.0], &[1.0, 2.0, 3.0]), -0.942_809);
    near(mann_whitney_z(&[1.0, 4.0], &[2.0, 3.0]), 0.0);
}

/// Ten steps of the fake model where none of it is found in the cache, and one where all of it is. The number comes
/// first, so that no two have a beginning in common.
fn prompt(number: usize) -> String {
    format!("{number:04} {}", "z".repeat(635))
}

fn first_token_s(client: &Client, number: usize) -> f64 {
    let body = streaming(&prompt(number), 1);
    let began = Instant::now();
    let mut stream = client.stream(&body);
    stream.first();
    let elapsed = began.elapsed();
    assert!(stream.finish().1);
    elapsed.as_secs_f64()
}

#[test]
fn row_28_the_first_token_of_anothers_prompt_takes_as_long_as_that_of_a_new_one() {
    let args = ["fake:step_ms=1,kv_blocks=65536", "--max-num-batched-tokens", "64"];
    let (_server, clients) = serve(&args, &[("a", &[]), ("b", &[])]);
    let (a, b) = (&clients[0], &clients[1]);
    let (mut of_others, mut new, mut own) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        first_token_s(a, round);
        // Whatever the machine does besides, it does to both.
        if round % 2 == 0 {
            of_others.push(first_token_s(b, round));
            new.push(first_token_s(b, 5_000 + round));
        } else {
            new.push(first_token_s(b, 5_000 + round));
            of_others.push(first_token_s(b, round));
        }
        own.push(first_token_s(a, round));
    }
    let z = mann_whitney_z(&of_others, &new);
    assert!(
        z.abs() < DIFFERENT,
        "z = {z}: {of_others:?} for another's prompts, {new:?} for new ones"
    );
    // That it could be seen: what is found is sooner.
    let z = mann_whitney_z(&own, &new);
    assert!(z < -DIFFERENT, "z = {z}: {own:?} for one's own prompts, {new:?} for new ones");
}

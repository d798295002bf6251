use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn draw<'a>(logits: &'a [f32], sampling: &'a Sampling) -> Draw<'a> {
    Draw {
        logits,
        sampling,
        prompt: &[],
        generated: &[],
        end_tokens: &[],
        allowed: None,
        seed: 1,
        sample: 0,
    }
}

fn greedy() -> Sampling {
    Sampling { temperature: 0.0, ..Sampling::default() }
}

fn token(draw: &Draw<'_>) -> TokenId {
    Sampler::new(draw.logits.len()).sample(draw).unwrap().token
}

/// What may be drawn and how probable it is, computed the plain way in f64: everything sorted.
fn reference(logits: &[f32], s: &Sampling) -> BTreeMap<TokenId, f64> {
    let mut order: Vec<usize> = (0..logits.len()).filter(|&i| logits[i].is_finite()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
    let max = f64::from(logits[order[0]]);
    let weight = |i: usize| ((f64::from(logits[i]) - max) / f64::from(s.temperature)).exp();
    if s.min_p > 0.0 {
        order.retain(|&i| weight(i) >= f64::from(s.min_p));
    }
    if s.top_k > 0 {
        order.truncate(s.top_k as usize);
    }
    let total: f64 = order.iter().map(|&i| weight(i)).sum();
    let mut sum = 0.0;
    let mut kept = Vec::new();
    for i in order {
        if s.top_p < 1.0 && !kept.is_empty() && sum >= f64::from(s.top_p) * total {
            break;
        }
        sum += weight(i);
        kept.push(i);
    }
    kept.into_iter().map(|i| (i as TokenId, weight(i) / sum)).collect()
}

/// Draws often, by running index, and compares frequencies with `reference`.
fn assert_distribution(logits: &[f32], s: &Sampling) {
    const DRAWS: u32 = 20_000;
    let expected = reference(logits, s);
    let mut sampler = Sampler::new(logits.len());
    let mut seen: BTreeMap<TokenId, u32> = BTreeMap::new();
    for seed in 0..u64::from(DRAWS) {
        let sampled = sampler.sample(&Draw { seed, ..draw(logits, s) }).unwrap();
        *seen.entry(sampled.token).or_default() += 1;
    }
    for (id, count) in &seen {
        assert!(expected.contains_key(id), "{id} drawn {count} times, but not in {expected:?}");
    }
    for (id, p) in expected {
        let share = f64::from(seen.get(&id).copied().unwrap_or(0)) / f64::from(DRAWS);
        let deviation = (p * (1.0 - p) / f64::from(DRAWS)).sqrt();
        assert!((share - p).abs() < 5.0 * deviation + 1e-4, "{id}: {share} instead of {p}, {s:?}");
    }
}

fn wavy(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 37) % 11) as f32 / 2.0 - (i as f32 / n as f32)).collect()
}

#[test]
fn draws_follow_the_distribution() {
    let base = Sampling::default();
    let row = wavy(150);
    for s in [
        base.clone(),
        Sampling { temperature: 0.5, ..base.clone() },
        Sampling { temperature: 2.0, top_k: 5, ..base.clone() },
        Sampling { top_p: 0.5, ..base.clone() },
        Sampling { min_p: 0.2, ..base.clone() },
        Sampling { top_k: 40, top_p: 0.7, min_p: 0.01, ..base.clone() },
        Sampling { min_p: 0.05, top_p: 0.9, ..base },
    ] {
        assert_distribution(&row, &s);
    }
}

#[test]
fn a_masked_token_is_never_drawn() {
    let mut row = wavy(100);
    row.iter_mut().step_by(2).for_each(|x| *x = f32::NEG_INFINITY);
    for s in [
        Sampling::default(),
        Sampling { top_p: 0.999, ..Sampling::default() },
        Sampling { top_k: 99, ..Sampling::default() },
        Sampling { min_p: 1e-9, temperature: 100.0, ..Sampling::default() },
    ] {
        assert_distribution(&row, &s);
    }
}

#[test]
fn ties_go_to_the_lowest_id() {
    let row = [1.0, 3.0, 0.0, 3.0, 3.0, -0.0];
    assert_eq!(token(&draw(&row, &greedy())), 1);
    for s in [
        Sampling { top_k: 1, ..Sampling::default() },
        Sampling { top_p: 0.0, ..Sampling::default() },
        Sampling { top_p: 0.3, ..Sampling::default() },
    ] {
        for seed in 0..50 {
            assert_eq!(token(&Draw { seed, ..draw(&row, &s) }), 1, "{s:?}");
        }
    }
    let s = Sampling { logprobs: Some(6), ..greedy() };
    let logprobs = Sampler::new(6).sample(&draw(&row, &s)).unwrap().logprobs.unwrap();
    let ids: Vec<TokenId> = logprobs.top.iter().map(|t| t.0).collect();
    assert_eq!(ids, [1, 3, 4, 0, 2, 5]);
}

#[test]
fn the_limit_of_min_p_keeps_all_that_tie_with_the_best() {
    let row = [1.0, 3.0, 3.0];
    let s = Sampling { min_p: 1.0, ..Sampling::default() };
    assert_distribution(&row, &s);
    assert_eq!(reference(&row, &s).len(), 2);
}

#[test]
fn random_numbers_depend_on_seed_sample_and_index_alone() {
    let row = wavy(200);
    let s = Sampling::default();
    let base = draw(&row, &s);
    let mut used = Sampler::new(200);
    let generated = [3, 4];
    let other = Draw { generated: &generated, ..base };
    let first = used.sample(&base).unwrap();
    used.sample(&other).unwrap();
    used.score(&row, 5, 3).unwrap();
    assert_eq!(used.sample(&base).unwrap(), first);
    let tokens = |vary: &dyn Fn(u64) -> TokenId| (0..40).map(vary).collect::<Vec<_>>();
    let by_seed = tokens(&|seed| token(&Draw { seed, ..base }));
    let by_sample = tokens(&|i| token(&Draw { sample: i as u32, ..base }));
    assert_ne!(by_seed, by_sample);
    assert!(by_sample.iter().any(|&t| t != by_sample[0]));
}

#[test]
fn penalties_as_published() {
    let row = [2.0, -1.0, 1.0, 0.5];
    let s = Sampling {
        frequency_penalty: 0.5,
        presence_penalty: 0.25,
        repetition_penalty: 2.0,
        ..greedy()
    };
    let (prompt, generated) = ([1, 3], [0, 0, 2]);
    let d = Draw { prompt: &prompt, generated: &generated, ..draw(&row, &s) };
    let mut adjuster = Adjuster::new(4);
    // 2 / 2 - 0.5 * 2 - 0.25; -1 * 2 (prompt only); 1 / 2 - 0.5 - 0.25; 0.5 / 2 (prompt only).
    let expected: &[f32] = &[-0.25, -2.0, -0.25, 0.25];
    assert_eq!(adjuster.adjust(&d), Some(expected));
    assert_eq!(adjuster.adjust(&d), Some(expected), "a second use starts afresh");
}

#[test]
fn biases_add_up_and_min_tokens_masks_the_ends() {
    let row = [0.0, 1.0, 2.0];
    let s = Sampling { logit_bias: vec![(0, 50.0), (0, 50.0), (2, -100.0)], ..greedy() };
    assert_eq!(token(&draw(&row, &s)), 0);
    let s = Sampling { min_tokens: 2, ..greedy() };
    let ends = [2, 1];
    let d = Draw { end_tokens: &ends, ..draw(&row, &s) };
    assert_eq!(token(&d), 0);
    assert_eq!(token(&Draw { generated: &[0, 0], ..d }), 2, "from then on they count");
    let ignoring = Sampling { ignore_end: true, ..s.clone() };
    assert_eq!(token(&Draw { sampling: &ignoring, ..d }), 2, "ordinary tokens if ends are ignored");
    let own = Sampling { stop_tokens: vec![2], ..ignoring };
    assert_eq!(token(&Draw { sampling: &own, ..d }), 1, "the request's own are ends all the same");
    let ends = [0, 1, 2];
    assert_eq!(token(&Draw { end_tokens: &ends, ..d }), 2, "masks that leave nothing are dropped");
}

#[test]
fn rows_without_numbers_are_an_error_and_rows_without_hope_are_not() {
    let s = Sampling { logprobs: Some(2), ..Sampling::default() };
    for bad in [f32::NAN, f32::INFINITY] {
        let row = [0.0, bad, 1.0];
        assert_eq!(Sampler::new(3).sample(&draw(&row, &s)), Err(NotFinite));
        assert_eq!(Sampler::new(3).score(&row, 0, 1), Err(NotFinite));
    }
    let row = [f32::NEG_INFINITY; 4];
    let sampled = Sampler::new(4).sample(&draw(&row, &s)).unwrap();
    assert_eq!(sampled.token, 0);
    assert!((sampled.logprobs.unwrap().own + 4.0_f32.ln()).abs() < 1e-6);
    let row = [0.0, f32::NEG_INFINITY];
    let own = Sampler::new(2).score(&row, 1, 0).unwrap().own;
    assert_eq!(own.to_bits(), LOGPROB_MIN.to_bits());
}

#[test]
fn steady_state_keeps_its_buffers() {
    let row = wavy(5000);
    let s = Sampling { top_p: 0.9, frequency_penalty: 0.1, ..Sampling::default() };
    let generated: Vec<TokenId> = (0..100).collect();
    let mut sampler = Sampler::new(5000);
    let d = Draw { generated: &generated, ..draw(&row, &s) };
    sampler.sample(&d).unwrap();
    let sizes = |s: &Sampler| (s.adjuster.capacity(), s.picker.capacity());
    let before = sizes(&sampler);
    for seed in 0..20 {
        sampler.sample(&Draw { seed, ..d }).unwrap();
    }
    assert_eq!(before, sizes(&sampler));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever the row and the limits: what is drawn is in the reference's set, and what the
    /// reference keeps with some probability is drawn for the `uniform` that belongs to it.
    #[test]
    fn truncation_agrees_with_the_reference(
        levels in prop::collection::vec(-40_i32..40, 1..300),
        temperature in 0.1_f32..3.0,
        top_k in 0_u32..20,
        top_p in prop::sample::select(vec![0.0_f32, 0.1, 0.5, 0.9, 0.999, 1.0]),
        min_p in prop::sample::select(vec![0.0_f32, 0.0, 0.01, 0.3]),
        seed in any::<u64>(),
    ) {
        let row: Vec<f32> = levels.iter().map(|&x| x as f32 / 4.0).collect();
        let s = Sampling { temperature, top_p, top_k, min_p, ..Sampling::default() };
        let expected = reference(&row, &s);
        let mut sampler = Sampler::new(row.len());
        for sample in 0..20 {
            let got = sampler.sample(&Draw { seed, sample, ..draw(&row, &s) }).unwrap();
            prop_assert!(expected.contains_key(&got.token), "{} not in {:?}", got.token, expected);
        }
    }

    /// The top list is the head of a full sort, and own values have the bits of the list.
    #[test]
    fn logprobs_agree_with_a_full_sort(
        levels in prop::collection::vec(-400_i32..400, 1..400),
        top in 0_u32..25,
    ) {
        let row: Vec<f32> = levels.iter().map(|&x| x as f32 / 16.0).collect();
        let mut order: Vec<usize> = (0..row.len()).collect();
        order.sort_by(|&a, &b| row[b].total_cmp(&row[a]).then(a.cmp(&b)));
        let sum: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
        let mut sampler = Sampler::new(row.len());
        let scored = sampler.score(&row, order[0] as TokenId, top).unwrap();
        let ids: Vec<usize> = scored.top.iter().map(|t| t.0 as usize).collect();
        let sorted = order.clone();
        order.truncate(top as usize);
        prop_assert_eq!(&ids, &order);
        for &(id, logprob) in &scored.top {
            let exact = f64::from(row[id as usize]) - sum.ln();
            prop_assert!((f64::from(logprob) - exact).abs() < 1e-5);
            let own = sampler.score(&row, id, 0).unwrap().own;
            prop_assert_eq!(own.to_bits(), logprob.to_bits());
        }
        for (at, &id) in sorted.iter().enumerate() {
            prop_assert_eq!(sampler.score(&row, id as TokenId, top).unwrap().rank, at as u32 + 1);
        }
    }
}

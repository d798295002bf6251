use super::{
    POINTS, figures, over_time, percentile, rates_over_time, standard_error, standard_errors,
};
use crate::cli::bench::answer::{Answer, Usage};
use crate::cli::bench::fault::{Fault, Kind};
use crate::cli::bench::load::Sample;

/// A request sent at `sent_s` whose answer has these times.
fn sample(index: usize, sent_s: f64, ttft_s: f64, gaps_s: &[f64]) -> Sample {
    let e2e_s = ttft_s + gaps_s.iter().sum::<f64>();
    let chunks = gaps_s.len() as u64 + 1;
    let usage = Usage { prompt: 10, completion: chunks, cached: None };
    let answer = Answer { ttft_s, e2e_s, gaps_s: gaps_s.to_vec(), chunks, usage: Some(usage) };
    Sample { index, sent_s, waited_s: 0.0, ended_s: sent_s + e2e_s, outcome: Ok(answer) }
}

fn failed(index: usize, sent_s: f64) -> Sample {
    let outcome = Err(Fault::new(Kind::Http(503), "no"));
    Sample { index, sent_s, waited_s: 0.0, ended_s: sent_s, outcome }
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * a.abs().max(b.abs())
}

#[test]
fn percentiles_are_numpys() {
    // numpy.percentile([15, 20, 35, 40, 50], [0, 40, 50, 90, 99, 100])
    let numbers = [15.0, 20.0, 35.0, 40.0, 50.0];
    for (percent, value) in
        [(0.0, 15.0), (40.0, 29.0), (50.0, 35.0), (90.0, 46.0), (99.0, 49.6), (100.0, 50.0)]
    {
        let found = percentile(&numbers, percent).unwrap();
        assert!(close(found, value), "{percent}: {found}");
    }
    assert_eq!(percentile(&[7.0], 99.0), Some(7.0));
    assert_eq!(percentile(&[], 50.0), None);
}

#[test]
fn figures_are_those_of_the_definitions() {
    // Two answers of 3 tokens, and a failure that is in no figure.
    let samples =
        [sample(0, 0.0, 0.1, &[0.02, 0.04]), sample(1, 0.1, 0.3, &[0.06, 0.06]), failed(2, 0.2)];
    let found = figures(&samples, 2.0);
    for (name, value) in [
        ("ttft_ms_mean", 200.0),
        ("ttft_ms_p50", 200.0),
        ("ttft_ms_p90", 280.0),
        ("ttft_ms_p99", 298.0),
        ("ttft_ms_max", 300.0),
        ("itl_ms_mean", 45.0),
        ("itl_ms_p50", 50.0),
        ("tpot_ms_mean", 45.0),
        ("e2e_ms_mean", 290.0),
        ("requests_per_s", 1.0),
        ("output_tokens_per_s", 3.0),
        ("total_tokens_per_s", 13.0),
    ] {
        assert!(close(found[name], value), "{name}: {} is not {value}", found[name]);
    }
    assert!(figures(&[failed(0, 0.0)], 1.0).is_empty());
}

#[test]
fn tokens_are_counted_when_they_come() {
    let samples = [sample(0, 0.0, 0.5, &[1.0, 1.0]), sample(1, 3.0, 0.5, &[])];
    let [requests, output, total] = rates_over_time(&samples, 4.0, 4);
    assert_eq!(requests, [0.0, 0.0, 1.0, 1.0]);
    assert_eq!(output, [1.0, 1.0, 1.0, 1.0]);
    assert_eq!(total, [1.0, 1.0, 11.0, 11.0]);
    let ttft = over_time("ttft", &samples, 4.0);
    assert_eq!((ttft.len(), ttft[0], ttft[1], ttft[15]), (POINTS, Some(500.0), None, Some(500.0)));
    let itl = over_time("itl", &samples, 4.0);
    assert_eq!((itl[2], itl[7], itl[3]), (Some(1000.0), Some(1000.0), None));
}

#[test]
fn what_differs_from_part_to_part_is_less_sure() {
    assert!(close(standard_error(&[1.0, 2.0, 3.0, 4.0]), (5.0_f64 / 3.0 / 4.0).sqrt()));
    let steady: Vec<_> = (0..40).map(|i| sample(i, i as f64, 0.2, &[0.02; 4])).collect();
    let errors = standard_errors(&steady, 40.0);
    assert!(errors["ttft_ms_p50"] < 1e-9 && errors["itl_ms_p99"] < 1e-9);
    let ttft = |i: usize| if (i / 4).is_multiple_of(2) { 0.1 } else { 0.3 };
    let uneven: Vec<_> = (0..40).map(|i| sample(i, i as f64, ttft(i), &[])).collect();
    let errors = standard_errors(&uneven, 40.0);
    // Ten parts of 100 or 300 ms: a deviation of about 105, by the root of ten.
    assert!((errors["ttft_ms_mean"] - 33.3).abs() < 0.1, "{}", errors["ttft_ms_mean"]);
    assert!(!errors.contains_key("itl_ms_p50"), "there are no gaps");
    assert!(standard_errors(&uneven[..19], 19.0).is_empty());
}

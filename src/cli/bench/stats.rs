//! From samples to figures. Names end in their unit; docs/benchmarking.md defines them.

use std::collections::BTreeMap;

use super::answer::Answer;
use super::load::Sample;

/// Consecutive parts of a run, whose differences tell how sure a figure is.
const PARTS: usize = 10;
/// Points of a sparkline.
pub(super) const POINTS: usize = 20;

/// Figures by name.
pub(super) type Figures = BTreeMap<String, f64>;

/// Latencies that there are figures of, in the order of the table.
pub(super) const LATENCIES: [&str; 4] = ["ttft", "itl", "tpot", "e2e"];
pub(super) const RATES: [&str; 3] = ["requests_per_s", "output_tokens_per_s", "total_tokens_per_s"];

/// Of numbers in order; linear between neighbours, as numpy has it. `None` of nothing.
pub(super) fn percentile(sorted: &[f64], percent: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let at = percent / 100.0 * last as f64;
    let (low, part) = (at.floor() as usize, at.fract());
    let high = sorted[(low + 1).min(last)];
    Some(sorted[low] + (high - sorted[low]) * part)
}

pub(super) fn mean(numbers: &[f64]) -> Option<f64> {
    (!numbers.is_empty()).then(|| numbers.iter().sum::<f64>() / numbers.len() as f64)
}

/// The answers among samples.
pub(super) fn answers(samples: &[Sample]) -> impl Iterator<Item = &Answer> {
    samples.iter().filter_map(|s| s.outcome.as_ref().ok())
}

/// One latency of these samples, in milliseconds. Each request has one TTFT and as many gaps as it has.
pub(super) fn latency_ms(name: &str, samples: &[Sample]) -> Vec<f64> {
    let mut found = Vec::new();
    for answer in answers(samples) {
        match name {
            "ttft" => found.push(answer.ttft_s),
            "itl" => found.extend(&answer.gaps_s),
            "tpot" => found.extend(answer.tpot_s()),
            _ => found.push(answer.e2e_s),
        }
    }
    for s in &mut found {
        *s *= 1e3;
    }
    found
}

/// Mean, percentiles and maximum of each latency.
fn latencies(samples: &[Sample]) -> Figures {
    let mut figures = Figures::new();
    for name in LATENCIES {
        let mut ms = latency_ms(name, samples);
        ms.sort_by(f64::total_cmp);
        let found = [
            ("mean", mean(&ms)),
            ("p50", percentile(&ms, 50.0)),
            ("p90", percentile(&ms, 90.0)),
            ("p99", percentile(&ms, 99.0)),
            ("max", ms.last().copied()),
        ];
        for (what, value) in found {
            figures.extend(value.map(|value| (format!("{name}_ms_{what}"), value)));
        }
    }
    figures
}

/// Prompt tokens as the server counts them.
pub(super) fn input_tokens(answer: &Answer) -> u64 {
    answer.usage.map_or(0, |u| u.prompt)
}

/// All figures of a run.
pub(super) fn figures(samples: &[Sample], wall_s: f64) -> Figures {
    let mut figures = latencies(samples);
    if wall_s > 0.0 && answers(samples).next().is_some() {
        let output: u64 = answers(samples).map(Answer::output_tokens).sum();
        let input: u64 = answers(samples).map(input_tokens).sum();
        let requests = answers(samples).count() as f64;
        let rates = [requests, output as f64, (input + output) as f64];
        figures.extend(RATES.iter().zip(rates).map(|(name, n)| ((*name).to_owned(), n / wall_s)));
    }
    figures
}

/// The standard error of each figure, from how much it differs between consecutive parts of the run. Only those that
/// every part has are told, and none of a run with fewer than two requests a part.
pub(super) fn standard_errors(samples: &[Sample], wall_s: f64) -> Figures {
    let answered: Vec<Sample> = samples.iter().filter(|s| s.outcome.is_ok()).cloned().collect();
    if answered.len() < 2 * PARTS {
        return Figures::new();
    }
    let size = answered.len() as f64 / PARTS as f64;
    let bound = |part: usize| (part as f64 * size).round() as usize;
    let mut parts: Vec<Figures> =
        (0..PARTS).map(|i| latencies(&answered[bound(i)..bound(i + 1)])).collect();
    for (name, series) in RATES.iter().zip(rates_over_time(&answered, wall_s, PARTS)) {
        for (part, rate) in parts.iter_mut().zip(series) {
            part.insert((*name).to_owned(), rate);
        }
    }
    let mut errors = Figures::new();
    for name in parts[0].keys() {
        let values: Vec<f64> = parts.iter().filter_map(|p| p.get(name).copied()).collect();
        if values.len() == PARTS {
            errors.insert(name.clone(), standard_error(&values));
        }
    }
    errors
}

/// Of the mean of these.
fn standard_error(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    (squares / (n - 1.0) / n).sqrt()
}

/// [`RATES`] in equal parts of the time: requests and their prompts when they end, tokens when their chunks come.
pub(super) fn rates_over_time(samples: &[Sample], wall_s: f64, parts: usize) -> [Vec<f64>; 3] {
    let [mut requests, mut output, mut total] = [const { Vec::new() }; 3].map(|mut v: Vec<f64>| {
        v.resize(parts, 0.0);
        v
    });
    let part_s = wall_s / parts as f64;
    if part_s <= 0.0 {
        return [requests, output, total];
    }
    let part = |at_s: f64| ((at_s / part_s) as usize).min(parts - 1);
    for sample in samples {
        let Ok(answer) = &sample.outcome else { continue };
        let ended = part(sample.sent_s + answer.e2e_s);
        requests[ended] += 1.0 / part_s;
        total[ended] += input_tokens(answer) as f64 / part_s;
        // Tokens of an answer are spread evenly over its chunks.
        let share = answer.output_tokens() as f64 / (answer.gaps_s.len() + 1) as f64 / part_s;
        let mut at_s = sample.sent_s + answer.ttft_s;
        output[part(at_s)] += share;
        total[part(at_s)] += share;
        for gap in &answer.gaps_s {
            at_s += gap;
            output[part(at_s)] += share;
            total[part(at_s)] += share;
        }
    }
    [requests, output, total]
}

/// The median of a latency in [`POINTS`] equal parts of the time, by when each began; `None` where nothing did.
pub(super) fn over_time(name: &str, samples: &[Sample], wall_s: f64) -> Vec<Option<f64>> {
    let mut parts = vec![Vec::new(); POINTS];
    let mut put = |at_s: f64, s: f64| {
        let part = (at_s / wall_s * POINTS as f64) as usize;
        parts[part.min(POINTS - 1)].push(s * 1e3);
    };
    for sample in samples {
        let Ok(answer) = &sample.outcome else { continue };
        let mut at_s = sample.sent_s;
        match name {
            "ttft" => put(at_s, answer.ttft_s),
            "tpot" => answer.tpot_s().into_iter().for_each(|s| put(at_s, s)),
            "e2e" => put(at_s, answer.e2e_s),
            _ => {
                at_s += answer.ttft_s;
                for &gap in &answer.gaps_s {
                    put(at_s, gap);
                    at_s += gap;
                }
            }
        }
    }
    let median = |mut part: Vec<f64>| {
        part.sort_by(f64::total_cmp);
        percentile(&part, 50.0)
    };
    parts.into_iter().map(median).collect()
}

#[cfg(test)]
#[path = "stats_tests.rs"]
mod tests;

//! How long something takes: samples of some milliseconds each, their median and spread.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Seconds a call, over several samples.
#[derive(Clone, Copy)]
pub(crate) struct Timing {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Timing {
    /// Times `call`, which is run once before. Samples are several calls long where a call is short.
    pub(crate) fn of(short: bool, mut call: impl FnMut()) -> Self {
        let (samples, long) = if short { (3, 1) } else { (9, 20) };
        call();
        let begin = Instant::now();
        call();
        let once = begin.elapsed().as_secs_f64().max(1e-9);
        let calls = (Duration::from_millis(long).as_secs_f64() / once).ceil().max(1.0) as usize;
        let mut seconds: Vec<f64> = (0..samples)
            .map(|_| {
                let begin = Instant::now();
                (0..calls).for_each(|_| call());
                begin.elapsed().as_secs_f64() / calls as f64
            })
            .collect();
        seconds.sort_by(f64::total_cmp);
        Self { median: seconds[samples / 2], least: seconds[0], most: seconds[samples - 1] }
    }

    /// Billions a second where a call does `amount`.
    pub(crate) fn giga(&self, amount: usize) -> f64 {
        amount as f64 / self.median / 1e9
    }

    /// The best sample of [`Self::giga`]: what a limit is.
    pub(crate) fn best_giga(&self, amount: usize) -> f64 {
        amount as f64 / self.least / 1e9
    }

    /// Billions a second with their spread.
    pub(crate) fn json(&self, amount: usize) -> Value {
        let giga = |seconds: f64| amount as f64 / seconds / 1e9;
        json!({"median": giga(self.median), "min": giga(self.most), "max": giga(self.least)})
    }
}

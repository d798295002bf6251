//! The processor's limits, measured in the same run as the kernels.

use millrace::backend::cpu::bench::{Peak, Reader};
use millrace::backend::cpu::gemm::Tier;
use millrace::backend::cpu::pool::Pool;
use serde_json::{Map, Value, json};

use crate::options::{self, Options};
use crate::timing::Timing;

/// Bytes of weights that a product at one row streams: more than the caches of the cores themselves.
pub(crate) const STREAM: usize = 128 << 20;

/// Weight bits with a peak of their own; `None` are floats.
pub(crate) const BITS: [Option<u32>; 5] = [Some(4), Some(5), Some(6), Some(8), None];

pub(crate) struct Limits {
    /// GB/s of a buffer much larger than the last cache, and its size.
    pub(crate) memory: f64,
    memory_bytes: usize,
    /// GB/s of a buffer of [`STREAM`] bytes, part of which a large last cache may hold.
    pub(crate) stream: f64,
    /// Billions of multiply-accumulates a second.
    peaks: Vec<(Tier, Option<u32>, f64)>,
}

impl Limits {
    /// Measures and prints them.
    pub(crate) fn measure(pool: &mut Pool, options: &Options) -> Self {
        let (memory_bytes, memory) = read(pool, options.short, much(options.short));
        let (_, stream) = read(pool, options.short, STREAM);
        println!("{}, {} threads", options::processor(), pool.threads());
        println!(
            "reads {memory:.1} GB/s of {} MiB, {stream:.1} of {} MiB",
            memory_bytes >> 20,
            STREAM >> 20
        );
        let mut limits = Self { memory, memory_bytes, stream, peaks: Vec::new() };
        for tier in Tier::ALL.into_iter().filter(|t| t.is_available()) {
            for bits in BITS {
                let Some(peak) = Peak::of(tier, bits) else { continue };
                let rounds = 20_000;
                let timing = Timing::of(options.short, || peak.run(pool, rounds));
                limits.peaks.push((tier, bits, timing.best_giga(peak.macs(pool, rounds))));
            }
            let line: Vec<String> = BITS
                .into_iter()
                .filter_map(|bits| Some(format!("{:.0} {}", limits.peak(tier, bits)?, name(bits))))
                .collect();
            let line = if line.is_empty() {
                "the specification, held to no limit".to_owned()
            } else {
                line.join(", ")
            };
            println!("peak of {}, GMAC/s: {line}", tier.name());
        }
        limits
    }

    /// Billions of multiply-accumulates a second at most; `None` for a tier that is held to no limit.
    pub(crate) fn peak(&self, tier: Tier, bits: Option<u32>) -> Option<f64> {
        self.peaks.iter().find(|p| (p.0, p.1) == (tier, bits)).map(|p| p.2)
    }

    pub(crate) fn json(&self) -> Value {
        let mut peaks = Map::new();
        for (tier, bits, peak) in &self.peaks {
            peaks.insert(format!("{} {}", tier.name(), name(*bits)), json!(peak));
        }
        json!({
            "memory_gb_per_s": self.memory, "memory_bytes": self.memory_bytes,
            "stream_gb_per_s": self.stream, "stream_bytes": STREAM, "peak_gmac_per_s": peaks,
        })
    }
}

fn name(bits: Option<u32>) -> String {
    bits.map_or("floats".to_owned(), |b| format!("{b} bits"))
}

/// Four times the last cache, if memory allows it.
fn much(short: bool) -> usize {
    let wanted = options::last_cache().map_or(1 << 30, |cache| 4 * cache);
    let most = if short { STREAM } else { options::free_memory().map_or(STREAM, |free| free / 4) };
    wanted.min(most).max(STREAM)
}

fn read(pool: &mut Pool, short: bool, bytes: usize) -> (usize, f64) {
    let reader = Reader::new(bytes);
    (bytes, Timing::of(short, || reader.run(pool)).best_giga(reader.bytes()))
}

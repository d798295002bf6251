//! What stands behind `fake:`.

/// The fake model's options and their defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Tokens in the vocabulary; at least 2.
    pub vocab: usize,
    /// Layers that a chunk can stop between.
    pub layers: usize,
    /// Longest sequence.
    pub max_len: usize,
    pub kv_blocks: usize,
    /// Most tokens, and most rows of logits, of a step.
    pub max_rows: usize,
    pub max_logit_rows: usize,
    /// As a model that keeps one sequence by itself; a step that such a model could not compute fails.
    pub one_at_a_time: bool,
    /// Histories for each that ends an answer; 0: none does.
    pub end_every: u64,
    /// Of so many histories, all but one prefer what followed their last token before; 0: none does.
    pub repeats: u64,
    pub step_ms: u64,
    pub load_ms: u64,
    /// Bits that the keys of cached prefixes are cut to, so that they collide; 128 is all of them.
    pub hash_bits: u32,
    pub faults: Vec<Fault>,
}

/// Something that goes wrong in one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    pub kind: FaultKind,
    /// Counted from 1, the first step after the start.
    pub step: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// The step panics.
    Panic,
    /// The step never returns.
    Hang,
    /// All logits of the step are NaN.
    Nan,
    /// The step takes 5 s.
    Slow,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            vocab: 512,
            layers: 8,
            max_len: 4096,
            kv_blocks: 4096,
            max_rows: 4096,
            max_logit_rows: 256,
            one_at_a_time: false,
            end_every: 64,
            repeats: 0,
            step_ms: 0,
            load_ms: 0,
            hash_bits: 128,
            faults: Vec::new(),
        }
    }
}

const KEYS: &str = "vocab, layers, max_len, kv_blocks, max_rows, max_logit_rows, \
                    one_at_a_time, end_every, repeats, step_ms, load_ms, hash_bits, fault";

impl Options {
    /// Reads `fake:key=value,…`, with or without anything behind the colon.
    pub fn parse(spec: &str) -> Result<Self, String> {
        let list = spec.strip_prefix("fake:").ok_or_else(|| format!("{spec} is no fake: model"))?;
        let mut options = Self::default();
        for pair in list.split(',').filter(|pair| !pair.is_empty()) {
            let (key, value) =
                pair.split_once('=').ok_or_else(|| format!("fake model: {pair} has no value"))?;
            options.set(key.trim(), value.trim())?;
        }
        Ok(options)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let number = |least: u64, most: u64| {
            let number = value.parse::<u64>().ok().filter(|n| (least..=most).contains(n));
            number.ok_or_else(|| {
                format!("fake model: {key} must be a number from {least} to {most}, not {value}")
            })
        };
        match key {
            "vocab" => self.vocab = number(2, 1 << 20)? as usize,
            "layers" => self.layers = number(1, 1 << 10)? as usize,
            "max_len" => self.max_len = number(2, 1 << 24)? as usize,
            "kv_blocks" => self.kv_blocks = number(1, 1 << 20)? as usize,
            "max_rows" => self.max_rows = number(1, 1 << 20)? as usize,
            "max_logit_rows" => self.max_logit_rows = number(1, 1 << 20)? as usize,
            "one_at_a_time" => self.one_at_a_time = number(0, 1)? == 1,
            "end_every" => self.end_every = number(0, u64::MAX)?,
            "repeats" => self.repeats = number(0, u64::MAX)?,
            "step_ms" => self.step_ms = number(0, 600_000)?,
            "load_ms" => self.load_ms = number(0, 600_000)?,
            "hash_bits" => self.hash_bits = number(1, 128)? as u32,
            "fault" => self.faults.push(Fault::parse(value)?),
            _ => return Err(format!("fake model: {key} is not one of {KEYS}")),
        }
        Ok(())
    }
}

impl Fault {
    fn parse(value: &str) -> Result<Self, String> {
        let wrong = || {
            format!("fake model: fault={value} is not panic@N, hang@N, nan@N or slow@N, N from 1")
        };
        let (kind, step) = value.split_once('@').ok_or_else(wrong)?;
        let kind = match kind {
            "panic" => FaultKind::Panic,
            "hang" => FaultKind::Hang,
            "nan" => FaultKind::Nan,
            "slow" => FaultKind::Slow,
            _ => return Err(wrong()),
        };
        let step = step.parse().ok().filter(|&n| n > 0).ok_or_else(wrong)?;
        Ok(Self { kind, step })
    }
}

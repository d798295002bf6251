//! What a request does to the logits before anything is chosen.

use super::Draw;
use crate::engine::message::TokenId;

/// A count that says: in the prompt, but not generated.
const PROMPT_ONLY: u32 = u32::MAX;

/// Adjusts a copy of the row, touching only the tokens that are concerned.
#[derive(Debug)]
pub(super) struct Adjuster {
    work: Vec<f32>,
    /// By token: how often it was generated; all zero between two calls.
    counts: Vec<u32>,
    /// Tokens whose count is not zero.
    touched: Vec<TokenId>,
}

impl Adjuster {
    pub(super) fn new(vocab: usize) -> Self {
        Self { work: Vec::with_capacity(vocab), counts: vec![0; vocab], touched: Vec::new() }
    }

    /// The adjusted row; nothing if the request leaves the logits as they are.
    pub(super) fn adjust(&mut self, draw: &Draw<'_>) -> Option<&[f32]> {
        let sampling = draw.sampling;
        let ends = masked_ends(draw);
        let masks_ends = ends.iter().any(|ends| !ends.is_empty());
        let penalises = penalises(draw);
        let changes = masks_ends || penalises || draw.allowed.is_some();
        if !changes && sampling.logit_bias.is_empty() {
            return None;
        }
        self.work.clear();
        self.work.extend_from_slice(draw.logits);
        if let Some(allowed) = draw.allowed {
            allowed.mask(&mut self.work);
        }
        for &end in ends.into_iter().flatten() {
            self.set(end, |_| f32::NEG_INFINITY);
        }
        for &(token, bias) in &sampling.logit_bias {
            self.set(token, |logit| logit + bias);
        }
        if penalises {
            self.penalise(draw);
        }
        Some(&self.work)
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.work.capacity() + self.counts.capacity() + self.touched.capacity()
    }

    fn set(&mut self, token: TokenId, value: impl Fn(f32) -> f32) {
        if let Some(logit) = self.work.get_mut(token as usize) {
            *logit = value(*logit);
        }
    }

    /// Repetition as CTRL has it (a positive logit is divided, a negative one multiplied; Keskar et
    /// al. 2019) over prompt and answer; frequency and presence, over the answer, are subtracted.
    fn penalise(&mut self, draw: &Draw<'_>) {
        let sampling = draw.sampling;
        self.count(draw);
        let touched = std::mem::take(&mut self.touched);
        for &token in &touched {
            let count = std::mem::take(&mut self.counts[token as usize]);
            let generated = if count == PROMPT_ONLY { 0 } else { count };
            let presence = if generated > 0 { sampling.presence_penalty } else { 0.0 };
            let frequency = sampling.frequency_penalty * generated as f32;
            self.set(token, |logit| {
                let repeated = if logit > 0.0 {
                    logit / sampling.repetition_penalty
                } else {
                    logit * sampling.repetition_penalty
                };
                let penalised = repeated - frequency - presence;
                // A masked token stays masked; nothing else becomes infinite.
                if logit.is_finite() { penalised.clamp(f32::MIN, f32::MAX) } else { logit }
            });
        }
        self.touched = touched;
        self.touched.clear();
    }

    fn count(&mut self, draw: &Draw<'_>) {
        for &token in draw.generated {
            let Some(count) = self.counts.get_mut(token as usize) else { continue };
            if *count == 0 {
                self.touched.push(token);
            }
            *count += 1;
        }
        if !repeats_cost(draw) {
            return;
        }
        for &token in draw.prompt {
            let Some(count) = self.counts.get_mut(token as usize) else { continue };
            if *count == 0 {
                self.touched.push(token);
                *count = PROMPT_ONLY;
            }
        }
    }
}

/// What must not end the answer now: the model's end tokens and the request's own, before `min_tokens`.
/// A constraint allows the model's only where the answer may end, so that ignoring them means to go on
/// for as long as anything else is allowed.
fn masked_ends<'a>(draw: &Draw<'a>) -> [&'a [TokenId]; 2] {
    let sampling = draw.sampling;
    let early = draw.generated.len() < sampling.min_tokens as usize;
    let of_model = match draw.allowed {
        Some(_) if early || sampling.ignore_end => draw.end_tokens,
        None if early && !sampling.ignore_end => draw.end_tokens,
        _ => &[],
    };
    let ends = [of_model, if early { &sampling.stop_tokens[..] } else { &[] }];
    let is_end = |token| ends.iter().any(|ends| ends.contains(&token));
    match draw.allowed {
        Some(allowed) if allowed.iter().all(is_end) => [&[], &[]],
        _ => ends,
    }
}

fn penalises(draw: &Draw<'_>) -> bool {
    let s = draw.sampling;
    repeats_cost(draw) || s.frequency_penalty != 0.0 || s.presence_penalty != 0.0
}

#[expect(clippy::float_cmp, reason = "exactly the value that means off")]
fn repeats_cost(draw: &Draw<'_>) -> bool {
    draw.sampling.repetition_penalty != 1.0
}

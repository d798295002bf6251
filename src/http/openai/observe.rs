//! Times and counts of one request, recorded as histograms when it is over.

use std::time::{Duration, Instant};

use crate::engine::message::Summary;

/// Watches one request from its arrival.
#[derive(Debug)]
pub struct Observer {
    arrived: Instant,
    /// When the last token of each choice came.
    last_token: Vec<Option<Instant>>,
    first_token_seen: bool,
}

impl Observer {
    /// A request that arrived now and has `choices`.
    pub fn new(arrived: Instant, choices: usize) -> Self {
        Self { arrived, last_token: vec![None; choices], first_token_seen: false }
    }

    /// A token of `choice` came.
    pub fn token(&mut self, choice: u32) {
        let now = Instant::now();
        if !self.first_token_seen {
            self.first_token_seen = true;
            record("vllm:time_to_first_token_seconds", now - self.arrived);
        }
        if let Some(last) = self.last_token.get_mut(choice as usize)
            && let Some(last) = last.replace(now)
        {
            record("vllm:inter_token_latency_seconds", now - last);
        }
    }

    /// The request succeeded.
    pub fn finished(&self, summary: &Summary, prompt_tokens: usize, completion_tokens: usize) {
        record("vllm:e2e_request_latency_seconds", self.arrived.elapsed());
        record("vllm:request_queue_time_seconds", summary.queued);
        record("vllm:request_prefill_time_seconds", summary.prefill);
        record("vllm:request_decode_time_seconds", summary.decode);
        metrics::histogram!("vllm:request_prompt_tokens").record(prompt_tokens as f64);
        metrics::histogram!("vllm:request_generation_tokens").record(completion_tokens as f64);
    }
}

fn record(name: &'static str, time: Duration) {
    metrics::histogram!(name).record(time.as_secs_f64());
}

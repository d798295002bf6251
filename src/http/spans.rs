//! The spans of a request for text: one for all of it, by the semantic conventions for generative AI, and one for
//! each of its phases. Never the prompt or the answer.
//!
//! The engine knows nothing of it: it says at the end how long what took.

use std::time::{Duration, Instant};

use opentelemetry::{Array, KeyValue, StringValue, Value};

use super::trace::Generation;
use super::trace_context::TraceContext;
use crate::telemetry::traces::{self, Clock, Parent, Phase, Request};

/// A request whose answer has ended.
#[derive(Debug)]
pub(super) struct Ended<'a> {
    pub(super) started: Instant,
    pub(super) method: &'static str,
    pub(super) route: &'a str,
    pub(super) status: u16,
    pub(super) request_id: &'a str,
    pub(super) key: Option<&'a str>,
    /// Which error the client was told.
    pub(super) error: Option<&'static str>,
    pub(super) is_told: bool,
    pub(super) context: Option<&'a TraceContext>,
    pub(super) generation: Option<&'a Generation>,
}

/// Hands over the spans. Gives the id of the trace, if it is sampled.
pub(super) fn record(ended: &Ended<'_>) -> Option<u128> {
    if !traces::is_on() || ended.method != "POST" {
        return None;
    }
    let operation = operation(ended.route)?;
    let parent = ended.context.map(|context| Parent {
        trace_id: context.trace_id,
        span_id: context.parent_id,
        sampled: context.sampled,
        state: &context.state,
    });
    traces::send(request(ended, operation, Clock::read()), parent.as_ref())
}

/// Routes that generate text, as the conventions call what they do.
fn operation(route: &str) -> Option<&'static str> {
    if route.ends_with("/chat/completions") {
        Some("chat")
    } else if route.ends_with("/completions") {
        Some("text_completion")
    } else {
        None
    }
}

fn request(ended: &Ended<'_>, operation: &'static str, clock: Clock) -> Request {
    let generation = ended.generation;
    let name = match generation {
        Some(g) => format!("{operation} {}", g.asked.model),
        None => operation.to_owned(),
    };
    let mut attributes = vec![
        KeyValue::new("gen_ai.operation.name", operation),
        KeyValue::new("gen_ai.provider.name", "millrace"),
        KeyValue::new("http.request.method", ended.method),
        KeyValue::new("http.route", ended.route.to_owned()),
        KeyValue::new("http.response.status_code", i64::from(ended.status)),
        KeyValue::new("millrace.request.id", ended.request_id.to_owned()),
    ];
    attributes.extend(ended.key.map(|key| KeyValue::new("millrace.key.id", key.to_owned())));
    attributes.extend(ended.error.map(|error| KeyValue::new("error.type", error)));
    if let Some(generation) = generation {
        asked(generation, &mut attributes);
        answered(generation, ended.is_told, &mut attributes);
    }
    let faulty = ended.status >= 500 || generation.is_some_and(|g| g.error.is_some());
    Request {
        name,
        start: clock.wall(ended.started),
        end: clock.wall(clock.now),
        attributes,
        fault: faulty.then(|| ended.error.unwrap_or("internal_error")),
        phases: generation.map_or_else(Vec::new, |g| phases(g, clock)),
    }
}

/// What was asked for, with the values that held where the request had none.
fn asked(generation: &Generation, to: &mut Vec<KeyValue>) {
    let asked = &generation.asked;
    to.extend([
        KeyValue::new("gen_ai.request.model", asked.model.clone()),
        KeyValue::new("gen_ai.request.max_tokens", i64::from(asked.max_tokens)),
        KeyValue::new("gen_ai.request.temperature", decimal(asked.temperature)),
        KeyValue::new("gen_ai.request.top_p", decimal(asked.top_p)),
    ]);
    if asked.stream {
        to.push(KeyValue::new("gen_ai.request.stream", true));
    }
    if asked.choices != 1 {
        to.push(KeyValue::new("gen_ai.request.choice.count", asked.choices as i64));
    }
}

fn answered(generation: &Generation, is_told: bool, to: &mut Vec<KeyValue>) {
    let asked = &generation.asked;
    let reasons = generation.finish_reasons(is_told).into_iter().map(StringValue::from).collect();
    to.extend([
        KeyValue::new("gen_ai.response.id", asked.id.clone()),
        KeyValue::new("gen_ai.response.model", asked.served.clone()),
        KeyValue::new("gen_ai.response.finish_reasons", Value::Array(Array::String(reasons))),
        KeyValue::new("gen_ai.usage.input_tokens", asked.prompt_tokens as i64),
        KeyValue::new("gen_ai.usage.output_tokens", generation.tokens as i64),
    ]);
    if let Some(summary) = &generation.summary {
        let cached = i64::from(summary.cached_tokens);
        to.push(KeyValue::new("gen_ai.usage.cache_read.input_tokens", cached));
        to.push(KeyValue::new("millrace.preemptions", i64::from(summary.preemptions)));
    }
    if let Some(first) = generation.first_token().filter(|_| asked.stream) {
        to.push(KeyValue::new("gen_ai.response.time_to_first_chunk", first.as_secs_f64()));
    }
}

/// The number as it was written: 0.7 is not 0.699999988079071.
fn decimal(number: f32) -> f64 {
    number.to_string().parse().unwrap_or_else(|_| f64::from(number))
}

/// One after the other, as the engine measured them, and beside the last of them what making text took in all.
fn phases(generation: &Generation, clock: Clock) -> Vec<Phase> {
    let mut phases = Vec::new();
    let mut add = |name, from: Instant, took: Duration| {
        let until = (from + took).min(clock.now);
        let (start, end) = (clock.wall(from.min(clock.now)), clock.wall(until));
        phases.push(Phase { name, start, end, attributes: Vec::new() });
        until
    };
    if let Some(summary) = &generation.summary {
        let queued = add("queue", generation.began, summary.queued);
        let read = add("prefill", queued, summary.prefill);
        if generation.tokens > 0 {
            add("decode", read, summary.decode);
        }
    } else if let (Some(first), Some(decode)) = (generation.first, generation.decode()) {
        // Of an answer that was cut nobody but this side knows.
        add("decode", first, decode);
    }
    if let Some(first) = generation.first {
        add("detokenise", first, generation.detokenising);
    }
    if let Some(last) = phases.last_mut().filter(|phase| phase.name == "detokenise") {
        last.attributes.push(KeyValue::new("millrace.tokens", generation.tokens as i64));
    }
    phases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_that_were_written() {
        assert_eq!((decimal(0.7), decimal(0.0), decimal(1e-5)), (0.7, 0.0, 1e-5));
    }

    #[test]
    fn only_what_generates_text_has_spans() {
        assert_eq!(operation("/v1/chat/completions"), Some("chat"));
        assert_eq!(operation("/openai/deployments/{id}/completions"), Some("text_completion"));
        assert_eq!(operation("/v1/models"), None);
        assert_eq!(operation("unmatched"), None);
    }
}

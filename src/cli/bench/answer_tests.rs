use std::time::{Duration, Instant};

use super::{Answer, Stream, Usage, message_of};
use crate::cli::bench::fault::{Fault, Kind};

/// The answer of a stream whose events came at these milliseconds.
fn answer(events: &[(u64, &str)]) -> Result<Answer, Fault> {
    let sent = Instant::now();
    let mut stream = Stream::new(sent);
    for (ms, event) in events {
        let bytes = format!("data: {event}\n\n");
        stream.take(bytes.as_bytes(), sent + Duration::from_millis(*ms))?;
    }
    stream.finish(sent + Duration::from_secs(9))
}

fn ms(seconds: f64) -> u64 {
    (seconds * 1e3).round() as u64
}

const USAGE: &str = r#"{"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 5,
    "prompt_tokens_details": {"cached_tokens": 4}}}"#;

#[test]
fn a_completion_is_timed_by_its_chunks_with_content() {
    let text = |text: &str| format!(r#"{{"choices": [{{"text": "{text}", "index": 0}}]}}"#);
    let end = r#"{"choices": [{"text": "", "finish_reason": "stop"}], "usage": null}"#;
    let found = answer(&[
        (5, &text("")),
        (20, &text("a")),
        (50, &text("b c")),
        (60, &text("d")),
        (90, end),
        (95, &USAGE.replace('\n', " ")),
        (96, "[DONE]"),
    ]);
    let found = found.unwrap();
    assert_eq!((ms(found.ttft_s), ms(found.e2e_s), found.chunks), (20, 90, 3));
    assert_eq!(found.gaps_s.iter().map(|&g| ms(g)).collect::<Vec<_>>(), [30, 10]);
    let usage = Usage { prompt: 7, completion: 5, cached: Some(4) };
    assert_eq!(found.usage, Some(usage));
    // (90 - 20) / (5 - 1): tokens as the server counts them, not chunks.
    assert_eq!(
        (found.output_tokens(), found.tpot_s()),
        (5, Some((found.e2e_s - found.ttft_s) / 4.0))
    );
    assert_eq!(ms(found.gap_max_s()), 30);
}

#[test]
fn a_role_is_no_content_and_thoughts_and_calls_are() {
    let delta = |delta: &str| format!(r#"{{"choices": [{{"delta": {delta}}}]}}"#);
    let found = answer(&[
        (1, &delta(r#"{"role": "assistant", "content": ""}"#)),
        (10, &delta(r#"{"reasoning_content": "hm\n"}"#)),
        (30, &delta(r#"{"tool_calls": [{"index": 0}]}"#)),
        (60, &delta(r#"{"content": "\u00e9"}"#)),
        (61, r#"{"choices": [{"delta": {}, "finish_reason": "stop"}]}"#),
    ]);
    let found = found.unwrap();
    assert_eq!((ms(found.ttft_s), found.chunks, found.usage), (10, 3, None));
    assert_eq!(found.output_tokens(), 3);
}

#[test]
fn an_answer_without_text_came_at_its_end() {
    let end = r#"{"choices": [{"text": "", "finish_reason": "stop"}]}"#;
    let found = answer(&[(40, end), (41, "[DONE]")]).unwrap();
    assert_eq!((ms(found.ttft_s), ms(found.e2e_s), found.tpot_s()), (40, 40, None));
}

#[test]
fn what_is_no_answer_is_a_fault_with_its_kind() {
    let text = r#"{"choices": [{"text": "a"}]}"#;
    let kind = |events: &[(u64, &str)]| answer(events).unwrap_err();
    assert_eq!(kind(&[(1, text)]).kind, Kind::Cut);
    assert_eq!(kind(&[]).kind, Kind::Cut);
    assert_eq!(kind(&[(1, "[DONE]")]).kind, Kind::BadStream);
    assert_eq!(kind(&[(1, text), (2, "{oops")]).kind, Kind::BadStream);
    let error = kind(&[(1, text), (2, r#"{"error": {"message": "out of luck"}}"#), (3, "[DONE]")]);
    assert_eq!(error, Fault::new(Kind::ErrorEvent, "out of luck"));
}

#[test]
fn messages_are_found_in_the_usual_places() {
    for body in [
        r#"{"error": {"message": "no"}}"#,
        r#"{"error": "no"}"#,
        r#"{"message": "no"}"#,
        r#"{"detail": "no"}"#,
        r#""no""#,
    ] {
        assert_eq!(message_of(&serde_json::from_str(body).unwrap()), "no", "{body}");
    }
    assert_eq!(message_of(&serde_json::json!({"a": 1})), r#"{"a":1}"#);
}

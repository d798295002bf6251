use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt as _;
use tokio::sync::mpsc;

use super::*;
use crate::engine::message::{FailureKind, Logprobs, TokenEvent, TokenId};
use crate::http::openai::completions::wire::Completions;
use crate::http::openai::generation::assemble::{Echo, Rules};
use crate::http::openai::running::Patience;
use crate::text::Text;

fn id(text: &str) -> TokenId {
    let ids = Text::fake(270).encode(text, false, false);
    assert_eq!(ids.len(), 1, "{text}");
    ids[0]
}

fn token(choice: u32, text: &str) -> Event {
    Event::Token(TokenEvent { choice, token: id(text), logprobs: None, is_end: false })
}

fn part(bytes: &[u8]) -> Event {
    let text = Text::fake(270);
    let token = (0..270).find(|&id| text.token_bytes(id) == bytes).unwrap();
    Event::Token(TokenEvent { choice: 0, token, logprobs: None, is_end: false })
}

fn scored(choice: u32, text: &str, own: f32) -> Event {
    let logprobs = Some(Logprobs { own, rank: 2, top: vec![(id("z"), -0.25)] });
    Event::Token(TokenEvent { choice, token: id(text), logprobs, is_end: false })
}

fn end(choice: u32) -> Event {
    Event::Token(TokenEvent { choice, token: 0, logprobs: None, is_end: true })
}

fn finished(choice: u32, reason: FinishReason) -> Event {
    Event::ChoiceFinished { choice, reason }
}

/// An answer of `choices` whose events are what the returned sender is given.
fn answer(
    choices: usize,
    logprobs: bool,
    echo: Option<&str>,
) -> (mpsc::Sender<Event>, Answer<Completions>) {
    let text = Text::fake(270);
    let rules = Arc::new(Rules { logprobs: logprobs.then_some(1), ..Rules::plain(text.clone()) });
    let prompt: Arc<[TokenId]> = text.encode(echo.unwrap_or("p"), false, false).into();
    let echo = echo.map(|_| Arc::new(Echo::new(&text, prompt.clone(), false)));
    let (sender, events) = mpsc::channel(64);
    let patience = Patience { ping: Duration::from_mins(1), stall: Duration::from_mins(1) };
    let answer = Answer {
        head: Head { id: "cmpl-1".into(), created: 7, model: "m".into(), fingerprint: "fp".into() },
        wire: Completions { rules: rules.clone() },
        running: Running::scripted(events, patience),
        states: (0..choices)
            .map(|_| ChoiceState::new(rules.clone(), prompt.clone(), echo.clone()))
            .collect(),
        best: Best { n: 1, of: 1 },
        prompt_tokens: 5,
        completion_tokens: 0,
        options: StreamOptions::default(),
        metrics: None,
    };
    (sender, answer)
}

fn script(sender: &mpsc::Sender<Event>, events: impl IntoIterator<Item = Event>) {
    for event in events {
        sender.try_send(event).unwrap();
    }
}

/// Every byte of a stream.
async fn bytes(response: Response) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

#[tokio::test]
async fn a_whole_answer_has_its_choices_in_order() {
    let (sender, answer) = answer(2, false, None);
    script(
        &sender,
        [
            token(1, "b"),
            token(0, "a"),
            finished(1, FinishReason::Length),
            token(0, "a"),
            end(0),
            finished(0, FinishReason::Stop),
            Event::Finished(Summary { cached_tokens: 4, ..Summary::default() }),
        ],
    );
    assert_eq!(
        answer.collect().await.unwrap(),
        concat!(
            r#"{"id":"cmpl-1","object":"text_completion","created":7,"model":"m","choices":["#,
            r#"{"text":"aa","index":0,"logprobs":null,"finish_reason":"stop"},"#,
            r#"{"text":"b","index":1,"logprobs":null,"finish_reason":"length"}],"#,
            r#""system_fingerprint":"fp","usage":{"prompt_tokens":5,"completion_tokens":4,"#,
            r#""total_tokens":9,"prompt_tokens_details":{"cached_tokens":4}}}"#
        )
    );
}

#[tokio::test]
async fn a_stream_has_one_choice_a_chunk_and_no_empty_ones() {
    let (sender, mut answer) = answer(1, false, None);
    answer.options.include_usage = true;
    script(
        &sender,
        [
            token(0, "a"),
            // Parts of a character: nothing to show until it is whole.
            part(b"\xf0\x9f"),
            part(b"\x98"),
            part(b"\x80"),
            end(0),
            finished(0, FinishReason::Stop),
            Event::Finished(Summary::default()),
        ],
    );
    let response = answer.stream().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
    assert_eq!(response.headers()["cache-control"], "no-cache");
    assert_eq!(response.headers()["x-accel-buffering"], "no");
    let head = r#"{"id":"cmpl-1","object":"text_completion","created":7,"model":"m","choices":["#;
    let tail = r#"],"system_fingerprint":"fp","usage":null}"#;
    assert_eq!(
        bytes(response).await,
        [
            format!(
                "data: {head}{}{tail}",
                r#"{"text":"a","index":0,"logprobs":null,"finish_reason":null}"#
            ),
            format!(
                "data: {head}{}{tail}",
                "{\"text\":\"\u{1f600}\",\"index\":0,\"logprobs\":null,\"finish_reason\":null}"
            ),
            format!(
                "data: {head}{}{tail}",
                r#"{"text":"","index":0,"logprobs":null,"finish_reason":"stop"}"#
            ),
            format!(
                "data: {head}{}",
                concat!(
                    r#"],"system_fingerprint":"fp","usage":{"prompt_tokens":5,"#,
                    r#""completion_tokens":5,"total_tokens":10,"#,
                    r#""prompt_tokens_details":{"cached_tokens":0}}}"#
                )
            ),
            "data: [DONE]\n\n".to_owned(),
        ]
        .join("\n\n")
    );
}

#[tokio::test]
async fn a_chunk_may_be_empty_if_it_carries_log_probabilities() {
    let (sender, answer) = answer(1, true, Some("hi"));
    script(
        &sender,
        [
            Event::Prompt { choice: 0, logprobs: vec![None] },
            Event::Prompt {
                choice: 0,
                logprobs: vec![Some(Logprobs { own: -0.5, rank: 1, top: vec![] })],
            },
            scored(0, "c", -1.5),
            finished(0, FinishReason::Length),
            Event::Finished(Summary::default()),
        ],
    );
    let stream = bytes(answer.stream().await.unwrap()).await;
    let chunks: Vec<serde_json::Value> = stream
        .split("\n\n")
        .filter_map(|event| event.strip_prefix("data: {"))
        .map(|json| serde_json::from_str(&format!("{{{json}")).unwrap())
        .collect();
    assert!(chunks.iter().all(|c| c.get("usage").is_none()), "not asked for: {stream}");
    let choices: Vec<&serde_json::Value> = chunks.iter().map(|c| &c["choices"][0]).collect();
    assert_eq!(choices.len(), 3);
    assert_eq!((&choices[0]["text"], &choices[1]["text"]), (&"h".into(), &"i".into()));
    assert_eq!(
        choices[0]["logprobs"],
        serde_json::json!({"tokens": ["h"], "token_logprobs": [null], "top_logprobs": [null],
            "text_offset": [0]})
    );
    assert_eq!(
        choices[2],
        &serde_json::json!({"text": "c", "index": 0, "finish_reason": "length", "logprobs":
            {"tokens": ["c"], "token_logprobs": [-1.5],
             "top_logprobs": [{"z": -0.25, "c": -1.5}], "text_offset": [2]}})
    );
}

#[tokio::test]
async fn what_fails_before_the_first_event_has_its_own_status() {
    for (kind, status) in [(FailureKind::Step, 500), (FailureKind::ShuttingDown, 503)] {
        let (sender, plain) = answer(1, false, None);
        script(&sender, [Event::Failed(kind)]);
        assert_eq!(plain.collect().await.unwrap_err().status(), status);
        let (sender, streamed) = answer(1, false, None);
        script(&sender, [Event::Failed(kind)]);
        assert_eq!(streamed.stream().await.unwrap_err().status(), status);
    }
    // An engine that vanished without a word.
    let (sender, vanished) = answer(1, false, None);
    drop(sender);
    assert_eq!(vanished.stream().await.unwrap_err(), ApiError::Internal);
}

#[tokio::test]
async fn what_fails_later_is_an_event_without_done() {
    let (sender, answer) = answer(1, false, None);
    script(&sender, [token(0, "a"), Event::Failed(FailureKind::ShuttingDown)]);
    let stream = bytes(answer.stream().await.unwrap()).await;
    let events: Vec<&str> = stream.split_terminator("\n\n").collect();
    assert_eq!(events.len(), 2, "{stream}");
    assert!(events[1].starts_with(r#"data: {"error":{"message":"#), "{stream}");
    assert!(events[1].contains(r#""code":"shutting_down""#));
    assert!(!stream.contains("[DONE]"));
}

#[tokio::test]
async fn a_silent_wait_is_filled_with_comments() {
    let (sender, mut answer) = answer(1, false, None);
    let patience = Patience { ping: Duration::from_millis(1), stall: Duration::from_mins(1) };
    answer.running.set_patience(patience);
    // Answers although nothing has come: the first sign of life is a comment.
    let response = answer.stream().await.unwrap();
    let mut body = response.into_body();
    let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(frame, ": ping\n\n");
    script(
        &sender,
        [token(0, "a"), finished(0, FinishReason::Length), Event::Finished(Summary::default())],
    );
    let rest = body.collect().await.unwrap().to_bytes();
    assert!(rest.ends_with(b"data: [DONE]\n\n"));
}

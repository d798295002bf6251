//! The end of a server, and its beginning.

use super::support::*;

#[tokio::test]
async fn before_the_model_is_there_the_server_is_alive_and_not_ready() {
    let server = start(config()).await;
    assert_eq!(status(&get_public(server.addr, "/health/live").await), 200);
    for path in ["/health", "/health/ready"] {
        let answer = get_public(server.addr, path).await;
        assert_eq!(status(&answer), 503);
        assert!(answer.contains(r#""reason":"model_loading""#), "{answer}");
    }
    let answer = ask(server.addr, &with_key("POST /v1/completions", "", "{}")).await;
    assert_eq!((status(&answer), code(&answer).as_str()), (503, "model_loading"));
    assert!(header(&answer, "retry-after").is_some());
}

#[tokio::test]
async fn a_server_that_still_loads_ends_at_the_first_signal() {
    let server = start(config()).await;
    server.shutdown.drain.cancel();
    server.task.await.unwrap().unwrap();
}

#[cfg(feature = "fake-model")]
mod with_model {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::sync::mpsc;

    use super::*;
    use crate::config::HttpConfig;
    use crate::engine::message::{Choice, Event, FailureKind, Namespace, Priority, Submission};

    /// Waits until `/health/ready` says 503, as a balancer would.
    async fn until_not_ready(server: &Server) -> String {
        let looking = async {
            loop {
                let answer = get_public(server.addr, "/health/ready").await;
                if status(&answer) == 503 {
                    return answer;
                }
            }
        };
        tokio::time::timeout(PATIENCE, looking).await.unwrap()
    }

    async fn held(server: &Server, path: &str) -> Client {
        let mut client = Client::connect(server.addr).await;
        client.send(with_key(&format!("POST {path}"), "", "")).await;
        server.hold.wait_for("began").await;
        client
    }

    #[tokio::test]
    async fn a_drain_lets_running_requests_finish_and_takes_no_new_ones() {
        let server = start_ready(config()).await;
        let mut stream = held(&server, "/v1/held").await;
        let mut plain = held(&server, "/v1/plain").await;
        server.shutdown.drain.cancel();
        let not_ready = until_not_ready(&server).await;
        assert!(not_ready.contains("shutting_down"));
        assert_eq!(status(&get_public(server.addr, "/health/live").await), 200);
        let refused = ask(server.addr, &with_key("POST /v1/plain", "", "")).await;
        assert_eq!((status(&refused), code(&refused).as_str()), (503, "shutting_down"));
        assert_eq!(header(&refused, "connection"), Some("close"));
        assert!(header(&refused, "retry-after").is_some());
        assert!(!server.task.is_finished());
        server.hold.go.add_permits(2);
        assert!(stream.read_to_end().await.contains("data: [DONE]\n\n"));
        assert!(plain.read_to_end().await.ends_with("done"));
        server.task.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn at_the_end_of_the_drain_time_the_rest_gets_an_error() {
        let short = Duration::from_millis(20);
        let server = start_ready(HttpConfig { shutdown_timeout: short, ..config() }).await;
        let mut stream = held(&server, "/v1/held").await;
        let mut plain = held(&server, "/v1/plain").await;
        server.shutdown.drain.cancel();
        let streamed = stream.read_to_end().await;
        assert_eq!(status(&streamed), 200);
        assert!(streamed.contains("data: {\"error\":{") && streamed.contains("shutting_down"));
        assert!(!streamed.contains("[DONE]"));
        let answer = plain.read_to_end().await;
        assert_eq!((status(&answer), code(&answer).as_str()), (503, "shutting_down"));
        server.task.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_second_signal_ends_the_server_at_once() {
        let server = start_ready(config()).await;
        let mut stream = held(&server, "/v1/held").await;
        server.shutdown.drain.cancel();
        until_not_ready(&server).await;
        server.shutdown.now.cancel();
        let streamed = stream.read_to_end().await;
        assert!(streamed.contains("shutting_down") && !streamed.contains("[DONE]"));
        server.task.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_server_without_its_engine_ends() {
        let server = start_ready(config()).await;
        assert_eq!(status(&get_public(server.addr, "/health/ready").await), 200);
        server.app.served().unwrap().engine.stop();
        server.task.await.unwrap().unwrap();
    }

    /// Gives the engine something to do: one token. The answer is in the returned channel.
    fn submit(server: &Server) -> mpsc::Receiver<Event> {
        let engine = &server.app.served().unwrap().engine;
        let (events, answer) = mpsc::channel(8);
        let choice = Choice {
            prompt: vec![1, 2, 3].into(),
            max_new_tokens: 1,
            sampling: Arc::default(),
            seed: 0,
            sample: 0,
            stop: None,
            constraint: None,
        };
        let submission = Submission {
            id: engine.next_id(),
            namespace: Namespace::default(),
            priority: Priority::default(),
            choices: vec![choice],
            events,
        };
        engine.submit(submission).unwrap();
        answer
    }

    #[tokio::test]
    async fn an_engine_that_hangs_shows_and_does_not_keep_the_server_from_ending() {
        let short = Duration::from_millis(20);
        let impatient =
            HttpConfig { engine_stall_timeout: short, shutdown_timeout: short, ..config() };
        let server = start_with_model(impatient, "fake:fault=hang@1").await;
        assert_eq!(status(&get_public(server.addr, "/health").await), 200, "idle is no stall");
        let _answer = submit(&server);
        until_not_ready(&server).await;
        for path in ["/health", "/health/live", "/health/ready"] {
            let answer = get_public(server.addr, path).await;
            assert!(status(&answer) == 503 && answer.contains("engine_stalled"), "{answer}");
        }
        let refused = ask(server.addr, &with_key("POST /v1/plain", "", "")).await;
        assert_eq!((status(&refused), code(&refused).as_str()), (503, "engine_stalled"));
        assert_eq!(status(&get_public(server.addr, "/metrics").await), 200);
        server.shutdown.drain.cancel();
        server.task.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_slow_client_has_the_drain_time_to_read_its_answer() {
        let shutdown_timeout = Duration::from_mins(1);
        let mut server = start_ready(HttpConfig { shutdown_timeout, ..config() }).await;
        let mut client = Client::connect_with_small_buffer(server.addr).await;
        client.send(with_key("POST /v1/large", "", "")).await;
        let begin = client.read_until("\r\n\r\n").await;
        server.shutdown.drain.cancel();
        // Longer than connections get that owe nobody anything.
        let ended = tokio::time::timeout(Duration::from_millis(2500), &mut server.task).await;
        assert!(ended.is_err(), "the server went before the answer was out");
        let answer = begin + &client.read_to_end().await;
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        assert_eq!(body.len(), LARGE_BYTES);
        server.task.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn an_engine_that_cannot_go_on_in_a_drain_is_an_error_too() {
        // The first step leaves the time to submit and to drain.
        let faults = "fake:step_ms=100,fault=panic@2,fault=panic@3,fault=panic@4";
        for with_request in [false, true] {
            let server = start_with_model(config(), faults).await;
            let client = if with_request { Some(held(&server, "/v1/plain").await) } else { None };
            // One step at least, and three more, of four each.
            let mut answers: Vec<_> = (0..13).map(|_| submit(&server)).collect();
            server.shutdown.drain.cancel();
            for answer in &mut answers {
                while answer.recv().await.is_some() {}
            }
            server.hold.go.add_permits(1);
            let error = server.task.await.unwrap().unwrap_err();
            assert!(error.to_string().starts_with("the engine failed: "), "{error}");
            drop(client);
        }
    }

    #[tokio::test]
    async fn an_engine_that_cannot_go_on_ends_the_server_with_an_error() {
        let faults = "fake:fault=panic@1,fault=panic@2,fault=panic@3";
        let server = start_with_model(config(), faults).await;
        for _ in 0..3 {
            let mut answer = submit(&server);
            assert!(matches!(answer.recv().await, Some(Event::Failed(FailureKind::Step))));
        }
        let error = server.task.await.unwrap().unwrap_err();
        assert!(error.to_string().starts_with("the engine failed: "), "{error}");
    }
}

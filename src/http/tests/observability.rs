//! What operators see, and what they must not.

use std::io::Write;
use std::sync::{Arc, Mutex, OnceLock};

use super::support::*;

#[tokio::test]
async fn every_answer_carries_a_request_id_and_the_api_its_headers() {
    let server = start(config()).await;
    let own = ask(server.addr, &with_key("GET /v1/models", "X-Request-Id: mine-1\r\n", "")).await;
    assert_eq!(header(&own, "x-request-id"), Some("mine-1"));
    assert_eq!(header(&own, "openai-version"), Some("2020-10-01"));
    assert!(header(&own, "openai-processing-ms").unwrap().parse::<u64>().is_ok());
    let refused = get_public(server.addr, "/no/such").await;
    assert!(header(&refused, "x-request-id").unwrap().starts_with("req_"));
    let bad = ask(server.addr, &with_key("GET /v1/models", "X-Request-Id: a b\r\n", "")).await;
    assert!(header(&bad, "x-request-id").unwrap().starts_with("req_"));
    let version = get_public(server.addr, "/version").await;
    assert_eq!(header(&version, "openai-version"), None, "not the API");
    assert!(version.contains(concat!("{\"version\":\"", env!("CARGO_PKG_VERSION"), "\"}")));
}

#[tokio::test]
async fn labels_do_not_grow_with_what_clients_send() {
    let server = start(config()).await;
    for i in 0..50 {
        ask(server.addr, &with_key(&format!("GET /no/such/{i}"), "", "")).await;
        ask(server.addr, &with_key(&format!("M{i} /v1/models"), "", "")).await;
    }
    let text = get_public(server.addr, "/metrics").await;
    assert!(header(&text, "content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    assert!(!text.contains("/no/such"), "paths are not labels");
    let series = |start: &str| text.lines().filter(|l| l.starts_with(start)).count();
    assert_eq!(
        series("http_requests_total{handler=\"unmatched\",method=\"GET\",status=\"404\"}"),
        1
    );
    assert_eq!(series("http_requests_total{handler=\"/v1/models\",method=\"other\""), 1);
    assert!(
        series("millrace_auth_failures_total") == 1 && series("millrace_key_reload_total") == 2
    );
    assert!(series("process_resident_memory_bytes") == 1);
}

/// The log of all tests of this process: a subscriber for one test alone would miss events whose call site another
/// thread registers at the same moment.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn of_the_process() -> &'static Self {
        static LOG: OnceLock<Log> = OnceLock::new();
        LOG.get_or_init(|| {
            let log = Self::default();
            let writer = log.clone();
            let subscriber = tracing_subscriber::fmt()
                .with_max_level(tracing::Level::TRACE)
                .with_writer(move || writer.clone())
                .with_ansi(false)
                .finish();
            tracing::subscriber::set_global_default(subscriber).unwrap();
            log
        })
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_access_log_has_the_route_and_the_key_id_and_no_secret() {
    let log = Log::of_the_process();
    let server = start(config()).await;
    let line = "POST /v1/engines/canary-engine/completions?q=canary-query";
    ask(server.addr, &with_key(line, "X-Request-Id: mine-2\r\n", "canary-body")).await;
    ask(server.addr, "GET / HTTP/1.1\r\nAuthorization: Bearer canary\r\nConnection: close\r\n\r\n")
        .await;
    server.shutdown.drain.cancel();
    server.task.await.unwrap().unwrap();
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let access = text.lines().find(|l| l.contains("mine-2")).unwrap();
    for part in ["/v1/engines/{engine}/completions", "$MILLRACE_API_KEY", "status=503", "POST"] {
        assert!(access.contains(part), "{part} in {access}");
    }
    assert!(!text.contains("canary"), "{text}");
}

#[cfg(feature = "fake-model")]
mod with_model {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_a_500_in_the_error_form_and_the_server_goes_on() {
        let server = start_ready(config()).await;
        let answer = ask(server.addr, &with_key("GET /v1/panic", "", "")).await;
        assert_eq!((status(&answer), code(&answer).as_str()), (500, "internal_error"));
        assert!(header(&answer, "x-request-id").is_some() && !answer.contains("canary"));
        assert_eq!(status(&get_public(server.addr, "/health/ready").await), 200);
    }

    #[tokio::test]
    async fn the_metrics_that_balancers_read_are_there() {
        let server = start_ready(config()).await;
        let text = get_public(server.addr, "/metrics").await;
        for (name, kind) in [
            ("vllm:num_requests_running", "gauge"),
            ("vllm:num_requests_waiting", "gauge"),
            ("vllm:kv_cache_usage_perc", "gauge"),
            ("vllm:cache_config_info", "gauge"),
            ("vllm:prompt_tokens_total", "counter"),
            ("vllm:generation_tokens_total", "counter"),
            ("vllm:prefix_cache_queries_total", "counter"),
            ("vllm:prefix_cache_hits_total", "counter"),
            ("vllm:num_preemptions_total", "counter"),
            ("vllm:request_success_total", "counter"),
            ("millrace_step_failures_total", "counter"),
        ] {
            assert!(text.contains(&format!("# TYPE {name} {kind}")), "{name} in {text}");
            assert!(text.contains(&format!("{name}{{model_name=\"fake\"")), "{name} in {text}");
        }
        assert!(text.contains("block_size=\"32\"") && text.contains("finished_reason=\"abort\""));
    }
}

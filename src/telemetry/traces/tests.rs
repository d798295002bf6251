use std::sync::atomic::{AtomicUsize, Ordering};

use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Sampler, SpanData, SpanProcessor};

use super::*;

/// Keeps all spans.
#[derive(Debug, Clone, Default)]
struct Kept(Arc<std::sync::Mutex<Vec<SpanData>>>);

impl SpanProcessor for Kept {
    fn on_start(&self, _: &mut opentelemetry_sdk::trace::Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        self.0.lock().unwrap().push(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

fn request() -> Request {
    let at = |ms| SystemTime::UNIX_EPOCH + Duration::from_millis(ms);
    let phase =
        |name, start, end| Phase { name, start: at(start), end: at(end), attributes: vec![] };
    Request {
        name: "chat m".into(),
        start: at(1),
        end: at(9),
        attributes: vec![KeyValue::new("a", 1)],
        fault: Some("internal_error"),
        phases: vec![phase("queue", 2, 3), phase("prefill", 3, 4)],
    }
}

fn sent(sampler: Sampler, parent: Option<&Parent<'_>>) -> (Option<u128>, Vec<SpanData>) {
    let kept = Kept::default();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(kept.clone())
        .with_sampler(sampler)
        .build();
    let id = send_by(&provider.tracer("t"), request(), parent);
    let spans = kept.0.lock().unwrap().clone();
    (id, spans)
}

const PARENT: Parent<'_> = Parent { trace_id: 7, span_id: 5, sampled: true, state: "v=1" };

#[test]
fn phases_are_children_of_the_request_and_that_of_its_caller() {
    let (id, spans) = sent(Sampler::AlwaysOn, Some(&PARENT));
    assert_eq!(id, Some(7));
    let [queue, prefill, root] = &spans[..] else { panic!("{spans:?}") };
    assert_eq!((&*queue.name, &*prefill.name, &*root.name), ("queue", "prefill", "chat m"));
    for span in &spans {
        assert_eq!(span.span_context.trace_id(), TraceId::from(7_u128));
        assert_eq!(span.span_context.trace_state().header(), "v=1");
    }
    assert_eq!((root.parent_span_id, root.parent_span_is_remote), (SpanId::from(5_u64), true));
    assert_eq!(root.span_kind, SpanKind::Server);
    assert_eq!(root.status, Status::error("internal_error"));
    for child in [queue, prefill] {
        assert_eq!(child.parent_span_id, root.span_context.span_id());
        assert!(!child.parent_span_is_remote && child.span_kind == SpanKind::Internal);
        assert!(root.start_time < child.start_time && child.end_time < root.end_time);
    }
}

#[test]
fn what_the_caller_does_not_record_is_not_recorded_here() {
    let parent_based = || Sampler::ParentBased(Box::new(Sampler::AlwaysOn));
    let unsampled = Parent { sampled: false, ..PARENT };
    assert_eq!(sent(parent_based(), Some(&unsampled)), (None, vec![]));
    assert_eq!(sent(parent_based(), Some(&PARENT)).1.len(), 3);
    let (id, spans) = sent(parent_based(), None);
    assert!(id.is_some_and(|id| id != 0) && spans.len() == 3);
    assert_eq!(spans[2].parent_span_id, SpanId::INVALID);
    assert_eq!(sent(Sampler::AlwaysOff, None), (None, vec![]));
    // A state that is none does not end a trace.
    assert_eq!(sent(parent_based(), Some(&Parent { state: "a b", ..PARENT })).0, Some(7));
}

#[test]
fn the_path_of_traces_is_added_once() {
    for endpoint in ["http://h:1", "http://h:1/", "http://h:1/v1/traces", "http://h:1/v1/traces/"] {
        assert_eq!(traces_at(endpoint), "http://h:1/v1/traces");
    }
    assert_eq!(traces_at("http://h/otlp"), "http://h/otlp/v1/traces");
}

/// Takes nothing until it is let.
#[derive(Debug)]
struct Stuck(std::sync::Mutex<std::sync::mpsc::Receiver<()>>, Arc<AtomicUsize>);

impl opentelemetry_sdk::trace::SpanExporter for Stuck {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let _ = self.0.lock().unwrap().recv();
        self.1.fetch_add(batch.len(), Ordering::AcqRel);
        Ok(())
    }
}

#[test]
fn a_stuck_collector_costs_spans_and_nothing_else() {
    let (open, gate) = std::sync::mpsc::channel::<()>();
    let (losses, taken) = (Arc::new(Losses::new()), Arc::new(AtomicUsize::new(0)));
    let stuck = Stuck(std::sync::Mutex::new(gate), Arc::clone(&taken));
    let exporter = Watched::new(stuck, Arc::clone(&losses));
    let config = BatchConfigBuilder::default().with_max_queue_size(QUEUE_SPANS).build();
    let batches = BatchSpanProcessor::builder(exporter).with_batch_config(config).build();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(Bounded::new(batches, Arc::clone(&losses)))
        .with_sampler(Sampler::AlwaysOn)
        .build();
    let tracer = provider.tracer("t");
    let requests = QUEUE_SPANS;
    for _ in 0..requests {
        // Must not block: nobody takes them.
        send_by(&tracer, request(), None);
    }
    drop(open);
    provider.shutdown_with_timeout(Duration::from_mins(1)).unwrap();
    let (taken, lost) = (taken.load(Ordering::Acquire), losses.dropped() as usize);
    assert_eq!(taken + lost, 3 * requests);
    assert!(taken >= QUEUE_SPANS && lost > requests, "{taken} taken, {lost} lost");
}

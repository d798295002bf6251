mod prefix;

use std::sync::Arc;
use std::thread;

use tokio::sync::mpsc::{Receiver, channel as events};

use super::*;
use crate::backend::BLOCK_TOKENS;
use crate::engine::clock::ManualClock;
use crate::engine::handle::Rejected;
use crate::engine::message::{
    Choice, Event, FinishReason, Namespace, Priority, Sampling, StopWatch, Submission, TokenId,
};
use crate::engine::sequence::tests::choice;
use crate::model::fake;

fn settings() -> Settings {
    Settings {
        max_num_seqs: 8,
        max_num_batched_tokens: Some(64),
        max_speculating_seqs: 4,
        max_queue_requests: 4,
        max_queue_tokens: 100,
        client_stall_timeout: Duration::from_secs(30),
        prefix_caching: true,
    }
}

fn model(spec: &str) -> Box<dyn Model> {
    Box::new(fake::open(spec).unwrap())
}

fn start(spec: &str) -> EngineHandle {
    spawn(model(spec), &settings()).unwrap()
}

fn endless() -> Sampling {
    Sampling { ignore_end: true, ..Sampling::default() }
}

fn submission(handle: &EngineHandle, choices: Vec<Choice>) -> (Submission, Receiver<Event>) {
    let (events, receiver) = events(64);
    let id = handle.next_id();
    (
        Submission {
            id,
            namespace: Namespace::default(),
            priority: Priority::default(),
            choices,
            events,
        },
        receiver,
    )
}

fn ask(handle: &EngineHandle, choices: Vec<Choice>) -> Receiver<Event> {
    let (submission, receiver) = submission(handle, choices);
    handle.submit(submission).unwrap();
    receiver
}

/// Everything until the channel closes.
fn hear(mut receiver: Receiver<Event>) -> Vec<Event> {
    let mut heard = Vec::new();
    while let Some(event) = receiver.blocking_recv() {
        heard.push(event);
    }
    heard
}

fn failure(events: &[Event]) -> Option<FailureKind> {
    match events.last() {
        Some(Event::Failed(kind)) => Some(*kind),
        _ => None,
    }
}

fn finished(handle: &EngineHandle) -> Ended {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(handle.finished())
}

fn wait_until(what: impl Fn() -> bool) {
    while !what() {
        thread::yield_now();
    }
}

#[test]
fn a_request_is_answered_and_a_drain_ends_the_engine() {
    let handle = start("fake:");
    let events = hear(ask(&handle, vec![choice(40, 9, endless())]));
    let tokens = events.iter().filter(|e| matches!(e, Event::Token(_))).count();
    assert_eq!(tokens, 9);
    let reason = FinishReason::Length;
    assert!(matches!(events[9], Event::ChoiceFinished { choice: 0, reason: r } if r == reason));
    assert!(matches!(events[10], Event::Finished(_)), "{events:?}");
    assert_eq!(handle.stats().steps.load(Ordering::Relaxed), 9);
    handle.drain();
    assert_eq!(finished(&handle), Ended::Drained);
    let (late, _receiver) = submission(&handle, vec![choice(1, 1, endless())]);
    assert_eq!(handle.submit(late), Err(Rejected::ShuttingDown));
}

#[test]
fn a_drain_lets_what_is_inside_finish_and_a_stop_does_not() {
    let handle = start("fake:max_len=100000");
    let short = ask(&handle, vec![choice(4, 50, endless())]);
    let long = ask(&handle, vec![choice(4, 40_000, endless())]);
    handle.drain();
    assert!(matches!(hear(short).last(), Some(Event::Finished(_))));
    // Its client takes nothing, so it is still there.
    handle.stop();
    assert_eq!(failure(&hear(long)), Some(FailureKind::ShuttingDown));
    assert_eq!(finished(&handle), Ended::Drained);
}

#[test]
fn a_failed_step_hurts_only_who_was_in_it() {
    for fault in ["panic@2", "nan@2"] {
        let handle = start(&format!("fake:fault={fault}"));
        let events = hear(ask(&handle, vec![choice(4, 9, endless())]));
        assert_eq!(failure(&events), Some(FailureKind::Step), "{fault}");
        assert_eq!(events.len(), 2, "one token came before");
        let events = hear(ask(&handle, vec![choice(4, 9, endless())]));
        assert_eq!(failure(&events), None);
        assert_eq!(handle.stats().step_failures.load(Ordering::Relaxed), 1);
    }
}

#[test]
fn three_panics_in_a_row_are_the_end() {
    let handle = start("fake:fault=panic@1,fault=panic@3,fault=panic@4,fault=panic@5");
    for expected in [true, false, true, true] {
        let failed = failure(&hear(ask(&handle, vec![choice(4, 1, endless())])));
        assert_eq!(failed == Some(FailureKind::Step), expected);
    }
    assert!(!handle.shared.closing.load(Ordering::Acquire), "two in a row are not three");
    let last = hear(ask(&handle, vec![choice(4, 1, endless())]));
    assert_eq!(failure(&last), Some(FailureKind::Step));
    assert!(matches!(finished(&handle), Ended::Fatal(reason) if reason.contains("panic@5")));
}

#[test]
fn a_hung_step_shows_and_takes_no_other_call_with_it() {
    let clock = ManualClock::default();
    let hangs = model("fake:fault=hang@1");
    let (handle, worker) = pair(hangs, &settings(), Arc::new(clock.clone()), [0; 32]);
    let timeout = Duration::from_secs(10);
    clock.advance(2 * timeout);
    assert!(!handle.stalled(timeout), "idle is not hung");
    thread::spawn(move || worker.run());
    let (first, mut events) = submission(&handle, vec![choice(4, 1, endless())]);
    let id = first.id;
    handle.submit(first).unwrap();
    wait_until(|| handle.stats().busy.load(Ordering::Acquire) > 0 && handle.queued().0 == 0);
    assert!(!handle.stalled(timeout), "its heartbeat is new");
    clock.advance(2 * timeout);
    assert!(handle.stalled(timeout));
    handle.abort(id);
    for _ in 0..4 {
        let (more, _) = submission(&handle, vec![choice(4, 1, endless())]);
        let _ = handle.submit(more);
    }
    let (more, _receiver) = submission(&handle, vec![choice(4, 1, endless())]);
    assert_eq!(handle.submit(more), Err(Rejected::QueueFull));
    assert!(events.try_recv().is_err());
}

#[test]
fn who_hangs_up_frees_everything() {
    let handle = start("fake:max_len=100000");
    let leaves = ask(&handle, vec![choice(40, 40_000, endless())]);
    wait_until(|| handle.stats().running.load(Ordering::Relaxed) == 1);
    drop(leaves);
    wait_until(|| handle.live() == 0);
    assert_eq!(handle.stats().finished_abort.load(Ordering::Relaxed), 1);
    wait_until(|| handle.stats().kv_blocks_held.load(Ordering::Relaxed) == 0);
}

#[test]
fn what_never_fits_is_refused_and_an_idle_engine_takes_any_prompt() {
    let handle = start("fake:kv_blocks=10");
    let (large, _receiver) = submission(&handle, vec![choice(300, 22, endless())]);
    assert_eq!(handle.submit(large), Err(Rejected::NeverFits { max_tokens: 320 }));
    let above_the_queue = ask(&handle, vec![choice(300, 21, endless())]);
    assert_eq!(failure(&hear(above_the_queue)), None);
    let (empty, receiver) = submission(&handle, Vec::new());
    handle.submit(empty).unwrap();
    assert!(matches!(hear(receiver)[..], [Event::Finished(_)]));
    let events = hear(ask(&handle, vec![Choice { prompt: [].into(), ..choice(1, 1, endless()) }]));
    assert_eq!(failure(&events), Some(FailureKind::Step));
}

#[derive(Debug)]
struct BadWatch;

impl StopWatch for BadWatch {
    fn is_stop(&mut self, _token: TokenId) -> bool {
        std::panic::resume_unwind(Box::new("a bad watch"))
    }
}

#[test]
fn a_stop_watch_that_panics_fails_its_own_request() {
    let handle = start("fake:step_ms=1");
    let good = ask(&handle, vec![choice(4, 30, endless())]);
    let bad = Choice { stop: Some(Box::new(BadWatch)), ..choice(4, 30, endless()) };
    assert_eq!(failure(&hear(ask(&handle, vec![bad]))), Some(FailureKind::Step));
    assert_eq!(failure(&hear(good)), None);
}

#[test]
fn an_engine_without_handles_ends() {
    let handle = start("fake:");
    let mut ended = handle.ended.clone();
    drop(handle);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(ended.wait_for(Option::is_some)).unwrap();
    assert_eq!(*ended.borrow(), Some(Ended::Drained));
}

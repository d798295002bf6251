//! The prefix cache as clients see it: what is computed, and what is said about it.

use tokio::sync::mpsc::Sender;

use super::*;
use crate::engine::message::Summary;

/// An engine whose turns the test takes itself.
struct Bench {
    handle: EngineHandle,
    worker: Worker,
}

impl Bench {
    fn new(spec: &str) -> Self {
        let clock = Arc::new(ManualClock::default());
        let roomy = Settings { max_queue_requests: 10, max_queue_tokens: 10_000, ..settings() };
        let (handle, worker) = pair(model(spec), &roomy, clock, [0; 32]);
        Self { handle, worker }
    }

    /// Nobody reads before the end, and no channel gets full.
    fn ask(&self, choices: Vec<Choice>) -> Receiver<Event> {
        let (events, receiver) = events(1000);
        self.submit(choices, events);
        receiver
    }

    fn submit(&self, choices: Vec<Choice>, events: Sender<Event>) {
        let (id, namespace) = (self.handle.next_id(), Namespace::default());
        let submission =
            Submission { id, namespace, priority: Priority::default(), choices, events };
        self.handle.submit(submission).unwrap();
    }

    /// Tokens that one turn computed.
    fn turn(&mut self) -> usize {
        match self.worker.turn() {
            Progress::Stepped => {
                self.worker.engine.check_integrity().unwrap();
                self.worker.engine.last_plan().iter().map(|w| w.chunk.tokens).sum()
            }
            _ => 0,
        }
    }

    /// Tokens computed until nothing is left to do. One turn may go by before the engine knows that
    /// a client takes nothing.
    fn finish(&mut self) -> usize {
        let (mut computed, mut rests) = (0, 0);
        while rests < 3 {
            let tokens = self.turn();
            computed += tokens;
            rests = if tokens == 0 { rests + 1 } else { 0 };
        }
        computed
    }

    fn answer(&mut self, choices: Vec<Choice>) -> (Vec<TokenId>, Summary) {
        let events = self.ask(choices);
        self.finish();
        read(events)
    }
}

/// The tokens of all choices, and the summary; the request must have succeeded.
fn read(mut events: Receiver<Event>) -> (Vec<TokenId>, Summary) {
    let events: Vec<Event> = std::iter::from_fn(|| events.try_recv().ok()).collect();
    let token = |e: &Event| if let Event::Token(t) = e { Some(t.token) } else { None };
    let tokens = events.iter().filter_map(token).collect();
    match events.last() {
        Some(Event::Finished(summary)) => (tokens, *summary),
        other => panic!("ended with {other:?}"),
    }
}

fn prompt(tokens: impl IntoIterator<Item = TokenId>, new: u32) -> Choice {
    Choice { prompt: tokens.into_iter().collect(), ..choice(1, new, endless()) }
}

#[test]
fn the_next_turn_of_a_chat_finds_prompt_and_answer() {
    let mut bench = Bench::new("fake:");
    let (answer, summary) = bench.answer(vec![prompt(0..40, 57)]);
    assert_eq!(summary.cached_tokens, 0);
    let next = || prompt((0..40).chain(answer.iter().copied()).chain(200..210), 5);
    let (second, summary) = bench.answer(vec![next()]);
    assert_eq!(summary.cached_tokens, 96, "the last token of an answer is never fed back");
    assert_eq!(second, Bench::new("fake:").answer(vec![next()]).0);
    let stats = bench.handle.stats();
    assert_eq!(stats.cache_queries.load(Ordering::Relaxed), 40 + 107);
    assert_eq!(stats.cached_tokens.load(Ordering::Relaxed), 96);
    assert!(stats.kv_usage() <= 0.0, "what is only cached is free");
}

#[test]
fn a_failed_step_leaves_nothing_to_find() {
    // 100 tokens take two steps; the second fails, and takes the first with it if it was the numbers.
    for (fault, cached) in [("panic@1", 0), ("panic@2", 64), ("nan@2", 0)] {
        let mut bench = Bench::new(&format!("fake:fault={fault}"));
        let failed = bench.ask(vec![prompt(0..100, 3)]);
        bench.finish();
        assert_eq!(failure(&hear(failed)), Some(FailureKind::Step));
        let (_, summary) = bench.answer(vec![prompt(0..100, 3)]);
        assert_eq!(summary.cached_tokens, cached, "{fault}");
    }
}

#[test]
fn samples_of_one_prompt_compute_it_once() {
    let mut bench = Bench::new("fake:");
    let samples = (0..4).map(|sample| Choice { sample, ..prompt(0..100, 1) }).collect();
    let events = bench.ask(samples);
    assert_eq!(bench.finish(), 100 + 3 * 4);
    assert_eq!(read(events).1.cached_tokens, 0, "the first found nothing");
}

#[test]
fn who_arrives_together_computes_what_is_shared_once_and_others_go_on() {
    let mut bench = Bench::new("fake:");
    let crowd: Vec<_> =
        (0..4).map(|n| bench.ask(vec![prompt((0..320).chain([n; 5]), 1)])).collect();
    let other = bench.ask(vec![prompt(400..410, 1)]);
    assert_eq!(bench.turn(), 64);
    assert!(matches!(hear(other).last(), Some(Event::Finished(_))), "it waits for nobody");
    assert_eq!(bench.finish() + 64, 325 + 3 * 5 + 10);
    for (events, cached) in crowd.into_iter().zip([0, 320, 320, 320]) {
        assert_eq!(read(events).1.cached_tokens, cached);
    }
    assert_eq!(bench.handle.stats().cache_awaited.load(Ordering::Relaxed), 3);
}

#[test]
fn nobody_waits_for_who_does_not_go_on() {
    // Its client leaves.
    let mut bench = Bench::new("fake:");
    let leaves = bench.ask(vec![prompt(0..200, 1)]);
    let stays = bench.ask(vec![prompt(0..200, 1)]);
    bench.turn();
    drop(leaves);
    bench.finish();
    assert_eq!(read(stays).1.cached_tokens, 64);

    // Its client takes no events: a scored prompt sends some on its way.
    let mut bench = Bench::new("fake:max_logit_rows=32");
    let scored = Sampling { prompt_logprobs: Some(0), ..endless() };
    let choices = vec![Choice { sampling: Arc::new(scored), ..prompt(0..400, 1) }];
    let (events, _unread) = events(4);
    bench.submit(choices, events);
    bench.turn();
    let (_, summary) = bench.answer(vec![prompt(0..400, 1)]);
    assert!((32..384).contains(&summary.cached_tokens), "{summary:?}");
}

#[test]
fn who_is_preempted_finds_what_it_had() {
    // Each fits alone; together they need two blocks more than there are.
    let mut bench = Bench::new("fake:kv_blocks=8");
    let both = [prompt(0..90, 47), prompt(200..290, 47)];
    let events = both.map(|choice| bench.ask(vec![choice]));
    let computed = bench.finish();
    let preempted: u32 = events.into_iter().map(|e| read(e).1.preemptions).sum();
    assert_eq!(preempted, 1);
    let once = 2 * (90 + 46);
    assert!((once..=once + BLOCK_TOKENS).contains(&computed), "{computed} of {once}");
}

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::message::{Choice, Namespace, Priority, Sampling, Tenant};
use super::super::prefix_cache::Hashing;
use super::super::sequence::tests::choice;
use super::*;
use crate::backend::LogitRows;

mod tenants;

/// Room by request; those that are not named have plenty.
#[derive(Default)]
struct Channels(BTreeMap<RequestId, usize>);

const PLENTY: usize = 1000;

impl Room for Channels {
    fn left(&self, request: RequestId) -> usize {
        self.0.get(&request).copied().unwrap_or(PLENTY)
    }

    fn is_ready(&self, request: RequestId) -> bool {
        self.left(request) >= EVENTS_A_STEP
    }

    fn take(&mut self, request: RequestId, events: usize) {
        if let Some(room) = self.0.get_mut(&request) {
            *room -= events;
        }
    }
}

/// Keys of the prefix cache.
const HASHING: Hashing = Hashing { secret: [3; 32], bits: 128 };

pub(super) fn limits(sequences: usize, tokens: usize, logit_rows: usize) -> Limits {
    Limits {
        sequences,
        tokens,
        by_time: true,
        logit_rows,
        later_tokens: tokens,
        layers: 1,
        speculating: 0,
    }
}

/// A scheduler and the rest of an engine that generates token 1 for everybody.
struct Bench {
    scheduler: Scheduler,
    channels: Channels,
    added: u64,
}

impl Bench {
    fn new(limits: Limits, blocks: usize) -> Self {
        Self::caching(limits, blocks, None)
    }

    fn caching(limits: Limits, blocks: usize, hashing: Option<Hashing>) -> Self {
        let scheduler = Scheduler::new(limits, BlockManager::new(blocks, hashing));
        Self { scheduler, channels: Channels::default(), added: 0 }
    }

    fn add(&mut self, prompt: usize, new: u32) -> u64 {
        self.add_sampling(prompt, new, Sampling::default())
    }

    fn add_sampling(&mut self, prompt: usize, new: u32, sampling: Sampling) -> u64 {
        self.add_choice(choice(prompt, new, sampling), Tenant::default(), Priority::default())
    }

    fn add_of(&mut self, tenant: u32, priority: i32, prompt: usize, new: u32) -> u64 {
        let priority = Priority { request: priority, tenant: 0 };
        self.add_choice(choice(prompt, new, Sampling::default()), Tenant(tenant), priority)
    }

    fn add_choice(&mut self, choice: Choice, tenant: Tenant, priority: Priority) -> u64 {
        let n = self.added;
        self.added += 1;
        let sequence = Sequence::new(n, RequestId(n), 0, choice, 100_000);
        self.scheduler.add(sequence.of(Namespace { tenant, salt: None }, priority));
        n
    }

    /// Steps until the sequence has an answer's first token.
    fn steps_to_first_token(&mut self, n: u64) -> usize {
        let mut steps = 0;
        while self.scheduler.get(n).is_none_or(|s| s.generated().is_empty()) {
            self.step();
            steps += 1;
            assert!(steps < 10_000, "it never came");
        }
        steps
    }

    /// One step: (sequence, tokens) in order of arrival.
    fn step(&mut self) -> Vec<(u64, usize)> {
        let plan = self.scheduler.schedule(&mut self.channels).to_vec();
        self.compute(&plan);
        plan.iter().map(|w| (w.arrival, w.chunk.tokens)).collect()
    }

    fn compute(&mut self, plan: &[Work]) {
        for work in plan {
            let sequence = self.scheduler.get_mut(work.arrival).unwrap();
            assert_eq!(sequence.computed, work.start);
            if let Some(stage) = work.stage {
                let before = sequence.under_way.map_or(0, |u| u.layer);
                assert_eq!(before, stage.from, "a chunk goes on where it stopped");
            }
            assert!(blocks_needed(work.start + work.chunk.tokens) <= sequence.blocks.len());
            sequence.pass(work.chunk, work.stage);
            if work.chunk.logits == LogitRows::All {
                sequence.scored = (sequence.computed + 1).min(sequence.prompt().len());
            }
            let known = sequence.pending() == 0;
            self.scheduler.publish(work.arrival);
            let sequence = self.scheduler.get_mut(work.arrival).unwrap();
            if known && !sequence.is_full() {
                sequence.push(1, &[]).unwrap();
            }
            if known && sequence.is_full() {
                self.scheduler.finish(work.arrival).unwrap();
            }
        }
        self.scheduler.check_integrity().unwrap();
    }

    fn is_done(&self) -> bool {
        self.scheduler.running() + self.scheduler.waiting() == 0
    }
}

#[test]
fn decodes_come_first_and_prompts_share_the_rest() {
    let mut bench = Bench::new(limits(8, 64, 64), 100);
    let a = bench.add(10, 50);
    assert_eq!(bench.step(), [(a, 10)]);
    let b = bench.add(1000, 50);
    assert_eq!(bench.step(), [(a, 1), (b, 63)], "prefill and decode share a step");
    let c = bench.add(20, 50);
    assert_eq!(bench.step(), [(a, 1), (b, 43), (c, 20)], "a short prompt is not held up");
    assert_eq!(bench.step(), [(a, 1), (b, 62), (c, 1)]);
    let d = bench.add(1000, 50);
    assert_eq!(bench.step(), [(a, 1), (b, 31), (c, 1), (d, 31)], "half a step while others wait");
}

#[test]
fn a_short_prompt_overtakes_all_but_the_first() {
    let mut bench = Bench::new(limits(8, 64, 64), 400);
    let (a, b, c) = (bench.add(1000, 9), bench.add(1000, 9), bench.add(1000, 9));
    assert_eq!(bench.step(), [(a, 32), (b, 32)]);
    let d = bench.add(20, 9);
    assert_eq!(bench.step(), [(a, 32), (b, 12), (d, 20)], "the short one is read at once");
    let mut steps = 2;
    while bench.scheduler.get(c).is_some_and(|s| s.generated().is_empty()) {
        bench.step();
        steps += 1;
    }
    assert!(steps < 55, "{steps}: nothing of a step is left over");
}

#[test]
fn a_step_that_somebody_waits_for_holds_less_of_a_prompt() {
    let mut bench = Bench::new(limits(8, 256, 64), 400);
    let answering = bench.add(10, 1000);
    // Whatever is in a step, it takes 4 ms and a fifth of a millisecond a token.
    let step = |bench: &mut Bench| {
        let plan = bench.scheduler.schedule(&mut bench.channels).to_vec();
        let tokens: usize = plan.iter().map(|work| work.chunk.tokens).sum();
        bench.scheduler.learn(&plan, Duration::from_micros(4000 + 200 * tokens as u64));
        bench.compute(&plan);
        plan.iter().map(|w| (w.arrival, w.chunk.tokens)).collect::<Vec<_>>()
    };
    for _ in 0..50 {
        step(&mut bench);
    }
    let long = bench.add(4000, 9);
    let mut most = 0;
    while bench.scheduler.get(long).is_none_or(|s| s.computed < 3000) {
        let plan = step(&mut bench);
        assert_eq!(plan[0], (answering, 1));
        assert!(plan[1].1 >= 16);
        most = most.max(plan[1].1);
    }
    assert!((16..=30).contains(&most), "{most} tokens: twice the step");
    bench.scheduler.remove(RequestId(answering));
    assert_eq!(step(&mut bench), [(long, 256)], "nobody waits any more");
}

/// A step of a machine that takes 4 ms, 0.1 ms a token, 1 ms for 8,192 pairs of a token and a position,
/// and 4 ms for all layers of a chunk that passes them by itself.
fn timed_step(bench: &mut Bench) -> (Vec<Work>, f64) {
    let plan = bench.scheduler.schedule(&mut bench.channels).to_vec();
    let cost = |work: &Work| {
        let (tokens, start) = (work.chunk.tokens as f64, work.start as f64);
        let ms = tokens * (0.1 + (start + tokens / 2.0) / 8192.0);
        work.stage.map_or(ms, |stage| stage.share() * (4.0 + ms))
    };
    let ms = 4.0 + plan.iter().map(cost).sum::<f64>();
    bench.scheduler.learn(&plan, Duration::from_secs_f64(ms / 1e3));
    bench.compute(&plan);
    (plan, ms)
}

/// A bench on which one sequence has answered for a while and a long prompt is read beside it.
fn beside_a_long_prompt() -> (Bench, u64, u64) {
    let layers = Limits { layers: 12, ..limits(8, 256, 64) };
    let mut bench = Bench::new(layers, 1000);
    let answering = bench.add(10, 9000);
    for _ in 0..50 {
        timed_step(&mut bench);
    }
    let long = bench.add(8000, 9);
    while bench.scheduler.get(long).is_none_or(|s| s.computed < 4000) {
        timed_step(&mut bench);
    }
    (bench, answering, long)
}

#[test]
fn a_long_prompt_takes_its_chunks_through_a_few_layers_a_step() {
    let (mut bench, answering, long) = beside_a_long_prompt();
    let (mut steps, mut stages, mut worst, mut pace) = (0, 0, 0.0_f64, 0.0);
    while bench.scheduler.get(long).is_some_and(|s| s.pending() > 16) {
        let (plan, ms) = timed_step(&mut bench);
        assert_eq!((plan[0].arrival, plan[0].chunk.tokens), (answering, 1));
        steps += 1;
        stages += usize::from(plan[1].stage.is_some());
        let alone = 4.1 + plan[0].start as f64 / 8192.0;
        worst = worst.max(ms / alone);
        pace += ms / alone;
    }
    pace /= steps as f64;
    assert!(stages > steps - 5, "{stages} of {steps}");
    assert!(worst < 2.5 && (1.9..2.1).contains(&pace), "at most {worst}, in the mean {pace} times");
}

#[test]
fn a_short_prompt_is_read_beside_a_chunk_that_is_under_way() {
    let (mut bench, _, long) = beside_a_long_prompt();
    let short = bench.add(12, 9);
    let before = bench.scheduler.get(long).unwrap().computed;
    assert!(bench.steps_to_first_token(short) <= 3);
    while bench.scheduler.get(long).unwrap().computed == before {
        timed_step(&mut bench);
    }
}

#[test]
fn a_chunk_that_is_under_way_ends_at_once_when_nobody_waits_or_begins_again_if_preempted() {
    let under_way = |preempt: bool| {
        let (mut bench, answering, long) = beside_a_long_prompt();
        while bench.scheduler.get(long).unwrap().under_way.is_none() {
            timed_step(&mut bench);
        }
        if preempt {
            bench.scheduler.preempt(bench.scheduler.find(long).unwrap());
        } else {
            bench.scheduler.remove(RequestId(answering));
        }
        let (plan, _) = timed_step(&mut bench);
        plan.into_iter().find(|work| work.arrival == long).unwrap()
    };
    let stage = under_way(false).stage.unwrap();
    assert!(stage.from > 0 && stage.to == 12, "{stage:?}");
    let again = under_way(true);
    assert_eq!((again.start, again.stage.map_or(0, |stage| stage.from)), (0, 0));
}

#[test]
fn admission_is_first_come_first_served() {
    let mut bench = Bench::new(limits(2, 64, 64), 100);
    let (a, b, c) = (bench.add(5, 2), bench.add(5, 9), bench.add(5, 9));
    assert_eq!(bench.step(), [(a, 5), (b, 5)]);
    assert_eq!(bench.step(), [(a, 1), (b, 1)]);
    assert_eq!(bench.step(), [(b, 1), (c, 5)]);
    // A large one at the head of the queue is not overtaken by a small one.
    let mut bench = Bench::new(limits(8, 512, 64), 8);
    let (a, b) = (bench.add(32 * 4, 30), bench.add(32 * 7, 2));
    bench.add(5, 2);
    assert_eq!(bench.step(), [(a, 128)]);
    assert_eq!(bench.step(), [(a, 1)]);
    assert_eq!(bench.scheduler.waiting(), 2);
    while bench.scheduler.get(a).is_some() {
        bench.step();
    }
    assert_eq!(bench.step()[0].0, b);
}

#[test]
fn a_budget_below_the_number_of_sequences_goes_round() {
    let mut bench = Bench::new(limits(8, 3, 64), 100);
    for _ in 0..8 {
        bench.add(1, 1000);
    }
    let mut served = BTreeMap::new();
    for _ in 0..80 {
        let plan = bench.step();
        assert_eq!(plan.len(), 3);
        for (n, tokens) in plan {
            assert_eq!(tokens, 1);
            *served.entry(n).or_insert(0) += 1;
        }
    }
    assert!(served.values().all(|&n| n == 30), "{served:?}");
}

#[test]
fn a_prompt_moves_on_while_decodes_could_take_every_token() {
    let mut bench = Bench::new(limits(8, 2, 64), 100);
    for _ in 0..3 {
        bench.add(1, 10_000);
    }
    for _ in 0..3 {
        bench.step();
    }
    let prompt = bench.add(10, 5);
    let waited = (0..200).take_while(|_| {
        bench.step();
        bench.scheduler.get(prompt).is_some_and(|s| s.generated().is_empty())
    });
    assert!(waited.count() <= 22, "ten turns among four sequences, two a step");
}

#[test]
fn rows_of_logits_are_bounded_and_nobody_starves_for_them() {
    let mut bench = Bench::new(limits(8, 64, 4), 100);
    let scored = Sampling { prompt_logprobs: Some(1), ..Sampling::default() };
    for _ in 0..5 {
        bench.add(2, 500);
    }
    let scored = bench.add_sampling(40, 2, scored);
    let mut steps = 0;
    while bench.scheduler.get(scored).is_some() || steps == 0 {
        bench.step();
        assert!(bench.scheduler.plan.iter().map(|w| w.chunk.logit_rows()).sum::<usize>() <= 4);
        steps += 1;
        assert!(steps < 200, "the scored prompt does not move");
    }
}

#[test]
fn the_newest_is_preempted_and_comes_back() {
    let mut bench = Bench::new(limits(4, 64, 64), 4);
    let (a, b) = (bench.add(31, 60), bench.add(20, 40));
    bench.step();
    while bench.scheduler.preemptions() == 0 {
        bench.step();
    }
    assert!(bench.scheduler.get(a).is_some() && bench.scheduler.get(b).is_none());
    let mut steps = 0;
    while !bench.is_done() {
        bench.step();
        steps += 1;
        assert!(steps < 500);
    }
    assert_eq!(bench.scheduler.blocks().held(), 0);
}

#[test]
fn a_step_goes_to_somebody_else_when_its_sequence_is_preempted() {
    // One row of logits a step: the newest has its turn, needs a block, and gives all of its own back.
    let mut bench = Bench::new(limits(2, 64, 1), 4);
    bench.add(31, 60);
    bench.add(60, 10);
    while !bench.is_done() {
        assert!(!bench.step().is_empty());
    }
    assert!(bench.scheduler.preemptions() > 0);
}

#[test]
fn a_client_that_takes_nothing_neither_steps_nor_stands_in_the_way() {
    let mut bench = Bench::new(limits(1, 64, 64), 8);
    let (a, b) = (bench.add(40, 50), bench.add(40, 3));
    bench.channels.0.insert(RequestId(a), 4);
    assert_eq!(bench.step(), [(a, 40)]);
    assert_eq!(bench.step(), [(a, 1)]);
    assert_eq!(bench.step(), [], "its channel is full, and nobody noticed yet");
    assert_eq!(bench.step(), [(b, 40)], "its place goes to who waits");
    bench.channels.0.insert(RequestId(a), PLENTY);
    bench.step();
    bench.step();
    assert_eq!(bench.step(), [(a, 42)], "it starts again where it was");
}

#[test]
fn a_removed_request_leaves_nothing() {
    let mut bench = Bench::new(limits(2, 64, 64), 8);
    let (a, _, c) = (bench.add(40, 50), bench.add(4, 50), bench.add(4, 50));
    bench.step();
    bench.scheduler.remove(RequestId(a));
    bench.scheduler.remove(RequestId(c));
    assert_eq!((bench.scheduler.running(), bench.scheduler.waiting()), (1, 0));
    assert_eq!(bench.scheduler.blocks().held(), 1);
    bench.scheduler.check_integrity().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Whatever the limits: steps stay inside them, blocks add up, and everything ends.
    #[test]
    fn everything_ends_within_the_limits(
        sequences in 1_usize..6,
        tokens in 1_usize..70,
        rows in 1_usize..9,
        blocks in 3_usize..9,
        lives in prop::collection::vec((1_usize..60, 1_u32..30, any::<bool>()), 1..12),
    ) {
        let mut bench = Bench::new(limits(sequences, tokens, rows), blocks);
        for (prompt, new, scored) in lives {
            let prompt_logprobs = scored.then_some(0);
            bench.add_sampling(prompt, new, Sampling { prompt_logprobs, ..Sampling::default() });
        }
        let mut steps = 0;
        while !bench.is_done() {
            let plan = bench.step();
            prop_assert!(!plan.is_empty(), "stuck");
            prop_assert!(plan.iter().map(|p| p.1).sum::<usize>() <= tokens);
            prop_assert!(plan.len() <= sequences);
            steps += 1;
            prop_assert!(steps < 20_000, "no end");
        }
        prop_assert_eq!(bench.scheduler.blocks().held(), 0);
    }
}

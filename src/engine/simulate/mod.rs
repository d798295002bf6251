//! Seeded simulation: random lives of a server through the real engine, with a clock that only moves
//! when told, and with a fake model or a real one.
//!
//! A life draws a machine (places, blocks, budgets), a crowd of requests and clients (who read, dawdle,
//! stall, abort or leave), and faults of the model, all from one seed. After every turn it checks what
//! must always hold; at the end it compares every answer with [`Oracle`], which knows no scheduler.
//!
//! What is checked, by the names of the architecture's invariants: every accepted request ends in
//! exactly one terminal event (3), blocks add up (4), the engine never waits for a client (5), and
//! every answer has the bits of the same request alone (7).

mod client;
mod dice;
mod model;
mod oracle;
mod plan;
mod rules;

use std::sync::Arc;
use std::time::Duration;

use super::Settings;
use super::clock::ManualClock;
use super::handle::{Ended, EngineHandle, Rejected};
use super::machine::Progress;
use super::message::RequestId;
use super::worker::{Worker, pair};
use crate::backend::BLOCK_TOKENS;
use crate::model::fake::{END_TOKEN, FakeModel, Options};
use crate::model::{Model, ModelSpec};
use client::{Client, Crowd};
use dice::Dice;
use model::{FaultLog, FaultRates, FaultyModel};
pub use oracle::Oracle;

/// Turns that a life may take: far more than any needs.
const TURNS_MAX: usize = 60_000;

/// The longest that a client dawdles between two events is well below this.
const CLIENT_STALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Few tokens, so that themes and drafts repeat.
const FAKE_VOCAB: usize = 38;

/// Tokens of a step where nobody is told to hurry.
const ROOMY_ROWS: usize = 256;

/// Keys the hashes of prefixes. The same in all lives, so that a life can be lived again.
const SECRET: [u8; 32] = [7; 32];

/// How much there is to a life. Pairs are the least and the most.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    pub requests: (usize, usize),
    /// Places for sequences.
    pub places: (usize, usize),
    /// Tokens of the longest sequence.
    pub context: (usize, usize),
    /// Tokens of most prompts are below this; some go up to the context.
    pub prompt: usize,
    /// Tokens of an answer, at most.
    pub new_tokens: usize,
    /// Share of lives whose model fails now and then.
    pub faulty: f64,
    /// Everybody comes at once and gets in, and nobody is told to hurry.
    pub roomy: bool,
}

impl Scale {
    /// For the fake model, which costs nothing.
    const FAKE: Self = Self {
        requests: (1, 29),
        places: (1, 12),
        context: (40, 260),
        prompt: 60,
        new_tokens: 70,
        faulty: 0.4,
        roomy: false,
    };
}

/// What a life is lived on: what the engine knows of the model, and who knows the right answers.
struct Stage<'a> {
    spec: &'a ModelSpec,
    scale: Scale,
    oracle: &'a mut Oracle,
}

/// What happened, summed over lives: a simulation that never preempts proves nothing about it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    pub lives: u64,
    pub requests: u64,
    pub finished: u64,
    pub aborted: u64,
    pub failed_step: u64,
    pub failed_constraint: u64,
    pub failed_stalled: u64,
    pub failed_shutdown: u64,
    pub rejected: u64,
    pub preemptions: u64,
    /// Tokens.
    pub cache_hits: u64,
    /// Blocks.
    pub evictions: u64,
    /// Choices that waited for a prefix that another computed.
    pub awaited: u64,
    /// Steps that took a chunk through some of the layers.
    pub parts: u64,
    pub steps: u64,
    pub blocked_turns: u64,
    pub fatal_ends: u64,
    pub tokens: u64,
    /// Of answers that keep within rules.
    pub ruled_tokens: u64,
    pub draft_tokens: u64,
    pub accepted_tokens: u64,
    /// Most sequences in one step of any life.
    pub widest_step: usize,
}

impl Tally {
    pub fn add(&mut self, other: &Self) {
        self.lives += other.lives;
        self.requests += other.requests;
        self.finished += other.finished;
        self.aborted += other.aborted;
        self.failed_step += other.failed_step;
        self.failed_constraint += other.failed_constraint;
        self.failed_stalled += other.failed_stalled;
        self.failed_shutdown += other.failed_shutdown;
        self.rejected += other.rejected;
        self.preemptions += other.preemptions;
        self.cache_hits += other.cache_hits;
        self.evictions += other.evictions;
        self.awaited += other.awaited;
        self.parts += other.parts;
        self.steps += other.steps;
        self.blocked_turns += other.blocked_turns;
        self.fatal_ends += other.fatal_ends;
        self.tokens += other.tokens;
        self.ruled_tokens += other.ruled_tokens;
        self.draft_tokens += other.draft_tokens;
        self.accepted_tokens += other.accepted_tokens;
        self.widest_step = self.widest_step.max(other.widest_step);
    }
}

/// How a life is told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Finale {
    /// When everybody is done.
    Quiet,
    /// In the middle: those inside finish.
    Drain { turn: usize },
    /// In the middle: those inside fail, after a drain that took too long.
    Stop { turn: usize, drain_first: bool },
}

/// The machine of one life.
#[derive(Debug, Clone)]
struct World {
    settings: Settings,
    spec: ModelSpec,
    hash_bits: u32,
    rates: FaultRates,
    finale: Finale,
    turn_ms_max: u64,
}

impl World {
    /// For a model that has `most`.
    fn draw(dice: &mut Dice, scale: &Scale, most: &ModelSpec) -> Self {
        let roomy = scale.roomy;
        let tiny = !roomy && dice.chance(0.3);
        let settings = Settings {
            max_num_seqs: dice.up_to(scale.places.0, scale.places.1),
            max_num_batched_tokens: match (tiny, roomy || dice.chance(0.5)) {
                (true, _) => Some(dice.up_to(1, 6)),
                (false, true) => Some(if roomy { ROOMY_ROWS } else { dice.up_to(8, 160) }),
                (false, false) => None,
            },
            max_speculating_seqs: dice.one_of(&[0, 2, 4, 12]),
            max_queue_requests: if !roomy && dice.chance(0.3) { dice.up_to(1, 4) } else { 100 },
            max_queue_tokens: if !roomy && dice.chance(0.2) { dice.up_to(1, 200) } else { 10_000 },
            client_stall_timeout: CLIENT_STALL_TIMEOUT,
            prefix_caching: dice.chance(0.85),
        };
        let mut spec = ModelSpec {
            max_context: dice.up_to(scale.context.0, scale.context.1),
            kv_blocks: match (roomy, dice.chance(0.6)) {
                (true, _) => dice.up_to(60, 120),
                (false, true) => dice.up_to(3, 14),
                (false, false) => dice.up_to(15, 120),
            },
            max_rows: if roomy { ROOMY_ROWS } else { dice.up_to(32, 200) },
            max_logit_rows: if roomy { usize::MAX } else { dice.up_to(1, 40) },
            ..most.clone()
        };
        spec.kv_blocks = spec.kv_blocks.min(most.kv_blocks);
        spec.max_rows = spec.max_rows.min(most.max_rows);
        spec.max_logit_rows = spec.max_logit_rows.min(most.max_logit_rows);
        let hash_bits = dice.one_of(&[128, 128, 128, 6, 1]);
        let faulty = dice.chance(scale.faulty);
        let rates = if faulty { FaultRates::draw(dice) } else { FaultRates::default() };
        let turn = dice.up_to(0, 150);
        let finale = match dice.up_to(0, 9) {
            _ if roomy => Finale::Quiet,
            0..=5 => Finale::Quiet,
            6..=7 => Finale::Drain { turn },
            _ => Finale::Stop { turn, drain_first: dice.chance(0.5) },
        };
        let turn_ms_max = dice.up_to(1, 200) as u64;
        Self { settings, spec, hash_bits, rates, finale, turn_ms_max }
    }
}

/// One life in progress.
struct Life {
    dice: Dice,
    world: World,
    clock: ManualClock,
    handle: EngineHandle,
    worker: Worker,
    crowd: Crowd,
    faults: FaultLog,
    closing: bool,
    stopped: bool,
    blocked_in_a_row: u32,
    tally: Tally,
}

/// Lives the life of `seed` with the fake model. The error says what did not hold.
pub fn live(seed: u64) -> Result<Tally, String> {
    let mut dice = Dice::new(seed);
    let one_at_a_time = dice.chance(0.1);
    let most = ModelSpec {
        vocab: FAKE_VOCAB,
        layers: if one_at_a_time { 1 } else { dice.one_of(&[1, 2, 5, 30]) },
        max_context: usize::MAX,
        kv_blocks: usize::MAX,
        max_rows: usize::MAX,
        max_logit_rows: usize::MAX,
        max_later_rows: if one_at_a_time { dice.up_to(1, 40) } else { usize::MAX },
        one_at_a_time,
        end_tokens: vec![END_TOKEN],
    };
    let world = World::draw(&mut dice, &Scale::FAKE, &most);
    let ModelSpec { max_context: max_len, kv_blocks, max_rows, max_logit_rows, .. } = world.spec;
    let options = Options {
        vocab: most.vocab,
        layers: most.layers,
        max_len,
        kv_blocks,
        max_rows,
        max_logit_rows,
        end_every: dice.up_to(5, 200) as u64,
        repeats: dice.one_of(&[0, 0, 2, 20]),
        one_at_a_time,
        ..Options::default()
    };
    let alone = max_len.div_ceil(BLOCK_TOKENS);
    let alone =
        Options { kv_blocks: alone, max_rows: max_len, one_at_a_time: false, ..options.clone() };
    let mut oracle = Oracle::new(Box::new(FakeModel::new(alone)));
    live_in(world, Box::new(FakeModel::new(options)), &mut oracle, (Scale::FAKE, dice))
}

/// Lives the life of `seed` with `model`, of which the engine sees no more than fits into `scale`;
/// `oracle` has the same weights.
pub fn live_with(
    model: Box<dyn Model>,
    oracle: &mut Oracle,
    scale: Scale,
    seed: u64,
) -> Result<Tally, String> {
    let mut dice = Dice::new(seed);
    let world = World::draw(&mut dice, &scale, model.spec());
    live_in(world, model, oracle, (scale, dice))
}

fn live_in(
    world: World,
    model: Box<dyn Model>,
    oracle: &mut Oracle,
    (scale, mut dice): (Scale, Dice),
) -> Result<Tally, String> {
    let spec = world.spec.clone();
    let mut stage = Stage { spec: &spec, scale, oracle };
    let crowd = Crowd::draw(&mut dice, &mut stage)?;
    let faults = FaultLog::default();
    let clock = ManualClock::default();
    let accidents = (dice.fork(), faults.clone());
    let model = Box::new(FaultyModel::new(model, &world, accidents, clock.clone()));
    let (handle, worker) = pair(model, &world.settings, Arc::new(clock.clone()), SECRET);
    let life = Life {
        dice,
        world,
        clock,
        handle,
        worker,
        crowd,
        faults,
        closing: false,
        stopped: false,
        blocked_in_a_row: 0,
        tally: Tally { lives: 1, ..Tally::default() },
    };
    life.run(&mut stage)
}

impl Life {
    fn run(mut self, stage: &mut Stage<'_>) -> Result<Tally, String> {
        for turn in 0..TURNS_MAX {
            self.submit(turn)?;
            self.crowd.act(turn, &self.handle, &mut self.dice)?;
            self.close(turn);
            let progress = self.worker.turn();
            let plan = self.worker.engine.last_plan();
            self.faults.attribute(plan);
            self.tally.widest_step = self.tally.widest_step.max(plan.len());
            self.check(&progress)?;
            if let Progress::Ended(ended) = progress {
                return self.end(ended, stage);
            }
            let ms = self.dice.up_to(0, self.world.turn_ms_max as usize) as u64;
            self.clock.advance(Duration::from_millis(ms));
        }
        let open = self.crowd.open().map(|c| format!("{c:?}")).collect::<Vec<_>>();
        Err(format!("no end after {TURNS_MAX} turns; open: {}", open.join("\n")))
    }

    fn submit(&mut self, turn: usize) -> Result<(), String> {
        let (spec, options) = (self.handle.spec().clone(), &self.world.settings);
        for client in self.crowd.due(turn) {
            let (queued, queued_tokens) = self.handle.queued();
            let idle = self.handle.live() == 0;
            let fits = client.blocks_needed(spec.max_context) <= spec.kv_blocks;
            let tokens = queued_tokens + client.prompt_tokens();
            let full = queued >= options.max_queue_requests
                || (tokens > options.max_queue_tokens && !idle);
            let alone = self.handle.shared.queue.waiting_of(client.tenant()) == 0
                && client.prompt_tokens() <= options.max_queue_tokens;
            let expected = if self.closing {
                Err(Rejected::ShuttingDown)
            } else if !fits {
                Err(Rejected::NeverFits { max_tokens: spec.kv_blocks * BLOCK_TOKENS })
            } else if full && !alone {
                Err(Rejected::QueueFull)
            } else {
                Ok(())
            };
            let got = self.handle.submit(client.submission());
            if got != expected {
                return Err(format!("submission of {client:?}: {got:?}, should be {expected:?}"));
            }
            client.submitted(turn, got.is_ok());
            self.tally.requests += 1;
            self.tally.rejected += u64::from(got.is_err());
        }
        Ok(())
    }

    fn close(&mut self, turn: usize) {
        match self.world.finale {
            Finale::Quiet if !self.closing && self.crowd.is_done() => self.drain(),
            Finale::Drain { turn: at } if at == turn => self.drain(),
            Finale::Stop { turn: at, drain_first } => {
                if drain_first && turn + 20 == at.max(20) {
                    self.drain();
                }
                if turn == at {
                    self.handle.stop();
                    self.closing = true;
                    self.stopped = true;
                }
            }
            _ => {}
        }
    }

    fn drain(&mut self) {
        self.handle.drain();
        self.closing = true;
    }

    /// What holds after every turn.
    fn check(&mut self, progress: &Progress) -> Result<(), String> {
        self.worker.engine.check_integrity()?;
        let open = self.crowd.open().count();
        if self.handle.live() != open {
            return Err(format!(
                "{} requests live in the engine, {open} clients wait for one",
                self.handle.live()
            ));
        }
        for client in self.crowd.clients() {
            client.check_abort()?;
        }
        self.check_progress(progress)
    }

    /// The engine may rest only while no client could take what a step yields. One turn of grace: a
    /// sequence is known to be paused from the turn on that found its channel full.
    fn check_progress(&mut self, progress: &Progress) -> Result<(), String> {
        if *progress != Progress::Blocked {
            self.blocked_in_a_row = 0;
            return Ok(());
        }
        self.tally.blocked_turns += 1;
        match self.crowd.open().find(|c| c.has_room()) {
            Some(client) if self.blocked_in_a_row >= 1 => {
                Err(format!("the engine waits although there is room for {client:?}"))
            }
            Some(_) => {
                self.blocked_in_a_row += 1;
                Ok(())
            }
            None => {
                self.blocked_in_a_row = 0;
                Ok(())
            }
        }
    }

    /// What holds at the end.
    fn end(mut self, ended: Ended, stage: &mut Stage<'_>) -> Result<Tally, String> {
        let fatal = self.faults.is_fatal();
        match (&ended, fatal, self.closing) {
            (Ended::Fatal(_), true, _) | (Ended::Drained, false, true) => {}
            _ => return Err(format!("ended as {ended:?}; fatal faults: {fatal}")),
        }
        self.tally.fatal_ends += u64::from(fatal);
        self.worker.end(ended);
        let stats = self.handle.stats();
        let count = |c: &std::sync::atomic::AtomicU64| c.load(std::sync::atomic::Ordering::Relaxed);
        self.tally.preemptions = count(&stats.preemptions);
        self.tally.cache_hits = count(&stats.cached_tokens);
        self.tally.evictions = count(&stats.cache_evictions);
        self.tally.awaited = count(&stats.cache_awaited);
        self.tally.parts = self.faults.parts();
        self.tally.steps = self.faults.steps();
        self.tally.tokens = count(&stats.generated_tokens);
        self.tally.draft_tokens = count(&stats.draft_tokens);
        self.tally.accepted_tokens = count(&stats.accepted_tokens);
        if stats.kv_usage() > 0.0 || self.handle.queued() != (0, 0) || self.handle.live() != 0 {
            return Err("something is left in an engine that ended".to_owned());
        }
        let verdict = client::Verdict { faults: &self.faults, stopped: self.stopped };
        for client in self.crowd.into_clients() {
            client.judge(stage, &verdict, &mut self.tally)?;
        }
        Ok(self.tally)
    }
}

/// The id of the n-th client's request.
fn request_id(mark: u32) -> RequestId {
    RequestId(u64::from(mark))
}

type Clients = Vec<Client>;

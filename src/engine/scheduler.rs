//! Who gets how many tokens of the next step.
//!
//! There is no phase of prompts and phase of answers: every sequence has tokens that the model has
//! not seen, and each step hands out one budget of tokens. Sequences with one token to go come first
//! (those that answer), prompts take chunks of the rest, as many as [`budget`] says they wait for:
//! the first in line at most half, then the shortest. Where too little fits into a step, a chunk goes
//! through its layers in several ([`share`]).

mod budget;
mod fairness;
mod share;
mod waiting;

use std::collections::BTreeMap;
use std::time::Duration;

use budget::{Load, StepCost};
use fairness::{Fairness, Rank};
use share::{Demand, Left};
use waiting::{Spot, Turn, Waiting};

use super::block_manager::BlockManager;
use super::message::{RequestId, Tenant};
use super::sequence::{Chunk, Sequence, Stage};
use crate::backend::{BLOCK_TOKENS, BlockId};

/// The most events that one sequence yields in a step, beside those of drafts: scored positions, a
/// token, the end.
pub(super) const EVENTS_A_STEP: usize = 3;

/// KV blocks that hold `tokens` tokens.
pub(super) fn blocks_needed(tokens: usize) -> usize {
    tokens.div_ceil(BLOCK_TOKENS)
}

/// How many events the clients' channels can take in this step.
pub(super) trait Room {
    fn left(&self, request: RequestId) -> usize;
    /// There is room for so many events that starting a sequence is worth its prompt.
    fn is_ready(&self, request: RequestId) -> bool;
    fn take(&mut self, request: RequestId, events: usize);
}

/// What a step may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) sequences: usize,
    pub(super) tokens: usize,
    /// Prompts take less than `tokens` while somebody waits for his next token.
    pub(super) by_time: bool,
    pub(super) logit_rows: usize,
    /// Tokens of a chunk that does not begin its sequence.
    pub(super) later_tokens: usize,
    /// Layers that a chunk can stop between.
    pub(super) layers: usize,
    /// Drafts are computed while at most so many answer, and nobody reads a prompt.
    pub(super) speculating: usize,
}

/// One sequence's share of a step: `chunk.tokens` tokens from position `start`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Work {
    pub(super) arrival: u64,
    pub(super) request: RequestId,
    pub(super) start: usize,
    pub(super) chunk: Chunk,
    /// The layers that it goes through now, if not all.
    pub(super) stage: Option<Stage>,
}

/// All sequences, and the blocks that they hold.
#[derive(Debug)]
pub(super) struct Scheduler {
    /// None holds blocks.
    waiting: Waiting,
    /// By arrival; each holds blocks for all of its tokens, or for all but the newest.
    running: Vec<Sequence>,
    blocks: BlockManager,
    limits: Limits,
    cost: StepCost,
    fairness: Fairness,
    /// Steps that were planned since the start.
    steps: u64,
    /// Shares handed out since the start.
    turns: u64,
    preemptions: u64,
    plan: Vec<Work>,
    /// Indices into `running`, reused.
    order: Vec<usize>,
}

impl Scheduler {
    pub(super) fn new(limits: Limits, blocks: BlockManager) -> Self {
        let limits = Limits {
            sequences: limits.sequences.max(1),
            tokens: limits.tokens.max(1),
            logit_rows: limits.logit_rows.max(1),
            later_tokens: limits.later_tokens.max(1),
            ..limits
        };
        Self {
            waiting: Waiting::default(),
            running: Vec::new(),
            blocks,
            limits,
            cost: StepCost::new(),
            fairness: Fairness::default(),
            steps: 0,
            turns: 0,
            preemptions: 0,
            plan: Vec::new(),
            order: Vec::new(),
        }
    }

    /// Queues a sequence; the caller numbers them in order of arrival.
    pub(super) fn add(&mut self, mut sequence: Sequence) {
        self.fairness.enter(&mut sequence, self.steps);
        self.blocks.prepare(&mut sequence);
        self.waiting.insert(sequence);
    }

    /// Decides the next step. The plan is empty if nobody can have a part in it.
    pub(super) fn schedule(&mut self, room: &mut impl Room) -> &[Work] {
        self.steps += 1;
        for sequence in &mut self.running {
            self.fairness.settle(sequence);
        }
        loop {
            self.admit(room);
            self.share_out(room);
            let nobody = self.plan.is_empty();
            self.secure_blocks();
            if nobody || !self.plan.is_empty() {
                return &self.plan;
            }
            // All that had a share were preempted for want of blocks: somebody else's turn.
        }
    }

    /// Starts waiting sequences by rank, as long as there are places and blocks. Those whose client
    /// takes no events are passed over, and make room if they run; so are those whose prefix is being
    /// computed just now, because they will find it when it is.
    fn admit(&mut self, room: &impl Room) {
        while let Some(next) = self.next_in_line(room) {
            if self.can_admit(next) {
                self.start(next);
            } else if !self.preempt_stalled(room) && !self.preempt_of_many(next.tenant()) {
                return;
            }
        }
    }

    fn next_in_line(&mut self, room: &impl Room) -> Option<Spot> {
        let Self { waiting, running, blocks, fairness, .. } = self;
        waiting.next(fairness, |s| {
            if !room.is_ready(s.request) {
                return Turn::Stalled;
            }
            let Some(owner) = awaited(s, blocks, running) else { return Turn::Ready };
            s.awaited = true;
            // It works for `s` as well now, and must not stand behind those that `s` comes before.
            if owner.namespace.tenant == s.namespace.tenant {
                owner.due = owner.due.min(s.due);
            }
            Turn::Awaits
        })
    }

    fn rank(&self, sequence: &Sequence) -> Rank {
        self.fairness.rank(sequence)
    }

    /// A place, and blocks for all of its tokens, with one to spare for each that runs already: else
    /// it would be preempted as soon as they grow, and its prompt computed for nothing.
    fn can_admit(&self, next: Spot) -> bool {
        let running = self.running.len();
        let fits = |s| running < self.limits.sequences && self.blocks.can_start(s, running);
        self.waiting.get(next).is_some_and(fits)
    }

    fn start(&mut self, next: Spot) {
        let Some(mut sequence) = self.waiting.remove(next) else { return };
        self.blocks.start(&mut sequence);
        sequence.paused = false;
        self.fairness.settle(&mut sequence);
        let at = self.running.partition_point(|s| s.arrival < sequence.arrival);
        self.running.insert(at, sequence);
    }

    /// Hands out the step's tokens and rows of logits. When those that answer would take all of
    /// them, everybody takes turns: who waited longest goes first.
    fn share_out(&mut self, room: &mut impl Room) {
        let demand = Demand::of(&self.running);
        let answering = demand.answering;
        self.put_in_order(answering >= self.limits.tokens.min(self.limits.logit_rows));
        let wait = self.running.len() - answering + self.waiting.len();
        let mut left = Left::new(&self.limits, &demand, &self.cost, wait);
        let speculates = demand.prompts == 0 && answering <= self.limits.speculating;
        self.plan.clear();
        for &at in &self.order {
            let sequence = &mut self.running[at];
            let Sequence { arrival, request, computed: start, .. } = *sequence;
            let Some((mut chunk, stage)) = left.chunk(sequence) else { continue };
            let room_left = room.left(request);
            if speculates || !sequence.forced.is_empty() {
                // A row and an event at least stay for each of the others.
                let spare = left.tokens.min(left.rows).min(room_left / EVENTS_A_STEP);
                sequence.speculate(&mut chunk, spare.saturating_sub(answering), speculates);
            }
            sequence.paused = room_left < chunk.events;
            if sequence.paused {
                continue;
            }
            room.take(request, chunk.events);
            left.take(sequence, chunk, stage);
            self.turns += 1;
            sequence.last_turn = self.turns;
            self.plan.push(Work { arrival, request, start, chunk, stage });
        }
    }

    /// Those that answer, then the prompt that is first in line, then the shortest.
    fn put_in_order(&mut self, scarce: bool) {
        self.order.clear();
        self.order.extend(0..self.running.len());
        let running = &self.running;
        let prompts = running.iter().filter(|s| s.pending() > 1);
        let first = prompts.min_by_key(|s| (s.under_way.is_none(), self.fairness.rank(s)));
        let first = first.map(|s| s.arrival);
        self.order.sort_unstable_by_key(|&at| {
            let s = &running[at];
            let answers = s.pending() == 1;
            let left = if answers || Some(s.arrival) == first { 0 } else { s.pending() };
            if scarce || answers { (0, s.last_turn) } else { (left + 1, s.arrival) }
        });
    }

    /// Takes in how long the step of `plan` took.
    pub(super) fn learn(&mut self, plan: &[Work], took: Duration) {
        let mut load = Load::default();
        for work in plan {
            load.add(Load::of_work(work.start, work.chunk.tokens, work.stage));
        }
        self.cost.learn(load, took.as_secs_f64() * 1e3);
    }

    /// Gives each sequence of the plan the blocks of its tokens, by rank, by preempting the last.
    /// What is preempted comes later in this order, or is the one that needs the blocks.
    fn secure_blocks(&mut self) {
        let mut plan = std::mem::take(&mut self.plan);
        plan.sort_unstable_by_key(|work| self.get(work.arrival).map(|s| self.rank(s)));
        plan.retain(|work| self.secure(work));
        self.plan = plan;
    }

    fn secure(&mut self, work: &Work) -> bool {
        while let Some(at) = self.find(work.arrival) {
            let table = &mut self.running[at].blocks;
            let missing = blocks_needed(work.start + work.chunk.tokens).saturating_sub(table.len());
            if self.blocks.allocate(missing, table) {
                return true;
            }
            self.preempt_last();
        }
        false
    }

    /// Preempts a paused sequence rather than one that makes progress, else the last by rank.
    fn preempt_last(&mut self) {
        let key = |at: &usize| (self.running[*at].paused, self.rank(&self.running[*at]));
        if let Some(at) = (0..self.running.len()).max_by_key(key) {
            self.preempt(at);
        }
    }

    /// Makes room for a waiting sequence of `tenant`, which runs nothing: of the tenant that runs most,
    /// and was given more, the last goes back. One of each tenant's stays, so all move on.
    fn preempt_of_many(&mut self, tenant: Tenant) -> bool {
        let mut runs: BTreeMap<Tenant, usize> = BTreeMap::new();
        for s in &self.running {
            *runs.entry(s.namespace.tenant).or_default() += 1;
        }
        if runs.contains_key(&tenant) {
            return false;
        }
        let served = self.fairness.served(tenant);
        let victims = self.running.iter().enumerate().filter_map(|(at, s)| {
            let runs = runs[&s.namespace.tenant];
            let many = runs > 1 && self.fairness.served(s.namespace.tenant) > served;
            many.then(|| (runs, self.rank(s), at))
        });
        let last = victims.max().map(|(.., at)| at);
        if let Some(at) = last {
            self.preempt(at);
        }
        last.is_some()
    }

    /// Sends the newest whose client still takes no events back; false if there is none.
    fn preempt_stalled(&mut self, room: &impl Room) -> bool {
        let stalled = |s: &Sequence| s.paused && room.left(s.request) < EVENTS_A_STEP;
        let newest = self.running.iter().rposition(stalled);
        if let Some(at) = newest {
            self.preempt(at);
        }
        newest.is_some()
    }

    /// Sends a sequence back to the queue. What nobody else needs the blocks of stays cached; the rest
    /// is computed again later, with the same bits.
    fn preempt(&mut self, at: usize) {
        let mut sequence = self.running.remove(at);
        self.blocks.take_back(&mut sequence);
        sequence.under_way = None;
        sequence.preemptions += 1;
        self.preemptions += 1;
        self.waiting.insert(sequence);
    }

    fn find(&self, arrival: u64) -> Option<usize> {
        self.running.binary_search_by_key(&arrival, |s| s.arrival).ok()
    }

    /// The running sequence of that number.
    pub(super) fn get(&self, arrival: u64) -> Option<&Sequence> {
        self.find(arrival).map(|at| &self.running[at])
    }

    pub(super) fn get_mut(&mut self, arrival: u64) -> Option<&mut Sequence> {
        self.find(arrival).map(|at| &mut self.running[at])
    }

    /// Lets others find what a running sequence has computed.
    pub(super) fn publish(&mut self, arrival: u64) {
        if let Some(at) = self.find(arrival) {
            self.blocks.publish(&mut self.running[at]);
        }
    }

    /// What a request's sequences have computed is in doubt: nobody else shall find it.
    pub(super) fn forget(&mut self, request: RequestId) {
        let blocks = &mut self.blocks;
        self.running.iter().filter(|s| s.request == request).for_each(|s| blocks.forget(s));
    }

    /// Takes a running sequence that ended out, and frees its blocks.
    pub(super) fn finish(&mut self, arrival: u64) -> Option<Sequence> {
        let mut sequence = self.running.remove(self.find(arrival)?);
        self.fairness.leave(&mut sequence);
        self.blocks.take_back(&mut sequence);
        Some(sequence)
    }

    /// Takes out all sequences of a request, running or not, and frees their blocks.
    pub(super) fn remove(&mut self, request: RequestId) {
        let (blocks, fairness) = (&mut self.blocks, &mut self.fairness);
        for mut s in self.waiting.extract(|s| s.request == request) {
            fairness.leave(&mut s);
        }
        self.running.retain_mut(|s| {
            let stays = s.request != request;
            if !stays {
                fairness.leave(s);
                blocks.take_back(s);
            }
            stays
        });
    }

    /// Blocks that were freed since the last call.
    pub(super) fn take_released(&mut self) -> impl Iterator<Item = BlockId> + '_ {
        self.blocks.take_released()
    }

    /// Makes all blocks free, where no sequence holds any.
    pub(super) fn rebuild_blocks(&mut self) {
        self.blocks.reset();
    }

    pub(super) fn blocks(&self) -> &BlockManager {
        &self.blocks
    }

    pub(super) fn running(&self) -> usize {
        self.running.len()
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Preemptions since the start.
    pub(super) fn preemptions(&self) -> u64 {
        self.preemptions
    }

    /// The blocks are held by exactly the running sequences; waiting ones hold none.
    pub(super) fn check_integrity(&self) -> Result<(), String> {
        self.blocks.check_integrity(&self.running)?;
        match self.waiting.iter().find(|s| !s.blocks.is_empty()) {
            Some(s) => Err(format!("sequence {} waits and holds blocks", s.arrival)),
            None => Ok(()),
        }
    }
}

/// The sequence that is computing the prefix of `s`, and goes on with it.
fn awaited<'a>(
    s: &mut Sequence,
    blocks: &BlockManager,
    running: &'a mut [Sequence],
) -> Option<&'a mut Sequence> {
    let arrival = blocks.awaited(s)?;
    let at = running.binary_search_by_key(&arrival, |s| s.arrival).ok()?;
    Some(&mut running[at]).filter(|owner| !owner.paused)
}

const _: () = assert!(EVENTS_A_STEP < super::MIN_EVENT_CAPACITY);

#[cfg(test)]
mod tests;

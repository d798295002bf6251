//! The engine as a state machine: commands in, one step at a time, events out. It has no thread, no
//! clock and no random numbers of its own.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Settings;
use super::admission::Accepted;
use super::block_manager::BlockManager;
use super::constraint::OutOfBounds;
use super::handle::{Ended, Shared, Stats};
use super::masks::{Job, Masker, UnderWay};
use super::message::{
    Command, Event, FailureKind, FinishReason, RequestId, Submission, TokenEvent,
};
use super::outcome::{Outcome, Reader};
use super::prefix_cache::Hashing;
use super::request::{Request, Requests};
use super::sampler::Sampler;
use super::scheduler::{Limits, Scheduler, Work};
use super::sequence::Sequence;
use crate::backend::Batch;
use crate::model::{Model, ModelSpec, Part, panic_text};

/// So many failed steps without a good one between them mean that the next will fail too.
const FAILED_STEPS_MAX: u32 = 3;

/// What a call of [`Engine::step`] came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Progress {
    /// A step was computed; there may be more to do at once.
    Stepped,
    /// There are requests, but all of their clients must take events first.
    Blocked,
    /// Nothing to do until a command comes.
    Idle,
    Ended(Ended),
}

/// Model, sequences and clients.
pub(super) struct Engine {
    model: Box<dyn Model>,
    spec: ModelSpec,
    scheduler: Scheduler,
    sampler: Sampler,
    masker: Masker,
    requests: Requests,
    shared: Arc<Shared>,
    client_stall_timeout: Duration,
    next_arrival: u64,
    /// Takes no new requests, and ends when the last one has.
    draining: bool,
    failed_steps: u32,
    plan: Vec<Work>,
    outcomes: Vec<Result<Outcome, FailureKind>>,
}

impl Engine {
    /// `secret` keys the hashes of the prefix cache.
    pub(super) fn new(
        model: Box<dyn Model>,
        settings: &Settings,
        shared: Arc<Shared>,
        secret: [u8; 32],
    ) -> Self {
        let spec = model.spec().clone();
        let limits = Limits {
            sequences: if spec.one_at_a_time { 1 } else { settings.max_num_seqs },
            tokens: settings.max_num_batched_tokens.unwrap_or(usize::MAX).min(spec.max_rows),
            by_time: settings.max_num_batched_tokens.is_none(),
            logit_rows: spec.max_logit_rows,
            later_tokens: spec.max_later_rows,
            layers: spec.layers,
            speculating: if spec.one_at_a_time { 0 } else { settings.max_speculating_seqs },
        };
        shared.stats.kv_blocks_total.store(spec.kv_blocks, Ordering::Relaxed);
        let hashing = Hashing { secret, bits: model.prefix_hash_bits() };
        let caches = settings.prefix_caching && !spec.one_at_a_time;
        let blocks = BlockManager::new(spec.kv_blocks, caches.then_some(hashing));
        Self {
            scheduler: Scheduler::new(limits, blocks),
            sampler: Sampler::new(spec.vocab),
            masker: Masker::default(),
            model,
            spec,
            requests: Requests::default(),
            shared,
            client_stall_timeout: settings.client_stall_timeout,
            next_arrival: 0,
            draining: false,
            failed_steps: 0,
            plan: Vec::new(),
            outcomes: Vec::new(),
        }
    }

    pub(super) fn handle(&mut self, command: Command) {
        match command {
            // Dropping it tells the client that the server is shutting down.
            Command::Submit(accepted) if self.draining => drop(accepted),
            Command::Submit(accepted) => self.accept(accepted),
            Command::Abort(id) => self.abort(id),
            Command::Drain => self.draining = true,
            Command::Stop => {
                self.draining = true;
                self.fail_all(FailureKind::ShuttingDown);
            }
        }
    }

    /// One step: let go of clients that left, decide, compute, tell.
    pub(super) fn step(&mut self) -> Progress {
        self.beat();
        self.let_go();
        let mut plan = std::mem::take(&mut self.plan);
        plan.clear();
        plan.extend_from_slice(self.scheduler.schedule(&mut self.requests));
        let progress = if plan.is_empty() {
            self.rest()
        } else {
            let began = self.begin(&plan);
            count(&self.shared.stats.steps, 1);
            match self.compute(&plan) {
                Ok(()) => self.tell(&plan, began),
                Err(reason) => self.fail_step(&plan, &reason),
            }
        };
        self.plan = plan;
        self.beat();
        progress
    }

    fn accept(&mut self, mut accepted: Accepted) {
        let Submission { id, namespace, priority, .. } = accepted.submission;
        let choices = std::mem::take(&mut accepted.submission.choices);
        let vocab = self.spec.vocab;
        let is_sound = |prompt: &[u32]| {
            !prompt.is_empty()
                && prompt.len() <= self.spec.max_context
                && prompt.iter().all(|&token| (token as usize) < vocab)
        };
        if self.requests.0.contains_key(&id) || !choices.iter().all(|c| is_sound(&c.prompt)) {
            tracing::error!(request = id.0, "a request that validation should have refused");
            accepted.terminal.send(Event::Failed(FailureKind::Step));
            return;
        }
        let mut request = Request::new(accepted);
        request.choices_left = choices.len();
        self.requests.0.insert(id, request);
        if choices.is_empty() {
            self.finish(id);
        }
        for (index, choice) in choices.into_iter().enumerate() {
            let arrival = self.next_arrival;
            self.next_arrival += 1;
            let context = self.spec.max_context;
            let sequence = Sequence::new(arrival, id, index as u32, choice, context);
            self.scheduler.add(sequence.of(namespace, priority));
        }
    }

    /// Aborts the requests whose client left or takes nothing, before they have a part in a step.
    fn let_go(&mut self) {
        let now = self.shared.clock.now();
        let timeout = self.client_stall_timeout;
        let (mut left, mut stalled) = (Vec::new(), Vec::new());
        for (&id, request) in &mut self.requests.0 {
            if request.client_left() {
                left.push(id);
            } else if request.look(now).is_some_and(|since| now.saturating_sub(since) >= timeout) {
                stalled.push(id);
            }
        }
        for id in left {
            self.abort(id);
        }
        for id in stalled {
            self.fail(id, FailureKind::ClientStalled);
        }
    }

    /// Nobody can have a part in a step.
    fn rest(&mut self) -> Progress {
        if !self.requests.0.is_empty() {
            return Progress::Blocked;
        }
        if let Err(fault) = self.scheduler.check_integrity() {
            tracing::error!(fault, "kv blocks do not add up; starting over with all of them free");
            debug_assert!(false, "{fault}");
            self.scheduler.rebuild_blocks();
        }
        if self.draining { Progress::Ended(Ended::Drained) } else { Progress::Idle }
    }

    /// Starts the clocks of those who have their first part in a step, and tells the time.
    fn begin(&mut self, plan: &[Work]) -> Duration {
        let now = self.shared.clock.now();
        for work in plan {
            if let Some(request) = self.requests.0.get_mut(&work.request)
                && request.begin(now)
            {
                count(&self.shared.stats.prompt_tokens, request.prompt_tokens);
            }
        }
        now
    }

    /// Runs the model and reads its logits. A panic in there is an error like any other.
    fn compute(&mut self, plan: &[Work]) -> Result<(), String> {
        let (masked, under_way) = self.begin_masks(plan);
        let Self { model, scheduler, sampler, outcomes, spec, .. } = self;
        scheduler.take_released().for_each(|block| model.release(block));
        outcomes.clear();
        let (mut constraints, mut masks) = (Vec::new(), BTreeMap::new());
        let sequences: Vec<&Sequence> =
            plan.iter().filter_map(|work| scheduler.get(work.arrival)).collect();
        let (mut slices, mut part) = (Vec::with_capacity(plan.len()), None);
        for (work, s) in plan.iter().zip(&sequences) {
            let slice = s.slice(work.start, work.chunk);
            match work.stage {
                Some(stage) => part = Some(Part { slice, layers: stage.from..stage.to }),
                None => slices.push(slice),
            }
        }
        let run = || {
            part.iter().try_for_each(|part| model.advance(part)).map_err(|e| e.to_string())?;
            let logits = model.forward(&Batch { slices: &slices }).map_err(|e| e.to_string())?;
            for (&arrival, done) in masked.iter().zip(under_way.finish()) {
                let (constraint, mask) = match done {
                    Some(done) => (Some(done.constraint), done.masks),
                    None => (None, Err(OutOfBounds)),
                };
                constraints.push((arrival, constraint));
                masks.insert(arrival, mask);
            }
            let mut reader = Reader { sampler, logits, end_tokens: &spec.end_tokens, row: 0 };
            let shares = plan.iter().zip(&sequences);
            outcomes.extend(shares.map(|(work, s)| reader.read(work, s, masks.get(&work.arrival))));
            Ok(())
        };
        let ran = catch_unwind(AssertUnwindSafe(run))
            .unwrap_or_else(|panic| Err(format!("panic: {}", panic_text(&*panic))));
        for (arrival, constraint) in constraints {
            if let Some(sequence) = scheduler.get_mut(arrival) {
                sequence.constraint = constraint;
            }
        }
        ran
    }

    /// Sends off the constraints of those who will choose a token, and says whose they are.
    fn begin_masks(&mut self, plan: &[Work]) -> (Vec<u64>, UnderWay) {
        let (mut masked, mut jobs) = (Vec::new(), Vec::new());
        for work in plan {
            let Some(s) = self.scheduler.get_mut(work.arrival) else { continue };
            let (drafts, forced) = (work.chunk.drafts, s.forced.len());
            // Nothing is chosen where all that comes is forced.
            if !s.samples(work.start, work.chunk) || forced > drafts {
                continue;
            }
            let drafts = s.drafted(work.chunk).to_vec();
            if let Some(constraint) = s.constraint.take() {
                masked.push(work.arrival);
                jobs.push(Job { constraint, drafts, forced });
            }
        }
        (masked, self.masker.start(jobs))
    }

    /// Moves the sequences on and sends what the step yielded. What is not finite is an error of the
    /// sequences that it belongs to.
    fn tell(&mut self, plan: &[Work], began: Duration) -> Progress {
        self.failed_steps = 0;
        let now = self.shared.clock.now();
        self.scheduler.learn(plan, now.saturating_sub(began));
        let mut outcomes = std::mem::take(&mut self.outcomes);
        let mut bad = 0;
        for (work, outcome) in plan.iter().zip(outcomes.drain(..)) {
            match outcome {
                Ok(outcome) => self.advance(work, outcome, now),
                Err(FailureKind::Constraint) => self.fail(work.request, FailureKind::Constraint),
                Err(kind) => {
                    bad += 1;
                    // Where they come from may be cached since a step that showed no logits.
                    self.scheduler.forget(work.request);
                    self.fail(work.request, kind);
                }
            }
        }
        if bad > 0 {
            tracing::error!(sequences = bad, "the model yielded values that are not finite");
            count(&self.shared.stats.step_failures, 1);
        }
        self.outcomes = outcomes;
        Progress::Stepped
    }

    fn advance(&mut self, work: &Work, outcome: Outcome, now: Duration) {
        // Not there any more if another choice of its request failed in this step.
        let Some(sequence) = self.scheduler.get_mut(work.arrival) else { return };
        let Some(request) = self.requests.0.get_mut(&work.request) else { return };
        let stats = &self.shared.stats;
        let choice = sequence.choice;
        sequence.pass(work.chunk, work.stage);
        let mut sent = true;
        if let Some(logprobs) = outcome.prompt {
            sequence.scored += logprobs.len();
            sent &= request.send(Event::Prompt { choice, logprobs });
        }
        let agreed = outcome.tokens.len().saturating_sub(1);
        if work.chunk.drafts > 0 && sequence.forced.is_empty() {
            sequence.drafter.judge(agreed);
            count(&stats.drafts, 1);
            count(&stats.draft_tokens, work.chunk.drafts as u64);
            count(&stats.accepted_tokens, agreed as u64);
        }
        let (mut ended, chose) = (None, !outcome.tokens.is_empty());
        if outcome.tokens.is_empty() && sequence.pending() == 0 {
            ended = Some(FinishReason::Length);
        }
        for sampled in outcome.tokens {
            // The one before was drafted, and so its keys and values are there.
            sequence.computed += sequence.pending();
            let token = sampled.token;
            let (is_end, reason) = match sequence.push(token, &self.spec.end_tokens) {
                Ok(came) => came,
                Err(kind) => return self.fail(work.request, kind),
            };
            let logprobs = sampled.logprobs;
            sent &= request.send(Event::Token(TokenEvent { choice, token, logprobs, is_end }));
            request.token_at(now);
            count(&stats.generated_tokens, 1);
            ended = reason;
            if ended.is_some() {
                break;
            }
        }
        if let Some(reason) = ended {
            sent &= request.send(Event::ChoiceFinished { choice, reason });
        } else if chose && let Err(kind) = sequence.look_ahead() {
            return self.fail(work.request, kind);
        }
        if !sent {
            // The scheduler counted the room; without it the client would miss a part of its answer.
            return self.fail(work.request, FailureKind::ClientStalled);
        }
        self.scheduler.publish(work.arrival);
        if let Some(reason) = ended {
            self.finish_choice(work, reason);
        }
    }

    fn finish_choice(&mut self, work: &Work, reason: FinishReason) {
        let stats = &self.shared.stats;
        count(
            match reason {
                FinishReason::Stop => &stats.finished_stop,
                FinishReason::Length => &stats.finished_length,
            },
            1,
        );
        let Some(sequence) = self.scheduler.finish(work.arrival) else { return };
        let Some(request) = self.requests.0.get_mut(&work.request) else { return };
        request.preemptions += sequence.preemptions;
        if sequence.sample == 0 {
            request.cached_tokens += sequence.cached_tokens.unwrap_or(0) as u32;
        }
        request.choices_left -= 1;
        if request.choices_left == 0 {
            self.finish(work.request);
        }
    }

    fn finish(&mut self, id: RequestId) {
        if let Some(request) = self.requests.0.remove(&id) {
            let summary = request.summary();
            self.beat();
            request.terminal.send(Event::Finished(summary));
        }
    }

    fn abort(&mut self, id: RequestId) {
        if let Some(request) = self.requests.0.remove(&id) {
            self.scheduler.remove(id);
            count(&self.shared.stats.finished_abort, 1);
            request.terminal.abandon();
        }
    }

    fn fail(&mut self, id: RequestId, kind: FailureKind) {
        if let Some(request) = self.requests.0.remove(&id) {
            self.scheduler.remove(id);
            let stats = &self.shared.stats;
            count(
                match kind {
                    FailureKind::ClientStalled => &stats.finished_abort,
                    FailureKind::Step | FailureKind::Constraint | FailureKind::ShuttingDown => {
                        &stats.finished_error
                    }
                },
                1,
            );
            self.beat();
            request.terminal.send(Event::Failed(kind));
        }
    }

    pub(super) fn fail_all(&mut self, kind: FailureKind) {
        let ids: Vec<RequestId> = self.requests.0.keys().copied().collect();
        for id in ids {
            self.fail(id, kind);
        }
    }

    /// Fails the requests that had a part in the step, and no other.
    fn fail_step(&mut self, plan: &[Work], reason: &str) -> Progress {
        tracing::error!(reason, sequences = plan.len(), "a step failed");
        count(&self.shared.stats.step_failures, 1);
        for work in plan {
            self.fail(work.request, FailureKind::Step);
        }
        self.sampler = Sampler::new(self.spec.vocab);
        self.failed_steps += 1;
        let recovered = catch_unwind(AssertUnwindSafe(|| self.model.recover())).is_ok();
        if recovered && self.failed_steps < FAILED_STEPS_MAX {
            return Progress::Stepped;
        }
        self.draining = true;
        self.fail_all(FailureKind::Step);
        let failed = self.failed_steps;
        Progress::Ended(Ended::Fatal(format!("{failed} steps in a row failed, the last: {reason}")))
    }

    /// Shows that the engine is alive, and what it holds.
    fn beat(&self) {
        let stats: &Stats = &self.shared.stats;
        stats.running.store(self.scheduler.running(), Ordering::Relaxed);
        stats.waiting.store(self.scheduler.waiting(), Ordering::Relaxed);
        stats.kv_blocks_held.store(self.scheduler.blocks().held(), Ordering::Relaxed);
        stats.preemptions.store(self.scheduler.preemptions(), Ordering::Relaxed);
        let cache = self.scheduler.blocks().counts();
        stats.cache_queries.store(cache.queried_tokens, Ordering::Relaxed);
        stats.cached_tokens.store(cache.hit_tokens, Ordering::Relaxed);
        stats.cache_evictions.store(cache.evicted_blocks, Ordering::Relaxed);
        stats.cache_awaited.store(cache.awaited, Ordering::Relaxed);
        let now_ms = self.shared.clock.now().as_millis() as u64;
        stats.heartbeat_ms.store(now_ms, Ordering::Relaxed);
        // After the heartbeat: who sees that there is work sees a heartbeat that is new.
        stats.busy.store(self.requests.0.len(), Ordering::Release);
    }

    /// Who had a part in the last step.
    #[cfg(any(test, feature = "fake-model"))]
    pub(super) fn last_plan(&self) -> &[Work] {
        &self.plan
    }

    /// Blocks are held by the running sequences and nobody else.
    #[cfg(any(test, feature = "fake-model"))]
    pub(super) fn check_integrity(&self) -> Result<(), String> {
        self.scheduler.check_integrity()
    }
}

fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

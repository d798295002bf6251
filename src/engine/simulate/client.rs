//! The crowd: what they ask, how they behave, what they were told.

use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::mpsc::{Receiver, channel};

use super::dice::Dice;
use super::model::FaultLog;
use super::plan::{ChoicePlan, Themes, draw_choices};
use super::{Clients, Stage, Tally, request_id};
use crate::engine::MIN_EVENT_CAPACITY;
use crate::engine::handle::EngineHandle;
use crate::engine::message::{
    Event, FailureKind, FinishReason, Logprobs, Namespace, Priority, Submission, Tenant, TokenEvent,
};
use crate::engine::scheduler::{EVENTS_A_STEP, blocks_needed};
use crate::engine::sequence::tokens_at_most;

/// How a client treats its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// Takes everything each turn.
    Reads,
    /// Takes a few events now and then.
    Dawdles { every: usize },
    /// Takes nothing any more after so many events.
    Stalls { after: usize },
    /// Hangs up so many turns after submission.
    Leaves { after: usize },
    /// Sends an abort so many turns after submission, and goes on reading.
    Aborts { after: usize },
}

/// What was said about one choice.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Transcript {
    pub(super) prompt: Vec<Option<Logprobs>>,
    pub(super) tokens: Vec<TokenEvent>,
    pub(super) finished: Option<FinishReason>,
}

/// Where a request stands, as its client sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Not submitted, or not accepted.
    Outside,
    Accepted,
    /// The client hung up.
    Left,
    /// An abort was sent.
    Aborted,
}

/// One request and who sent it.
#[derive(Debug)]
pub(super) struct Client {
    number: u32,
    priority: Priority,
    arrival: usize,
    namespace: Namespace,
    manner: Manner,
    capacity: usize,
    choices: Vec<ChoicePlan>,
    events: Option<Receiver<Event>>,
    submitted_at: Option<usize>,
    standing: Standing,
    events_read: usize,
    transcripts: Vec<Transcript>,
    terminal: Option<Result<(), FailureKind>>,
    closed: bool,
}

/// All clients of a life.
pub(super) struct Crowd {
    clients: Clients,
}

/// What the end of a life is judged by.
pub(super) struct Verdict<'a> {
    pub(super) faults: &'a FaultLog,
    pub(super) stopped: bool,
}

impl Crowd {
    pub(super) fn draw(dice: &mut Dice, stage: &mut Stage<'_>) -> Result<Self, String> {
        let count = dice.up_to(stage.scale.requests.0, stage.scale.requests.1);
        let rush = if stage.scale.roomy { 0 } else { dice.one_of(&[0, 5, 60, 400]) };
        let themes = Themes::draw(dice, stage.spec);
        let mut clients: Clients = Vec::with_capacity(count);
        for number in 1..=count as u32 {
            let earlier = dice.up_to(0, clients.len());
            let before = clients.get(earlier).filter(|_| dice.chance(0.3));
            let (arrival, namespace) = match before {
                Some(before) => (before.arrival + dice.up_to(0, rush), before.namespace),
                None => (dice.up_to(0, rush), themes.namespace(dice)),
            };
            let choices = draw_choices(&themes, before.map(|c| &c.choices[0]), dice, stage)?;
            clients.push(Client { arrival, namespace, ..Client::draw(number, choices, dice) });
        }
        Ok(Self { clients })
    }

    pub(super) fn due(&mut self, turn: usize) -> impl Iterator<Item = &mut Client> {
        self.clients.iter_mut().filter(move |c| c.arrival == turn)
    }

    pub(super) fn act(
        &mut self,
        turn: usize,
        handle: &EngineHandle,
        dice: &mut Dice,
    ) -> Result<(), String> {
        self.clients.iter_mut().try_for_each(|c| c.act(turn, handle, dice))
    }

    /// Accepted requests whose channel the engine still holds.
    pub(super) fn open(&self) -> impl Iterator<Item = &Client> {
        self.clients.iter().filter(|c| c.is_open())
    }

    pub(super) fn clients(&self) -> impl Iterator<Item = &Client> {
        self.clients.iter()
    }

    pub(super) fn is_done(&self) -> bool {
        self.clients.iter().all(|c| c.submitted_at.is_some() && !c.is_open())
    }

    pub(super) fn into_clients(self) -> Clients {
        self.clients
    }
}

impl Client {
    fn draw(number: u32, choices: Vec<ChoicePlan>, dice: &mut Dice) -> Self {
        let after = dice.up_to(0, 80);
        let manner = match dice.up_to(0, 11) {
            0..=5 => Manner::Reads,
            6..=7 => Manner::Dawdles { every: dice.up_to(1, 12) },
            8 => Manner::Stalls { after },
            9..=10 => Manner::Leaves { after },
            _ => Manner::Aborts { after },
        };
        let capacity = if dice.chance(0.5) { 64 } else { dice.up_to(MIN_EVENT_CAPACITY, 20) };
        Self {
            number,
            priority: Priority {
                request: dice.one_of(&[0, 0, 0, -1, 2, 100]),
                tenant: dice.one_of(&[0, 0, -8, 1]),
            },
            arrival: 0,
            namespace: Namespace::default(),
            manner,
            capacity,
            transcripts: choices.iter().map(|_| Transcript::default()).collect(),
            choices,
            events: None,
            submitted_at: None,
            standing: Standing::Outside,
            events_read: 0,
            terminal: None,
            closed: false,
        }
    }

    /// Blocks of the largest choice.
    pub(super) fn blocks_needed(&self, max_context: usize) -> usize {
        let blocks = |c: &ChoicePlan| blocks_needed(tokens_at_most(&c.choice(), max_context));
        self.choices.iter().map(blocks).max().unwrap_or(0)
    }

    pub(super) fn tenant(&self) -> Tenant {
        self.namespace.tenant
    }

    pub(super) fn prompt_tokens(&self) -> usize {
        self.choices.iter().filter(|c| c.sample == 0).map(|c| c.prompt.len()).sum()
    }

    pub(super) fn submission(&mut self) -> Submission {
        let (sender, receiver) = channel(self.capacity);
        self.events = Some(receiver);
        Submission {
            id: request_id(self.number),
            namespace: self.namespace,
            priority: self.priority,
            choices: self.choices.iter().map(ChoicePlan::choice).collect(),
            events: sender,
        }
    }

    pub(super) fn submitted(&mut self, turn: usize, accepted: bool) {
        self.submitted_at = Some(turn);
        if accepted {
            self.standing = Standing::Accepted;
        } else {
            self.events = None;
        }
    }

    fn is_open(&self) -> bool {
        self.standing != Standing::Outside
            && self.events.as_ref().is_some_and(|events| !events.is_closed())
    }

    /// The engine could start or go on with it, as far as its channel is concerned.
    pub(super) fn has_room(&self) -> bool {
        let held = self.events.as_ref().map_or(0, Receiver::len);
        // One place is kept for the terminal event.
        self.capacity - 1 - held >= EVENTS_A_STEP.max(self.capacity / 2)
    }

    /// A request that was aborted is gone after the turn that it was aborted in.
    pub(super) fn check_abort(&self) -> Result<(), String> {
        if self.standing == Standing::Aborted && self.is_open() {
            return Err(format!("aborted, but still in the engine: {self:?}"));
        }
        Ok(())
    }

    fn act(&mut self, turn: usize, handle: &EngineHandle, dice: &mut Dice) -> Result<(), String> {
        let Some(submitted_at) = self.submitted_at else { return Ok(()) };
        let age = turn - submitted_at;
        match self.manner {
            Manner::Dawdles { every } if age.is_multiple_of(every) => self.read(dice.up_to(1, 4)),
            Manner::Dawdles { .. } => Ok(()),
            Manner::Stalls { after } => self.read(after.saturating_sub(self.events_read)),
            Manner::Leaves { after } if age == after => {
                self.hang_up();
                // Some hang up without a word; for the others the guard sends an abort as well.
                if dice.chance(0.5) {
                    handle.abort(request_id(self.number));
                }
                Ok(())
            }
            Manner::Aborts { after } if age == after => {
                if self.standing == Standing::Accepted {
                    self.standing = Standing::Aborted;
                }
                handle.abort(request_id(self.number));
                Ok(())
            }
            Manner::Reads | Manner::Leaves { .. } | Manner::Aborts { .. } => self.read(usize::MAX),
        }
    }

    fn hang_up(&mut self) {
        self.events = None;
        if self.standing == Standing::Accepted {
            self.standing = Standing::Left;
        }
    }

    fn read(&mut self, at_most: usize) -> Result<(), String> {
        for _ in 0..at_most {
            let Some(events) = &mut self.events else { return Ok(()) };
            match events.try_recv() {
                Ok(event) => self.hear(event)?,
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => {
                    self.closed = true;
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Takes an event in, and checks that it may come here.
    fn hear(&mut self, event: Event) -> Result<(), String> {
        self.events_read += 1;
        if self.terminal.is_some() {
            return Err(format!("{event:?} after the end of {self:?}"));
        }
        let of = |choice: u32| choice as usize;
        let heard = match &event {
            Event::Prompt { choice, .. }
            | Event::ChoiceFinished { choice, .. }
            | Event::Token(TokenEvent { choice, .. }) => self.transcripts.get(of(*choice)),
            Event::Finished(_) | Event::Failed(_) => None,
        };
        let late = heard.is_some_and(|t| {
            t.finished.is_some() || (matches!(event, Event::Prompt { .. }) && !t.tokens.is_empty())
        });
        if late {
            return Err(format!("{event:?} comes too late for {self:?}"));
        }
        match event {
            Event::Prompt { choice, logprobs } => {
                self.transcripts[of(choice)].prompt.extend(logprobs);
            }
            Event::Token(token) => self.transcripts[of(token.choice)].tokens.push(token),
            Event::ChoiceFinished { choice, reason } => {
                self.transcripts[of(choice)].finished = Some(reason);
            }
            Event::Finished(_) => self.terminal = Some(Ok(())),
            Event::Failed(kind) => self.terminal = Some(Err(kind)),
        }
        Ok(())
    }

    /// Reads the rest, then compares all that was said with what had to be said.
    pub(super) fn judge(
        mut self,
        stage: &mut Stage<'_>,
        verdict: &Verdict<'_>,
        tally: &mut Tally,
    ) -> Result<(), String> {
        if self.standing == Standing::Outside {
            return Ok(());
        }
        if self.standing != Standing::Left {
            self.read(usize::MAX)?;
            if !self.closed {
                return Err(format!("the channel is open after the end: {self:?}"));
            }
        }
        self.judge_terminal(verdict, tally)?;
        for (plan, said) in self.choices.iter().zip(&self.transcripts) {
            tally.ruled_tokens += plan.rules.as_ref().map_or(0, |_| said.tokens.len() as u64);
            self.judge_choice(plan, said, stage)?;
        }
        Ok(())
    }

    fn judge_terminal(&self, verdict: &Verdict<'_>, tally: &mut Tally) -> Result<(), String> {
        let hit = verdict.faults.has_hit(request_id(self.number));
        let scores_only = self.choices.iter().any(|c| c.max_new == 0);
        let allowed = match self.terminal {
            // Rows that nobody reads (a prompt's last, where nothing is generated; those of forced tokens)
            // may be poisoned.
            Some(Ok(())) => !hit || scores_only || self.choices.iter().any(|c| c.rules.is_some()),
            Some(Err(FailureKind::Step)) => {
                verdict.faults.may_have_hit(request_id(self.number)) || verdict.faults.is_fatal()
            }
            Some(Err(FailureKind::Constraint)) => {
                self.choices.iter().any(|c| c.rules.as_ref().is_some_and(|rules| rules.fails))
            }
            Some(Err(FailureKind::ShuttingDown)) => verdict.stopped,
            Some(Err(FailureKind::ClientStalled)) => {
                matches!(self.manner, Manner::Stalls { .. } | Manner::Dawdles { .. })
            }
            None => matches!(self.standing, Standing::Left | Standing::Aborted),
        };
        let counter = match self.terminal {
            Some(Ok(())) => &mut tally.finished,
            Some(Err(FailureKind::Step)) => &mut tally.failed_step,
            Some(Err(FailureKind::Constraint)) => &mut tally.failed_constraint,
            Some(Err(FailureKind::ShuttingDown)) => &mut tally.failed_shutdown,
            Some(Err(FailureKind::ClientStalled)) => &mut tally.failed_stalled,
            None => &mut tally.aborted,
        };
        *counter += 1;
        if allowed {
            return Ok(());
        }
        Err(format!("ended with {:?} (hit by a fault: {hit}): {self:?}", self.terminal))
    }

    /// The whole answer where the request finished, the beginning of it anywhere else.
    fn judge_choice(
        &self,
        plan: &ChoicePlan,
        said: &Transcript,
        stage: &mut Stage<'_>,
    ) -> Result<(), String> {
        let must_be_whole = self.terminal == Some(Ok(())) || said.finished.is_some();
        let at_most = if must_be_whole { usize::MAX } else { said.tokens.len() };
        let alone = stage.oracle.answer(plan, stage.spec.max_context, at_most)?;
        let begins = alone.prompt.starts_with(&said.prompt)
            && alone.tokens.starts_with(&said.tokens)
            && (said.tokens.is_empty() || said.prompt.len() == alone.prompt.len());
        let whole = *said == alone;
        if if must_be_whole { whole } else { begins } {
            return Ok(());
        }
        Err(format!(
            "request {} choice {} ({:?}) differs from itself alone\nasked {plan:?}\nsaid {said:?}\n\
             alone {alone:?}",
            self.number, plan.index, self.terminal
        ))
    }
}

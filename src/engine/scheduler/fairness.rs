//! Whose turn it is: a counter of tokens for each tenant.
//!
//! The virtual token counter of Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024:
//! who was served least comes first, an answer's token counts twice a prompt's, and who comes back
//! starts where the least active one stands, so that nobody saves up turns by being away. Within a
//! tenant it goes by priority, and a priority wears off with the steps that others have waited. A tenant's
//! own priority is the weight of its tokens (the weighted form of the counter): it gets more of what
//! there is, and nobody starves.

use std::collections::BTreeMap;

use crate::engine::message::{TENANT_PRIORITY_MAX, Tenant};
use crate::engine::sequence::Sequence;

/// What a token of an answer counts; one of a prompt counts 1.
const ANSWER_WEIGHT: u64 = 2;

/// What a token of a tenant of priority 0 counts. Those of others count half as much for each point below
/// it, twice as much for each point above.
const TOKEN: u64 = 1 << TENANT_PRIORITY_MAX;

/// Steps that one point of priority is worth.
const STEPS_A_POINT: i64 = 32;

/// Lowest first: weighted tokens that the tenant was given, when the sequence came, adjusted by its priority,
/// and its number.
pub(super) type Rank = (u64, i64, u64);

#[derive(Debug, Default)]
struct Account {
    served: u64,
    sequences: usize,
}

/// The counters of all tenants.
#[derive(Debug, Default)]
pub(super) struct Fairness {
    accounts: BTreeMap<Tenant, Account>,
    /// Where tenants begin that were away: no active one was below it.
    floor: u64,
}

impl Fairness {
    /// A sequence comes in step number `step`.
    pub(super) fn enter(&mut self, sequence: &mut Sequence, step: u64) {
        sequence.due = step as i64 + STEPS_A_POINT * i64::from(sequence.priority.request);
        self.raise_floor();
        let floor = self.floor;
        let account = self.accounts.entry(sequence.namespace.tenant).or_default();
        if account.sequences == 0 {
            account.served = account.served.max(floor);
        }
        account.sequences += 1;
    }

    /// A sequence ended, in whatever way.
    pub(super) fn leave(&mut self, sequence: &mut Sequence) {
        self.settle(sequence);
        if let Some(account) = self.accounts.get_mut(&sequence.namespace.tenant) {
            account.sequences = account.sequences.saturating_sub(1);
        }
        self.raise_floor();
        // Who is away and not ahead is known by the floor.
        let floor = self.floor;
        self.accounts.retain(|_, account| account.sequences > 0 || account.served > floor);
    }

    /// Counts what the sequence was given since the last call. What is computed a second time after
    /// a preemption is not its tenant's doing.
    pub(super) fn settle(&mut self, sequence: &mut Sequence) {
        let answer = ANSWER_WEIGHT * sequence.generated().len() as u64;
        let due = sequence.prompt().len() as u64 + answer;
        if let Some(account) = self.accounts.get_mut(&sequence.namespace.tenant) {
            let points = sequence.priority.tenant;
            let points = points.clamp(-TENANT_PRIORITY_MAX, TENANT_PRIORITY_MAX);
            let token = TOKEN << (points + TENANT_PRIORITY_MAX) >> TENANT_PRIORITY_MAX;
            account.served += token * (due - sequence.counted);
        }
        sequence.counted = due;
    }

    pub(super) fn served(&self, tenant: Tenant) -> u64 {
        self.accounts.get(&tenant).map_or(self.floor, |account| account.served)
    }

    pub(super) fn rank(&self, sequence: &Sequence) -> Rank {
        (self.served(sequence.namespace.tenant), sequence.due, sequence.arrival)
    }

    /// To the least active tenant, or to the one that was served most when nobody is left.
    fn raise_floor(&mut self) {
        let active = self.accounts.values().filter(|a| a.sequences > 0).map(|a| a.served).min();
        let floor = active.or_else(|| self.accounts.values().map(|a| a.served).max());
        self.floor = self.floor.max(floor.unwrap_or(0));
    }
}

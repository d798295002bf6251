//! Who waits for a place, in the order of each tenant.
//!
//! A tenant's counter changes all the time, and what its sequences are among themselves does not: so
//! they stand in one ordered map a tenant, and whoever looks for the next in line compares the first
//! of each. A look does not grow with the number of those who wait behind them.

use std::collections::BTreeMap;

use super::fairness::{Fairness, Rank};
use crate::engine::message::Tenant;
use crate::engine::sequence::Sequence;

/// Sequences of one tenant that a look passes over because another is computing their prefix. Who stands
/// behind so many waits as they do: that is over when the prefix is there, and goes on if it stops.
const PASSED_OVER_MAX: usize = 64;

/// Where a sequence waits. The order within a tenant is that of `due` and arrival, as in [`Rank`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Spot {
    tenant: Tenant,
    due: i64,
    arrival: u64,
}

impl Spot {
    fn of(s: &Sequence) -> Self {
        Self { tenant: s.namespace.tenant, due: s.due, arrival: s.arrival }
    }

    pub(super) fn tenant(self) -> Tenant {
        self.tenant
    }
}

/// Why the next in line may be somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    Ready,
    /// Its client takes no events.
    Stalled,
    /// Another is computing its prefix.
    Awaits,
}

/// All that wait.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    line: BTreeMap<Spot, Sequence>,
    /// Sequences of each tenant that has any.
    tenants: BTreeMap<Tenant, usize>,
    /// Sequences that were looked at since the start.
    #[cfg(test)]
    pub(super) looks: usize,
}

impl Waiting {
    pub(super) fn len(&self) -> usize {
        self.line.len()
    }

    pub(super) fn insert(&mut self, sequence: Sequence) {
        *self.tenants.entry(sequence.namespace.tenant).or_default() += 1;
        self.line.insert(Spot::of(&sequence), sequence);
    }

    pub(super) fn get(&self, spot: Spot) -> Option<&Sequence> {
        self.line.get(&spot)
    }

    pub(super) fn remove(&mut self, spot: Spot) -> Option<Sequence> {
        let sequence = self.line.remove(&spot)?;
        self.left(spot.tenant);
        Some(sequence)
    }

    /// Takes out those that `goes` says yes to.
    pub(super) fn extract(&mut self, mut goes: impl FnMut(&Sequence) -> bool) -> Vec<Sequence> {
        let gone: Vec<Spot> =
            self.line.iter().filter_map(|(&spot, s)| goes(s).then_some(spot)).collect();
        gone.into_iter().filter_map(|spot| self.remove(spot)).collect()
    }

    fn left(&mut self, tenant: Tenant) {
        if let Some(count) = self.tenants.get_mut(&tenant) {
            *count -= 1;
            if *count == 0 {
                self.tenants.remove(&tenant);
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Sequence> {
        self.line.values()
    }

    /// The first by rank whose turn it is: tenants from the one that was served least on, each from its
    /// first in line on.
    pub(super) fn next(
        &mut self,
        fairness: &Fairness,
        mut turn: impl FnMut(&mut Sequence) -> Turn,
    ) -> Option<Spot> {
        let mut tenants: Vec<_> =
            self.tenants.keys().map(|&tenant| (fairness.served(tenant), tenant)).collect();
        tenants.sort_unstable();
        let mut best: Option<(Rank, Spot)> = None;
        for (served, tenant) in tenants {
            // Those that were served as much are told apart by when they came.
            if best.is_some_and(|((least, ..), _)| served > least) {
                break;
            }
            let mut passed_over = 0;
            let first = Spot { tenant, due: i64::MIN, arrival: 0 };
            let last = Spot { tenant, due: i64::MAX, arrival: u64::MAX };
            for (&spot, sequence) in self.line.range_mut(first..=last) {
                let rank = (served, spot.due, spot.arrival);
                if best.is_some_and(|(before, _)| before < rank) || passed_over == PASSED_OVER_MAX {
                    break;
                }
                #[cfg(test)]
                (self.looks += 1);
                match turn(sequence) {
                    Turn::Ready => {
                        best = Some((rank, spot));
                        break;
                    }
                    Turn::Stalled => {}
                    Turn::Awaits => passed_over += 1,
                }
            }
        }
        best.map(|(_, spot)| spot)
    }
}

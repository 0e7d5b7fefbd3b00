//! One connection's messages put together: reports wait for the inventory that explains them. Pure.

use std::{collections::BTreeMap, sync::Arc};

use plimsoll_common::{
    ids::{AgentEpoch, Generation, NodeName, Seq},
    units::Micros,
    wire::{Inventory, Report, WireError},
};
use plimsoll_core::fleet::{NodeInventory, Observation};

use crate::fold;

/// How many inventories of a connection are remembered. Reports name the newest, or one just replaced; after an outage
/// each may bring its own, and as many as are read at once may come in any order.
const MAX_INVENTORIES: usize = 16;
/// How many reports may wait for their inventory, which was sent before them and can only have been overtaken.
const MAX_HELD: usize = 8;

/// One agent window in the core's words.
#[derive(Debug)]
pub struct Window {
    /// The first of the agent's windows that it stands for.
    pub first: Seq,
    /// The last.
    pub last: Seq,
    /// When it came; the observation's age is counted from here.
    pub received: Micros,
    /// What was observed.
    pub observation: Observation,
}

/// Why a report can't be put together.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// Too many reports name an inventory that was not sent.
    #[error("{MAX_HELD} reports already wait for inventories, this one names generation {} which was not sent", .0.0)]
    Order(Generation),
    /// A report names an inventory that newer ones have replaced for good: the agent has to send it again.
    #[error("this report names generation {}, and {MAX_INVENTORIES} newer inventories have come since", .0.0)]
    Forgotten(Generation),
    /// The message contradicts itself or its inventory.
    #[error(transparent)]
    Wire(#[from] WireError),
}

/// The inventories of one connection, and the reports that came before theirs.
#[derive(Debug)]
pub struct Assembly {
    node: NodeName,
    epoch: AgentEpoch,
    inventories: BTreeMap<Generation, Arc<NodeInventory>>,
    held: Vec<(Micros, u32, Box<Report>)>,
    unknown_kinds: u64,
}

impl Assembly {
    /// For a connection that has said who it is.
    #[must_use]
    pub const fn new(node: NodeName, epoch: AgentEpoch) -> Self {
        Self { node, epoch, inventories: BTreeMap::new(), held: Vec::new(), unknown_kinds: 0 }
    }

    /// Takes an inventory; answers the reports that waited for it.
    ///
    /// # Errors
    /// When it contradicts itself, or a waiting report contradicts it.
    pub fn inventory(&mut self, inventory: &Inventory) -> Result<Vec<Window>, Error> {
        let folded = fold::inventory(inventory).map_err(WireError::from)?;
        // Sent again, the same inventory stays the same to the fleet.
        if self.inventories.get(&inventory.generation).is_none_or(|known| **known != folded) {
            self.inventories.insert(inventory.generation, Arc::new(folded));
        }
        while self.inventories.len() > MAX_INVENTORIES {
            self.inventories.pop_first();
        }
        let (ready, held) = std::mem::take(&mut self.held)
            .into_iter()
            .partition(|(_, _, report)| self.inventories.contains_key(&report.generation));
        self.held = held;
        if let Some((_, _, report)) =
            self.held.iter().find(|(_, _, report)| self.is_forgotten(report.generation))
        {
            return Err(Error::Forgotten(report.generation));
        }
        let ready: Vec<(Micros, u32, Box<Report>)> = ready;
        let mut windows = Vec::with_capacity(ready.len());
        for (received, age_ms, report) in ready {
            windows.extend(self.report(received, age_ms, report)?);
        }
        Ok(windows)
    }

    /// Takes a report; answers nothing where its inventory has not come yet.
    ///
    /// # Errors
    /// When it contradicts its inventory, or too many wait already.
    pub fn report(
        &mut self,
        received: Micros,
        age_ms: u32,
        report: Box<Report>,
    ) -> Result<Option<Window>, Error> {
        let Some(inventory) = self.inventories.get(&report.generation) else {
            if self.is_forgotten(report.generation) {
                return Err(Error::Forgotten(report.generation));
            }
            if self.held.len() >= MAX_HELD {
                return Err(Error::Order(report.generation));
            }
            self.held.push((received, age_ms, report));
            return Ok(None);
        };
        let age = Micros::from_millis(u64::from(age_ms));
        let (observation, unknown) =
            fold::report(&report, age, &self.node, self.epoch, inventory).map_err(WireError::from)?;
        self.unknown_kinds = self.unknown_kinds.saturating_add(unknown);
        Ok(Some(Window { first: report.first_seq(), last: report.seq, received, observation }))
    }

    /// Whether an inventory was replaced, or will be as soon as it comes.
    fn is_forgotten(&self, generation: Generation) -> bool {
        let oldest = self.inventories.keys().next();
        self.inventories.len() >= MAX_INVENTORIES && oldest.is_some_and(|oldest| generation < *oldest)
    }

    /// How many distributions of unknown kinds were skipped since the last time this was asked.
    pub const fn take_unknown_kinds(&mut self) -> u64 {
        std::mem::replace(&mut self.unknown_kinds, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assembly() -> Assembly {
        Assembly::new(NodeName::parse("n").unwrap(), AgentEpoch(1))
    }

    fn report(seq: u64, generation: u32) -> Box<Report> {
        Box::new(Report { seq: Seq(seq), generation: Generation(generation), ..Report::default() })
    }

    fn inventory(generation: u32) -> Inventory {
        Inventory { generation: Generation(generation), ..Inventory::default() }
    }

    #[test]
    fn a_report_that_overtook_its_inventory_waits_for_it() {
        let mut assembly = assembly();
        assert!(assembly.report(Micros(1), 5, report(1, 2)).unwrap().is_none());
        assert!(assembly.inventory(&inventory(1)).unwrap().is_empty());
        let windows = assembly.inventory(&inventory(2)).unwrap();
        assert_eq!(windows.len(), 1);
        assert_eq!((windows[0].last, windows[0].received), (Seq(1), Micros(1)));
        assert!(assembly.report(Micros(2), 0, report(2, 2)).unwrap().is_some());
    }

    #[test]
    fn waiting_is_bounded() {
        let mut assembly = assembly();
        for seq in 0..MAX_HELD as u64 {
            assembly.report(Micros(0), 0, report(seq + 1, 9)).unwrap();
        }
        let error = assembly.report(Micros(0), 0, report(99, 9)).unwrap_err();
        assert_eq!(error, Error::Order(Generation(9)));
        for generation in 1..20 {
            assembly.inventory(&inventory(generation)).unwrap();
            assert!(assembly.inventories.len() <= MAX_INVENTORIES);
        }
    }

    #[test]
    fn a_report_whose_inventory_is_gone_for_good_does_not_wait() {
        let mut assembly = assembly();
        for generation in 2..2 + MAX_INVENTORIES as u32 {
            assembly.inventory(&inventory(generation)).unwrap();
        }
        let error = assembly.report(Micros(0), 0, report(1, 1)).unwrap_err();
        assert_eq!(error, Error::Forgotten(Generation(1)));
        // One that waits for the next inventory, and would wait for good once that is replaced, too.
        let next = 2 + MAX_INVENTORIES as u32;
        assert!(assembly.report(Micros(0), 0, report(2, next)).unwrap().is_none());
        for generation in next + 1..=next + MAX_INVENTORIES as u32 {
            if let Err(error) = assembly.inventory(&inventory(generation)) {
                assert_eq!(error, Error::Forgotten(Generation(next)));
                return;
            }
        }
        panic!("it waits for good");
    }

    #[test]
    fn the_same_inventory_again_is_the_same() {
        let mut assembly = assembly();
        assembly.inventory(&inventory(1)).unwrap();
        let first = Arc::clone(&assembly.inventories[&Generation(1)]);
        assembly.inventory(&inventory(1)).unwrap();
        assert!(Arc::ptr_eq(&first, &assembly.inventories[&Generation(1)]));
    }
}

//! `le` layouts, each kept once however many engines share it.

use std::collections::BTreeMap;

use plimsoll_common::histogram::{BucketLayout, LeanLayout};

/// A layout's number within one fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LayoutId(u16);

impl LayoutId {
    /// As slots name it: 0 stands for cells of the fleet's layout.
    pub(super) const fn code(self) -> u64 {
        self.0 as u64 + 1
    }
}

/// All layouts that were ever seen. They are few: one for each family of each version of an engine.
#[derive(Debug, Clone, Default)]
pub(super) struct Layouts {
    by_id: Vec<LeanLayout>,
    by_edges: BTreeMap<(bool, Vec<u64>), LayoutId>,
}

impl Layouts {
    /// The number of a layout; `None` where there are `limit` others already.
    pub(super) fn intern(&mut self, layout: &BucketLayout, limit: usize) -> Option<LayoutId> {
        let seconds = layout.unit() == plimsoll_common::engine::Unit::Seconds;
        let key = (seconds, layout.edges().iter().map(|edge| edge.to_bits()).collect());
        if let Some(id) = self.by_edges.get(&key) {
            return Some(*id);
        }
        if self.by_id.len() >= limit.min(usize::from(u16::MAX)) {
            return None;
        }
        let id = LayoutId(self.by_id.len() as u16);
        self.by_id.push(LeanLayout::new(layout.clone()));
        self.by_edges.insert(key, id);
        Some(id)
    }

    /// The layout that a slot names.
    pub(super) fn by_code(&self, code: u64) -> Option<(LayoutId, &LeanLayout)> {
        let id = u16::try_from(code.checked_sub(1)?).ok()?;
        self.by_id.get(usize::from(id)).map(|layout| (LayoutId(id), layout))
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_common::engine::Unit;

    use super::*;

    #[test]
    fn equal_layouts_share_a_number_and_units_do_not() {
        let mut layouts = Layouts::default();
        let layout = |unit| BucketLayout::new(&[1.0, 2.0], unit).unwrap();
        let first = layouts.intern(&layout(Unit::Seconds), 2).unwrap();
        assert_eq!(layouts.intern(&layout(Unit::Seconds), 2), Some(first));
        let second = layouts.intern(&layout(Unit::Tokens), 2).unwrap();
        assert_ne!(first, second);
        let third = BucketLayout::new(&[3.0], Unit::Tokens).unwrap();
        assert_eq!(layouts.intern(&third, 2), None);
        assert_eq!(layouts.by_code(0), None);
        assert_eq!(layouts.by_code(second.code()).unwrap().1.layout(), &layout(Unit::Tokens));
        assert_eq!(layouts.by_code(9), None);
    }
}

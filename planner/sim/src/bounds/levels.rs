//! The cheapest capacity that covers a need when every start costs.

/// Slots `from` to `to` (not included) in which one level is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) from: usize,
    pub(super) to: usize,
}

/// When the `level`-th replica (from 1) is kept, at least cost: it is kept through a gap that is not longer than a
/// start-up, in slots, since stopping and starting again would cost as much. Levels do not depend on one another, so
/// the sum of their costs is the least there is.
pub(super) fn kept(need: &[u32], level: u32, start_up: usize) -> Vec<Kept> {
    let mut intervals: Vec<Kept> = Vec::new();
    for (slot, _) in need.iter().enumerate().filter(|(_, need)| **need >= level) {
        match intervals.last_mut() {
            Some(last) if slot - last.to <= start_up => last.to = slot + 1,
            _ => intervals.push(Kept { from: slot, to: slot + 1 }),
        }
    }
    intervals
}

/// What all levels cost, in slots of one replica: what is kept, and a start-up for every interval.
pub(super) fn cost(need: &[u32], start_up: usize) -> u64 {
    let most = need.iter().copied().max().unwrap_or_default();
    let of_level = |level: u32| -> u64 {
        kept(need, level, start_up).iter().map(|kept| (kept.to - kept.from + start_up) as u64).sum()
    };
    (1..=most).map(of_level).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The least cost by trying every capacity in every slot.
    fn brute_force(need: &[u32], start_up: usize) -> u64 {
        let most = need.iter().copied().max().unwrap_or_default();
        let mut best = vec![Some(0_u64); 1];
        best.resize(most as usize + 1, None);
        for wanted in need {
            let mut next = vec![None; most as usize + 1];
            for have in *wanted..=most {
                let from = |before: usize| {
                    let starts = u64::from(have).saturating_sub(before as u64);
                    best[before].map(|cost| cost + u64::from(have) + starts * start_up as u64)
                };
                next[have as usize] = (0..best.len()).filter_map(from).min();
            }
            best = next;
        }
        best.into_iter().flatten().min().unwrap_or_default()
    }

    #[test]
    fn a_gap_as_long_as_a_start_is_kept_and_a_longer_one_is_not() {
        let need = [1, 0, 0, 1, 0, 0, 0, 1];
        assert_eq!(kept(&need, 1, 2), vec![Kept { from: 0, to: 4 }, Kept { from: 7, to: 8 }]);
        // 4 + 2 and 1 + 2 slots.
        assert_eq!(cost(&need, 2), 9);
    }

    proptest! {
        // The levels' costs add up to the least cost of any capacity that covers the need.
        #[test]
        fn no_other_capacity_is_cheaper(
            need in proptest::collection::vec(0_u32..5, 0..14),
            start_up in 0_usize..6,
        ) {
            prop_assert_eq!(cost(&need, start_up), brute_force(&need, start_up));
        }
    }
}

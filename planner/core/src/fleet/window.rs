//! Sliding windows: three independent rings of slots.

use plimsoll_common::units::Micros;
use serde::{Serialize, Serializer};

use super::packed::{Scratch, SlotLog};

/// A span over which gains and distributions are shown.
///
/// A window holds its last full slots and the slot that is not over yet, so it is between one span and one span and a
/// slot long; what is read always says what it covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Window {
    /// 10 s in slots of 2 s.
    TenSeconds,
    /// 1 min in slots of 10 s.
    OneMinute,
    /// 5 min in slots of 60 s.
    FiveMinutes,
}

impl Window {
    /// All windows, the shortest first.
    pub const ALL: &[Self] = &[Self::TenSeconds, Self::OneMinute, Self::FiveMinutes];

    /// The name in queries, labels and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TenSeconds => "10s",
            Self::OneMinute => "1m",
            Self::FiveMinutes => "5m",
        }
    }

    /// The window of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|window| window.as_str() == name)
    }

    /// How long it is.
    #[must_use]
    pub const fn span(self) -> Micros {
        Micros(self.slot().0 * self.slots())
    }

    const fn slot(self) -> Micros {
        match self {
            Self::TenSeconds => Micros(2_000_000),
            Self::OneMinute => Micros(10_000_000),
            Self::FiveMinutes => Micros(60_000_000),
        }
    }

    const fn slots(self) -> u64 {
        match self {
            Self::TenSeconds | Self::FiveMinutes => 5,
            Self::OneMinute => 6,
        }
    }

    const fn index(self, at: Micros) -> u64 {
        at.0 / self.slot().0
    }

    /// The slot of this window in which a slot of the shortest window lies: slots of all windows begin together.
    const fn around(self, shortest: u64) -> u64 {
        self.index(Micros(shortest.saturating_mul(SHORTEST.slot().0)))
    }

    /// Whether a period of this length that ended at `at` has a place in this window.
    fn takes(self, now: Micros, at: Micros, length: Micros) -> bool {
        length <= self.span() && at >= self.begin(now)
    }

    /// Where the oldest slot begins that the window still holds at `now`.
    #[must_use]
    pub const fn begin(self, now: Micros) -> Micros {
        Micros(self.index(now).saturating_sub(self.slots()) * self.slot().0)
    }
}

impl Serialize for Window {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// The slots of all windows of one engine or pool. Empty slots do not exist.
///
/// Every window's slots hold the same sums, in slots of its own length. So that a report need not be added up three
/// times, the newest of the shortest slots stands for all windows while it is open, and is added to the longer slots
/// around it when a newer one opens.
#[derive(Debug, Clone)]
pub(super) struct Rings {
    rings: [Ring; 3],
    /// The shortest window's slot that the longer windows do not have yet.
    open: Option<u64>,
    /// From which size on a slot that is still written to adds equal keys up.
    compact_from: usize,
}

#[derive(Debug, Clone, Default)]
struct Ring {
    /// Rising by index, at most one more than the window has slots.
    slots: Vec<(u64, SlotLog)>,
}

const SHORTEST: Window = Window::TenSeconds;

impl Rings {
    /// For one engine of very many: as small as can be.
    pub(super) fn of_engine() -> Self {
        Self { rings: Default::default(), open: None, compact_from: 768 }
    }

    /// For a pool, in which reports of many engines come together: a slot is added up rarely.
    pub(super) fn of_pool() -> Self {
        Self { compact_from: 16 * 1024, ..Self::of_engine() }
    }

    /// Appends what was gained in a period of this length that ended at `at`. A period that is longer than a window,
    /// or that the window has already forgotten at `now`, is left out of it; then the answer is false.
    pub(super) fn append(
        &mut self,
        now: Micros,
        at: Micros,
        length: Micros,
        entries: &[u8],
        scratch: &mut Scratch,
    ) -> bool {
        let index = SHORTEST.index(at);
        if SHORTEST.takes(now, at, length) && self.open.is_none_or(|open| index >= open) {
            if self.open != Some(index) {
                self.close(now, scratch);
            }
            if let Some(log) = self.rings[SHORTEST as usize].slot(SHORTEST, now, at, scratch) {
                log.append(entries, self.compact_from, scratch);
                self.open = Some(index);
                return true;
            }
        }
        let mut everywhere = true;
        for (window, ring) in Window::ALL.iter().zip(&mut self.rings) {
            let fits = window.takes(now, at, length);
            match fits.then(|| ring.slot(*window, now, at, scratch)).flatten() {
                Some(log) => log.append(entries, self.compact_from, scratch),
                None => everywhere = false,
            }
        }
        everywhere
    }

    /// What a window holds at `now`.
    pub(super) fn read(&self, window: Window, now: Micros) -> impl Iterator<Item = &SlotLog> {
        let held = window.index(window.begin(now))..=window.index(now);
        let open =
            self.open.filter(|_| window != SHORTEST).filter(|open| held.contains(&window.around(*open)));
        let open = open.and_then(|open| self.rings[SHORTEST as usize].get(open));
        let slots = &self.rings[window as usize].slots;
        slots.iter().filter(move |(index, _)| held.contains(index)).map(|(_, log)| log).chain(open)
    }

    /// Gives back the memory of slots that no window holds any more.
    pub(super) fn expire(&mut self, now: Micros, scratch: &mut Scratch) {
        if self.open.is_some_and(|open| open < SHORTEST.index(SHORTEST.begin(now))) {
            self.close(now, scratch);
        }
        for (window, ring) in Window::ALL.iter().zip(&mut self.rings) {
            ring.expire(*window, now);
            if ring.slots.is_empty() {
                ring.slots = Vec::new();
            }
        }
    }

    /// Adds the open slot to the longer windows.
    fn close(&mut self, now: Micros, scratch: &mut Scratch) {
        let Some(open) = self.open.take() else { return };
        let (shortest, longer) = self.rings.split_at_mut(1);
        let Some((_, log)) = shortest[0].slots.iter_mut().find(|(index, _)| *index == open) else { return };
        log.compact(scratch);
        let at = Micros(open.saturating_mul(SHORTEST.slot().0));
        for (window, ring) in Window::ALL[1..].iter().zip(longer) {
            if let Some(into) =
                (at >= window.begin(now)).then(|| ring.slot(*window, now, at, scratch)).flatten()
            {
                into.append(log.entries(), self.compact_from, scratch);
            }
        }
    }

    /// How many bytes all slots take.
    pub(super) fn allocated_bytes(&self) -> usize {
        let ring = |ring: &Ring| {
            ring.slots.capacity() * size_of::<(u64, SlotLog)>()
                + ring.slots.iter().map(|(_, log)| log.allocated_bytes()).sum::<usize>()
        };
        self.rings.iter().map(ring).sum()
    }
}

impl Ring {
    fn get(&self, index: u64) -> Option<&SlotLog> {
        self.slots.iter().find(|(known, _)| *known == index).map(|(_, log)| log)
    }

    fn slot(
        &mut self,
        window: Window,
        now: Micros,
        at: Micros,
        scratch: &mut Scratch,
    ) -> Option<&mut SlotLog> {
        let index = window.index(at);
        match self.slots.binary_search_by_key(&index, |(index, _)| *index) {
            Ok(found) => Some(&mut self.slots[found].1),
            Err(_) => {
                self.expire(window, now);
                // A clock that went backwards leaves slots of its future behind: they hold their place.
                if self.slots.len() > window.slots() as usize {
                    return None;
                }
                // What stands here is unlikely to change: pack it.
                self.slots.iter_mut().for_each(|(_, log)| log.compact(scratch));
                let place = self.slots.partition_point(|(before, _)| *before < index);
                self.slots.reserve_exact(1);
                self.slots.insert(place, (index, SlotLog::default()));
                Some(&mut self.slots[place].1)
            }
        }
    }

    fn expire(&mut self, window: Window, now: Micros) {
        let oldest = window.index(window.begin(now));
        self.slots.retain(|(index, _)| *index >= oldest);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fleet::packed::{Series, encode};

    fn held(rings: &Rings, window: Window, now: Micros) -> u64 {
        let mut sum = 0;
        for log in rings.read(window, now) {
            log.visit(|entry| sum += entry.map(|(_, n)| n).sum::<u64>());
        }
        sum
    }

    fn entry(n: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(&mut bytes, Series::Counters, 0, 0, &[(0, n)]);
        bytes
    }

    #[test]
    fn a_period_longer_than_a_window_is_left_out_of_it() {
        let (mut rings, mut scratch) = (Rings::of_engine(), Scratch::default());
        let now = Micros(1_000_000_000);
        assert!(!rings.append(now, now, Micros(60_000_000), &entry(1), &mut scratch));
        let held = Window::ALL.iter().map(|window| held(&rings, *window, now)).collect::<Vec<_>>();
        assert_eq!(held, [0, 1, 1]);
    }

    #[test]
    fn what_is_expired_costs_nothing() {
        let (mut rings, mut scratch) = (Rings::of_engine(), Scratch::default());
        let now = Micros(1_000_000_000);
        rings.append(now, now, Micros(1), &entry(1), &mut scratch);
        assert!(rings.allocated_bytes() > 0);
        rings.expire(Micros(2_000_000_000), &mut scratch);
        assert_eq!(rings.allocated_bytes(), 0);
    }

    proptest! {
        /// Invariant: at every instant a window holds exactly what ended since its published begin, in whatever order
        /// it came.
        #[test]
        fn windows_forget_exactly_what_is_old(
            mut ends in prop::collection::vec((0u64..700_000_000, 1u64..9), 0..80),
            rotate in 0usize..80,
            later in 0u64..400_000_000,
        ) {
            let (mut rings, mut scratch) = (Rings::of_engine(), Scratch::default());
            let now = Micros(700_000_000);
            let n = ends.len().max(1);
            ends.rotate_left(rotate % n);
            for (end, n) in &ends {
                rings.append(now, Micros(*end), Micros(1_000_000), &entry(*n), &mut scratch);
            }
            let read_at = Micros(now.0 + later);
            for window in Window::ALL {
                let begin = window.begin(read_at);
                prop_assert!(read_at.0 - begin.0 >= window.span().0);
                prop_assert!(read_at.0 - begin.0 < window.span().0 + window.slot().0);
                let expected: u64 = ends.iter().filter(|(end, _)| *end >= begin.0).map(|(_, n)| n).sum();
                prop_assert_eq!(held(&rings, *window, read_at), expected);
            }
        }

        /// Invariant: the same while time goes on between what comes, and memory is given back in between.
        #[test]
        fn windows_slide(
            steps in prop::collection::vec((0u64..20_000_000, 0u64..90_000_000, 1u64..9, any::<bool>()), 0..120),
        ) {
            let (mut rings, mut scratch) = (Rings::of_engine(), Scratch::default());
            let (mut now, mut taken) = (Micros(1_000_000_000), Vec::new());
            for (pause, age, n, expire) in steps {
                now = now.saturating_add(Micros(pause));
                // Most of what comes is new, as in life.
                let end = now.saturating_sub(Micros(if age < 60_000_000 { age / 60 } else { age }));
                if expire {
                    rings.expire(now, &mut scratch);
                }
                rings.append(now, end, Micros(1_000_000), &entry(n), &mut scratch);
                taken.push((end, n));
                for window in Window::ALL {
                    let begin = window.begin(now);
                    let expected: u64 = taken.iter().filter(|(end, _)| *end >= begin).map(|(_, n)| n).sum();
                    prop_assert_eq!(held(&rings, *window, now), expected);
                }
            }
        }

        /// Invariant: a clock that jumps either way never panics and never makes a ring longer than its window.
        #[test]
        fn a_jumping_clock_is_survived(nows in prop::collection::vec(any::<u64>(), 0..60), age in any::<u64>()) {
            let (mut rings, mut scratch) = (Rings::of_engine(), Scratch::default());
            for now in nows {
                let now = Micros(now);
                rings.append(now, now.saturating_sub(Micros(age)), Micros(1), &entry(1), &mut scratch);
                for window in Window::ALL {
                    held(&rings, *window, now);
                    prop_assert!(rings.rings[*window as usize].slots.len() as u64 <= window.slots() + 1);
                }
            }
        }
    }
}

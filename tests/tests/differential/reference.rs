//! What an agent should tell, page by page: written from the rules, keeping every page, comparing one number at a time.
//!
//! The rules:
//!
//! 1. A life is a run of pages of one process. A page begins another life where the process tells another start; where
//!    one of the two pages tells none: where the engine was seen to be gone in between, or where anything that counted on
//!    the page before (a counter, a cumulative bucket, a count) is less than it was there. What is less than when it last
//!    counted, and did not count on the page before, began anew by itself at zero.
//! 2. The first life, if it was found running, counts from its first page: what stands there is old. Every other life
//!    counts from zero.
//! 3. A histogram whose buckets and count contradict each other does not stand on the page. If that was on the first page
//!    of a life that was found running, what it next shows is old.
//! 4. A series gains what it grew by since the last page of the life that shows it. One that no earlier page of the life
//!    shows gains all, unless lines of the page before could not be read: then what it shows is old.
//! 5. A histogram whose buckets are others than when it last counted does not count. Where that is so on the second page
//!    in a row that shows it, it is another series from then on, and what that page shows is old.
//! 6. Sums gain only where samples are gained, what they grew by since the last time; where a sum falls, it gains nothing.

use std::collections::BTreeMap;

use crate::page::{Family, Histogram, Shown, Total};

/// What was gained by one page.
#[derive(Debug, Default)]
pub(crate) struct Gain {
    totals: BTreeMap<Total, u64>,
    families: BTreeMap<Family, (u64, f64)>,
    sums_begun: u64,
}

/// What should have been told in all.
#[derive(Debug, Default)]
pub(crate) struct Expected {
    totals: BTreeMap<Total, u64>,
    families: BTreeMap<Family, (u64, f64)>,
    /// How often the telling of a sum began, one way or another.
    pub(crate) sums_begun: u64,
}

impl Expected {
    pub(crate) fn add(&mut self, gain: Gain) {
        for (total, n) in gain.totals {
            *self.totals.entry(total).or_default() += n;
        }
        for (family, (n, sum)) in gain.families {
            let told = self.families.entry(family).or_default();
            told.0 += n;
            told.1 += sum;
        }
        self.sums_begun += gain.sums_begun;
    }

    pub(crate) fn total(&self, total: Total) -> u64 {
        self.totals.get(&total).copied().unwrap_or(0)
    }

    /// Samples, and their sum in seconds.
    pub(crate) fn family(&self, family: Family) -> (u64, f64) {
        self.families.get(&family).copied().unwrap_or((0, 0.0))
    }
}

/// One process: all of its pages.
#[derive(Debug)]
struct Life {
    found_running: bool,
    pages: Vec<Shown>,
}

/// All lives.
#[derive(Debug, Default)]
pub(crate) struct Reference {
    life: Option<Life>,
    gone: bool,
}

impl Reference {
    pub(crate) fn absent(&mut self) {
        self.gone = true;
    }

    pub(crate) fn observe(&mut self, page: &Shown) -> Gain {
        let gone = std::mem::take(&mut self.gone);
        let goes_on = self.life.as_ref().is_some_and(|life| !life.ended(page, gone));
        if !goes_on {
            let found_running = self.life.is_none() && !gone;
            self.life = Some(Life { found_running, pages: Vec::new() });
        }
        let life = self.life.as_mut().expect("there is one now");
        life.pages.push(page.clone());
        life.gain()
    }
}

/// A histogram that does not contradict itself.
fn whole(histogram: &Histogram) -> bool {
    histogram.cumulative.is_sorted() && histogram.cumulative.last() == Some(&histogram.count)
}

/// A histogram series as it last counted.
#[derive(Debug, Clone)]
struct Counted {
    /// On which page.
    page: usize,
    edges: Vec<f64>,
    histogram: Histogram,
}

impl Counted {
    /// Whether a page shows less than that.
    fn is_more_than(&self, page: &Shown, now: &Histogram) -> bool {
        if self.edges != page.edges {
            return now.count < self.histogram.count;
        }
        now.cumulative.iter().zip(&self.histogram.cumulative).any(|(now, last)| now < last)
    }
}

/// What the newest page of a life gave one series.
#[derive(Debug, Default)]
struct Newest {
    counted: Option<Counted>,
    samples: u64,
    sum: f64,
    /// Whether the telling of the sum began anew.
    begun: bool,
}

impl Life {
    /// Rule 1.
    fn ended(&self, page: &Shown, gone: bool) -> bool {
        let start = self.pages.iter().rev().find_map(|page| page.start);
        if let (Some(before), Some(now)) = (start, page.start) {
            return before.to_bits() != now.to_bits();
        }
        gone || self.fell(page)
    }

    fn fell(&self, page: &Shown) -> bool {
        let last = self.pages.last().expect("a life has a page");
        let total =
            page.totals.iter().any(|(key, value)| last.totals.get(key).is_some_and(|last| value < last));
        let histogram =
            page.histograms.iter().filter(|(_, now)| whole(now)).any(|((family, engine), now)| {
                let counted = self.replay(*family, *engine).counted;
                counted.is_some_and(|last| last.page + 1 == self.pages.len() && last.is_more_than(page, now))
            });
        total || histogram
    }

    fn gain(&self) -> Gain {
        let mut gain = Gain::default();
        let (now, before) = self.pages.split_last().expect("a life has a page");
        let unread_before = before.last().is_some_and(|page| page.malformed.is_some());
        for ((total, engine), value) in &now.totals {
            let earlier = before.iter().rev().find_map(|page| page.totals.get(&(*total, *engine)));
            let from = match earlier {
                Some(earlier) if earlier > value => 0,
                Some(earlier) => *earlier,
                None if (before.is_empty() && self.found_running) || unread_before => *value,
                None => 0,
            };
            *gain.totals.entry(*total).or_default() += value - from;
        }
        for (family, engine) in now.histograms.keys() {
            let newest = self.replay(*family, *engine);
            let told = gain.families.entry(*family).or_default();
            told.0 += newest.samples;
            told.1 += newest.sum;
            gain.sums_begun += u64::from(newest.begun);
        }
        gain
    }

    /// Goes through all pages from the first and follows one histogram series.
    fn replay(&self, family: Family, engine: u8) -> Newest {
        let of = |page: &Shown| page.histograms.get(&(family, engine)).cloned();
        let torn_from_the_first =
            self.found_running && of(&self.pages[0]).is_some_and(|first| !whole(&first));
        let (mut newest, mut pending, mut others) = (Newest::default(), 0.0, 0);
        for (at, page) in self.pages.iter().enumerate() {
            newest = Newest { counted: newest.counted, ..Newest::default() };
            let Some(histogram) = of(page).filter(whole) else { continue };
            let unread_before = at > 0 && self.pages[at - 1].malformed.is_some();
            let mut old = (at == 0 && self.found_running) || torn_from_the_first || unread_before;
            if newest.counted.as_ref().is_some_and(|last| last.is_more_than(page, &histogram)) {
                newest.counted = None;
                old = false;
            } else if newest.counted.as_ref().is_some_and(|last| last.edges != page.edges) {
                others += 1;
                if others < 2 {
                    continue;
                }
                newest.counted = None;
                old = true;
            }
            others = 0;
            newest.begun = newest.counted.is_none();
            let (count, sum) = match &newest.counted {
                Some(last) => (last.histogram.count, last.histogram.sum),
                None if old => (histogram.count, histogram.sum),
                None => (0, 0.0),
            };
            if newest.begun || histogram.sum < sum {
                newest.begun = true;
                pending = 0.0;
            }
            pending += (histogram.sum - sum).max(0.0);
            newest.samples = histogram.count - count;
            if newest.samples > 0 {
                newest.sum = std::mem::take(&mut pending);
            }
            newest.counted = Some(Counted { page: at, edges: page.edges.clone(), histogram });
        }
        newest
    }
}

//! How an engine is: a pure machine that turns what each look at an engine shows into a state, since when it holds,
//! and what it was told from. No state claims more than its evidence.

use std::{borrow::Cow, time::Duration};

use plimsoll_common::{
    engine::SleepState,
    units::Ratio,
    wire::{EngineState, StateEvidence},
};
use tokio::time::Instant;

use super::{page::PageError, scrape_error::ScrapeError, update::EngineUpdate};

/// For how long nothing may move while requests run before an engine is called frozen, and over how many pages.
const FROZEN_AFTER: Duration = Duration::from_secs(3);
const FROZEN_PAGES: u32 = 3;
/// How many connections in a row must be closed early before an engine that was there is called gone.
const GONE_AFTER_CLOSED: u32 = 2;

/// How an engine is seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The state.
    pub state: EngineState,
    /// Since when it holds. Of a frozen engine: when something moved for the last time.
    pub since: Instant,
    /// What it was told from, in a word.
    pub evidence: StateEvidence,
    /// The same for people, with the figures.
    pub reason: Cow<'static, str>,
    /// When the evidence was seen.
    pub told: Instant,
    /// For how long it shows how the engine is.
    pub patience: Duration,
    /// How often the state changed since the agent started.
    pub changes: u64,
}

impl Seen {
    /// Nothing is known yet.
    #[must_use]
    pub const fn nothing(now: Instant) -> Self {
        Self {
            state: EngineState::Pending,
            since: now,
            evidence: StateEvidence::NothingRead,
            reason: Cow::Borrowed("nothing was read yet"),
            told: now,
            patience: Duration::MAX,
            changes: 0,
        }
    }

    /// The same as long as its evidence is young enough to show anything about now.
    #[must_use]
    pub fn as_of(&self, now: Instant) -> Self {
        let age = now.saturating_duration_since(self.told);
        if age <= self.patience {
            return self.clone();
        }
        Self {
            state: EngineState::Pending,
            since: self.told,
            evidence: StateEvidence::NothingRead,
            reason: format!(
                "nothing was read for {:.0} s; before, it was {}",
                age.as_secs_f64(),
                self.state.as_str()
            )
            .into(),
            ..self.clone()
        }
    }
}

/// What one look at an engine shows.
#[derive(Debug, Clone, Copy)]
pub enum Evidence<'a> {
    /// No page, and why.
    Failed(&'a ScrapeError),
    /// A page of the engine.
    Page(PageEvidence),
}

/// What a page shows of the engine's state. `None`: it does not tell.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PageEvidence {
    /// Requests in the running batch.
    pub running: Option<u64>,
    /// Requests that are paused.
    pub paused: Option<u64>,
    /// Whether anything moved since the page before that only moves with the engine's steps.
    pub moved: Option<bool>,
    /// Whether it sleeps.
    pub sleep: Option<SleepState>,
    /// What its readiness page says.
    pub says_ready: Option<bool>,
}

/// Follows one engine from look to look.
#[derive(Debug)]
pub struct StateMachine {
    /// Whether the endpoint is declared a further node of an engine, which has no page.
    follower: bool,
    /// Whether anything ever answered there since the port was last closed.
    there: bool,
    /// Whether it was ready since the port was last closed.
    was_ready: bool,
    /// Connections in a row that were closed early.
    closed: u32,
    /// The pages on which requests run and nothing moved.
    still: Option<Still>,
    seen: Seen,
}

/// Requests run, and nothing moves.
#[derive(Debug, Clone, Copy)]
struct Still {
    /// When the last page on which something moved was read.
    since: Instant,
    /// How many pages came since, all without a change.
    pages: u32,
}

/// A state and what it was told from, without its time.
type Verdict = (EngineState, StateEvidence, Cow<'static, str>);

impl StateMachine {
    /// Nothing was seen yet.
    #[must_use]
    pub const fn new(now: Instant, follower: bool) -> Self {
        let seen = Seen::nothing(now);
        Self { follower, there: false, was_ready: false, closed: 0, still: None, seen }
    }

    /// How the engine is, as far as was seen.
    #[must_use]
    pub const fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Where it may be freezing (requests run, the last page showed no movement, and it is too early to say so): when
    /// a further page without movement would show it.
    #[must_use]
    pub fn suspects_until(&self) -> Option<Instant> {
        let still = self.still.filter(|still| still.pages > 0 && self.seen.state == EngineState::Ready)?;
        Some(still.since + FROZEN_AFTER)
    }

    /// Takes what a look at `now` showed, which tells for `patience` how the engine is.
    pub fn observe(&mut self, now: Instant, evidence: Evidence<'_>, patience: Duration) -> &Seen {
        let (state, evidence, reason) = match evidence {
            Evidence::Failed(error) => self.failed(error),
            Evidence::Page(page) => self.page(now, page),
        };
        let changed = state != self.seen.state;
        let since = match self.still {
            Some(still) if state == EngineState::Frozen => still.since,
            _ if changed => now,
            _ => self.seen.since,
        };
        let changes = self.seen.changes + u64::from(changed);
        self.seen = Seen { state, since, evidence, reason, told: now, patience, changes };
        &self.seen
    }

    fn page(&mut self, now: Instant, page: PageEvidence) -> Verdict {
        self.there = true;
        self.closed = 0;
        self.follow(now, page);
        if let Some(sleep) = page.sleep.filter(|sleep| *sleep != SleepState::Awake) {
            let reason = format!("its page says that it sleeps: {}", sleep.as_str());
            return (EngineState::Sleeping, StateEvidence::SleepState, reason.into());
        }
        if let Some(still) = self.still.filter(|still| still.is_frozen(now)) {
            let seconds = now.saturating_duration_since(still.since).as_secs_f64();
            let (running, pages) = (page.running.unwrap_or_default(), still.pages);
            if let Some(paused) = page.paused.filter(|paused| *paused > 0) {
                let reason = format!("{paused} requests are paused, and no token moved for {seconds:.1} s");
                return (EngineState::Sleeping, StateEvidence::Paused, reason.into());
            }
            let reason =
                format!("{running} requests run, and no token moved for {seconds:.1} s over {pages} scrapes");
            return (EngineState::Frozen, StateEvidence::NothingMoves, reason.into());
        }
        if page.says_ready == Some(false) {
            return if self.was_ready {
                let reason = match page.running {
                    Some(running) => {
                        format!("its readiness page says no while it is up; {running} requests still run")
                    }
                    None => "its readiness page says no while it is up".to_owned(),
                };
                (EngineState::Draining, StateEvidence::NotReady, reason.into())
            } else {
                let reason = Cow::Borrowed("its readiness page says no, and never said yes yet");
                (EngineState::Starting, StateEvidence::NotReady, reason)
            };
        }
        self.was_ready = true;
        (EngineState::Ready, StateEvidence::PageRead, Cow::Borrowed("its page was read"))
    }

    /// Counts the pages on which requests run and nothing moves.
    fn follow(&mut self, now: Instant, page: PageEvidence) {
        let stands = page.running.is_some_and(|running| running > 0) && page.moved == Some(false);
        self.still = match self.still {
            // A page that can't tell, the first one or one without running requests is where the time begins.
            _ if !stands => Some(Still { since: now, pages: 0 }),
            Some(still) => Some(Still { pages: still.pages.saturating_add(1), ..still }),
            None => Some(Still { since: now, pages: 0 }),
        };
    }

    fn failed(&mut self, error: &ScrapeError) -> Verdict {
        let closed = std::mem::take(&mut self.closed);
        let (state, evidence) = match error {
            ScrapeError::Url { .. } => (EngineState::WrongEndpoint, StateEvidence::BadUrl),
            ScrapeError::Refused(_) => return self.refused(error),
            ScrapeError::Connect { .. } => (EngineState::Unreachable, StateEvidence::NoConnection),
            ScrapeError::Timeout { .. } | ScrapeError::Late { .. } => {
                (EngineState::Unreachable, StateEvidence::NoAnswer)
            }
            ScrapeError::Closed { .. } => {
                self.closed = closed.saturating_add(1);
                let gone = self.there && self.closed >= GONE_AFTER_CLOSED;
                let state = if gone { EngineState::Gone } else { EngineState::Unreachable };
                (state, StateEvidence::Closed)
            }
            ScrapeError::Broken { .. } => (EngineState::WrongEndpoint, StateEvidence::NotHttp),
            ScrapeError::Unauthorised { .. } => (EngineState::Unauthorised, StateEvidence::Denied),
            ScrapeError::Status { status, .. } => self.status(*status),
            ScrapeError::Redirect { .. } => (EngineState::WrongEndpoint, StateEvidence::Redirected),
            ScrapeError::TooLarge { .. } | ScrapeError::Page(PageError::TooLarge(_)) => {
                (EngineState::WrongEndpoint, StateEvidence::TooLarge)
            }
            ScrapeError::Page(PageError::Unparsable(_) | PageError::Iterations(_)) => {
                (EngineState::WrongEndpoint, StateEvidence::NoMetricsPage)
            }
            ScrapeError::Page(PageError::Unrecognised { .. }) => {
                (EngineState::WrongEndpoint, StateEvidence::ForeignPage)
            }
        };
        self.there |= error.is_answer();
        let reason = match (state, evidence) {
            (EngineState::Follower, _) => {
                "it has no page, as expected of a further node of an engine that spans several".into()
            }
            (EngineState::WrongEndpoint, StateEvidence::NotFound) => format!(
                "{error}, that the engine publishes metrics at all (SGLang: --enable-metrics), and whether it is a \
                 further node of an engine that spans several (follower = true)"
            )
            .into(),
            _ => error.to_string().into(),
        };
        (state, evidence, reason)
    }

    /// A closed port: nothing is known of whatever listens there next.
    fn refused(&mut self, error: &ScrapeError) -> Verdict {
        let was_there = self.there || self.seen.state == EngineState::Gone;
        self.there = false;
        self.was_ready = false;
        self.still = None;
        if was_there {
            let reason =
                Cow::Borrowed("its port is closed, and was open before: the process ended, or starts again");
            (EngineState::Gone, StateEvidence::Refused, reason)
        } else {
            (EngineState::Starting, StateEvidence::Refused, error.to_string().into())
        }
    }

    const fn status(&self, status: u16) -> (EngineState, StateEvidence) {
        match status {
            404 if self.follower => (EngineState::Follower, StateEvidence::NotFound),
            404 => (EngineState::WrongEndpoint, StateEvidence::NotFound),
            // SGLang, and gateways in front of an engine, answer so until the engine serves.
            503 if !self.was_ready => (EngineState::Starting, StateEvidence::HttpStatus),
            500..=599 | 408 | 429 => (EngineState::Unreachable, StateEvidence::HttpStatus),
            _ => (EngineState::WrongEndpoint, StateEvidence::HttpStatus),
        }
    }
}

impl Still {
    fn is_frozen(&self, now: Instant) -> bool {
        self.pages >= FROZEN_PAGES && now.saturating_duration_since(self.since) >= FROZEN_AFTER
    }
}

/// Tells from page to page whether an engine moves.
#[derive(Debug, Default)]
pub struct Movement {
    kv_usage: Option<Ratio>,
}

impl Movement {
    /// What the engine's newest page shows. Beside what comes with tokens, the KV cache is a proof of life: it fills
    /// while a long prompt is prefilled in chunks and no token is counted yet.
    pub fn of(&mut self, update: &EngineUpdate, says_ready: Option<bool>) -> PageEvidence {
        let gauges = &update.gauges;
        let before = std::mem::replace(&mut self.kv_usage, gauges.kv_usage);
        let fills = matches!((before, gauges.kv_usage), (Some(before), Some(now)) if before != now);
        let lives = fills || update.delta.resets > 0;
        PageEvidence {
            running: gauges.running,
            paused: gauges.paused,
            moved: update.delta.progress.map(|progress| progress || lives),
            sleep: gauges.sleep,
            says_ready,
        }
    }
}

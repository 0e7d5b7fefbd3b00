//! The state machine: what it calls what, and what no sequence of looks may bring about.

use std::time::Duration;

use plimsoll_common::{
    engine::{EngineKind, SleepState},
    wire::{EngineState, StateEvidence},
};
use proptest::prelude::*;
use tokio::time::Instant;

use super::{Evidence, PageError, PageEvidence, ScrapeError, Seen, StateMachine, TokenUse};

const PATIENCE: Duration = Duration::from_secs(20);

/// A machine and its clock.
struct Looks {
    machine: StateMachine,
    now: Instant,
}

impl Looks {
    fn new() -> Self {
        let now = Instant::now();
        Self { machine: StateMachine::new(now, false), now }
    }

    fn after(&mut self, ms: u64, evidence: Evidence<'_>) -> Seen {
        self.now += Duration::from_millis(ms);
        self.machine.observe(self.now, evidence, PATIENCE).clone()
    }

    fn failed(&mut self, ms: u64, error: &ScrapeError) -> EngineState {
        self.after(ms, Evidence::Failed(error)).state
    }

    fn page(&mut self, ms: u64, page: PageEvidence) -> EngineState {
        self.after(ms, Evidence::Page(page)).state
    }
}

fn busy(moved: Option<bool>) -> PageEvidence {
    PageEvidence { running: Some(4), moved, ..PageEvidence::default() }
}

fn refused() -> ScrapeError {
    ScrapeError::Refused("127.0.0.1:1".to_owned())
}

fn closed() -> ScrapeError {
    ScrapeError::Closed { address: "127.0.0.1:1".to_owned(), reason: "reset".to_owned() }
}

fn status(status: u16) -> ScrapeError {
    ScrapeError::Status { status, path: "/metrics".to_owned() }
}

fn timeout() -> ScrapeError {
    ScrapeError::Timeout { address: "127.0.0.1:1".to_owned(), after: Duration::from_secs(5) }
}

#[test]
fn a_closed_port_is_a_start_before_anything_was_there_and_an_end_after() {
    let mut looks = Looks::new();
    let seen = looks.after(0, Evidence::Failed(&refused()));
    assert_eq!((seen.state, seen.evidence), (EngineState::Starting, StateEvidence::Refused));
    assert_eq!(looks.failed(1000, &refused()), EngineState::Starting);
    assert_eq!(looks.page(1000, busy(None)), EngineState::Ready);
    let seen = looks.after(1000, Evidence::Failed(&refused()));
    assert_eq!((seen.state, seen.since, seen.changes), (EngineState::Gone, looks.now, 3));
    assert_eq!(looks.failed(1000, &refused()), EngineState::Gone, "as long as nobody is back");
    assert_eq!(looks.page(1000, busy(None)), EngineState::Ready);
}

#[test]
fn silence_is_not_absence() {
    let mut looks = Looks::new();
    looks.page(0, busy(Some(true)));
    assert_eq!(looks.failed(1000, &timeout()), EngineState::Unreachable);
    assert_eq!(looks.failed(1000, &closed()), EngineState::Unreachable, "one cut may be anything");
    assert_eq!(looks.failed(1000, &closed()), EngineState::Gone);
    assert_eq!(looks.failed(1000, &refused()), EngineState::Gone);
}

#[test]
fn three_pages_and_three_seconds_without_a_token_are_a_freeze() {
    let mut looks = Looks::new();
    looks.page(0, busy(Some(true)));
    let moved = looks.now;
    assert_eq!(looks.page(1000, busy(Some(false))), EngineState::Ready);
    assert_eq!(looks.machine.suspects_until(), Some(moved + Duration::from_secs(3)));
    assert_eq!(looks.page(1000, busy(Some(false))), EngineState::Ready);
    let seen = looks.after(1000, Evidence::Page(busy(Some(false))));
    assert_eq!((seen.state, seen.evidence), (EngineState::Frozen, StateEvidence::NothingMoves));
    assert_eq!(seen.since, moved, "since something moved for the last time");
    assert!(
        seen.reason.contains("4 requests run") && seen.reason.contains("3.0 s over 3 scrapes"),
        "{}",
        seen.reason
    );
    assert_eq!(looks.machine.suspects_until(), None, "what is known is not suspected");
    assert_eq!(looks.page(1000, busy(Some(true))), EngineState::Ready, "one token and it lives");
}

#[test]
fn nothing_is_called_frozen_without_evidence() {
    // Pages that can't tell (TensorRT-LLM's gauges move only when a request ends), idle engines, fast scrapes.
    for page in [busy(None), PageEvidence { running: Some(0), ..busy(Some(false)) }, PageEvidence::default()]
    {
        let mut looks = Looks::new();
        for _ in 0..50 {
            assert_eq!(looks.page(1000, page), EngineState::Ready, "{page:?}");
        }
    }
    let mut looks = Looks::new();
    looks.page(0, busy(Some(true)));
    for _ in 0..29 {
        assert_eq!(looks.page(100, busy(Some(false))), EngineState::Ready);
    }
    assert_eq!(looks.page(100, busy(Some(false))), EngineState::Frozen);
    let mut slow = Looks::new();
    slow.page(0, busy(Some(true)));
    assert_eq!(slow.page(15_000, busy(Some(false))), EngineState::Ready, "one page is no pattern");
}

#[test]
fn a_silence_within_a_freeze_does_not_hide_it() {
    let mut looks = Looks::new();
    looks.page(0, busy(Some(true)));
    looks.page(1000, busy(Some(false)));
    looks.page(1000, busy(Some(false)));
    assert_eq!(looks.failed(1000, &timeout()), EngineState::Unreachable);
    assert_eq!(looks.page(1000, busy(Some(false))), EngineState::Frozen);
    assert_eq!(looks.failed(1000, &refused()), EngineState::Gone);
    assert_eq!(looks.page(1000, busy(Some(false))), EngineState::Ready, "another process has another past");
}

#[test]
fn sleep_is_told_by_the_page_and_a_pause_by_what_is_paused() {
    let mut looks = Looks::new();
    let asleep = PageEvidence { sleep: Some(SleepState::WeightsOffloaded), ..PageEvidence::default() };
    let seen = looks.after(0, Evidence::Page(asleep));
    assert_eq!((seen.state, seen.evidence), (EngineState::Sleeping, StateEvidence::SleepState));
    assert!(seen.reason.contains("weights_offloaded"));
    let awake = PageEvidence { sleep: Some(SleepState::Awake), ..PageEvidence::default() };
    assert_eq!(looks.page(1000, awake), EngineState::Ready);
    let paused = PageEvidence { paused: Some(4), ..busy(Some(false)) };
    looks.page(1000, busy(Some(true)));
    looks.page(1000, paused);
    assert_eq!(looks.page(1000, paused), EngineState::Ready);
    let seen = looks.after(1000, Evidence::Page(paused));
    assert_eq!((seen.state, seen.evidence), (EngineState::Sleeping, StateEvidence::Paused));
}

#[test]
fn who_is_not_ready_starts_before_it_served_and_drains_after() {
    let says = |says_ready| PageEvidence { says_ready: Some(says_ready), ..busy(Some(true)) };
    let mut looks = Looks::new();
    assert_eq!(looks.failed(0, &status(503)), EngineState::Starting);
    assert_eq!(looks.page(1000, says(false)), EngineState::Starting);
    assert_eq!(looks.page(1000, says(true)), EngineState::Ready);
    let seen = looks.after(1000, Evidence::Page(says(false)));
    assert_eq!((seen.state, seen.evidence), (EngineState::Draining, StateEvidence::NotReady));
    assert_eq!(looks.failed(1000, &status(503)), EngineState::Unreachable, "it served: 503 is no start");
    assert_eq!(looks.failed(1000, &refused()), EngineState::Gone);
    assert_eq!(looks.page(1000, says(false)), EngineState::Starting, "the next process has not served yet");
}

#[test]
fn a_stuck_engine_that_says_not_ready_is_frozen() {
    let stuck = PageEvidence { says_ready: Some(false), ..busy(Some(false)) };
    let mut looks = Looks::new();
    looks.page(0, busy(Some(true)));
    for _ in 0..2 {
        looks.page(1000, stuck);
    }
    assert_eq!(looks.page(1000, stuck), EngineState::Frozen);
}

#[test]
fn answers_that_are_no_page_are_told_apart() {
    let page = "/metrics".to_owned();
    let cases = [
        (
            ScrapeError::Unauthorised { status: 401, path: page.clone(), token: TokenUse::NotConfigured },
            EngineState::Unauthorised,
            StateEvidence::Denied,
        ),
        (status(404), EngineState::WrongEndpoint, StateEvidence::NotFound),
        (status(405), EngineState::WrongEndpoint, StateEvidence::HttpStatus),
        (status(500), EngineState::Unreachable, StateEvidence::HttpStatus),
        (
            ScrapeError::Redirect { path: page, to: "http://a/".to_owned() },
            EngineState::WrongEndpoint,
            StateEvidence::Redirected,
        ),
        (ScrapeError::TooLarge { limit: 1 }, EngineState::WrongEndpoint, StateEvidence::TooLarge),
        (
            ScrapeError::Page(PageError::Unrecognised {
                kind: Some(EngineKind::Vllm),
                shown: None,
                samples: 3,
            }),
            EngineState::WrongEndpoint,
            StateEvidence::ForeignPage,
        ),
        (
            ScrapeError::Broken { address: "a".to_owned(), reason: "x".to_owned() },
            EngineState::WrongEndpoint,
            StateEvidence::NotHttp,
        ),
    ];
    for (error, state, evidence) in cases {
        let seen = Looks::new().after(0, Evidence::Failed(&error));
        assert_eq!((seen.state, seen.evidence), (state, evidence), "{error}");
        assert!(seen.reason.contains(&error.to_string()[..20]), "{}", seen.reason);
    }
}

#[test]
fn a_follower_has_no_page_and_that_is_fine() {
    let now = Instant::now();
    let mut machine = StateMachine::new(now, true);
    let missing = status(404);
    let seen = machine.observe(now, Evidence::Failed(&missing), PATIENCE);
    assert_eq!((seen.state, seen.evidence), (EngineState::Follower, StateEvidence::NotFound));
    let seen = machine.observe(now, Evidence::Failed(&refused()), PATIENCE).state;
    assert_eq!(seen, EngineState::Gone, "its server went away, page or none");
    assert_eq!(machine.observe(now, Evidence::Page(busy(None)), PATIENCE).state, EngineState::Ready);
}

#[test]
fn old_evidence_shows_nothing_about_now() {
    let mut looks = Looks::new();
    let seen = looks.after(0, Evidence::Page(busy(None)));
    assert_eq!(seen.as_of(looks.now + PATIENCE), seen);
    let later = seen.as_of(looks.now + PATIENCE + Duration::from_secs(1));
    assert_eq!((later.state, later.evidence), (EngineState::Pending, StateEvidence::NothingRead));
    assert!(later.reason.contains("21 s") && later.reason.contains("ready"), "{}", later.reason);
}

/// One look of a random sequence.
#[derive(Debug, Clone)]
enum Step {
    Failed(u8),
    Page(PageEvidence),
}

fn errors() -> Vec<ScrapeError> {
    vec![
        refused(),
        closed(),
        timeout(),
        status(404),
        status(503),
        status(401),
        ScrapeError::TooLarge { limit: 1 },
        ScrapeError::Connect { address: "a".to_owned(), reason: "unreachable".to_owned() },
        ScrapeError::Late { address: "a".to_owned(), after: Duration::from_secs(2) },
        ScrapeError::Page(PageError::Unrecognised { kind: None, shown: None, samples: 0 }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let sleep = prop_oneof![
        3 => Just(None),
        2 => Just(Some(SleepState::Awake)),
        1 => Just(Some(SleepState::DiscardAll))
    ];
    let page = (
        prop::option::of(0u64..3),
        prop::option::of(0u64..2),
        prop::option::weighted(0.8, any::<bool>()),
        sleep,
        prop::option::of(any::<bool>()),
    )
        .prop_map(|(running, paused, moved, sleep, says_ready)| PageEvidence {
            running,
            paused,
            moved,
            sleep,
            says_ready,
        });
    prop_oneof![2 => any::<u8>().prop_map(Step::Failed), 5 => page.prop_map(Step::Page)]
}

proptest! {
    /// Whatever is seen in whichever order and at whatever times, backwards too, no state claims more than its evidence:
    /// ready and draining and sleeping need a page just read; frozen needs running requests, a page without movement,
    /// and three seconds and pages of it; gone needs that something was there. Nothing panics, and nothing changes
    /// without a look.
    #[test]
    fn no_state_claims_more_than_its_evidence(
        steps in prop::collection::vec((step(), -2_000i64..3_000), 1..200)
    ) {
        let errors = errors();
        let start = Instant::now() + Duration::from_secs(3600);
        let mut machine = StateMachine::new(start, false);
        let (mut now, mut changes, mut answered) = (start, 0, false);
        let mut still: Vec<Instant> = Vec::new();
        for (step, ms) in steps {
            now = match u64::try_from(ms) {
                Ok(ms) => now + Duration::from_millis(ms),
                Err(_) => now.checked_sub(Duration::from_millis(ms.unsigned_abs())).unwrap_or(now),
            };
            let before = machine.seen().clone();
            let (seen, page) = match &step {
                Step::Failed(which) => {
                    let error = &errors[usize::from(*which) % errors.len()];
                    if matches!(error, ScrapeError::Refused(_)) {
                        still.clear();
                    }
                    let seen = machine.observe(now, Evidence::Failed(error), PATIENCE).clone();
                    answered |= error.is_answer();
                    (seen, None)
                }
                Step::Page(page) => {
                    if page.running.is_some_and(|n| n > 0) && page.moved == Some(false) {
                        still.push(now);
                    } else {
                        still = vec![now];
                    }
                    answered = true;
                    (machine.observe(now, Evidence::Page(*page), PATIENCE).clone(), Some(page))
                }
            };
            match (seen.state, page) {
                (EngineState::Frozen, Some(page)) => {
                    prop_assert!(page.running.unwrap() > 0 && page.moved == Some(false));
                    prop_assert!(still.len() > 3);
                    prop_assert_eq!(seen.since, still[0]);
                    prop_assert!(now.saturating_duration_since(seen.since) >= Duration::from_secs(3));
                }
                (EngineState::Ready, Some(page)) => prop_assert!(page.says_ready != Some(false)),
                (EngineState::Draining, Some(page)) => prop_assert_eq!(page.says_ready, Some(false)),
                (EngineState::Sleeping, Some(page)) => {
                    prop_assert!(page.sleep.is_some_and(|s| s != SleepState::Awake) || page.paused.unwrap() > 0);
                }
                (EngineState::Gone, None) => prop_assert!(answered),
                (EngineState::Frozen | EngineState::Ready | EngineState::Draining | EngineState::Sleeping, None) => {
                    prop_assert!(false, "{:?} without a page", seen.state);
                }
                _ => {}
            }
            changes += u64::from(seen.state != before.state);
            prop_assert_eq!(seen.changes, changes);
            prop_assert_eq!(seen.told, now);
        }
    }

    /// A freeze shows within 5 s of the last token when the engine is read once a second, whenever it froze between two
    /// pages, whatever the delays of the scrapes are, and although its pages take up to 0.4 s to come from then on.
    #[test]
    fn a_freeze_shows_within_five_seconds(
        stall_ms in 0u64..1000,
        slow_ms in prop::collection::vec(0u64..400, 8),
        late_ms in prop::collection::vec(0u64..50, 8),
    ) {
        let ms = Duration::from_millis;
        let begun = Instant::now();
        let mut machine = StateMachine::new(begun, false);
        machine.observe(begun, Evidence::Page(busy(Some(true))), PATIENCE);
        let (mut due, mut shown) = (begun + ms(1000), None);
        for (n, (slow, late)) in slow_ms.iter().zip(&late_ms).enumerate() {
            let read = due + ms(slow + late);
            // Tokens came until the stall, so that the first page after it shows movement.
            let moved = n == 0 && stall_ms > 0;
            if machine.observe(read, Evidence::Page(busy(Some(moved))), PATIENCE).state == EngineState::Frozen {
                shown = Some(read);
                break;
            }
            // As the scraper does it.
            let told = machine.suspects_until().map(|until| until.saturating_duration_since(due));
            due += told.filter(|told| *told < ms(2000)).map_or_else(|| ms(1000), |told| told.max(ms(1000)));
        }
        let took = shown.unwrap().duration_since(begun + ms(stall_ms));
        prop_assert!(took <= Duration::from_secs(5), "{took:?}");
    }
}

use proptest::prelude::*;
use tokio::time::Instant;

use super::{roll::MAX_GPUS, *};
use crate::gpu::{
    event::GpuEventKind,
    plan::Tier,
    scripted::{Scripted, ScriptedGpu, call_of},
    source::RawEvent,
};

const SECOND: Duration = Duration::from_secs(1);

thread_local! {
    /// The test's own time.
    static NOW: std::cell::Cell<Instant> = std::cell::Cell::new(Instant::now());
}

fn clock() -> Instant {
    NOW.get()
}

fn of_tier(tier: Tier) -> impl Iterator<Item = Metric> {
    Metric::ALL.iter().copied().filter(move |metric| metric.tier() == tier)
}

struct Bench {
    driver: Scripted,
    sampler: Sampler,
    meter: Meter,
}

impl Bench {
    fn new(uuids: &[&'static str]) -> Self {
        Self { driver: Scripted::with(uuids), sampler: Sampler::new(SECOND), meter: Meter::new(clock) }
    }

    fn enumerate(&mut self, scope: Scope) -> Result<(), Outage> {
        self.sampler.enumerate(&mut self.driver.clone(), &mut self.meter, scope)
    }

    /// A tick a second after the one before.
    fn tick(&mut self) -> Vec<GpuReading> {
        NOW.set(NOW.get() + SECOND);
        self.sampler.tick(&mut self.driver.clone(), &mut self.meter).unwrap()
    }

    fn states(&mut self) -> Vec<(String, u32, GpuStatus)> {
        self.tick().into_iter().map(|gpu| (gpu.info.uuid.to_string(), gpu.info.index, gpu.state)).collect()
    }
}

fn row(uuid: &str, index: u32, state: GpuStatus) -> (String, u32, GpuStatus) {
    (uuid.to_owned(), index, state)
}

#[test]
fn healthy_gpus_tell_everything() {
    let mut bench = Bench::new(&["GPU-a", "GPU-b"]);
    bench.enumerate(Scope::All).unwrap();
    let readings = bench.tick();
    let first = &readings[0];
    assert_eq!(first.state, GpuStatus::Ok);
    assert_eq!((first.utilization_percent, first.memory_activity_percent), (Some(97), Some(41)));
    assert_eq!((first.power_mw, first.temperature_c), (Some(300_000), Some(61)));
    assert_eq!((first.memory_used_bytes, first.info.memory_total_bytes), (Some(40 << 30), Some(80 << 30)));
    assert_eq!(first.info.name.as_deref(), Some("model of GPU-a"));
    assert_eq!(first.info.pci_bus_id, None);
    assert_eq!(bench.sampler.health(&readings), (SourceState::Healthy, None));
    assert_eq!(bench.sampler.inventory(), 1);
}

#[test]
fn facts_are_asked_once_and_metrics_at_their_cadence() {
    let mut bench = Bench::new(&["GPU-a", "GPU-b"]);
    bench.enumerate(Scope::All).unwrap();
    for _ in 0..10 {
        bench.tick();
        bench.enumerate(Scope::Changes).unwrap();
    }
    assert_eq!(bench.driver.calls(Call::DeviceName), 2);
    assert_eq!(bench.driver.calls(Call::PowerUsage), 20);
    // Two facts at the start and twenty readings use this one.
    assert_eq!(bench.driver.calls(Call::MemoryInfo), 22);
    let slow = bench.driver.calls(Call::Temperature);
    assert!((2..=4).contains(&slow), "the second time comes early, then it is every ten seconds: {slow}");
    assert_eq!(bench.sampler.inventory(), 1, "nothing changed");
    let total: u64 = Call::ALL.iter().map(|call| bench.driver.calls(*call)).sum();
    assert_eq!(bench.meter.calls(), total, "every call is counted");
}

#[test]
fn values_carry_when_they_were_asked_and_end_when_they_are_old() {
    let mut bench = Bench::new(&["GPU-a"]);
    bench.enumerate(Scope::All).unwrap();
    bench.tick();
    let mut oldest = Duration::ZERO;
    for _ in 0..60 {
        let reading = bench.tick().remove(0);
        assert_eq!(reading.taken.of(Metric::Power), Some(clock()));
        let taken = reading.taken.of(Metric::Temperature).unwrap();
        oldest = oldest.max(clock() - taken);
        assert_eq!(reading.temperature_c, Some(61));
    }
    assert_eq!(oldest, 9 * SECOND);
    // Nothing is believed for ever: here the clock jumps, and nothing was asked in between.
    NOW.set(clock() + 60 * SECOND);
    bench.driver.world().gpus[0].failing.extend(of_tier(Tier::Fast));
    let reading = bench.tick().remove(0);
    assert_eq!((reading.power_mw, reading.taken.of(Metric::Power)), (None, None));
}

#[test]
fn a_metric_that_is_not_supported_is_absent_and_asked_once() {
    let mut bench = Bench::new(&["GPU-a", "GPU-b"]);
    bench.driver.world().gpus[0].unsupported.insert(Metric::Utilization);
    bench.enumerate(Scope::All).unwrap();
    for _ in 0..5 {
        let readings = bench.tick();
        assert_eq!(readings[0].utilization_percent, None);
        assert!(readings[0].unsupported.contains("utilization_percent"));
        assert!(!readings[1].unsupported.contains("utilization_percent"));
        assert_eq!(readings[0].state, GpuStatus::Ok);
        assert_eq!(readings[1].utilization_percent, Some(97));
    }
    assert_eq!(bench.driver.calls(Call::UtilizationRates), 1 + 5);
}

#[test]
fn a_failing_call_degrades_its_gpu_only_and_only_while_it_fails() {
    let mut bench = Bench::new(&["GPU-a", "GPU-b"]);
    bench.enumerate(Scope::All).unwrap();
    bench.driver.world().gpus[1].failing.insert(Metric::Power);
    let readings = bench.tick();
    assert_eq!(readings[0].state, GpuStatus::Ok);
    assert_eq!((readings[1].state, readings[1].power_mw), (GpuStatus::Degraded, None));
    assert_eq!(readings[1].temperature_c, Some(61));
    let (state, detail) = bench.sampler.health(&readings);
    assert_eq!(state, SourceState::Degraded);
    assert_eq!(detail.unwrap(), "GPU-b (index 1): power: an internal driver error occurred");
    bench.driver.world().gpus[1].failing.clear();
    assert_eq!(bench.tick()[1].state, GpuStatus::Ok);
}

#[test]
fn a_gpu_that_answers_nothing_is_lost_and_one_that_supports_nothing_is_degraded() {
    let mut bench = Bench::new(&["GPU-a", "GPU-b", "GPU-c"]);
    bench.enumerate(Scope::All).unwrap();
    bench.driver.world().gpus[0].failing.extend(of_tier(Tier::Fast));
    bench.driver.world().gpus[1].unsupported.extend(Metric::ALL);
    assert_eq!(
        bench.states(),
        [
            row("GPU-a", 0, GpuStatus::Lost),
            row("GPU-b", 1, GpuStatus::Degraded),
            row("GPU-c", 2, GpuStatus::Ok)
        ]
    );
    bench.driver.world().gpus[0].failing.clear();
    assert_eq!(bench.tick()[0].state, GpuStatus::Ok, "errors that pass are asked again");
}

#[test]
fn a_lost_gpu_keeps_its_name_tells_nothing_and_is_left_alone() {
    let mut bench = Bench::new(&["GPU-a", "GPU-b"]);
    bench.enumerate(Scope::All).unwrap();
    bench.tick();
    bench.driver.world().gpus[0].lost = true;
    let asked =
        |bench: &Bench| of_tier(Tier::Fast).map(|metric| bench.driver.calls(call_of(metric))).sum::<u64>();
    let before = asked(&bench);
    for _ in 0..3 {
        let readings = bench.tick();
        assert_eq!(readings[0].state, GpuStatus::Lost);
        assert_eq!(readings[0].info.uuid.as_str(), "GPU-a");
        assert_eq!(readings[0].power_mw, None);
        assert_eq!(readings[1].state, GpuStatus::Ok);
    }
    let fast = of_tier(Tier::Fast).filter(|metric| *metric != Metric::Activity).count() as u64;
    assert_eq!(asked(&bench) - before, 1 + 3 * fast, "one call found the loss");
    assert!(bench.sampler.misses_some());

    // The driver still counts it, but its handle can't be taken.
    bench.enumerate(Scope::Changes).unwrap();
    assert_eq!(bench.states(), [row("GPU-a", 0, GpuStatus::Lost), row("GPU-b", 1, GpuStatus::Ok)]);

    bench.driver.world().gpus[0].lost = false;
    bench.enumerate(Scope::Changes).unwrap();
    assert_eq!(bench.states(), [row("GPU-a", 0, GpuStatus::Ok), row("GPU-b", 1, GpuStatus::Ok)]);
    assert!(!bench.sampler.misses_some());
    assert_eq!(bench.sampler.inventory(), 1, "it is the same inventory all the time");
}

#[test]
fn a_gpu_that_was_lost_before_the_start_is_told_without_a_name() {
    let mut bench = Bench::new(&["GPU-a", "GPU-b"]);
    bench.driver.world().gpus[0].lost = true;
    bench.enumerate(Scope::All).unwrap();
    assert_eq!(bench.states(), [row("GPU-b", 1, GpuStatus::Ok)]);
    let readings = bench.tick();
    let (state, detail) = bench.sampler.health(&readings);
    assert_eq!(state, SourceState::Degraded);
    assert!(detail.unwrap().starts_with("the GPU at index 0 cannot be named: the GPU fell off the bus"));
    assert!(bench.sampler.misses_some());
}

#[test]
fn identity_is_the_uuid_not_the_index() {
    let mut bench = Bench::new(&["GPU-a", "GPU-b", "GPU-c"]);
    bench.enumerate(Scope::All).unwrap();
    // The first is unbound, the others move up, a new one comes.
    {
        let mut world = bench.driver.world();
        world.gpus.remove(0);
        world.gpus.push(ScriptedGpu::new("GPU-d"));
        world.gpus[0].power_mw = 111;
    }
    bench.enumerate(Scope::Changes).unwrap();
    assert_eq!(
        bench.states(),
        [row("GPU-b", 0, GpuStatus::Ok), row("GPU-c", 1, GpuStatus::Ok), row("GPU-d", 2, GpuStatus::Ok)]
    );
    let first = &bench.tick()[0];
    assert_eq!((first.power_mw, first.info.name.as_deref()), (Some(111), Some("model of GPU-b")));
    assert_eq!(bench.sampler.inventory(), 2);
}

#[test]
fn a_repeated_uuid_is_told_and_not_believed() {
    let mut bench = Bench::new(&["GPU-a", "GPU-a"]);
    bench.enumerate(Scope::All).unwrap();
    let readings = bench.tick();
    assert_eq!(readings.len(), 1);
    let (state, detail) = bench.sampler.health(&readings);
    assert_eq!(state, SourceState::Degraded);
    assert!(detail.unwrap().contains("it repeats the UUID GPU-a"));
}

#[test]
fn more_gpus_than_the_limit_are_told() {
    let mut bench = Bench::new(&[]);
    let names: Vec<&'static str> =
        (0..70).map(|i| &*Box::leak(format!("GPU-{i}").into_boxed_str())).collect();
    bench.driver.world().gpus = names.into_iter().map(ScriptedGpu::new).collect();
    bench.enumerate(Scope::All).unwrap();
    let readings = bench.tick();
    assert_eq!(readings.len(), MAX_GPUS as usize);
    assert!(bench.sampler.health(&readings).1.unwrap().contains("at most 64 of this node's 70 GPUs"));
}

#[test]
fn an_outage_ends_the_work_and_forgets_no_name() {
    let mut bench = Bench::new(&["GPU-a"]);
    bench.enumerate(Scope::All).unwrap();
    bench.driver.world().outage = Some(Outage::VersionMismatch);
    let broken = bench.sampler.tick(&mut bench.driver.clone(), &mut bench.meter);
    assert_eq!(broken, Err(Outage::VersionMismatch));
    assert_eq!(bench.enumerate(Scope::All), Err(Outage::VersionMismatch));
    let silent = bench.sampler.silent("the driver does not answer");
    assert_eq!((silent.len(), silent[0].state, silent[0].power_mw), (1, GpuStatus::Stale, None));
    assert_eq!(silent[0].info.name.as_deref(), Some("model of GPU-a"));
    bench.driver.world().outage = None;
    bench.enumerate(Scope::All).unwrap();
    assert_eq!(bench.states(), [row("GPU-a", 0, GpuStatus::Ok)]);
    assert_eq!(bench.sampler.inventory(), 1);
}

#[test]
fn an_event_names_its_gpu_and_79_loses_it() {
    let mut bench = Bench::new(&["GPU-a", "GPU-b"]);
    bench.enumerate(Scope::All).unwrap();
    bench.tick();
    let (a, b) = (GpuUuid::parse("GPU-a").unwrap(), GpuUuid::parse("GPU-b").unwrap());
    let event = |uuid: &GpuUuid, kind| RawEvent { uuid: Some(uuid.clone()), kind };
    bench.driver.world().events = vec![
        event(&a, GpuEventKind::Xid(13)),
        event(&b, GpuEventKind::Xid(79)),
        event(&a, GpuEventKind::Xid(13)),
        event(&a, GpuEventKind::DoubleBitEcc),
    ];
    let readings = bench.tick();
    assert_eq!(readings[0].xids.counts, [(13, 2)].into());
    assert_eq!(readings[0].state, GpuStatus::Ok);
    assert_eq!((readings[1].state, readings[1].power_mw), (GpuStatus::Lost, None));
    assert_eq!(readings[1].xids.last, Some((79, clock())));
    assert!(readings[1].trouble.as_ref().unwrap().contains("XID 79"));
    let newest = bench.sampler.events().newest();
    assert_eq!(newest.iter().map(|event| event.number).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!((newest[3].uuid.as_ref(), newest[3].kind), (Some(&a), GpuEventKind::DoubleBitEcc));
    // It answers again: counters are kept.
    bench.enumerate(Scope::Changes).unwrap();
    let back = bench.tick();
    assert_eq!((back[1].state, back[1].xids.counts.get(&79)), (GpuStatus::Ok, Some(&1)));
}

#[test]
fn a_gpu_that_was_taken_out_is_absent_until_it_is_back() {
    let mut bench = Bench::new(&["GPU-a", "GPU-b"]);
    bench.enumerate(Scope::All).unwrap();
    bench.tick();
    let gone = bench.driver.world().gpus.remove(1);
    bench.enumerate(Scope::Changes).unwrap();
    assert_eq!(bench.states(), [row("GPU-a", 0, GpuStatus::Ok)]);
    let absent = bench.sampler.absent();
    assert_eq!((absent.len(), absent[0].info.uuid.as_str()), (1, "GPU-b"));
    assert!(absent[0].last_seen < clock());
    bench.driver.world().gpus.push(gone);
    bench.enumerate(Scope::Changes).unwrap();
    assert!(bench.sampler.absent().is_empty());
    assert_eq!(bench.states().len(), 2);
    bench.driver.world().gpus.pop();
    bench.enumerate(Scope::Changes).unwrap();
    NOW.set(clock() + Duration::from_hours(25));
    bench.enumerate(Scope::Changes).unwrap();
    assert!(bench.sampler.absent().is_empty(), "nothing is remembered for ever");
}

#[test]
fn another_partition_makes_everything_worth_asking_again() {
    let mut bench = Bench::new(&["GPU-a"]);
    {
        let mut world = bench.driver.world();
        world.gpus[0].mig = Some(true);
        world.gpus[0].unsupported.insert(Metric::Utilization);
    }
    bench.enumerate(Scope::All).unwrap();
    let reading = bench.tick().remove(0);
    assert!(reading.unsupported.contains("utilization_percent") && reading.mig.unwrap().enabled);
    {
        let mut world = bench.driver.world();
        world.gpus[0].mig = Some(false);
        world.gpus[0].unsupported.clear();
    }
    for _ in 0..61 {
        bench.tick();
    }
    let reading = bench.tick().remove(0);
    assert_eq!(reading.utilization_percent, Some(97));
    assert!(!reading.unsupported.contains("utilization_percent"));
}

#[test]
fn no_gpu_is_an_outage() {
    assert_eq!(Bench::new(&[]).enumerate(Scope::All), Err(Outage::NoGpu));
}

#[test]
fn a_long_list_of_troubles_is_cut_and_counted() {
    let mut bench = Bench::new(&["GPU-a", "GPU-b", "GPU-c", "GPU-d", "GPU-e"]);
    bench.enumerate(Scope::All).unwrap();
    for gpu in &mut bench.driver.world().gpus {
        gpu.lost = true;
    }
    let readings = bench.tick();
    let (state, detail) = bench.sampler.health(&readings);
    assert_eq!(state, SourceState::Failed, "no GPU delivers");
    assert!(detail.unwrap().ends_with("; and 2 more"));
}

#[derive(Debug, Clone)]
enum Event {
    Lose(usize),
    Return(usize),
    Swap(usize, usize),
    Unbind(usize),
    Fail(usize),
    Enumerate,
}

fn event() -> impl Strategy<Value = Event> {
    let at = 0usize..6;
    prop_oneof![
        at.clone().prop_map(Event::Lose),
        at.clone().prop_map(Event::Return),
        (at.clone(), at.clone()).prop_map(|(a, b)| Event::Swap(a, b)),
        at.clone().prop_map(Event::Unbind),
        at.prop_map(Event::Fail),
        Just(Event::Enumerate),
    ]
}

fn apply(event: &Event, gpus: &mut Vec<ScriptedGpu>) {
    let n = gpus.len();
    match event {
        Event::Lose(at) if *at < n => gpus[*at].lost = true,
        Event::Return(at) if *at < n => gpus[*at].lost = false,
        Event::Fail(at) if *at < n => drop(gpus[*at].failing.insert(Metric::Power)),
        Event::Swap(a, b) if *a < n && *b < n => gpus.swap(*a, *b),
        Event::Unbind(at) if *at < n && n > 1 => drop(gpus.remove(*at)),
        _ => {}
    }
}

proptest! {
    /// Invariant: whatever happens to the GPUs, after an enumeration every GPU that answers is told under its own UUID
    /// with its own value, no UUID is told twice, no value is told for a lost one, and never more GPUs than the driver
    /// lists.
    #[test]
    fn what_is_told_is_true(events in prop::collection::vec(event(), 1..30)) {
        let mut bench = Bench::new(&["GPU-a", "GPU-b", "GPU-c", "GPU-d", "GPU-e", "GPU-f"]);
        for (at, gpu) in bench.driver.world().gpus.iter_mut().enumerate() {
            gpu.power_mw = at as u64;
        }
        bench.enumerate(Scope::All).unwrap();
        for event in &events {
            apply(event, &mut bench.driver.world().gpus);
            if matches!(event, Event::Enumerate) {
                bench.enumerate(Scope::Changes).unwrap();
            }
            bench.tick();
        }
        bench.enumerate(Scope::Changes).unwrap();
        let readings = bench.tick();
        let world = bench.driver.world().clone();
        prop_assert!(readings.len() <= world.gpus.len());
        let names: BTreeSet<&str> = readings.iter().map(|reading| reading.info.uuid.as_str()).collect();
        prop_assert_eq!(names.len(), readings.len());
        for reading in &readings {
            let truth = world.gpus.iter().find(|gpu| gpu.uuid == reading.info.uuid.as_str());
            match truth {
                Some(gpu) if !gpu.lost => {
                    let expected = (!gpu.failing.contains(&Metric::Power)).then_some(gpu.power_mw);
                    prop_assert_eq!(reading.power_mw, expected);
                }
                _ => {
                    prop_assert_eq!(reading.state, GpuStatus::Lost);
                    prop_assert_eq!(reading.power_mw, None);
                    prop_assert_eq!(reading.utilization_percent, None);
                }
            }
        }
        for gpu in world.gpus.iter().filter(|gpu| !gpu.lost) {
            prop_assert!(names.contains(gpu.uuid));
        }
    }
}

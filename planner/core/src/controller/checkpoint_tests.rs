//! What holds for every checkpoint.

use plimsoll_common::{engine::Role, ids::EngineId, units::Micros};
use proptest::prelude::*;

use super::*;
use crate::{
    controller::tests::{STEP, by_thresholds, calm, name, spec},
    observe::{Engine, Latency, Replicas},
    plan::Limits,
    spec::PoolSpec,
};

fn fleet() -> FleetSpec {
    let prefill = PoolSpec { role: Role::Prefill, ..by_thresholds("b-prefill") };
    let decode = PoolSpec { role: Role::Decode, ..by_thresholds("c-decode") };
    FleetSpec {
        interval: STEP,
        limits: Limits { gpus: Some(40), ..Limits::default() },
        pools: vec![spec("a"), prefill, decode],
    }
}

/// One window of one pool: anything that a page may tell, nonsense included.
fn window() -> impl Strategy<Value = Observation> {
    let pools = prop::sample::select(vec!["a", "b-prefill", "c-decode", "unknown"]);
    let latency = (0u64..2_000, 0u64..5_000_000_000, prop::option::of((0u64..2_000, 0u64..2_000)))
        .prop_map(|(count, sum, within)| Latency { count, sum: Micros(sum), within });
    let noise = (prop::option::of(any::<f64>()), prop::option::of(0u64..300), latency);
    (pools, 0u32..6, 0.0..30.0_f64, noise, prop::collection::vec(0u64..400_000_000, 0..3)).prop_map(
        |(pool, ready, rps, (kv_utilization, waiting, latency), times)| {
            let mut seen = calm(pool, ready, rps);
            let times: Vec<Micros> = times.into_iter().map(Micros).collect();
            seen.replicas = Replicas { starting: times.clone(), started_in: times, ..seen.replicas };
            let noisy = Engine {
                kv_utilization,
                waiting,
                ttft: latency,
                itl: latency,
                queue_time: latency,
                prompt_lengths: vec![(1_000, latency.count)],
                ..Engine::default()
            };
            seen.engines.insert(EngineId::parse("noisy").unwrap(), noisy);
            seen
        },
    )
}

fn play(controller: &mut Controller, from: u64, steps: &[Vec<Observation>]) -> Vec<Vec<u8>> {
    let step = |(n, seen): (u64, &Vec<Observation>)| {
        for one in seen {
            controller.observe(one.clone());
        }
        rmp_serde::to_vec_named(&controller.step(Micros(n * STEP.0))).unwrap()
    };
    (from..).zip(steps).map(step).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    /// Invariant: whatever was observed, a controller restored from a written checkpoint decides and explains all that
    /// comes as the one that went on does, byte for byte, and its own checkpoint is the same.
    #[test]
    fn a_restored_controller_is_the_one_that_was_saved(
        steps in prop::collection::vec(prop::collection::vec(window(), 0..4), 2..14),
        cut in any::<prop::sample::Index>(),
        between in any::<bool>(),
    ) {
        let cut = cut.index(steps.len());
        let mut went_on = Controller::new(fleet(), Tuning::default());
        play(&mut went_on, 1, &steps[..cut]);
        let mut rest = steps[cut..].to_vec();
        if between {
            // What was observed and not yet learned is in the checkpoint, too.
            for one in rest[0].drain(..) {
                went_on.observe(one);
            }
        }
        let written = went_on.checkpoint().to_bytes().unwrap();
        let read = Checkpoint::from_bytes(&written).unwrap();
        let (mut restored, done) = Controller::restore(fleet(), Tuning::default(), read);
        prop_assert!(done.same_policy && done.fresh.is_empty() && done.dropped.is_empty(), "{done:?}");
        prop_assert_eq!(&restored.checkpoint().to_bytes().unwrap(), &written);
        let next = cut as u64 + 1;
        prop_assert_eq!(play(&mut restored, next, &rest), play(&mut went_on, next, &rest));
        prop_assert_eq!(restored.checkpoint().to_bytes().unwrap(), went_on.checkpoint().to_bytes().unwrap());
    }

    /// Invariant: no bytes make reading a checkpoint panic.
    #[test]
    fn bytes_that_are_no_checkpoint_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(Checkpoint::from_bytes(&bytes).is_err());
    }
}

fn learned() -> Controller {
    let mut controller = Controller::new(fleet(), Tuning::default());
    let seen = || vec![calm("a", 2, 6.0), calm("b-prefill", 2, 6.0), calm("c-decode", 2, 6.0)];
    play(&mut controller, 1, &[seen(), seen(), seen(), seen()]);
    controller
}

#[test]
fn pools_come_and_go_with_the_policy() {
    let mut changed = fleet();
    changed.pools.retain(|pool| pool.name != name("b-prefill"));
    changed.pools.push(spec("new"));
    let (controller, done) = Controller::restore(changed, Tuning::default(), learned().checkpoint());
    assert!(!done.same_policy);
    assert_eq!(done.restored, [name("a"), name("c-decode")]);
    assert_eq!(done.fresh, [name("new")]);
    assert_eq!(done.dropped, [name("b-prefill")]);
    assert!(!controller.pools.contains_key(&name("b-prefill")));
}

#[test]
fn a_pool_that_cannot_be_read_starts_afresh_and_the_others_go_on() {
    let mut checkpoint = learned().checkpoint();
    checkpoint.pools.insert(name("a"), Saved::Packed(ByteBuf::from(vec![0xc1; 20])));
    let (_, done) = Controller::restore(fleet(), Tuning::default(), checkpoint);
    assert_eq!(done.fresh, [name("a")]);
    assert_eq!(done.restored.len(), 2);
}

#[test]
fn a_checkpoint_that_is_cut_or_of_another_format_is_refused() {
    let mut checkpoint = learned().checkpoint();
    let written = checkpoint.to_bytes().unwrap();
    for end in (0..written.len()).step_by(97) {
        assert!(Checkpoint::from_bytes(&written[..end]).is_err(), "{end}");
    }
    checkpoint.version = 99;
    let error = Checkpoint::from_bytes(&checkpoint.to_bytes().unwrap()).unwrap_err();
    assert_eq!(error, CheckpointError::Version { found: 99 });
}

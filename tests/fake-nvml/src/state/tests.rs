use proptest::prelude::*;

use super::*;

fn scenario(name: &str) -> Scenario {
    Scenario::load(name).unwrap()
}

fn constant(utilization: f64) -> Scenario {
    let text = format!(
        "extends = \"hgx-h100-8\"\n[load]\nutilization_percent = {{ const = {utilization} }}\n\
         memory_used_mib = {{ const = 1024 }}\n"
    );
    Scenario::parse(&text, "test", std::path::Path::new("")).unwrap()
}

fn close(left: f64, right: f64) -> bool {
    (left - right).abs() <= 1e-6 * right.abs().max(1.0)
}

#[test]
fn everything_follows_from_utilization() {
    let scenario = constant(50.0);
    let readings = Readings::at(&scenario, 0, 10.0, None);
    assert!(close(readings.power_w, 72.0 + 0.5 * (640.0 - 72.0)));
    assert!(close(readings.temperature_c, 48.0));
    assert!(close(readings.memory_temperature_c, 56.0));
    assert_eq!(readings.memory_used_bytes, 1024 * MIB);
    assert!(close(readings.pcie_tx_bytes_per_s, 150.0 * MIB as f64));
    assert_eq!(readings.clock_event_reasons, 0);
}

#[test]
fn an_idle_gpu_rests_and_says_so() {
    let readings = Readings::at(&constant(0.0), 0, 10.0, None);
    assert!(close(readings.power_w, 72.0) && close(readings.sm_clock_mhz, 345.0));
    assert_eq!(readings.clock_event_reasons, 0x1);
}

#[test]
fn an_engine_takes_the_place_of_the_load() {
    let activity =
        Activity { utilization_percent: 100.0, memory_used_bytes: u64::MAX, processes: Vec::new() };
    let scenario = constant(10.0);
    let readings = Readings::at(&scenario, 0, 10.0, Some(&activity));
    assert!(close(readings.utilization_percent, 100.0) && close(readings.power_w, 640.0));
    assert_eq!(readings.memory_used_bytes, (81559 - 551) * MIB);
}

#[test]
fn a_given_power_is_capped_at_the_limit() {
    let text = "extends = \"hgx-h100-8\"\n[load]\nutilization_percent = { const = 100 }\n\
                memory_used_mib = { const = 0 }\npower_w = { const = 900 }\n";
    let scenario = Scenario::parse(text, "test", std::path::Path::new("")).unwrap();
    let readings = Readings::at(&scenario, 3, 1.0, None);
    assert!(close(readings.power_w, 700.0));
    assert_eq!(readings.clock_event_reasons, 0x4);
}

#[test]
fn gpus_of_a_node_are_shifted_in_time() {
    let scenario = scenario("hgx-h100-8");
    let later = Readings::at(&scenario, 0, 15.0, None);
    let neighbour = Readings::at(&scenario, 1, 0.0, None);
    assert!(close(later.utilization_percent, neighbour.utilization_percent));
}

#[test]
fn counters_are_the_integral() {
    let scenario = constant(50.0);
    let mut counters = Counters::default();
    let totals = counters.advance(100.25, |at| Readings::at(&scenario, 0, at, None));
    assert!(close(totals.energy_j, 356.0 * 100.25));
    assert!(close(totals.busy_s, 50.125));
    assert_eq!(counters.advance(50.0, |_| unreachable!("the past is done")), totals);
}

proptest! {
    // Invariant: whatever the times of reading, totals never fall, and on the grid they do not depend on earlier reads.
    #[test]
    fn totals_never_fall(mut times in prop::collection::vec(0.0..600.0_f64, 1..40)) {
        times.sort_by(f64::total_cmp);
        let scenario = scenario("hgx-h100-8");
        let read = |at| Readings::at(&scenario, 2, at, None);
        let mut counters = Counters::default();
        let mut last = Totals::default();
        for at in times {
            let totals = counters.advance(at, read);
            prop_assert!(totals.energy_j >= last.energy_j && totals.busy_s >= last.busy_s);
            prop_assert!(totals.nvlink_tx_bytes >= last.nvlink_tx_bytes);
            last = totals;
        }
        let often = counters.advance(600.0, read);
        let once = Counters::default().advance(600.0, read);
        prop_assert!(close(often.energy_j, once.energy_j));
    }

    // Invariant: readings stay within what the board can do, for any activity.
    #[test]
    fn readings_stay_possible(utilization in -1e9..1e9_f64, memory: u64, at in 0.0..1e8_f64, index in 0_usize..8) {
        let scenario = scenario("gb200-tray");
        let activity = Activity { utilization_percent: utilization, memory_used_bytes: memory, processes: Vec::new() };
        for activity in [None, Some(&activity)] {
            let readings = Readings::at(&scenario, index, at, activity);
            prop_assert!((0.0..=100.0).contains(&readings.utilization_percent));
            prop_assert!((0.0..=100.0).contains(&readings.memory_utilization_percent));
            prop_assert!(readings.memory_used_bytes <= (189_471 - 653) * MIB);
            prop_assert!((0.0..=1200.0).contains(&readings.power_w));
            prop_assert!(readings.sm_clock_mhz <= 2062.0);
        }
    }
}

//! Loads the shared library through the real nvml-wrapper crate, as the agent does, and reads everything.
//!
//! What the library shows is chosen by the environment, and it keeps its state per process, so every case runs in a
//! process of its own: the test starts this binary again for the ignored case of the same name.

#![expect(
    clippy::unwrap_used,
    reason = "the cases are tests, though the lint does not see it through the macro"
)]

mod boards;
mod changes;
mod inventory;
mod lifecycle;
mod raw;
mod sampling;
mod support;

/// Pairs of a test and the case that it runs in a process of its own.
macro_rules! cases {
    ($($name:ident: $case:path, { $($variable:ident = $value:expr),* };)*) => {
        $(
            #[test]
            fn $name() {
                support::in_child(concat!("cases::", stringify!($name)), &[$((stringify!($variable), $value)),*]);
            }
        )*
        mod cases {
            $(
                #[test]
                #[ignore = "run by the test of the same name, with an environment"]
                fn $name() {
                    $case();
                }
            )*
        }
    };
}

cases! {
    hgx_board_inventory: crate::inventory::hgx_board, { SCENARIO = "hgx-h100-8", NODE = "node-a" };
    gb200_tray_inventory: crate::inventory::gb200_tray, { SCENARIO = "gb200-tray" };
    hgx_board_samples: crate::sampling::board, { SCENARIO = "hgx-h100-8" };
    gb200_tray_samples: crate::sampling::board, { SCENARIO = "gb200-tray" };
    gpm_between_two_samples: crate::sampling::gpm, { SCENARIO = "gb200-tray" };
    pcie_throughput_blocks: crate::sampling::pcie_throughput_blocks, { SCENARIO = "hgx-h100-8" };
    a_shared_epoch_goes_on: crate::sampling::a_shared_epoch_goes_on, {
        SCENARIO = "hgx-h100-8", EPOCH = &support::seconds_ago(3600)
    };
    engines_drive_their_gpus: crate::sampling::engines_drive_their_gpus, {
        SCENARIO = "hgx-h100-8", ACTIVITY = &support::scratch("engines")
    };
    processes_are_listed: crate::sampling::processes, {
        SCENARIO = &support::scenario("processes", "extends = \"hgx-h100-8\"\n[[process]]\ngpu = 1\npid = 77\n\
            name = \"/opt/vllm/worker\"\nmemory_mib = 70000\nsm_percent = 80\n")
    };
    calls_are_logged: crate::lifecycle::calls_are_logged, {
        SCENARIO = "hgx-h100-8", CALL_LOG = &support::scratch("calls")
    };
    calls_cost_what_the_scenario_says: crate::lifecycle::calls_cost, {
        SCENARIO = &support::scenario("costs", "extends = \"hgx-h100-8\"\n[costs]\nnvmlDeviceGetPowerUsage = 5000\n")
    };
    events_time_out: crate::lifecycle::events_time_out, { SCENARIO = "hgx-h100-8" };
    without_a_scenario_there_is_no_driver: crate::lifecycle::no_driver, {};
    a_wrong_scenario_is_an_error: crate::lifecycle::wrong_scenario, {
        SCENARIO = &support::scenario("wrong", "extends = \"hgx-h100-8\"\n[load]\nutilisation_percent = 3\n")
    };
    counters_outlive_a_shutdown: crate::lifecycle::counters_outlive_a_shutdown, { SCENARIO = "hgx-h100-8" };
    fabric_of_a_board: crate::raw::fabric_of_a_board, { SCENARIO = "hgx-h100-8" };
    fabric_of_a_tray: crate::raw::fabric_of_a_tray, { SCENARIO = "gb200-tray" };
    older_drivers_know_older_layouts: crate::raw::older_driver, {
        SCENARIO = &support::scenario("older", "extends = \"gb200-tray\"\n[driver]\nversion = \"570.86.15\"\n\
            nvml = \"12.570.86.15\"\ncuda = 12080\n")
    };
    null_and_stale_handles_are_refused: crate::raw::null_and_stale, { SCENARIO = "hgx-h100-8" };
    hgx_a100: crate::boards::hgx_a100, { SCENARIO = "hgx-a100-8" };
    hgx_b200: crate::boards::hgx_b200, { SCENARIO = "hgx-b200-8" };
    hgx_b200_with_a_cluster: crate::boards::hgx_b200_cluster, { SCENARIO = "hgx-b200-8-cluster" };
    pcie_bridges: crate::boards::pcie_bridges, { SCENARIO = "pcie-a100-bridge-4" };
    pcie_alone: crate::boards::pcie_alone, { SCENARIO = "pcie-l40s-4" };
    a_tray_of_another_rack: crate::boards::a_tray_of_another_rack, {
        SCENARIO = "gb200-tray-clique-32766", CLUSTER = "11111111-1111-1111-1111-111111111111", CHASSIS = "RACK-B",
        SLOT = "12", TRAY = "17"
    };
    a_gpu_falls_off_the_bus: crate::changes::a_gpu_falls_off_the_bus, {
        SCENARIO = "hgx-h100-8", CONTROL = &support::scratch("falls"), EPOCH = &support::seconds_ago(600)
    };
    gpus_are_removed_and_added: crate::changes::gpus_are_removed_and_added, {
        SCENARIO = "hgx-h100-8", CONTROL = &support::scratch("removed")
    };
    the_driver_is_reloaded_and_upgraded: crate::changes::the_driver_is_reloaded_and_upgraded, {
        SCENARIO = "hgx-h100-8", CONTROL = &support::scratch("driver")
    };
    a_call_hangs_until_it_is_released: crate::changes::a_call_hangs_until_it_is_released, {
        SCENARIO = "hgx-h100-8", CONTROL = &support::scratch("hangs")
    };
    errors_and_throttling_show: crate::changes::errors_and_throttling_show, {
        SCENARIO = &support::scenario("errors", "extends = \"hgx-h100-8\"\n[[timeline]]\nat_s = 0\ndo = [\n\
            \"ecc 0 uncorrected 2\", \"ecc-rate 0 corrected 1000\", \"remap 0 1 2 pending\", \"recovery 0 1\",\n\
            \"throttle 0 hw_thermal,hw_slowdown 600\", \"retire 0 3 1 pending\", \"link 0 4 down\", \"link-errors 0 4 crc 9\"]\n"),
        CONTROL = &support::scratch("errors")
    };
    a_gpu_is_split: crate::changes::a_gpu_is_split, {
        SCENARIO = &support::scenario("split", "extends = \"hgx-h100-8\"\n[[process]]\ngpu = 0\npid = 77\n\
            name = \"/opt/vllm/worker\"\nmemory_mib = 7000\ngpu_instance = 7\n"),
        CONTROL = &support::scratch("split")
    };
    video_engines: crate::sampling::video_engines, {
        SCENARIO = &support::scenario("video", "extends = \"hgx-h100-8\"\n[load]\nutilization_percent = { const = 60 }\n\
            memory_used_mib = { const = 1000 }\nencoder_percent = { const = 15 }\ndecoder_percent = { const = 35 }\n")
    };
    errors_of_nvlink_5: crate::changes::errors_of_nvlink_5, {
        SCENARIO = "gb200-tray", CONTROL = &support::scratch("nvlink5")
    };
    fields_by_link: crate::raw::fields_by_link, { SCENARIO = "gb200-tray" };
}

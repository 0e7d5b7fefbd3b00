use std::path::Path;

use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Result<Scenario, Error> {
    Scenario::parse(text, "test.toml", Path::new("/scenarios"))
}

fn message(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

#[test]
fn built_in_scenarios_are_complete() {
    let board = Scenario::load("hgx-h100-8").unwrap();
    assert_eq!((board.gpus.len(), board.device.memory_mib), (8, 81559));
    assert_eq!(board.fabric.unwrap().cluster_uuid, "00000000-0000-0000-0000-000000000000");
    let tray = Scenario::load("gb200-tray").unwrap();
    assert_eq!((tray.gpus.len(), tray.fabric.unwrap().clique_id), (4, 2));
    assert_eq!(tray.driver.release(), (580, 95));
    for name in ["hgx-h100-8", "gb200-tray"] {
        assert_eq!(Scenario::load(name).unwrap().name, name);
    }
}

#[test]
fn extending_replaces_whole_sections() {
    let scenario = parse(
        "extends = \"gb200-tray\"\nname = \"mine\"\nactivity = \"load\"\n[load]\n\
         utilization_percent = { const = 5 }\nmemory_used_mib = { const = 9 }\n\
         [costs]\nnvmlDeviceGetPowerUsage = 40\n",
    )
    .unwrap();
    assert_eq!(scenario.name, "mine");
    assert_eq!(scenario.activity.unwrap(), Path::new("/scenarios/load"));
    assert_eq!(scenario.load.utilization_percent, Wave::Const(5.0));
    assert!(scenario.load.shift_per_gpu_s.abs() < f64::EPSILON);
    assert_eq!(scenario.costs["nvmlDeviceGetPowerUsage"], 40);
    assert_eq!(scenario.gpus.len(), 4);
}

#[test]
fn unknown_keys_are_refused_with_their_line() {
    let text = "extends = \"hgx-h100-8\"\n\n[load]\nutilisation_percent = { const = 5 }\n";
    let told = message(text);
    assert!(told.starts_with("test.toml:4:1: unknown field `utilisation_percent`"), "{told}");
    let told = message(
        "extends = \"hgx-h100-8\"\n[load]\nutilization_percent = { sine = { mean = 1, period = 2 } }\n",
    );
    assert!(told.starts_with("test.toml:3:"), "{told}");
}

#[test]
fn senseless_values_are_refused_with_line_and_key() {
    let load = |wave: &str| {
        message(&format!(
            "extends = \"hgx-h100-8\"\n[load]\nmemory_used_mib = {{ const = 1 }}\nutilization_percent = {wave}\n"
        ))
    };
    for wave in [
        "{ const = nan }",
        "{ sine = { mean = 1, amplitude = inf, period_s = 1 } }",
        "{ ramp = { from = 1, to = 2, over_s = 0 } }",
        "{ square = { low = 1, high = 2, period_s = 1, duty = 1.5 } }",
    ] {
        assert!(load(wave).starts_with("test.toml:4: load.utilization_percent: "), "{wave}: {}", load(wave));
    }
    let told = message("extends = \"hgx-h100-8\"\n[costs]\nPowerUsage = 4\n");
    assert!(told.starts_with("test.toml:3: costs.PowerUsage: name the C function"), "{told}");
    let told = message(
        "extends = \"hgx-h100-8\"\n[[gpu]]\npci = \"1B:0\"\nnuma_node = 0\ncpus = \"7-3\"\nmodule_id = 1\n",
    );
    assert!(told.starts_with("test.toml:5: gpu.cpus: "), "{told}");
    let told =
        message("extends = \"hgx-h100-8\"\n[[process]]\ngpu = 8\npid = 1\nname = \"x\"\nmemory_mib = 1\n");
    assert!(told.contains("process.gpu: there is no GPU"), "{told}");
}

#[test]
fn what_is_missing_is_named() {
    assert!(message("").starts_with("test.toml:1: name: missing"));
    assert!(message("extends = \"dgx-1\"").contains("take one of: gb200-tray, "));
    assert!(Scenario::load("h100").unwrap_err().to_string().contains("one of: gb200-tray, "));
    assert!(Scenario::load("./nowhere.toml").unwrap_err().to_string().contains("./nowhere.toml"));
}

#[test]
fn notations_are_read() {
    assert_eq!(pci_address("00000008:01:00.0"), Some((8, 1, 0)));
    assert_eq!(pci_address("0000:DF:1f.0"), Some((0, 0xdf, 0x1f)));
    assert_eq!(pci_address("1b:00.0"), Some((0, 0x1b, 0)));
    assert_eq!(pci_address("100:00.0"), None);
    assert_eq!(cpu_words("0-1,64").unwrap(), [3, 1]);
    assert_eq!(cpu_words("0-99999"), None);
    assert_eq!(cluster_uuid_bytes("00000000-0000-0000-0000-0000000000ff").unwrap()[15], 0xff);
    assert_eq!(cluster_uuid_bytes("0-0-0-0-0"), None);
    assert_eq!(cluster_uuid_bytes("+0000000-0000-0000-0000-0000000000ff"), None);
}

proptest! {
    // Invariant: no text makes the parser panic, and a refusal names the file.
    #[test]
    fn any_text_is_answered(text in "(extends = \"hgx-h100-8\"\n)?[\\[\\]a-z_= 0-9.\"\n\u{e9}]{0,200}") {
        if let Err(error) = parse(&text) {
            prop_assert!(error.to_string().starts_with("test.toml:"));
        }
    }

    // Invariant: no notation makes its parser panic.
    #[test]
    fn any_notation_is_answered(text in "\\PC{0,40}") {
        let _ = (pci_address(&text), cpu_words(&text), cluster_uuid_bytes(&text));
    }
}

//! Where the node stands: variables that make one scenario many nodes of many racks.

use crate::scenario::{Scenario, cluster_uuid_bytes};

/// Sets cluster UUID, clique, chassis, slot and tray from the environment, as far as it has them.
pub(super) fn apply(
    scenario: &mut Scenario,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<(), String> {
    let fault =
        |name: &str, value: &str, form: &str| format!("PLIMSOLL_FAKE_NVML_{name}={value:?}: must be {form}");
    let missing = |name: &str, section: &str| {
        format!("PLIMSOLL_FAKE_NVML_{name}: the scenario has no [{section}] section: choose one that has")
    };
    if let Some(uuid) = variable("CLUSTER") {
        cluster_uuid_bytes(&uuid).ok_or_else(|| fault("CLUSTER", &uuid, "8-4-4-4-12 hexadecimal digits"))?;
        scenario.fabric.as_mut().ok_or_else(|| missing("CLUSTER", "fabric"))?.cluster_uuid = uuid;
    }
    if let Some(clique) = variable("CLIQUE") {
        let number = clique.parse().map_err(|_| fault("CLIQUE", &clique, "a whole number"))?;
        scenario.fabric.as_mut().ok_or_else(|| missing("CLIQUE", "fabric"))?.clique_id = number;
    }
    if let Some(chassis) = variable("CHASSIS") {
        if chassis.len() > 16 || !chassis.is_ascii() {
            return Err(fault("CHASSIS", &chassis, "at most 16 ASCII characters"));
        }
        scenario.platform.as_mut().ok_or_else(|| missing("CHASSIS", "platform"))?.chassis_serial = chassis;
    }
    for name in ["SLOT", "TRAY"] {
        if let Some(value) = variable(name) {
            let number = value.parse().map_err(|_| fault(name, &value, "0 to 255"))?;
            let platform = scenario.platform.as_mut().ok_or_else(|| missing(name, "platform"))?;
            *(if name == "SLOT" { &mut platform.slot } else { &mut platform.tray }) = number;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(name: &str, variables: &[(&str, &str)]) -> Result<Scenario, String> {
        let mut scenario = Scenario::load(name).map_err(|error| error.to_string())?;
        let find = |wanted: &str| {
            variables.iter().find(|(name, _)| *name == wanted).map(|(_, value)| (*value).to_owned())
        };
        apply(&mut scenario, find).map(|()| scenario)
    }

    #[test]
    fn a_tray_is_put_into_a_rack() {
        let uuid = "11111111-2222-3333-4444-555555555555";
        let variables =
            [("CLUSTER", uuid), ("CLIQUE", "7"), ("CHASSIS", "RACK-B"), ("SLOT", "12"), ("TRAY", "17")];
        let scenario = placed("gb200-tray", &variables).unwrap();
        let (fabric, platform) = (scenario.fabric.unwrap(), scenario.platform.unwrap());
        assert_eq!((fabric.cluster_uuid.as_str(), fabric.clique_id), (uuid, 7));
        assert_eq!((platform.chassis_serial.as_str(), platform.slot, platform.tray), ("RACK-B", 12, 17));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (name, value) in
            [("CLUSTER", "rack"), ("CLIQUE", "-1"), ("CHASSIS", "longer-than-sixteen"), ("TRAY", "256")]
        {
            let told = placed("gb200-tray", &[(name, value)]).unwrap_err();
            assert!(told.starts_with(&format!("PLIMSOLL_FAKE_NVML_{name}=")), "{told}");
        }
        assert!(placed("pcie-l40s-4", &[("CLIQUE", "1")]).unwrap_err().contains("no [fabric] section"));
    }
}

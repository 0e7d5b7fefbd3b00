//! Scenarios that are part of the library.

const BUILT_IN: [(&str, &str); 8] = [
    ("gb200-tray", include_str!("../../scenarios/gb200-tray.toml")),
    ("gb200-tray-clique-32766", include_str!("../../scenarios/gb200-tray-clique-32766.toml")),
    ("hgx-a100-8", include_str!("../../scenarios/hgx-a100-8.toml")),
    ("hgx-b200-8", include_str!("../../scenarios/hgx-b200-8.toml")),
    ("hgx-b200-8-cluster", include_str!("../../scenarios/hgx-b200-8-cluster.toml")),
    ("hgx-h100-8", include_str!("../../scenarios/hgx-h100-8.toml")),
    ("pcie-a100-bridge-4", include_str!("../../scenarios/pcie-a100-bridge-4.toml")),
    ("pcie-l40s-4", include_str!("../../scenarios/pcie-l40s-4.toml")),
];

/// The text of a built-in scenario.
pub(crate) fn text(name: &str) -> Option<&'static str> {
    BUILT_IN.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

/// The names, for messages.
pub(crate) fn names() -> String {
    BUILT_IN.map(|(name, _)| name).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;

    #[test]
    fn every_one_is_valid_and_named_as_it_is_asked_for() {
        for (name, _) in BUILT_IN {
            assert_eq!(Scenario::load(name).unwrap().name, name);
        }
    }
}

//! Scenarios that are part of the library.

const BUILT_IN: [(&str, &str); 2] = [
    ("gb200-tray", include_str!("../../scenarios/gb200-tray.toml")),
    ("hgx-h100-8", include_str!("../../scenarios/hgx-h100-8.toml")),
];

/// The text of a built-in scenario.
pub(crate) fn text(name: &str) -> Option<&'static str> {
    BUILT_IN.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

/// The names, for messages.
pub(crate) fn names() -> String {
    BUILT_IN.map(|(name, _)| name).join(", ")
}

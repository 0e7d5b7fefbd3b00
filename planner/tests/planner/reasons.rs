//! Reason codes are promises: what the documentation lists is what there is.

use std::{collections::BTreeSet, path::Path};

use plimsoll_core::explain::Reason;

#[test]
fn every_reason_is_documented_and_none_that_is_not_there() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/policy.md");
    let text = std::fs::read_to_string(page).unwrap();
    let section = text.split("\n## ").find(|section| section.starts_with("Reasons\n")).unwrap();
    let code = |line: &'_ str| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned());
    let told: BTreeSet<String> = section.lines().filter_map(code).collect();
    let known: BTreeSet<String> = Reason::ALL.iter().map(|reason| reason.as_str().to_owned()).collect();
    assert_eq!(told, known);
}

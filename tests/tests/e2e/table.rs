//! The table of faults in `docs/operations.md` names tests that there are.

use std::{fs, path::Path};

/// The source of the tests that a name in the table stands for.
fn source(root: &Path, name: &str) -> String {
    let places = [
        format!("tests/tests/e2e/{name}.rs"),
        format!("planner/tests/planner/{name}.rs"),
        format!("tests/tests/{name}/main.rs"),
    ];
    let found: Vec<_> = places.iter().filter_map(|place| fs::read_to_string(root.join(place)).ok()).collect();
    assert_eq!(found.len(), 1, "'{name}' stands for {} of {places:?}", found.len());
    found.concat()
}

#[test]
fn every_line_of_the_table_of_faults_names_tests_that_there_are() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let page = fs::read_to_string(root.join("docs/operations.md")).unwrap();
    let table = page.split("## Faults").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!(rows.len() >= 20, "{} rows", rows.len());
    let mut before = Vec::new();
    for row in rows {
        let held_by = row.trim_matches('|').split(" | ").last().unwrap().trim();
        let named: Vec<&str> = held_by.split('`').skip(1).step_by(2).collect();
        let named = if held_by == "the same" { before.clone() } else { named };
        let mut text = source(root, named.first().unwrap_or_else(|| panic!("no test in: {row}")));
        for name in named.iter().skip(1) {
            let prefix = name.trim_end_matches('…');
            if prefix == *name && !name.contains("_") {
                text = source(root, name);
            } else {
                let whole = if prefix == *name { format!("fn {name}(") } else { format!("fn {prefix}") };
                assert!(text.contains(&whole), "no {whole} for: {row}");
            }
        }
        before = named;
    }
}

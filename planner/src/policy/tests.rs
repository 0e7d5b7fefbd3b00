//! Policies as data files, with what is told of each; and texts that are none.

use std::{fs, path::Path};

use plimsoll_core::policy::{Policy, Severity};
use proptest::prelude::*;

use super::*;

fn built_in(name: &str) -> Result<Profile, String> {
    profile(Path::new("/nowhere"), name)
}

/// Every file of a folder beside `planner/tests/policies`, by name.
fn files(folder: &str) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "yaml" || end == "json"))
        .map(|path| (path.display().to_string(), fs::read_to_string(&path).unwrap()))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

fn told(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("{problem}\n")).collect()
}

#[test]
fn good_policies_are_fine() {
    let examples = files("../docs/examples").into_iter().filter(|(name, _)| name.contains("policy"));
    for (name, text) in files("tests/policies/good").into_iter().chain(examples) {
        let checked = parse(&text, &mut built_in).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(checked.problems.is_empty(), "{name}:\n{}", told(&checked.problems));
    }
}

/// What is told of each bad policy stands beside it in a text file. To write them anew after a change of words, run with
/// PLIMSOLL_WRITE_EXPECTED=1 and read the difference.
#[test]
fn bad_policies_are_told_what_is_wrong_and_where() {
    for (name, text) in files("tests/policies/bad").into_iter().chain(files("tests/policies/odd")) {
        let (problems, refused) = match parse(&text, &mut built_in) {
            Ok(checked) => (checked.problems, false),
            Err(error) => (error.problems(), true),
        };
        assert_eq!(refused, name.contains("/bad/"), "{name}:\n{}", told(&problems));
        assert!(!problems.is_empty(), "{name} is fine");
        let is_error = |problem: &Problem| problem.severity == Severity::Error;
        assert_eq!(problems.iter().any(is_error), refused, "{name}");
        let beside = Path::new(&name).with_extension("expected");
        if std::env::var_os("PLIMSOLL_WRITE_EXPECTED").is_some() {
            fs::write(&beside, told(&problems)).unwrap();
        }
        assert_eq!(told(&problems), fs::read_to_string(&beside).unwrap_or_default(), "{name}");
    }
}

#[test]
fn what_was_understood_can_be_written_and_read_again() {
    for (name, text) in files("tests/policies/good") {
        let policy: Policy = serde_saphyr::from_str(&text).unwrap();
        let json = serde_json::to_string(&policy).unwrap();
        let again: Policy = serde_json::from_str(&json).unwrap();
        assert_eq!(again, policy, "{name}");
        // JSON is YAML: the same reader takes both.
        let again: Policy = serde_saphyr::from_str(&json).unwrap();
        assert_eq!(again, policy, "{name}");
    }
}

#[test]
fn a_written_out_profile_is_taken() {
    let profile = serde_json::to_string(&Profile::built_in("llama-3.1-8b-h200-tp1").unwrap()).unwrap();
    let text = format!(
        "models: [{{name: a, slo: {{itl: {{limit: 1s}}}}, pools: [{{name: p, max: 1, profile: {profile}}}]}}]"
    );
    let checked = parse(&text, &mut built_in).unwrap();
    assert_eq!(checked.policy.models[0].pools[0].profile().unwrap().name, "llama-3.1-8b-h200-tp1");
}

#[test]
fn a_text_that_grows_when_it_is_read_is_refused() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..12 {
        let reference = format!("*a{}, ", n - 1).repeat(10);
        text += &format!("a{n}: &a{n} [{reference}]\n");
    }
    assert!(parse(&text, &mut built_in).is_err());
    let deep = format!("models: {}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(parse(&deep, &mut built_in).is_err());
}

proptest! {
    // No text makes the reader panic, and what is refused says why.
    #[test]
    fn no_text_panics(text in "\\PC*") {
        if let Err(error) = parse(&text, &mut built_in) {
            prop_assert!(!error.problems().is_empty());
        }
    }

    // The same for texts that are nearly a policy: one line of a good one is replaced, doubled or lost.
    #[test]
    fn nearly_a_policy_never_panics(
        which in any::<prop::sample::Index>(),
        line in any::<prop::sample::Index>(),
        with in prop_oneof![
            Just(String::new()),
            "[ ]{0,8}(name|max|min|limit|isl|dp|value|gpus): ?(-1|0|1e400|\\.nan|\\.inf|~|\\[\\]|\\{\\}|4294967296|x)",
            "[ \\[\\]{}:,&*!|>'\"%@`#a-c0-9-]{0,30}",
        ],
    ) {
        let good = files("tests/policies/good");
        let (_, text) = which.get(&good);
        let mut lines: Vec<&str> = text.lines().collect();
        let at = line.index(lines.len());
        lines[at] = &with;
        if let Err(error) = parse(&lines.join("\n"), &mut built_in) {
            prop_assert!(!error.problems().is_empty());
        }
    }
}

//! Tables of measured and estimated iteration times, as others publish them.
//!
//! `PLIMSOLL_DATA=DIR cargo test -p plimsoll-profiles --test published -- --nocapture`, with the tables in `DIR/profiles`.

use std::path::Path;

use plimsoll_engine::Engine;
use plimsoll_profiles::{Form, Keep, Options, import};

#[test]
fn published_tables_are_fitted_or_kept() {
    let Ok(folder) = std::env::var("PLIMSOLL_DATA") else {
        println!("SKIPPED: published tables need PLIMSOLL_DATA, a folder with profiles/*.json");
        return;
    };
    let mut paths: Vec<_> = std::fs::read_dir(Path::new(&folder).join("profiles"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    let (mut kept, mut fitted) = (0, 0);
    for path in paths {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if name == "fits" || name == "cold_start" || name.starts_with("measured_splitwise") {
            // Of another kind: they say so.
            assert!(import(&[path], &Options::default()).is_err(), "{name}");
            continue;
        }
        let imported = import(std::slice::from_ref(&path), &Options::default())
            .unwrap_or_else(|error| panic!("{error}"));
        Engine::new(imported.profile.engine_config()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let errors = imported.errors.unwrap();
        println!("{name}: {:?}, {}", imported.form, errors.in_words());
        // One dense model's table is odd by itself: its prompts behind a prefix take longer than without one.
        let bound = if name.starts_with("aic_qwen3-32b-bf16_gb200") { 0.17 } else { 0.10 };
        assert!(errors.prefill.mean < bound && errors.decode.mean < bound, "{name}: {errors:?}");
        let experts = name.contains("deepseek") && !name.contains("dp16");
        assert_eq!(imported.form == Form::Table, experts, "{name}");
        if experts {
            kept += 1
        } else {
            fitted += 1
        }
        let table = import(&[path], &Options { keep: Keep::Table, ..Options::default() }).unwrap();
        // A kept table gives prompts without a prefix and decodes back.
        let own = table.rows.iter().filter(|row| row.phase() != "mixed" && row.cached_tokens == 0);
        for row in own {
            assert!(row.error().abs() < 0.06, "{name}: {row:?}");
        }
    }
    println!("{kept} kept, {fitted} fitted");
    assert!(kept > 0 && fitted > 0);
}

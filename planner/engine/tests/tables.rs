//! Tables of measured and estimated iteration times, as others publish them.
//!
//! `PLIMSOLL_DATA=DIR cargo test -p plimsoll-engine --test tables -- --nocapture`, with the tables in `DIR/profiles`.

use plimsoll_engine::{Engine, Profile, StepShape};

#[test]
#[expect(clippy::disallowed_methods, reason = "the tables are read from where somebody says")]
fn published_tables_give_their_own_rows_back() {
    let Ok(folder) = std::env::var("PLIMSOLL_DATA") else {
        println!("SKIPPED: published tables need PLIMSOLL_DATA, a folder with profiles/*.json");
        return;
    };
    let mut paths: Vec<_> =
        std::fs::read_dir(format!("{folder}/profiles")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut read = 0;
    for path in paths {
        let text = std::fs::read_to_string(&path).unwrap();
        let sheet: serde_json::Value = serde_json::from_str(&text).unwrap();
        // Those without a KV cache's size are of another kind, and say so.
        if sheet["max_kv_tokens_per_engine"].is_null() {
            assert!(Profile::from_table_json(&text).is_err(), "{}", path.display());
            continue;
        }
        let profile =
            Profile::from_table_json(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Engine::new(profile.engine_config()).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        for row in sheet["prefill"].as_array().unwrap() {
            let (tokens, ms) = (row[0].as_f64().unwrap(), row[1].as_f64().unwrap());
            let shape = StepShape {
                prefill_tokens: tokens as u64,
                prefill_attention: tokens * tokens / 2.0,
                ..StepShape::default()
            };
            let ours = profile.timing.duration(&shape).as_millis_f64();
            assert!((ours / ms - 1.0).abs() < 0.02, "{}: {tokens} tokens {ours} {ms}", path.display());
        }
        read += 1;
    }
    println!("{read} tables");
    assert!(read > 0);
}

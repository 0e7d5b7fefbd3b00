//! Files as profilers write them, read through the crate's front door.

use std::path::{Path, PathBuf};

use plimsoll_engine::{Engine, StepShape};
use plimsoll_profiles::{Form, ImportError, Imported, Keep, Options, Profile, import, load, read};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn imported(name: &str) -> Imported {
    import(&[data(name)], &Options::default()).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn decode_ms(profile: &Profile, sequences: u64, context: u64) -> f64 {
    let shape = StepShape {
        decode_sequences: sequences,
        decode_context: sequences * context,
        ..StepShape::default()
    };
    profile.timing.duration(&shape).as_millis_f64()
}

#[test]
fn every_form_of_the_same_table_is_the_same_profile() {
    let folder = imported("llama-3.1-8b-fp8-h200-tp1");
    assert_eq!(folder.profile.name, "llama-3.1-8b-fp8-h200-tp1");
    assert_eq!((folder.profile.gpus, folder.profile.kv_tokens), (1, 945_029));
    assert_eq!(folder.rows.len(), 17 + 41);
    Engine::new(folder.profile.engine_config()).unwrap();
    for other in ["compressed", "configmap", "configmap.json"] {
        let other = imported(other);
        assert_eq!(other.profile.timing, folder.profile.timing);
        assert_eq!(other.rows, folder.rows);
    }
    let files = ["selected_prefill_interpolation", "selected_decode_interpolation"]
        .map(|part| data("llama-3.1-8b-fp8-h200-tp1").join(part).join("raw_data.npz"));
    let (forth, back) = (files.to_vec(), files.iter().rev().cloned().collect::<Vec<_>>());
    for paths in [forth, back] {
        let both = import(&paths, &Options::default()).unwrap().profile;
        assert_eq!(
            (both.timing, both.name.as_str()),
            (folder.profile.timing.clone(), "llama-3.1-8b-fp8-h200-tp1")
        );
    }
    assert_eq!(read(&data("compressed")).unwrap().timing, folder.profile.timing);
}

#[test]
fn how_good_the_fit_is_and_what_was_assumed_is_told() {
    let measured = imported("compressed");
    assert_eq!(measured.form, Form::Phases);
    let errors = measured.errors.unwrap();
    // The same table was fitted by hand before: 2.6 % and 6.5 %.
    assert!(errors.prefill.mean < 0.03 && errors.decode.mean < 0.07, "{errors:?}");
    assert!(measured.remarks.iter().any(|remark| remark.contains("GPUs: 1")), "{:?}", measured.remarks);
    assert!(measured.profile.source.contains("Dynamo"), "{}", measured.profile.source);
    let told = Options {
        name: Some("mine".to_owned()),
        gpus_per_replica: Some(2),
        kv_tokens: Some(500_000),
        max_model_len: Some(32_768),
        ..Options::default()
    };
    let other = import(&[data("compressed")], &told).unwrap();
    let profile = &other.profile;
    assert_eq!((profile.name.as_str(), profile.gpus), ("mine", 2));
    assert_eq!((profile.kv_tokens, profile.max_model_len), (500_000, 32_768));
    // Shares of the cache stay shares of the cache that was measured.
    assert_eq!(profile.timing, measured.profile.timing);
    assert!(
        other.remarks.iter().any(|remark| remark.contains("of 1 GPUs, and 2 were told")),
        "{:?}",
        other.remarks
    );
}

#[test]
fn a_table_that_is_kept_gives_its_rows_back() {
    let kept = import(&[data("compressed")], &Options { keep: Keep::Table, ..Options::default() }).unwrap();
    assert_eq!(kept.form, Form::Table);
    for row in &kept.rows {
        // Two rows of one sequence at nearly the same context share a place.
        assert!(row.error().abs() < 0.02, "{row:?}");
    }
    // Between the contexts and the numbers of sequences that were measured, it stays between their times.
    let ms = decode_ms(&kept.profile, 100, 4_000);
    let (less, more) = (decode_ms(&kept.profile, 80, 3_000), decode_ms(&kept.profile, 130, 5_600));
    assert!(less < ms && ms < more, "{less} {ms} {more}");
}

#[test]
fn a_grid_for_the_mocker_is_read_back_to_its_formula() {
    let grid = import(&[data("perf_data.npz")], &Options { gpus_per_replica: Some(1), ..Options::default() })
        .unwrap();
    assert_eq!((grid.profile.name.as_str(), grid.profile.kv_tokens), ("perf_data", 945_029));
    for (sequences, context) in [(1, 500), (40, 2_000), (200, 4_000)] {
        let truth = 4.45 + 0.0222 * sequences as f64 + 3.16e-5 * (sequences * context) as f64;
        let ours = decode_ms(&grid.profile, sequences, context);
        assert!((ours / truth - 1.0).abs() < 1e-3, "{sequences} {context}: {ours} {truth}");
    }
}

#[test]
fn ranks_of_an_engine_are_engines_of_their_own() {
    let told = Options { gpus_per_replica: Some(8), ranks: Some(8), ..Options::default() };
    let rank = import(&[data("compressed")], &told).unwrap();
    assert_eq!((rank.profile.gpus, rank.profile.kv_tokens), (1, 945_029 / 8));
    assert!(rank.remarks.iter().any(|remark| remark.contains("dp: 8")), "{:?}", rank.remarks);
    let whole = imported("compressed").profile;
    // 20 sequences of a rank are 160 of the engine.
    let (rank, whole) = (decode_ms(&rank.profile, 20, 3_000), decode_ms(&whole, 160, 3_000));
    assert!((rank / whole - 1.0).abs() < 0.1, "{rank} {whole}");
    let odd = Options { gpus_per_replica: Some(8), ranks: Some(3), ..Options::default() };
    let error = import(&[data("compressed")], &odd).unwrap_err().to_string();
    assert!(error.contains("--gpus-per-replica") && error.contains("3 ranks"), "{error}");
}

#[test]
fn our_own_form_is_taken_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own.json");
    let profile = Profile::built_in("qwen3-32b-h200-tp2").unwrap();
    std::fs::write(&path, serde_json::to_string(&profile).unwrap()).unwrap();
    assert_eq!(load(path.to_str().unwrap()).unwrap(), profile);
    assert_eq!(load("qwen3-32b-h200-tp2").unwrap(), profile);
    assert!(matches!(load("qwen"), Err(ImportError::Unknown(_))));
    let twice = import(&[path.clone(), data("compressed")], &Options::default()).unwrap_err();
    assert!(matches!(twice, ImportError::Twice { .. }), "{twice}");
    let renamed = Options { name: Some("other".to_owned()), ..Options::default() };
    assert_eq!(import(&[path], &renamed).unwrap().profile.name, "other");
}

#[test]
fn what_is_not_there_or_too_large_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let empty = read(folder.path()).unwrap_err().to_string();
    assert!(empty.contains("selected_prefill_interpolation/raw_data.npz"), "{empty}");
    assert!(matches!(read(&folder.path().join("none.json")), Err(ImportError::Unreadable { .. })));
    let large = folder.path().join("large.json");
    std::fs::File::create(&large).unwrap().set_len(20 << 20).unwrap();
    assert!(matches!(read(&large), Err(ImportError::TooLarge { .. })));
    let half = read(&data("compressed/selected_prefill_interpolation")).unwrap_err().to_string();
    assert!(half.contains("no table of decode times") && half.contains("z_itl"), "{half}");
    assert!(matches!(import(&[], &Options::default()), Err(ImportError::Nothing)));
}

//! Files that are wrong: each is refused with what is wrong, where, and what to do; none panics.

use plimsoll_profiles::{Options, Source, import_sources};
use proptest::prelude::*;

const PREFILL: &str = r#"{"prefill_isl": [100, 1000, 4000], "prefill_ttft": [12.0, 30.0, 105.0],
    "prefill_thpt_per_gpu": [8333.3, 33333.3, 38095.2]}"#;
const DECODE: &str = r#"{"x_kv_usage": [0.01, 0.5, 0.5], "y_context_length": [1000, 1000, 5000],
    "z_itl": [10.0, 30.0, 24.0], "max_kv_tokens": 100000}"#;
const SHEET: &str = r#"{"gpus_per_engine": 1, "max_kv_tokens_per_engine": 100000, "prefill_columns": ["isl", "ttft_ms"],
    "prefill": [[100, 12.0], [1000, 30.0]], "decode_columns": ["batch", "context_len", "itl_ms"],
    "decode": [[1, 1000, 10.0], [9, 1000, 14.0]]}"#;

fn sources(texts: &[&str]) -> Vec<Source> {
    let name = |n: usize| ["one", "two", "three"].get(n).map_or("more", |name| *name).to_owned();
    texts
        .iter()
        .enumerate()
        .map(|(n, text)| Source { name: name(n), bytes: text.as_bytes().to_vec() })
        .collect()
}

fn refused(texts: &[&str]) -> String {
    match import_sources(sources(texts), &Options::default()) {
        Ok(imported) => panic!("taken as {:?}", imported.profile),
        Err(error) => error.to_string(),
    }
}

#[track_caller]
fn says(error: &str, words: &[&str]) {
    for word in words {
        assert!(error.contains(word), "{word:?} is not in: {error}");
    }
    assert!(!error.ends_with('.'), "{error}");
}

#[test]
fn numbers_that_cannot_be_are_told_with_their_row() {
    let wrong = |from: &str, to: &str, words: &[&str]| {
        assert!(PREFILL.contains(from) || DECODE.contains(from), "{from}");
        says(&refused(&[&PREFILL.replace(from, to), &DECODE.replace(from, to)]), words);
    };
    wrong("30.0, 105.0", "-30.0, 105.0", &["one", "row 2", "prefill_ttft is -30", "milliseconds"]);
    wrong("30.0, 105.0", "1e999, 105.0", &["one", "number out of range"]);
    wrong("30.0, 105.0", "NaN, 105.0", &["one", "line 1"]);
    wrong("30.0, 105.0", "null, 105.0", &["one", "null", "line 1"]);
    wrong("30.0, 105.0", "\"30\", 105.0", &["one", "string"]);
    wrong("[100, 1000", "[0, 1000", &["row 1", "prefill_isl is 0"]);
    wrong("[100, 1000", "[1e18, 1000", &["row 1", "prefill_isl"]);
    wrong("[0.01, 0.5", "[1, 50", &["two", "row 2", "x_kv_usage is 50", "not per cent"]);
    wrong("100000}", "0}", &["max_kv_tokens is 0"]);
    wrong("100000}", "[100000, 5]}", &["max_kv_tokens has 2 values"]);
    wrong("100000}", "\"many\"}", &["two", "string"]);
    wrong("[10.0, 30.0, 24.0]", "[10.0, 30.0]", &["x_kv_usage has 3 values and z_itl has 2"]);
    wrong("[10.0, 30.0, 24.0]", "[[10.0], [30.0, 24.0]]", &["differ in length"]);
    wrong("[10.0, 30.0, 24.0]", "[0.010, 0.030, 0.024]", &["seconds"]);
    wrong("[12.0, 30.0, 105.0]", "[0.012, 0.03, 0.105]", &["seconds"]);
    wrong("[1000, 1000, 5000]", "[1000, 1000, 0.0]", &["row 3", "y_context_length is 0"]);
    wrong("\"z_itl\"", "\"itl\"", &["the key z_itl is missing", "y_context_length"]);
    wrong(", \"max_kv_tokens\": 100000", "", &["max_kv_tokens is missing"]);
}

#[test]
fn sheets_are_told_by_table_row_and_column() {
    let wrong = |from: &str, to: &str, words: &[&str]| {
        assert!(SHEET.contains(from), "{from}");
        says(&refused(&[&SHEET.replace(from, to)]), words);
    };
    wrong("\"ttft_ms\"", "\"ms\"", &["the column ttft_ms is missing; there are isl, ms"]);
    wrong("\"batch\"", "\"size\"", &["the column kv_usage is missing", "size"]);
    wrong("[1000, 30.0]", "[1000]", &["row 2 of prefill has 1 cells: 2 are needed"]);
    wrong("[1000, 30.0]", "[1000, \"x\"]", &["sheet of named columns", "line 2"]);
    wrong("[9, 1000, 14.0]", "[-9, 1000, 14.0]", &["row 2", "batch is -9"]);
    wrong("\"gpus_per_engine\": 1", "\"gpus_per_engine\": 0", &["--gpus-per-replica cannot be 0"]);
    wrong("\"gpus_per_engine\": 1,", "", &["how many GPUs", "--gpus-per-replica"]);
    wrong("\"max_kv_tokens_per_engine\": 100000,", "", &["KV cache", "--kv-tokens"]);
    wrong(": 100000", ": 1e300", &["max_kv_tokens_per_engine"]);
    wrong(
        "[[100, 12.0], [1000, 30.0]]",
        "[[100, 12.0]]",
        &["prefill has rows of 1 different sizes", "at least 2"],
    );
    wrong("[[100, 12.0], [1000, 30.0]]", "[]", &["no table of prefill times"]);
    wrong("[[1, 1000, 10.0], [9, 1000, 14.0]]", "[]", &["no table of decode times"]);
    let usage =
        SHEET.replace("\"batch\"", "\"kv_usage\"").replace("\"max_kv_tokens_per_engine\": 100000,", "");
    says(
        &refused(&[&usage.replace("[[1,", "[[0.1,").replace("[9,", "[0.9,")]),
        &["max_kv_tokens_per_engine is missing"],
    );
    let many = format!("[{}[1000, 30.0]]", "[100, 12.0],".repeat(60_000));
    wrong("[[100, 12.0], [1000, 30.0]]", &many, &["60001 rows", "50000"]);
}

#[test]
fn files_that_are_something_else_are_told_so() {
    says(&refused(&[]), &["nothing to import"]);
    says(&refused(&[""]), &["one: it is neither JSON text nor an npz archive"]);
    says(&refused(&["models: []"]), &["neither JSON text"]);
    says(&refused(&["{"]), &["begins like JSON", "line 1"]);
    says(&refused(&["[1, 2]"]), &["begins like JSON"]);
    says(
        &refused(&[r#"{"models": [], "interval": 3}"#]),
        &["interval, models", "prefill_isl", "prefill_columns"],
    );
    says(&refused(&[r#"{"timing": {}}"#]), &["not an engine profile"]);
    says(&refused(&["\u{93}NUMPY"]), &["neither JSON"]);
    says(&refused(&[PREFILL]), &["no table of decode times", "z_itl"]);
    says(&refused(&[PREFILL, PREFILL]), &["one and two both have a table of prefill times"]);
    says(&refused(&[SHEET, DECODE]), &["one and two both have a table of decode times"]);
    says(
        &refused(&[r#"{"apiVersion": "v1", "data": {"other": "x"}}"#]),
        &["ConfigMap", "prefill_raw_data.json"],
    );
    let nested =
        r#"{"apiVersion": "v1", "data": {"prefill_raw_data.json": "{\"apiVersion\": 1, \"data\": {}}"}}"#;
    says(&refused(&[nested]), &["nothing to import"]);
    let deep = format!("{{\"prefill_isl\": {}1{}}}", "[".repeat(5_000), "]".repeat(5_000));
    says(&refused(&[&deep]), &["recursion limit"]);
    let bytes = |bytes: &[u8]| {
        let source = Source { name: "one".to_owned(), bytes: bytes.to_vec() };
        import_sources(vec![source], &Options::default()).unwrap_err().to_string()
    };
    says(&bytes(b"\x93NUMPY\x01\x00"), &["one array", "npz"]);
    says(&bytes(b"PK\x03\x04 and no more"), &["the archive can't be read", "cut off"]);
    says(&bytes(&[0xff, 0xfe, 0x00]), &["neither JSON"]);
}

#[test]
fn engines_of_two_sizes_and_absurd_caches_are_no_profile() {
    let two = DECODE.replace('}', ", \"z_thpt_per_gpu\": [50.0, 833.3, 208.3]}");
    says(&refused(&[PREFILL, &two]), &["prefill engine has 1 GPUs and the decode engine 2", "import twice"]);
    let tiny = DECODE.replace("100000", "32").replace("[1000, 1000, 5000]", "[1, 2, 5]");
    let error =
        import_sources(sources(&[PREFILL, &tiny]), &Options { max_model_len: Some(1), ..Options::default() });
    says(&error.unwrap_err().to_string(), &["make no engine", "max_model_len"]);
}

proptest! {
    /// Whatever the bytes: an answer, never a panic.
    #[test]
    fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = import_sources(vec![Source { name: "x".to_owned(), bytes }], &Options::default());
    }

    /// A table with any byte changed is read or refused.
    #[test]
    fn changed_text_is_answered(place in 0_usize..600, byte in 32_u8..127, sheet in any::<bool>()) {
        let texts: &[&str] = if sheet { &[SHEET] } else { &[PREFILL, DECODE] };
        let mut sources = sources(texts);
        let source = place % sources.len();
        let place = place % sources[source].bytes.len();
        sources[source].bytes[place] = byte;
        if let Ok(imported) = import_sources(sources, &Options::default()) {
            prop_assert!(imported.profile.timing.validate().is_ok());
        }
    }
}

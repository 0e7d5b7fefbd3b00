use proptest::prelude::*;

use super::*;

fn lengths(trace: &Trace) -> Vec<(u64, u32, u32)> {
    trace.workload.arrivals().iter().map(|a| (a.at.0, a.prompt_tokens, a.output_tokens)).collect()
}

#[test]
fn every_format_is_told_by_its_first_line() {
    let azure = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n";
    let trace = read("a.csv", azure).unwrap();
    assert_eq!(trace.format, Format::Azure);
    assert_eq!(lengths(&trace), vec![(0, 374, 44), (4_314_579, 396, 109)]);

    let azure_2024 = "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00.009930+00:00,10,4\n2024-05-10 00:00:00.017335+00:00,11,5";
    assert_eq!(lengths(&read("a.csv", azure_2024).unwrap()), vec![(0, 10, 4), (7_405, 11, 5)]);

    let burst = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,ChatGPT,472,18,490,Conversation log\n45.5,GPT-4,30,0,30,API log\n118,GPT-4,1087,230,1317,API log";
    let trace = read("b.csv", burst).unwrap();
    assert_eq!((trace.format, trace.skipped), (Format::BurstGpt, 1));
    assert_eq!(lengths(&trace), vec![(0, 472, 18), (113_000_000, 1_087, 230)]);

    let mooncake = "{\"timestamp\": 27482, \"input_length\": 6955, \"output_length\": 52, \"hash_ids\": [46, 47]}\n{\"timestamp\": 27000, \"input_length\": 600, \"output_length\": 5, \"hash_ids\": [46]}\n";
    let trace = read("m.jsonl", mooncake).unwrap();
    assert_eq!(trace.format, Format::Mooncake);
    assert_eq!(lengths(&trace), vec![(0, 600, 5), (482_000, 6_955, 52)]);
    let arrivals = trace.workload.arrivals();
    assert_eq!(trace.workload.prefix(&arrivals[1]), &[46, 47]);
    assert_eq!(trace.workload.prefix_block_tokens(), 512);

    let plain =
        "# anything\nclient,output_tokens,input_tokens,timestamp_s,model\n7,3,9,1.5,1\r\n8,4,10,1,0\r\n";
    let trace = read("p.csv", plain).unwrap();
    assert_eq!(trace.format, Format::Plain);
    assert_eq!(lengths(&trace), vec![(0, 10, 4), (500_000, 9, 3)]);
    assert_eq!((trace.workload.arrivals()[1].client, trace.workload.arrivals()[1].model), (7, 1));
}

#[test]
fn a_corrupt_line_is_named_with_its_number_and_what_is_wrong() {
    let error = |text: &str| read("trace.csv", text).unwrap_err().to_string();
    let plain = |row: &str| error(&format!("timestamp_ms,input_tokens,output_tokens\n0,5,5\n{row}\n9,5,5\n"));
    assert_eq!(plain("1,5"), "trace.csv:3: there is no column output_tokens: the line has 2 of 3");
    assert_eq!(
        plain("1,many,5"),
        "trace.csv:3: input_tokens is \"many\": give a whole number of tokens below 2^31"
    );
    for row in ["-1,5,5", "NaN,5,5", "1e300,5,5", ",5,5", "1,-5,5", "1,5,4294967295", "1,5,5.5", "\0,5,5"] {
        assert!(plain(row).starts_with("trace.csv:3: "), "{row}: {}", plain(row));
    }
    assert!(error("").contains("trace.csv:1: the trace is empty"));
    assert!(error("timestamp_ms,input_tokens,output_tokens\n").contains("empty"));
    assert!(plain("99999999999999,5,5").contains("days"));
    assert!(error("a,b,c\n1,2,3").starts_with("trace.csv:1: this is no trace"));
    assert!(
        error("TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,1,1").contains("trace.csv:2: TIMESTAMP")
    );
    let json =
        "{\"timestamp\":1,\"input_length\":5,\"output_length\":5}\n{\"timestamp\":2,\"input_length\":5";
    assert!(error(json).starts_with("trace.csv:2: not a request of a Mooncake trace"));
    let long = format!("timestamp_ms,input_tokens,output_tokens\n{},1,1", "9".repeat(10_000));
    assert!(error(&long).len() < 200);
}

proptest! {
    /// No text makes a reader panic.
    #[test]
    fn hostile_text_never_panics(
        header in prop_oneof![
            Just("timestamp_ms,input_tokens,output_tokens\n"), Just("TIMESTAMP,ContextTokens,GeneratedTokens\n"),
            Just("Timestamp,Model,Request tokens,Response tokens\n"), Just("{\"timestamp\":1,"), Just(""),
        ],
        body in "(\\PC|[0-9,.:\\-\n\"{}\\[\\] ]){0,200}",
    ) {
        let _ = read("x", &format!("{header}{body}"));
    }
}

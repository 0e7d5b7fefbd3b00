//! `plimsoll-planner decide`: the decision core for other programs, a line in, a line out.
//!
//! [`Session`] is the whole of it, pure but for the files that a first line names; [`run`] puts standard input and output
//! around it. `docs/protocol.md` describes the lines, with an example that a test runs.

mod answer;
mod args;
mod engine;
mod header;
mod json;
mod latency;
mod lines;
mod memory;
mod pool;
mod session;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use anyhow::Context as _;

pub use args::DecideArgs;
pub use session::Session;

use lines::{Lines, TooLong};

/// Answers every line of standard input by one of standard output, until there are no more.
///
/// # Errors
/// When standard input can't be read or standard output can't be written.
pub fn run(args: &DecideArgs) -> anyhow::Result<ExitCode> {
    answer_all(args, io::stdin().lock(), &mut io::stdout().lock())?;
    Ok(ExitCode::SUCCESS)
}

fn answer_all(args: &DecideArgs, input: impl io::BufRead, output: &mut impl Write) -> anyhow::Result<()> {
    let mut session = Session::new(args.explain);
    let mut lines = Lines::new(input);
    while let Some(line) = lines.next().context("standard input can't be read")? {
        let mut answer = match line {
            Ok(line) => session.answer(line),
            Err(TooLong) => session.refuse(&TooLong.to_string()),
        };
        answer.push('\n');
        // One write a line, and at once: whoever asks waits for it.
        match output.write_all(answer.as_bytes()).and_then(|()| output.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            written => written.context("standard output can't be written")?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FIRST: &str =
        r#"{"policy":{"models":[{"name":"m","target":"latency","pools":[{"name":"a","max":9}]}]}}"#;

    fn json_like() -> impl Strategy<Value = String> {
        let number = prop_oneof![
            Just("1e999".to_owned()),
            Just("-1".to_owned()),
            Just("null".to_owned()),
            Just("NaN".to_owned()),
            Just("\"3\"".to_owned()),
            Just("18446744073709551616".to_owned()),
            (0..1_000_000_u32).prop_map(|n| n.to_string()),
            (-1e9..1e9_f64).prop_map(|n| n.to_string()),
        ];
        let key = prop::sample::select(vec![
            "ready",
            "starting",
            "running",
            "waiting",
            "kv_utilization",
            "gained",
            "totals",
            "draining",
            "ttft_mean_s",
            "itl_mean_s",
            "target",
            "engines",
            "door",
            "silent",
            "started_in_s",
            "nonsense",
        ]);
        let fields = prop::collection::vec((key, number), 0..6).prop_map(|fields| {
            let fields: Vec<String> =
                fields.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
            format!("{{{}}}", fields.join(","))
        });
        (0..200_u32, fields.clone(), fields, any::<bool>()).prop_map(|(time, pool, engine, nested)| {
            if nested {
                format!(r#"{{"time_s":{time},"pools":{{"a":{{"ready":2,"engines":{{"e":{engine}}}}}}}}}"#)
            } else {
                format!(r#"{{"time_s":{time},"pools":{{"a":{pool}}}}}"#)
            }
        })
    }

    fn any_line() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            prop::collection::vec(any::<u8>().prop_filter("no line break", |b| *b != b'\n'), 0..40),
            Just(FIRST.as_bytes().to_vec()),
            json_like().prop_map(String::into_bytes),
            (json_like(), 0..80_usize).prop_map(|(line, cut)| line
                .into_bytes()
                .into_iter()
                .take(cut)
                .collect()),
        ]
    }

    fn answers(lines: &[Vec<u8>]) -> Vec<String> {
        let (mut output, args) = (Vec::new(), DecideArgs { explain: true });
        let mut input: Vec<u8> = lines.join(&b'\n');
        input.push(b'\n');
        answer_all(&args, &input[..], &mut output).unwrap();
        String::from_utf8(output).unwrap().lines().map(str::to_owned).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        // Whatever comes in, one line of JSON goes out for each, targets stay within the bounds, and what is refused moves
        // nothing.
        #[test]
        fn any_bytes_give_one_line_each(mut lines in prop::collection::vec(any_line(), 1..12)) {
            lines.insert(0, FIRST.as_bytes().to_vec());
            let answers = answers(&lines);
            prop_assert_eq!(answers.len(), lines.len());
            for answer in answers {
                let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
                let told = ["error", "ready", "targets"].iter().filter(|key| answer.get(key).is_some()).count();
                prop_assert_eq!(told, 1);
                if let Some(target) = answer["targets"]["a"].as_u64() {
                    prop_assert!((1..=9).contains(&target));
                }
            }
        }
    }

    #[test]
    fn an_end_without_a_line_break_is_a_line_and_no_input_is_none() {
        let mut output = Vec::new();
        answer_all(&DecideArgs { explain: false }, FIRST.as_bytes(), &mut output).unwrap();
        assert_eq!(output.iter().filter(|byte| **byte == b'\n').count(), 1);
        let mut output = Vec::new();
        answer_all(&DecideArgs { explain: false }, &b""[..], &mut output).unwrap();
        assert!(output.is_empty());
    }
}

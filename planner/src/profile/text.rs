//! Profiles for people.

use std::fmt::Write as _;

use plimsoll_engine::{Curve, StepShape};
use plimsoll_profiles::{Errors, Form, Imported, Profile, Row};

use super::hints::Hints;
use crate::check::aligned;

/// Prompts whose times are shown, tokens.
const PROMPTS: [u64; 5] = [256, 1_024, 4_096, 16_384, 65_536];
/// Sequences at once whose times are shown.
const SEQUENCES: [u64; 5] = [1, 8, 32, 128, 256];
/// Their contexts, tokens.
const CONTEXTS: [u64; 3] = [1_024, 4_096, 16_384];

/// What became of the files, in a few lines.
pub(super) fn summary(imported: &Imported) -> String {
    let profile = &imported.profile;
    let mut text = String::new();
    let _ = writeln!(text, "{}", profile.name);
    let mut line = |label: &str, what: String| {
        let _ = writeln!(text, "  {label:<10}{what}");
    };
    let or = |text: &str| if text.is_empty() { "not told".to_owned() } else { text.to_owned() };
    line("model", or(&profile.model));
    line("engine", format!("{} GPU{} ({})", profile.gpus, plural(profile.gpus), or(&profile.gpu)));
    let config = profile.engine_config();
    line(
        "KV cache",
        format!(
            "{} tokens, {} blocks of {}; requests of at most {} tokens",
            profile.kv_tokens, config.kv_blocks, config.block_size, config.max_model_len
        ),
    );
    line("times", formula(&profile.timing.curve));
    if let Some(errors) = &imported.errors {
        line("fit", fit(imported.form, errors));
    }
    line("source", or(&profile.source));
    for remark in &imported.remarks {
        line("remark", remark.clone());
    }
    text
}

/// All that there is to say.
pub(super) fn whole(imported: &Imported, hints: &Hints) -> String {
    let mut text = summary(imported);
    text.push_str(&at_best(hints));
    text.push_str(&times(&imported.profile));
    if !imported.rows.is_empty() {
        text.push_str("\nEvery row of the tables\n");
        text.push_str(&aligned(&rows(&imported.rows)));
    }
    text
}

fn plural(n: u32) -> &'static str {
    if n == 1 { "" } else { "s" }
}

fn formula(curve: &Curve) -> String {
    match curve {
        Curve::Roofline(r) => format!(
            "{} + max({}, {} × tokens) + {} × attended pairs + {} × sequences + {} × KV tokens, ms",
            short(r.a_ms),
            short(r.w_ms),
            short(r.b_ms_per_token),
            short(r.c_ms_per_token_squared),
            short(r.d_ms_per_sequence),
            short(r.e_ms_per_kv_token)
        ),
        Curve::Phases(p) => format!(
            "prefill {} + {} × tokens + {} × attended pairs; decode {} + {} × sequences + {} × KV tokens, ms",
            short(p.prefill_a_ms),
            short(p.prefill_b_ms_per_token),
            short(p.prefill_c_ms_per_token_squared),
            short(p.decode_a_ms),
            short(p.decode_d_ms_per_sequence),
            short(p.decode_e_ms_per_kv_token)
        ),
        Curve::Table(_) => "a table, interpolated".to_owned(),
        _ => "of another form".to_owned(),
    }
}

/// Three significant digits.
fn short(number: f64) -> String {
    match number {
        n if n.abs() < 1e-12 => "0".to_owned(),
        n if n < 1e-3 => format!("{n:.2e}"),
        n if n < 1.0 => format!("{n:.4}"),
        n => format!("{n:.2}"),
    }
}

fn fit(form: Form, errors: &Errors) -> String {
    let worst = [Some(errors.prefill), Some(errors.decode), errors.mixed];
    let worst = worst.into_iter().flatten().map(|phase| phase.worst).fold(0.0, f64::max);
    let form = match form {
        Form::Own => "a profile already",
        Form::Roofline => "one line with a roofline",
        Form::Phases => "prefill and decode apart",
        Form::Table => "the table is kept",
    };
    let rows = errors.prefill.rows + errors.decode.rows + errors.mixed.map_or(0, |mixed| mixed.rows);
    format!("{form}; off by {} on the mean of {rows} rows, at most {:.0} %", errors.in_words(), worst * 100.0)
}

fn at_best(hints: &Hints) -> String {
    let ms = |seconds: f64| format!("{:.1} ms", seconds * 1e3);
    let mut text = format!("\nAt best, with prompts of {} and outputs of {} tokens\n", hints.isl, hints.osl);
    let (Some(ttft), Some(itl)) = (hints.ttft_s, hints.itl_s) else {
        let _ = writeln!(text, "  such a request does not fit the engine");
        return text;
    };
    let _ = writeln!(text, "  alone     TTFT {}, ITL {}", ms(ttft), ms(itl));
    let within = ms(hints.itl_limit_s);
    let _ = writeln!(
        text,
        "  at once   {} within an ITL of {within}; the KV cache holds {}",
        hints.sequences, hints.fit
    );
    if let Some(most) = hints.most_rps {
        let _ = writeln!(
            text,
            "  at most   {most:.2} requests/s, if nothing ever waited; `simulate` tells how many keep an SLO"
        );
    }
    text
}

/// Iteration times at round sizes that the engine can have.
fn times(profile: &Profile) -> String {
    let ms = |shape: StepShape| format!("{:.1}", profile.timing.duration(&shape).as_millis_f64());
    let fits = |tokens: u64| tokens <= u64::from(profile.kv_tokens);
    let mut rows = vec![vec!["PROMPT".to_owned(), "MS".to_owned()]];
    for tokens in PROMPTS.into_iter().filter(|tokens| fits(*tokens)) {
        let attention = (tokens * tokens) as f64 / 2.0;
        let shape =
            StepShape { prefill_tokens: tokens, prefill_attention: attention, ..StepShape::default() };
        rows.push(vec![tokens.to_string(), ms(shape)]);
    }
    let mut text = format!("\nPrompts in one iteration\n{}", aligned(&rows));
    let head = CONTEXTS.map(|context| format!("MS AT {context}"));
    let mut rows = vec![[vec!["SEQUENCES".to_owned()], head.to_vec()].concat()];
    for sequences in SEQUENCES {
        let cell = |context: u64| {
            let shape = StepShape {
                decode_sequences: sequences,
                decode_context: sequences * context,
                ..StepShape::default()
            };
            if fits(sequences * context) { ms(shape) } else { "no room".to_owned() }
        };
        rows.push([vec![sequences.to_string()], CONTEXTS.map(cell).to_vec()].concat());
    }
    let _ = write!(text, "\nDecodes, by context\n{}", aligned(&rows));
    text
}

fn rows(rows: &[Row]) -> Vec<Vec<String>> {
    let head = ["PHASE", "PROMPT", "CACHED", "SEQUENCES", "CONTEXT", "TABLE MS", "PROFILE MS", "OFF"];
    let count = |n: u64| if n == 0 { "-".to_owned() } else { n.to_string() };
    let row = |row: &Row| {
        vec![
            row.phase().to_owned(),
            count(row.prompt_tokens),
            count(row.cached_tokens),
            count(row.sequences),
            count(row.context),
            format!("{:.2}", row.table_ms),
            format!("{:.2}", row.profile_ms),
            format!("{:+.1} %", row.error() * 100.0),
        ]
    };
    std::iter::once(head.map(str::to_owned).to_vec()).chain(rows.iter().map(row)).collect()
}

/// The built-in profiles, a line each.
pub(super) fn list(profiles: &[Profile]) -> String {
    let head = ["NAME", "GPUS", "KV TOKENS", "SOURCE"].map(str::to_owned).to_vec();
    let row = |profile: &Profile| {
        let gpus = format!("{} × {}", profile.gpus, profile.gpu);
        vec![profile.name.clone(), gpus, profile.kv_tokens.to_string(), profile.source.clone()]
    };
    aligned(&std::iter::once(head).chain(profiles.iter().map(row)).collect::<Vec<_>>())
}

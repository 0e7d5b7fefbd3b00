//! From files to a profile: tables put together, a form chosen, and how far it is from every row.

use std::collections::BTreeMap;

use plimsoll_engine::{Curve, Profile, Timing};
use serde::Serialize;

use crate::{
    error::ImportError,
    fit, grid,
    rows::{Errors, Measured, Row},
    source::{Content, Source},
    tables::Tables,
};

/// A closed form is taken where it is, on the mean, within this of the rows that a kept table would give back.
const CLOSE: f64 = 0.10;
/// Rows further off than this, and than five times the mean, are told as outliers.
const OUTLIER: f64 = 0.30;
/// Outliers that are told.
const MOST_OUTLIERS: usize = 3;
/// The longest request where nobody says, tokens.
const USUAL_MODEL_LEN: u32 = 131_072;
/// Bytes of one token's keys and values where nobody says: as much as a dense model of 32 billion parameters has.
const USUAL_KV_BYTES: u64 = 262_144;

/// What the files don't tell, or tell wrong.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The profile's name.
    pub name: Option<String>,
    /// The model's name in the Hugging Face hub.
    pub model: Option<String>,
    /// The kind of GPU.
    pub gpu: Option<String>,
    /// GPUs of the engine that was measured, all its data-parallel ranks together.
    pub gpus_per_replica: Option<u32>,
    /// Data-parallel ranks of that engine; the profile is one of them.
    pub ranks: Option<u32>,
    /// Tokens in the KV cache of that engine, all ranks together.
    pub kv_tokens: Option<u32>,
    /// The longest request, tokens.
    pub max_model_len: Option<u32>,
    /// Bytes of one token's keys and values, over all GPUs of a rank.
    pub kv_bytes_per_token: Option<u64>,
    /// Whether tables are fitted or kept.
    pub keep: Keep,
}

/// Whether tables are fitted or kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// Fitted where a closed form is within 10 % of the rows, on the mean of each phase; kept otherwise.
    #[default]
    Auto,
    /// Fitted, however well that goes.
    Fit,
    /// Kept and interpolated.
    Table,
}

/// What became of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// They were a profile of our own already.
    Own,
    /// One line with a roofline was fitted.
    Roofline,
    /// Prefill and decode were fitted apart.
    Phases,
    /// The table was kept.
    Table,
}

/// A profile, and how it came about.
#[derive(Clone, Debug, Serialize)]
pub struct Imported {
    /// The profile.
    pub profile: Profile,
    /// What became of the files.
    pub form: Form,
    /// How far the profile is from its tables; none for a profile of our own.
    pub errors: Option<Errors>,
    /// Every row of the tables beside what the profile says; none for a profile of our own.
    pub rows: Vec<Row>,
    /// What was assumed, and what looks odd.
    pub remarks: Vec<String>,
}

/// Makes a profile of files, told apart by their content. Pure.
///
/// # Errors
/// Says which file is wrong, where, and what to do.
pub fn import_sources(sources: Vec<Source>, options: &Options) -> Result<Imported, ImportError> {
    named(sources, options, "imported")
}

/// The same, with the name of a profile whose files do not tell one.
pub(crate) fn named(sources: Vec<Source>, options: &Options, name: &str) -> Result<Imported, ImportError> {
    let mut own = Vec::new();
    let mut tables: Option<Tables> = None;
    for (name, content) in contents(sources)? {
        match content {
            Content::Own(profile) => own.push((name, profile)),
            Content::Tables(more) => {
                tables = Some(match tables.take() {
                    Some(first) => first.with(*more)?,
                    None => *more,
                });
            }
            // A ConfigMap within a ConfigMap.
            Content::Bundle(_) => {}
        }
    }
    let other = own.get(1).map(|(name, _)| name.clone()).or_else(|| tables.as_ref().map(|t| t.given.clone()));
    match (own.into_iter().next(), other, tables) {
        (Some((first, _)), Some(second), _) => {
            Err(ImportError::Twice { first, second, what: "a whole engine" })
        }
        (Some((_, profile)), None, _) => Ok(of_our_own(*profile, options)),
        (None, _, Some(tables)) => assembled(tables, options, name),
        (None, _, None) => Err(ImportError::Nothing),
    }
}

/// What the files are; ConfigMaps give way to the files in them.
fn contents(sources: Vec<Source>) -> Result<Vec<(String, Content)>, ImportError> {
    let read = |source: Source| match source.content() {
        Ok(content) => Ok((source.name, content)),
        Err(error) => Err(ImportError::Source { name: source.name, error }),
    };
    let mut contents = Vec::new();
    for source in sources {
        match read(source)? {
            (given, Content::Bundle(inner)) if inner.is_empty() => {
                let hint = "the ConfigMap has no prefill_raw_data.json or decode_raw_data.json";
                return Err(ImportError::Incomplete { given, missing: "prefill", hint });
            }
            (_, Content::Bundle(inner)) => {
                for source in inner {
                    contents.push(read(source)?);
                }
            }
            other => contents.push(other),
        }
    }
    Ok(contents)
}

fn of_our_own(mut profile: Profile, options: &Options) -> Imported {
    let set = |text: &mut String, other: &Option<String>| {
        if let Some(other) = other {
            text.clone_from(other);
        }
    };
    set(&mut profile.name, &options.name);
    set(&mut profile.model, &options.model);
    set(&mut profile.gpu, &options.gpu);
    profile.gpus = options.gpus_per_replica.unwrap_or(profile.gpus);
    profile.kv_tokens = options.kv_tokens.unwrap_or(profile.kv_tokens);
    profile.max_model_len = options.max_model_len.unwrap_or(profile.max_model_len);
    profile.kv_bytes_per_token = options.kv_bytes_per_token.unwrap_or(profile.kv_bytes_per_token);
    Imported { profile, form: Form::Own, errors: None, rows: Vec::new(), remarks: Vec::new() }
}

fn assembled(mut tables: Tables, options: &Options, name: &str) -> Result<Imported, ImportError> {
    let given = tables.given.clone();
    for (missing, rows, hint) in [
        ("prefill", &tables.prefill, "give the prefill file, too: prefill_isl and prefill_ttft"),
        (
            "decode",
            &tables.decode,
            "give the decode file, too: x_kv_usage, y_context_length, z_itl and max_kv_tokens",
        ),
    ] {
        if rows.is_empty() {
            return Err(ImportError::Incomplete { given, missing, hint });
        }
    }
    let mut remarks = Vec::new();
    let ranks = ranks(&tables, options)?;
    let gpus = gpus(&tables, options, ranks, &mut remarks)?;
    if !tables.by_rank {
        for row in tables.decode.iter_mut().chain(&mut tables.mixed) {
            row.sequences = (row.sequences / f64::from(ranks)).max(1.0);
        }
    }
    remarks.extend(impossible_mixes(&mut tables));
    let kv_tokens = options.kv_tokens.map(f64::from).or(tables.kv_tokens);
    let untold = |what, flag| ImportError::Untold { given: given.clone(), what, flag };
    let kv_tokens = kv_tokens.ok_or_else(|| untold("how many tokens the KV cache holds", "--kv-tokens"))?;
    let chosen = Chosen::among(&tables, options.keep, &mut remarks)
        .ok_or_else(|| untold("a curve that the rows determine", "more rows, or --form table,"))?;
    remarks.extend(further_remarks(&tables, options, ranks, &chosen));
    let or = |option: &Option<String>, told: Option<String>| option.clone().or(told).unwrap_or_default();
    let profile = Profile {
        name: options.name.clone().or_else(|| tables.name.clone()).unwrap_or_else(|| name.to_owned()),
        model: or(&options.model, tables.model),
        gpu: or(&options.gpu, tables.gpu),
        gpus,
        source: format!("{}; {}", tables.origin, chosen.in_words()),
        kv_tokens: (kv_tokens / f64::from(ranks)) as u32,
        max_model_len: options.max_model_len.unwrap_or(USUAL_MODEL_LEN),
        kv_bytes_per_token: options.kv_bytes_per_token.unwrap_or_else(|| {
            tables.kv_bytes_per_gpu.map_or(USUAL_KV_BYTES, |bytes| bytes.saturating_mul(u64::from(gpus)))
        }),
        weights_bytes: 0,
        gpu_memory_bytes: 0,
        timing: chosen.timing,
    };
    profile.engine_config().validate().map_err(|error| ImportError::Engine { given, error })?;
    Ok(Imported { profile, form: chosen.form, errors: Some(chosen.errors), rows: chosen.rows, remarks })
}

fn ranks(tables: &Tables, options: &Options) -> Result<u32, ImportError> {
    let ranks = options.ranks.or(tables.ranks).unwrap_or(1);
    if (1..=4_096).contains(&ranks) {
        return Ok(ranks);
    }
    let instead = "give the number of data-parallel ranks, 1 to 4,096".to_owned();
    Err(ImportError::Flag { flag: "--ranks", value: u64::from(ranks), instead })
}

/// GPUs of one rank.
fn gpus(
    tables: &Tables,
    options: &Options,
    ranks: u32,
    remarks: &mut Vec<String>,
) -> Result<u32, ImportError> {
    let given = || tables.given.clone();
    let of_prefill = whole(tables.prefill_gpus);
    let of_decode = whole(tables.decode_gpus.map(|gpus| gpus / f64::from(ranks)));
    if let Some(told) = options.gpus_per_replica.or(tables.gpus) {
        if told == 0 || told > 65_536 || !told.is_multiple_of(ranks) {
            let instead = format!("give the GPUs of the whole engine, a multiple of its {ranks} ranks");
            return Err(ImportError::Flag { flag: "--gpus-per-replica", value: u64::from(told), instead });
        }
        let each = told / ranks;
        let seen = of_prefill.or(of_decode).filter(|seen| *seen != each);
        remarks.extend(seen.map(|seen| {
            format!("by its throughputs the table is of {seen} GPUs, and {each} were told, which is taken: is it the right table?")
        }));
        return Ok(each);
    }
    match (of_prefill, of_decode) {
        (Some(prefill), Some(decode)) if prefill != decode => {
            Err(ImportError::TwoEngines { given: given(), prefill, decode })
        }
        (Some(seen), _) | (None, Some(seen)) => {
            remarks.push(format!(
                "GPUs: {seen}, from the throughput of one GPU in the table; profilers have been seen to write it for the whole \
                 node: give --gpus-per-replica if that is not the engine's size"
            ));
            Ok(seen)
        }
        (None, None) => Err(ImportError::Untold {
            given: given(),
            what: "how many GPUs the engine has",
            flag: "--gpus-per-replica",
        }),
    }
}

/// A whole number of GPUs, where it is near to one.
fn whole(gpus: Option<f64>) -> Option<u32> {
    let gpus = gpus?;
    let near = gpus.round();
    let fits = (1.0..=4_096.0).contains(&near) && (gpus / near - 1.0).abs() < 0.05;
    fits.then_some(near as u32)
}

/// Leaves out iterations that do both in less time than their decodes take alone: estimates were seen to forget the decodes'
/// attention, by a factor of four.
fn impossible_mixes(tables: &mut Tables) -> Option<String> {
    let place = |row: &Measured| (row.sequences.to_bits(), row.context.to_bits());
    let alone: BTreeMap<(u64, u64), f64> = tables.decode.iter().map(|row| (place(row), row.ms)).collect();
    let before = tables.mixed.len();
    tables.mixed.retain(|row| alone.get(&place(row)).is_none_or(|decode| row.ms > decode * 0.98));
    let gone = before - tables.mixed.len();
    (gone > 0).then(|| {
        format!("{gone} of {before} mixed rows take less than their decodes alone, which can't be: they are left out")
    })
}

fn further_remarks(tables: &Tables, options: &Options, ranks: u32, chosen: &Chosen) -> Vec<String> {
    let mut remarks = Vec::new();
    if ranks > 1 {
        remarks.push(format!(
            "the engine has {ranks} data-parallel ranks and the profile is one of them: give the pool `parallel: {{ dp: {ranks}, … }}`"
        ));
    }
    if tables.kv_tokens_assumed && options.kv_tokens.is_none() {
        remarks.push(
            "the KV cache is taken to end where the grid ends: give --kv-tokens if it holds more".to_owned(),
        );
    }
    if tables.kv_bytes_per_gpu.is_none() && options.kv_bytes_per_token.is_none() {
        remarks.push(format!(
            "the bytes of a token's keys and values are not told: {USUAL_KV_BYTES} are taken, which only transfers between \
             simulated prefill and decode pools go by (--kv-bytes-per-token)"
        ));
    }
    if tables.estimated {
        remarks.push(
            "these are estimates from single kernels: whole engines were measured to be 12 to 38 % slower, which the \
             planner's calibration finds out once it sees them; `simulate --truth 1.3` shows a fleet like that"
                .to_owned(),
        );
    }
    remarks.extend(chosen.outliers());
    remarks
}

/// A form of the times, and how far it is from the rows.
struct Chosen {
    form: Form,
    timing: Timing,
    rows: Vec<Row>,
    errors: Errors,
}

impl Chosen {
    fn new(form: Form, curve: Curve, tables: &Tables) -> Option<Self> {
        let timing = Timing::new(curve);
        timing.validate().ok()?;
        let all = [&tables.prefill, &tables.decode, &tables.mixed].into_iter().flatten();
        let rows: Vec<Row> = all.map(|row| Row::of(row, &timing)).collect();
        Some(Self { form, errors: Errors::of(&rows), timing, rows })
    }

    /// The closed form with the least mean distance that is near in both phases. If none is near, the best of all and the
    /// table.
    fn among(tables: &Tables, keep: Keep, remarks: &mut Vec<String>) -> Option<Self> {
        let table = || Self::new(Form::Table, grid::table(tables)?, tables);
        if keep == Keep::Table {
            return table();
        }
        let all: Vec<&Measured> =
            [&tables.prefill, &tables.decode, &tables.mixed].into_iter().flatten().collect();
        let fits = [
            fit::roofline(&all).map(|curve| (Form::Roofline, curve)),
            fit::phases(&tables.prefill, &tables.decode).map(|curve| (Form::Phases, curve)),
        ];
        let mut fits: Vec<Self> =
            fits.into_iter().flatten().filter_map(|(form, curve)| Self::new(form, curve, tables)).collect();
        fits.sort_by(|a, b| a.errors.overall().total_cmp(&b.errors.overall()));
        let near = |one: &Self| one.errors.of_phases() <= CLOSE;
        if let Some(index) = fits.iter().position(|one| keep == Keep::Fit || near(one)) {
            return Some(fits.swap_remove(index));
        }
        let Some(best) = fits.into_iter().next() else { return table() };
        let off =
            format!("no closed form fits well: the best is off by {}, on the mean", best.errors.in_words());
        match table().filter(|table| table.errors.overall() < best.errors.overall()) {
            Some(table) => {
                remarks
                    .push(format!("{off}; the table is kept and interpolated, as mixtures of experts need"));
                Some(table)
            }
            None => {
                remarks
                    .push(format!("{off}; interpolated, the table itself is no nearer to all of its rows"));
                Some(best)
            }
        }
    }

    fn in_words(&self) -> String {
        let form = match self.form {
            Form::Table => "interpolated",
            Form::Roofline => "fitted as one line with a roofline",
            Form::Phases | Form::Own => "fitted for prefill and decode apart",
        };
        format!("{form}, mean error {}", self.errors.in_words())
    }

    /// Rows of prompts or decodes that are far off, the furthest first. How iterations mix is less well known.
    fn outliers(&self) -> Vec<String> {
        let mean = self.errors.of_phases();
        let far = |row: &&Row| row.phase() != "mixed" && row.error().abs() > OUTLIER.max(5.0 * mean);
        let mut far: Vec<&Row> = self.rows.iter().filter(far).collect();
        far.sort_by(|a, b| b.error().abs().total_cmp(&a.error().abs()));
        let told = |row: &&Row| {
            let what = match row.phase() {
                "prefill" => format!("a prompt of {} tokens", row.prompt_tokens),
                _ => format!("{} sequences of {} tokens", row.sequences, row.context),
            };
            format!(
                "{what}: {} ms in the table, {} ms on the curve: was that measured well?",
                row.table_ms, row.profile_ms
            )
        };
        far.iter().take(MOST_OUTLIERS).map(told).collect()
    }
}

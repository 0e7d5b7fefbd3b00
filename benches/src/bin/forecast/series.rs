//! Series of rates: generated ones, and those of public traces.

use std::{fs::File, io::Read as _, path::Path};

use anyhow::Context as _;
use flate2::read::MultiGzDecoder;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use rand_distr::{Distribution, Gamma, Poisson};

/// Requests a second in bins of 10 s.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) rates: Vec<f64>,
}

/// Files of single requests, and what they are called in the table.
const REQUESTS: [(&str, &str); 4] = [
    ("azure2023_conv.csv.gz", "Azure 2023 conversation"),
    ("azure2024_conv_tue_recon_x0.10.csv.gz", "Azure 2024 conversation, Tuesday x 0.10"),
    ("azure2024_code_tue_recon_x0.15.csv.gz", "Azure 2024 code, Tuesday x 0.15"),
    ("servegen_m-large_day0_x0.02.csv.gz", "ServeGen m-large, a day x 0.02"),
];

/// A rate every five minutes for a week.
const WEEK: &str = "azure2024_conv_week_rate_5min.csv";

/// Sines, squares, ramps and steps that nobody tuned anything for, Poisson and with bursts (IDC 8).
pub(crate) fn generated(seed: u64) -> anyhow::Result<Vec<Series>> {
    use std::f64::consts::TAU;
    type Shape = (&'static str, usize, fn(f64) -> f64);
    // The argument is in minutes, the length in hours.
    let shapes: [Shape; 6] = [
        ("still, 8/s", 6, |_| 8.0),
        ("sine 20 min, 2.4-16/s", 4, |minute| 9.2 + 6.8 * (minute / 20.0 * TAU).sin()),
        ("sine 60 min, 5-45/s", 8, |minute| 25.0 + 20.0 * (minute / 60.0 * TAU).sin()),
        ("square 30 min, 4/20/s", 8, |minute| if (minute / 30.0).fract() < 0.5 { 4.0 } else { 20.0 }),
        ("step 4 to 32/s", 2, |minute| if minute < 60.0 { 4.0 } else { 32.0 }),
        ("ramp 4 to 40/s", 3, |minute| 4.0 + minute * 0.2),
    ];
    let mut all = Vec::new();
    for (dispersion, suffix) in [(1.0, ""), (8.0, ", bursts")] {
        for (name, hours, shape) in shapes {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let rates = (0..hours * 360).map(|bin| draw(&mut rng, shape(bin as f64 / 6.0), dispersion));
            all.push(Series {
                name: format!("{name}{suffix}"),
                rates: rates.collect::<anyhow::Result<_>>()?,
            });
        }
    }
    Ok(all)
}

/// The rates of the traces in a folder.
pub(crate) fn traces(folder: &Path, seed: u64) -> anyhow::Result<Vec<Series>> {
    let mut all = Vec::new();
    for (file, name) in REQUESTS {
        let path = folder.join(file);
        let mut text = String::new();
        let packed = File::open(&path).with_context(|| format!("{} can't be read", path.display()))?;
        MultiGzDecoder::new(packed)
            .read_to_string(&mut text)
            .with_context(|| format!("{} is no gzip", path.display()))?;
        let trace = plimsoll_sim::workload::read(file, &text)?;
        all.push(Series {
            name: name.to_owned(),
            rates: binned(trace.workload.arrivals().iter().map(|a| a.at.0)),
        });
    }
    let path = folder.join(WEEK);
    let text = std::fs::read_to_string(&path).with_context(|| format!("{} can't be read", path.display()))?;
    all.push(Series { name: "Azure 2024 conversation, a week".to_owned(), rates: week(&text, seed)? });
    Ok(all)
}

/// Counts arrivals (in order, microseconds) in bins; the last bin, which is not whole, is left out.
fn binned(arrivals: impl Iterator<Item = u64>) -> Vec<f64> {
    let mut rates = Vec::new();
    for at in arrivals {
        let bin = (at / 10_000_000) as usize;
        if rates.len() <= bin {
            rates.resize(bin + 1, 0.0);
        }
        rates[bin] += 0.1;
    }
    rates.pop();
    rates
}

/// A week whose rate is known every five minutes: straight lines between, noise of a minute as the file tells, Poisson
/// arrivals within.
fn week(text: &str, seed: u64) -> anyhow::Result<Vec<f64>> {
    let mut points: Vec<[f64; 3]> = Vec::new();
    for row in text.lines().filter(|row| row.starts_with(|first: char| first.is_ascii_digit())) {
        let mut cells = row.split(',').map(str::parse::<f64>);
        let mut next =
            || cells.next().context("a row has fewer than three cells")?.context("a cell is no number");
        points.push([next()?, next()?, next()?]);
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut rates = Vec::new();
    for pair in points.windows(2) {
        for minute in 0..5 {
            let share = f64::from(minute) / 5.0;
            let rate = pair[0][1] + share * (pair[1][1] - pair[0][1]);
            let spread = pair[0][2].clamp(1e-3, 1.0).powi(-2);
            let factor = Gamma::new(spread, 1.0 / spread)?.sample(&mut rng);
            for _ in 0..6 {
                rates.push(draw(&mut rng, rate * factor, 1.0)?);
            }
        }
    }
    Ok(rates)
}

/// What arrives in a bin at a true rate: Poisson, or gamma-mixed where counts vary more than that.
fn draw(rng: &mut ChaCha8Rng, rate: f64, dispersion: f64) -> anyhow::Result<f64> {
    let mean = 10.0 * rate;
    let extra = dispersion - 1.0;
    let mixed = if extra > 0.0 && mean > 0.0 { Gamma::new(mean / extra, extra)?.sample(rng) } else { mean };
    Ok(if mixed > 0.0 { Poisson::new(mixed)?.sample(rng) / 10.0 } else { 0.0 })
}

//! From the command line to a world.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use flate2::read::MultiGzDecoder;
use plimsoll_common::units::{Micros, Ratio};
use plimsoll_core::score::Slo;
use plimsoll_engine::Profile;
use plimsoll_sim::{
    Fault, KvTransfer, Lost, PoolConfig, Router, StartUp, WorldConfig,
    policies::static_sizes,
    workload::{self, Workload, spec},
};

use super::args::{LostName, RouterName, SimulateArgs};

/// The most that an unpacked trace may weigh: what is more is no trace.
const MOST_BYTES: u64 = 4 << 30;

/// What --initial is for the fleet that the oracle begins with.
pub(super) const BY_ORACLE: &str = "oracle";

/// By how much the copies of a scaled workload are moved.
const JITTER: Micros = Micros(2_000_000);

/// Reads or generates what comes in. Rows that were left out are told by `note`.
pub(super) fn workload(args: &SimulateArgs, note: &mut dyn FnMut(String)) -> anyhow::Result<Workload> {
    let mut workload = if spec::is_spec(&args.workload) {
        spec::generate(&args.workload, args.seed).with_context(|| format!("--workload {}", args.workload))?
    } else {
        let path = find(&args.workload, args.data.as_deref())?;
        let trace = workload::read(&path.display().to_string(), &text_of(&path)?)?;
        if trace.skipped > 0 {
            note(format!("{} requests without a prompt or an output were left out", trace.skipped));
        }
        trace.workload
    };
    for (name, value) in [("--speed-up", args.speed_up), ("--scale", args.scale)] {
        if !(value.is_finite() && value > 0.0 && value <= 10_000.0) {
            bail!("{name} cannot be {value}: give a number above 0, 1 for the workload as it is");
        }
    }
    workload = workload.sped_up(args.speed_up);
    if args.from.is_some() || args.to.is_some() {
        let at = |time: Option<f64>, usual| time.and_then(Micros::from_secs_f64).unwrap_or(usual);
        workload = workload.window(at(args.from, Micros::ZERO), at(args.to, Micros::MAX));
    }
    if (args.scale - 1.0).abs() > f64::EPSILON {
        workload = workload.scaled(args.scale, JITTER, args.seed);
    }
    if workload.is_empty() {
        bail!("the workload has no request: look at --from, --to, --scale and the rate");
    }
    Ok(workload)
}

fn find(name: &str, data: Option<&Path>) -> anyhow::Result<PathBuf> {
    let here = PathBuf::from(name);
    let mut tried = vec![here.clone()];
    if let Some(data) = data {
        tried.extend([data.join(name), data.join("traces").join(name)]);
        tried.extend([data.join(format!("{name}.gz")), data.join("traces").join(format!("{name}.gz"))]);
    }
    if let Some(found) = tried.iter().find(|path| path.is_file()) {
        return Ok(found.clone());
    }
    let places: Vec<String> = tried.iter().map(|path| path.display().to_string()).collect();
    let kinds: Vec<&str> = spec::KINDS.iter().map(|(kind, _)| *kind).collect();
    bail!(
        "there is no trace at {}; nor is {name:?} a generator, which begins with {}",
        places.join(", "),
        kinds.join(":, ")
    )
}

fn text_of(path: &Path) -> anyhow::Result<String> {
    let context = || format!("{} can't be read", path.display());
    let file = std::fs::File::open(path).with_context(context)?;
    let mut text = String::new();
    let packed = path.extension().is_some_and(|extension| extension == "gz");
    let mut from: Box<dyn std::io::Read> =
        if packed { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
    let read = from.by_ref().take(MOST_BYTES).read_to_string(&mut text).with_context(context)?;
    if read as u64 == MOST_BYTES {
        bail!("{} is larger than {} GiB, which is no trace", path.display(), MOST_BYTES >> 30);
    }
    Ok(text)
}

/// What is promised.
pub(super) fn slo(args: &SimulateArgs) -> anyhow::Result<Slo> {
    let limit = |seconds: f64| Micros::from_secs_f64(seconds);
    let goal = Ratio::new(args.goal).ok().filter(|goal| goal.get() > 0.0);
    let Some(goal) = goal else { bail!("--goal cannot be {}: give a share like 0.99", args.goal) };
    Ok(Slo { ttft: limit(args.ttft), itl: limit(args.itl), goal })
}

/// The world.
pub(super) fn world(args: &SimulateArgs) -> anyhow::Result<WorldConfig> {
    let first = profile(&args.profile)?;
    let mut config = match args.disaggregated.as_deref() {
        None => WorldConfig::aggregated(pool(args, "aggregated", &first)),
        Some(second) => {
            let second = if second.is_empty() { first.clone() } else { profile(second)? };
            WorldConfig::disaggregated(pool(args, "prefill", &first), pool(args, "decode", &second))
        }
    };
    if args.initial != BY_ORACLE {
        let initial = static_sizes(&format!("static:{}", args.initial)).with_context(|| {
            format!("--initial cannot be {:?}: give a number, P+D, or {BY_ORACLE}", args.initial)
        })?;
        for (index, pool) in config.pools.iter_mut().enumerate() {
            pool.initial = initial.get(index).or_else(|| initial.last()).copied().unwrap_or(1);
        }
    }
    if let Some(prior) = &args.prior {
        let prior = profile(prior)?;
        config.pools.iter_mut().for_each(|pool| pool.prior = Some(prior.timing.clone()));
    }
    config.faults = args
        .faults
        .iter()
        .map(|text| Fault::from_text(text, &config.pools).with_context(|| format!("--fault {text}")))
        .collect::<Result<_, _>>()?;
    config.lost = match args.lost {
        LostName::Abort => Lost::Abort,
        LostName::Retry => Lost::Retry,
    };
    config.transfer = KvTransfer {
        bytes_per_token: first.kv_bytes_per_token,
        bytes_per_s: args.bandwidth * 1e9,
        latency: Micros::ZERO,
    };
    config.gpus = args.gpus;
    config.seed = args.seed;
    config.validate()?;
    Ok(config)
}

fn pool(args: &SimulateArgs, name: &str, profile: &Profile) -> PoolConfig {
    let mut pool = PoolConfig::new(name, profile).with_start_up(StartUp {
        mean: Micros::from_secs_f64(args.start_up).unwrap_or_default(),
        spread: args.start_up_spread,
        failures: args.failed_starts,
    });
    pool.engine.timing = pool.engine.timing.scaled(args.truth);
    pool.truth_over_prior = args.truth;
    pool.noise = args.noise;
    pool.prefix_cache = args.prefix_cache;
    pool.max = args.max_replicas;
    pool.router = match args.router {
        RouterName::RoundRobin => Router::RoundRobin,
        RouterName::LeastLoaded => Router::LeastLoaded,
        // A held token delays a decode a little; a token to compute costs itself.
        RouterName::PrefixAware => Router::PrefixAware { load_weight: 0.1 },
    };
    pool
}

fn profile(name: &str) -> anyhow::Result<Profile> {
    plimsoll_profiles::load(name).with_context(|| format!("profile {name}"))
}

/// The world in words, for reports.
pub(super) fn described(args: &SimulateArgs, config: &WorldConfig) -> Vec<(String, String)> {
    let mut words =
        vec![("workload".to_owned(), args.workload.clone()), ("profile".to_owned(), args.profile.clone())];
    if let Some(second) = &args.disaggregated {
        let second = if second.is_empty() { "the same" } else { second };
        words.push(("decode profile".to_owned(), second.to_owned()));
    }
    let percent = |share: f64| format!("{} %", (share * 1e4).round() / 1e2);
    for pool in &config.pools {
        words.push((format!("GPUs of a {} replica", pool.name), pool.gpus_per_replica.to_string()));
    }
    let up = format!("{} s ± {}", args.start_up, percent(args.start_up_spread));
    words.push(("start-up".to_owned(), up));
    words.push(("failed starts".to_owned(), percent(args.failed_starts)));
    for (name, value, usual) in [
        ("speed-up", args.speed_up, 1.0),
        ("scale", args.scale, 1.0),
        ("truth over profile", args.truth, 1.0),
        ("noise", args.noise, 0.0),
    ] {
        if (value - usual).abs() > f64::EPSILON {
            words.push((name.to_owned(), value.to_string()));
        }
    }
    if let Some(prior) = &args.prior {
        words.push(("prior".to_owned(), prior.clone()));
    }
    words.extend(args.faults.iter().map(|fault| ("fault".to_owned(), fault.clone())));
    words.push(("seed".to_owned(), args.seed.to_string()));
    words
}

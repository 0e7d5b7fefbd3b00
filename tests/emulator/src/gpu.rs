//! The activity file: what an emulated GPU driver shows of this engine.

use std::{collections::VecDeque, fmt::Write as _, io, path::Path, sync::Arc, time::Duration};

use plimsoll_engine::Micros;
use tokio::time::MissedTickBehavior;

use crate::{config::Config, driver::Shared};

const INTERVAL: Duration = Duration::from_millis(250);

/// Intervals that utilization looks back over: one second.
const WINDOW: usize = 4;

/// Writes the activity file four times a second, for ever.
pub(crate) async fn write_activity(config: Arc<Config>, shared: Arc<Shared>) {
    let Some(path) = config.gpus.activity_file.as_deref() else { return };
    let mut readings = VecDeque::with_capacity(WINDOW + 1);
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let now = shared.clock.now();
        readings.push_back((now, shared.busy(now)));
        if readings.len() > WINDOW + 1 {
            readings.pop_front();
        }
        let text = lines(&config, utilization(&readings), used_bytes(&config, &shared));
        if let Err(error) = replace(path, &text).await {
            tracing::warn!(path = %path.display(), %error, "the GPU activity file cannot be written");
        }
    }
}

/// Share of the time between the oldest and the newest reading that was busy, per cent.
fn utilization(readings: &VecDeque<(Micros, Micros)>) -> u64 {
    let (Some((then, busy_then)), Some((now, busy_now))) = (readings.front(), readings.back()) else {
        return 0;
    };
    let elapsed = now.saturating_sub(*then).0;
    let busy = busy_now.saturating_sub(*busy_then).0;
    (busy * 100 + elapsed / 2).checked_div(elapsed).unwrap_or(0).min(100)
}

/// Weights, and the keys and values that requests hold; of one GPU, no more than it has.
fn used_bytes(config: &Config, shared: &Shared) -> u64 {
    let blocks = u64::from(shared.snapshot().load.kv_blocks_used);
    let kv = blocks
        .saturating_mul(u64::from(config.engine.block_size))
        .saturating_mul(config.gpus.kv_bytes_per_token);
    let gpus = config.gpus.uuids.len().max(1) as u64;
    (config.gpus.weights_bytes.saturating_add(kv) / gpus).min(config.gpus.memory_bytes)
}

fn lines(config: &Config, utilization: u64, used_bytes: u64) -> String {
    let mut text = String::new();
    for uuid in &config.gpus.uuids {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{uuid} util={utilization} mem_used={used_bytes}");
    }
    text
}

/// Replaces a file in one step: a reader finds the old text or the new one, never half of either.
pub(crate) async fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.tmp", std::process::id()));
    tokio::fs::write(&beside, text).await?;
    tokio::fs::rename(&beside, path).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utilization_is_the_busy_share_of_the_window() {
        let readings =
            VecDeque::from([(Micros(1_000_000), Micros(100)), (Micros(2_000_000), Micros(250_100))]);
        assert_eq!(utilization(&readings), 25);
        assert_eq!(utilization(&VecDeque::from([(Micros(5), Micros(5))])), 0);
        assert_eq!(utilization(&VecDeque::new()), 0);
    }
}

//! Sizing without a model of the engine: by the operator's thresholds, as a HorizontalPodAutoscaler does.

use crate::{observe::Observation, policy::Load};

/// A mean within this share of its threshold asks for nothing: HPA's default tolerance.
const TOLERANCE: f64 = 0.1;

/// The replicas that bring every mean to its threshold, ⌈ready × mean / threshold⌉, the greatest answer; none if
/// nothing was told that has a threshold. `sequences` is what one replica's engines may run at once.
#[must_use]
pub fn by_thresholds(load: &Load, seen: &Observation, sequences: f64) -> Option<u32> {
    let ready = f64::from(seen.replicas.ready);
    let telling: Vec<_> = seen.engines.values().filter(|engine| !engine.draining).collect();
    let mean = |values: Vec<f64>| {
        let values: Vec<f64> =
            values.into_iter().filter(|value| value.is_finite() && *value >= 0.0).collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    };
    let door = seen.door.and_then(|door| door.waiting).unwrap_or(0) as f64 / ready.max(1.0);
    let kv = mean(telling.iter().filter_map(|engine| engine.kv_utilization).collect());
    let running =
        mean(telling.iter().filter_map(|engine| engine.running).map(|n| n as f64 / sequences).collect());
    let waiting = mean(telling.iter().filter_map(|engine| engine.waiting).map(|n| n as f64).collect());
    let asks = [
        (kv, load.kv_cache_utilization.map(|threshold| threshold.share().get())),
        (running, load.running_utilization.map(|threshold| threshold.share().get())),
        (waiting.map(|waiting| waiting + door), load.waiting_per_replica.map(|requests| requests.get())),
    ];
    let ask = |(mean, threshold): (Option<f64>, Option<f64>)| {
        let ratio = mean? / threshold.filter(|threshold| *threshold > 0.0)?;
        let near = (ratio - 1.0).abs() <= TOLERANCE;
        Some(if near { ready } else { (ready * ratio).ceil() }.min(1e6) as u32)
    };
    asks.into_iter().filter_map(ask).max()
}

//! Reactive and seasonal sizing by the request rate: the family of policies whose best is the causal bound.
//!
//! Every 10 s: the mean rate of a window, divided by what one replica takes within the SLO by the prior, at a given
//! utilisation. With a period, the rate is at least the greatest of the time that lies ahead, one period ago: from now
//! until a replica asked for now would be ready. Up at once, down to the most that was wanted within the hold time. Decode
//! pools may have a utilisation of their own.

use std::collections::BTreeMap;

use plimsoll_common::{engine::Role, units::Micros};
use plimsoll_core::score::Slo;

use super::{PolicyError, capacity, settings::Settings, traffic::Traffic, window::Window};
use crate::policy::{Briefing, Decision, Observation, PoolId, ScalingPolicy};

const TICK: Micros = Micros(10_000_000);

/// How finely the rates of the last period are remembered.
const BIN: Micros = Micros(60_000_000);

/// How long mean lengths are taken over.
const LENGTHS: Micros = Micros(600_000_000);

/// See the [module](self).
#[derive(Clone, Debug)]
pub struct Demand {
    utilisation: f64,
    /// Of decode pools.
    decode: f64,
    window: Micros,
    hold: Micros,
    period: Option<Micros>,
    briefing: Briefing,
    slo: Slo,
    models: BTreeMap<u16, Model>,
    wanted: BTreeMap<PoolId, Window>,
}

/// One model's demand.
#[derive(Clone, Debug)]
struct Model {
    rate: Window,
    lengths: Traffic,
    lengths_since: Micros,
    /// The greatest rate by minute, as far back as the period.
    history: BTreeMap<u64, f64>,
}

impl Demand {
    pub(super) const SETTINGS: &'static [&'static str] =
        &["utilisation", "decode", "window", "hold", "period"];

    /// With a utilisation to aim at (above 0), a window, a hold time, and the period of the season if there is one.
    #[must_use]
    pub fn new(
        utilisation: f64,
        times: (Micros, Micros, Option<Micros>),
        briefing: &Briefing,
        slo: &Slo,
    ) -> Self {
        Self {
            utilisation,
            decode: utilisation,
            window: times.0,
            hold: times.1,
            period: times.2,
            briefing: briefing.clone(),
            slo: *slo,
            models: BTreeMap::new(),
            wanted: BTreeMap::new(),
        }
    }

    pub(super) fn read(settings: &Settings<'_>, briefing: &Briefing, slo: &Slo) -> Result<Self, PolicyError> {
        let utilisation = settings.number("utilisation", (0.01, 5.0))?.unwrap_or(0.7);
        let period = settings.number("period", (60.0, 604_800.0))?.and_then(Micros::from_secs_f64);
        let times = (settings.seconds("window", 60)?, settings.seconds("hold", 300)?, period);
        let decode = settings.number("decode", (0.01, 5.0))?.unwrap_or(utilisation);
        Ok(Self { decode, ..Self::new(utilisation, times, briefing, slo) })
    }

    fn learn(&mut self, now: Micros, observation: &Observation) {
        for facts in &self.briefing.pools {
            let Some(pool) = observation.pool(facts.id) else { continue };
            let model = self.models.entry(facts.model).or_insert_with(|| Model {
                rate: Window::new(self.window),
                lengths: Traffic::default(),
                lengths_since: Micros::ZERO,
                history: BTreeMap::new(),
            });
            model.lengths.add(pool, observation.window);
            if facts.role == Role::Decode {
                continue;
            }
            let mut only_now = Traffic::default();
            only_now.add(pool, observation.window);
            model.rate.add(now, only_now.rate().unwrap_or_default());
            if let Some(period) = self.period {
                let rate = model.rate.mean();
                let highest = model.history.entry(now.0 / BIN.0).or_default();
                *highest = highest.max(rate);
                let oldest = now.saturating_sub(period).0 / BIN.0;
                model.history = model.history.split_off(&oldest);
            }
            if now.saturating_sub(model.lengths_since) >= LENGTHS {
                model.lengths.begin();
                model.lengths_since = now;
            }
        }
    }

    /// The rate to be ready for.
    fn rate(&self, now: Micros, model: &Model, lead: Micros) -> f64 {
        let rate = model.rate.mean();
        let Some(then) = self.period.and_then(|period| now.0.checked_sub(period.0)) else { return rate };
        let ahead = then / BIN.0..=(then + lead.0) / BIN.0;
        model.history.range(ahead).map(|(_, rate)| *rate).fold(rate, f64::max)
    }
}

impl ScalingPolicy for Demand {
    fn name(&self) -> String {
        let seconds = |time: Micros| time.as_secs_f64();
        let season = self.period.map(|period| format!(" period {} s", seconds(period))).unwrap_or_default();
        let (window, hold) = (seconds(self.window), seconds(self.hold));
        let own = (self.decode - self.utilisation).abs() > 1e-9;
        let decode = if own { format!(" and {} for decode", self.decode) } else { String::new() };
        format!("demand at {}{decode} window {window} s hold {hold} s{season}", self.utilisation)
    }

    fn interval(&self) -> Micros {
        TICK
    }

    fn decide(&mut self, now: Micros, observation: &Observation) -> Decision {
        self.learn(now, observation);
        let mut decision = Decision::default();
        for facts in &self.briefing.pools {
            let Some(model) = self.models.get(&facts.model) else { continue };
            let Some(lengths) = model.lengths.lengths() else { continue };
            let utilisation = if facts.role == Role::Decode { self.decode } else { self.utilisation };
            let rps = capacity::rps(facts.role, &facts.prior, &lengths, &self.slo) * utilisation;
            let rate = self.rate(now, model, facts.start_up_prior.saturating_add(TICK));
            let wanted = if rps > 0.0 { (rate / rps).ceil() } else { 1.0 };
            let window = self.wanted.entry(facts.id).or_insert_with(|| Window::new(self.hold));
            window.add(now, wanted.clamp(1.0, 1e6));
            decision.set(facts.id, window.max() as u32, format!("{rate:.1} requests a second"));
        }
        decision
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        policies::testing::{Seen, at, burst_world, run_burst, targets},
        policy::DoorObservation,
    };

    fn demand(period: Option<u64>) -> Demand {
        let (config, _) = burst_world();
        let times = (at(10), at(20), period.map(at));
        Demand::new(0.5, times, &config.briefing(), &Slo::of_millis(1_000, 30))
    }

    fn came(arrived: u64) -> Observation {
        let mut seen = Seen::of(1);
        let gained = &mut seen.pool.replicas[0].gained;
        (gained.finished, gained.finished_output_tokens) = (1, 200);
        seen.pool.door =
            Some(DoorObservation { arrived, arrived_prompt_tokens: arrived * 1_500, waiting: 0 });
        seen.observation(10)
    }

    #[test]
    fn it_holds_what_it_wanted_and_lets_go() {
        let mut policy = demand(None);
        let high = targets(&policy.decide(at(10), &came(200)))[0];
        assert!(high > 2, "{high}");
        assert_eq!(targets(&policy.decide(at(20), &came(1))), [high]);
        assert_eq!(targets(&policy.decide(at(30), &came(1))), [1]);
    }

    #[test]
    fn with_a_period_it_is_ready_before_the_load_comes_again() {
        let mut policy = demand(Some(600));
        let mut wanted = BTreeMap::new();
        for s in (10..=1_200).step_by(10) {
            // 20 a second from 300 to 360 s of every 600.
            let busy = (300..360).contains(&(s % 600));
            wanted.insert(s, targets(&policy.decide(at(s), &came(if busy { 200 } else { 1 })))[0]);
        }
        assert_eq!(wanted[&290], 1);
        assert!(wanted[&300] > 2);
        // A minute and a tick ahead, and not much earlier.
        assert!(wanted[&840] > 2);
        assert_eq!(wanted[&760], 1);
    }

    #[test]
    fn decode_pools_can_have_a_utilisation_of_their_own() {
        let profile = plimsoll_engine::Profile::built_in("qwen3-32b-h200-tp2").unwrap();
        let pool = |name| crate::world::PoolConfig::new(name, &profile);
        let config = crate::world::WorldConfig::disaggregated(pool("prefill"), pool("decode"));
        let slo = Slo::of_millis(1_000, 30);
        let wanted = |text: &str| {
            let mut policy = super::super::from_text(text, &config.briefing(), &slo).unwrap();
            let mut prefill = came(600).pools.remove(0);
            prefill.role = Role::Prefill;
            let mut decode = came(600).pools.remove(0);
            (decode.id, decode.role) = (PoolId(1), Role::Decode);
            targets(&policy.decide(at(10), &Observation { window: at(10), pools: vec![prefill, decode] }))
        };
        let (alike, apart) = (wanted("demand:utilisation=0.5"), wanted("demand:utilisation=0.5,decode=0.1"));
        assert_eq!(alike[0], apart[0]);
        assert!(apart[1] > 3 * alike[1], "{apart:?} {alike:?}");
    }

    #[test]
    fn it_grows_and_shrinks_with_a_burst() {
        let run = run_burst(&mut demand(None));
        assert!(run.actions.iter().any(|a| a.to > a.from) && run.actions.iter().any(|a| a.to < a.from));
    }
}

//! One conversation: the first line makes the core, every further one is a step of it.

use std::collections::BTreeMap;

use plimsoll_common::{ids::PoolName, units::Micros};
use plimsoll_core::{controller::Controller, tuning::Tuning};
use plimsoll_shell::config::nearest;
use serde_json::Value;

use super::{
    answer::{Answer, Ready, Refused},
    header::Header,
    json::{Refusal, Shown},
    memory::Pool,
    pool::Line,
};

/// A window longer than this many intervals, and than an hour, is a gap: what was gained in it is no rate of today.
const GAP_INTERVALS: u64 = 30;

/// Answers lines; pure but for the files that a first line names.
#[derive(Debug)]
pub struct Session {
    explain: bool,
    lines: u64,
    core: Option<Core>,
}

#[derive(Debug)]
struct Core {
    controller: Controller,
    interval: Micros,
    origin_s: f64,
    pools: BTreeMap<PoolName, Pool>,
    last: Option<Micros>,
    /// Whether the line before was refused, so that nobody knows what the next one's counts belong to.
    refused: bool,
}

impl Session {
    /// Nothing was said yet. With `explain` answers have details.
    #[must_use]
    pub const fn new(explain: bool) -> Self {
        Self { explain, lines: 0, core: None }
    }

    /// The answer to one line, JSON without a line break.
    pub fn answer(&mut self, line: &[u8]) -> String {
        let answered = self.try_answer(line);
        self.lines += 1;
        answered.unwrap_or_else(|Refusal(why)| self.refused(&why))
    }

    /// The answer to a line that can't even be read.
    pub(super) fn refuse(&mut self, why: &str) -> String {
        self.lines += 1;
        self.refused(why)
    }

    fn refused(&mut self, why: &str) -> String {
        if let Some(core) = &mut self.core {
            core.refused = true;
        }
        text(&Refused::new(self.lines, why))
    }

    fn try_answer(&mut self, line: &[u8]) -> Result<String, Refusal> {
        let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        let line = std::str::from_utf8(line)
            .map_err(|error| Refusal(format!("this is no UTF-8 from byte {} on", error.valid_up_to() + 1)))?;
        if line.trim().is_empty() {
            return Err(Refusal("the line is empty: give one JSON object a line".to_owned()));
        }
        let value: Value =
            serde_json::from_str(line).map_err(|error| Refusal(format!("this is no JSON: {error}")))?;
        match &mut self.core {
            Some(core) => core.decide(&value, self.explain),
            None => {
                let header = Header::read(&value)?;
                let ready = Ready::new(&header);
                self.core = Some(Core::new(header));
                Ok(text(&ready))
            }
        }
    }
}

impl Core {
    fn new(header: Header) -> Self {
        let Header { spec, origin_s, history, .. } = header;
        let pools = spec.pools.iter().map(|pool| (pool.name.clone(), Pool::new(pool))).collect();
        let interval = spec.interval;
        let mut controller = Controller::new(spec, Tuning::default());
        for (pool, history) in history {
            controller.warm(&pool, history);
        }
        Self { controller, interval, origin_s, pools, last: None, refused: false }
    }

    fn decide(&mut self, value: &Value, explain: bool) -> Result<String, Refusal> {
        let line = Line::read(value, &|name| self.known(name))?;
        let now = Micros::from_secs_f64(line.time_s - self.origin_s).unwrap_or_default();
        if let Some(last) = self.last.filter(|last| now <= *last) {
            let last = last.as_secs_f64() + self.origin_s;
            return Err(Refusal(format!(
                "time_s: {} is not after {last}, the time of the line before: time only goes on",
                line.time_s
            )));
        }
        let longest = Micros(self.interval.0.saturating_mul(GAP_INTERVALS).max(3_600_000_000));
        let after_refusal = std::mem::take(&mut self.refused);
        for (name, told) in line.pools {
            let Some(pool) = self.pools.get_mut(&name) else { continue };
            let window = pool.window(now, line.window, self.interval);
            let counts = window <= longest && (!after_refusal || line.window.is_some());
            if let Some(seen) = pool.observation(now, window.min(longest), told, counts) {
                self.controller.observe(seen);
            }
        }
        self.last = Some(now);
        let step = self.controller.step(now);
        Ok(text(&Answer::new(line.time_s, self.origin_s, &step, explain)))
    }

    fn known(&self, name: &str) -> Result<PoolName, String> {
        if let Some((known, _)) = PoolName::parse(name).ok().and_then(|name| self.pools.get_key_value(&name))
        {
            return Ok(known.clone());
        }
        let names: Vec<&str> = self.pools.keys().map(PoolName::as_str).collect();
        Err(match nearest(name, &names) {
            Some(near) => format!("the policy has no pool '{}'; did you mean '{near}'?", Shown(name)),
            None => format!("the policy has no pool '{}'", Shown(name)),
        })
    }
}

fn text(answer: &impl serde::Serialize) -> String {
    serde_json::to_string(answer).unwrap_or_else(|_| {
        r#"{"error":{"line":0,"message":"the answer can't be written as JSON"}}"#.to_owned()
    })
}

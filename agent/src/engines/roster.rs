//! Which engines are read: as declared at the start, and again whenever the configuration's file changes.

use std::{collections::BTreeMap, path::Path, sync::PoisonError, time::Duration};

use anyhow::Context;
use plimsoll_shell::tls::Watched;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{EngineReading, ScrapeOptions, run};
use crate::{
    config::{Config, Endpoint, Settings},
    reporter::SharedWindow,
};

/// Between two looks whether the file changed.
const LOOK: Duration = Duration::from_secs(1);

/// The engines that are read, each by a task of its own.
#[derive(Debug)]
pub struct Roster {
    options: ScrapeOptions,
    readings: mpsc::Sender<EngineReading>,
    window: SharedWindow,
    cancel: CancellationToken,
    /// By the number under which its readings arrive; numbers are never used again.
    engines: BTreeMap<usize, (Endpoint, CancellationToken)>,
    next: usize,
    tasks: JoinSet<()>,
}

impl Roster {
    /// Reads engines into a window that knows them already, in their order.
    #[must_use]
    pub fn new(
        endpoints: &[Endpoint],
        options: ScrapeOptions,
        readings: mpsc::Sender<EngineReading>,
        window: SharedWindow,
        cancel: CancellationToken,
    ) -> Self {
        let mut roster = Self {
            options,
            readings,
            window,
            cancel,
            engines: BTreeMap::new(),
            next: 0,
            tasks: JoinSet::new(),
        };
        for endpoint in endpoints {
            roster.read(endpoint);
        }
        roster
    }

    /// Runs until cancelled; follows the endpoints of the file that `settings` name, if they name one.
    ///
    /// # Errors
    /// When a reader panicked.
    pub async fn run(mut self, settings: Settings) -> anyhow::Result<()> {
        let file = settings.config.clone();
        let mut watched = Watched::new(file.as_deref());
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.cancel.cancelled() => break,
                Some(ended) = self.tasks.join_next() => ended.context("an engine's reader failed")?,
                _ = looks.tick() => if watched.changed() {
                    self.reload(&settings, file.as_deref());
                }
            }
        }
        while let Some(ended) = self.tasks.join_next().await {
            ended.context("an engine's reader failed")?;
        }
        Ok(())
    }

    /// Takes the file's endpoints, unless something in it is wrong: perhaps only half of it is written yet.
    fn reload(&mut self, settings: &Settings, file: Option<&Path>) {
        let file = file.map(|file| file.display().to_string());
        match Config::load(settings) {
            Ok(config) => {
                let (added, removed) = self.follow(config.endpoints);
                if added + removed > 0 {
                    tracing::info!(file, added, removed, "other engines are declared");
                }
            }
            Err(error) => {
                tracing::warn!(file, %error, "the changed configuration can't be used; the engines declared before are kept");
            }
        }
    }

    /// Reads these engines and no others; how many were added and removed. One that is declared with other words is a new
    /// one.
    fn follow(&mut self, endpoints: Vec<Endpoint>) -> (usize, usize) {
        let gone: Vec<usize> = self
            .engines
            .iter()
            .filter(|(_, (known, _))| !endpoints.contains(known))
            .map(|(number, _)| *number)
            .collect();
        for number in &gone {
            if let Some((_, cancel)) = self.engines.remove(number) {
                cancel.cancel();
            }
            self.with_window(|window| window.remove(*number));
        }
        let mut added = 0;
        for endpoint in endpoints {
            if self.engines.values().any(|(known, _)| *known == endpoint) {
                continue;
            }
            if endpoint.exact.is_any() {
                tracing::warn!(engine = %endpoint.id, "exact sources of an engine that is declared later are read after a restart of the agent");
            }
            let number = self.read(&endpoint);
            self.with_window(|window| window.add(number, endpoint, Instant::now()));
            added += 1;
        }
        (added, gone.len())
    }

    /// Starts to read an engine; its number.
    fn read(&mut self, endpoint: &Endpoint) -> usize {
        let number = self.next;
        self.next += 1;
        let cancel = self.cancel.child_token();
        let (readings, options) = (self.readings.clone(), self.options);
        self.tasks.spawn(run(number, endpoint.clone(), options, readings, cancel.clone()));
        self.engines.insert(number, (endpoint.clone(), cancel));
        number
    }

    fn with_window(&self, act: impl FnOnce(&mut crate::window::Window)) {
        act(&mut self.window.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

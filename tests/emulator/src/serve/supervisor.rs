//! Who starts, kills and revives the engine.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    api::Api,
    config::{Config, CustomBuckets},
    faults::Faults,
    job::Refusal,
    script::Action,
    serve::incarnation::{Incarnation, Port},
};

/// Orders that may wait.
const ORDERS: usize = 16;

/// What only the supervisor can do.
#[derive(Debug)]
enum Order {
    Restart { down: Duration, buckets: Option<CustomBuckets> },
    Gone,
    Back,
    Drain(Duration),
    Stop,
}

/// The way to the supervisor, to the engine that lives now and to the faults.
#[derive(Clone, Debug)]
pub(super) struct Control {
    orders: mpsc::Sender<(Order, oneshot::Sender<()>)>,
    engine: watch::Receiver<Option<Api>>,
    lives: Arc<AtomicU64>,
    pub(super) faults: Faults,
}

impl Control {
    /// The engine's HTTP side, if it lives.
    pub(super) fn engine(&self) -> Option<Api> {
        self.engine.borrow().clone()
    }

    /// How often it was started.
    pub(super) fn lives(&self) -> u64 {
        self.lives.load(Ordering::Acquire)
    }

    /// Does it; says why it cannot be done now.
    pub(super) async fn act(&self, action: Action) -> Result<(), String> {
        tracing::info!(?action, "told to");
        match action {
            Action::Freeze => {
                self.living()?.driver.freeze().await;
                Ok(())
            }
            Action::Thaw => self.living().map(|api| api.driver.thaw()),
            Action::Sleep(level) => self.sleep(level),
            Action::Wake => self.sleep(0),
            Action::Restart { down, buckets } => self.order(Order::Restart { down, buckets }).await,
            Action::Gone => self.order(Order::Gone).await,
            Action::Back => self.order(Order::Back).await,
            Action::Slow(slow) => self.change(|faults| faults.slow = slow),
            Action::Torn(torn) => self.change(|faults| faults.torn = Some(torn)),
            Action::Locked => self.change(|faults| faults.locked = true),
            Action::Heal => self.change(|faults| *faults = crate::faults::Set::default()),
        }
    }

    pub(super) async fn drain(&self, at_most: Duration) {
        // A supervisor that is gone has nothing left to drain.
        let _ = self.order(Order::Drain(at_most)).await;
    }

    pub(super) async fn stop(&self) {
        let _ = self.order(Order::Stop).await;
    }

    fn change(&self, change: impl FnOnce(&mut crate::faults::Set)) -> Result<(), String> {
        self.faults.change(change);
        Ok(())
    }

    fn living(&self) -> Result<Api, String> {
        self.engine().ok_or_else(|| "the engine is down".to_owned())
    }

    fn sleep(&self, level: u8) -> Result<(), String> {
        self.living()?.driver.sleep(level).map_err(|refusal: Refusal| refusal.to_string())
    }

    async fn order(&self, order: Order) -> Result<(), String> {
        let (done, told) = oneshot::channel();
        let gone = || "the emulator is shutting down".to_owned();
        self.orders.send((order, done)).await.map_err(|_| gone())?;
        told.await.map_err(|_| gone())
    }
}

/// Owns the engine; ends with it for good.
#[derive(Debug)]
pub(super) struct Supervisor {
    config: Arc<Config>,
    port: Port,
    faults: Faults,
    orders: mpsc::Receiver<(Order, oneshot::Sender<()>)>,
    engine: watch::Sender<Option<Api>>,
    lives: Arc<AtomicU64>,
    alive: Option<Incarnation>,
}

impl Supervisor {
    /// Starts the engine's first life.
    pub(super) async fn start(config: Config, port: Port) -> anyhow::Result<(Self, Control)> {
        let (sender, orders) = mpsc::channel(ORDERS);
        let (engine, seen) = watch::channel(None);
        let faults = Faults::default();
        let lives = Arc::new(AtomicU64::new(0));
        let control =
            Control { orders: sender, engine: seen, lives: Arc::clone(&lives), faults: faults.clone() };
        let mut supervisor =
            Self { config: Arc::new(config), port, faults, orders, engine, lives, alive: None };
        supervisor.revive().await?;
        Ok((supervisor, control))
    }

    /// Follows orders until told to stop.
    ///
    /// # Errors
    /// If the engine cannot be started again.
    pub(super) async fn run(mut self) -> anyhow::Result<()> {
        while let Some((order, done)) = self.orders.recv().await {
            match order {
                Order::Restart { down, buckets } => {
                    self.kill().await;
                    let _ = done.send(());
                    if let Some(buckets) = buckets {
                        Arc::make_mut(&mut self.config).buckets = buckets;
                    }
                    if self.stay_down(down).await {
                        return Ok(());
                    }
                    self.revive().await?;
                }
                Order::Gone => {
                    self.kill().await;
                    let _ = done.send(());
                }
                Order::Back => {
                    if self.alive.is_none() {
                        self.revive().await?;
                    }
                    let _ = done.send(());
                }
                Order::Drain(at_most) => {
                    self.drain(at_most).await;
                    let _ = done.send(());
                    return Ok(());
                }
                Order::Stop => {
                    self.kill().await;
                    let _ = done.send(());
                    return Ok(());
                }
            }
        }
        self.kill().await;
        Ok(())
    }

    /// Waits; true if told to end meanwhile. Other orders end the wait and count as done: whoever is dead is gone, and
    /// whoever is to be back is coming.
    async fn stay_down(&mut self, down: Duration) -> bool {
        tokio::select! {
            () = tokio::time::sleep(down) => false,
            order = self.orders.recv() => match order {
                Some((order, done)) => {
                    let _ = done.send(());
                    matches!(order, Order::Stop | Order::Drain(_))
                }
                None => true,
            }
        }
    }

    async fn revive(&mut self) -> anyhow::Result<()> {
        let alive = Incarnation::start(Arc::clone(&self.config), self.faults.clone(), &self.port).await?;
        self.engine.send_replace(Some(alive.api.clone()));
        self.alive = Some(alive);
        self.lives.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    async fn kill(&mut self) {
        self.engine.send_replace(None);
        if let Some(alive) = self.alive.take() {
            alive.stop().await;
        }
    }

    /// A second order during the drain cuts it short.
    async fn drain(&mut self, at_most: Duration) {
        if let Some(alive) = self.alive.take() {
            alive.drain(at_most).await;
        }
        self.engine.send_replace(None);
    }
}

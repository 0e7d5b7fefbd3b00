//! The thread that owns NVML: how it starts and stops.

use std::{io, path::PathBuf, sync::Arc, thread, time::Duration};

use plimsoll_common::wire::SourceState;
use tokio::{
    sync::{oneshot, watch},
    time::Instant,
};

use super::{
    GpuOptions, GpuSnapshot,
    nvml::NvmlDriver,
    orders::{Order, Orders},
    session::Session,
    source::GpuDriver,
};

/// Reads the GPUs on a thread of its own and publishes what it sees. Dropping it tells the thread to stop and does not
/// wait; [`GpuMonitor::stop`] waits for a bounded time.
#[derive(Debug)]
pub struct GpuMonitor {
    snapshots: watch::Receiver<Arc<GpuSnapshot>>,
    // Kept so that the channel stays open when the thread has ended: readers see an old snapshot age, not a closed channel.
    _sender: watch::Sender<Arc<GpuSnapshot>>,
    thread: Option<Running>,
}

#[derive(Debug)]
struct Running {
    orders: Orders,
    done: oneshot::Receiver<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.orders.give(Order::Stop);
    }
}

/// Gives the driver free and takes it back. Any number of these may exist; orders do not wait for the thread that carries
/// them out, the snapshots tell when it has.
#[derive(Debug, Clone)]
pub struct GpuControl {
    orders: Option<Orders>,
}

impl GpuControl {
    /// The longest release; longer ones are cut to it.
    pub const LONGEST_RELEASE: Duration = Duration::from_mins(10);
    /// How long a release lasts when nobody says.
    pub const DEFAULT_RELEASE: Duration = Duration::from_secs(60);

    /// Shuts NVML down and unloads it for so long, at most [`Self::LONGEST_RELEASE`], so that a GPU can be reset, its MIG
    /// mode changed or the driver unloaded; then the agent comes back by itself. Again while it is released, the time
    /// begins anew. Returns how long it will be.
    ///
    /// # Errors
    /// When there is nothing to release, since the source is switched off.
    pub fn release(&self, length: Duration) -> Result<Duration, NotRunning> {
        let length = length.min(Self::LONGEST_RELEASE);
        self.orders.as_ref().ok_or(NotRunning)?.give(Order::Release(length));
        Ok(length)
    }

    /// Takes the driver back before the time is over; without a release it does nothing.
    ///
    /// # Errors
    /// When the source is switched off.
    pub fn resume(&self) -> Result<(), NotRunning> {
        self.orders.as_ref().ok_or(NotRunning)?.give(Order::Resume);
        Ok(())
    }
}

/// NVML is not used at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the GPU source is switched off, so nothing of the driver is held")]
pub struct NotRunning;

/// How the thread ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// NVML was shut down and the thread has ended, or there was none.
    InTime,
    /// A call into the driver did not return in time; the thread was left behind and ends with the process.
    LeftBehind,
}

/// Starts reading the GPUs through NVML. It always succeeds: what is missing is told by the snapshots, and tried again.
#[must_use]
pub fn spawn(options: GpuOptions) -> GpuMonitor {
    if !options.enabled {
        let now = Instant::now();
        let detail = "switched off by the agent's configuration".to_owned();
        return GpuMonitor::idle(GpuSnapshot::empty(now, SourceState::Unsupported, Some(detail)));
    }
    let driver = NvmlDriver::new(options.library.clone().map(PathBuf::into_os_string));
    spawn_driver(driver, options)
}

/// The same with any driver.
pub(super) fn spawn_driver(mut driver: impl GpuDriver + Send + 'static, options: GpuOptions) -> GpuMonitor {
    // Until the first answer nothing is known: neither that there are GPUs nor that there are none.
    let starting = "starting: NVML has not answered yet".to_owned();
    let first = GpuSnapshot::empty(Instant::now(), SourceState::Failed, Some(starting));
    let (sender, snapshots) = watch::channel(Arc::new(first));
    let orders = Orders::default();
    let (tell_done, done) = oneshot::channel();
    let (publisher, listened) = (sender.clone(), orders.clone());
    let body = move || {
        let mut publish = |snapshot| drop(publisher.send_replace(Arc::new(snapshot)));
        Session::new(&options, &listened, &mut publish).run(&mut driver);
        // Nobody may wait any more.
        let _ = tell_done.send(());
    };
    match thread::Builder::new().name("nvml".to_owned()).spawn(body) {
        Ok(_detached) => GpuMonitor { snapshots, _sender: sender, thread: Some(Running { orders, done }) },
        Err(error) => GpuMonitor::idle(no_thread(&error)),
    }
}

fn no_thread(error: &io::Error) -> GpuSnapshot {
    let detail =
        format!("the thread that reads NVML cannot be started ({error}); raise the limit of processes");
    GpuSnapshot::empty(Instant::now(), SourceState::Failed, Some(detail))
}

impl GpuMonitor {
    fn idle(snapshot: GpuSnapshot) -> Self {
        let (sender, snapshots) = watch::channel(Arc::new(snapshot));
        Self { snapshots, _sender: sender, thread: None }
    }

    /// The newest snapshot. It never closes while the monitor lives; take [`GpuSnapshot::as_of`] before believing it.
    #[must_use]
    pub fn snapshots(&self) -> watch::Receiver<Arc<GpuSnapshot>> {
        self.snapshots.clone()
    }

    /// Gives the driver free and takes it back.
    #[must_use]
    pub fn control(&self) -> GpuControl {
        GpuControl { orders: self.thread.as_ref().map(|running| running.orders.clone()) }
    }

    /// Tells the thread to shut NVML down and waits for it, but not longer than `patience`: a call into a broken driver may
    /// never return, and a thread inside one can't be stopped. It ends with the process; where the call sleeps
    /// uninterruptibly in the kernel, the process' end waits for it too, and no program can change that.
    pub async fn stop(mut self, patience: Duration) -> Stopped {
        let Some(mut running) = self.thread.take() else {
            return Stopped::InTime;
        };
        running.orders.give(Order::Stop);
        // An error means that the thread panicked: it has ended as well.
        match tokio::time::timeout(patience, &mut running.done).await {
            Ok(Ok(()) | Err(_)) => Stopped::InTime,
            Err(_elapsed) => Stopped::LeftBehind,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::gpu::{
        plan::Call,
        reading::GpuStatus,
        scripted::Scripted,
        source::{GpuSource, Outage, SessionEnd},
    };

    const PATIENCE: Duration = Duration::from_secs(30);

    fn quick() -> GpuOptions {
        GpuOptions { interval: GpuOptions::MIN_INTERVAL, ..GpuOptions::default() }
    }

    async fn until(monitor: &GpuMonitor, wanted: impl FnMut(&Arc<GpuSnapshot>) -> bool) -> Arc<GpuSnapshot> {
        let mut snapshots = monitor.snapshots();
        let found = tokio::time::timeout(PATIENCE, snapshots.wait_for(wanted)).await;
        Arc::clone(&found.unwrap().unwrap())
    }

    #[tokio::test]
    async fn it_reads_loses_and_finds_again() {
        let driver = Scripted::with(&["GPU-a", "GPU-b"]);
        let monitor = spawn_driver(driver.clone(), quick());
        let healthy = until(&monitor, |now| now.source == SourceState::Healthy).await;
        assert_eq!(healthy.gpus.len(), 2);
        assert_eq!(healthy.driver.as_ref().unwrap().version, "580.95.05");
        let again = until(&monitor, |now| now.taken > healthy.taken).await;
        assert!(again.calls >= healthy.calls + 7);
        assert!(again.busy >= healthy.busy);

        driver.world().outage = Some(Outage::NoDriver);
        let down = until(&monitor, |now| now.source == SourceState::Failed).await;
        assert!(down.detail.as_ref().unwrap().contains("modprobe"));
        assert_eq!((down.gpus.len(), down.gpus[0].state), (2, GpuStatus::Stale));
        assert_eq!((&down.driver, down.gpus[0].power_mw), (&None, None));

        driver.world().outage = None;
        let back = until(&monitor, |now| now.source == SourceState::Healthy && now.taken > down.taken).await;
        assert_eq!(back.inventory, healthy.inventory);
        assert!(back.costs[Call::Init as usize].calls >= 2);
        assert_eq!(monitor.stop(PATIENCE).await, Stopped::InTime);
    }

    #[tokio::test]
    async fn a_machine_without_gpus_is_unsupported_until_it_has_some() {
        let driver = Scripted::default();
        let monitor = spawn_driver(driver.clone(), quick());
        let none = until(&monitor, |now| now.source == SourceState::Unsupported).await;
        assert!(none.detail.as_ref().unwrap().contains("NVIDIA_VISIBLE_DEVICES"));
        assert!(none.gpus.is_empty());
        driver.world().gpus.push(crate::gpu::scripted::ScriptedGpu::new("GPU-new"));
        until(&monitor, |now| now.source == SourceState::Healthy).await;
        assert_eq!(monitor.stop(PATIENCE).await, Stopped::InTime);
    }

    #[tokio::test]
    async fn switched_off_it_says_so_and_stops_at_once() {
        let monitor = spawn(GpuOptions { enabled: false, ..GpuOptions::default() });
        let snapshot = monitor.snapshots().borrow().clone();
        assert_eq!(snapshot.source, SourceState::Unsupported);
        assert!(snapshot.detail.as_ref().unwrap().contains("switched off"));
        assert_eq!((snapshot.calls, snapshot.valid_until), (0, None));
        assert_eq!(monitor.stop(Duration::ZERO).await, Stopped::InTime);
    }

    /// A driver whose first call returns only when the test says so.
    struct Hung {
        entered: mpsc::SyncSender<()>,
        released: mpsc::Receiver<()>,
    }

    impl GpuDriver for Hung {
        fn session(
            &mut self,
            _work: &mut dyn FnMut(&mut dyn GpuSource) -> SessionEnd,
        ) -> Result<SessionEnd, Outage> {
            let _ = self.entered.send(());
            let _ = self.released.recv();
            Ok(SessionEnd::Stopped)
        }
    }

    #[tokio::test]
    async fn a_hung_call_does_not_keep_the_agent_from_stopping() {
        let (entered, seen) = mpsc::sync_channel(1);
        let (release, released) = mpsc::sync_channel::<()>(1);
        let monitor = spawn_driver(Hung { entered, released }, quick());
        seen.recv_timeout(PATIENCE).unwrap();
        assert_eq!(monitor.snapshots().borrow().source, SourceState::Failed);
        assert_eq!(monitor.stop(Duration::from_millis(10)).await, Stopped::LeftBehind);
        drop(release);
    }
}

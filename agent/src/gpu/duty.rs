//! What the process does about its GPU source: it ends when only a new start helps, and gives the driver free on SIGUSR1.

use std::sync::Arc;

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tokio_util::sync::CancellationToken;

use super::{monitor::GpuControl, snapshot::GpuSnapshot};

/// What the agent does when its NVML library no longer fits the kernel's driver, as after an upgrade.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum OnDriverUpgrade {
    /// It ends with exit code 75, to be started with the new library: the only way in a container, where the old one
    /// stays mounted.
    #[default]
    Exit,
    /// It stays up without GPUs and loads the library again and again, until it finds the new one at its place.
    Keep,
}

/// The agent has to be started anew: it runs with an NVML library that no longer fits the kernel's driver. In a container
/// the old library stays mounted until then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct RestartNeeded {
    /// What happened, and what to do.
    pub reason: String,
}

impl RestartNeeded {
    /// The exit code that tells it (`EX_TEMPFAIL`): start the agent again.
    pub const EXIT_CODE: u8 = 75;
}

/// Waits until cancelled, or until only a new start brings the GPUs back.
///
/// # Errors
/// [`RestartNeeded`].
pub async fn end_when_outdated(
    mut snapshots: watch::Receiver<Arc<GpuSnapshot>>,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let reason = tokio::select! {
        () = cancel.cancelled() => return Ok(()),
        outdated = snapshots.wait_for(|snapshot| snapshot.restart_needed) => match outdated {
            Ok(snapshot) => snapshot.detail.clone().unwrap_or_else(|| "the GPU driver changed".to_owned()),
            Err(_closed) => return Ok(()),
        },
    };
    tracing::error!(exit_code = RestartNeeded::EXIT_CODE, "the agent ends to be started anew: {reason}");
    Err(RestartNeeded { reason }.into())
}

/// Releases the driver for [`GpuControl::DEFAULT_RELEASE`] at every SIGUSR1, until cancelled.
///
/// # Errors
/// When the handler can't be installed.
pub async fn release_on_signal(control: GpuControl, cancel: CancellationToken) -> anyhow::Result<()> {
    let mut asked = signal(SignalKind::user_defined1())?;
    loop {
        tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            Some(()) = asked.recv() => match control.release(GpuControl::DEFAULT_RELEASE) {
                Ok(length) => tracing::info!(?length, "SIGUSR1: the GPU driver is given free"),
                Err(error) => tracing::warn!("SIGUSR1: {error}"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_common::wire::SourceState;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test]
    async fn an_outdated_library_ends_the_agent_and_anything_else_does_not() {
        let now = Instant::now();
        let healthy = GpuSnapshot::empty(now, SourceState::Healthy, None);
        let (sender, snapshots) = watch::channel(Arc::new(healthy.clone()));
        let cancel = CancellationToken::new();
        let duty = tokio::spawn(end_when_outdated(snapshots, cancel.clone()));
        sender.send_replace(Arc::new(GpuSnapshot { source: SourceState::Failed, ..healthy.clone() }));
        tokio::task::yield_now().await;
        assert!(!duty.is_finished());
        let detail = Some("of different versions".to_owned());
        sender.send_replace(Arc::new(GpuSnapshot { restart_needed: true, detail, ..healthy.clone() }));
        let error = duty.await.unwrap().unwrap_err().context("task 'driver' failed");
        let told = error.downcast_ref::<RestartNeeded>().unwrap();
        assert_eq!(told.reason, "of different versions");

        let (_sender, snapshots) = watch::channel(Arc::new(healthy));
        cancel.cancel();
        end_when_outdated(snapshots, cancel).await.unwrap();
    }
}

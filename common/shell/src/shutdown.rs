//! The first signal asks for an orderly end, the second ends at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The exit code after a second signal (128 + SIGINT).
const EXIT_SECOND_SIGNAL: i32 = 130;

/// A token that is cancelled by the first SIGTERM or SIGINT. A second one ends the process on the spot.
///
/// # Errors
/// When the handlers can't be installed.
pub fn on_signal() -> std::io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => (), _ = interrupt.recv() => () }
        tracing::info!("shutting down; a second signal ends at once");
        cancelled.cancel();
        tokio::select! { _ = terminate.recv() => (), _ = interrupt.recv() => () }
        #[expect(clippy::disallowed_methods, reason = "the operator asked twice: no drain, no destructors")]
        std::process::exit(EXIT_SECOND_SIGNAL);
    });
    Ok(token)
}

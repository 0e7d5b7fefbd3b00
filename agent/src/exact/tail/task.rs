//! The task that follows one folder.

use std::{path::PathBuf, time::Duration};

use tokio::{sync::mpsc, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use super::folder::{Folder, FolderError, Polled};
use crate::exact::{ExactBatch, ExactReading, SourceReport};

/// Between two looks at a folder.
const INTERVAL: Duration = Duration::from_millis(500);
/// After a look that left something unread: at once, but for the event loop's other work.
const BEHIND_INTERVAL: Duration = Duration::from_millis(20);
/// After how long a file system that does not answer is told of.
const PATIENCE: Duration = Duration::from_secs(10);

type Looked = (Folder, Result<Polled, FolderError>);

/// Follows a folder of request logs until `cancel`, or until nobody takes the readings.
///
/// Where readings are not taken, nothing more is read: the files keep what is in them.
pub async fn run(
    engine: usize,
    path: PathBuf,
    report: SourceReport,
    tx: mpsc::Sender<ExactReading>,
    cancel: CancellationToken,
) {
    let mut folder = Folder::new(path);
    loop {
        let look = tokio::task::spawn_blocking(move || {
            let polled = folder.poll(Instant::now());
            (folder, polled)
        });
        let looked = tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            looked = finish(look, &report) => looked,
        };
        let Some((back, polled)) = looked else { return };
        folder = back;
        let behind = tell(&polled, &report);
        if let Ok(Polled { samples, .. }) = polled
            && !samples.is_empty()
        {
            let batch = ExactBatch { samples, passes: None };
            let reading = ExactReading { engine, taken: Instant::now(), batch };
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                sent = tx.send(reading) => if sent.is_err() { return },
            }
        }
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(if behind { BEHIND_INTERVAL } else { INTERVAL }) => {}
        }
    }
}

/// Waits for a look, however long it takes; `None` where it broke, which ends the source.
async fn finish(mut look: JoinHandle<Looked>, report: &SourceReport) -> Option<Looked> {
    let looked = match tokio::time::timeout(PATIENCE, &mut look).await {
        Ok(looked) => looked,
        Err(_) => {
            report.fails(format!("the file system does not answer for more than {PATIENCE:?}"));
            look.await
        }
    };
    looked.map_err(|error| report.fails(format!("following the folder broke: {error}"))).ok()
}

/// Tells how the source is; answers whether there is more to read.
fn tell(polled: &Result<Polled, FolderError>, report: &SourceReport) -> bool {
    let polled = match polled {
        Ok(polled) => polled,
        Err(error) => {
            report.fails(error.to_string());
            return false;
        }
    };
    let mut first = false;
    report.update(|status| {
        first = status.malformed == 0 && polled.malformed > 0;
        status.records += polled.records;
        status.skipped += polled.skipped;
        status.malformed += polled.malformed;
        status.dropped += polled.dropped;
        status.behind_bytes = Some(polled.behind_bytes);
    });
    if first && let Some(error) = &polled.first_error {
        tracing::warn!(place = %report.key().place, %error, "a line of a request log is skipped; more are only counted");
    }
    match &polled.unreadable {
        Some(error) => report.fails(error.to_string()),
        None if polled.files == 0 => report.works(Some("no request log is in the folder yet".to_owned())),
        None => report.works(None),
    }
    polled.behind_bytes > 0
}

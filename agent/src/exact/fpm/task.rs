//! The task that subscribes to one publisher.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    ledger::{Heard, Ledger},
    message::ForwardPass,
    zmtp::{Decoder, GREETING, Incoming, Message, READY, SUBSCRIBE_ALL, ZmtpError},
};
use crate::{
    backoff::Backoff,
    config::FpmAddress,
    exact::{ExactReading, SourceReport},
};

/// How long connecting and the handshake may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// After how long without a byte a connection is given up: even idle publishers send a heartbeat every second.
const SILENCE: Duration = Duration::from_secs(30);
/// Between two readings.
const FLUSH: Duration = Duration::from_millis(250);
const SHORTEST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
const READ_BYTES: usize = 16 << 10;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("it can't be reached: {0}")]
    Unreachable(io::Error),
    #[error("it did not answer within {PATIENCE:?}")]
    Slow,
    #[error("the connection broke: {0}")]
    Broken(io::Error),
    #[error("it closed the connection")]
    Closed,
    #[error("it sent nothing for {SILENCE:?}")]
    Silent,
    #[error(transparent)]
    Protocol(#[from] ZmtpError),
}

/// Where one publisher's messages go.
#[derive(Debug)]
pub struct Subscription {
    /// The engine's row.
    pub engine: usize,
    /// The publisher's number among those of its engine.
    pub stream: usize,
    /// Where it publishes.
    pub address: FpmAddress,
    /// Where it tells how it is.
    pub report: SourceReport,
    /// Where readings go.
    pub tx: mpsc::Sender<ExactReading>,
}

/// Follows one publisher until `cancel`, through any number of connections.
pub async fn run(subscription: Subscription, cancel: CancellationToken) {
    let mut ledger = Ledger::default();
    let mut backoff = Backoff::new(SHORTEST_WAIT, LONGEST_WAIT);
    loop {
        let mut heard = false;
        let ended = tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            ended = connection(&subscription, &mut ledger, &mut heard) => ended,
        };
        if heard {
            backoff.reset();
        }
        ledger.disconnected(Instant::now());
        subscription.flush(&mut ledger);
        subscription.report.fails(ended.to_string());
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(backoff.next_wait(rand::random())) => {}
        }
    }
}

async fn connection(subscription: &Subscription, ledger: &mut Ledger, heard: &mut bool) -> Ended {
    let ended = match &subscription.address {
        FpmAddress::Tcp { host, port } => {
            match timeout(PATIENCE, TcpStream::connect((host.as_str(), *port))).await {
                Ok(Ok(stream)) => listen(stream, subscription, ledger, heard).await,
                Ok(Err(error)) => return Ended::Unreachable(error),
                Err(_) => return Ended::Slow,
            }
        }
        FpmAddress::Ipc(path) => match timeout(PATIENCE, UnixStream::connect(path)).await {
            Ok(Ok(stream)) => listen(stream, subscription, ledger, heard).await,
            Ok(Err(error)) => return Ended::Unreachable(error),
            Err(_) => return Ended::Slow,
        },
    };
    ended.err().unwrap_or(Ended::Closed)
}

/// Speaks to a publisher until the connection ends, which it always does with a reason.
async fn listen<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    subscription: &Subscription,
    ledger: &mut Ledger,
    heard: &mut bool,
) -> Result<(), Ended> {
    let mut decoder = Decoder::default();
    timeout(PATIENCE, handshake(&mut stream, &mut decoder)).await.map_err(|_| Ended::Slow)??;
    subscription.report.works(Some("connected, and nothing was published yet".to_owned()));
    let mut chunk = vec![0; READ_BYTES];
    let mut ticks = interval(FLUSH);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut last_byte = Instant::now();
    loop {
        while let Some(incoming) = decoder.next()? {
            if let Incoming::Message(message) = incoming {
                subscription.take(&message, ledger);
                if !std::mem::replace(heard, true) {
                    subscription.report.works(None);
                }
            }
        }
        tokio::select! {
            read = stream.read(&mut chunk) => {
                let n = read.map_err(Ended::Broken)?;
                if n == 0 {
                    return Err(Ended::Closed);
                }
                last_byte = Instant::now();
                decoder.push(&chunk[..n]);
            }
            _ = ticks.tick() => {
                subscription.flush(ledger);
                if last_byte.elapsed() >= SILENCE {
                    return Err(Ended::Silent);
                }
            }
        }
    }
}

async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    decoder: &mut Decoder,
) -> Result<(), Ended> {
    stream.write_all(&GREETING).await.map_err(Ended::Broken)?;
    stream.write_all(READY).await.map_err(Ended::Broken)?;
    let mut chunk = [0; 256];
    loop {
        if let Some(incoming) = decoder.next()? {
            debug_assert_eq!(incoming, Incoming::Ready);
            return stream.write_all(SUBSCRIBE_ALL).await.map_err(Ended::Broken);
        }
        let n = stream.read(&mut chunk).await.map_err(Ended::Broken)?;
        if n == 0 {
            return Err(Ended::Closed);
        }
        decoder.push(&chunk[..n]);
    }
}

impl Subscription {
    fn take(&self, message: &Message, ledger: &mut Ledger) {
        let pass = ForwardPass::read(message);
        let lost = ledger.lost();
        let heard = pass.as_ref().map(|pass| ledger.observe(Instant::now(), pass));
        let lost = ledger.lost() - lost;
        let mut first_error = None;
        self.report.update(|status| {
            status.lost += lost;
            match heard {
                Ok(Heard::Pass) => status.records += 1,
                Ok(Heard::Heartbeat) => status.skipped += 1,
                Ok(Heard::NoRoom) => status.dropped += 1,
                Err(error) => {
                    first_error = (status.malformed == 0).then_some(*error);
                    status.malformed += 1;
                }
            }
        });
        if let Some(error) = first_error {
            let place = self.report.key().place.as_str();
            tracing::warn!(place, %error, "a message is skipped; more are only counted");
        }
    }

    /// Hands over what was gained; where there is no room it waits in the ledger.
    fn flush(&self, ledger: &mut Ledger) {
        if let Ok(permit) = self.tx.try_reserve() {
            let now = Instant::now();
            let batch = ledger.flush(now, self.stream);
            permit.send(ExactReading { engine: self.engine, taken: now, batch });
        }
    }
}

//! One QUIC connection to the planner, from the handshake to its end.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use plimsoll_common::{
    ids::{AgentEpoch, PlannerRun, Seq},
    wire::{FrameDecoder, FrameEncoder, Gap, Hello, MAX_FRAME_BYTES, Message, Request, WireError},
};
use quinn::{Connection, RecvStream, SendStream, TransportConfig, VarInt};
use tokio::time::timeout;

/// How long the handshake and the answer to the hello may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Keeps NAT and conntrack entries alive where reports are rare.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// A path on which nothing came back for this long is dead.
const IDLE_TIMEOUT_MS: u32 = 30_000;

/// A connection whose planner has answered the hello.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) quic: Connection,
    pub(super) up: Up,
    pub(super) control: Control,
    /// Which run of the planner this is, where it tells.
    pub(super) run: Option<PlannerRun>,
    /// Up to which window of this epoch the planner has applied everything.
    pub(super) applied: Seq,
}

/// The agent's side of the control stream. The planner ends the connection when it is reset.
#[derive(Debug)]
pub(super) struct Up {
    stream: SendStream,
    encoder: FrameEncoder,
}

/// What the planner says on the control stream.
#[derive(Debug)]
pub(super) struct Control {
    stream: RecvStream,
    decoder: FrameDecoder,
    buffer: Vec<u8>,
}

/// A message from the planner.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FromPlanner {
    /// Everything up to here is applied.
    Applied(AgentEpoch, Seq, Option<PlannerRun>),
    /// What the planner would like.
    Request(Request),
    /// A message that a newer planner sends and this build does not know.
    Unknown(WireError),
}

/// Transport settings of the agent's side: it sends a little, all the time.
pub(super) fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(Some(VarInt::from_u32(IDLE_TIMEOUT_MS).into()))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(64 * 1024))
        .receive_window(VarInt::from_u32(128 * 1024))
        .send_window(1024 * 1024)
        .datagram_receive_buffer_size(None);
    transport
}

impl Link {
    /// Connects, says hello and waits for the planner's answer.
    ///
    /// # Errors
    /// When nobody answers in time, the planner is not who it should be, or it refuses.
    pub(super) async fn open(
        endpoint: &quinn::Endpoint,
        config: quinn::ClientConfig,
        address: SocketAddr,
        name: &str,
        hello: Hello,
    ) -> anyhow::Result<Self> {
        let epoch = hello.epoch;
        let connecting = endpoint.connect_with(config, address, name)?;
        let open = async {
            let quic = connecting.await.with_context(|| format!("no connection to {address}"))?;
            let (stream, receive) = quic.open_bi().await.context("no control stream")?;
            let mut up = Up { stream, encoder: FrameEncoder::new()? };
            up.send(&Message::Hello(hello)).await?;
            let mut control = Control { stream: receive, decoder: FrameDecoder::new()?, buffer: Vec::new() };
            let (applied, run) = loop {
                match control.next().await? {
                    FromPlanner::Applied(of, seq, run) if of == epoch => break (seq, run),
                    FromPlanner::Applied(_, _, run) => break (Seq(0), run),
                    FromPlanner::Request(_) | FromPlanner::Unknown(_) => (),
                }
            };
            anyhow::Ok(Self { quic, up, control, run, applied })
        };
        timeout(CONNECT_TIMEOUT, open)
            .await
            .with_context(|| format!("{address} did not answer within {CONNECT_TIMEOUT:?}"))?
    }
}

/// Sends one frame on a stream of its own. To drop the future midway would send a part of it.
///
/// # Errors
/// When the connection ends first.
pub(super) async fn send(quic: &Connection, frame: &[u8]) -> anyhow::Result<()> {
    let mut stream = quic.open_uni().await?;
    stream.write_all(frame).await?;
    stream.finish()?;
    Ok(())
}

impl Up {
    /// Tells of windows that will not come.
    ///
    /// # Errors
    /// When the connection ends first.
    pub(super) async fn gap(&mut self, gap: Gap) -> anyhow::Result<()> {
        self.send(&Message::Gap(gap)).await
    }

    async fn send(&mut self, message: &Message) -> anyhow::Result<()> {
        let frame = self.encoder.encode(message, 0)?;
        let length = u32::try_from(frame.len()).context("a control frame is too long")?;
        self.stream.write_all(&length.to_be_bytes()).await?;
        self.stream.write_all(&frame).await?;
        Ok(())
    }
}

impl Control {
    /// Waits for the next message. Dropping the future midway loses nothing: what was read stays in the buffer.
    ///
    /// # Errors
    /// When the stream ends or a frame does not decode.
    pub(super) async fn next(&mut self) -> anyhow::Result<FromPlanner> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(message);
            }
            let chunk = self.stream.read_chunk(64 * 1024, true).await?;
            let Some(chunk) = chunk else { bail!("the planner ended the control stream") };
            self.buffer.extend_from_slice(&chunk.bytes);
        }
    }

    fn take(&mut self) -> anyhow::Result<Option<FromPlanner>> {
        let Some((length, rest)) = self.buffer.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        anyhow::ensure!(length <= MAX_FRAME_BYTES, WireError::FrameTooLong);
        let Some(frame) = rest.get(..length) else { return Ok(None) };
        let decoded = self.decoder.decode(frame);
        self.buffer.drain(..4 + length);
        match decoded {
            Ok(frame) => match frame.message {
                Message::Ack(ack) => Ok(Some(FromPlanner::Applied(ack.epoch, ack.seq, ack.planner))),
                Message::Request(request) => Ok(Some(FromPlanner::Request(request))),
                other => bail!("a planner does not send a {:?}", other.kind()),
            },
            Err(error @ WireError::UnknownKind(_)) => Ok(Some(FromPlanner::Unknown(error))),
            Err(error) => Err(error.into()),
        }
    }
}

/// A QUIC client configuration for the agent.
pub(super) fn client_config(tls: rustls::ClientConfig) -> anyhow::Result<quinn::ClientConfig> {
    let crypto =
        quinn::crypto::rustls::QuicClientConfig::try_from(tls).context("TLS can't be used for QUIC")?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport()));
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// quinn shows settings no other way.
    #[test]
    fn connections_are_kept_alive_and_end_in_silence() {
        let shown = format!("{:?}", transport());
        for setting in ["keep_alive_interval: Some(10s)", "max_idle_timeout: Some(30000)"] {
            assert!(shown.contains(setting), "{shown}");
        }
    }
}

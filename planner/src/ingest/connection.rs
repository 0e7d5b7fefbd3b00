//! One agent's connection, from its handshake to its end.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use plimsoll_common::{
    units::Micros,
    wire::{Ack, CloseCode, Frame, Hello, MAX_FRAME_BYTES, Message, Request, WireError},
};
use quinn::{Connection, Incoming, ReadError, RecvStream, VarInt};
use rustls_pki_types::CertificateDer;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};
use tracing::Instrument;

use super::{
    Answer, Assembly, AssemblyError, Bucket, Claim, ConnectionId, Event, Shared, Window,
    control::{ControlReader, ControlWriter, MAX_CONTROL_FRAME_BYTES, Next},
};

/// The longest reason that is sent with a close.
const MAX_REASON_BYTES: usize = 200;

/// How many frames of one agent are read at a time, each on its own stream.
const MAX_READS: usize = 8;
/// Up to so many bytes a frame is read at once; the rest of a larger one waits for its turn among those of all agents. A busy
/// second of 8 GPUs and 8 engines is 3 KiB.
pub(super) const SMALL_FRAME_BYTES: usize = 16 * 1024;

/// Why a connection ends.
#[derive(Debug)]
enum End {
    /// It broke or the agent closed it.
    Gone,
    /// We end it.
    Close(CloseCode, String),
}

impl From<WireError> for End {
    fn from(error: WireError) -> Self {
        Self::Close(error.close_code(), error.to_string())
    }
}

impl End {
    fn order(reason: impl Into<String>) -> Self {
        Self::Close(CloseCode::Order, reason.into())
    }

    fn going_away() -> Self {
        Self::Close(CloseCode::Done, "the planner is going away, come back".to_owned())
    }
}

/// Runs a connection to its end. What it told the driver is settled when this returns.
pub(super) async fn run(incoming: Incoming, id: ConnectionId, shared: Arc<Shared>) {
    let peer = incoming.remote_address();
    let span = tracing::info_span!("agent", connection = id.0, %peer);
    serve(incoming, id, shared).instrument(span).await;
}

async fn serve(incoming: Incoming, id: ConnectionId, shared: Arc<Shared>) {
    let pending = shared.stats.pending.hold();
    let Some(quic) = handshake(incoming, &shared).await else { return };
    let ended = match timeout(shared.options.handshake_timeout, hello(&quic, &shared)).await {
        Ok(Ok((hello, reader, writer))) => {
            drop(pending);
            let _open = shared.stats.connections.hold();
            let hello = Arc::new(hello);
            let mut agent = Agent {
                id,
                quic: quic.clone(),
                assembly: Assembly::new(hello.node.clone(), hello.epoch),
                hello: Arc::clone(&hello),
                bucket: Bucket::new(
                    shared.options.burst_frames,
                    shared.options.frames_per_second,
                    shared.clock.now(),
                ),
                shared: Arc::clone(&shared),
                reads: JoinSet::new(),
                asked: Request::default(),
            };
            let end = agent.run(reader, writer).await;
            // The driver may be gone already; then nobody needs to know.
            let _ = shared.events.send(Event::Closed { connection: id, hello }).await;
            end
        }
        Ok(Err(end)) => end,
        Err(_) => {
            shared.stats.hello_timeouts.one();
            End::order("no hello came in time")
        }
    };
    match ended {
        End::Gone => tracing::debug!("the agent is gone"),
        End::Close(code, reason) => {
            tracing::info!(?code, reason, "connection closed");
            shared.stats.closed(code);
            let mut sent = reason.as_str();
            while sent.len() > MAX_REASON_BYTES {
                sent = sent.char_indices().next_back().map_or("", |(at, _)| &sent[..at]);
            }
            quic.close(VarInt::from_u32(code.code()), sent.as_bytes());
        }
    }
}

async fn handshake(incoming: Incoming, shared: &Shared) -> Option<Connection> {
    let shaking = async { incoming.accept()?.await };
    let done = tokio::select! {
        done = timeout(shared.options.handshake_timeout, shaking) => done,
        () = shared.cancel.cancelled() => return None,
    };
    match done {
        Ok(Ok(connection)) => {
            shared.stats.accepted.one();
            Some(connection)
        }
        Ok(Err(error)) => {
            shared.stats.handshake_failures.one();
            tracing::debug!(%error, "handshake failed");
            None
        }
        Err(_) => {
            shared.stats.handshake_failures.one();
            tracing::debug!("handshake took too long");
            None
        }
    }
}

/// Waits for the control stream and the hello on it.
async fn hello(
    quic: &Connection,
    shared: &Arc<Shared>,
) -> Result<(Hello, ControlReader, ControlWriter), End> {
    let (send, receive) = tokio::select! {
        stream = quic.accept_bi() => stream.map_err(|_| End::Gone)?,
        () = shared.cancel.cancelled() => return Err(End::going_away()),
    };
    let mut reader = ControlReader::new(receive);
    loop {
        let next = tokio::select! {
            next = reader.next() => next,
            () = shared.cancel.cancelled() => return Err(End::going_away()),
        };
        if let Some(frame) = control_frame(next, shared)? {
            let Message::Hello(mut hello) = frame.message else {
                return Err(End::order("the first message on the control stream must be a hello"));
            };
            prove(quic, &hello, shared).await?;
            // It has served its purpose, and nobody who sees the hello needs it.
            hello.token = None;
            shared.stats.hellos.one();
            return Ok((hello, reader, ControlWriter::new(send, Arc::clone(shared))));
        }
    }
}

/// Whether the agent is who its hello says.
async fn prove(quic: &Connection, hello: &Hello, shared: &Shared) -> Result<(), End> {
    let shown = quic.peer_identity().and_then(|shown| shown.downcast::<Vec<CertificateDer<'static>>>().ok());
    let claim = Claim {
        node: &hello.node,
        certificate: shown.as_ref().and_then(|chain| chain.first()),
        token: hello.token.as_ref(),
    };
    shared.verifier.check(claim).await.map_err(|unproven| {
        tracing::warn!(node = %hello.node, %unproven, "an agent is not who it says it is");
        End::Close(CloseCode::Unproven, unproven.to_string())
    })
}

/// Decodes what came on the control stream; `None` for what is skipped.
fn control_frame(next: Next, shared: &Shared) -> Result<Option<Frame>, End> {
    match next {
        Next::Frame(bytes) => decode(shared, &bytes),
        Next::TooLong => {
            shared.stats.error(&WireError::FrameTooLong);
            let reason = format!(
                "the frame is longer than {MAX_CONTROL_FRAME_BYTES} bytes, the most on the control stream"
            );
            Err(End::Close(CloseCode::TooLarge, reason))
        }
        Next::End => Ok(None),
        Next::Broken(ReadError::Reset(_)) => Err(End::order("the control stream was reset")),
        Next::Broken(_) => Err(End::Gone),
    }
}

/// Decodes a frame; `None` for one of a newer agent's kinds, which is skipped and counted.
fn decode(shared: &Shared, bytes: &[u8]) -> Result<Option<Frame>, End> {
    match shared.decode(bytes) {
        Ok(frame) => Ok(Some(frame)),
        Err(error @ WireError::UnknownKind(_)) => {
            shared.stats.error(&error);
            shared.stats.unknown_frames.one();
            Ok(None)
        }
        Err(error) => Err(refuse(shared, error)),
    }
}

fn refuse(shared: &Shared, error: WireError) -> End {
    shared.stats.error(&error);
    error.into()
}

/// How reading one stream ended.
struct Read {
    received: Micros,
    /// `None` where it took too long.
    frame: Option<Result<Vec<u8>, Unread>>,
    /// The turn of a large frame, until it is decoded.
    _turn: Option<OwnedSemaphorePermit>,
}

/// Why there is no frame.
enum Unread {
    TooLong,
    Stream(ReadError),
}

impl From<ReadError> for Unread {
    fn from(error: ReadError) -> Self {
        Self::Stream(error)
    }
}

async fn read(stream: RecvStream, shared: Arc<Shared>) -> Read {
    let mut turn = None;
    let frame = read_frame(stream, Arc::clone(&shared.large), &mut turn).await;
    Read { received: shared.clock.now(), frame: Some(frame), _turn: turn }
}

async fn read_in_time(reading: Pin<Box<impl Future<Output = Read>>>, shared: Arc<Shared>) -> Read {
    let in_time = timeout(shared.options.frame_timeout, reading).await;
    in_time.unwrap_or_else(|_| Read { received: shared.clock.now(), frame: None, _turn: None })
}

/// Reads a stream to its end. Beyond [`SMALL_FRAME_BYTES`] it waits for its turn, in which the frame may grow to
/// [`MAX_FRAME_BYTES`]: what all agents together can make us keep is bounded, however many they are.
async fn read_frame(
    mut stream: RecvStream,
    large: Arc<Semaphore>,
    turn: &mut Option<OwnedSemaphorePermit>,
) -> Result<Vec<u8>, Unread> {
    let mut frame = Vec::new();
    while let Some(chunk) = stream.read_chunk(SMALL_FRAME_BYTES, true).await? {
        let length = frame.len() + chunk.bytes.len();
        if length > MAX_FRAME_BYTES {
            return Err(Unread::TooLong);
        }
        if length > SMALL_FRAME_BYTES && turn.is_none() {
            // It is never closed.
            *turn = Arc::clone(&large).acquire_owned().await.ok();
        }
        frame.extend_from_slice(&chunk.bytes);
    }
    Ok(frame)
}

/// A connection that said hello.
struct Agent {
    id: ConnectionId,
    quic: Connection,
    hello: Arc<Hello>,
    assembly: Assembly,
    shared: Arc<Shared>,
    /// Streams that are being read: each holds up only its own frame.
    reads: JoinSet<Read>,
    /// What the agent may still send. An agent that sends more is not read for a while; QUIC's credits then hold it up, and
    /// nobody else.
    bucket: Bucket,
    /// What the agent was asked for.
    asked: Request,
}

impl Agent {
    async fn run(&mut self, mut reader: ControlReader, mut writer: ControlWriter) -> End {
        let (answers, mut answered) = watch::channel(Answer::Nothing);
        let hello = Event::Hello { connection: self.id, hello: Arc::clone(&self.hello), answers };
        if self.shared.events.send(hello).await.is_err() {
            return End::going_away();
        }
        tracing::info!(node = %self.hello.node, version = self.hello.version, "agent connected");
        let mut pace = Pace { interval: self.shared.options.ack_interval, sent: None, changed: false };
        let (shared, quic) = (Arc::clone(&self.shared), self.quic.clone());
        let (mut closed, mut cancelled) = (pin!(quic.closed()), pin!(shared.cancel.cancelled()));
        let mut held_up = false;
        loop {
            let wait = self.bucket.wait(shared.clock.now());
            if wait.is_some() && !held_up {
                shared.stats.throttled.one();
                tracing::debug!("the agent sends too much; it waits");
            }
            held_up = wait.is_some();
            // In this order, so that an agent that sends a lot is answered all the same.
            let stepped = tokio::select! {
                biased;
                _ = &mut closed => Err(End::Gone),
                () = &mut cancelled => Err(End::going_away()),
                Some(read) = self.reads.join_next() => match read {
                    Ok(read) => self.take(read).await,
                    Err(_) => Err(End::Close(CloseCode::Refused, "a stream could not be read".to_owned())),
                },
                next = reader.next(), if !held_up => self.control(next).await,
                answer = pace.next(&mut answered) => match answer {
                    Answer::Nothing => Ok(()),
                    Answer::Applied(ack, request) => self.acknowledge(&mut writer, ack, request, &mut pace).await,
                    Answer::End(code, reason) => Err(End::Close(code, reason.to_owned())),
                },
                stream = quic.accept_uni(), if !held_up && self.reads.len() < MAX_READS => match stream {
                    Ok(stream) => self.read(stream).await,
                    Err(_) => Err(End::Gone),
                },
                () = sleep(wait.unwrap_or_default()), if held_up => Ok(()),
            };
            if let Err(end) = stepped {
                return end;
            }
        }
    }

    /// Takes what came on the control stream after the hello: gaps, and nothing else that this build knows.
    async fn control(&mut self, next: Next) -> Result<(), End> {
        if let Next::Frame(bytes) = &next {
            self.bucket.pay(self.shared.clock.now(), bytes.len());
        }
        match control_frame(next, &self.shared)?.map(|frame| frame.message) {
            None => Ok(()),
            Some(Message::Gap(gap)) => {
                self.shared.stats.gaps.one();
                let event = Event::Gap { hello: Arc::clone(&self.hello), gap };
                self.shared.events.send(event).await.map_err(|_| End::going_away())
            }
            Some(other) => {
                Err(End::order(format!("a {:?} has no place on the control stream", other.kind())))
            }
        }
    }

    /// Reads a stream. Mostly all of it is there already; else it is read on beside the others.
    async fn read(&mut self, stream: RecvStream) -> Result<(), End> {
        let mut reading = Box::pin(read(stream, Arc::clone(&self.shared)));
        match poll_fn(|context| Poll::Ready(reading.as_mut().poll(context))).await {
            Poll::Ready(read) => self.take(read).await,
            Poll::Pending => {
                self.reads.spawn(read_in_time(reading, Arc::clone(&self.shared)));
                Ok(())
            }
        }
    }

    async fn take(&mut self, read: Read) -> Result<(), End> {
        let Read { received, frame, _turn } = read;
        let bytes = match frame {
            Some(Ok(bytes)) => bytes,
            Some(Err(Unread::TooLong)) => return Err(refuse(&self.shared, WireError::FrameTooLong)),
            Some(Err(Unread::Stream(ReadError::Reset(_)))) => {
                self.shared.stats.reset_streams.one();
                return Ok(());
            }
            Some(Err(Unread::Stream(_))) => return Err(End::Gone),
            None => {
                self.shared.stats.error(&WireError::Truncated(0));
                return Err(End::Close(CloseCode::Malformed, "a frame did not arrive in time".to_owned()));
            }
        };
        self.bucket.pay(self.shared.clock.now(), bytes.len());
        let Some(Frame { age_ms, message }) = decode(&self.shared, &bytes)? else { return Ok(()) };
        let taken = match message {
            Message::Inventory(inventory) => {
                self.shared.stats.inventories.one();
                self.assembly.inventory(&inventory)
            }
            Message::Report(report) => {
                self.shared.stats.reports.one();
                self.assembly.report(received, age_ms, report).map(|window| window.into_iter().collect())
            }
            other => {
                return Err(End::order(format!("a {:?} has no place on a stream of its own", other.kind())));
            }
        };
        self.shared.stats.unknown_distributions.add(self.assembly.take_unknown_kinds());
        match taken {
            Ok(windows) => self.apply(windows).await,
            Err(AssemblyError::Wire(error)) => Err(refuse(&self.shared, error)),
            Err(error @ (AssemblyError::Order(_) | AssemblyError::Forgotten(_))) => {
                Err(End::order(error.to_string()))
            }
        }
    }

    /// Hands windows to the driver; while it is busy this connection waits, and its agent with it.
    async fn apply(&self, windows: Vec<Window>) -> Result<(), End> {
        for window in windows {
            let event = Event::Window { hello: Arc::clone(&self.hello), window: Box::new(window) };
            self.shared.events.send(event).await.map_err(|_| End::going_away())?;
        }
        Ok(())
    }

    async fn acknowledge(
        &mut self,
        writer: &mut ControlWriter,
        ack: Ack,
        request: Request,
        pace: &mut Pace,
    ) -> Result<(), End> {
        let not_listening =
            || End::Close(CloseCode::Busy, "acknowledgements are not taken off the stream".to_owned());
        if !writer.ack(ack).await {
            return Err(not_listening());
        }
        pace.sent = Some(Instant::now());
        self.shared.stats.acks.one();
        if self.asked != request {
            if !writer.request(request).await {
                return Err(not_listening());
            }
            self.asked = request;
        }
        Ok(())
    }
}

/// Keeps acknowledgements apart: what came in between is covered by the newest.
struct Pace {
    interval: Duration,
    sent: Option<Instant>,
    /// Whether there is an answer that was not handed out.
    changed: bool,
}

impl Pace {
    /// The driver's newest answer, once it changed; acknowledgements wait until the last one is long enough ago.
    /// Dropping the future midway loses nothing: that there is an answer is remembered.
    async fn next(&mut self, answered: &mut watch::Receiver<Answer>) -> Answer {
        if !self.changed {
            // An error means that the driver is gone, as seen below.
            let _ = answered.changed().await;
            self.changed = true;
        }
        let newest = *answered.borrow();
        if let (Answer::Applied(..), Some(sent), true) = (newest, self.sent, answered.has_changed().is_ok()) {
            sleep_until(sent + self.interval).await;
        }
        let gone = answered.has_changed().is_err();
        self.changed = false;
        match *answered.borrow_and_update() {
            answer @ Answer::End(..) => answer,
            _ if gone => Answer::End(CloseCode::Done, "the planner is going away, come back"),
            answer => answer,
        }
    }
}

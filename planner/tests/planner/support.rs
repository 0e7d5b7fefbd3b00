//! A planner on free ports, and an agent that says exactly what a test wants.

#![expect(clippy::unwrap_used, reason = "what is unwrapped here is set up here")]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use plimsoll_common::{
    engine::{DistributionKind, Role},
    ids::{AgentEpoch, BootId, EngineId, Generation, GpuUuid, ModelName, NodeName, PoolName, Seq},
    wire::{
        ALPN, Ack, DomainKind, EngineInfo, FrameDecoder, FrameEncoder, GpuInfo, Hello, HistogramEntry,
        Inventory, Message, NvLinkDomain, Report,
    },
};
use plimsoll_planner::{
    app::{App, Bound},
    config::{Config, Settings},
    ingest::IngestOptions,
};
use plimsoll_shell::tls;
use quinn::{Connection, ConnectionError, RecvStream, SendStream, TransportConfig};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// Longer than anything takes that works, also on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A running planner.
pub(crate) struct Planner {
    pub(crate) bound: Bound,
    pub(crate) cancel: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Planner {
    pub(crate) async fn start() -> Self {
        Self::with(|_| ()).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        Self::set_up(change, |_| ()).await
    }

    /// With other bounds of ingest than can be configured.
    pub(crate) async fn bounded(change: impl FnOnce(&mut IngestOptions)) -> Self {
        Self::set_up(|_| (), change).await
    }

    async fn set_up(change: impl FnOnce(&mut Settings), bound: impl FnOnce(&mut IngestOptions)) -> Self {
        let mut settings = Settings {
            dev: Some(true),
            listen_quic: Some("127.0.0.1:0".to_owned()),
            listen_http: Some("127.0.0.1:0".to_owned()),
            publish_interval: "20ms".parse().ok(),
            ..Settings::default()
        };
        change(&mut settings);
        let mut config = Config::load(&settings).unwrap();
        bound(&mut config.ingest);
        let cancel = CancellationToken::new();
        let app = App::spawn(&config, cancel.clone()).await.unwrap();
        let bound = app.bound();
        let task = tokio::spawn(async move { app.run(&config).await });
        Self { bound, cancel, task }
    }

    /// Ends it in order.
    pub(crate) async fn stop(self) {
        self.cancel.cancel();
        timeout(PATIENCE, self.task).await.unwrap().unwrap().unwrap();
    }

    /// Status and body of a page.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let (status, body) = get(self.bound.http, path).await;
        (status, String::from_utf8(body).unwrap())
    }

    pub(crate) async fn json(&self, path: &str) -> serde_json::Value {
        let (status, body) = self.get(path).await;
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Asks until the answer is as wanted.
    pub(crate) async fn wait_for(
        &self,
        path: &str,
        wanted: impl Fn(&serde_json::Value) -> bool,
    ) -> serde_json::Value {
        let asked = async {
            loop {
                let json = self.json(path).await;
                if wanted(&json) {
                    return json;
                }
            }
        };
        timeout(PATIENCE, asked).await.unwrap_or_else(|_| panic!("{path} never became what was wanted"))
    }

    /// The value of a metric, named with its labels.
    pub(crate) async fn metric(&self, name: &str) -> Option<f64> {
        let (_, page) = self.get("/metrics").await;
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        line.parse().ok()
    }
}

pub(crate) async fn get(address: SocketAddr, path: &str) -> (u16, Vec<u8>) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: planner\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let status = std::str::from_utf8(&answer[9..12]).unwrap().parse().unwrap();
    (status, answer.split_off(end + 4))
}

/// An agent's connection.
pub(crate) struct Agent {
    pub(crate) quic: Connection,
    control: Option<(SendStream, RecvStream)>,
    encoder: FrameEncoder,
    _endpoint: quinn::Endpoint,
}

impl Agent {
    /// Connects without a word.
    pub(crate) async fn connect(planner: &Planner, identity: Option<tls::Identity>) -> Self {
        Self::try_connect(planner, identity).await.unwrap()
    }

    pub(crate) async fn try_connect(
        planner: &Planner,
        identity: Option<tls::Identity>,
    ) -> Result<Self, ConnectionError> {
        Self::connect_by(planner, identity, TransportConfig::default()).await
    }

    pub(crate) async fn connect_by(
        planner: &Planner,
        identity: Option<tls::Identity>,
        transport: TransportConfig,
    ) -> Result<Self, ConnectionError> {
        let tls = tls::client(tls::Trust::Anybody, identity, ALPN).unwrap();
        let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(Arc::new(transport));
        let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let quic = endpoint.connect_with(config, planner.bound.quic, "localhost").unwrap().await?;
        Ok(Self { quic, control: None, encoder: FrameEncoder::new().unwrap(), _endpoint: endpoint })
    }

    /// Connects, says hello and takes the answer.
    pub(crate) async fn hello(planner: &Planner, node: &str, epoch: u64) -> (Self, Seq) {
        let mut agent = Self::connect(planner, None).await;
        agent.say(&hello_frame(node, epoch)).await;
        let seq = agent.ack().await;
        (agent, seq)
    }

    /// Writes a frame on the control stream.
    pub(crate) async fn say(&mut self, frame: &[u8]) {
        if self.control.is_none() {
            self.control = Some(self.quic.open_bi().await.unwrap());
        }
        let (send, _) = self.control.as_mut().unwrap();
        send.write_all(&(frame.len() as u32).to_be_bytes()).await.unwrap();
        // The planner may close while a bad frame is still being written.
        let _ = send.write_all(frame).await;
    }

    /// Writes bytes on the control stream as they are.
    pub(crate) async fn say_bytes(&mut self, bytes: &[u8]) {
        let (mut send, receive) = self.quic.open_bi().await.unwrap();
        send.write_all(bytes).await.unwrap();
        self.control = Some((send, receive));
    }

    /// The next message on the control stream.
    pub(crate) async fn hear(&mut self) -> Message {
        let (_, receive) = self.control.as_mut().unwrap();
        let heard = async {
            let mut length = [0; 4];
            receive.read_exact(&mut length).await.unwrap();
            let mut frame = vec![0; u32::from_be_bytes(length) as usize];
            receive.read_exact(&mut frame).await.unwrap();
            FrameDecoder::new().unwrap().decode(&frame).unwrap().message
        };
        timeout(PATIENCE, heard).await.unwrap()
    }

    /// The next acknowledgement.
    pub(crate) async fn ack(&mut self) -> Seq {
        match self.hear().await {
            Message::Ack(Ack { seq, .. }) => seq,
            other => panic!("{other:?} is no acknowledgement"),
        }
    }

    /// Waits until everything up to `seq` is acknowledged.
    pub(crate) async fn acked(&mut self, seq: u64) {
        while self.ack().await < Seq(seq) {}
    }

    /// Sends bytes on a stream of their own.
    pub(crate) async fn send_bytes(&self, bytes: &[u8]) {
        let mut stream = self.quic.open_uni().await.unwrap();
        // The planner may close while a bad frame is still being written.
        if stream.write_all(bytes).await.is_ok() {
            let _ = stream.finish();
        }
    }

    /// Sends a message to a planner that may close meanwhile.
    pub(crate) async fn try_send(&mut self, message: Message) {
        let frame = self.encoder.encode(&message, 0).unwrap();
        if let Ok(mut stream) = self.quic.open_uni().await {
            let _ = stream.write_all(&frame).await;
            let _ = stream.finish();
        }
    }

    pub(crate) async fn send(&mut self, message: Message) {
        let frame = self.encoder.encode(&message, 0).unwrap();
        self.send_bytes(&frame).await;
    }

    /// With which code and reason the planner closes.
    pub(crate) async fn closed(&self) -> (u64, String) {
        match timeout(PATIENCE, self.quic.closed()).await.unwrap() {
            ConnectionError::ApplicationClosed(close) => {
                (close.error_code.into_inner(), String::from_utf8(close.reason.to_vec()).unwrap())
            }
            other => panic!("the planner did not close: {other}"),
        }
    }
}

pub(crate) fn hello(node: &str, epoch: u64) -> Hello {
    Hello {
        node: NodeName::parse(node).unwrap(),
        boot: BootId::parse("boot").unwrap(),
        epoch: AgentEpoch(epoch),
        version: "0.0.0-test".to_owned(),
        wall_ms: Some(0),
        oldest: None,
        token: None,
    }
}

pub(crate) fn hello_frame(node: &str, epoch: u64) -> Vec<u8> {
    FrameEncoder::new().unwrap().encode(&Message::Hello(hello(node, epoch)), 0).unwrap()
}

/// One GPU and one engine of a model whose name needs escaping in paths.
pub(crate) fn inventory(generation: u32) -> Message {
    let uuid = GpuUuid::parse("GPU-1").unwrap();
    Message::Inventory(Box::new(Inventory {
        generation: Generation(generation),
        gpus: vec![GpuInfo {
            uuid: uuid.clone(),
            index: 0,
            name: Some("NVIDIA H100 80GB HBM3".to_owned()),
            pci_bus_id: None,
            memory_total_bytes: Some(80 << 30),
            power_limit_mw: Some(700_000),
            domain: Some(NvLinkDomain {
                kind: DomainKind::NodeSwitch,
                id: "nvswitch".to_owned(),
                degraded: false,
            }),
        }],
        engines: vec![EngineInfo {
            id: EngineId::parse("vllm:8000").unwrap(),
            kind: "vllm".to_owned(),
            url: "http://127.0.0.1:8000/metrics".to_owned(),
            version: None,
            model: Some(ModelName::parse("org/model").unwrap()),
            pool: Some(PoolName::parse("chat").unwrap()),
            role: Role::Aggregated,
            replica: None,
            gpus: vec![uuid],
            kv_capacity_tokens: Some(100_000),
            follower: false,
        }],
        layouts: vec![vec![0.01, 0.1, 1.0]],
        ..Inventory::default()
    }))
}

/// A second in which `arrived` requests came and as many first tokens took 50 ms.
pub(crate) fn report(seq: u64, generation: u32, arrived: u64) -> Message {
    let mut report = Report {
        seq: Seq(seq),
        generation: Generation(generation),
        length_ms: 1000,
        gpu_source: 1,
        ..Report::default()
    };
    report.gpus.state = [Some(1)].into_iter().collect();
    report.gpus.power_mw = [Some(350_000)].into_iter().collect();
    report.engines.state = [Some(1)].into_iter().collect();
    report.engines.running = [Some(4)].into_iter().collect();
    report.engines.arrived = [Some(arrived)].into_iter().collect();
    report.histograms.push(&HistogramEntry {
        engine: 0,
        kind: DistributionKind::Ttft.code(),
        layout: 1,
        cells: vec![(1, arrived)],
        sum: arrived * 50_000,
    });
    Message::Report(Box::new(report))
}

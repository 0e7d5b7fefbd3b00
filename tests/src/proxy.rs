//! A network between two programs that loses, delays and reorders UDP packets, or lets none through.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tokio::{
    net::UdpSocket,
    sync::Semaphore,
    task::{AbortHandle, JoinSet},
    time::sleep,
};

/// The largest UDP packet.
const MAX_PACKET_BYTES: usize = 65_535;
/// More delayed packets than this are lost.
const MAX_DELAYED: usize = 4096;

/// What the network does to packets of one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Faults {
    /// Share of the packets that is lost, 0 to 1.
    pub loss: f64,
    /// The longest delay; every packet draws its own, so that they overtake each other.
    pub delay: Duration,
    /// Whether nothing comes through.
    pub cut: bool,
}

/// What the network does in both directions, and to where it leads.
#[derive(Debug)]
struct Network {
    up: Faults,
    down: Faults,
    target: SocketAddr,
    /// Changes with the target: sockets to an earlier one are not used any more.
    generation: u64,
    random: ChaCha8Rng,
}

impl Network {
    /// How long a packet takes; `None` where it is lost.
    fn fate(&mut self, upward: bool) -> Option<Duration> {
        let faults = if upward { self.up } else { self.down };
        let (loss, delay): (f64, f64) = (self.random.random(), self.random.random());
        (!faults.cut && loss >= faults.loss).then(|| faults.delay.mul_f64(delay))
    }
}

/// A UDP proxy on loopback; it ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    network: Arc<Mutex<Network>>,
    task: AbortHandle,
}

impl Proxy {
    /// A proxy to `target` that does no harm yet.
    ///
    /// # Errors
    /// When no socket can be had.
    pub async fn start(target: SocketAddr, seed: u64) -> anyhow::Result<Self> {
        let front = Arc::new(UdpSocket::bind(("127.0.0.1", 0)).await?);
        let address = front.local_addr()?;
        let network = Arc::new(Mutex::new(Network {
            up: Faults::default(),
            down: Faults::default(),
            target,
            generation: 0,
            random: ChaCha8Rng::seed_from_u64(seed),
        }));
        let task = tokio::spawn(relay(front, Arc::clone(&network))).abort_handle();
        Ok(Self { address, network, task })
    }

    /// Where clients send to.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What happens to packets from clients, and to those back to them, from now on.
    pub fn set(&self, up: Faults, down: Faults) {
        let mut network = lock(&self.network);
        (network.up, network.down) = (up, down);
    }

    /// Leads to another server from now on.
    pub fn lead_to(&self, target: SocketAddr) {
        let mut network = lock(&self.network);
        network.target = target;
        network.generation += 1;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(network: &Mutex<Network>) -> std::sync::MutexGuard<'_, Network> {
    network.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn relay(front: Arc<UdpSocket>, network: Arc<Mutex<Network>>) {
    let mut clients: BTreeMap<SocketAddr, (u64, Arc<UdpSocket>)> = BTreeMap::new();
    let (mut tasks, delayed) = (JoinSet::new(), Arc::new(Semaphore::new(MAX_DELAYED)));
    let mut packet = vec![0; MAX_PACKET_BYTES];
    loop {
        let Ok((length, client)) = front.recv_from(&mut packet).await else { continue };
        let (fate, target, generation) = {
            let mut network = lock(&network);
            (network.fate(true), network.target, network.generation)
        };
        let known =
            clients.get(&client).filter(|(of, _)| *of == generation).map(|(_, back)| Arc::clone(back));
        let back = match known {
            Some(back) => back,
            None => {
                let Ok(back) = UdpSocket::bind(("127.0.0.1", 0)).await else { continue };
                if back.connect(target).await.is_err() {
                    continue;
                }
                let back = Arc::new(back);
                clients.insert(client, (generation, Arc::clone(&back)));
                let (front, network, delayed) =
                    (Arc::clone(&front), Arc::clone(&network), Arc::clone(&delayed));
                let from = Arc::clone(&back);
                tasks.spawn(answer(from, front, client, network, delayed));
                back
            }
        };
        let Some(delay) = fate else { continue };
        let packet = packet[..length].to_vec();
        later(&delayed, delay, async move {
            // A refused packet is a lost one.
            let _ = back.send(&packet).await;
        });
    }
}

async fn answer(
    back: Arc<UdpSocket>,
    front: Arc<UdpSocket>,
    client: SocketAddr,
    network: Arc<Mutex<Network>>,
    delayed: Arc<Semaphore>,
) {
    let mut packet = vec![0; MAX_PACKET_BYTES];
    loop {
        // An error says that nobody listens there at the moment.
        let Ok(length) = back.recv(&mut packet).await else {
            sleep(Duration::from_millis(1)).await;
            continue;
        };
        let Some(delay) = lock(&network).fate(false) else { continue };
        let (front, packet) = (Arc::clone(&front), packet[..length].to_vec());
        later(&delayed, delay, async move {
            let _ = front.send_to(&packet, client).await;
        });
    }
}

/// Sends after a while, unless too many wait already.
fn later(delayed: &Arc<Semaphore>, delay: Duration, send: impl Future<Output = ()> + Send + 'static) {
    let Ok(room) = Arc::clone(delayed).try_acquire_owned() else { return };
    tokio::spawn(async move {
        if !delay.is_zero() {
            sleep(delay).await;
        }
        send.await;
        drop(room);
    });
}

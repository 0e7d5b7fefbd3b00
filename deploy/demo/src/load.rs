//! The open-loop load: requests go out at their times, whatever the engines do.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use plimsoll_tests::{
    http::Http,
    openai::{self, Prompt},
    workload::{Request, Swing, Synthetic},
};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tokio::{sync::Notify, task::JoinSet, time::Instant};

use crate::plan::ModelPlan;

/// The most requests in flight to one model; what is beyond is not sent, and counted.
const MOST_IN_FLIGHT: usize = 4096;
/// How long a replica gets no requests after one failed there.
const REST: Duration = Duration::from_secs(1);
/// A slow sine, so that there is something to see.
const SWING: Swing = Swing { share: 0.6, period: Duration::from_secs(120) };

/// The requests for one model, in the order of their times.
pub type Requests = Box<dyn Iterator<Item = Request> + Send>;

/// Requests for each model of a plan.
#[must_use]
pub fn synthetic(models: &[ModelPlan], rate: f64, seed: u64) -> Vec<Requests> {
    let streams = models.iter().zip(seed..).map(|(model, seed)| {
        let requests = Synthetic::new(rate * model.share, Some(SWING), model.input, model.output, seed);
        Box::new(requests) as Requests
    });
    streams.collect()
}

/// Requests for a model at a rate that changes over time: `rate` times what `shape` says of a time, which is at most
/// `most`.
#[must_use]
pub fn shaped(
    model: &ModelPlan,
    rate: f64,
    most: f64,
    shape: impl Fn(Duration) -> f64 + Send + 'static,
    seed: u64,
) -> Requests {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(2);
    let highest = Synthetic::new(rate * most, None, model.input, model.output, seed);
    // By thinning: of arrivals at the highest rate, each is kept with the probability rate / highest rate.
    Box::new(highest.filter(move |request| rng.random::<f64>() * most < shape(request.at)))
}

/// A trace dealt out to the models by their shares.
#[must_use]
pub fn dealt(models: &[ModelPlan], trace: &[Request], seed: u64) -> Vec<Requests> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut hands = vec![Vec::new(); models.len()];
    for request in trace {
        let mut draw: f64 = rng.random();
        let to = models.iter().position(|model| {
            draw -= model.share;
            draw < 0.0
        });
        if let Some(hand) = hands.get_mut(to.unwrap_or_else(|| models.len().saturating_sub(1))) {
            hand.push(*request);
        }
    }
    hands.into_iter().map(|hand| Box::new(hand.into_iter()) as Requests).collect()
}

/// What became of the requests so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Sent.
    pub sent: u64,
    /// Of these, not answered yet.
    pub in_flight: usize,
    /// Refused, cut off, or answered with an error.
    pub failed: u64,
    /// Not sent, since too many were in flight.
    pub held_back: u64,
    /// Why the last one failed.
    pub last_failure: Option<String>,
}

/// The load on one model.
#[derive(Debug)]
pub struct Load {
    state: Arc<Mutex<State>>,
    enough: Arc<Notify>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    tally: Tally,
    /// When each request in flight was sent, microseconds since 1970, and its number.
    in_flight: BTreeSet<(u64, u64)>,
    /// The replicas.
    at: Vec<Replica>,
}

/// What is known of a replica.
#[derive(Debug, Clone, Copy)]
struct Replica {
    address: SocketAddr,
    /// Whether it gets new requests.
    is_open: bool,
    /// Requests in flight there.
    in_flight: usize,
    /// Until when it gets none, since one failed: who refuses at once would otherwise always have the fewest.
    rests_until: Option<Instant>,
}

impl Replica {
    const fn new(address: SocketAddr) -> Self {
        Self { address, is_open: true, in_flight: 0, rests_until: None }
    }
}

impl Load {
    /// Starts to ask the replicas of a model.
    #[must_use]
    pub fn start(http: Http, model: &'static str, replicas: Vec<SocketAddr>, requests: Requests) -> Self {
        let at = replicas.into_iter().map(Replica::new).collect();
        let state = Arc::new(Mutex::new(State { tally: Tally::default(), in_flight: BTreeSet::new(), at }));
        let enough = Arc::new(Notify::new());
        let sender = Sender { http, model, state: Arc::clone(&state), enough: Arc::clone(&enough) };
        let task = tokio::spawn(sender.send(requests));
        Self { state, enough, task }
    }

    /// Asks another replica too; its number.
    pub fn join(&self, address: SocketAddr) -> usize {
        let mut state = lock(&self.state);
        state.at.push(Replica::new(address));
        state.at.len() - 1
    }

    /// Whether a replica is to get new requests; the ones that join do.
    pub fn open(&self, replica: usize, is_open: bool) {
        if let Some(replica) = lock(&self.state).at.get_mut(replica) {
            replica.is_open = is_open;
        }
    }

    /// Requests in flight at a replica.
    #[must_use]
    pub fn in_flight_at(&self, replica: usize) -> usize {
        lock(&self.state).at.get(replica).map_or(0, |replica| replica.in_flight)
    }

    /// Sends nothing more; what is in flight is waited for.
    pub fn finish(&self) {
        self.enough.notify_one();
    }

    /// What became of its requests.
    #[must_use]
    pub fn tally(&self) -> Tally {
        let state = lock(&self.state);
        Tally { in_flight: state.in_flight.len(), ..state.tally.clone() }
    }

    /// When the oldest request was sent that is not answered yet, seconds since 1970.
    #[must_use]
    pub fn oldest_in_flight(&self) -> Option<f64> {
        lock(&self.state).in_flight.first().map(|(sent, _)| *sent as f64 / 1e6)
    }

    /// Whether all requests were sent and answered.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.task.is_finished()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Sender {
    http: Http,
    model: &'static str,
    state: Arc<Mutex<State>>,
    enough: Arc<Notify>,
}

impl Sender {
    async fn send(self, requests: Requests) {
        let begun = Instant::now();
        let mut answers = JoinSet::new();
        for (request, id) in requests.zip(0..) {
            tokio::select! {
                () = tokio::time::sleep_until(begun + request.at) => (),
                () = self.enough.notified() => break,
            }
            while answers.try_join_next().is_some() {}
            if let Some(departure) = depart(&self.state, id) {
                answers.spawn(self.ask(request, id, departure));
            }
        }
        while answers.join_next().await.is_some() {}
    }

    fn ask(
        &self,
        request: Request,
        id: u64,
        Departure { replica, address, sent }: Departure,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (http, state, model) = (self.http.clone(), Arc::clone(&self.state), self.model);
        let Request { input_tokens, output_tokens, .. } = request;
        let prompt = Prompt { id, input_tokens, output_tokens, shared_tokens: 0 };
        async move {
            let answer = openai::complete(&http, address, model, prompt).await;
            let mut state = lock(&state);
            state.in_flight.remove(&(sent, id));
            state.at[replica].in_flight -= 1;
            if let Err(error) = answer {
                state.at[replica].rests_until = Some(Instant::now() + REST);
                state.tally.failed += 1;
                state.tally.last_failure = Some(format!("{error:#}"));
            }
        }
    }
}

/// Where and when a request goes out, microseconds since 1970.
struct Departure {
    replica: usize,
    address: SocketAddr,
    sent: u64,
}

/// Notes a request that goes out: to the open replica with the fewest in flight. `None` where there are too many.
fn depart(state: &Mutex<State>, id: u64) -> Option<Departure> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let sent = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
    let mut state = lock(state);
    if state.in_flight.len() >= MOST_IN_FLIGHT {
        state.tally.held_back += 1;
        return None;
    }
    let begins = Instant::now();
    let open = state.at.iter().enumerate().filter(|(_, replica)| replica.is_open);
    let (replica, address) = open
        .min_by_key(|(at, replica)| {
            (replica.rests_until.is_some_and(|until| begins < until), replica.in_flight, *at)
        })
        .map(|(at, replica)| (at, replica.address))?;
    state.at[replica].in_flight += 1;
    state.in_flight.insert((sent, id));
    state.tally.sent += 1;
    Some(Departure { replica, address, sent })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;

    #[test]
    fn a_trace_is_dealt_out_by_shares_and_in_order() {
        let models = Plan::new(2).models;
        let trace: Vec<Request> = (0..4000)
            .map(|ms| Request { at: Duration::from_millis(ms), input_tokens: 1, output_tokens: 1 })
            .collect();
        let hands: Vec<Vec<Request>> = dealt(&models, &trace, 1).into_iter().map(Iterator::collect).collect();
        assert_eq!(hands.iter().map(Vec::len).sum::<usize>(), 4000);
        assert!((2800..3200).contains(&hands[0].len()), "{}", hands[0].len());
        assert!(hands.iter().all(|hand| hand.is_sorted()));
    }

    #[test]
    fn requests_go_to_the_replica_with_the_fewest_that_did_not_just_fail() {
        let fresh = Replica::new(SocketAddr::from(([127, 0, 0, 1], 1)));
        let replica = |in_flight| Replica { in_flight, ..fresh };
        let failed = Replica { rests_until: Some(Instant::now() + Duration::from_secs(60)), ..fresh };
        let closed = Replica { is_open: false, ..fresh };
        let at = vec![replica(2), replica(0), replica(1), failed, closed];
        let state = State { tally: Tally::default(), in_flight: BTreeSet::new(), at };
        let state = Mutex::new(state);
        let to: Vec<_> = (0..4).filter_map(|id| depart(&state, id)).map(|to| to.replica).collect();
        assert_eq!(to, [1, 1, 2, 0]);
        assert_eq!(lock(&state).tally.sent, 4);
    }
}

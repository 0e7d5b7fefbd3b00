//! Dynamo's ForwardPassMetrics, version 1: one message an iteration over ZeroMQ.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context as _;
use plimsoll_engine::Step;
use serde::Serialize;
use tokio::{sync::mpsc, task::JoinHandle};
use zeromq::{PubSocket, Socket as _, SocketSend as _, ZmqMessage};

use crate::live::Requests;

/// Messages that may wait; one more is dropped, and its number with it.
const WAITING: usize = 10_000;

/// How often an idle engine says that it lives.
const BEAT: Duration = Duration::from_secs(1);

/// One iteration, or with zeros everywhere a sign of life.
#[derive(Clone, Debug, Default, Serialize)]
struct Pass {
    version: u32,
    worker_id: String,
    dp_rank: u32,
    counter_id: u64,
    /// Seconds.
    wall_time: f64,
    scheduled_requests: Scheduled,
    queued_requests: Queued,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Scheduled {
    num_prefill_requests: u64,
    /// Computed in this iteration.
    sum_prefill_tokens: u64,
    /// Of whole prompts.
    var_prefill_length: f64,
    /// Read from the prefix cache.
    sum_prefill_kv_tokens: u64,
    num_decode_requests: u64,
    sum_decode_kv_tokens: u64,
    var_decode_kv_tokens: f64,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Queued {
    num_prefill_requests: u64,
    sum_prefill_tokens: u64,
    var_prefill_length: f64,
    /// Those that lost their blocks.
    num_decode_requests: u64,
    sum_decode_kv_tokens: u64,
    var_decode_kv_tokens: f64,
}

/// Number, sum and population variance.
#[derive(Clone, Copy, Debug, Default)]
struct Moments {
    count: u64,
    sum: u64,
    squares: f64,
}

impl Moments {
    fn of(values: impl Iterator<Item = u32>) -> Self {
        values.fold(Self::default(), |moments, value| Self {
            count: moments.count + 1,
            sum: moments.sum + u64::from(value),
            squares: moments.squares + f64::from(value) * f64::from(value),
        })
    }

    fn variance(&self) -> f64 {
        if self.count == 0 {
            return 0.0;
        }
        let mean = self.sum as f64 / self.count as f64;
        (self.squares / self.count as f64 - mean * mean).max(0.0)
    }
}

/// The way to the task that publishes.
#[derive(Debug)]
pub(super) struct Export {
    passes: mpsc::Sender<Pass>,
    counter: u64,
}

impl Export {
    pub(super) async fn start(address: SocketAddr) -> anyhow::Result<(Self, JoinHandle<()>)> {
        let mut socket = PubSocket::new();
        let endpoint = format!("tcp://{address}");
        socket.bind(&endpoint).await.with_context(|| format!("cannot publish on {endpoint}"))?;
        let (passes, received) = mpsc::channel(WAITING);
        Ok((Self { passes, counter: 0 }, tokio::spawn(publish(socket, received))))
    }

    /// Tells of an iteration, and if it was the last for now, that the engine is idle.
    pub(super) fn pass(&mut self, step: &Step<'_>, live: &Requests) {
        let wall_time = step.ended_at.saturating_sub(step.started_at).as_secs_f64();
        let pass = Pass {
            wall_time,
            scheduled_requests: scheduled(step, live),
            queued_requests: queued(live),
            ..Pass::default()
        };
        self.send(pass);
        if step.load.running == 0 && step.load.waiting == 0 {
            self.send(Pass::default());
        }
    }

    fn send(&mut self, pass: Pass) {
        self.counter += 1;
        // A full queue drops it: the gap in the numbers tells.
        let _ = self.passes.try_send(Pass { counter_id: self.counter, ..pass });
    }
}

fn scheduled(step: &Step<'_>, live: &Requests) -> Scheduled {
    let shape = &step.stats.shape;
    let first = step.tokens.iter().filter(|token| token.is_first()).map(|token| token.prompt_tokens);
    // Those whose prefill needs more chunks.
    let rest = live.values().filter(|live| live.admitted && live.emitted == 0 && !live.preempted);
    let prompts = Moments::of(first.chain(rest.map(|live| live.prompt_tokens)));
    let later = step.tokens.iter().filter(|token| !token.is_first());
    let contexts = Moments::of(later.map(|token| token.prompt_tokens + token.index - 1));
    Scheduled {
        num_prefill_requests: u64::from(step.stats.sequences).saturating_sub(shape.decode_sequences),
        sum_prefill_tokens: shape.prefill_tokens,
        var_prefill_length: prompts.variance(),
        sum_prefill_kv_tokens: step.admitted.iter().map(|admission| u64::from(admission.cached_tokens)).sum(),
        num_decode_requests: shape.decode_sequences,
        sum_decode_kv_tokens: shape.decode_context,
        var_decode_kv_tokens: contexts.variance(),
    }
}

fn queued(live: &Requests) -> Queued {
    let prompts = Moments::of(live.values().filter(|live| !live.admitted).map(|live| live.prompt_tokens));
    let preempted = live.values().filter(|live| live.preempted);
    let contexts = Moments::of(preempted.map(|live| live.prompt_tokens + live.emitted));
    Queued {
        num_prefill_requests: prompts.count,
        sum_prefill_tokens: prompts.sum,
        var_prefill_length: prompts.variance(),
        num_decode_requests: contexts.count,
        sum_decode_kv_tokens: contexts.sum,
        var_decode_kv_tokens: contexts.variance(),
    }
}

/// Publishes what comes, and a sign of life when nothing does. Signs of life have the number of the pass before them.
async fn publish(mut socket: PubSocket, mut passes: mpsc::Receiver<Pass>) {
    let mut counter_id = 0;
    for sequence in 0_u64.. {
        let pass = match tokio::time::timeout(BEAT, passes.recv()).await {
            Ok(Some(pass)) => pass,
            Ok(None) => return,
            Err(_) => Pass { counter_id, ..Pass::default() },
        };
        counter_id = pass.counter_id;
        let pass = Pass { version: 1, worker_id: "emulator".to_owned(), ..pass };
        let Ok(payload) = rmp_serde::to_vec_named(&pass) else { continue };
        let mut message = ZmqMessage::from(Vec::new());
        message.push_back(sequence.to_be_bytes().to_vec().into());
        message.push_back(payload.into());
        if let Err(error) = socket.send(message).await {
            tracing::debug!(%error, "a forward pass was not published");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variances_are_of_the_population() {
        let moments = Moments::of([2, 4, 4, 4, 5, 5, 7, 9].into_iter());
        assert_eq!((moments.count, moments.sum), (8, 40));
        assert!((moments.variance() - 4.0).abs() < 1e-12);
        assert!(Moments::default().variance() < f64::EPSILON);
    }
}

//! One agent window: what happened on a node between two instants.

use serde::{Deserialize, Serialize};

use super::{column::Column, varint};
use crate::{
    codes::coded_enum,
    engine::DistributionKind,
    ids::{Generation, Seq},
};

fn is_false(value: &bool) -> bool {
    !value
}

/// Agent → planner: one window. Self-contained but for the inventory it names; windows are deltas, so their order does
/// not matter for counts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The last window that this report covers.
    #[serde(rename = "q")]
    pub seq: Seq,
    /// The first window that this report covers where it stands for several; absent: only `seq`.
    #[serde(rename = "f", default, skip_serializing_if = "Option::is_none")]
    pub first: Option<Seq>,
    /// The inventory that explains the rows.
    #[serde(rename = "g")]
    pub generation: Generation,
    /// Where the window starts on the agent's wall clock, Unix milliseconds. For people; order comes from `seq`.
    #[serde(rename = "b")]
    pub begin_ms: u64,
    /// How long the window is on the agent's monotonic clock, milliseconds.
    #[serde(rename = "l")]
    pub length_ms: u64,
    /// Gauges of the GPUs.
    #[serde(rename = "u", default)]
    pub gpus: GpuColumns,
    /// Gauges and counter deltas of the engines.
    #[serde(rename = "n", default)]
    pub engines: EngineColumns,
    /// Distributions of the engines.
    #[serde(rename = "h", default, skip_serializing_if = "HistogramColumns::is_empty")]
    pub histograms: HistogramColumns,
    /// What the agent itself cost and lost.
    #[serde(rename = "o", default)]
    pub cost: AgentCost,
    /// State of the GPU source, as [`SourceState`]'s code.
    #[serde(rename = "s", default)]
    pub gpu_source: u8,
    /// Whether this is the last window before the agent stops on purpose.
    #[serde(rename = "z", default, skip_serializing_if = "is_false")]
    pub leaving: bool,
}

impl Report {
    /// The first window that this report covers.
    #[must_use]
    pub fn first_seq(&self) -> Seq {
        self.first.unwrap_or(self.seq)
    }
}

coded_enum! {
    /// How a GPU is seen.
    GpuState:
    /// Its values are from this window.
    Ok = 1, "ok";
    /// It answers, but not with everything it should; its missing values are absent.
    Degraded = 2, "degraded";
    /// NVML says that it fell off the bus, or it no longer answers.
    Lost = 3, "lost";
}

coded_enum! {
    /// How an engine is seen. Each state claims only what its [`StateEvidence`] shows.
    EngineState:
    /// It serves: its page was read, and nothing on it speaks against it.
    Ready = 1, "ready";
    /// It does not answer in time, or not with its page; whether it runs is not known.
    Unreachable = 2, "unreachable";
    /// Something answers there, but it is no engine's page.
    WrongEndpoint = 3, "wrong_endpoint";
    /// Nothing is known yet, or nothing new for long.
    Pending = 4, "pending";
    /// It never answered yet, or says that it is not ready for the first time.
    Starting = 5, "starting";
    /// Requests run, and nothing moves.
    Frozen = 6, "frozen";
    /// It was put to sleep, or paused, and serves nobody until it is woken.
    Sleeping = 7, "sleeping";
    /// It finishes what it has and takes nothing more.
    Draining = 8, "draining";
    /// It was there, and now its port is closed: the process ended.
    Gone = 9, "gone";
    /// The server wants to know who asks.
    Unauthorised = 10, "unauthorised";
    /// A further node of an engine that spans several; it serves no page, as expected.
    Follower = 11, "follower";
}

coded_enum! {
    /// What an engine's state was told from.
    StateEvidence:
    /// Its page was read, and things move or nothing has to.
    PageRead = 1, "page_read";
    /// Nothing was read (for long).
    NothingRead = 2, "nothing_read";
    /// The port refused the connection.
    Refused = 3, "refused";
    /// No connection, or no whole answer, in time.
    NoAnswer = 4, "no_answer";
    /// The connection was closed before the answer was whole.
    Closed = 5, "closed";
    /// No connection, for another reason than a closed port.
    NoConnection = 6, "no_connection";
    /// What was answered is no HTTP.
    NotHttp = 7, "not_http";
    /// An HTTP status that stands for trouble.
    HttpStatus = 8, "http_status";
    /// 401 or 403.
    Denied = 9, "denied";
    /// 404.
    NotFound = 10, "not_found";
    /// A redirect that is not followed.
    Redirected = 11, "redirected";
    /// An answer longer than any page.
    TooLarge = 12, "too_large";
    /// An answer that is no metrics page, such as HTML.
    NoMetricsPage = 13, "no_metrics_page";
    /// A metrics page, but of something else.
    ForeignPage = 14, "foreign_page";
    /// Requests run, and no token moved over several scrapes.
    NothingMoves = 15, "nothing_moves";
    /// The page's own word for sleep.
    SleepState = 16, "sleep_state";
    /// Requests are paused, and no token moves.
    Paused = 17, "paused";
    /// The engine's own readiness page says no, while its metrics page is served.
    NotReady = 18, "not_ready";
    /// The configured URL can't be asked.
    BadUrl = 19, "bad_url";
}

coded_enum! {
    /// How a source of telemetry is.
    SourceState:
    /// It delivers.
    Healthy = 1, "healthy";
    /// It delivers in part.
    Degraded = 2, "degraded";
    /// This machine has no such source.
    Unsupported = 3, "unsupported";
    /// It should deliver and does not.
    Failed = 4, "failed";
}

/// The newest gauges of the GPUs, one row a GPU of the inventory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuColumns {
    /// [`GpuState`] codes.
    #[serde(rename = "s", default, skip_serializing_if = "Column::is_empty")]
    pub state: Column<u64>,
    /// Share of the last sample period in which a kernel ran, percent 0..=100.
    #[serde(rename = "u", default, skip_serializing_if = "Column::is_empty")]
    pub utilization_percent: Column<u64>,
    /// Share of the last sample period in which device memory was read or written, percent 0..=100.
    #[serde(rename = "a", default, skip_serializing_if = "Column::is_empty")]
    pub memory_activity_percent: Column<u64>,
    /// Frame buffer in use, bytes.
    #[serde(rename = "m", default, skip_serializing_if = "Column::is_empty")]
    pub memory_used_bytes: Column<u64>,
    /// Power draw, milliwatts.
    #[serde(rename = "p", default, skip_serializing_if = "Column::is_empty")]
    pub power_mw: Column<u64>,
    /// GPU temperature, °C.
    #[serde(rename = "t", default, skip_serializing_if = "Column::is_empty")]
    pub temperature_c: Column<i64>,
}

/// The newest gauges of the engines and what their counters gained in the window, one row an engine of the inventory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineColumns {
    /// [`EngineState`] codes.
    #[serde(rename = "s", default, skip_serializing_if = "Column::is_empty")]
    pub state: Column<u64>,
    /// [`StateEvidence`] codes.
    #[serde(rename = "v", default, skip_serializing_if = "Column::is_empty")]
    pub evidence: Column<u64>,
    /// For how long the state holds at the end of the window, milliseconds.
    #[serde(rename = "T", default, skip_serializing_if = "Column::is_empty")]
    pub state_ms: Column<u64>,
    /// Requests in the running batch.
    #[serde(rename = "r", default, skip_serializing_if = "Column::is_empty")]
    pub running: Column<u64>,
    /// Requests waiting to be scheduled.
    #[serde(rename = "w", default, skip_serializing_if = "Column::is_empty")]
    pub waiting: Column<u64>,
    /// KV-cache utilization, parts per million.
    #[serde(rename = "k", default, skip_serializing_if = "Column::is_empty")]
    pub kv_usage_ppm: Column<u64>,
    /// How old the gauges are at the end of the window, milliseconds.
    #[serde(rename = "x", default, skip_serializing_if = "Column::is_empty")]
    pub age_ms: Column<u64>,
    /// Requests that arrived, gained.
    #[serde(rename = "a", default, skip_serializing_if = "Column::is_empty")]
    pub arrived: Column<u64>,
    /// Prompt tokens processed, gained.
    #[serde(rename = "p", default, skip_serializing_if = "Column::is_empty")]
    pub prompt_tokens: Column<u64>,
    /// Tokens generated, gained.
    #[serde(rename = "g", default, skip_serializing_if = "Column::is_empty")]
    pub generation_tokens: Column<u64>,
    /// Prompt tokens looked up in the prefix cache, gained.
    #[serde(rename = "Q", default, skip_serializing_if = "Column::is_empty")]
    pub prefix_queries: Column<u64>,
    /// Prompt tokens found in the prefix cache, gained.
    #[serde(rename = "H", default, skip_serializing_if = "Column::is_empty")]
    pub prefix_hits: Column<u64>,
    /// Preemptions, gained.
    #[serde(rename = "P", default, skip_serializing_if = "Column::is_empty")]
    pub preemptions: Column<u64>,
    /// Requests finished by a stop token or string, gained.
    #[serde(rename = "F", default, skip_serializing_if = "Column::is_empty")]
    pub finished_stop: Column<u64>,
    /// Requests finished by their length limit, gained.
    #[serde(rename = "L", default, skip_serializing_if = "Column::is_empty")]
    pub finished_length: Column<u64>,
    /// Requests aborted by their client, as far as the engine counts them, gained.
    #[serde(rename = "A", default, skip_serializing_if = "Column::is_empty")]
    pub aborted: Column<u64>,
    /// Requests that ended any other way, gained.
    #[serde(rename = "E", default, skip_serializing_if = "Column::is_empty")]
    pub errored: Column<u64>,
    /// How long the last scrape of the page took, microseconds.
    #[serde(rename = "d", default, skip_serializing_if = "Column::is_empty")]
    pub scrape_us: Column<u64>,
    /// How often counters were seen to start again (an engine restart), gained.
    #[serde(rename = "R", default, skip_serializing_if = "Column::is_empty")]
    pub resets: Column<u64>,
    /// Of the waiting requests, those that wait for room in the batch or in the KV cache.
    #[serde(rename = "c", default, skip_serializing_if = "Column::is_empty")]
    pub waiting_capacity: Column<u64>,
    /// Of the waiting requests, those that wait for something else than room.
    #[serde(rename = "f", default, skip_serializing_if = "Column::is_empty")]
    pub waiting_deferred: Column<u64>,
    /// Requests that keep their place while the engine is paused.
    #[serde(rename = "u", default, skip_serializing_if = "Column::is_empty")]
    pub paused: Column<u64>,
    /// KV-cache utilization of the fullest engine of the page, parts per million; absent where it is the mean.
    #[serde(rename = "m", default, skip_serializing_if = "Column::is_empty")]
    pub kv_usage_max_ppm: Column<u64>,
    /// Utilization of the tier below the KV cache, parts per million.
    #[serde(rename = "o", default, skip_serializing_if = "Column::is_empty")]
    pub kv_offload_ppm: Column<u64>,
    /// Share of the prompt tokens found in the prefix cache as the engine averages it, parts per million.
    #[serde(rename = "h", default, skip_serializing_if = "Column::is_empty")]
    pub prefix_hit_ppm: Column<u64>,
    /// Share of the drafted tokens that were accepted as the engine averages it, parts per million.
    #[serde(rename = "i", default, skip_serializing_if = "Column::is_empty")]
    pub spec_acceptance_ppm: Column<u64>,
    /// [`SleepState`](crate::engine::SleepState) codes; absent where the engine does not tell.
    #[serde(rename = "S", default, skip_serializing_if = "Column::is_empty")]
    pub sleep: Column<u64>,
    /// For how long nothing on the page has moved, milliseconds, where gauges only move when a request ends.
    #[serde(rename = "y", default, skip_serializing_if = "Column::is_empty")]
    pub signal_age_ms: Column<u64>,
    /// Requests within a front-end.
    #[serde(rename = "I", default, skip_serializing_if = "Column::is_empty")]
    pub frontend_inflight: Column<u64>,
    /// Requests within a front-end that have no first token yet.
    #[serde(rename = "W", default, skip_serializing_if = "Column::is_empty")]
    pub frontend_queued: Column<u64>,
    /// Requests that ended for a reason that the engine does not tell, gained.
    #[serde(rename = "e", default, skip_serializing_if = "Column::is_empty")]
    pub ended: Column<u64>,
    /// Requests that the engine turned away for want of room, gained.
    #[serde(rename = "j", default, skip_serializing_if = "Column::is_empty")]
    pub rejected: Column<u64>,
    /// Prompt tokens found in a tier below the KV cache or in another engine's cache, gained.
    #[serde(rename = "O", default, skip_serializing_if = "Column::is_empty")]
    pub offload_hits: Column<u64>,
    /// Tokens that speculative decoding proposed, gained.
    #[serde(rename = "D", default, skip_serializing_if = "Column::is_empty")]
    pub draft_tokens: Column<u64>,
    /// Of these, those that were accepted, gained.
    #[serde(rename = "V", default, skip_serializing_if = "Column::is_empty")]
    pub accepted_tokens: Column<u64>,
    /// Requests that arrived at a front-end, gained.
    #[serde(rename = "N", default, skip_serializing_if = "Column::is_empty")]
    pub frontend_arrived: Column<u64>,
    /// Share of the window that was spent in forward passes, parts per million, the mean of the ranks.
    #[serde(rename = "fb", default, skip_serializing_if = "Column::is_empty")]
    pub pass_busy_ppm: Column<u64>,
    /// Forward-pass messages that were sent and never came, gained.
    #[serde(rename = "fl", default, skip_serializing_if = "Column::is_empty")]
    pub passes_lost: Column<u64>,
    /// Ranks whose forward passes are heard.
    #[serde(rename = "fr", default, skip_serializing_if = "Column::is_empty")]
    pub pass_ranks: Column<u64>,
    /// Requests queued for prefill, by the schedulers' own count.
    #[serde(rename = "fq", default, skip_serializing_if = "Column::is_empty")]
    pub queued_prefill_requests: Column<u64>,
    /// Prompt tokens of those.
    #[serde(rename = "ft", default, skip_serializing_if = "Column::is_empty")]
    pub queued_prefill_tokens: Column<u64>,
    /// Requests queued for decode: preempted, or waiting for their KV cache to arrive.
    #[serde(rename = "fd", default, skip_serializing_if = "Column::is_empty")]
    pub queued_decode_requests: Column<u64>,
}

/// One distribution of one engine over the window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistogramEntry {
    /// The engine's row in the inventory.
    pub engine: usize,
    /// What is distributed, as [`DistributionKind`]'s code; unknown codes are kept so that they can be counted.
    pub kind: u64,
    /// In what the samples are counted: 0 for the cells of the fleet's layout (an exact source), n for the buckets of
    /// the inventory's n-th `le` layout (a bucketed source).
    pub layout: usize,
    /// `(cell or bucket, samples)`, cells rising, samples at least 1.
    pub cells: Vec<(usize, u64)>,
    /// The sum of the samples, microseconds or tokens.
    pub sum: u64,
}

impl HistogramEntry {
    /// What is distributed; `None` for a kind that this build does not know.
    #[must_use]
    pub const fn kind(&self) -> Option<DistributionKind> {
        DistributionKind::from_code(self.kind)
    }
}

/// All distributions of a window, packed: a list of LEB128 numbers, for each distribution
/// `engine, kind, layout, sum, n, then n × (cell − previous cell, samples)`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HistogramColumns {
    #[serde(with = "serde_bytes")]
    packed: Vec<u8>,
}

impl HistogramColumns {
    /// Appends a distribution; one without samples is left out.
    pub fn push(&mut self, entry: &HistogramEntry) {
        if entry.cells.is_empty() {
            return;
        }
        let head =
            [entry.engine as u64, entry.kind, entry.layout as u64, entry.sum, entry.cells.len() as u64];
        for number in head {
            varint::write(&mut self.packed, number);
        }
        let mut before = 0;
        for (cell, n) in &entry.cells {
            varint::write(&mut self.packed, cell.saturating_sub(before) as u64);
            varint::write(&mut self.packed, *n);
            before = *cell;
        }
    }

    /// Whether there is no distribution.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.packed.is_empty()
    }

    /// Unpacks one distribution after the other. An `Err` names what is wrong and ends the iteration.
    pub fn iter(&self) -> impl Iterator<Item = Result<HistogramEntry, &'static str>> + '_ {
        let mut reader = self.reader();
        std::iter::from_fn(move || {
            let mut cells = Vec::new();
            let head = reader.next(&mut cells)?;
            Some(head.map(|HistogramHead { engine, kind, layout, sum }| HistogramEntry {
                engine,
                kind,
                layout,
                cells,
                sum,
            }))
        })
    }

    /// Unpacks the same into memory that is used again.
    #[must_use]
    pub fn reader(&self) -> HistogramReader<'_> {
        HistogramReader { rest: &self.packed }
    }
}

/// A [`HistogramEntry`] without its cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistogramHead {
    /// The engine's row in the inventory.
    pub engine: usize,
    /// What is distributed, as [`DistributionKind`]'s code.
    pub kind: u64,
    /// In what the samples are counted, as in [`HistogramEntry::layout`].
    pub layout: usize,
    /// The sum of the samples, microseconds or tokens.
    pub sum: u64,
}

/// Unpacks distributions one after the other.
#[derive(Debug, Clone)]
pub struct HistogramReader<'a> {
    rest: &'a [u8],
}

impl HistogramReader<'_> {
    /// The next distribution, its cells in place of what `cells` held; `None` after the last one.
    ///
    /// # Errors
    /// What is wrong with the bytes; nothing comes after it.
    pub fn next(&mut self, cells: &mut Vec<(usize, u64)>) -> Option<Result<HistogramHead, &'static str>> {
        cells.clear();
        if self.rest.is_empty() {
            return None;
        }
        let head = unpack(&mut self.rest, cells);
        if head.is_err() {
            self.rest = &[];
        }
        Some(head)
    }
}

fn unpack(rest: &mut &[u8], cells: &mut Vec<(usize, u64)>) -> Result<HistogramHead, &'static str> {
    let mut number = || varint::read(rest).ok_or("a histogram ends within a number");
    let index = |value: u64| usize::try_from(value).map_err(|_| "a histogram's index is beyond this machine");
    let engine = index(number()?)?;
    let kind = number()?;
    let layout = index(number()?)?;
    let sum = number()?;
    let n = number()?;
    // Each pair takes at least two bytes, so `n` can't make us reserve more than the message is long.
    if n > super::MAX_MESSAGE_BYTES as u64 / 2 {
        return Err("a histogram names more cells than a message can hold");
    }
    let mut cell = 0usize;
    for i in 0..n {
        let gap = index(number()?)?;
        let samples = number()?;
        if i > 0 && gap == 0 {
            return Err("a histogram names a cell twice");
        }
        cell = cell
            .checked_add(gap)
            .filter(|cell| *cell <= usize::from(u16::MAX))
            .ok_or("a histogram's cell is beyond any layout")?;
        cells.push((cell, samples));
    }
    Ok(HistogramHead { engine, kind, layout, sum })
}

/// What the agent cost in the window, and what it had to drop.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentCost {
    /// CPU time of the agent, microseconds.
    #[serde(rename = "c", default, skip_serializing_if = "Option::is_none")]
    pub cpu_us: Option<u64>,
    /// Resident memory of the agent, bytes.
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    pub rss_bytes: Option<u64>,
    /// Wall time spent inside NVML calls, microseconds.
    #[serde(rename = "n", default, skip_serializing_if = "Option::is_none")]
    pub nvml_busy_us: Option<u64>,
    /// CPU utilization of the whole host, parts per million.
    #[serde(rename = "h", default, skip_serializing_if = "Option::is_none")]
    pub host_cpu_ppm: Option<u64>,
    /// Memory of the host in use, bytes.
    #[serde(rename = "m", default, skip_serializing_if = "Option::is_none")]
    pub host_memory_used_bytes: Option<u64>,
    /// Windows that this agent epoch had to drop unsent, in all.
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    pub dropped_windows: Option<u64>,
}

//! How the way to the planner is, for the agent's own pages.

use std::time::Duration;

use plimsoll_common::ids::Seq;
use tokio::time::Instant;

/// Where the connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    /// No planner is configured.
    Off,
    /// Looking for the planner.
    Connecting,
    /// The planner answered the hello.
    Connected,
    /// Waiting before the next try.
    Waiting,
}

impl LinkState {
    /// The name in labels and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Waiting => "waiting",
        }
    }
}

/// The way to the planner, as it is now.
#[derive(Debug, Clone)]
pub struct UplinkStatus {
    /// Where the connection stands.
    pub state: LinkState,
    /// Since when.
    pub since: Instant,
    /// Why the last connection ended or could not be made.
    pub last_error: Option<String>,
    /// Smoothed round-trip time.
    pub rtt: Option<Duration>,
    /// The last window that the planner has applied.
    pub acknowledged: Seq,
    /// Connections made.
    pub connects: u64,
    /// Reports sent, repeats included.
    pub reports_sent: u64,
    /// Frame bytes sent, repeats and inventories included; QUIC's own overhead is not.
    pub bytes_sent: u64,
    /// UDP payload bytes sent over all connections, QUIC's overhead included.
    pub udp_bytes_sent: u64,
    /// Control frames from the planner that did not decode.
    pub bad_frames: u64,
}

impl UplinkStatus {
    /// Nothing has happened yet.
    #[must_use]
    pub const fn new(state: LinkState, now: Instant) -> Self {
        Self {
            state,
            since: now,
            last_error: None,
            rtt: None,
            acknowledged: Seq(0),
            connects: 0,
            reports_sent: 0,
            bytes_sent: 0,
            udp_bytes_sent: 0,
            bad_frames: 0,
        }
    }
}

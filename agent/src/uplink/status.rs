//! How the ways to the planners are, for the agent's own pages.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use plimsoll_common::ids::Seq;
use tokio::time::Instant;

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinkState {
    /// The planner is connected under another of its addresses.
    Parked,
    /// Waiting before the next try.
    Waiting,
    /// Looking for the planner.
    Connecting,
    /// The planner answered the hello.
    Connected,
}

impl LinkState {
    /// The name in labels and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Parked => "parked",
            Self::Waiting => "waiting",
            Self::Connecting => "connecting",
            Self::Connected => "connected",
        }
    }
}

/// The way to one planner, as it is now.
#[derive(Debug, Clone)]
pub struct LinkStatus {
    /// Where the connection stands.
    pub state: LinkState,
    /// Since when.
    pub since: Instant,
    /// Why the last connection ended or could not be made.
    pub last_error: Option<String>,
    /// Smoothed round-trip time.
    pub rtt: Option<Duration>,
    /// Up to which window the planner has applied everything.
    pub acknowledged: Seq,
    /// What interval between reports it would like.
    pub asked_interval: Option<Duration>,
}

impl LinkStatus {
    /// Nothing has happened yet.
    #[must_use]
    pub const fn new(now: Instant) -> Self {
        Self {
            state: LinkState::Connecting,
            since: now,
            last_error: None,
            rtt: None,
            acknowledged: Seq(0),
            asked_interval: None,
        }
    }
}

/// The ways to all planners, as they are now.
#[derive(Debug, Clone)]
pub struct UplinkStatus {
    /// Every address that the configured name stands for.
    pub links: BTreeMap<SocketAddr, LinkStatus>,
    /// Since when there is no address, and why the name was last not resolved.
    pub unresolved: Option<(Instant, String)>,
    /// Connections made.
    pub connects: u64,
    /// Reports sent, repeats and those to several planners included.
    pub reports_sent: u64,
    /// Frame bytes sent, repeats and inventories included; QUIC's own overhead is not.
    pub bytes_sent: u64,
    /// UDP payload bytes sent over all connections that have ended, QUIC's overhead included.
    pub udp_bytes_sent: u64,
    /// Gaps told.
    pub gaps_told: u64,
    /// Messages from planners that did not decode.
    pub bad_frames: u64,
}

impl UplinkStatus {
    /// Nothing has happened yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            links: BTreeMap::new(),
            unresolved: None,
            connects: 0,
            reports_sent: 0,
            bytes_sent: 0,
            udp_bytes_sent: 0,
            gaps_told: 0,
            bad_frames: 0,
        }
    }

    /// How many planners take reports.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.links.values().filter(|link| link.state == LinkState::Connected).count()
    }

    /// The link that stands best: the first connected one, or the one that is nearest to it.
    #[must_use]
    pub fn best(&self) -> Option<(&SocketAddr, &LinkStatus)> {
        self.links.iter().rev().max_by_key(|(_, link)| link.state)
    }

    /// The shortest interval that a connected planner would like. One that asks for nothing is content with the agent's
    /// own, so that nobody slows the agent down for another.
    #[must_use]
    pub fn asked_interval(&self, own: Duration) -> Option<Duration> {
        let connected = self.links.values().filter(|link| link.state == LinkState::Connected);
        connected.map(|link| link.asked_interval.unwrap_or(own)).min()
    }
}

impl Default for UplinkStatus {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_most_eager_planner_sets_the_pace_and_none_slows_another_down() {
        let own = Duration::from_secs(1);
        let mut status = UplinkStatus::new();
        assert_eq!(status.asked_interval(own), None);
        for (port, asked) in [(1, Some(5_000)), (2, None), (3, Some(250))] {
            let mut link = LinkStatus::new(Instant::now());
            link.asked_interval = asked.map(Duration::from_millis);
            link.state = if port == 3 { LinkState::Waiting } else { LinkState::Connected };
            status.links.insert(([127, 0, 0, 1], port).into(), link);
        }
        assert_eq!(status.asked_interval(own), Some(own));
        assert_eq!((status.connected(), status.best().unwrap().0.port()), (2, 1));
        status.links.values_mut().for_each(|link| link.state = LinkState::Connected);
        assert_eq!(status.asked_interval(own), Some(Duration::from_millis(250)));
        status.links.clear();
        assert!(status.best().is_none());
    }
}

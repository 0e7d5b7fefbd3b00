//! Why an engine's page could not be had.

use std::time::Duration;

use super::page::PageError;

/// Why an engine's page could not be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScrapeError {
    /// The URL is not `http://host[:port]`.
    #[error("{url:?} is no engine's URL: {reason}")]
    Url {
        /// The URL.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Nothing listens on the port.
    #[error("connection to {0} was refused: no engine listens there, or it is still starting")]
    Refused(String),
    /// The connection could not be made for another reason.
    #[error("can't connect to {address}: {reason}")]
    Connect {
        /// The host and port.
        address: String,
        /// What the system says.
        reason: String,
    },
    /// No connection, or no whole answer, within the time allowed.
    #[error("{address} did not answer within {} ms; the engine may be overloaded or stuck", after.as_millis())]
    Timeout {
        /// The host and port.
        address: String,
        /// The time allowed.
        after: Duration,
    },
    /// The request is under way for long, and not answered yet.
    #[error("{address} has not answered for {} ms; it is still waited for", after.as_millis())]
    Late {
        /// The host and port.
        address: String,
        /// How long it is waited for.
        after: Duration,
    },
    /// The connection was made and then closed or reset before the answer was whole.
    #[error("{address} closed the connection before its answer was whole: {reason}")]
    Closed {
        /// The host and port.
        address: String,
        /// What the HTTP client says.
        reason: String,
    },
    /// What came over the connection was no HTTP.
    #[error("what {address} answers is no HTTP: {reason}")]
    Broken {
        /// The host and port.
        address: String,
        /// What the HTTP client says.
        reason: String,
    },
    /// The server wants to know who asks: 401 or 403.
    #[error("the server answered {status} to {path}: {}", token.advice())]
    Unauthorised {
        /// The status code.
        status: u16,
        /// The path that was asked for.
        path: String,
        /// Which token was shown.
        token: TokenUse,
    },
    /// The server answered with another status than 200.
    #[error("the server answered {status} to {path}; check the endpoint's metrics path")]
    Status {
        /// The status code.
        status: u16,
        /// The path that was asked for.
        path: String,
    },
    /// A redirect that is not followed: to another host, to nowhere, or a second one.
    #[error("the server redirects {path} to {to:?}; only one redirect within the same host is followed")]
    Redirect {
        /// The path that was asked for.
        path: String,
        /// Where the server points.
        to: String,
    },
    /// The answer is longer than allowed.
    #[error("the answer is longer than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// An answer came, but it is no page of the engine.
    #[error(transparent)]
    Page(#[from] PageError),
}

impl ScrapeError {
    /// Whether it shows that no engine counts anything at the endpoint; see
    /// [`EngineTracker::absent`](super::EngineTracker::absent).
    #[must_use]
    pub const fn shows_absence(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Page(PageError::Unrecognised { .. }))
    }

    /// Whether somebody answered.
    #[must_use]
    pub const fn is_answer(&self) -> bool {
        match self {
            Self::Url { .. }
            | Self::Refused(_)
            | Self::Connect { .. }
            | Self::Timeout { .. }
            | Self::Late { .. }
            | Self::Closed { .. } => false,
            Self::Broken { .. }
            | Self::Unauthorised { .. }
            | Self::Status { .. }
            | Self::Redirect { .. }
            | Self::TooLarge { .. }
            | Self::Page(_) => true,
        }
    }
}

/// Which bearer token a request carried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenUse {
    /// None is configured.
    NotConfigured,
    /// One is configured and could not be read; the reason.
    Unreadable(String),
    /// The configured one.
    Sent,
}

impl TokenUse {
    fn advice(&self) -> String {
        match self {
            Self::NotConfigured => "it wants a token; give the endpoint a bearer-token-file".to_owned(),
            Self::Unreadable(reason) => format!("no token was shown, since {reason}"),
            Self::Sent => "it does not take the token of bearer-token-file".to_owned(),
        }
    }
}

//! One engine's HTTP connection: kept alive, one request at a time, every answer bounded in size and time.

use std::{io, time::Duration};

use http_body_util::{BodyExt, Empty};
use hyper::{
    Request, Response, StatusCode, Uri,
    body::{Body, Bytes, Incoming},
    client::conn::http1,
    header,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};
use tokio_util::task::AbortOnDropHandle;

use super::{page::PageError, scrape::ScrapeOptions};

const ACCEPT: &str = "text/plain;version=0.0.4;q=1,text/plain;q=0.9,*/*;q=0.1";
const USER_AGENT: &str = concat!("plimsoll-agent/", env!("CARGO_PKG_VERSION"));

/// Where vLLM's server tells its version.
const VERSION_PATH: &str = "/version";
const MAX_VERSION_BYTES: usize = 4096;

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
    /// Nothing listens on the port: the engine is down, or still starting.
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
    /// The connection broke, or what came over it was no HTTP.
    #[error("the connection to {address} broke within the answer: {reason}")]
    Broken {
        /// The host and port.
        address: String,
        /// What the HTTP client says.
        reason: String,
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
}

/// A client for one server.
#[derive(Debug)]
pub(super) struct Client {
    target: Target,
    options: ScrapeOptions,
    connection: Option<Connection>,
    /// Where the last redirect led; forgotten with the next failure.
    redirected: Option<String>,
    /// Whether the server has no version page; forgotten with the next failure.
    versionless: bool,
    answer: Vec<u8>,
}

/// Where a server is.
#[derive(Debug)]
struct Target {
    /// A name or an address, IPv6 without brackets.
    host: String,
    port: u16,
    /// As in the URL: host with its port where one was given.
    authority: String,
    path: String,
}

#[derive(Debug)]
struct Connection {
    sender: http1::SendRequest<Empty<Bytes>>,
    /// Whether a request was answered over it before.
    used: bool,
    version_asked: bool,
    _driver: AbortOnDropHandle<()>,
}

/// The end of one request.
enum Answer {
    Whole,
    Redirect(Option<String>),
}

impl Client {
    /// A client for the page at `url` + `path`; connects with the first request.
    pub(super) fn new(url: &str, path: &str, options: ScrapeOptions) -> Result<Self, ScrapeError> {
        let target = Target::parse(url, path)?;
        Ok(Self {
            target,
            options,
            connection: None,
            redirected: None,
            versionless: false,
            answer: Vec::new(),
        })
    }

    /// Reads the metrics page.
    pub(super) async fn page(&mut self) -> Result<&[u8], ScrapeError> {
        let limit = self.options.limits.page_bytes;
        let allowed = self.options.timeout;
        let outcome = timeout(allowed, self.follow(limit)).await.unwrap_or_else(|_| {
            Err(ScrapeError::Timeout { address: self.target.authority.clone(), after: allowed })
        });
        if let Err(error) = outcome {
            self.connection = None;
            self.redirected = None;
            self.versionless = false;
            return Err(error);
        }
        Ok(&self.answer)
    }

    /// Asks for the server's version, once a connection; `None` where it was asked before or does not tell.
    pub(super) async fn version(&mut self) -> Option<String> {
        if self.versionless {
            return None;
        }
        let connection = self.connection.as_mut().filter(|connection| !connection.version_asked)?;
        connection.version_asked = true;
        let asked = timeout(self.options.timeout, self.get(VERSION_PATH, MAX_VERSION_BYTES)).await;
        if let Ok(Ok(Answer::Whole)) = asked {
            return version_of(&self.answer);
        }
        self.versionless = matches!(asked, Ok(Err(ScrapeError::Status { .. })));
        // What is left of the answer would come before the next page.
        self.connection = None;
        None
    }

    async fn follow(&mut self, limit: usize) -> Result<(), ScrapeError> {
        let path = self.redirected.as_ref().unwrap_or(&self.target.path).clone();
        let Answer::Redirect(to) = self.get(&path, limit).await? else { return Ok(()) };
        let refuse =
            |path: String, to: Option<String>| ScrapeError::Redirect { path, to: to.unwrap_or_default() };
        let Some(next) = to.as_deref().and_then(|to| self.target.resolve(&path, to)) else {
            return Err(refuse(path, to));
        };
        if let Answer::Redirect(to) = self.get(&next, limit).await? {
            return Err(refuse(next, to));
        }
        self.redirected = Some(next);
        Ok(())
    }

    /// One request; its body is then in `self.answer`.
    async fn get(&mut self, path: &str, limit: usize) -> Result<Answer, ScrapeError> {
        let response = self.send(path).await?;
        if response.status().is_redirection() {
            self.connection = None;
            let to = response.headers().get(header::LOCATION).and_then(|to| to.to_str().ok());
            return Ok(Answer::Redirect(to.map(str::to_owned)));
        }
        if response.status() != StatusCode::OK {
            self.connection = None;
            return Err(ScrapeError::Status { status: response.status().as_u16(), path: path.to_owned() });
        }
        let mut body = response.into_body();
        if body.size_hint().lower() > limit as u64 {
            return Err(ScrapeError::TooLarge { limit });
        }
        self.answer.clear();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| self.target.broken(&error))?;
            let Some(data) = frame.data_ref() else { continue };
            if self.answer.len() + data.len() > limit {
                return Err(ScrapeError::TooLarge { limit });
            }
            self.answer.extend_from_slice(data);
        }
        Ok(Answer::Whole)
    }

    /// Sends one request and waits for the head of its answer. A kept-alive connection may have been closed by the
    /// server at any time, so a failure on one is tried again on a fresh one.
    async fn send(&mut self, path: &str) -> Result<Response<Incoming>, ScrapeError> {
        if let Some(mut connection) = self.connection.take().filter(|connection| connection.used) {
            let alive = connection.sender.ready().await.is_ok();
            if alive && let Ok(response) = connection.sender.send_request(self.target.request(path)?).await {
                self.connection = Some(connection);
                return Ok(response);
            }
        }
        let mut connection = self.connect().await?;
        let sent = connection.sender.send_request(self.target.request(path)?).await;
        let response = sent.map_err(|error| self.target.broken(&error))?;
        connection.used = true;
        self.connection = Some(connection);
        Ok(response)
    }

    async fn connect(&self) -> Result<Connection, ScrapeError> {
        let target = &self.target;
        let address = || target.authority.clone();
        let allowed = self.options.connect_timeout;
        let connecting = TcpStream::connect((target.host.as_str(), target.port));
        let stream = match timeout(allowed, connecting).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                return Err(ScrapeError::Refused(address()));
            }
            Ok(Err(error)) => {
                return Err(ScrapeError::Connect { address: address(), reason: error.to_string() });
            }
            Err(_) => return Err(ScrapeError::Timeout { address: address(), after: allowed }),
        };
        let shaken = http1::Builder::new().max_buf_size(64 << 10).handshake(TokioIo::new(stream)).await;
        let (sender, driver) = shaken.map_err(|error| target.broken(&error))?;
        // The driver's error reaches the request that it fails; there is nobody else to tell.
        let driver = tokio::spawn(async move { drop(driver.await) });
        let _driver = AbortOnDropHandle::new(driver);
        Ok(Connection { sender, used: false, version_asked: false, _driver })
    }
}

impl Target {
    fn parse(url: &str, path: &str) -> Result<Self, ScrapeError> {
        let wrong = |reason| ScrapeError::Url { url: url.to_owned(), reason };
        let uri: Uri = url.parse().map_err(|_| wrong("it can't be parsed"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err(wrong("https is not supported, engines are read over plain http on their node"));
            }
            _ => return Err(wrong("it does not start with http://")),
        }
        let authority = uri.authority().ok_or_else(|| wrong("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("it holds a user name"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(wrong("it names no host"));
        }
        if !path.starts_with('/') || path.parse::<Uri>().is_err() {
            return Err(wrong("its metrics path is no path from '/'"));
        }
        Ok(Self {
            host: host.to_owned(),
            port: authority.port_u16().unwrap_or(80),
            authority: authority.as_str().to_owned(),
            path: path.to_owned(),
        })
    }

    fn request(&self, path: &str) -> Result<Request<Empty<Bytes>>, ScrapeError> {
        Request::get(path)
            .header(header::HOST, self.authority.as_str())
            .header(header::ACCEPT, ACCEPT)
            .header(header::USER_AGENT, USER_AGENT)
            .body(Empty::new())
            .map_err(|_| ScrapeError::Url { url: path.to_owned(), reason: "it can't be asked for" })
    }

    /// The path that a redirect from `path` leads to, if it stays on this host.
    fn resolve(&self, path: &str, to: &str) -> Option<String> {
        if to.is_empty() || to.starts_with("//") {
            return None;
        }
        if to.starts_with('/') {
            return Some(to.to_owned());
        }
        if !to.contains("://") {
            let folder = path.rfind('/').map_or("/", |slash| &path[..=slash]);
            return Some(format!("{folder}{to}"));
        }
        let uri: Uri = to.parse().ok()?;
        let same_host = uri.scheme_str() == Some("http")
            && uri.host().is_some_and(|host| host.trim_start_matches('[').trim_end_matches(']') == self.host)
            && uri.port_u16().unwrap_or(80) == self.port;
        same_host.then(|| uri.path_and_query().map_or("/", |path| path.as_str()).to_owned())
    }

    fn broken(&self, error: &hyper::Error) -> ScrapeError {
        ScrapeError::Broken { address: self.authority.clone(), reason: error.to_string() }
    }
}

/// Reads `{"version": "0.32.0"}`.
fn version_of(answer: &[u8]) -> Option<String> {
    const MAX_VERSION_TEXT: usize = 128;
    let value: serde_json::Value = serde_json::from_slice(answer).ok()?;
    let version = value.get("version")?.as_str()?;
    (!version.is_empty() && version.len() <= MAX_VERSION_TEXT).then(|| version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_checked() {
        let of = |url: &str| Target::parse(url, "/metrics").map(|target| (target.host, target.port));
        assert_eq!(of("http://127.0.0.1:8000"), Ok(("127.0.0.1".to_owned(), 8000)));
        assert_eq!(of("http://[::1]:8000/"), Ok(("::1".to_owned(), 8000)));
        assert_eq!(of("http://engine"), Ok(("engine".to_owned(), 80)));
        for bad in ["https://engine:8000", "engine:8000", "/metrics", "", "http://", "http://a@b", "ftp://x"]
        {
            assert!(matches!(of(bad), Err(ScrapeError::Url { .. })), "{bad:?}");
        }
        assert!(Target::parse("http://engine", "metrics").is_err());
        let https = of("https://engine").unwrap_err().to_string();
        assert!(https.contains("https is not supported"), "{https}");
    }

    #[test]
    fn redirects_stay_on_their_host() {
        let target = Target::parse("http://127.0.0.1:8000", "/metrics").unwrap();
        let resolve = |to: &str| target.resolve("/a/metrics", to);
        assert_eq!(resolve("/metrics/").as_deref(), Some("/metrics/"));
        assert_eq!(resolve("http://127.0.0.1:8000/metrics/?x=1").as_deref(), Some("/metrics/?x=1"));
        assert_eq!(resolve("metrics/").as_deref(), Some("/a/metrics/"));
        for foreign in
            ["http://127.0.0.1:8001/metrics", "https://127.0.0.1:8000/", "http://evil/", "//evil/x", ""]
        {
            assert_eq!(resolve(foreign), None, "{foreign:?}");
        }
    }

    #[test]
    fn versions_are_read_with_care() {
        assert_eq!(version_of(br#"{"version":"0.32.0"}"#).as_deref(), Some("0.32.0"));
        for strange in [&b""[..], b"{}", b"[]", br#"{"version":7}"#, br#"{"version":""}"#, b"<html>"] {
            assert_eq!(version_of(strange), None);
        }
    }
}

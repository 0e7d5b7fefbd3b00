//! One engine's HTTP connection: kept alive, one request at a time, every answer bounded in size and time.

use std::{io, path::PathBuf, time::Duration};

use http_body_util::{BodyExt, Empty};
use hyper::{
    Response, StatusCode,
    body::{Body, Bytes, Incoming},
    client::conn::http1,
    header,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};
use tokio_util::task::AbortOnDropHandle;

use super::{
    bearer::Bearer,
    scrape::ScrapeOptions,
    scrape_error::{ScrapeError, TokenUse},
    target::Target,
};

/// Where vLLM's and TensorRT-LLM's servers tell their version.
const VERSION_PATH: &str = "/version";
const MAX_VERSION_BYTES: usize = 4096;

/// The redirects; what other 3xx mean can't be followed.
const REDIRECTS: [StatusCode; 5] = [
    StatusCode::MOVED_PERMANENTLY,
    StatusCode::FOUND,
    StatusCode::SEE_OTHER,
    StatusCode::TEMPORARY_REDIRECT,
    StatusCode::PERMANENT_REDIRECT,
];

/// A client for one server. Asks one thing at a time, so that its requests never queue up behind each other in the
/// event loop that serves the engine's users.
#[derive(Debug)]
pub(super) struct Client {
    target: Target,
    options: ScrapeOptions,
    bearer: Option<Bearer>,
    connection: Option<Connection>,
    /// Where the last redirect of the metrics page led; forgotten with the next failure.
    redirected: Option<String>,
    /// Whether the server has no version page; forgotten with the next failure.
    versionless: bool,
    answer: Vec<u8>,
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
    /// A client for the page at `url` + `path`; connects with the first request. What it asks for carries the token in
    /// the file, where there is one.
    pub(super) fn new(
        url: &str,
        path: &str,
        bearer_token_file: Option<PathBuf>,
        options: ScrapeOptions,
    ) -> Result<Self, ScrapeError> {
        let target = Target::parse(url, path)?;
        Ok(Self {
            target,
            options,
            bearer: bearer_token_file.map(Bearer::new),
            connection: None,
            redirected: None,
            versionless: false,
            answer: Vec::new(),
        })
    }

    /// Reads the metrics page. One redirect within the host is followed, and remembered until a request fails.
    pub(super) async fn page(&mut self) -> Result<&[u8], ScrapeError> {
        let (limit, allowed) = (self.options.limits.page_bytes, self.options.timeout);
        let path = self.redirected.as_ref().unwrap_or(&self.target.path).clone();
        let outcome = timeout(allowed, self.follow(path, limit)).await;
        match outcome.unwrap_or_else(|_| Err(self.late(allowed))) {
            Ok(Some(to)) => self.redirected = Some(to),
            Ok(None) => {}
            Err(error) => {
                self.connection = None;
                self.redirected = None;
                self.versionless = false;
                return Err(error);
            }
        }
        Ok(&self.answer)
    }

    /// Reads another page of the same server, of at most `limit` bytes, over the same connection, with the same token,
    /// patience and rule for redirects.
    pub(super) async fn get(&mut self, path: &str, limit: usize) -> Result<&[u8], ScrapeError> {
        self.get_within(path, limit, self.options.timeout).await
    }

    /// The same within a shorter time, for what is asked beside the page.
    pub(super) async fn get_within(
        &mut self,
        path: &str,
        limit: usize,
        allowed: Duration,
    ) -> Result<&[u8], ScrapeError> {
        let outcome = timeout(allowed, self.follow(path.to_owned(), limit)).await;
        if let Err(error) = outcome.unwrap_or_else(|_| Err(self.late(allowed))) {
            // What is left of the answer would come before the next one.
            self.connection = None;
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
        match self.get(VERSION_PATH, MAX_VERSION_BYTES).await {
            Ok(answer) => version_of(answer),
            Err(error) => {
                self.versionless = matches!(error, ScrapeError::Status { .. });
                None
            }
        }
    }

    fn late(&self, after: Duration) -> ScrapeError {
        ScrapeError::Timeout { address: self.target.authority.clone(), after }
    }

    /// One request, and a second one where the first is redirected; gives where it led.
    async fn follow(&mut self, path: String, limit: usize) -> Result<Option<String>, ScrapeError> {
        let Answer::Redirect(to) = self.ask(&path, limit).await? else { return Ok(None) };
        let refuse =
            |path: String, to: Option<String>| ScrapeError::Redirect { path, to: to.unwrap_or_default() };
        let Some(next) = to.as_deref().and_then(|to| self.target.resolve(&path, to)) else {
            return Err(refuse(path, to));
        };
        if let Answer::Redirect(to) = self.ask(&next, limit).await? {
            return Err(refuse(next, to));
        }
        Ok(Some(next))
    }

    /// One request; its body is then in `self.answer`.
    async fn ask(&mut self, path: &str, limit: usize) -> Result<Answer, ScrapeError> {
        let response = self.send(path).await?;
        let status = response.status();
        if REDIRECTS.contains(&status) {
            self.connection = None;
            let to = response.headers().get(header::LOCATION).and_then(|to| to.to_str().ok());
            return Ok(Answer::Redirect(to.map(str::to_owned)));
        }
        if status != StatusCode::OK {
            self.connection = None;
            return Err(self.refused(status, path));
        }
        let mut body = response.into_body();
        if body.size_hint().lower() > limit as u64 {
            return Err(ScrapeError::TooLarge { limit });
        }
        self.answer.clear();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| self.target.failed(&error))?;
            let Some(data) = frame.data_ref() else { continue };
            if self.answer.len() + data.len() > limit {
                return Err(ScrapeError::TooLarge { limit });
            }
            self.answer.extend_from_slice(data);
        }
        Ok(Answer::Whole)
    }

    fn refused(&mut self, status: StatusCode, path: &str) -> ScrapeError {
        let (code, path) = (status.as_u16(), path.to_owned());
        if !matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return ScrapeError::Status { status: code, path };
        }
        let token = self.bearer.as_ref().map_or(TokenUse::NotConfigured, Bearer::used);
        if let Some(bearer) = &mut self.bearer {
            bearer.forget();
        }
        ScrapeError::Unauthorised { status: code, path, token }
    }

    /// Sends one request and waits for the head of its answer. A kept-alive connection may have been closed by the
    /// server at any time, so a failure on one is tried again on a fresh one.
    async fn send(&mut self, path: &str) -> Result<Response<Incoming>, ScrapeError> {
        let token = match &mut self.bearer {
            Some(bearer) => bearer.header().await,
            None => None,
        };
        let request = || self.target.request(path, token.as_ref());
        if let Some(mut connection) = self.connection.take().filter(|connection| connection.used) {
            let alive = connection.sender.ready().await.is_ok();
            if alive && let Ok(response) = connection.sender.send_request(request()?).await {
                self.connection = Some(connection);
                return Ok(response);
            }
        }
        let mut connection = self.connect().await?;
        let sent = connection.sender.send_request(request()?).await;
        let response = sent.map_err(|error| self.target.failed(&error))?;
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
        let (sender, driver) = shaken.map_err(|error| target.failed(&error))?;
        // The driver's error reaches the request that it fails; there is nobody else to tell.
        let driver = tokio::spawn(async move { drop(driver.await) });
        let _driver = AbortOnDropHandle::new(driver);
        Ok(Connection { sender, used: false, version_asked: false, _driver })
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
    fn versions_are_read_with_care() {
        assert_eq!(version_of(br#"{"version":"0.32.0"}"#).as_deref(), Some("0.32.0"));
        for strange in [&b""[..], b"{}", b"[]", br#"{"version":7}"#, br#"{"version":""}"#, b"<html>"] {
            assert_eq!(version_of(strange), None);
        }
    }
}

//! A small HTTP client for JSON and text.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, bail};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, Request, Response,
    body::{Bytes, Incoming},
    header::AUTHORIZATION,
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;
use tokio::time::timeout;

pub use hyper::StatusCode;

/// Longest that a page may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest page that is read.
const MOST_BYTES: usize = 64 << 20;

/// A client; clones share its connections.
#[derive(Debug, Clone)]
pub struct Http {
    client: Client<HttpConnector, Full<Bytes>>,
}

/// A page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its text.
    pub text: String,
}

impl Answer {
    /// Reads a response to its end.
    ///
    /// # Errors
    /// When it breaks, is too long, or is no text.
    pub async fn read(response: Response<Incoming>) -> anyhow::Result<Self> {
        let status = response.status();
        let body = Limited::new(response.into_body(), MOST_BYTES).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("the page can't be read: {error}"))?;
        Ok(Self { status, text: String::from_utf8(body.to_bytes().to_vec())? })
    }

    /// The page as JSON.
    ///
    /// # Errors
    /// When it is none.
    pub fn json(&self) -> anyhow::Result<Value> {
        self.parse()
    }

    /// The page as what its JSON describes.
    ///
    /// # Errors
    /// When it is no JSON, or of something else.
    pub fn parse<T: serde::de::DeserializeOwned>(&self) -> anyhow::Result<T> {
        let begin: String = self.text.chars().take(200).collect();
        serde_json::from_str(&self.text)
            .with_context(|| format!("status {}, not the JSON that was expected: {begin}", self.status))
    }
}

impl Default for Http {
    fn default() -> Self {
        Self { client: Client::builder(TokioExecutor::new()).build_http() }
    }
}

impl Http {
    /// Reads a page, whatever its status.
    ///
    /// # Errors
    /// When nobody answers in time.
    pub async fn get(&self, address: SocketAddr, path: &str) -> anyhow::Result<Answer> {
        self.get_as(address, path, None).await
    }

    /// The same, with an `Authorization` header.
    ///
    /// # Errors
    /// When nobody answers in time.
    pub async fn get_as(
        &self,
        address: SocketAddr,
        path: &str,
        authorization: Option<&str>,
    ) -> anyhow::Result<Answer> {
        let uri = format!("http://{address}{path}");
        let read = async {
            let mut request = Request::builder().method(Method::GET).uri(&uri);
            if let Some(authorization) = authorization {
                request = request.header(AUTHORIZATION, authorization);
            }
            let response = self.client.request(request.body(Full::default())?).await?;
            Answer::read(response).await
        };
        let answer =
            timeout(PATIENCE, read).await.map_err(|_| anyhow::anyhow!("no answer within {PATIENCE:?}"));
        answer.flatten().with_context(|| uri.clone())
    }

    /// Reads a JSON page that must have status 200.
    ///
    /// # Errors
    /// When it has another status, or is no JSON.
    pub async fn json(&self, address: SocketAddr, path: &str) -> anyhow::Result<Value> {
        let answer = self.get(address, path).await?;
        if answer.status != StatusCode::OK {
            bail!("http://{address}{path}: status {}: {}", answer.status, answer.text);
        }
        answer.json().with_context(|| format!("http://{address}{path}"))
    }

    /// Posts JSON and gives the answer as it comes.
    ///
    /// # Errors
    /// When nobody answers in time.
    pub async fn post(
        &self,
        address: SocketAddr,
        path: &str,
        body: String,
    ) -> anyhow::Result<Response<Incoming>> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("http://{address}{path}"))
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))?;
        let sent = timeout(PATIENCE, self.client.request(request)).await;
        let answer =
            sent.with_context(|| format!("http://{address}{path}: no answer within {PATIENCE:?}"))?;
        answer.with_context(|| format!("http://{address}{path}"))
    }
}

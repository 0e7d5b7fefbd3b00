//! One page by HTTP, bounded in size. Time is the caller's to bound.

use anyhow::bail;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, Uri, body::Bytes};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use plimsoll_pages::exposition::Limits;

/// A page of at most as many bytes as a metrics page may have.
///
/// # Errors
/// When there is no answer, another status than success, or a longer page.
pub(crate) async fn get(uri: Uri) -> anyhow::Result<Vec<u8>> {
    let client: Client<HttpConnector, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let request = Request::get(uri).header("accept", "text/plain, application/json").body(Empty::new())?;
    let answer = client.request(request).await?;
    if !answer.status().is_success() {
        bail!("the answer is {}; metrics are usually at /metrics", answer.status());
    }
    let body = Limited::new(answer.into_body(), Limits::default().page_bytes).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!("the page can't be read: {error}"))?;
    Ok(body.to_bytes().to_vec())
}

//! Pages over TLS, from a server that an authority vouches for.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::Context;
use http_body_util::Empty;
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::{AUTHORIZATION, HOST},
};
use hyper_util::rt::TokioIo;
use plimsoll_shell::tls::{self, Trust};
use rustls_pki_types::ServerName;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use crate::http::Answer;

/// Longest that a page may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks for a page and gives the answer as it comes.
///
/// # Errors
/// When nobody answers in time, or the authority does not vouch for whoever does.
pub async fn ask(
    address: SocketAddr,
    path: &str,
    authority: &Path,
    authorization: Option<&str>,
) -> anyhow::Result<Response<Incoming>> {
    let asked = async {
        let config = tls::client(Trust::Roots(tls::trust(authority)?), None, b"http/1.1")?;
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::IpAddress(address.ip().into());
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // It ends with the response, or with what the response is read from.
        tokio::spawn(connection);
        let mut request = Request::get(path).header(HOST, address.to_string());
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        anyhow::Ok(sender.send_request(request.body(Empty::<Bytes>::new())?).await?)
    };
    let asked = timeout(PATIENCE, asked).await.map_err(|_| anyhow::anyhow!("no answer within {PATIENCE:?}"));
    asked.flatten().with_context(|| format!("https://{address}{path}"))
}

/// Reads a page, whatever its status.
///
/// # Errors
/// As [`ask`].
pub async fn get(
    address: SocketAddr,
    path: &str,
    authority: &Path,
    authorization: Option<&str>,
) -> anyhow::Result<Answer> {
    Answer::read(ask(address, path, authority, authorization).await?).await
}

//! The server of the pages: bounded connections, a token and TLS where they are asked for, probes that stay open.

use std::{
    net::SocketAddr,
    path::Path,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::{Access, ApiError, Guard, patient::Patient};
use crate::tls::{self, Watched};

/// More connections than this wait until one ends.
const MAX_CONNECTIONS: usize = 512;
/// How long a TLS handshake, and then each request's head, may take: who stalls makes room for others.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long an answer may wait for its reader to take more of it.
const READER_PATIENCE: Duration = Duration::from_secs(30);
/// The longest head of a request, a token of 16 KiB in it.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// How the two ways to show a token are asked for.
const CHALLENGES: [&str; 2] = ["Bearer realm=\"plimsoll\"", "Basic realm=\"plimsoll\", charset=\"UTF-8\""];

/// What the server refused, since the start.
#[derive(Debug, Default)]
pub struct Refusals {
    unauthorized: AtomicU64,
    handshakes: AtomicU64,
}

impl Refusals {
    /// Requests without a token that is taken.
    #[must_use]
    pub fn unauthorized(&self) -> u64 {
        self.unauthorized.load(Ordering::Relaxed)
    }

    /// TLS handshakes that failed or took too long.
    #[must_use]
    pub fn handshakes(&self) -> u64 {
        self.handshakes.load(Ordering::Relaxed)
    }
}

/// A bound port that serves pages.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    tls: Option<Renewed>,
    guard: Option<Arc<Guard>>,
    refusals: Arc<Refusals>,
}

impl Server {
    /// Reads what guards the pages and binds the port. Says in the log what of it is missing on a port that other machines
    /// can reach.
    ///
    /// # Errors
    /// When a file can't be used or the port can't be bound.
    pub async fn bind(address: SocketAddr, access: &Access) -> anyhow::Result<Self> {
        let tls = access.tls.as_ref().map(|(cert, key)| Renewed::read(cert, key)).transpose()?;
        let guard = access.token.as_deref().map(Guard::read).transpose().context("http-token")?;
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("listen-http: {address} can't be bound"))?;
        if !address.ip().is_loopback() {
            match (&guard, &tls) {
                (None, _) => {
                    tracing::warn!(%address, "whoever reaches this address may read the pages; --http-token guards them")
                }
                (Some(_), None) => {
                    tracing::warn!(%address, "the token for the pages travels in the clear; --http-tls-cert hides it")
                }
                (Some(_), Some(_)) => (),
            }
        }
        Ok(Self { listener, tls, guard: guard.map(Arc::new), refusals: Arc::default() })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the socket does not tell.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// What is refused; it goes on counting.
    #[must_use]
    pub fn refusals(&self) -> Arc<Refusals> {
        Arc::clone(&self.refusals)
    }

    /// Serves until cancelled; requests under way are finished first. `pages` are guarded, `probes` are open to everybody.
    /// Handlers may ask for the peer's address (`ConnectInfo<SocketAddr>`).
    ///
    /// # Errors
    /// Never, at present; a connection that fails is its own.
    pub async fn serve(self, pages: Router, probes: Router, cancel: CancellationToken) -> anyhow::Result<()> {
        let Self { listener, mut tls, guard, refusals } = self;
        let router = match guard {
            Some(guard) => {
                let state = (guard, Arc::clone(&refusals));
                pages.layer(middleware::from_fn_with_state(state, only_with_a_token))
            }
            None => pages,
        };
        let router = router.merge(probes);
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                Some(_) = connections.join_next() => (),
                accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                    Ok((stream, peer)) => {
                        let (acceptor, router) = (tls.as_mut().map(Renewed::acceptor), router.clone());
                        let (refusals, cancel) = (Arc::clone(&refusals), cancel.clone());
                        connections.spawn(converse(stream, peer, acceptor, router, refusals, cancel));
                    }
                    Err(error) => {
                        // Such as too many open files: it passes, and must not be asked for at full speed until then.
                        tracing::warn!(%error, "a connection for the pages could not be accepted");
                        sleep(Duration::from_millis(100)).await;
                    }
                },
            }
        }
        while connections.join_next().await.is_some() {}
        Ok(())
    }
}

async fn converse(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: Option<TlsAcceptor>,
    router: Router,
    refusals: Arc<Refusals>,
    cancel: CancellationToken,
) {
    // Small answers should not wait for more; where that can't be had they do.
    let _ = stream.set_nodelay(true);
    let Some(acceptor) = acceptor else { return exchange(stream, peer, router, cancel).await };
    let shaken = tokio::select! {
        shaken = timeout(PATIENCE, acceptor.accept(stream)) => shaken,
        () = cancel.cancelled() => return,
    };
    match shaken {
        Ok(Ok(stream)) => exchange(stream, peer, router, cancel).await,
        failed => {
            refusals.handshakes.fetch_add(1, Ordering::Relaxed);
            let error = failed.map_or_else(
                |_| "it took too long".to_owned(),
                |failed| failed.err().map(|error| error.to_string()).unwrap_or_default(),
            );
            tracing::debug!(%peer, error, "no TLS handshake for the pages");
        }
    }
}

async fn exchange<S>(stream: S, peer: SocketAddr, router: Router, cancel: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let answer = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        router.clone().oneshot(request.map(Body::new))
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(Patient::new(stream, READER_PATIENCE)), answer);
    let mut served = pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = cancel.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "a connection for the pages ended");
    }
}

async fn only_with_a_token(
    State((guard, refusals)): State<(Arc<Guard>, Arc<Refusals>)>,
    request: Request,
    next: Next,
) -> Response {
    if guard.admits(request.headers()) {
        return next.run(request).await;
    }
    refusals.unauthorized.fetch_add(1, Ordering::Relaxed);
    let refused = ApiError {
        status: StatusCode::UNAUTHORIZED,
        error: "these pages are read with a token".to_owned(),
        hint: "send the header 'Authorization: Bearer TOKEN', or in a browser the token as the password; never in the address"
            .to_owned(),
    };
    let mut response = refused.into_response();
    for challenge in CHALLENGES {
        response.headers_mut().append(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    response
}

/// A certificate that is read anew when its files change.
struct Renewed {
    cert: std::path::PathBuf,
    key: std::path::PathBuf,
    watched: Watched,
    config: Arc<rustls::ServerConfig>,
}

impl std::fmt::Debug for Renewed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Renewed").field("cert", &self.cert).finish_non_exhaustive()
    }
}

impl Renewed {
    fn read(cert: &Path, key: &Path) -> anyhow::Result<Self> {
        let watched = Watched::new([cert, key]);
        let config = server_config(cert, key)?;
        Ok(Self { cert: cert.to_owned(), key: key.to_owned(), watched, config })
    }

    /// What the next connection is met with.
    fn acceptor(&mut self) -> TlsAcceptor {
        if self.watched.changed() {
            match server_config(&self.cert, &self.key) {
                Ok(config) => {
                    self.config = config;
                    tracing::info!("the certificate of the pages was renewed");
                }
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::warn!(
                        error,
                        "the renewed certificate of the pages can't be used; the one read before is kept"
                    );
                }
            }
        }
        TlsAcceptor::from(Arc::clone(&self.config))
    }
}

fn server_config(cert: &Path, key: &Path) -> anyhow::Result<Arc<rustls::ServerConfig>> {
    let identity = tls::Identity::from_pem_files(cert, key).context("http-tls-cert")?;
    Ok(Arc::new(tls::server(identity, None, b"http/1.1")?))
}

#[cfg(test)]
mod tests;

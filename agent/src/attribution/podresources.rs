//! The client of the kubelet's pod-resources API.

use std::{io, path::Path, time::Duration};

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::{Code, transport::Endpoint};

use self::v1::{
    ListPodResourcesRequest, ListPodResourcesResponse, pod_resources_lister_client::PodResourcesListerClient,
};

/// The largest answer that is taken. A node with 500 pods of 5 containers answers less than a tenth of it.
pub(super) const MAX_ANSWER_BYTES: usize = 4 << 20;

/// Messages and client, generated from `proto/podresources.proto`.
#[expect(
    unreachable_pub,
    unused_qualifications,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]
#[cfg_attr(test, expect(clippy::allow_attributes, reason = "generated, for the server that tests run"))]
pub(super) mod v1 {
    tonic::include_proto!("v1");
}

/// Why the kubelet did not answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum KubeletError {
    /// There is no socket.
    #[error("{0} does not exist")]
    Absent(String),
    /// The socket is not for us.
    #[error(
        "{0} may not be opened: run the agent with a user or group that may (the kubelet gives it to root)"
    )]
    Denied(String),
    /// Nobody listens.
    #[error("{path} can't be connected to: {error}")]
    Unreachable { path: String, error: io::Error },
    /// It took too long.
    #[error("the kubelet did not answer within {0:?}")]
    Slow(Duration),
    /// It answered with an error.
    #[error("the kubelet answered: {0}")]
    Refused(String),
    /// It answered too much.
    #[error("the kubelet's answer is larger than {MAX_ANSWER_BYTES} bytes, or no answer: {0}")]
    Unusable(String),
}

/// Asks which devices the containers of this node have. Each question has a connection of its own: it is asked rarely, and
/// a kubelet that was restarted listens at a new socket.
pub(super) async fn list(socket: &Path, timeout: Duration) -> Result<ListPodResourcesResponse, KubeletError> {
    tokio::time::timeout(timeout, ask(socket)).await.unwrap_or(Err(KubeletError::Slow(timeout)))
}

async fn ask(socket: &Path) -> Result<ListPodResourcesResponse, KubeletError> {
    let path = || socket.display().to_string();
    let stream = UnixStream::connect(socket).await.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => KubeletError::Absent(path()),
        io::ErrorKind::PermissionDenied => KubeletError::Denied(path()),
        _ => KubeletError::Unreachable { path: path(), error },
    })?;
    // The channel connects once, with the stream that is already there; the name is for the protocol only.
    let mut stream = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_| {
        let stream = stream.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected));
        async move { stream }
    });
    let channel = Endpoint::from_static("http://localhost")
        .connect_with_connector(connector)
        .await
        .map_err(|error| KubeletError::Unusable(chain(&error)))?;
    let mut client = PodResourcesListerClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
    match client.list(ListPodResourcesRequest {}).await {
        Ok(answer) => Ok(answer.into_inner()),
        // What our side of the connection finds wrong with the answer comes as one of these.
        Err(status) if matches!(status.code(), Code::OutOfRange | Code::Internal) => {
            Err(KubeletError::Unusable(short(status.message())))
        }
        Err(status) => {
            Err(KubeletError::Refused(format!("{:?}: {}", status.code(), short(status.message()))))
        }
    }
}

/// The first line of a message, at most 200 characters: it ends up on pages.
fn short(message: &str) -> String {
    message.lines().next().unwrap_or_default().chars().filter(|sign| !sign.is_control()).take(200).collect()
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    short(&text)
}

//! `POST /v1/gpu-source/release` and `/resume`: let go of the driver so that a GPU can be reset, its MIG mode changed or the
//! driver unloaded, and take it back. Only from this machine, since whoever may do this can blind the planner.

use std::net::SocketAddr;

use axum::{
    Json,
    extract::{
        ConnectInfo, Query, State,
        rejection::{ExtensionRejection, QueryRejection},
    },
    http::{HeaderMap, StatusCode, Uri, header},
};
use plimsoll_shell::http::ApiError;
use serde_json::{Value, json};

use super::Pages;
use crate::gpu::{GpuControl, NotRunning};

type Peer = Result<ConnectInfo<SocketAddr>, ExtensionRejection>;

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Window {
    seconds: Option<u64>,
}

pub(super) async fn release(
    State(pages): State<Pages>,
    peer: Peer,
    headers: HeaderMap,
    query: Result<Query<Window>, QueryRejection>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    only_from_here(peer, &headers)?;
    let Query(window) = query.map_err(|rejection| {
        let hint = "ask for /v1/gpu-source/release?seconds=60, in whole seconds";
        ApiError::bad_request(rejection.body_text().to_lowercase(), hint)
    })?;
    let length = match window.seconds {
        Some(0) => {
            let hint = "give ?seconds=1 or more, or POST /v1/gpu-source/resume to end a release";
            return Err(ApiError::bad_request("a release of 0 seconds is none", hint));
        }
        Some(seconds) => std::time::Duration::from_secs(seconds),
        None => GpuControl::DEFAULT_RELEASE,
    };
    let length = pages.0.feeds.control.release(length).map_err(switched_off)?;
    let note = "NVML is let go of at once or when the call that is under way returns; wait until source.released in \
                /v1/gpus is set, then reset";
    let body = json!({ "accepted": "release", "seconds": length.as_secs(), "note": note });
    Ok((StatusCode::ACCEPTED, Json(body)))
}

pub(super) async fn resume(
    State(pages): State<Pages>,
    peer: Peer,
    headers: HeaderMap,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    only_from_here(peer, &headers)?;
    pages.0.feeds.control.resume().map_err(switched_off)?;
    let note = "NVML is loaded again within moments; where it was not released, nothing changes";
    Ok((StatusCode::ACCEPTED, Json(json!({ "accepted": "resume", "note": note }))))
}

/// What a request with the wrong method is told.
pub(super) async fn wrong_method(uri: Uri) -> ApiError {
    let (error, hint) = match uri.path() {
        path @ ("/v1/gpu-source/release" | "/v1/gpu-source/resume") => {
            ("this path takes a POST", format!("on this node: curl -X POST http://127.0.0.1:9474{path}"))
        }
        _ => {
            let hint = "only /v1/gpu-source/release and /v1/gpu-source/resume take a POST";
            ("this page is read with GET", hint.to_owned())
        }
    };
    ApiError { status: StatusCode::METHOD_NOT_ALLOWED, error: error.to_owned(), hint }
}

/// Peers on this machine, and no web page that a browser on it shows: browsers tell where such a request comes from.
fn only_from_here(peer: Peer, headers: &HeaderMap) -> Result<(), ApiError> {
    let local = peer.is_ok_and(|ConnectInfo(address)| address.ip().to_canonical().is_loopback());
    if local && !headers.contains_key(header::ORIGIN) {
        return Ok(());
    }
    Err(ApiError {
        status: StatusCode::FORBIDDEN,
        error: "the GPU source is released from its own machine only".to_owned(),
        hint:
            "POST to 127.0.0.1 on the node, in a cluster by kubectl exec or port-forward to the agent's pod"
                .to_owned(),
    })
}

fn switched_off(error: NotRunning) -> ApiError {
    ApiError {
        status: StatusCode::CONFLICT,
        error: error.to_string(),
        hint: "go on with what needs the driver; the agent is not in its way".to_owned(),
    }
}

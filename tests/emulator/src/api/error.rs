//! Errors in OpenAI's form.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use plimsoll_engine::Rejected;
use serde_json::json;

use crate::job::Refusal;

/// Why a request gets no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// The request makes no sense, or asks for what the emulator does not do.
    #[error("{message}")]
    BadRequest { message: String, param: Option<&'static str> },
    /// The body is larger than anything sensible.
    #[error("the request body is larger than {limit} bytes: shorten the prompt")]
    TooLarge { limit: usize },
    /// Another model is served here.
    #[error("the model `{asked}` does not exist: this engine serves `{served}`")]
    UnknownModel { asked: String, served: String },
    /// Not now.
    #[error("{0}")]
    Unavailable(String),
    /// The engine went away in mid-answer.
    #[error("the engine stopped while it was answering")]
    EngineStopped,
}

impl ApiError {
    pub(crate) fn bad(param: &'static str, message: impl Into<String>) -> Self {
        Self::BadRequest { message: message.into(), param: Some(param) }
    }

    const fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest { .. } => StatusCode::BAD_REQUEST,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnknownModel { .. } => StatusCode::NOT_FOUND,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::EngineStopped => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        match &refusal {
            Refusal::Busy | Refusal::Stopped | Refusal::Rejected(Rejected::QueueFull { .. }) => {
                Self::Unavailable(refusal.to_string())
            }
            Refusal::Rejected(_) => Self::BadRequest { message: refusal.to_string(), param: None },
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.status();
        let (kind, param) = match &self {
            Self::BadRequest { param, .. } => ("BadRequestError", *param),
            Self::TooLarge { .. } => ("RequestEntityTooLargeError", None),
            Self::UnknownModel { .. } => ("NotFoundError", Some("model")),
            Self::Unavailable(_) => ("ServiceUnavailableError", None),
            Self::EngineStopped => ("InternalServerError", None),
        };
        let body = json!({
            "error": { "message": self.to_string(), "type": kind, "param": param, "code": status.as_u16() }
        });
        (status, Json(body)).into_response()
    }
}

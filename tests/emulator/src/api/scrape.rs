//! The metrics page on the wire, and what can be wrong with it.

use std::{io, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use futures_util::stream;

use crate::{api::Api, args::Kind, faults, page, script::Torn};

/// How long the first half of a page that is cut off stays alone.
const BEFORE_CUT: Duration = Duration::from_millis(20);

/// Answers with the page as it is now, under the faults of now.
pub(crate) async fn answer(api: &Api, content_type: &'static str) -> Response {
    let faults = api.faults.now();
    if !faults.slow.is_zero() {
        tokio::time::sleep(faults.slow).await;
    }
    let shared = &api.driver.shared;
    let text = page::render(&api.config, &shared.clock, &shared.snapshot(), &api.http.snapshot());
    let body = match faults.torn {
        // SGLang's answer has no length.
        None if api.config.kind == Kind::Sglang => {
            Body::from_stream(stream::iter([Ok::<_, io::Error>(text)]))
        }
        None => Body::from(text),
        Some(Torn::Mixed) => Body::from(faults::mixed(&text)),
        Some(Torn::Short) => Body::from(half(&text).to_owned()),
        Some(Torn::Cut) => cut(Bytes::from(half(&text).to_owned())),
    };
    let mut response = body.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A body that ends in an error once the client has had time to read what there is.
fn cut(begin: Bytes) -> Body {
    Body::from_stream(stream::unfold(Some(begin), |begin| async {
        match begin {
            Some(begin) => Some((Ok(begin), None)),
            None => {
                tokio::time::sleep(BEFORE_CUT).await;
                let broken = io::Error::new(io::ErrorKind::ConnectionReset, "cut off as asked for");
                Some((Err(broken), None))
            }
        }
    }))
}

/// The first half of a page, up to the middle of a line.
fn half(text: &str) -> &str {
    let mut end = text.len() / 2;
    while end > 0 && (!text.is_char_boundary(end) || text[..end].ends_with('\n')) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_page_ends_within_a_line() {
        assert_eq!(half("abc\ndefg"), "abc");
        assert_eq!(half("é\n\n"), "é");
        assert_eq!(half(""), "");
    }
}

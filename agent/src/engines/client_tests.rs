//! The client against small servers on loopback: tokens, redirects, further pages.

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use super::{
    ScrapeError, ScrapeOptions, TokenUse,
    client::Client,
    test_server::{Reply, Server, answer, bound, not_found, ok, serve, serve_heads},
};

fn client(server: &Server, token: Option<PathBuf>) -> Client {
    let options = ScrapeOptions { timeout: Duration::from_secs(60), ..ScrapeOptions::default() };
    Client::new(&format!("http://{}", server.address), "/metrics", token, options).unwrap()
}

/// Answers only those who show this token.
fn guarded(token: &'static str) -> impl Fn(usize, &str) -> Reply + Send + Sync + 'static {
    move |_, head| {
        if head.contains(&format!("\r\nauthorization: Bearer {token}\r\n")) {
            Reply::Send(ok(b"x 1\n"))
        } else {
            Reply::Send(answer("401 Unauthorized", "", b"{}"))
        }
    }
}

#[tokio::test]
async fn a_token_is_shown_and_read_again_when_it_changes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let server = serve_heads(bound().await, guarded("right"));
    let mut client = client(&server, Some(path.clone()));
    let unauthorised = |error: ScrapeError| match error {
        ScrapeError::Unauthorised { status: 401, path, token } if path == "/metrics" => token,
        other => panic!("{other}"),
    };
    assert!(matches!(unauthorised(client.page().await.unwrap_err()), TokenUse::Unreadable(_)));
    fs::write(&path, "wrong").unwrap();
    assert_eq!(unauthorised(client.page().await.unwrap_err()), TokenUse::Sent);
    // As long as the one before, and perhaps written within the same tick of the file system's clock.
    fs::write(&path, "right").unwrap();
    assert_eq!(client.page().await.unwrap(), b"x 1\n");
    assert_eq!(client.get("/other", 100).await.unwrap(), b"x 1\n");
}

#[tokio::test]
async fn errors_never_tell_the_token() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    fs::write(&path, "s3cret").unwrap();
    let server = serve_heads(bound().await, guarded("another"));
    let mut client = client(&server, Some(path));
    let error = client.page().await.unwrap_err();
    assert!(!format!("{error} {error:?} {client:?}").contains("s3cret"));
}

#[tokio::test]
async fn without_a_token_the_advice_names_the_key() {
    let server = serve(bound().await, |_, _| Reply::Send(answer("403 Forbidden", "", b"")));
    let error = client(&server, None).page().await.unwrap_err().to_string();
    assert!(error.contains("403") && error.contains("bearer-token-file"), "{error}");
}

#[tokio::test]
async fn a_token_stays_on_its_host() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let heads = seen.clone();
    let stranger = serve_heads(bound().await, move |_, head| {
        heads.lock().unwrap().push(head.to_owned());
        Reply::Send(ok(b"x 1\n"))
    });
    let headers = format!("location: http://{}/metrics\r\n", stranger.address);
    let server =
        serve(bound().await, move |_, _| Reply::Send(answer("308 Permanent Redirect", &headers, b"")));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    fs::write(&path, "s3cret").unwrap();
    let error = client(&server, Some(path)).page().await.unwrap_err();
    assert!(matches!(&error, ScrapeError::Redirect { to, .. } if to.contains("/metrics")), "{error}");
    assert!(seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn further_pages_come_over_the_same_connection_and_are_bounded() {
    let server = serve(bound().await, |_, path| match path {
        "/metrics" => Reply::Send(ok(b"x 1\n")),
        "/v1/loads" => Reply::Send(ok(b"{\"loads\":[]}")),
        "/moved" => Reply::Send(answer("307 Temporary Redirect", "location: /v1/loads\r\n", b"")),
        _ => not_found(),
    });
    let mut client = client(&server, None);
    for _ in 0..3 {
        assert_eq!(client.page().await.unwrap(), b"x 1\n");
        assert_eq!(client.get("/v1/loads", 100).await.unwrap(), b"{\"loads\":[]}");
    }
    assert_eq!(server.connections.load(std::sync::atomic::Ordering::SeqCst), 1);
    assert_eq!(client.get("/v1/loads", 5).await, Err(ScrapeError::TooLarge { limit: 5 }));
    assert_eq!(client.get("/moved", 100).await.unwrap(), b"{\"loads\":[]}");
    let missing = client.get("/get_load", 100).await.unwrap_err();
    assert_eq!(missing, ScrapeError::Status { status: 404, path: "/get_load".to_owned() });
    assert_eq!(client.page().await.unwrap(), b"x 1\n", "the page outlives what else fails");
}

#[tokio::test]
async fn statuses_that_are_no_redirects_are_not_followed() {
    for status in ["300 Multiple Choices", "304 Not Modified"] {
        let text = status.to_owned();
        let server =
            serve(bound().await, move |_, _| Reply::Send(answer(&text, "location: /metrics/\r\n", b"")));
        let error = client(&server, None).page().await.unwrap_err();
        let code = status[..3].parse().unwrap();
        assert_eq!(error, ScrapeError::Status { status: code, path: "/metrics".to_owned() });
    }
}

//! The OpenAI API: shapes, lengths, errors.

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::client::{self, text};

const FAST: [&str; 2] = ["--speed", "50"];

#[tokio::test]
async fn a_streamed_chat_has_the_chunks_that_clients_expect() {
    let harness = client::start(&FAST).await;
    let body = json!({
        "model": "tiny",
        "messages": [{ "role": "user", "content": "How much freight is on board?" }],
        "max_completion_tokens": 12, "max_tokens": 99, "stream": true, "stream_options": { "include_usage": true },
    });
    let mut events = harness.caller.stream("/v1/chat/completions", &body).await;
    let last = events.pop().unwrap();
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"]["completion_tokens"], 12);
    // "user: How much freight is on board?\nassistant: " is 47 bytes.
    assert_eq!(last["usage"]["prompt_tokens"], 12);
    assert_eq!(last["usage"]["total_tokens"], 24);

    assert_eq!(events[0]["choices"][0]["delta"], json!({ "role": "assistant", "content": "" }));
    let content: String =
        events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(content.split_whitespace().count(), 12);
    for (index, event) in events.iter().enumerate() {
        assert_eq!(event["object"], "chat.completion.chunk");
        assert_eq!((&event["id"], &event["model"]), (&last["id"], &json!("tiny")));
        let reason = &event["choices"][0]["finish_reason"];
        assert_eq!(*reason, if index == events.len() - 1 { json!("length") } else { Value::Null });
        assert!(event.get("usage").is_none());
    }
    assert!(last["id"].as_str().unwrap().starts_with("chatcmpl-"));
}

#[tokio::test]
async fn a_streamed_completion_without_usage_ends_with_its_reason() {
    let harness = client::start(&FAST).await;
    let body = json!({ "prompt": "Once upon a time", "max_tokens": 5, "stream": true });
    let events = harness.caller.stream("/v1/completions", &body).await;
    let words: String = events.iter().filter_map(|event| event["choices"][0]["text"].as_str()).collect();
    assert_eq!(words.split_whitespace().count(), 5);
    let last = events.last().unwrap();
    assert_eq!(
        (&last["object"], &last["choices"][0]["finish_reason"]),
        (&json!("text_completion"), &json!("length"))
    );
    assert!(events.iter().all(|event| event.get("usage").is_none()));
}

#[tokio::test]
async fn answers_in_one_piece_say_the_same_as_streamed_ones() {
    let harness = client::start(&FAST).await;
    let body = json!({ "prompt": [5, 6, 7, 8], "max_tokens": 20 });
    let (status, whole) = harness.caller.post("/v1/completions", &body).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        whole["usage"],
        json!({
            "prompt_tokens": 4, "completion_tokens": 20, "total_tokens": 24, "prompt_tokens_details": null
        })
    );
    let streamed = json!({ "prompt": [5, 6, 7, 8], "max_tokens": 20, "stream": true });
    let events = harness.caller.stream("/v1/completions", &streamed).await;
    let words: String = events.iter().filter_map(|event| event["choices"][0]["text"].as_str()).collect();
    assert_eq!(whole["choices"][0]["text"], words);

    let chat = json!({ "messages": [{ "role": "user", "content": "hi" }], "max_tokens": 3 });
    let (_, whole) = harness.caller.post("/v1/chat/completions", &chat).await;
    assert_eq!(
        (&whole["object"], &whole["choices"][0]["message"]["role"]),
        (&json!("chat.completion"), &json!("assistant"))
    );
    let (_, default) = harness.caller.post("/v1/completions", &json!({ "prompt": "hi" })).await;
    assert_eq!(default["usage"]["completion_tokens"], 16);
}

#[tokio::test]
async fn some_answers_stop_early_always_the_same_ones() {
    let harness = client::start(&["--speed", "1000", "--stop-fraction", "0.5", "--seed", "7"]).await;
    let mut reasons = Vec::new();
    for round in 0..2 {
        for prompt in 0..30 {
            let body = json!({ "prompt": [prompt, 1], "max_tokens": 40 });
            let (_, answer) = harness.caller.post("/v1/completions", &body).await;
            let tokens = answer["usage"]["completion_tokens"].as_u64().unwrap();
            let reason = answer["choices"][0]["finish_reason"].as_str().unwrap().to_owned();
            assert_eq!(reason == "stop", tokens < 40);
            if round == 0 {
                reasons.push((tokens, reason));
            } else {
                assert_eq!(reasons[prompt as usize], (tokens, reason));
            }
        }
    }
    let stopped = reasons.iter().filter(|(_, reason)| reason == "stop").count();
    assert!((5..=25).contains(&stopped), "{stopped} of 30 stopped");
    for prompt in 0..30 {
        let body = json!({ "prompt": [prompt, 1], "max_tokens": 40, "ignore_eos": true });
        let (_, answer) = harness.caller.post("/v1/completions", &body).await;
        assert_eq!(answer["usage"]["completion_tokens"], 40);
        let body = json!({ "prompt": [prompt, 1], "max_tokens": 40, "min_tokens": 35 });
        let (_, answer) = harness.caller.post("/v1/completions", &body).await;
        assert!(answer["usage"]["completion_tokens"].as_u64().unwrap() >= 35);
    }
}

#[tokio::test]
async fn what_cannot_be_answered_is_refused_in_openais_form() {
    let harness = client::start(&["--max-model-len", "100"]).await;
    let deep = format!("{}1{}", "[".repeat(5_000), "]".repeat(5_000));
    let deep = format!("{{\"prompt\":{deep}}}");
    let long = json!({ "prompt": vec![1; 90], "max_tokens": 11 }).to_string();
    let longer = json!({ "prompt": vec![1; 200] }).to_string();
    let completions = [
        (StatusCode::NOT_FOUND, r#"{"model":"gpt-9","prompt":"x"}"#, "gpt-9"),
        (StatusCode::BAD_REQUEST, "{\"prompt\": \"x\"", "body"),
        (StatusCode::BAD_REQUEST, "", "body"),
        (StatusCode::BAD_REQUEST, "[]", "body"),
        (StatusCode::BAD_REQUEST, r#"{"max_tokens":5}"#, "prompt"),
        (StatusCode::BAD_REQUEST, r#"{"prompt":{"a":1}}"#, "body"),
        (StatusCode::BAD_REQUEST, r#"{"prompt":""}"#, "empty"),
        (StatusCode::BAD_REQUEST, r#"{"prompt":[]}"#, "empty"),
        (StatusCode::BAD_REQUEST, r#"{"prompt":["a","b"]}"#, "one prompt"),
        (StatusCode::BAD_REQUEST, r#"{"prompt":"x","n":3}"#, "n"),
        (StatusCode::BAD_REQUEST, r#"{"prompt":"x","max_tokens":0}"#, "max_tokens"),
        (StatusCode::BAD_REQUEST, r#"{"prompt":"x","max_tokens":-1}"#, "body"),
        (StatusCode::BAD_REQUEST, r#"{"prompt":"x","max_tokens":4294967295}"#, "context of 100"),
        (StatusCode::BAD_REQUEST, r#"{"prompt":"x","max_tokens":5,"min_tokens":6}"#, "min_tokens"),
        (StatusCode::BAD_REQUEST, r#"{"prompt":"x","echo":true}"#, "echo"),
        (StatusCode::BAD_REQUEST, &deep, "body"),
        (StatusCode::BAD_REQUEST, &long, "context of 100"),
        (StatusCode::BAD_REQUEST, &longer, "200 tokens"),
    ];
    for (expected, body, says) in completions {
        let (status, answer) = text(harness.caller.send(Method::POST, "/v1/completions", body).await).await;
        assert_eq!(status, expected, "{answer}");
        let answer: Value = serde_json::from_str(&answer).unwrap();
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains(says), "{message}");
        assert_eq!(answer["error"]["code"], expected.as_u16());
        assert!(answer["error"]["type"].is_string());
    }
    for body in [r#"{"messages":[]}"#, r#"{"messages":[{"role":"user","content":[{"type":"image_url"}]}]}"#] {
        let (status, _) = text(harness.caller.send(Method::POST, "/v1/chat/completions", body).await).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
    }
    // None of this reached the engine.
    let page = harness.caller.page().await;
    assert!(page.value("vllm:num_requests_running") + page.value("vllm:num_requests_waiting") < 0.5);
    assert!(page.value("vllm:prompt_tokens_total") < 0.5);
}

#[tokio::test]
async fn a_body_beyond_measure_is_refused_unread() {
    let harness = client::start(&[]).await;
    let body = format!("{{\"prompt\":\"{}\"}}", "x".repeat(33 << 20));
    match harness.caller.try_send(Method::POST, "/v1/completions", &body).await {
        Ok(response) => assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE),
        // The server may close before the client has written everything.
        Err(error) => assert!(!error.is_connect(), "{error}"),
    }
}

#[tokio::test]
async fn the_other_endpoints_answer_as_vllm_does() {
    let harness = client::start(&["--max-model-len", "4096"]).await;
    for path in ["/health", "/ping"] {
        assert_eq!(harness.caller.get(path).await, (StatusCode::OK, String::new()));
    }
    assert_eq!(harness.caller.get("/version").await.1, r#"{"version":"0.32.0"}"#);
    assert_eq!(harness.caller.get("/load").await.1, r#"{"server_load":0}"#);
    let models: Value = serde_json::from_str(&harness.caller.get("/v1/models").await.1).unwrap();
    assert_eq!(
        (&models["data"][0]["id"], &models["data"][0]["max_model_len"]),
        (&json!("tiny"), &json!(4096))
    );
    let (status, body) = harness.caller.get("/server_info").await;
    assert_eq!((status, body.as_str()), (StatusCode::NOT_FOUND, r#"{"detail":"Not Found"}"#));
    assert_eq!(harness.caller.get("/v1/completions").await.0, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn a_client_may_name_its_requests() {
    let harness = client::start(&FAST).await;
    let named = |name: &str| {
        let request = hyper::Request::post(format!("http://{}/v1/completions", harness.emulator.address()))
            .header("x-request-id", name)
            .body(http_body_util::Full::new(hyper::body::Bytes::from(r#"{"prompt":"x"}"#)));
        request.unwrap()
    };
    for (name, kept) in [("voyage-7", true), (&"x".repeat(500), false)] {
        let response = harness.caller.request(named(name)).await;
        let answer: Value = serde_json::from_str(&text(response).await.1).unwrap();
        assert_eq!(answer["id"] == format!("cmpl-{name}"), kept);
    }
}

//! Answers as server-sent events.

use std::io;

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, header},
    response::Response,
};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{
    api::InFlight,
    job::{FinishReason, Progress},
    words,
};

/// Which of the two endpoints answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavour {
    Completion,
    Chat,
}

impl Flavour {
    pub(crate) const fn id_prefix(self) -> &'static str {
        match self {
            Self::Completion => "cmpl",
            Self::Chat => "chatcmpl",
        }
    }

    pub(crate) const fn object(self) -> &'static str {
        match self {
            Self::Completion => "text_completion",
            Self::Chat => "chat.completion",
        }
    }

    const fn chunk_object(self) -> &'static str {
        match self {
            Self::Completion => "text_completion",
            Self::Chat => "chat.completion.chunk",
        }
    }
}

/// An answer that the engine is working on. Dropping it aborts the request.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) id: String,
    /// Seconds since 1970.
    pub(crate) created: u64,
    pub(crate) model: String,
    pub(crate) flavour: Flavour,
    pub(crate) prompt_tokens: u32,
    /// Whether the usage tells of prefix-cache hits.
    pub(crate) tells_cached: bool,
    /// What its words depend on.
    pub(crate) dice: u64,
    pub(crate) progress: watch::Receiver<Progress>,
    /// Counts the answer as in flight until it is dropped.
    #[expect(dead_code, reason = "held for its drop")]
    pub(crate) in_flight: InFlight,
}

impl Answer {
    /// What it has cost so far.
    pub(crate) fn usage(&self, progress: Progress) -> Value {
        json!({
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": progress.tokens,
            "total_tokens": u64::from(self.prompt_tokens) + u64::from(progress.tokens),
            "prompt_tokens_details": self.tells_cached.then(|| json!({ "cached_tokens": progress.cached_tokens })),
        })
    }
}

/// Streams an answer: one event for each delivery of tokens, the usage if asked for, then `[DONE]`.
pub(crate) fn respond(answer: Answer, include_usage: bool) -> Response {
    let events = Events { answer, include_usage, sent: 0, done: false };
    let body = Body::from_stream(stream::unfold(events, |mut events| async {
        let next = events.next().await?;
        Some((next, events))
    }));
    let mut response = Response::new(body);
    let content_type = HeaderValue::from_static("text/event-stream; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

struct Events {
    answer: Answer,
    include_usage: bool,
    /// Tokens delivered.
    sent: u32,
    done: bool,
}

impl Events {
    /// The next delivery. An error cuts the connection, which is how a dying engine looks.
    async fn next(&mut self) -> Option<Result<Bytes, io::Error>> {
        if self.done {
            return None;
        }
        let sent = self.sent;
        let news = self.answer.progress.wait_for(|now| now.tokens > sent || now.finished.is_some()).await;
        let Ok(progress) = news.map(|news| *news) else {
            self.done = true;
            return Some(Err(io::Error::other("the engine stopped while it was answering")));
        };
        let Progress { tokens, finished, .. } = progress;
        let mut out = String::new();
        if self.sent == 0 && self.answer.flavour == Flavour::Chat {
            let opening = json!({ "role": "assistant", "content": "" });
            self.event(&mut out, &json!([self.chat_choice(&opening, None)]), None);
        }
        let text = words::text(self.answer.dice, self.sent, tokens);
        self.sent = tokens;
        let choice = match self.answer.flavour {
            Flavour::Completion => json!({
                "index": 0, "text": text, "logprobs": null, "finish_reason": finished, "stop_reason": null,
            }),
            Flavour::Chat => self.chat_choice(&json!({ "content": text }), finished),
        };
        self.event(&mut out, &json!([choice]), None);
        if finished.is_some() {
            self.done = true;
            if self.include_usage {
                self.event(&mut out, &json!([]), Some(self.answer.usage(progress)));
            }
            out.push_str("data: [DONE]\n\n");
        }
        Some(Ok(Bytes::from(out)))
    }

    fn chat_choice(&self, delta: &Value, finished: Option<FinishReason>) -> Value {
        json!({ "index": 0, "delta": delta, "logprobs": null, "finish_reason": finished })
    }

    fn event(&self, out: &mut String, choices: &Value, usage: Option<Value>) {
        let Answer { id, created, model, flavour, .. } = &self.answer;
        let mut chunk = json!({
            "id": id, "object": flavour.chunk_object(), "created": created, "model": model, "choices": choices,
        });
        if let Some(usage) = usage {
            chunk["usage"] = usage;
        }
        out.push_str("data: ");
        out.push_str(&chunk.to_string());
        out.push_str("\n\n");
    }
}

//! A client of the OpenAI streaming API: sends a prompt, reads to the end.

use std::{fmt::Write as _, net::SocketAddr, time::Duration};

use anyhow::{Context, bail};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tokio::time::timeout;

use crate::http::{Http, StatusCode};

/// Longest silence within an answer.
const SILENCE: Duration = Duration::from_secs(60);
/// Ids stay below this, as in a real vocabulary.
const VOCABULARY: u64 = 32_000;

/// One request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prompt {
    /// Makes the prompt different from every other: no prefix of it is in a cache.
    pub id: u64,
    /// ISL, exact since the prompt is sent as token ids.
    pub input_tokens: u32,
    /// OSL: the answer ends here.
    pub output_tokens: u32,
    /// This many tokens at the begin are the same in all prompts.
    pub shared_tokens: u32,
}

/// How an answer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What the server says the prompt had.
    pub prompt_tokens: u64,
    /// What the server says the answer has.
    pub output_tokens: u64,
    /// `stop` or `length`.
    pub finish_reason: String,
}

impl Prompt {
    fn body(&self, model: &str) -> String {
        let mut tokens = String::new();
        for at in 0..u64::from(self.input_tokens) {
            let id = match at.checked_sub(u64::from(self.shared_tokens)) {
                None => at,
                // The number itself, in as many digits as it takes, then a run that begins with it.
                Some(at @ 0..5) => self.id >> (at * 13) & 0x1fff,
                Some(at) => (self.id.wrapping_mul(31) + at) % VOCABULARY,
            };
            let comma = if at == 0 { "" } else { "," };
            // Writing to a string cannot fail.
            let _ = write!(tokens, "{comma}{id}");
        }
        format!(
            "{{\"model\":{},\"prompt\":[{tokens}],\"max_tokens\":{},\"stream\":true,\
             \"stream_options\":{{\"include_usage\":true}}}}",
            Value::from(model),
            self.output_tokens
        )
    }
}

/// Sends a prompt and reads the whole answer.
///
/// # Errors
/// When the server refuses, falls silent, or cuts the answer.
pub async fn complete(
    http: &Http,
    server: SocketAddr,
    model: &str,
    prompt: Prompt,
) -> anyhow::Result<Answer> {
    let mut events = Events::open(http, server, model, prompt).await?;
    let (mut usage, mut finish_reason) = (Value::Null, None);
    while let Some(event) = events.next().await? {
        if let Some(reason) = event["choices"][0]["finish_reason"].as_str() {
            finish_reason = Some(reason.to_owned());
        }
        if event["usage"].is_object() {
            usage = event["usage"].clone();
        }
    }
    let count =
        |key: &str| usage[key].as_u64().with_context(|| format!("{server}: no {key} in usage {usage}"));
    Ok(Answer {
        prompt_tokens: count("prompt_tokens")?,
        output_tokens: count("completion_tokens")?,
        finish_reason: finish_reason.with_context(|| format!("{server}: no finish_reason"))?,
    })
}

/// Sends a prompt, reads `events` deliveries of tokens and hangs up.
///
/// # Errors
/// When the server refuses, or the answer ends before.
pub async fn hang_up(
    http: &Http,
    server: SocketAddr,
    model: &str,
    prompt: Prompt,
    events: usize,
) -> anyhow::Result<()> {
    let mut answer = Events::open(http, server, model, prompt).await?;
    for _ in 0..events {
        answer.next().await?.with_context(|| format!("{server}: the answer ended before it was hung up"))?;
    }
    Ok(())
}

/// The events of a streamed answer.
struct Events {
    body: hyper::body::Incoming,
    text: Vec<u8>,
    server: SocketAddr,
}

impl Events {
    async fn open(http: &Http, server: SocketAddr, model: &str, prompt: Prompt) -> anyhow::Result<Self> {
        let response = http.post(server, "/v1/completions", prompt.body(model)).await?;
        let status = response.status();
        if status != StatusCode::OK {
            let body = timeout(SILENCE, response.into_body().collect()).await??.to_bytes();
            bail!("{server}: status {status}: {}", String::from_utf8_lossy(&body));
        }
        Ok(Self { body: response.into_body(), text: Vec::new(), server })
    }

    /// The next event; `None` after the last.
    async fn next(&mut self) -> anyhow::Result<Option<Value>> {
        loop {
            if let Some(end) = self.text.windows(2).position(|pair| pair == b"\n\n") {
                let event: Vec<u8> = self.text.drain(..end + 2).collect();
                let data = event.trim_ascii_end().strip_prefix(b"data: ").context("an event without data")?;
                return Ok(if data == b"[DONE]" { None } else { Some(serde_json::from_slice(data)?) });
            }
            let frame = timeout(SILENCE, self.body.frame()).await;
            let frame = frame.with_context(|| format!("{}: silent for {SILENCE:?}", self.server))?;
            let frame = frame.with_context(|| format!("{}: the answer was cut off", self.server))??;
            if let Ok(data) = frame.into_data() {
                self.text.extend_from_slice(&data);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(prompt: Prompt) -> Vec<u64> {
        let body: Value = serde_json::from_str(&prompt.body("m")).unwrap();
        body["prompt"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect()
    }

    #[test]
    fn prompts_have_their_length_and_share_only_what_they_should() {
        let prompt = |id| Prompt { id, input_tokens: 40, output_tokens: 3, shared_tokens: 16 };
        let (one, two) = (tokens(prompt(1)), tokens(prompt(2)));
        assert_eq!((one.len(), two.len()), (40, 40));
        assert_eq!(one[..16], two[..16]);
        assert_ne!(one[16], two[16]);
        let far = tokens(prompt(1 + (1 << 13)));
        assert_ne!(one[16..], far[16..]);
    }
}

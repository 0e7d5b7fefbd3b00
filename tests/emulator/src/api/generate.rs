//! `POST /v1/completions` and `POST /v1/chat/completions`.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::{
    Json,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::{
    api::{
        Api, LARGEST_BODY,
        error::ApiError,
        prompt::{self, Counted},
        stream::{self, Answer, Flavour},
        types::{Common, CompletionRequest},
    },
    config::Config,
    job::{FinishReason, Job},
    words::{self, mix, unit_interval},
};

/// What a completion has where the client names no limit.
const DEFAULT_COMPLETION_TOKENS: u32 = 16;

type Body = Result<Bytes, BytesRejection>;

pub(crate) async fn completions(State(api): State<Api>, headers: HeaderMap, body: Body) -> Response {
    answer(api, Flavour::Completion, &headers, body).await.unwrap_or_else(|error| error.into_response())
}

pub(crate) async fn chat_completions(State(api): State<Api>, headers: HeaderMap, body: Body) -> Response {
    answer(api, Flavour::Chat, &headers, body).await.unwrap_or_else(|error| error.into_response())
}

async fn answer(api: Api, flavour: Flavour, headers: &HeaderMap, body: Body) -> Result<Response, ApiError> {
    if api.is_draining() {
        return Err(ApiError::Unavailable("the engine is shutting down: try another replica".to_owned()));
    }
    let in_flight = api.enter();
    let body = body.map_err(|error| match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::TooLarge { limit: LARGEST_BODY },
        _ => ApiError::BadRequest { message: error.body_text(), param: None },
    })?;
    let common: Common = parse(&body)?;
    check(&common, &api.config)?;
    let counted = count(&body, flavour, &api.config)?;
    let (job, dice) = job(api.name_request(flavour, headers), &common, &counted, flavour, &api.config)?;
    let prompt_tokens = job.prompt_tokens;
    let id = job.name.clone();
    let ticket = api.driver.submit(job).await?;
    let answer = Answer {
        id,
        created: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        model: api.config.model.clone(),
        flavour,
        prompt_tokens,
        tells_cached: api.config.prompt_tokens_details,
        dice,
        progress: ticket.progress,
        in_flight,
    };
    if common.stream {
        let include_usage = common.stream_options.is_some_and(|options| options.include_usage);
        return Ok(stream::respond(answer, include_usage));
    }
    whole(answer).await
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| ApiError::BadRequest {
        message: format!("the body cannot be understood: {error}"),
        param: None,
    })
}

fn check(common: &Common, config: &Config) -> Result<(), ApiError> {
    if let Some(asked) = common.model.as_ref().filter(|asked| **asked != config.model) {
        let served = config.model.clone();
        return Err(ApiError::UnknownModel { asked: asked.chars().take(200).collect(), served });
    }
    if common.n.is_some_and(|n| n != 1) || common.best_of.is_some_and(|n| n != 1) {
        return Err(ApiError::bad(
            "n",
            "exactly one answer a request is given here: leave n and best_of out",
        ));
    }
    Ok(())
}

fn count(body: &[u8], flavour: Flavour, config: &Config) -> Result<Counted, ApiError> {
    let block_size = config.engine.block_size;
    match flavour {
        Flavour::Completion => {
            let request: CompletionRequest = parse(body)?;
            if request.echo {
                return Err(ApiError::bad("echo", "the prompt is not repeated here: leave echo out"));
            }
            prompt::of_completion(request.prompt, block_size)
        }
        Flavour::Chat => prompt::of_chat(&parse(body)?, block_size),
    }
}

/// The request for the engine, and the dice for its words.
fn job(
    name: String,
    common: &Common,
    counted: &Counted,
    flavour: Flavour,
    config: &Config,
) -> Result<(Job, u64), ApiError> {
    let longest = config.engine.max_model_len;
    let room = longest.saturating_sub(counted.tokens);
    let asked = common.max_completion_tokens.or(common.max_tokens);
    let max_tokens = asked.unwrap_or_else(|| match flavour {
        Flavour::Completion => DEFAULT_COMPLETION_TOKENS.min(room),
        Flavour::Chat => room,
    });
    if max_tokens > room || room == 0 {
        let prompt = counted.tokens;
        let message = format!(
            "the prompt has {prompt} tokens and {max_tokens} are to be generated, together above the model's context of \
             {longest}: shorten the prompt or lower max_tokens"
        );
        return Err(ApiError::bad("max_tokens", message));
    }
    if max_tokens == 0 {
        return Err(ApiError::bad("max_tokens", "max_tokens is 0: ask for at least one"));
    }
    let least = common.min_tokens.unwrap_or(0);
    if least > max_tokens {
        return Err(ApiError::bad(
            "min_tokens",
            format!("min_tokens {least} is above max_tokens {max_tokens}"),
        ));
    }
    let dice = mix(config.seed ^ mix(counted.hash ^ u64::from(max_tokens)));
    let output_tokens = if common.ignore_eos { max_tokens } else { stop_at(dice, max_tokens, least, config) };
    let chain = if config.prefix_caching { counted.chain.clone() } else { Vec::new() };
    let (prompt_tokens, streaming) = (counted.tokens, common.stream);
    Ok((Job { name, prompt_tokens, chain, max_tokens, output_tokens, streaming, probe: false }, dice))
}

/// Where an answer ends: for a share `stop_fraction` of all dice anywhere in 1..=`max_tokens`, evenly, for the others
/// at `max_tokens`.
fn stop_at(dice: u64, max_tokens: u32, least: u32, config: &Config) -> u32 {
    if unit_interval(mix(dice)) >= config.stop_fraction {
        return max_tokens;
    }
    let drawn = 1 + (mix(dice ^ 1) % u64::from(max_tokens)) as u32;
    drawn.max(least)
}

/// Waits for the last token and answers in one piece.
async fn whole(mut answer: Answer) -> Result<Response, ApiError> {
    let progress = answer.progress.wait_for(|progress| progress.finished.is_some()).await;
    let progress = progress.map_err(|_| ApiError::EngineStopped).map(|progress| *progress)?;
    let tokens = progress.tokens;
    let reason = progress.finished.unwrap_or(FinishReason::Length);
    let text = words::text(answer.dice, 0, tokens);
    let choice = match answer.flavour {
        Flavour::Completion => json!({
            "index": 0, "text": text, "logprobs": null, "finish_reason": reason, "stop_reason": null,
        }),
        Flavour::Chat => json!({
            "index": 0, "message": { "role": "assistant", "content": text }, "logprobs": null,
            "finish_reason": reason, "stop_reason": null,
        }),
    };
    let body = json!({
        "id": answer.id, "object": answer.flavour.object(), "created": answer.created, "model": answer.model,
        "choices": [choice], "usage": answer.usage(progress),
    });
    Ok(Json(body).into_response())
}

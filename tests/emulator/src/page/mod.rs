//! The metrics page of vLLM 0.32, family by family in its order.
//!
//! Numbers that the model knows are real; features that it does not have (speculative decoding, KV connectors,
//! multi-modal caches) show what an engine without them shows: zeros.

use plimsoll_engine::Micros;

use crate::{api::HttpStats, clock::Clock, config::Config, state::EngineState};

mod cache_config;
mod http;
mod process;
mod text;
mod vllm;

/// Writes the whole page.
pub(crate) fn render(config: &Config, clock: &Clock, state: &EngineState, http: &HttpStats) -> String {
    let created = clock.unix_seconds(Micros::ZERO);
    let mut page = text::Page::new();
    process::write(&mut page, created);
    vllm::write(&mut page, config, state, created);
    cache_config::write(&mut page, config);
    http::write(&mut page, http, clock);
    page.into_text()
}

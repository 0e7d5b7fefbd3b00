//! The metrics pages, one file an engine, family by family in its order.
//!
//! Numbers that the model knows are real; features that it does not have (speculative decoding, KV connectors,
//! multi-modal caches) show what an engine without them shows: zeros.

use plimsoll_engine::Micros;

use crate::{
    api::HttpStats,
    clock::Clock,
    config::Config,
    state::{EngineState, Shown},
};

mod cache_config;
mod http;
mod process;
mod sglang;
mod text;
mod trtllm;
mod vllm;

pub(crate) use process::cpu_seconds_of_this;

/// Writes the whole page.
pub(crate) fn render(config: &Config, clock: &Clock, state: &EngineState, http: &HttpStats) -> String {
    let mut page = text::Page::new();
    match &state.shown {
        Shown::Vllm(histograms) => {
            let created = clock.unix_seconds(Micros::ZERO);
            process::write(&mut page, created);
            vllm::write(&mut page, config, state, histograms, created);
            cache_config::write(&mut page, config);
            http::write(&mut page, http, clock);
        }
        Shown::Sglang(shown) => {
            let now = clock.now();
            sglang::write(&mut page, &sglang::Sight { config, state, shown, http, now });
        }
        Shown::Trtllm(shown) => trtllm::write(&mut page, config, shown),
    }
    page.into_text()
}

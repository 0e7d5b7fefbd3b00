//! What an engine is given when it starts.

use serde::{Deserialize, Serialize};

use crate::timing::{Timing, TimingError};

/// The limits within which the model's counters cannot overflow and its memory stays bounded.
mod limit {
    pub(super) const BLOCK_SIZE: u32 = 65_536;
    pub(super) const KV_BLOCKS: u32 = 1 << 28;
    pub(super) const SEQUENCES: u32 = 65_536;
    pub(super) const BATCHED_TOKENS: u32 = 1 << 24;
    pub(super) const MODEL_LEN: u32 = 1 << 28;
    pub(super) const WAITING: u32 = 1 << 26;
}

/// One engine's configuration, in the terms of its command line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineConfig {
    /// Tokens that one KV block holds, 1 to 65,536; engines use 16.
    pub block_size: u32,
    /// KV blocks that requests can hold, 1 to 2^28. An engine that keeps one block for itself has one more.
    pub kv_blocks: u32,
    /// Sequences that may run at once, 1 to 65,536.
    pub max_num_seqs: u32,
    /// Tokens that one iteration may compute, from `max_num_seqs` to 2^24.
    pub max_num_batched_tokens: u32,
    /// Prompt and output tokens that one request may have together; must fit the KV cache.
    pub max_model_len: u32,
    /// Requests that may wait; one more is refused. At most 2^26.
    pub max_waiting: u32,
    /// Whether a waiting request is admitted only when all that is known of it fits the free blocks, rather than its
    /// first chunk: what keeps chunked prefill from admitting more than it can finish. Engines default to true.
    pub reserve_full_prompt: bool,
    /// How long iterations take.
    pub timing: Timing,
}

/// Why a configuration cannot be run.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A number is outside its range.
    #[error("{name} is {value}: give a number from {least} to {most}")]
    OutOfRange {
        /// The setting's name.
        name: &'static str,
        /// What was given.
        value: u32,
        /// The least that is accepted.
        least: u32,
        /// The most that is accepted.
        most: u32,
    },
    /// A full batch of decodes would not fit one iteration.
    #[error(
        "max_num_batched_tokens is {tokens}, below max_num_seqs {seqs}: raise the first or lower the second"
    )]
    BudgetBelowSequences {
        /// The token budget.
        tokens: u32,
        /// The sequence limit.
        seqs: u32,
    },
    /// A request of the greatest length would never fit.
    #[error(
        "max_model_len is {max_model_len} but {kv_blocks} KV blocks of {block_size} hold {kv_tokens} tokens: lower \
         max_model_len or give more blocks"
    )]
    ModelLenExceedsKvCache {
        /// The greatest request length.
        max_model_len: u32,
        /// Blocks in the cache.
        kv_blocks: u32,
        /// Tokens in a block.
        block_size: u32,
        /// Tokens in the cache.
        kv_tokens: u64,
    },
    /// The iteration times make no sense.
    #[error(transparent)]
    Timing(#[from] TimingError),
}

impl EngineConfig {
    /// Checks every range and that the largest request allowed can run alone.
    ///
    /// # Errors
    /// The first setting that cannot be used, with what would be accepted.
    pub fn validate(&self) -> Result<(), ConfigError> {
        in_range("block_size", self.block_size, 1, limit::BLOCK_SIZE)?;
        in_range("kv_blocks", self.kv_blocks, 1, limit::KV_BLOCKS)?;
        in_range("max_num_seqs", self.max_num_seqs, 1, limit::SEQUENCES)?;
        in_range("max_num_batched_tokens", self.max_num_batched_tokens, 1, limit::BATCHED_TOKENS)?;
        in_range("max_model_len", self.max_model_len, 2, limit::MODEL_LEN)?;
        in_range("max_waiting", self.max_waiting, 1, limit::WAITING)?;
        if self.max_num_batched_tokens < self.max_num_seqs {
            return Err(ConfigError::BudgetBelowSequences {
                tokens: self.max_num_batched_tokens,
                seqs: self.max_num_seqs,
            });
        }
        if u64::from(self.max_model_len) > self.kv_tokens() {
            return Err(ConfigError::ModelLenExceedsKvCache {
                max_model_len: self.max_model_len,
                kv_blocks: self.kv_blocks,
                block_size: self.block_size,
                kv_tokens: self.kv_tokens(),
            });
        }
        Ok(self.timing.validate()?)
    }

    /// Tokens that the KV cache holds.
    #[must_use]
    pub fn kv_tokens(&self) -> u64 {
        u64::from(self.kv_blocks) * u64::from(self.block_size)
    }
}

fn in_range(name: &'static str, value: u32, least: u32, most: u32) -> Result<(), ConfigError> {
    if (least..=most).contains(&value) {
        Ok(())
    } else {
        Err(ConfigError::OutOfRange { name, value, least, most })
    }
}

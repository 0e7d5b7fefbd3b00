//! Engine profiles: a model on a machine, with its iteration times.

use serde::{Deserialize, Serialize};

use crate::{config::EngineConfig, timing::Timing};

/// The profiles that come with the crate; each says where its numbers are from.
const BUILT_IN: &str = include_str!("../profiles/engines.json");

/// One engine: a model on a kind and number of GPUs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// `model[-precision]-gpu[-backend]-tpN[-measured]`; vLLM where no backend is named, bf16 where no precision is.
    pub name: String,
    /// The model's name in the Hugging Face hub.
    pub model: String,
    /// The kind of GPU, in lower case: `h100`, `h200`, `b200`, `gb200`.
    pub gpu: String,
    /// GPUs that the engine occupies.
    pub gpus: u32,
    /// Where the numbers are from, and how good the fit is.
    pub source: String,
    /// Tokens that the KV cache of the whole engine holds.
    pub kv_tokens: u32,
    /// The longest request, tokens.
    pub max_model_len: u32,
    /// Bytes that one token's keys and values take, over all GPUs of the engine.
    pub kv_bytes_per_token: u64,
    /// Bytes of the weights, over all GPUs of the engine.
    pub weights_bytes: u64,
    /// Memory of one GPU, bytes.
    pub gpu_memory_bytes: u64,
    /// How long iterations take.
    pub timing: Timing,
}

/// Why there is no such profile.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProfileError {
    /// No profile of that name comes with the crate.
    #[error("no built-in engine profile is named {name:?}: choose one of {known}")]
    Unknown {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// A text that is no profile.
    #[error("not an engine profile: {0}")]
    Malformed(#[from] serde_json::Error),
}

impl Profile {
    /// The profile of that name among those that come with the crate.
    ///
    /// # Errors
    /// Names the known ones if there is none.
    pub fn built_in(name: &str) -> Result<Self, ProfileError> {
        let mut profiles = Self::all_built_in()?;
        if let Some(index) = profiles.iter().position(|profile| profile.name == name) {
            return Ok(profiles.swap_remove(index));
        }
        let known: Vec<String> = profiles.into_iter().map(|profile| profile.name).collect();
        Err(ProfileError::Unknown { name: name.to_owned(), known: known.join(", ") })
    }

    /// All profiles that come with the crate, by name.
    ///
    /// # Errors
    /// None in a tested build.
    pub fn all_built_in() -> Result<Vec<Self>, ProfileError> {
        Ok(serde_json::from_str(BUILT_IN)?)
    }

    /// Whether a name means a file or folder rather than a built-in profile: one with a `/`, or that ends in `.json` or
    /// `.npz`.
    #[must_use]
    pub fn names_file(name: &str) -> bool {
        let extension = std::path::Path::new(name).extension();
        let known = |end: &str| extension.is_some_and(|extension| extension.eq_ignore_ascii_case(end));
        name.contains('/') || known("json") || known("npz")
    }

    /// A profile from JSON text, in the form of the built-in ones.
    ///
    /// # Errors
    /// Says at which line the text stops being a profile.
    pub fn from_json(text: &str) -> Result<Self, ProfileError> {
        Ok(serde_json::from_str(text)?)
    }

    /// The engine of this profile at the limits that engines of its kind start with: blocks of 16 tokens, 8,192 tokens
    /// an iteration, 256 sequences. One block is the engine's own, as in vLLM.
    #[must_use]
    pub fn engine_config(&self) -> EngineConfig {
        let block_size = 16;
        let kv_blocks = (self.kv_tokens / block_size).saturating_sub(1).max(1);
        EngineConfig {
            block_size,
            kv_blocks,
            max_num_seqs: 256,
            max_num_batched_tokens: 8_192,
            max_model_len: self.max_model_len.min(kv_blocks.saturating_mul(block_size)),
            max_waiting: 1 << 20,
            reserve_full_prompt: true,
            timing: self.timing.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Engine;

    #[test]
    fn every_built_in_profile_runs() {
        let profiles = Profile::all_built_in().unwrap();
        assert!(profiles.len() > 20);
        for profile in &profiles {
            Engine::new(profile.engine_config()).unwrap_or_else(|error| panic!("{}: {error}", profile.name));
            assert!(!profile.source.is_empty());
            let weights_and_cache =
                profile.weights_bytes + profile.kv_bytes_per_token * u64::from(profile.kv_tokens);
            assert!(
                weights_and_cache < u64::from(profile.gpus) * profile.gpu_memory_bytes,
                "{}",
                profile.name
            );
        }
        assert!(profiles.is_sorted_by(|one, other| one.name < other.name));
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let error = Profile::built_in("gpt-9").unwrap_err().to_string();
        assert!(error.contains("gpt-9") && error.contains("qwen3-32b-h200-tp2"), "{error}");
    }
}

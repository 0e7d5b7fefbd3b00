//! The family whose labels tell how large the KV cache is.

use crate::{config::Config, page::text::Page};

/// Writes the one sample of `vllm:cache_config_info`.
pub(crate) fn write(page: &mut Page, config: &Config) {
    let name = "vllm:cache_config_info";
    let tokens = u64::from(config.num_gpu_blocks) * u64::from(config.engine.block_size);
    let block_size = config.engine.block_size.to_string();
    let concurrency = format!("{:?}", tokens as f64 / f64::from(config.engine.max_model_len));
    let bytes = tokens.saturating_mul(config.gpus.kv_bytes_per_token).to_string();
    let blocks = config.num_gpu_blocks.to_string();
    let overridden = if config.num_gpu_blocks_override { blocks.as_str() } else { "None" };
    let caching = if config.prefix_caching { "True" } else { "False" };
    let chosen_block_size = if config.engine.block_size == 16 { "False" } else { "True" };
    let size_tokens = tokens.to_string();
    let mut labels = vec![
        ("_block_size_resolved", "True"),
        ("block_size", &block_size),
        ("cache_dtype", "auto"),
        ("cache_hit_alignment_tokens", "None"),
        ("effective_attention_block_size", &block_size),
        ("enable_mamba_shared_prefix_checkpoint", "False"),
        ("enable_prefix_caching", caching),
        ("engine", "0"),
        ("gpu_memory_utilization", "0.92"),
        ("hash_block_size", "None"),
        ("is_attention_free", "False"),
        ("kv_cache_dtype_skip_layers", "[]"),
        ("kv_cache_layout", "None"),
        ("kv_cache_max_concurrency", &concurrency),
        ("kv_cache_memory_bytes", &bytes),
        ("kv_cache_size_tokens", &size_tokens),
        ("kv_offloading_backend", "native"),
        ("kv_offloading_size", "None"),
        ("kv_sharing_fast_prefill", "False"),
        ("mamba_block_size", "None"),
        ("mamba_cache_dtype", "auto"),
        ("mamba_cache_mode", "none"),
        ("mamba_page_size_padded", "None"),
        ("mamba_ssm_cache_dtype", "float32"),
        ("num_cpu_blocks", "None"),
        ("num_gpu_blocks", &blocks),
        ("num_gpu_blocks_override", overridden),
        ("prefix_cache_retention_interval", "0"),
        ("prefix_caching_hash_algo", "sha256"),
        ("prefix_match_unit", "None"),
        ("replayssm_buffer_len", "16"),
        ("skip_page_size_padded", "None"),
        ("sliding_window", "None"),
        ("swa_bounded_replay", "True"),
        ("use_kda_recoverssm", "False"),
        ("use_replayssm", "False"),
        ("user_specified_block_size", chosen_block_size),
    ];
    if !config.version.at_least(0, 8, 0) {
        labels.retain(|(label, _)| *label != "engine");
    }
    page.family(name, "gauge", "The KV cache's configuration, in labels.");
    page.sample(name, &labels, 1.0);
}

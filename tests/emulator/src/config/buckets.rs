//! Histogram bounds other than the engine's own.

use serde::Deserialize;

use crate::{args::Args, config::ConfigError};

/// Most bounds that a histogram may have.
const MOST_BOUNDS: usize = 1_000;

/// Histogram bounds by the names that vLLM gives them, seconds, ascending.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CustomBuckets {
    /// Of TTFT.
    pub time_to_first_token: Option<Vec<f64>>,
    /// Of ITL and of the time per output token of a request.
    pub inter_token_latency: Option<Vec<f64>>,
    /// Of e2e, queue, inference, prefill and decode time; in SGLang of e2e time alone.
    pub request_latency: Option<Vec<f64>>,
}

impl CustomBuckets {
    pub(crate) fn from_args(args: &Args) -> Result<Self, ConfigError> {
        if let Some(text) = &args.custom_histogram_buckets {
            let malformed = |reason| ConfigError::Malformed { option: "custom-histogram-buckets", reason };
            let buckets: Self = serde_json::from_str(text).map_err(|error| malformed(error.to_string()))?;
            buckets.check().map_err(malformed)?;
            return Ok(buckets);
        }
        let given = |bounds: &Vec<f64>| (!bounds.is_empty()).then(|| bounds.clone());
        let buckets = Self {
            time_to_first_token: given(&args.bucket_time_to_first_token),
            inter_token_latency: given(&args.bucket_inter_token_latency),
            request_latency: given(&args.bucket_e2e_request_latency),
        };
        let malformed = |reason| ConfigError::Malformed { option: "bucket-...", reason };
        buckets.check().map_err(malformed)?;
        Ok(buckets)
    }

    /// Says what is wrong with the bounds.
    pub(crate) fn check(&self) -> Result<(), String> {
        for bounds in [&self.time_to_first_token, &self.inter_token_latency, &self.request_latency] {
            let Some(bounds) = bounds else { continue };
            let ascending =
                bounds.iter().all(|bound| bound.is_finite()) && bounds.is_sorted_by(|one, two| one < two);
            if bounds.is_empty() || bounds.len() > MOST_BOUNDS || !ascending {
                return Err(format!(
                    "give 1 to {MOST_BOUNDS} finite bounds in seconds, each above the one before"
                ));
            }
        }
        Ok(())
    }
}

//! The policy by which the planner advises, from the plan.

use serde_json::{Value, json};

use crate::plan::{ModelPlan, Plan};

/// Between two steps of the planner, seconds.
const INTERVAL_S: u32 = 1;
/// How many per cent of the requests are to keep the promises.
pub const PERCENTILE: u32 = 95;

/// A policy (JSON is YAML) of a pool for each model and profile.
#[must_use]
pub fn policy(plan: &Plan) -> String {
    let models: Vec<Value> = plan.models.iter().map(|model| of_model(plan, model)).collect();
    json!({ "interval": format!("{INTERVAL_S}s"), "models": models }).to_string()
}

fn of_model(plan: &Plan, model: &ModelPlan) -> Value {
    let replicas = plan.nodes.iter().flat_map(|node| &node.replicas);
    let mut profiles: Vec<&str> =
        replicas.filter(|replica| replica.model == model.name).map(|replica| replica.profile).collect();
    profiles.sort_unstable();
    profiles.dedup();
    let scaling = &plan.scaling;
    let pools: Vec<Value> = profiles
        .into_iter()
        .map(|profile| {
            let mut pool = json!({
                "name": profile,
                "profile": profile,
                "min": scaling.bounds.0,
                "max": scaling.bounds.1,
                "startUp": format!("{}s", scaling.start_up_s.max(1) + 1),
            });
            if let Some(max_num_seqs) = scaling.max_num_seqs {
                pool["engine"] = json!({ "maxNumSeqs": max_num_seqs });
            }
            if let Some(keep_s) = scaling.keep_s {
                pool["behavior"] = json!({ "scaleDown": { "stabilizationWindowSeconds": keep_s } });
            }
            pool
        })
        .collect();
    let limit = |ms: u32| json!({ "limit": format!("{ms}ms"), "percentile": PERCENTILE });
    json!({
        "name": model.name,
        "slo": { "ttft": limit(model.ttft_ms), "itl": limit(model.itl_ms) },
        "pools": pools,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_of_a_model_is_a_pool() {
        let policy: Value = serde_json::from_str(&policy(&Plan::new(2))).unwrap();
        let pools = |model: usize| -> Vec<&str> {
            let pools = policy["models"][model]["pools"].as_array().unwrap();
            pools.iter().map(|pool| pool["name"].as_str().unwrap()).collect()
        };
        assert_eq!(pools(0), ["llama-3.1-8b-h100-tp1", "llama-3.1-8b-h200-tp1"]);
        assert_eq!(pools(1), ["qwen3-32b-h200-tp2"]);
        assert_eq!(policy["models"][0]["slo"]["ttft"]["limit"], "500ms");
    }
}

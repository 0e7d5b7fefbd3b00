//! Which nodes, engines and models there are, as data.

use plimsoll_tests::workload::Lengths;

/// The most nodes that one machine plays.
pub const MOST_NODES: u32 = 16;

/// Everything that runs, save the planner.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The nodes.
    pub nodes: Vec<NodePlan>,
    /// The models that have a replica.
    pub models: Vec<ModelPlan>,
    /// What may come of them, and how they start.
    pub scaling: Scaling,
}

/// How pools may be scaled, and how their engines start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scaling {
    /// The fewest and the most replicas of a pool.
    pub bounds: (u32, u32),
    /// How long an engine takes to start, seconds.
    pub start_up_s: u32,
    /// The most sequences that run in an engine at once; the profile's where it is not given.
    pub max_num_seqs: Option<u32>,
    /// How long what was wanted is kept, seconds; the policy's default where it is not given.
    pub keep_s: Option<u32>,
}

impl Scaling {
    /// Nothing is scaled: engines are there at once.
    const NONE: Self = Self { bounds: (1, 8), start_up_s: 0, max_num_seqs: None, keep_s: None };
    /// Small engines that a machine of two cores can play several of, and that start as fast as is worth watching.
    const ACT: Self = Self { bounds: (2, 6), start_up_s: 4, max_num_seqs: Some(6), keep_s: Some(20) };
}

/// A node: one agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodePlan {
    /// Its name.
    pub name: String,
    /// Which machine fake-nvml plays.
    pub scenario: &'static str,
    /// The engines on it.
    pub replicas: Vec<ReplicaPlan>,
}

/// An engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaPlan {
    /// Its name, unique over the nodes.
    pub name: String,
    /// The model it serves.
    pub model: &'static str,
    /// The emulator's profile, after which its pool is named.
    pub profile: &'static str,
    /// Indexes of its GPUs on the node.
    pub gpus: Vec<usize>,
}

/// A model and what is asked of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ModelPlan {
    /// Its name.
    pub name: &'static str,
    /// Its share of all requests, 0 to 1.
    pub share: f64,
    /// ISL.
    pub input: Lengths,
    /// OSL.
    pub output: Lengths,
    /// The longest time to first token that is promised, milliseconds.
    pub ttft_ms: u32,
    /// The longest mean time between tokens that is promised, milliseconds.
    pub itl_ms: u32,
}

const LLAMA: ModelPlan = ModelPlan {
    name: "llama-3.1-8b",
    share: 0.75,
    input: Lengths { median: 500.0, sigma: 1.0, least: 8, most: 8000 },
    output: Lengths { median: 120.0, sigma: 0.7, least: 4, most: 600 },
    ttft_ms: 500,
    itl_ms: 30,
};
const QWEN: ModelPlan = ModelPlan {
    name: "qwen3-32b",
    share: 0.25,
    input: Lengths { median: 1000.0, sigma: 0.9, least: 16, most: 12_000 },
    output: Lengths { median: 160.0, sigma: 0.6, least: 8, most: 500 },
    ttft_ms: 2000,
    itl_ms: 40,
};

/// An engine before it has a name: model, profile, GPUs.
type Slot = (&'static str, &'static str, &'static [usize]);

const HGX: (&str, &[Slot]) = (
    "hgx-h100-8",
    &[(LLAMA.name, "llama-3.1-8b-h100-tp1", &[0]), (LLAMA.name, "llama-3.1-8b-h100-tp1", &[1])],
);
const TRAY: (&str, &[Slot]) = (
    "gb200-tray",
    &[(LLAMA.name, "llama-3.1-8b-h200-tp1", &[0]), (QWEN.name, "qwen3-32b-h200-tp2", &[1, 2])],
);

impl Plan {
    /// So many nodes, boards and trays by turns.
    #[must_use]
    pub fn new(nodes: u32) -> Self {
        let nodes: Vec<NodePlan> =
            ('a'..).zip(0..nodes.min(MOST_NODES)).map(|(letter, at)| node(letter, at)).collect();
        let served = |model: &ModelPlan| {
            nodes.iter().flat_map(|node| &node.replicas).any(|replica| replica.model == model.name)
        };
        let mut models: Vec<ModelPlan> = [LLAMA, QWEN].into_iter().filter(served).collect();
        let shares: f64 = models.iter().map(|model| model.share).sum();
        models.iter_mut().for_each(|model| model.share /= shares);
        Self { nodes, models, scaling: Scaling::NONE }
    }

    /// One board with two replicas, and room for others.
    #[must_use]
    pub fn to_act() -> Self {
        let mut plan = Self::new(1);
        // Engines of six requests at a time queue early: a second for the first token is what they can keep.
        plan.models.iter_mut().for_each(|model| model.ttft_ms = 1_000);
        Self { scaling: Scaling::ACT, ..plan }
    }

    /// The same replica once more, on another GPU.
    #[must_use]
    pub fn another(of: &ReplicaPlan, number: u32, gpu: usize) -> ReplicaPlan {
        let name = of.name.trim_end_matches(|c: char| c.is_ascii_digit());
        ReplicaPlan { name: format!("{name}{number}"), gpus: vec![gpu], ..of.clone() }
    }
}

fn node(letter: char, at: u32) -> NodePlan {
    let (scenario, slots) = if at.is_multiple_of(2) { HGX } else { TRAY };
    let replicas = slots.iter().zip(0..).map(|((model, profile, gpus), place)| ReplicaPlan {
        name: format!("{}-{letter}{place}", model.split('-').next().unwrap_or(model).trim_end_matches('3')),
        model,
        profile,
        gpus: gpus.to_vec(),
    });
    NodePlan { name: format!("node-{letter}"), scenario, replicas: replicas.collect() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn two_nodes_serve_two_models() {
        let plan = Plan::new(2);
        let replicas: Vec<_> =
            plan.nodes.iter().flat_map(|node| &node.replicas).map(|r| r.name.as_str()).collect();
        assert_eq!(replicas, ["llama-a0", "llama-a1", "llama-b0", "qwen-b1"]);
        assert_eq!(plan.models, [LLAMA, QWEN]);
    }

    #[test]
    fn one_node_serves_one_model_with_all_requests() {
        let plan = Plan::new(1);
        assert_eq!(plan.models, [ModelPlan { share: 1.0, ..LLAMA }]);
    }

    #[test]
    fn names_are_unique_and_gpus_are_not_shared() {
        let plan = Plan::new(MOST_NODES);
        let names: BTreeSet<_> =
            plan.nodes.iter().flat_map(|n| &n.replicas).map(|replica| &replica.name).collect();
        assert_eq!(names.len(), plan.nodes.iter().map(|node| node.replicas.len()).sum::<usize>());
        for node in &plan.nodes {
            let gpus: Vec<_> = node.replicas.iter().flat_map(|replica| &replica.gpus).collect();
            assert_eq!(gpus.iter().collect::<BTreeSet<_>>().len(), gpus.len());
        }
    }
}

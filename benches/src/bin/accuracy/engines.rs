//! The bounds that engines publish by default.

use plimsoll_common::engine::DistributionKind;

const VLLM_TTFT: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0,
    80.0, 160.0, 640.0, 2560.0,
];
const VLLM_TOKEN: &[f64] = &[
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
];
const VLLM_REQUEST: &[f64] = &[
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0,
    960.0, 1920.0, 7680.0,
];
const TRTLLM_PREFILL: &[f64] = &[
    0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0,
    2560.0,
];
const SGLANG_TTFT: &[f64] =
    &[0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 20.0, 40.0, 60.0, 80.0, 100.0, 200.0, 400.0];
const SGLANG_TOKEN: &[f64] = &[
    0.002, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.025, 0.03, 0.035, 0.04, 0.06, 0.08, 0.1, 0.2, 0.4, 0.6,
    0.8, 1.0, 2.0, 4.0, 6.0, 8.0,
];
const SGLANG_E2E: &[f64] = &[
    0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 20.0, 40.0, 60.0, 80.0, 100.0, 200.0, 400.0,
    600.0, 1200.0, 1800.0, 2400.0,
];
const SGLANG_QUEUE: &[f64] = &[
    0.0, 0.001, 0.005, 0.01, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0,
    50.0, 60.0, 70.0, 80.0, 90.0, 100.0, 200.0, 300.0, 400.0, 500.0, 600.0, 700.0, 800.0, 900.0, 1000.0,
    1200.0, 1400.0, 1600.0, 1800.0, 2000.0, 2500.0, 3000.0,
];

/// The bounds of one engine.
#[derive(Debug)]
pub(crate) struct Layouts {
    /// The engine's name in the tables.
    pub(crate) name: &'static str,
    of: fn(DistributionKind) -> Option<Vec<f64>>,
}

/// All of them; the last is what an operator can set on vLLM and SGLang.
pub(crate) const ALL: &[Layouts] = &[
    Layouts { name: "vLLM", of: vllm },
    Layouts { name: "SGLang", of: sglang },
    Layouts { name: "TensorRT-LLM", of: trtllm },
    Layouts { name: "1.1-ratio", of: ratio },
];

impl Layouts {
    /// The bounds of a family, seconds; `None` where the engine has no such family.
    pub(crate) fn edges(&self, kind: DistributionKind) -> Option<Vec<f64>> {
        (self.of)(kind)
    }
}

fn vllm(kind: DistributionKind) -> Option<Vec<f64>> {
    Some(match kind {
        DistributionKind::Ttft => VLLM_TTFT.to_vec(),
        DistributionKind::ItlStep | DistributionKind::Tpot => VLLM_TOKEN.to_vec(),
        _ => VLLM_REQUEST.to_vec(),
    })
}

/// SGLang's ITL has a sample a token; in an engine without speculation a step is a token.
fn sglang(kind: DistributionKind) -> Option<Vec<f64>> {
    Some(match kind {
        DistributionKind::Ttft => SGLANG_TTFT.to_vec(),
        DistributionKind::ItlStep | DistributionKind::Tpot => SGLANG_TOKEN.to_vec(),
        DistributionKind::E2e => SGLANG_E2E.to_vec(),
        DistributionKind::Queue => SGLANG_QUEUE.to_vec(),
        _ => return None,
    })
}

fn trtllm(kind: DistributionKind) -> Option<Vec<f64>> {
    Some(match kind {
        DistributionKind::Ttft => VLLM_TTFT.to_vec(),
        DistributionKind::ItlStep => return None,
        DistributionKind::Tpot => VLLM_TOKEN.to_vec(),
        DistributionKind::Prefill => TRTLLM_PREFILL.to_vec(),
        _ => VLLM_REQUEST.to_vec(),
    })
}

/// Bounds from 1 ms to 640 s, each 10 % above the one before: 141 of them.
fn ratio(_: DistributionKind) -> Option<Vec<f64>> {
    let bounds = std::iter::successors(Some(0.001), |bound| Some(bound * 1.1));
    Some(bounds.take_while(|bound| *bound < 700.0).collect())
}

//! Whose page this is, by the names on it.

use plimsoll_common::engine::EngineKind;

/// Names of TensorRT-LLM from 1.0 to 1.2, which carry no prefix. Other software may have such names, so that they need
/// a label of the engine's, too.
const BARE: [&[u8]; 3] =
    [b"request_success_total{", b"e2e_request_latency_seconds_", b"request_queue_time_seconds_"];

/// The kinds of pages whose families stand on a page, in the order of [`EngineKind::ALL`]: the first engine is the
/// page's own, and what a Dynamo worker adds to it comes on top.
pub(super) fn kinds(page: &[u8]) -> Vec<EngineKind> {
    let mut seen = [false; EngineKind::ALL.len()];
    let mut rest = page;
    while !rest.is_empty() {
        let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
        if let Some(kind) = kind_of(&rest[..end])
            && let Some(at) = EngineKind::ALL.iter().position(|known| *known == kind)
        {
            seen[at] = true;
        }
        rest = rest.get(end + 1..).unwrap_or_default();
    }
    EngineKind::ALL.iter().zip(seen).filter_map(|(kind, seen)| seen.then_some(*kind)).collect()
}

/// Whose family a line is of.
fn kind_of(line: &[u8]) -> Option<EngineKind> {
    const PREFIXES: [(&[u8], EngineKind); 8] = [
        (b"vllm:", EngineKind::Vllm),
        (b"sglang:", EngineKind::Sglang),
        (b"trtllm_", EngineKind::TensorRtLlm),
        (b"trtllm:", EngineKind::TensorRtLlm),
        (b"nv_trt_llm_", EngineKind::Triton),
        (b"dynamo_frontend_", EngineKind::DynamoFrontend),
        (b"dynamo_work_handler_", EngineKind::DynamoWorker),
        (b"dynamo_component_requests_total", EngineKind::DynamoWorker),
    ];
    let name = line.strip_prefix(b"# TYPE ").unwrap_or(line);
    let known = PREFIXES.iter().find(|(prefix, _)| name.starts_with(prefix)).map(|(_, kind)| *kind);
    known.or_else(|| {
        let bare = BARE.iter().any(|bare| name.starts_with(bare));
        let labelled = || memchr::memmem::find(name, b"model_name=\"").is_some();
        (bare && labelled()).then_some(EngineKind::TensorRtLlm)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_engine_wins_and_the_worker_adds() {
        let page = b"# TYPE dynamo_work_handler_queue_depth gauge\ndynamo_work_handler_queue_depth 0\n\
                     # HELP sglang:x text\n# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running 1";
        assert_eq!(kinds(page), [EngineKind::Vllm, EngineKind::DynamoWorker]);
        assert_eq!(kinds(b"sglang:num_running_reqs 1\n"), [EngineKind::Sglang]);
        assert_eq!(kinds(b"trtllm_x 1\ntrtllm:y 1"), [EngineKind::TensorRtLlm]);
        assert_eq!(kinds(b""), []);
        assert_eq!(kinds(b"\n\n\xff\n"), []);
    }

    #[test]
    fn names_without_a_prefix_need_the_engines_label() {
        assert_eq!(kinds(b"request_success_total{reason=\"x\"} 3"), []);
        let page = b"request_success_total{model_name=\"undefined\",finished_reason=\"stop\"} 3";
        assert_eq!(kinds(page), [EngineKind::TensorRtLlm]);
        assert_eq!(
            kinds(b"e2e_request_latency_seconds_count{model_name=\"m\"} 3"),
            [EngineKind::TensorRtLlm]
        );
    }
}

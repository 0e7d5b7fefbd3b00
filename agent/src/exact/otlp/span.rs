//! One span: whether it is a request's, and what it tells.

use super::v1::{NumberAttribute, Resource, Span, number_value::Number};
use crate::exact::record::RequestRecord;

/// The resource attributes that name an engine, the narrower first.
const SERVICE_ATTRIBUTES: [&str; 2] = ["service.instance.id", "service.name"];

/// The names under which a process may be known, the narrowest first.
pub(super) fn services(resource: Option<&Resource>) -> impl Iterator<Item = &str> {
    SERVICE_ATTRIBUTES.into_iter().filter_map(move |wanted| {
        let attributes = resource.map(|resource| resource.attributes.as_slice()).unwrap_or_default();
        let found = attributes.iter().rev().find(|attribute| attribute.key == wanted)?;
        found.value.as_ref().map(|value| value.text.as_str())
    })
}

/// The record of a request, in the words of OpenTelemetry's conventions for generative AI as vLLM uses them; `None` for
/// a span that is none.
///
/// SGLang's spans carry some of the names too, but without the time in the queue, which its prefill and inference times
/// include: of such a span those two are left out.
pub(super) fn request(span: &Span) -> Option<RequestRecord> {
    let number = |name: &str| {
        let attribute = span.attributes.iter().rev().find(|attribute| attribute.key == name)?;
        value(attribute)
    };
    let seconds = |name: &str| {
        number(name).map(|number| match number {
            Number::Whole(whole) => whole as f64,
            Number::Real(real) => real,
        })
    };
    let tokens = |name: &str| {
        number(name).map(|number| match number {
            // What is no number of tokens is beyond belief, and counted as that.
            Number::Whole(whole) => u64::try_from(whole).unwrap_or(u64::MAX),
            Number::Real(_) => u64::MAX,
        })
    };
    let (ttft, e2e) = (seconds("gen_ai.latency.time_to_first_token"), seconds("gen_ai.latency.e2e"));
    if ttft.is_none() && e2e.is_none() {
        return None;
    }
    let queue = seconds("gen_ai.latency.time_in_queue");
    Some(RequestRecord {
        ttft,
        e2e,
        queue,
        prefill: seconds("gen_ai.latency.time_in_model_prefill").filter(|_| queue.is_some()),
        decode: seconds("gen_ai.latency.time_in_model_decode"),
        inference: seconds("gen_ai.latency.time_in_model_inference").filter(|_| queue.is_some()),
        prompt_tokens: tokens("gen_ai.usage.prompt_tokens"),
        generated_tokens: tokens("gen_ai.usage.completion_tokens"),
    })
}

fn value(attribute: &NumberAttribute) -> Option<Number> {
    attribute.value.and_then(|value| value.number)
}

/// A span's id, which is eight bytes; `None` for one without.
pub(super) fn id(span: &Span) -> Option<u64> {
    let bytes: [u8; 8] = span.span_id.as_slice().try_into().ok()?;
    Some(u64::from_be_bytes(bytes)).filter(|id| *id != 0)
}

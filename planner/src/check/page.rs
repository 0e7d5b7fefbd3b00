//! A policy's promises against the buckets of an engine's metrics page.

use std::{fmt, time::Duration};

use anyhow::{Context as _, bail};
use hyper::Uri;
use plimsoll_core::policy::{ModelPolicy, Policy};
use plimsoll_pages::{
    EnginePage,
    exposition::Limits,
    read_page,
    slo::{Buckets, Slo, edges_of},
};
use serde::Serialize;

use crate::http_get::get;

/// An engine that does not answer within this does not answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How a model's promises fit the buckets of a page.
#[derive(Debug, Serialize)]
pub struct PageAdvice {
    /// Where the page is from.
    pub page: String,
    /// Which software's page it is.
    pub engine: String,
    /// The policy's model.
    pub model: String,
    /// One for each limit.
    pub limits: Vec<LimitAdvice>,
}

/// How one limit fits.
#[derive(Debug, Serialize)]
pub struct LimitAdvice {
    /// `ttft` or `itl`.
    pub metric: &'static str,
    /// The limit.
    pub limit_s: f64,
    /// Whether it is an edge of the page's buckets, so that attainment can be counted exactly.
    pub is_edge: bool,
    /// The same in words.
    pub text: String,
    /// How to start the engine so that it is one.
    pub flag: Option<String>,
    /// Where that belongs.
    pub flag_for: Option<&'static str>,
}

impl PageAdvice {
    /// Whether a limit is no edge.
    pub(super) fn has_remarks(&self) -> bool {
        self.limits.iter().any(|limit| !limit.is_edge)
    }
}

impl fmt::Display for PageAdvice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} ({}) for {}:", self.page, self.engine, self.model)?;
        for limit in &self.limits {
            writeln!(f, "  {}", limit.text)?;
        }
        if self.limits.is_empty() {
            writeln!(f, "  the model promises no latency that a page could tell")?;
        }
        Ok(())
    }
}

/// Reads a page from a file or by HTTP and holds the promises of its model against it.
///
/// # Errors
/// When the page can't be had or is no engine's, or when the policy does not have its model.
pub(super) fn advise(policy: &Policy, page: &str, model: Option<&str>) -> anyhow::Result<PageAdvice> {
    let bytes = fetch(page)?;
    let read = read_page(None, &bytes, Limits::default()).with_context(|| format!("--page {page}"))?;
    let model = model_of(policy, &read, model)?;
    let Some(kind) = read.kind else { bail!("--page {page}: it does not tell whose page it is") };
    let slo = model.slo();
    let promised = Slo {
        percentile: model.slo.goal(),
        ttft: slo.and_then(|slo| slo.ttft),
        itl: slo.and_then(|slo| slo.itl),
        tpot: None,
        e2e: None,
    };
    let limits = edges_of(&promised, kind, &Buckets::of(&read)).into_iter().map(|edge| LimitAdvice {
        metric: edge.metric.as_str(),
        limit_s: edge.limit.as_secs_f64(),
        is_edge: edge.is_edge,
        text: edge.to_string(),
        flag: edge.flag.as_ref().map(|flag| flag.text.clone()),
        flag_for: edge.flag.as_ref().map(|flag| flag.place),
    });
    Ok(PageAdvice {
        page: page.to_owned(),
        engine: kind.to_string(),
        model: model.name.to_string(),
        limits: limits.collect(),
    })
}

/// The model by its name: the one given, the page's own, or the only one.
fn model_of<'p>(
    policy: &'p Policy,
    page: &EnginePage,
    given: Option<&str>,
) -> anyhow::Result<&'p ModelPolicy> {
    let named = |name: &str| policy.models.iter().find(|model| model.name.as_str() == name);
    let known = || policy.models.iter().map(|model| model.name.as_str()).collect::<Vec<_>>().join(", ");
    if let Some(name) = given {
        return named(name).with_context(|| format!("--model {name}: the policy has {}", known()));
    }
    if let Some(found) = page.model.as_ref().and_then(|model| named(model.as_str())) {
        return Ok(found);
    }
    if let [only] = &policy.models[..] {
        return Ok(only);
    }
    let told = page.model.as_ref().map_or_else(|| "tells no model".to_owned(), |m| format!("is of {m}"));
    bail!("the page {told}; give --model with one of {}", known())
}

fn fetch(page: &str) -> anyhow::Result<Vec<u8>> {
    if page.starts_with("https://") {
        bail!(
            "--page {page}: only http:// is read; save the page (curl -o page.txt {page}) and give the file"
        );
    }
    if !page.starts_with("http://") {
        let length = std::fs::metadata(page).with_context(|| format!("--page {page}"))?.len();
        if length > Limits::default().page_bytes as u64 {
            bail!("--page {page}: {length} bytes are no metrics page");
        }
        return std::fs::read(page).with_context(|| format!("--page {page}"));
    }
    let uri: Uri = page.parse().with_context(|| format!("--page {page}"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime
        .block_on(async { tokio::time::timeout(PATIENCE, get(uri)).await })
        .with_context(|| format!("--page {page}: no answer within {} s", PATIENCE.as_secs()))?
        .with_context(|| format!("--page {page}"))
}

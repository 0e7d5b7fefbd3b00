//! The JSON API.

use axum::{
    Router,
    extract::{Path, Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use base64::Engine as _;
use plimsoll_common::{
    engine::DistributionKind,
    histogram::LatencyHistogram,
    ids::{EngineId, ModelName, NodeName},
};
use plimsoll_core::fleet::{
    Detail, DistributionKey, EngineDetail, EngineRow, ModelRow, PoolRow, Source, Window, WindowSummaries,
};
use plimsoll_shell::http::ApiError;
use serde::{Deserialize, Serialize, Serializer, ser::SerializeMap};
use serde_json::json;

use super::{Pages, advice, off_the_loop};
use crate::drive::{Published, Question};

/// How many engines are shown with their windows at a time.
const MAX_DETAILED: usize = 256;
/// How many existing names a 404 tells.
const MAX_NAMED: usize = 10;

pub(super) fn router() -> Router<Pages> {
    Router::new()
        .route("/fleet", get(fleet))
        .route("/plan", get(advice::plan))
        .route("/nodes", get(nodes))
        .route("/agents", get(agents))
        .route("/gpus", get(gpus))
        .route("/gpus/{uuid}", get(gpu))
        .route("/engines", get(engines))
        .route("/engines/{node}/{id}", get(engine))
        .route("/pools", get(pools))
        .route("/models", get(models))
        .route("/models/{model}", get(model))
        .route("/models/{model}/histograms/{distribution}", get(histogram))
}

/// What may stand behind the question mark.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Filter {
    /// Only this window: `10s`, `1m` or `5m`.
    window: Option<String>,
    /// Only what is on this node.
    node: Option<String>,
    /// Only what serves this model.
    model: Option<String>,
    /// Only what belongs to this pool.
    pool: Option<String>,
    /// How a histogram is written.
    encoding: Option<String>,
}

type Filtered = Result<Query<Filter>, axum::extract::rejection::QueryRejection>;

fn filter(query: Filtered) -> Result<Filter, ApiError> {
    query.map(|Query(filter)| filter).map_err(|error| {
        ApiError::bad_request(
            error.body_text(),
            "known are ?window=10s|1m|5m, ?node=, ?model=, ?pool= and, for histograms, ?encoding=base64|bytes",
        )
    })
}

impl Filter {
    fn window(&self) -> Result<Option<Window>, ApiError> {
        let Some(name) = &self.window else { return Ok(None) };
        Window::parse(name).map(Some).ok_or_else(|| {
            let known: Vec<_> = Window::ALL.iter().map(|window| window.as_str()).collect();
            ApiError::bad_request(
                format!("there is no window '{name}'"),
                format!("there are {}", known.join(", ")),
            )
        })
    }

    fn takes_node(&self, node: &NodeName) -> bool {
        self.node.as_ref().is_none_or(|wanted| wanted == node.as_str())
    }

    fn takes_engine(&self, row: &EngineRow) -> bool {
        let key = &row.identity.pool;
        self.takes_node(&row.node)
            && self
                .model
                .as_ref()
                .is_none_or(|wanted| key.model.as_ref().is_some_and(|m| m.as_str() == wanted))
            && self.pool.as_ref().is_none_or(|wanted| *wanted == key.to_string())
    }
}

/// A JSON object of `at_unix_seconds` and one more key, written off the event loop from what `pick` makes of what is
/// seen.
async fn list<T: Serialize>(
    pages: Pages,
    detail: Detail,
    name: &'static str,
    pick: impl FnOnce(&Published) -> T + Send + 'static,
) -> Result<Response, ApiError> {
    let shown = pages.shown(detail).await?;
    let written = off_the_loop(move || {
        let at = shown.snapshot.at.as_secs_f64();
        serde_json::to_vec(&Listed { at, name, picked: pick(&shown) })
    });
    json_bytes(written.await?)
}

struct Listed<T> {
    at: f64,
    name: &'static str,
    picked: T,
}

impl<T: Serialize> Serialize for Listed<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("at_unix_seconds", &self.at)?;
        map.serialize_entry(self.name, &self.picked)?;
        map.end()
    }
}

pub(super) fn json_bytes(written: serde_json::Result<Vec<u8>>) -> Result<Response, ApiError> {
    let bytes = written.map_err(|error| ApiError {
        status: StatusCode::INTERNAL_SERVER_ERROR,
        error: format!("the answer can't be written: {error}"),
        hint: "this is a bug of the planner, please report it".to_owned(),
    })?;
    Ok(([(header::CONTENT_TYPE, "application/json")], bytes).into_response())
}

fn only(windows: &WindowSummaries, window: Option<Window>) -> WindowSummaries {
    let mut windows = windows.clone();
    windows.retain(|name, _| window.is_none_or(|wanted| wanted == *name));
    windows
}

async fn fleet(State(pages): State<Pages>) -> Result<Response, ApiError> {
    list(pages, Detail::Sums, "fleet", |shown| shown.snapshot.fleet.clone()).await
}

async fn nodes(State(pages): State<Pages>) -> Result<Response, ApiError> {
    list(pages, Detail::Rows, "nodes", |shown| shown.snapshot.nodes.clone()).await
}

async fn agents(State(pages): State<Pages>) -> Result<Response, ApiError> {
    list(
        pages,
        Detail::Rows,
        "agents",
        |shown| json!({ "connected": shown.agents, "windows": shown.windows }),
    )
    .await
}

async fn gpus(State(pages): State<Pages>, query: Filtered) -> Result<Response, ApiError> {
    let filter = filter(query)?;
    list(pages, Detail::Rows, "gpus", move |shown| {
        let gpus = shown.snapshot.gpus.iter();
        gpus.filter(|row| filter.takes_node(&row.node)).cloned().collect::<Vec<_>>()
    })
    .await
}

async fn gpu(State(pages): State<Pages>, Path(uuid): Path<String>) -> Result<Response, ApiError> {
    let shown = pages.shown(Detail::Rows).await?;
    // A GPU that was moved is seen on two nodes for a while: the newer sight counts.
    let rows = shown.snapshot.gpus.iter().filter(|row| row.identity.uuid.as_str() == uuid);
    let newest =
        rows.min_by(|a, b| a.age_seconds.total_cmp(&b.age_seconds).then_with(|| a.node.cmp(&b.node)));
    let Some(row) = newest.cloned() else {
        return Err(unknown(
            "GPU",
            &uuid,
            shown.snapshot.gpus.iter().map(|row| row.identity.uuid.to_string()),
        ));
    };
    list(pages, Detail::Rows, "gpu", |_| row).await
}

async fn engines(State(pages): State<Pages>, query: Filtered) -> Result<Response, ApiError> {
    let filter = filter(query)?;
    let Some(window) = filter.window()? else {
        return list(pages, Detail::Rows, "engines", move |shown| {
            let engines = shown.snapshot.engines.iter();
            engines.filter(|row| filter.takes_engine(row)).cloned().collect::<Vec<_>>()
        })
        .await;
    };
    let shown = pages.shown(Detail::Rows).await?;
    let rows = shown.snapshot.engines.iter().filter(|row| filter.takes_engine(row));
    let keys: Vec<_> = rows.map(|row| (row.node.clone(), row.identity.id.clone())).collect();
    if keys.len() > MAX_DETAILED {
        return Err(ApiError::bad_request(
            format!("{} engines are too many to be shown with their windows", keys.len()),
            format!("narrow them down to {MAX_DETAILED} by ?node=, ?model= or ?pool=, or leave out ?window="),
        ));
    }
    let details = ask_engines(&pages, keys, Some(window)).await?;
    list(pages, Detail::Rows, "engines", |_| details).await
}

async fn engine(
    State(pages): State<Pages>,
    Path((node, id)): Path<(String, String)>,
    query: Filtered,
) -> Result<Response, ApiError> {
    let window = filter(query)?.window()?;
    let key = NodeName::parse(&node).ok().zip(EngineId::parse(&id).ok());
    let details = ask_engines(&pages, key.into_iter().collect(), window).await?;
    let Some(detail) = details.into_iter().next() else {
        let shown = pages.shown(Detail::Rows).await?;
        let known = shown.snapshot.engines.iter().map(|row| format!("{}/{}", row.node, row.identity.id));
        return Err(unknown("engine", &format!("{node}/{id}"), known));
    };
    list(pages, Detail::Sums, "engine", |_| detail).await
}

async fn ask_engines(
    pages: &Pages,
    keys: Vec<(NodeName, EngineId)>,
    window: Option<Window>,
) -> Result<Vec<EngineDetail>, ApiError> {
    let mut details = pages.ask(|reply| Question::Engines { keys, reply }).await?;
    for detail in &mut details {
        detail.windows.retain(|name, _| window.is_none_or(|wanted| wanted == *name));
    }
    Ok(details)
}

async fn pools(State(pages): State<Pages>, query: Filtered) -> Result<Response, ApiError> {
    let filter = filter(query)?;
    let window = filter.window()?;
    list(pages, Detail::Sums, "pools", move |shown| {
        let takes = |row: &&PoolRow| {
            filter.pool.as_ref().is_none_or(|wanted| *wanted == row.name)
                && filter
                    .model
                    .as_ref()
                    .is_none_or(|w| row.key.model.as_ref().is_some_and(|m| m.as_str() == w))
        };
        let rows = shown.snapshot.pools.iter().filter(takes);
        rows.map(|row| PoolRow { windows: only(&row.windows, window), ..row.clone() }).collect::<Vec<_>>()
    })
    .await
}

async fn models(State(pages): State<Pages>, query: Filtered) -> Result<Response, ApiError> {
    let window = filter(query)?.window()?;
    list(pages, Detail::Sums, "models", move |shown| {
        let rows = shown.snapshot.models.iter();
        rows.map(|row| ModelRow { windows: only(&row.windows, window), ..row.clone() }).collect::<Vec<_>>()
    })
    .await
}

async fn model(
    State(pages): State<Pages>,
    Path(name): Path<String>,
    query: Filtered,
) -> Result<Response, ApiError> {
    let window = filter(query)?.window()?;
    let row = find_model(&*pages.shown(Detail::Sums).await?, &name)?;
    list(pages, Detail::Sums, "model", move |_| ModelRow { windows: only(&row.windows, window), ..row }).await
}

fn find_model(shown: &Published, name: &str) -> Result<ModelRow, ApiError> {
    let models = &shown.snapshot.models;
    let found = models.iter().find(|row| row.model.as_str() == name).cloned();
    found.ok_or_else(|| unknown("model", name, models.iter().map(|row| row.model.to_string())))
}

async fn histogram(
    State(pages): State<Pages>,
    Path((name, distribution)): Path<(String, String)>,
    query: Filtered,
) -> Result<Response, ApiError> {
    let filter = filter(query)?;
    let window = filter.window()?.unwrap_or(Window::OneMinute);
    let row = find_model(&*pages.shown(Detail::Sums).await?, &name)?;
    let known = || row.totals.distributions.iter().map(|(key, _)| key.to_string());
    let key = parse_key(&distribution).ok_or_else(|| unknown("distribution", &distribution, known()))?;
    let model = ModelName::clone(&row.model);
    let found = pages.ask(|reply| Question::Histogram { model, key, window, reply }).await?;
    let found = found.ok_or_else(|| unknown("distribution", &distribution, known()))?;
    encode(&found, filter.encoding.as_deref().unwrap_or("base64"))
}

fn parse_key(name: &str) -> Option<DistributionKey> {
    let (kind, source) =
        name.strip_suffix("_exact").map_or((name, Source::Bucketed), |kind| (kind, Source::Exact));
    let kind = DistributionKind::ALL.iter().copied().find(|known| known.as_str() == kind)?;
    Some(DistributionKey { kind, source })
}

/// HdrHistogram V2 with deflate, in the unit of the fleet's layout: microseconds or tokens.
fn encode(histogram: &LatencyHistogram, encoding: &str) -> Result<Response, ApiError> {
    let bytes = histogram.to_v2_deflate().map_err(|error| ApiError {
        status: StatusCode::INTERNAL_SERVER_ERROR,
        error: format!("the histogram can't be encoded: {error}"),
        hint: "this is a bug of the planner, please report it".to_owned(),
    })?;
    match encoding {
        "bytes" => Ok(([(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response()),
        "base64" => Ok(base64::engine::general_purpose::STANDARD.encode(bytes).into_response()),
        other => {
            let error = format!("there is no encoding '{other}'");
            Err(ApiError::bad_request(error, "there are base64 (as histogram logs have it) and bytes"))
        }
    }
}

/// 404, with the names that there are.
fn unknown(what: &str, name: &str, known: impl Iterator<Item = String>) -> ApiError {
    let mut known: Vec<String> = known.take(MAX_NAMED + 1).collect();
    let more = if known.len() > MAX_NAMED { ", …" } else { "" };
    known.truncate(MAX_NAMED);
    let hint = if known.is_empty() {
        "there is none yet".to_owned()
    } else {
        format!("there are {}{more}", known.join(", "))
    };
    ApiError::not_found(format!("there is no {what} '{name}'"), hint)
}

//! One page of a front-end, or the same from a Prometheus server: bounded in size and time.

use std::{fmt, time::Duration};

use hyper::Uri;
use plimsoll_pages::exposition::{Entry, Limits, read};
use serde::Deserialize;

use super::tally::{Reader, Values};
use crate::http_get::get;

/// What was read of a page, or why it was not.
pub(super) type Fetched = Result<Values, String>;

/// Where a front-end's metrics are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// Its own page.
    Page(Uri),
    /// A Prometheus server that has it, by its base URL without a slash at the end.
    Prometheus(String),
}

impl Place {
    pub(super) fn page(url: &str) -> Result<Self, String> {
        Ok(Self::Page(uri(url)?))
    }

    pub(super) fn prometheus(url: &str) -> Result<Self, String> {
        uri(url)?;
        Ok(Self::Prometheus(url.trim_end_matches('/').to_owned()))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Page(page) => write!(f, "{page}"),
            Self::Prometheus(server) => f.write_str(server),
        }
    }
}

fn uri(url: &str) -> Result<Uri, String> {
    let parsed: Uri = url.parse().map_err(|error| format!("'{url}' is no URL: {error}"))?;
    if parsed.scheme_str() == Some("http") && parsed.host().is_some() {
        Ok(parsed)
    } else {
        Err(format!("'{url}' is not http://HOST:PORT/…: nothing else is read"))
    }
}

/// Reads one place, no longer than `patience` altogether.
pub(super) async fn fetch(place: &Place, reader: &Reader, patience: Duration) -> Fetched {
    let reading = async {
        match place {
            Place::Page(uri) => {
                let page = get(uri.clone()).await.map_err(|error| format!("{error:#}"))?;
                of_page(&page, reader)
            }
            Place::Prometheus(server) => {
                let mut series = Vec::new();
                for selector in reader.selectors() {
                    let query = format!("{server}/api/v1/query?query={}", percent(&selector));
                    let answer = get(uri(&query)?).await.map_err(|error| format!("{error:#}"))?;
                    series.extend(of_answer(&answer)?);
                }
                Ok(reader.values(&series))
            }
        }
    };
    let late = |_| Err(format!("no answer within {} s", patience.as_secs_f64()));
    tokio::time::timeout(patience, reading).await.unwrap_or_else(late)
}

fn of_page(page: &[u8], reader: &Reader) -> Fetched {
    let lines = read(page, Limits::default()).map_err(|error| error.to_string())?;
    let samples = lines.filter_map(Entry::into_sample);
    let taken = samples.filter(|sample| {
        reader.takes(|label| sample.labels.get(label).map(|value| value.text().into_owned()))
    });
    let series: Vec<_> =
        taken.map(|sample| (sample.name.to_owned(), sample.labels.raw().to_owned(), sample.value)).collect();
    Ok(reader.values(&series))
}

/// The answer of `/api/v1/query`, as far as it matters.
#[derive(Debug, Deserialize)]
struct Answer {
    status: String,
    #[serde(default)]
    error: String,
    data: Option<Data>,
}

#[derive(Debug, Deserialize)]
struct Data {
    result: Vec<Series>,
}

#[derive(Debug, Deserialize)]
struct Series {
    metric: std::collections::BTreeMap<String, String>,
    /// A time, and the value as text.
    value: (f64, String),
}

/// The series of an answer: name, labels as text, value.
fn of_answer(answer: &[u8]) -> Result<Vec<(String, String, f64)>, String> {
    let answer: Answer =
        serde_json::from_slice(answer).map_err(|error| format!("it is no answer of Prometheus: {error}"))?;
    let Some(data) = answer.data.filter(|_| answer.status == "success") else {
        return Err(format!("Prometheus refuses: {}", answer.error));
    };
    let series = data.result.into_iter().filter_map(|mut series| {
        let name = series.metric.remove("__name__")?;
        let labels: Vec<String> =
            series.metric.iter().map(|(label, value)| format!("{label}={value:?}")).collect();
        Some((name, labels.join(","), series.value.1.parse().ok()?))
    });
    Ok(series.collect())
}

/// A query as a part of a URL (RFC 3986).
fn percent(text: &str) -> String {
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().fold(String::with_capacity(text.len() * 2), |mut out, byte| {
        if unreserved(byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        out
    })
}

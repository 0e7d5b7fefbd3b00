//! The families of the HTTP server's middleware.

use std::collections::BTreeMap;

use crate::{
    api::{HttpStats, Sizes},
    clock::Clock,
    page::text::{Label, Page},
};

/// Writes every HTTP family.
pub(crate) fn write(page: &mut Page, stats: &HttpStats, clock: &Clock) {
    requests(page, stats, clock);
    let sizes = &stats.request_sizes;
    summary(page, "http_request_size_bytes", "Content-Length of requests, by handler.", sizes, clock);
    let sizes = &stats.response_sizes;
    summary(page, "http_response_size_bytes", "Content-Length of responses, by handler.", sizes, clock);
    let (name, help) = ("http_request_duration_highr_seconds", "Duration of requests, in many buckets.");
    page.family(name, "histogram", help);
    page.histogram(name, &[], &[], &stats.durations);
    page.created(name, help, &[(Vec::new(), clock.unix_seconds(plimsoll_engine::Micros::ZERO))]);
    durations(page, stats, clock);
}

fn requests(page: &mut Page, stats: &HttpStats, clock: &Clock) {
    let (name, help) = ("http_requests_total", "Requests by handler, method and class of status.");
    page.family(name, "counter", help);
    let mut began = Vec::new();
    for ((handler, method, status), counted) in &stats.requests {
        let labels: Vec<Label<'_>> = vec![("handler", handler), ("method", method), ("status", status)];
        page.sample(name, &labels, counted.count as f64);
        began.push((labels, clock.unix_seconds(counted.since)));
    }
    page.created("http_requests", help, &began);
}

fn summary(page: &mut Page, name: &str, help: &str, sizes: &BTreeMap<String, Sizes>, clock: &Clock) {
    page.family(name, "summary", help);
    let mut began = Vec::new();
    for (handler, sizes) in sizes {
        let labels: Vec<Label<'_>> = vec![("handler", handler)];
        page.sample(&format!("{name}_count"), &labels, sizes.count as f64);
        page.sample(&format!("{name}_sum"), &labels, sizes.bytes as f64);
        began.push((labels, clock.unix_seconds(sizes.since)));
    }
    page.created(name, help, &began);
}

fn durations(page: &mut Page, stats: &HttpStats, clock: &Clock) {
    let (name, help) =
        ("http_request_duration_seconds", "Duration of requests by handler and method, in few buckets.");
    page.family(name, "histogram", help);
    let mut began = Vec::new();
    for ((handler, method), (histogram, since)) in &stats.durations_by_handler {
        let (before, after): ([Label<'_>; 1], [Label<'_>; 1]) =
            ([("handler", handler)], [("method", method)]);
        page.histogram(name, &before, &after, histogram);
        began.push(([before, after].concat(), clock.unix_seconds(*since)));
    }
    page.created(name, help, &began);
}
